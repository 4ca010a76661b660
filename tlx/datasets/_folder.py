"""folder:PATH: images in one folder per class, with or without a folder per split above them."""

import os

import numpy as np
from etils import epath

from tlx.datasets import _csv, _groups
from tlx.datasets._types import (
  SPLITS,
  SUFFIXES,
  UNREADABLE,
  Examples,
  Published,
  in_order,
  is_file,
  listing,
)

_GROUPS = 'groups.csv'


_OF_ARCHIVES = '__MACOSX'  # what a Mac adds to a zip; its images are none


def _folders(path: epath.Path) -> list[epath.Path]:
  return sorted(
    (entry for entry in path.iterdir() if not _is_hidden(entry.name) and entry.is_dir()),
    key=lambda e: e.name,
  )


def _is_hidden(name: str) -> bool:
  return name.startswith('.') or name == _OF_ARCHIVES


def _walk(path: epath.Path) -> tuple[list[epath.Path], list[epath.Path]]:
  """(images, what is no image) at any depth, each sorted by path. Hidden folders and links to
  folders are not entered.
  """
  images: list[epath.Path] = []
  others: list[epath.Path] = []
  for folder, inner, names in path.walk():
    closed = [name for name in inner if _is_hidden(name) or os.path.islink(folder / name)]
    inner[:] = [name for name in inner if name not in closed]
    others += [folder / name for name in closed]
    for name in names:
      is_image = not name.startswith('.') and name.lower().endswith((*SUFFIXES, *UNREADABLE))
      (images if is_image else others).append(folder / name)
  return sorted(images, key=os.fspath), sorted(others, key=os.fspath)


def _list_classes(
  path: epath.Path, skip_bad: bool
) -> tuple[dict[str, list[epath.Path]], list[epath.Path]]:
  """({class: its image files}, the files that are not read). A folder without an image is among
  the latter where what is bad is skipped.
  """
  found = {}
  for folder in _folders(path):
    if parts := [inner.name for inner in _folders(folder) if inner.name.lower() in SPLITS]:
      raise ValueError(
        f'Class folder {folder} holds {", ".join(parts)}. Parts go above classes: '
        f'PATH/{{train,val,test}}/<class>/<image>.'
      )
    found[folder.name] = _walk(folder)
  empty = [name for name, (images, _) in found.items() if not images]
  if skip_bad and len(found) - len(empty) > 1:
    for name in empty:
      del found[name]
  for name, (images, others) in found.items():
    if not images:
      there = f', but {listing([file.name for file in others])}' if others else ''
      raise ValueError(
        f'Class folder {path / name} holds no image ({", ".join(SUFFIXES)}){there}. Add images to '
        'it, remove it, or leave it out: skip_bad = True in the target.'
      )
  if not found:
    raise ValueError(
      f'{path} holds no class folder. Want PATH/<class>/<image> or '
      f'PATH/{{train,val,test}}/<class>/<image>.'
    )
  stray = [entry for entry in path.iterdir() if entry.name not in found]
  return {name: found[name][0] for name in in_order(found)}, sum(
    (others for _, others in found.values()), stray
  )


def _list_splits(
  root: epath.Path, skip_bad: bool
) -> tuple[dict[str, dict[str, list[epath.Path]]], list[epath.Path]]:
  """({split: {class: files}}, the files that are not read); the only split is 'all' where the
  folder does not divide them.
  """
  folders = {folder.name: folder for folder in _folders(root)}
  divided = [
    name for name, folder in folders.items() if name.lower() in SPLITS and _folders(folder)
  ]
  if not divided:  # 'train' may also be a class, among buses and ships
    classes, unread = _list_classes(root, skip_bad)
    return {'all': classes}, unread
  if unknown := [name for name in folders if name.lower() not in SPLITS]:
    raise ValueError(
      f'{root} holds {"/, ".join(divided)}/ and also {", ".join(unknown)}. '
      'Beside train/ want only val/ (or validation/) and test/.'
    )
  names = {SPLITS[name.lower()]: name for name in folders}
  if 'train' not in names or len(names) < len(folders):
    raise ValueError(
      f'{root} holds the parts {", ".join(folders)}. Want train/, and perhaps one val/ (or '
      'validation/) and one test/.'
    )
  splits = {}
  unread = [entry for entry in root.iterdir() if entry.name not in folders]
  for name, folder in folders.items():
    splits[SPLITS[name.lower()]], others = _list_classes(folder, skip_bad)
    unread += others
  everywhere = in_order(set().union(*splits.values()))
  for name, classes in splits.items():
    if missing := [c for c in everywhere if c not in classes]:
      raise ValueError(
        f'Split {name}/ of {root} lacks the classes {", ".join(missing)}, which other splits have. '
        'Every split wants every class.'
      )
  return splits, unread


def published(path: str, group: str = '', skip_bad: bool = False) -> Published:
  """The folder as it is listed; an id is the file's path within it. Groups are found in the ids, or
  in PATH/groups.csv.

  Raises:
    ValueError: no such folder, no class, an empty class, a class missing from a split, a split of
      another name, or an image without a group.
  """
  root = epath.Path(path).expanduser()
  if not root.is_dir():
    raise ValueError(f'folder:{path} wants a folder, and {root} is not one. Check the path.')
  _groups.check(group)
  listed, unread = _list_splits(root, skip_bad)
  of_image = _csv.groups(root / _GROUPS) if not group and is_file(root / _GROUPS) else {}
  unread = [file for file in unread if file != root / _GROUPS]

  def examples(classes: dict[str, list[epath.Path]]) -> Examples:
    images = [file for of_class in classes.values() for file in of_class]
    files = [os.fspath(file) for file in images]  # a path takes twice as much
    labels = np.repeat(
      np.arange(len(classes), dtype=np.int32), [len(of_class) for of_class in classes.values()]
    )
    ids = tuple(_id(file, root) for file in images)
    if missing := [name for name in ids if of_image and name not in of_image]:
      raise ValueError(
        f'{root / _GROUPS} has no group for {len(missing):,} images: {listing(missing)}. Add a '
        'line for each.'
      )
    groups = (
      tuple(of_image[name] for name in ids)
      if of_image
      else _groups.matched(group, ids)
      if group
      else ()
    )
    return Examples(ids, labels, lambda rows: [epath.Path(files[i]) for i in rows], groups)

  left = sorted(_id(file, root) for file in unread)
  notes = (
    (f"{len(left):,} of the folder's files are not read as images: {listing(left)}.",)
    if left
    else ()
  )
  return Published(
    tuple(next(iter(listed.values()))),
    {split: examples(classes) for split, classes in listed.items()},
    notes,
  )


def _id(file: epath.Path, root: epath.Path) -> str:
  """The path within the folder; bytes that are no UTF-8 are written out."""
  return os.fsencode(file.relative_to(root)).decode('utf-8', 'backslashreplace')
