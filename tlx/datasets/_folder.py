"""folder:PATH: images in one folder per class, with or without a folder per split above them."""
import os

import numpy as np
from etils import epath

from tlx.datasets._types import SUFFIXES, Examples, Info

_SPLITS = {'train': 'train', 'val': 'val', 'validation': 'val', 'test': 'test'}


def _folders(path: epath.Path) -> list[epath.Path]:
  return sorted((entry for entry in path.iterdir() if not entry.name.startswith('.') and entry.is_dir()), key=lambda e: e.name)


def _list_classes(path: epath.Path) -> dict[str, list[epath.Path]]:
  """{class: its image files}, both sorted by name."""
  classes = {}
  for folder in _folders(path):
    images = (f for f in folder.iterdir() if not f.name.startswith('.') and f.suffix.lower() in SUFFIXES)
    files = sorted(images, key=lambda f: f.name)
    if not files:
      raise ValueError(f'Class folder {folder} holds no image ({", ".join(SUFFIXES)}). Add images to it or remove it.')
    classes[folder.name] = files
  if not classes:
    raise ValueError(f'{path} holds no class folder. Want PATH/<class>/<image> or PATH/{{train,val,test}}/<class>/<image>.')
  return classes


def _list_splits(path: str) -> dict[str, dict[str, list[epath.Path]]]:
  """{split: {class: files}}; the only split is 'all' where the folder does not divide them."""
  root = epath.Path(path).expanduser()
  if not root.is_dir():
    raise ValueError(f'folder:{path} wants a folder, and {root} is not one. Check the path.')
  folders = {folder.name: folder for folder in _folders(root)}
  if 'train' not in folders or not _folders(folders['train']):  # 'train' may also be a class, among buses and ships
    return {'all': _list_classes(root)}
  if unknown := sorted(folders.keys() - _SPLITS):
    raise ValueError(f'{root} holds train/ and also {", ".join(unknown)}. '
                     'Beside train/ want only val/ (or validation/) and test/.')
  if {'val', 'validation'} <= folders.keys():
    raise ValueError(f'{root} holds both val/ and validation/. Keep one.')
  splits = {_SPLITS[name]: _list_classes(folder) for name, folder in folders.items()}
  everywhere = sorted(set().union(*splits.values()))
  for name, classes in splits.items():
    if missing := [c for c in everywhere if c not in classes]:
      raise ValueError(f'Split {name}/ of {root} lacks the classes {", ".join(missing)}, which other splits have. '
                       'Every split wants every class.')
  return splits


def describe(path: str) -> Info:
  """Classes and counts, from the listing.

  Raises:
    ValueError: no such folder, no class, an empty class, a class missing from a split, or a split of another name.
  """
  splits = _list_splits(path)
  num_examples = {split: sum(len(files) for files in classes.values()) for split, classes in splits.items()}
  return Info(tuple(next(iter(splits.values()))), num_examples)


def published(path: str) -> tuple[tuple[str, ...], dict[str, Examples]]:
  """(class names, the published splits); an id is the file's path within the folder."""
  splits = _list_splits(path)
  root = epath.Path(path).expanduser()

  def examples(classes: dict[str, list[epath.Path]]) -> Examples:
    listed = [file for files in classes.values() for file in files]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in classes.values()])
    return Examples(tuple(os.fspath(file.relative_to(root)) for file in listed), labels, lambda rows: [listed[i] for i in rows])

  return tuple(next(iter(splits.values()))), {split: examples(classes) for split, classes in splits.items()}
