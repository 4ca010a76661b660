"""csv:PATH/labels.csv: images listed in a table, a row each; or standing in it as pixels, as in FER-2013 (arXiv:1307.0414)."""
import csv
import io
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from tlx.datasets._types import SUFFIXES, Examples, Info

# The names that a column may have, whatever the case; of several the first is taken.
_NAMES = {
    'image': ('image', 'path', 'file', 'filename', 'file_name', 'filepath', 'file_path', 'image_path', 'image_id'),
    'pixels': ('pixels',),
    'label': ('label', 'class', 'category', 'emotion', 'expression', 'species', 'target'),
    'split': ('split', 'usage', 'subset'),
}
_SPLITS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'dev': 'val',
           'publictest': 'val', 'test': 'test', 'testing': 'test', 'privatetest': 'test'}  # FER-2013 has a public and a private test


class _Row(NamedTuple):
  id: str
  label: str
  split: str
  image: epath.Path | str  # a file, or its pixels


def _columns(file: epath.Path, header: Sequence[str]) -> dict[str, int]:
  """{'image' or 'pixels', 'label' and perhaps 'split': the place of that column}."""
  names = [name.strip().lower() for name in header]
  found = {kind: [name for name in accepted if name in names] for kind, accepted in _NAMES.items()}
  for kind, wanted in (('image', 'image'), ('label', 'label')):
    if not found[kind] and not (kind == 'image' and found['pixels']):
      raise ValueError(f'{file} has the columns {", ".join(names)}; wanted one for the {wanted}, named {", ".join(_NAMES[kind])}'
                       f'{" (or pixels)" if kind == "image" else ""}. Rename the one that is meant.')
  if len(found['label']) > 1 and found['label'][0] != 'label':  # taking the wrong one would go unnoticed
    raise ValueError(f"{file} has the columns {' and '.join(found['label'])}. Rename the one that is meant to 'label'.")
  if found['image']:
    found['pixels'] = []
  return {kind: names.index(accepted[0]) for kind, accepted in found.items() if accepted}


def _cells(file: epath.Path) -> Iterator[tuple[str, dict[str, str]]]:
  """('line 7 of FILE', {'image' or 'pixels', 'label', 'split'}) of each row."""
  with file.open('rb') as opened, io.TextIOWrapper(opened, 'utf-8-sig', newline='') as text:
    try:
      first = text.readline()
      delimiter = max(',;\t', key=first.count)
      header = next(csv.reader([first], delimiter=delimiter))
      columns = _columns(file, header)
      reader = csv.reader(text, delimiter=delimiter)
      for row in reader:
        where = f'line {reader.line_num + 1} of {file}'
        if row and len(row) != len(header):
          raise ValueError(f'{where} has {len(row)} fields, wanted {len(header)} as in the first line.')
        if row:
          yield where, {kind: row[i].strip() for kind, i in columns.items()}
    except (csv.Error, UnicodeDecodeError) as error:
      raise ValueError(f'Cannot read {file}: {error}. Want CSV in UTF-8 with a first line of column names.') from error


def _find(root: epath.Path, name: str, where: str) -> tuple[str, epath.Path]:
  """(id, file) of an image; an image_id often comes without the ending of its file."""
  inside = posixpath.normpath(name)
  if posixpath.isabs(name) or inside.split('/')[0] == '..':
    raise ValueError(f'{where} names the image {name!r}, which is outside {root}. Give paths relative to that folder.')
  for ending in ('',) if posixpath.splitext(name)[1].lower() in SUFFIXES else ('', *SUFFIXES):
    if (file := root / (inside + ending)).is_file():
      return inside + ending, file
  raise ValueError(f'{where} names the image {name!r}, and {root / inside} is no file. Add it or remove the line.')


def _read(path: str) -> list[_Row]:
  """All rows, checked; the split is 'all' where the table has no column for it."""
  file = epath.Path(path).expanduser()
  if not file.is_file():
    raise ValueError(f'csv:{path} wants a file, and {file} is none. Check the path.')
  rows: list[_Row] = []
  lines: dict[str, str] = {}  # where each id stands
  for where, cells in _cells(file):
    if empty := [kind for kind, cell in cells.items() if not cell]:
      raise ValueError(f'{where} has an empty {empty[0]}. Fill it in or remove the line.')
    split = _SPLITS.get(cells.get('split', 'train').lower(), '')
    if not split:
      raise ValueError(f'{where} has the split {cells["split"]!r}; have {", ".join(_SPLITS)}.')
    name, image = _find(file.parent, cells['image'], where) if 'image' in cells else (f'{len(rows):06d}', cells['pixels'])
    if name in lines:
      raise ValueError(f'{where} names the image {name!r}, as does {lines[name]}. Keep one.')
    lines[name] = where
    rows.append(_Row(name, cells['label'], split if 'split' in cells else 'all', image))
  if not rows:
    raise ValueError(f'{file} lists no image. Want a first line of column names and a line for every image.')
  trained = {row.label for row in rows if row.split in ('train', 'all')}
  if missing := [name for name in _classes(rows) if name not in trained]:
    raise ValueError(f'{file} has no training example of {", ".join(missing)}. Add some, or remove the class.')
  return rows


def _classes(rows: Sequence[_Row]) -> tuple[str, ...]:
  """The labels that occur, sorted: as numbers where all are."""
  names = {row.label for row in rows}
  numeric = all(re.fullmatch(r'-?\d+(\.\d+)?', name) for name in names)
  return tuple(sorted(names, key=lambda name: (float(name) if numeric else 0, name)))


def _as_file(row: _Row) -> bytes | epath.Path:
  """The row's image; its pixels, grey values 0 to 255 row by row, are put into the simplest of image files (PGM)."""
  if not isinstance(row.image, str):
    return row.image
  try:
    values = bytes(map(int, row.image.split()))
  except ValueError as error:
    raise ValueError(f'Cannot read the pixels of image {row.id}: {error}. Want whole numbers from 0 to 255.') from None
  size = round(len(values) ** 0.5)
  if size ** 2 != len(values):
    raise ValueError(f'Image {row.id} has {len(values)} pixels, which are no square. Repair or remove its line.')
  return b'P5 %d %d 255\n' % (size, size) + values


def describe(path: str) -> Info:
  """Classes and counts, from the table.

  Raises:
    ValueError: no such file, a missing column, or what is wrong in which line.
  """
  rows = _read(path)
  splits = [row.split for row in rows]
  return Info(_classes(rows), {split: splits.count(split) for split in ('all', 'train', 'val', 'test') if split in splits})


def published(path: str) -> tuple[tuple[str, ...], dict[str, Examples]]:
  """(class names, the published splits); an id is the file's path within the table's folder, or the number of the row."""
  rows = _read(path)
  classes = _classes(rows)
  number = {name: i for i, name in enumerate(classes)}

  def examples(split: str) -> Examples:
    part = [row for row in rows if row.split == split]
    labels = np.array([number[row.label] for row in part], np.int32)
    return Examples(tuple(row.id for row in part), labels, lambda some: [_as_file(part[i]) for i in some])

  return classes, {split: examples(split) for split in dict.fromkeys(row.split for row in rows)}
