"""Tables as people keep them: CSV of any encoding and delimiter, workbooks, titles above the
columns. What tlx/datasets reads by itself, UTF-8 with columns of its own names, needs none of this.
"""

import csv
import io
import itertools
import os
import pathlib
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import IO

import pandas as pd
from etils import epath

from tlx import datasets
from tlx.datasets import _lines
from tlx.sources._budget import Budget

WORKBOOKS = ('.xlsx', '.xlsm')  # what the extra `excel` reads
_MARKS = {b'\xef\xbb\xbf': 'utf-8-sig', b'\xff\xfe': 'utf-16', b'\xfe\xff': 'utf-16'}
_MOST_BAD = 5  # lines that are named
_LOOKED_AT = 20  # rows among which the one with the names of the columns is looked for
_MOST_CELLS = 2**25  # of rows as wide as the widest: a few bytes may name a cell far away
_MOST_COLUMNS = 2**14  # as workbooks have
_SMALLER = (
  f'Want {_MOST_COLUMNS:,} columns and {_MOST_CELLS:,} cells at most: leave out columns, or cells '
  'far from the others.'
)
_CP1252 = (
  'It is not UTF-8 and was read as the Windows of western Europe (cp1252). Where its letters are '
  'wrong, save it as UTF-8.'
)


def read(file: str | os.PathLike) -> tuple[pd.DataFrame, tuple[str, ...]]:
  """(a table of text cells, '' where there is nothing and without its empty rows, under the numbers
  of its rows as a spreadsheet counts them; what was left out, a line each).

  Raises:
    ValueError: it cannot be read.
  """
  path = pathlib.Path(file)
  if path.suffix.lower() in WORKBOOKS:
    rows, said = _of_workbook(path)
  elif path.name.lower().removesuffix('.gz').endswith('.jsonl'):
    return _of_lines(path)
  else:
    rows, said = _of_text(path)
  filled = [sum(bool(cell.strip()) for cell in row) for row in rows]
  widest = max(filled[:_LOOKED_AT], default=0)
  if not widest:
    raise ValueError(f'{path} holds no row.')
  first = next(place for place, count in enumerate(filled) if 2 * count > widest)
  if above := sum(count > 0 for count in filled[:first]):
    said += (f'{above:,} rows above the names of the columns are left out.',)
  places = [place for place in range(first + 1, len(rows)) if filled[place]]
  width = max(map(len, rows))
  if width > _MOST_COLUMNS or (len(places) + 1) * width > _MOST_CELLS:
    raise ValueError(f'{path} has {len(places):,} rows of up to {width:,} columns. {_SMALLER}')
  names = [name.strip() for name in _padded(rows[first], width)]
  body = [_padded(rows[place], width) for place in places]
  table = pd.DataFrame(body, [place + 1 for place in places], range(width), dtype=str)
  table.columns = [name or f'column {place}' for place, name in enumerate(names, 1)]
  kept = [place for place, name in enumerate(names) if name or (table.iloc[:, place] != '').any()]
  table = table.iloc[:, kept]
  if doubled := sorted(set(table.columns[table.columns.duplicated()])):
    raise ValueError(f'{path} has several columns {listed(doubled)}. Rename all but one.')
  return table, said


def is_utf8(file: pathlib.Path) -> bool:
  """Whether a text file is UTF-8, which alone tlx/datasets reads."""
  try:
    _bytes(file).decode()
  except UnicodeDecodeError:
    return False
  return True


