"""Images with boxes around objects: what the files of several formats have in common."""

import concurrent.futures
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from PIL import Image

from tlx.datasets import _groups, _images
from tlx.datasets._types import (
  MOST_NAMED,
  SPLITS,
  SUFFIXES,
  UNREADABLE,
  Examples,
  Published,
  listing,
)

BEYOND = 1.0  # pixels by which a box may reach out of its image: rounding, which is cut off
_THREADS = 8


class Box(NamedTuple):
  """An object as a file has it.

  sides: x0, y0, x1, y1 in pixels of the image, continuous: it is x1 - x0 wide
  crowd: it is no single object (COCO's `iscrowd`) or is not judged (VOC's `difficult`)
  area: in square pixels; COCO gives that of the outline, elsewhere (None) it is that of the box
  where: the annotation, for errors
  """

  name: str
  sides: tuple[float, float, float, float]
  where: str
  crowd: bool = False
  area: float | None = None


class Annotated(NamedTuple):
  """An image of a file or folder, and its boxes.

  id: unique in the data set; file: where it is, what gives its bytes, or the error why there is
    none
  size: (width, height) in pixels as the annotations have it, (0, 0) where they do not say
  number: COCO's id of the image
  boxes: or, where the file has shares of the image instead of pixels, what makes them of its size
  """

  id: str
  file: Any
  part: str
  boxes: Sequence[Box] | Callable[[int, int], Sequence[Box]]
  size: tuple[float, float] = (0, 0)
  number: int | None = None


class Objects(NamedTuple):
  """Of one image: boxes float32 [n, 4] in its pixels, labels int32 [n], crowd and area float32 [n],
  its (width, height), and the number that COCO orders images by.
  """

  boxes: np.ndarray
  labels: np.ndarray
  crowd: np.ndarray
  area: np.ndarray
  size: tuple[int, int]
  image_id: int


def published(
  where: Any,
  images: Sequence[Annotated],
  class_names: Sequence[str],
  bad: Sequence[str] = (),
  group: str = '',
  skip_bad: bool = False,
  notes: Sequence[str] = (),
) -> Published:
  """The images with their boxes: each example has `Objects` as its value, and the label 0.

  A box may reach out of its image by a pixel, which is cut off. Images without boxes are examples
  of nothing to find.

  Args:
    class_names: in the order of their numbers.
    bad: what is wrong already; listed with the rest.
    skip_bad: leaves out boxes that are broken and images without a file, and says so.

  Raises:
    ValueError: all that is broken at once; no box; a class that only validation or test has.
  """
  bad = list(bad)
  known = dict.fromkeys(class_names)
  sizes = _sizes([image.file for image in images])
  kept: list[tuple[Annotated, tuple[int, int], list[Box]]] = []
  resized = []
  for image, size in zip(images, sizes):
    if isinstance(size, str):
      bad.append(f'{image.id}: {size}')
      continue
    if all(image.size) and image.size != size:
      told = f'{image.id} is {size[0]} x {size[1]} and not {image.size[0]:g} x {image.size[1]:g}'
      if image.size == size[::-1]:
        bad.append(f'{told}, as its annotations say: EXIF turns it. Turn the pixels themselves')
        continue
      resized.append(told)
    boxes = []
    for box in image.boxes(*size) if callable(image.boxes) else image.boxes:
      if wrong := _wrong(box, size, known):
        bad.append(f'{box.where} of {image.id} has {wrong}')
      else:
        boxes.append(box)
    kept.append((image, size, boxes))
  notes = (*notes, *_left_out(where, bad, skip_bad))
  if resized:
    notes += (
      f'{len(resized):,} images have another size than their annotations say, whose boxes are '
      f'taken as they are: {listing(resized)}.',
    )
  return _divided(where, kept, tuple(known), group, notes)


def _wrong(box: Box, size: tuple[int, int], known: Mapping[str, None]) -> str:
  """What is wrong with a box, or ''."""
  x0, y0, x1, y1 = box.sides
  if box.name not in known:
    return f'the unknown category {box.name!r}'
  if not np.isfinite(box.sides).all():
    return f'a box of {box.sides}, wanted numbers'
  if x1 <= x0 or y1 <= y0:
    return f'a box {x1 - x0:g} wide and {y1 - y0:g} high'
  if min(x0, y0) < -BEYOND or x1 > size[0] + BEYOND or y1 > size[1] + BEYOND:
    corners = ', '.join(f'{side:g}' for side in box.sides)
    return f'a box ({corners}) that reaches out of its image of {size[0]} x {size[1]}'
  if min(x1, size[0]) <= max(x0, 0) or min(y1, size[1]) <= max(y0, 0):
    return 'a box outside its image'
  return ''


