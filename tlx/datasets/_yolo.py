"""yolo:FOLDER: boxes as YOLO's programs have them, a text file an image."""

from collections.abc import Sequence

import yaml
from etils import epath

from tlx.datasets import _boxes
from tlx.datasets._types import Published, is_file

_NAMES = ('classes.txt', 'obj.names', '_darknet.labels')  # a name a line
_YAML = ('data.yaml', 'data.yml', 'dataset.yaml')


def published(path: str, group: str = '', skip_bad: bool = False) -> Published:
  """The images of `yolo:FOLDER`, as `_boxes.published` has them, which raises.

  FOLDER, or the data.yaml in it. The labels of images/train/a.jpg stand in labels/train/a.txt,
  those of train/images/a.jpg in train/labels/a.txt, or beside the image; a line an object: the
  number of its class, and the centre, width and height of the box as shares of the image's, or the
  corners of an outline. An image without such a file, or with an empty one, has nothing to find.
  Classes are the `names` of data.yaml, or lines of classes.txt; the paths of data.yaml are not
  read: parts are folders named train, val and test. An id is the path of the image, images/ left
  out.

  Raises:
    ValueError: no folder, no image, or no names of classes.
  """
  root = epath.Path(path).expanduser()
  if root.suffix.lower() in ('.yaml', '.yml') and is_file(root):
    root = root.parent
  if not root.is_dir():
    raise ValueError(f'yolo:{path} wants a folder, and {root} is none. Check the path.')
  files = _boxes.Files(root)
  if not files.images:
    raise ValueError(f'{root} holds no image. Want images/ and labels/ in it.')
  names = _names(root)
  images: list[_boxes.Annotated] = []
  bad: list[str] = []
  read: set[epath.Path] = set()
  others = set(files.others)
  for file in files.images:
    text = next((other for other in _texts(root, file) if other in others), None)
    lines = []
    if text is not None:
      read.add(text)
      lines = _lines(text, files.name(text), bad)
    boxes = _Boxes(lines, names)
    name = '/'.join(part for part in files.name(file).split('/') if part != 'images')
    images.append(_boxes.Annotated(name, file, files.part(file), boxes))
  for file in files.others:
    in_labels = 'labels' in file.relative_to(root).parts[:-1]
    is_text = file.suffix.lower() == '.txt' and file.name not in _NAMES
    if is_text and in_labels and file not in read:
      bad.append(f'{files.name(file)} is of no image')
  images = _boxes.whole_or_divided(root, images)
  return _boxes.published(root, images, names, bad, group, skip_bad)


class _Boxes:
  """The boxes of lines, for an image of (width, height)."""

  def __init__(self, lines: Sequence[tuple[str, int, list[float]]], names: Sequence[str]):
    self.lines, self.names = lines, names

  def __call__(self, width: int, height: int) -> list[_boxes.Box]:
    made = []
    for where, label, values in self.lines:
      if len(values) == 4:
        x, y, w, h = values
        sides = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
      else:
        sides = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
      name = self.names[label] if 0 <= label < len(self.names) else f'number {label}'
      x0, y0, x1, y1 = sides
      made.append(_boxes.Box(name, (x0 * width, y0 * height, x1 * width, y1 * height), where))
    return made


def _texts(root: epath.Path, image: epath.Path) -> list[epath.Path]:
  """Where the labels of an image may be."""
  parts = list(image.relative_to(root).with_suffix('.txt').parts)
  if 'images' in parts[:-1]:
    last = len(parts) - 2 - parts[-2::-1].index('images')
    parts[last] = 'labels'
  return [root.joinpath(*parts), image.with_suffix('.txt')]


def _lines(file: epath.Path, name: str, bad: list[str]) -> list[tuple[str, int, list[float]]]:
  """[(where it stands, number of the class, values)]; adds to `bad` what is none."""
  found = []
  try:
    lines = file.read_text().splitlines()
  except UnicodeDecodeError:
    bad.append(f'{name} has bytes that are not UTF-8')
    return []
  for number, line in enumerate(lines, 1):
    words = line.split()
    try:
      label, values = int(words[0]), [float(word) for word in words[1:]]
    except (ValueError, IndexError):
      label, values = -1, []
    if len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0):
      found.append((f'line {number} of {name}', label, values))
    elif words:
      bad.append(
        f'line {number} of {name} is {line[:80]!r}, wanted a class, the centre, width and height'
      )
  return found


def _names(root: epath.Path) -> tuple[str, ...]:
  """The names of the classes.

  Raises:
    ValueError: there are none, or they are not to be read.
  """
  for name in _YAML:
    if is_file(file := root / name):
      try:
        content = yaml.safe_load(file.read_text())
        names, points = content.get('names'), content.get('kpt_shape')
      except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f'{file} is no YAML with names: {error}') from None
      if points:  # which would be read as corners of an outline
        raise ValueError(
          f'{file} has kpt_shape: its lines hold points behind each box, and boxes alone are read. '
          'Take columns 1 to 5 of them, and kpt_shape out.'
        )
      if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
      if not isinstance(names, list) or not names:
        raise ValueError(f'{file} has the names {names!r}; wanted a list, or one for each number.')
      return _checked(file, [str(found) for found in names])
  for name in _NAMES:
    for file in (root / name, root / 'labels' / name):
      if is_file(file):
        lines = file.read_text().splitlines()
        return _checked(file, [line.strip() for line in lines if line.strip()])
  wanted = ', '.join((*_YAML[:1], *_NAMES))
  raise ValueError(f'{root} names no classes. Want one of {wanted}, whose n-th name is number n.')


def _checked(file: epath.Path, names: Sequence[str]) -> tuple[str, ...]:
  if len(set(names)) < len(names) or not all(map(str.strip, names)):
    raise ValueError(f'{file} names a class twice or not at all: {", ".join(names)}.')
  return tuple(names)
