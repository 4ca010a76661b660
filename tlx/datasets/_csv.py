"""csv:PATH/labels.csv: images listed in a table, a row each; or standing in it as pixels, as in
FER-2013 (arXiv:1307.0414).
"""

import io
import posixpath
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from tlx.datasets import _groups, _tables
from tlx.datasets._types import MOST_NAMED, SPLITS, SUFFIXES, Examples, Published, in_order, is_file

# The names that a column may have, whatever the case; of several the first is taken.
IMAGE = (
  'image',
  'path',
  'file',
  'filename',
  'file_name',
  'filepath',
  'file_path',
  'image_path',
  'image_id',
)
PIXELS = ('pixels',)
_NAMES = {
  'image': IMAGE,
  'pixels': PIXELS,
  'label': ('label', 'class', 'category', 'emotion', 'expression', 'species', 'target'),
  'split': _tables.SPLIT,
  'group': _tables.GROUP,
}


class _Row(NamedTuple):
  id: str
  label: str
  split: str
  group: str
  image: epath.Path | str  # a file, or its pixels


def _columns(
  file: epath.Path, header: Sequence[str], wanted: Sequence[str], group: str
) -> dict[str, int]:
  """{'image' or 'pixels', 'label', perhaps 'split' and 'group': the place of that column}.

  Args:
    wanted: which of these there must be.
    group: the column that names the groups; '' is one of the usual names, if there is one.
  """
  found = _tables.columns(file, header, _NAMES, group)
  for kind in wanted:
    if kind not in found and not (kind == 'image' and 'pixels' in found):
      raise no_column(file, header, kind)
  if 'image' in found:
    found.pop('pixels', None)
  return {kind: header.index(column) for kind, column in found.items()}


def no_column(file: epath.Path, header: Sequence[str], kind: str) -> ValueError:
  """The error of a table without a column for the 'image', 'label' or 'group' (of an image, nor
  for a text).
  """
  names = [name.strip().lower() for name in header]
  others = ' (or pixels), or one for a text, named text, sentence, ...' * (kind == 'image')
  return ValueError(
    f'{file} has the columns {", ".join(names)}; wanted one for the {kind}, named '
    f'{", ".join(_NAMES[kind])}{others}. Rename the one that is meant, or put a first line of '
    'column names above the rows.'
  )


def _cells(
  file: epath.Path, wanted: Sequence[str], group: str = ''
) -> Iterator[tuple[str, dict[str, str]]]:
  """('line 7 of FILE', {'image' or 'pixels', 'label', 'split', 'group'}) of each row; what is
  missing is ''.
  """
  with file.open('rb') as opened, io.TextIOWrapper(opened, 'utf-8-sig', newline='') as text:
    try:
      delimiter, header = _tables.header(file, text.readline())
      columns = _columns(file, header, wanted, group)
      for row in _tables.rows(text, delimiter, len(header)):
        where = f'line {row.line} of {file}'
        if row.wrong:
          raise ValueError(f'{where} has {row.wrong}.')
        yield where, {kind: _tables.value(row.cells[i]) for kind, i in columns.items()}
    except UnicodeDecodeError as error:
      raise ValueError(
        f'Cannot read {file}: {error}. Want CSV in UTF-8 with a first line of column names.'
      ) from error


def _find(root: epath.Path, name: str, where: str) -> tuple[str, epath.Path | None]:
  """(id, file) of an image, no file where there is none; an image_id often comes without the ending
  of its file.
  """
  inside = posixpath.normpath(name)
  if posixpath.isabs(name) or inside.split('/')[0] == '..':
    raise ValueError(
      f'{where} names the image {name!r}, which is outside {root}. Give paths relative to that '
      'folder.'
    )
  endings = ('', *SUFFIXES, *map(str.upper, SUFFIXES))
  for ending in endings[:1] if posixpath.splitext(name)[1].lower() in SUFFIXES else endings:
    if is_file(file := root / (inside + ending)):
      return inside + ending, file
  return inside, None