def _left_out(where: Any, bad: Sequence[str], skip_bad: bool) -> tuple[str, ...]:
  """What to say of broken annotations that are left out.

  Raises:
    ValueError: they may not be: all of them.
  """
  if not bad:
    return ()
  if skip_bad:
    return (f'{len(bad):,} broken annotations are left out (skip_bad): {listing(bad)}.',)
  more = f'\n  and {len(bad) - MOST_NAMED:,} more' if len(bad) > MOST_NAMED else ''
  raise ValueError(
    f'{len(bad):,} annotations of {where} cannot be used:\n  '
    + '\n  '.join(bad[:MOST_NAMED])
    + more
    + '\nRepair them, or leave these boxes (and images that cannot be read) out: skip_bad = True '
    'in the target.'
  )


def _divided(
  where: Any,
  kept: Sequence[tuple[Annotated, tuple[int, int], list[Box]]],
  known: Sequence[str],
  group: str,
  notes: tuple[str, ...],
) -> Published:
  """The parts of a data set, each in the order of its ids, so that every format gives one; 'all'
  where nothing divides it.
  """
  kept = sorted(kept, key=_id)
  have = {image.part for image, _, _ in kept}
  parts: list[str] = [part for part in ('all', 'train', 'val', 'test') if part in have]
  counts: dict[str, Counter[str]] = {part: Counter() for part in parts}
  for image, _, boxes in kept:
    counts[image.part].update(box.name for box in boxes)
  there = [name for name in known if any(of_part[name] for of_part in counts.values())]
  if not there:
    raise ValueError(f'{where} has no box. Want images with objects to find.')
  trained = counts['train' if 'train' in counts else 'all']
  if missing := [name for name in there if not trained[name]]:
    raise ValueError(
      f'{where}: no training image has {listing(missing)}, which validation or test have. Divide '
      'the images anew, or remove these boxes.'
    )
  if unused := [name for name in known if name not in there]:
    notes += (f'No box is of the classes {listing(unused)}.',)
  number = {name: i for i, name in enumerate(known)}
  splits = {}
  for part in parts:
    of_part = [(image, size, boxes) for image, size, boxes in kept if image.part == part]
    splits[part] = _examples(of_part, number, group)
    empty = sum(not boxes for _, _, boxes in of_part)
    if empty:
      notes += (f'{empty:,} of {len(of_part):,} images of {part} have no box.',)
  return Published(tuple(known), splits, notes)


def _id(kept: tuple[Annotated, tuple[int, int], list[Box]]) -> str:
  return kept[0].id


def _examples(
  images: Sequence[tuple[Annotated, tuple[int, int], list[Box]]],
  number: Mapping[str, int],
  group: str,
) -> Examples:
  ids = tuple(image.id for image, _, _ in images)
  numbers = [image.number for image, _, _ in images]
  usable = len(set(numbers)) == len(numbers)
  for given in numbers:
    usable &= given is not None and 0 <= given < 2**31
  values = np.empty(len(images), object)
  for row, (image, size, boxes) in enumerate(images):
    image_id = image.number if usable and image.number is not None else row + 1
    values[row] = _objects(boxes, number, size, image_id)
  files = [image.file for image, _, _ in images]
  groups = _groups.matched(group, ids) if group else ()
  labels = np.zeros(len(ids), np.int32)

  def read(rows: Sequence[int]) -> list[Any]:
    found = [files[row] for row in rows]
    return [file() if callable(file) else file for file in found]

  return Examples(ids, labels, read, groups, values)


def _objects(
  boxes: Sequence[Box], number: Mapping[str, int], size: tuple[int, int], image_id: int
) -> Objects:
  sides = np.array([box.sides for box in boxes], np.float32).reshape(-1, 4)
  sides = np.clip(sides, 0, np.array([*size, *size], np.float32))
  of_boxes = (sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1])
  areas = [box.area if box.area is not None else area for box, area in zip(boxes, of_boxes)]
  return Objects(
    sides,
    np.array([number[box.name] for box in boxes], np.int32),
    np.array([box.crowd for box in boxes], np.float32),
    np.array(areas, np.float32),
    size,
    image_id,
  )


def letterboxed(splits: Mapping[str, Examples], side: int) -> dict[str, Examples]:
  """The parts, whose images stand in squares of `side` pixels as fit 'pad' makes them, with arrays
  of boxes as their values, all for as many boxes as an image has at most.

  Raises:
    ValueError: a part has nothing to find.
  """
  for part, split in splits.items():
    if not any((objects.crowd == 0).any() for objects in split.values):
      raise ValueError(
        f'None of the {len(split.ids):,} images of {part} has an object to find, crowds and '
        'difficult ones apart: there is nothing to learn, or no AP. Divide the images anew, or '
        'give this part more of them.'
      )
  counts = [len(objects.labels) for split in splits.values() for objects in split.values]
  made = {}
  for part, split in splits.items():
    found = [_letterboxed(objects, side, max(counts)) for objects in split.values]
    arrays = {name: np.stack([one[name] for one in found]) for name in found[0]}
    made[part] = split._replace(values=arrays)
  return made


