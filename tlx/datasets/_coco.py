"""coco:PATH: boxes as COCO's files have them (Lin et al. 2014, arXiv:1405.0312)."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from tlx.datasets import _boxes
from tlx.datasets._types import Published, is_file, listing

_INSTANCES = 'instances_'  # COCO's own files of boxes, beside those of captions and of keypoints


def published(path: str, group: str = '', skip_bad: bool = False) -> Published:
  """The images of `coco:PATH`, as `_boxes.published` has them, which raises.

  PATH is a file of images, annotations and categories; or a folder of such files that say their
  part: train.json, val.json and test.json, instances_train2017.json in annotations/, or
  train/_annotations.coco.json. An image lies at its `file_name` beside the file of annotations, or
  in a folder next to it that has the name of the part or file, or in images/. An id is the part and
  that name. Classes are numbered in the order of their categories' ids, which may have gaps; one of
  several files is known by its name. `iscrowd` and `ignore` are crowds.

  Raises:
    ValueError: no such file, or one that is not COCO's.
  """
  root = epath.Path(path).expanduser()
  files = _files(root)
  images: list[_boxes.Annotated] = []
  bad: list[str] = []
  names: dict[str, None] = {}
  for file, part in files:
    found = _read(file)
    categories = _categories(file, found['categories'], bad)
    names |= dict.fromkeys(categories[number] for number in sorted(categories))
    images += _images(file, part, found, categories, bad)
  if len(files) > 1:
    images = _boxes.whole_or_divided(root, images)
  return _boxes.published(root, images, tuple(names), bad, group, skip_bad)


def _files(root: epath.Path) -> list[tuple[epath.Path, str]]:
  """[(file of annotations, its part)]; the part of one that stands alone is 'all'."""
  if not root.is_dir():
    if not is_file(root):
      raise ValueError(f'coco:{root} wants a file or folder, and there is none. Check the path.')
    return [(root, 'all')]
  found = [file for file in _boxes.Files(root).others if file.suffix.lower() == '.json']
  of_boxes = [file for file in found if file.name.startswith(_INSTANCES)] or found
  parts: dict[str, epath.Path] = {}
  for file in of_boxes:
    part = _part(file, root)
    if part and part in parts:
      raise ValueError(
        f'{root} holds {parts[part].relative_to(root)} and {file.relative_to(root)}, both of '
        f'{part}. Keep one, or name a file.'
      )
    if part:
      parts[part] = file
  if 'train' not in parts:
    names = listing([os.fspath(file.relative_to(root)) for file in found]) or 'no .json file'
    raise ValueError(
      f'{root} holds {names}. Want train.json, and perhaps val.json and test.json, or name a file '
      'that is to be divided: coco:FILE.json.'
    )
  return [(parts[part], part) for part in ('train', 'val', 'test') if part in parts]


def _part(file: epath.Path, root: epath.Path) -> str:
  """The part that a word of the file's name says, or else a folder above it; or ''."""
  words = file.stem.replace('-', '_').replace('.', '_').split('_')
  return _boxes.part_of(reversed(words)) or _boxes.part_of(file.relative_to(root).parts[:-1])


def _read(file: epath.Path) -> Mapping[str, Any]:
  try:
    found = json.loads(file.read_text())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{file} is no JSON: {error}') from None
  wanted = ('images', 'annotations', 'categories')
  lists = isinstance(found, dict) and all(isinstance(found.get(name), list) for name in wanted)
  if not lists:
    have = ', '.join(found) if isinstance(found, dict) else f'a {type(found).__name__}'
    raise ValueError(f'{file} has {have}; wanted lists of {", ".join(wanted)}, as COCO has them.')
  for name in wanted:
    if not all(isinstance(entry, dict) for entry in found[name]):
      raise ValueError(f'{file}: each of its {name} wants to be an object.')
  return found


