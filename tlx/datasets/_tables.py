"""What tables of images and records of texts share: columns by their usual names, rows of CSV,
lines that cannot be used.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from tlx.datasets import _groups
from tlx.datasets._types import in_order, is_file, listing

# The names that a column may have, whatever the case; of several the first is taken.
SPLIT = ('split', 'usage', 'subset')
GROUP = (
  'group',
  'group_id',
  'subject',
  'subject_id',
  'patient',
  'patient_id',
  'person',
  'person_id',
)
_MISSING = ('', 'nan', 'null', '<na>', 'n/a', '#n/a')  # what programs write for no value


def find(kind: str, path: str) -> epath.Path:
  """The file of the data set `kind:path`.

  Raises:
    ValueError: there is none.
  """
  file = epath.Path(path).expanduser()
  if not is_file(file):
    raise ValueError(f'{kind}:{path} wants a file, and {file} is none. Check the path.')
  return file


def columns(
  file: epath.Path, header: Sequence[str], accepted: Mapping[str, Sequence[str]], group: str
) -> dict[str, str]:
  """{kind: the column, as the header has it} for every kind of `accepted` that the header has a
  name for.

  Args:
    accepted: {kind: names in lower case}; 'label' and 'group' are held to be one column each.
    group: the column that names the groups, or a pattern; '' is one of the usual names.

  Raises:
    ValueError: two columns of which either may be the label or the group, or a `group` that is
      neither a column nor a pattern.
  """
  theirs: dict[str, str] = {}
  for name in header:
    theirs.setdefault(name.strip().lower(), name)
  found = {kind: [name for name in names if name in theirs] for kind, names in accepted.items()}
  labels = found.get('label', [])
  if len(labels) > 1 and labels[0] != 'label':  # taking the wrong one would go unnoticed
    raise ValueError(
      f"{file} has the columns {' and '.join(labels)}. Rename the one that is meant to 'label'."
    )
  if group.lower() in theirs:
    found['group'] = [group.lower()]
  elif group:
    _groups.check(group, tuple(theirs))
    found['group'] = []
  if len(found['group']) > 1:
    raise ValueError(
      f'{file} has the columns {" and ".join(found["group"])}. '
      f'Say which names the groups: group = {found["group"][0]!r}.'
    )
  return {kind: theirs[names[0]] for kind, names in found.items() if names}


def value(cell: str) -> str:
  """A cell without the spaces around it, '' where it stands for no value."""
  stripped = cell.strip()
  return '' if stripped.lower() in _MISSING else stripped


def header(file: epath.Path, first: str) -> tuple[str, list[str]]:
  """(the delimiter of a table: a comma, semicolon or tab; its columns) by its first line.

  Raises:
    ValueError: the line is none of CSV.
  """
  delimiter = max(',;\t', key=first.count)
  try:
    return delimiter, next(csv.reader([first], delimiter=delimiter), [])
  except csv.Error as error:
    raise ValueError(
      f'Cannot read {file}: {error}. Want CSV in UTF-8 with a first line of column names.'
    ) from error


class Row(NamedTuple):
  """A row of CSV: the line that it ends on, its cells, and what is wrong with it or ''."""

  line: int
  cells: list[str]
  wrong: str


def rows(lines: Iterable[str], delimiter: str, width: int) -> Iterator[Row]:
  """The rows below the first line of a table; empty lines are passed over."""
  reader = csv.reader(lines, delimiter=delimiter, strict=True)
  while True:
    before = reader.line_num
    try:
      cells = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      yield Row(reader.line_num + 1, [], f'broken quotes or fields: {error}')
      continue
    wrong = ''
    if len(cells) != width:
      wrong = f'{len(cells)} fields, wanted {width} as in the first line'
    elif delimiter == '\t' and reader.line_num > before + 1:
      wrong = f'a quote that is open since line {before + 2}'  # a stray one would swallow rows
    if ''.join(cells).strip() or len(cells) > 1:  # a line of blanks is none
      yield Row(reader.line_num + 1, cells, wrong)  # the first line was read before


def left_out(file: epath.Path, bad: Sequence[str], skip_bad: bool, most: int) -> tuple[str, ...]:
  """The note on the lines that cannot be used; () where all can.

  Raises:
    ValueError: which cannot, up to `most` of them, where they may not be skipped.
  """
  if not bad:
    return ()
  if skip_bad:
    return (f'{len(bad):,} lines are left out (skip_bad): {listing(bad)}.',)
  more = f'\n  and {len(bad) - most:,} more' if len(bad) > most else ''
  raise ValueError(
    f'{len(bad):,} lines of {file} cannot be used:\n  '
    + '\n  '.join(bad[:most])
    + more
    + '\nRepair or remove them, or leave them out: skip_bad = True in the target.'
  )


def check_trained(where: object, labels: Iterable[str], trained: set[str]) -> None:
  """Raises ValueError where a class has no training example."""
  if missing := [name for name in in_order(labels) if name not in trained]:
    raise ValueError(
      f'{where} has no training example of {", ".join(missing)}. Add some, or remove the class.'
    )