def frame(size: tuple[int, int], side: int) -> np.ndarray:
  """float32 [5]: scale, pad_x, pad_y, width, height of an image in a square of `side` pixels.

  A point of the image stands at point * scale + pad. Pixels follow this but for rounding: an image
  is resized to whole pixels, so its far edge may be half a pixel off.
  """
  width, height = size
  scale = side / max(size)
  pads = [(side - max(1, round(scale * length))) // 2 for length in size]
  return np.array([scale, *pads, width, height], np.float32)


def _letterboxed(objects: Objects, side: int, most: int) -> dict[str, Any]:
  """The arrays of one image, filled up with zeros to `most` boxes."""
  of_image = frame(objects.size, side)
  count = len(objects.labels)
  boxes = np.zeros((most, 4), np.float32)
  boxes[:count] = objects.boxes * of_image[0] + np.tile(of_image[1:3], 2)
  arrays = {'boxes': boxes, 'frame': of_image, 'image_id': np.int32(objects.image_id)}
  filled = {
    'labels': objects.labels,
    'valid': np.ones(count, np.float32),
    'crowd': objects.crowd,
    'area': objects.area,
  }
  for name, leaf in filled.items():
    arrays[name] = np.concatenate([leaf, np.zeros(most - count, leaf.dtype)])
  return arrays


def _sizes(files: Sequence[Any]) -> list[tuple[int, int] | str]:
  """(width, height) of image files as they are turned by EXIF, or what is wrong with each."""
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool, _images.without_warnings():
    return list(pool.map(size_of, files))


def size_of(file: Any) -> tuple[int, int] | str:
  """(width, height) of an image file as EXIF turns it, pixels unread; or what is wrong with it."""
  if isinstance(file, ValueError):
    return str(file)
  try:
    file = file() if callable(file) else file
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else os.fspath(file)) as opened:
      width, height = opened.size
      return (height, width) if _images.orientation(opened) >= 5 else (width, height)
  except Exception as error:  # as in decode_all
    return f'it cannot be read: {str(error) or type(error).__name__}'


class Files:
  """The image files below a folder, to be found by the names that annotations give."""

  def __init__(self, root: epath.Path):
    self.root = root
    self.images: list[epath.Path] = []
    self.others: list[epath.Path] = []
    for folder, inner, names in root.walk():
      inner[:] = sorted(
        name for name in inner if not name.startswith('.') and not os.path.islink(folder / name)
      )
      for name in sorted(names):
        if not name.startswith('.'):
          is_image = name.lower().endswith((*SUFFIXES, *UNREADABLE))
          (self.images if is_image else self.others).append(folder / name)
    self._by_stem: dict[str, list[epath.Path]] = {}
    for file in self.images:
      self._by_stem.setdefault(file.stem, []).append(file)

  def of_stem(self, stem: str, beside: epath.Path) -> epath.Path | ValueError:
    """The image of that name without its ending; of several the one in the part, and nearest to
    the folder, of the file `beside`.
    """
    found = self._by_stem.get(stem, [])
    part = self.part(beside)
    found = [file for file in found if self.part(file) == part] or found
    near = [len(os.path.commonpath([file, beside])) for file in found]
    nearest = [file for file, length in zip(found, near) if length == max(near)]
    if len(nearest) > 1:
      names = listing([self.name(file) for file in nearest])
      return ValueError(f'{self.name(beside)} may mean {names}')
    return nearest[0] if nearest else ValueError(f'{self.name(beside)} has no image {stem}')

  def name(self, file: epath.Path) -> str:
    """The path below the root; bytes that are no UTF-8 are written out."""
    return os.fsencode(file.relative_to(self.root)).decode('utf-8', 'backslashreplace')

  def part(self, file: epath.Path) -> str:
    """The part that a folder above the file is named after, or ''."""
    return part_of(file.relative_to(self.root).parts[:-1])


def part_of(names: Iterable[str]) -> str:
  """The part that one of these names says, or ''; years may follow: 'train2017'."""
  parts = [SPLITS.get(name.lower().rstrip('0123456789'), '') for name in names]
  return next(filter(None, parts), '')


def whole_or_divided(where: Any, images: Sequence[Annotated]) -> list[Annotated]:
  """The images, all of the part 'all' where none says its own.

  Raises:
    ValueError: some say one and others do not, or none is for training.
  """
  without = [image.id for image in images if not image.part]
  if len(without) == len(images):
    return [image._replace(part='all') for image in images]
  if without:
    raise ValueError(
      f'{where}: {len(without):,} images are in no part, as {without[0]}, and others are. Put all '
      'into train/, val/ and test/, or none.'
    )
  if not any(image.part == 'train' for image in images):
    raise ValueError(f'{where} has no part train. Want train, and perhaps val and test.')
  return list(images)