def _categories(file: epath.Path, given: Sequence[Mapping], bad: list[str]) -> dict[Any, str]:
  """{id: name}."""
  names: dict[Any, str] = {}
  for category in given:
    number, name = category.get('id'), category.get('name')
    if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
      bad.append(f'{file.name}: the category {dict(category)} wants an id and a name')
    elif number in names or name in names.values():
      bad.append(f'{file.name}: two categories have the id {number} or the name {name!r}')
    else:
      names[number] = name
  return names


def _images(
  file: epath.Path,
  part: str,
  found: Mapping[str, Any],
  categories: Mapping[Any, str],
  bad: list[str],
) -> list[_boxes.Annotated]:
  """The images of a file, each with its boxes; adds to `bad` what is wrong."""
  boxes: dict[Any, list[_boxes.Box]] = {}
  of_id: dict[Any, Mapping[str, Any]] = {}
  seen: Counter[str] = Counter()
  for image in found['images']:
    number, name = image.get('id'), image.get('file_name')
    if isinstance(number, bool) or not isinstance(number, (int, str)) or not isinstance(name, str):
      bad.append(f'{file.name}: the image {dict(image)} wants an id and a file_name')
    elif number in of_id or seen[name]:
      bad.append(f'{file.name}: two images have the id {number!r} or the file {name}')
    else:
      of_id[number], boxes[number] = image, []
      seen[name] += 1
  for place, annotation in enumerate(found['annotations']):
    where = f'annotation {annotation.get("id", f"[{place}]")} of {file.name}'
    made = _box(annotation, where, categories)
    owner = annotation.get('image_id')
    if isinstance(made, str):
      bad.append(made)
    elif not isinstance(owner, (int, str)) or owner not in of_id:
      bad.append(f'{where} is of the unknown image {owner!r}')
    else:
      boxes[owner].append(made)
  folder = _folder(file, part, list(seen))
  return [
    _boxes.Annotated(
      f'{part}/{image["file_name"]}' if part != 'all' else image['file_name'],
      _image(folder, image['file_name']),
      part,
      boxes[number],
      _size(image),
      number if isinstance(number, int) else None,
    )
    for number, image in of_id.items()
  ]


def _box(
  annotation: Mapping[str, Any], where: str, categories: Mapping[Any, str]
) -> _boxes.Box | str:
  """The box, or what is wrong with it."""
  sides: Any = annotation.get('bbox')
  category, area = annotation.get('category_id'), annotation.get('area')
  numbers = isinstance(sides, list) and len(sides) == 4 and all(map(_is_number, sides))
  if not numbers:
    return f'{where} has the bbox {sides!r}, wanted [x, y, width, height]'
  if not isinstance(category, int) or category not in categories:
    return f'{where} is of the unknown category {category!r}'
  x, y, width, height = map(float, sides)
  return _boxes.Box(
    categories[category],
    (x, y, x + width, y + height),
    where,
    bool(annotation.get('iscrowd') or annotation.get('ignore')),
    float(area) if isinstance(area, (int, float)) else None,
  )


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _size(image: Mapping[str, Any]) -> tuple[Any, Any]:
  """(width, height) as the file has it; (0, 0) where it does not say."""
  width, height = (image.get(side) for side in ('width', 'height'))
  known = isinstance(width, (int, float)) and isinstance(height, (int, float))
  return (width, height) if known else (0, 0)


def _folder(file: epath.Path, part: str, names: Sequence[str]) -> epath.Path:
  """Where the images are: of the likely folders the first that has one of the first images."""
  of_file = file.stem.removeprefix(_INSTANCES)
  above = (file.parent, file.parent.parent)
  folders = [folder / name for folder in above for name in ('', of_file, part, 'images')]
  folders += [folder / 'images' / name for folder in above for name in (of_file, part)]
  for folder in folders:
    if any(is_file(folder / name) for name in names[:3] if not _leads_out(name)):
      return folder
  return file.parent


def _image(folder: epath.Path, name: str) -> epath.Path | ValueError:
  if _leads_out(name):
    return ValueError(f'its file_name leads out of {folder}')
  file = folder / name
  return file if is_file(file) else ValueError(f'there is no file {file}')


def _leads_out(name: str) -> bool:
  return os.path.isabs(name) or '..' in name.replace('\\', '/').split('/')