def unlabelled(path: str | os.PathLike, text: Sequence[str] = ()) -> datasets.Unlabelled:
  """As datasets.unlabelled, of any table too: the texts of these columns, as the study's were made.

  Raises:
    ValueError: as datasets.unlabelled, or no such columns.
  """
  file = pathlib.Path(path).expanduser()
  name = file.name.lower().removesuffix('.gz')
  if not name.endswith(('.csv', '.tsv', '.jsonl', *WORKBOOKS)) or not file.is_file():
    if text:
      raise ValueError(f'--text={",".join(text)} names columns of a table, and {path} is none.')
    return datasets.unlabelled(path)
  if not text and not name.endswith(WORKBOOKS) and is_utf8(file):
    try:
      return datasets.unlabelled(path)
    except ValueError as error:
      raise ValueError(f'{error} Or say it by --text=COLUMN[,COLUMN].') from None
  table, notes = read(file)
  if not text and 'text' not in table.columns.str.lower():
    raise ValueError(
      f'{path} has the columns {listed(table.columns)}: which has the text? Say it by '
      '--text=COLUMN[,COLUMN].'
    )
  columns = [column(table, one, '--text') for one in text or ('text',)]
  if table.empty:
    raise ValueError(f'{path} holds no text.')
  records = [one if one.strip() else ValueError('no text') for one in texts(table, columns)]
  return datasets.Unlabelled('text', tuple(map(str, table.index)), records, notes)


def write(table: pd.DataFrame, file: str | os.PathLike) -> None:
  """A workbook of the table, in which names out of data that begin with '=' are text, no formulas.

  Raises:
    ImportError: openpyxl (extra `excel`) is not installed.
  """
  from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

  def legal(cell: object) -> object:
    return ILLEGAL_CHARACTERS_RE.sub('\ufffd', cell) if isinstance(cell, str) else cell

  with pd.ExcelWriter(file, engine='openpyxl') as writer:
    table.rename(columns=legal).map(legal).to_excel(writer, index=False)
    for row in next(iter(writer.sheets.values())).iter_rows():
      for cell in row:
        if cell.data_type == 'f':
          cell.data_type = 's'


def column(table: pd.DataFrame, name: str, flag: str) -> str:
  """The column of this name, whatever the case.

  Raises:
    ValueError: there is none.
  """
  found = [column for column in table.columns if column.lower() == name.strip().lower()]
  if not found:
    raise ValueError(f'{flag}={name}: there is no such column; have {listed(table.columns)}.')
  return found[0]