def _read(path: str, group: str, skip_bad: bool) -> tuple[list[_Row], tuple[str, ...]]:
  """(the rows that can be used, notes on the others); the split is 'all' where the table has no
  column for it.
  """
  file = _tables.find('csv', path)
  rows: list[_Row] = []
  bad: list[str] = []
  lines: dict[str, str] = {}  # where each id stands
  for number, (where, cells) in enumerate(_cells(file, ('image', 'label'), group)):
    if empty := [kind for kind, cell in cells.items() if not cell]:
      bad.append(f'{where} has an empty {empty[0]}')
      continue
    split = SPLITS.get(cells.get('split', 'train').lower(), '')
    if not split:
      raise ValueError(f'{where} has the split {cells["split"]!r}; have {", ".join(SPLITS)}.')
    name, image = (
      _find(file.parent, cells['image'], where)
      if 'image' in cells
      else (f'{number:06d}', cells['pixels'])
    )
    if image is None:
      bad.append(f'{where} names the image {cells["image"]!r}, and {file.parent / name} is no file')
      continue
    if name in lines:
      raise ValueError(f'{where} names the image {name!r}, as does {lines[name]}. Keep one.')
    lines[name] = where
    rows.append(
      _Row(
        name, cells['label'], split if 'split' in cells else 'all', cells.get('group', ''), image
      )
    )
  notes = _tables.left_out(file, bad, skip_bad, MOST_NAMED)
  if not rows:
    want = ' '.join(('Want a first line of column names and a line for every image.', *notes))
    raise ValueError(f'{file} lists no image. {want}')
  _tables.check_trained(
    file, [row.label for row in rows], {row.label for row in rows if row.split in ('train', 'all')}
  )
  if group and not rows[0].group:
    rows = [
      row._replace(group=found)
      for row, found in zip(rows, _groups.matched(group, [row.id for row in rows]))
    ]
  return rows, notes


def columns(file: epath.Path, header: Sequence[str], group: str = '') -> dict[str, str]:
  """{'image', 'pixels', 'label', 'split' or 'group': the column that is taken for it}.

  Raises:
    ValueError: two columns that may be the label or the group, or no such group.
  """
  return _tables.columns(file, header, _NAMES, group)


def groups(file: epath.Path) -> dict[str, str]:
  """{id: its group} from a table with a column for the image and one for its group.

  Raises:
    ValueError: a missing column, an empty cell, or an image that two lines name.
  """
  found: dict[str, str] = {}
  for where, cells in _cells(file, ('image', 'group')):
    for kind in ('image', 'group'):
      if not cells[kind]:
        raise ValueError(f'{where} has an empty {kind}. Fill it in or remove the line.')
    name = posixpath.normpath(cells['image'])
    if name in found:
      raise ValueError(f'{where} names the image {name!r} again. Keep one line.')
    found[name] = cells['group']
  return found


def _as_file(row: _Row) -> bytes | epath.Path | ValueError:
  """The row's image; its pixels, grey values 0 to 255 row by row, are put into the simplest of
  image files (PGM).
  """
  if not isinstance(row.image, str):
    return row.image
  try:
    values = bytes(map(int, row.image.split()))
  except ValueError as error:
    return ValueError(f'its pixels are no whole numbers from 0 to 255: {error}')
  size = round(len(values) ** 0.5)
  if size**2 != len(values):
    return ValueError(f'its {len(values)} pixels are no square')
  return b'P5 %d %d 255\n' % (size, size) + values


def published(path: str, group: str = '', skip_bad: bool = False) -> Published:
  """The table's rows; an id is the file's path within the table's folder, or the number of the row.

  Raises:
    ValueError: no such file, a missing column, or what is wrong in which lines.
  """
  rows, notes = _read(path, group, skip_bad)
  classes = in_order(row.label for row in rows)
  number = {name: i for i, name in enumerate(classes)}

  def examples(split: str) -> Examples:
    part = [row for row in rows if row.split == split]
    labels = np.array([number[row.label] for row in part], np.int32)
    of_group = tuple(row.group for row in part) if rows[0].group else ()
    return Examples(
      tuple(row.id for row in part),
      labels,
      lambda some: [_as_file(part[i]) for i in some],
      of_group,
    )

  return Published(
    classes, {split: examples(split) for split in dict.fromkeys(row.split for row in rows)}, notes
  )