def texts(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
  """A text a row: what is not empty of these columns, joined by line feeds."""

  def joined(row: pd.Series) -> str:
    return '\n'.join(cell for cell in row if cell.strip())

  return table[list(columns)].apply(joined, axis=1)


def listed(names: Iterable[str], most: int = 12) -> str:
  """'a, b, c and 3 more'."""
  names = list(names)
  return ', '.join(names[:most]) + (f' and {len(names) - most:,} more' if names[most:] else '')


def _of_lines(path: pathlib.Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
  """The objects of lines of JSON under the numbers of their lines; one that is none is an empty
  row, and said.

  Raises:
    ValueError: none is one.
  """
  with _lines.opened(epath.Path(path)) as stream:
    columns, lines = _lines.jsonl(stream)
  bad = [f'line {line.number} of {path} has {line.wrong}' for line in lines if line.wrong]
  if len(bad) == len(lines):
    raise ValueError(f'{path} holds no object of JSON. {"; ".join(bad[:_MOST_BAD])}')
  rows = [[_cell(line.values.get(column)) for column in columns] for line in lines]
  table = pd.DataFrame(rows, [line.number for line in lines], columns, dtype=str)
  return table, (f'{len(bad):,} lines cannot be read: {listed(bad, _MOST_BAD)}.',) if bad else ()


def _of_workbook(path: pathlib.Path) -> tuple[list[list[str]], tuple[str, ...]]:
  """The rows of the longest sheet, and what was left out."""
  try:
    if zipfile.is_zipfile(path):
      with zipfile.ZipFile(path) as archive:
        Budget.of(path).members(archive)
    sheets = _of_openpyxl(path)
  except ImportError as error:
    raise ValueError(
      f"{path} is a workbook: pip install 'tlx-jax[excel]', or save its sheet as CSV. {error}"
    ) from None
  except Exception as error:  # a damaged workbook raises nearly anything
    raise ValueError(f'{path} cannot be read: {error}') from None
  name = max(sheets, key=lambda sheet: len(sheets[sheet]))
  others = [other for other in sheets if other != name and len(sheets[other])]
  said = f'Of the sheets the longest is read, {name}; not {listed(others)}: save those as CSV.'
  return sheets[name], (said,) if others else ()


def _of_openpyxl(path: pathlib.Path) -> dict[str, list[list[str]]]:
  """{sheet: its rows, each up to its last cell}, without the empty ones at the end.

  pandas, which makes all rows as wide as the widest, needs any amount of memory for one far cell.
  """
  import openpyxl  # extra `excel`

  book = openpyxl.load_workbook(path, read_only=True, data_only=True)
  sheets, count = {}, 0
  try:
    for sheet in book.worksheets:
      sheet.reset_dimensions()  # what the file says of them may be wrong
      rows: list[list[str]] = []
      for cells in sheet.iter_rows():
        count += 1 + len(cells)
        if count > _MOST_CELLS:
          raise ValueError(f'it has too many cells. {_SMALLER}')
        rows.append([_cell(None if cell.data_type == 'e' else cell.value) for cell in cells])
      while rows and not any(rows[-1]):
        rows.pop()
      sheets[sheet.title] = rows
  finally:
    book.close()
  return sheets


def _of_text(path: pathlib.Path) -> tuple[list[list[str]], tuple[str, ...]]:
  """The rows of a CSV, of UTF-8, UTF-16 with its mark or else the Windows of western Europe, which
  is said.
  """
  data = _bytes(path)
  try:
    text, said = _decoded(data)
    before = csv.field_size_limit(len(text) + 1)  # of the whole process
    try:
      stream = io.StringIO(text, newline='')
      delimiter = _delimiter(stream)
      stream.seek(0)
      return list(csv.reader(stream, delimiter=delimiter)), said
    finally:
      csv.field_size_limit(before)
  except (ValueError, csv.Error) as error:
    raise ValueError(f'{path} cannot be read: {error}') from None


def _delimiter(stream: IO[str]) -> str:
  """That which divides most of the first rows alike; of several that which makes more cells."""
  found = {}
  for one in ',;\t':
    stream.seek(0)
    first = itertools.islice(csv.reader(stream, delimiter=one), _LOOKED_AT)
    widths = Counter(len(row) for row in first if len(row) > 1)
    found[one] = max(((count, width) for width, count in widths.items()), default=(0, 0))
  return max(found, key=lambda one: found[one])


def _bytes(path: pathlib.Path) -> bytes:
  """What a file holds, unpacked.

  Raises:
    ValueError: a .gz is damaged, or unpacks to more than 64 MiB and 64 bytes for each of its own.
  """
  with _lines.opened(epath.Path(path)) as stream:
    return stream.read()


def _decoded(data: bytes) -> tuple[str, tuple[str, ...]]:
  """(the text, what was guessed of it)."""
  said: tuple[str, ...] = ()
  marked = [encoding for mark, encoding in _MARKS.items() if data.startswith(mark)]
  try:
    text = data.decode(*marked[:1])
  except UnicodeDecodeError as error:
    if marked:
      raise
    try:
      text, said = data.decode('cp1252'), (_CP1252,)
    except UnicodeDecodeError:
      raise ValueError(f'it is neither UTF-8 nor cp1252 ({error}). Save it as UTF-8.') from None
  if '\0' in text:
    raise ValueError('it holds zero bytes, as UTF-16 without its mark does. Save it as UTF-8.')
  return text, said


def _padded(row: Sequence[str], width: int) -> list[str]:
  return [*row, *[''] * (width - len(row))]


def _cell(cell: object) -> str:
  if cell is None or cell != cell:
    return ''
  whole = isinstance(cell, float) and cell.is_integer()
  return str(int(cell)) if whole else str(cell)  # type: ignore[call-overload]
