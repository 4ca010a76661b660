"""Files of one record a line: which there are, their lines, and data sets of their records."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath

from tlx.datasets import _groups, _tables, _values
from tlx.datasets._types import SPLITS, Examples, Published, Split, in_order

# Of files by the name of their place, each also with .gz.
ENDINGS = {'jsonl': ('.jsonl',), 'csv': ('.csv', '.tsv'), 'text': ('.txt', '.jsonl')}
MOST_BAD = 20  # lines that an error lists
_FREE_BYTES, _BYTES_PER_BYTE = 2**26, 64  # what a .gz may unpack to


class Line(NamedTuple):
  """A line of a file: its number, {column: value}, and what is wrong with it or ''."""

  number: int
  values: Mapping[str, Any]
  wrong: str


class File(NamedTuple):
  """A file of one part, or of all that its column `split` says ('').

  kind: the name of its place
  rows: (its columns, its lines) where they are known already, of records that are in no such file
  """

  path: epath.Path
  part: str
  kind: str = ''
  rows: tuple[list[str], list[Line]] | None = None


class Record(NamedTuple):
  """A line that can be used; `text` is what the example is made of, a text or nested tuples.

  value: where that is asked for instead of the label (_values.py)
  """

  id: str
  label: str
  split: str
  group: str
  text: Any
  value: Any = None


Read = Callable[[File], tuple[list[Record], list[str]]]  # (records, what is wrong in which line)


def published(
  found: list[File], read: Read, wanted: str, group: str = '', skip_bad: bool = False
) -> Published:
  """The records of files, as 'all' where nothing divides them.

  An id is the part's and the line's number ('train/000012'), or the line's alone.

  Args:
    wanted: what the files should hold, for errors.

  Raises:
    ValueError: a missing column, or what is wrong in which lines: all of it at once.
  """
  records: list[Record] = []
  bad: list[str] = []
  for file in found:
    of_file, wrong = read(file)
    records += of_file
    bad += wrong
  where = found[0].path if len(found) == 1 else found[0].path.parent
  notes = _tables.left_out(where, bad, skip_bad, MOST_BAD)
  if not records:
    raise ValueError(f'{where} holds no text. Want {wanted}.')
  values = [record.value for record in records if record.value is not None]
  if values and len(values) < len(records):
    raise ValueError(f'Some files of {where} have labels and some have values. Keep one kind.')
  trained = [record for record in records if record.split in ('train', 'all')]
  labels = _values.each(values) if values else [record.label for record in records]
  seen = _values.each(r.value for r in trained) if values else [r.label for r in trained]
  _tables.check_trained(where, labels, set(seen))
  if group and not any(record.group for record in records):
    of_id = _groups.matched(group, [record.id for record in records])
    records = [record._replace(group=name) for record, name in zip(records, of_id)]
  classes = _values.class_names(values) if values else in_order(labels)
  number = {name: i for i, name in enumerate(classes)}
  splits = {}
  for split in dict.fromkeys(record.split for record in records):
    part = [record for record in records if record.split == split]
    splits[split] = _examples(part, {_values.ONE: 0} if values else number)
    if values:
      of_part = _values.array([record.value for record in part], classes)
      splits[split] = splits[split]._replace(values=of_part)
  return Published(classes, splits, notes)


def _examples(records: list[Record], number: Mapping[str, int]) -> Examples:
  ids = tuple(record.id for record in records)
  labels = np.array([number[record.label] for record in records], np.int32)
  groups = tuple(record.group for record in records) if records[0].group else ()
  return Examples(ids, labels, lambda rows: [records[row].text for row in rows], groups)


def split_of(examples: Examples) -> Split:
  """The records of a part: inputs is an array [N] of texts, or of tuples of them."""
  texts = examples.read(range(len(examples.ids)))
  inputs = np.empty(len(texts), object)
  inputs[:] = texts  # tuples stay tuples: the array has one axis
  digests = np.array([_digest(text) for text in texts], np.uint64)
  return Split(inputs, examples.labels, examples.ids, digests, examples.groups, examples.values)


def _digest(text: Any) -> int:
  """A number of 64 bits for a text or all of nested ones, whatever their case and spaces."""
  data = '\0'.join(' '.join(one.casefold().split()) for one in flat(text))
  return int.from_bytes(hashlib.blake2b(data.encode(), digest_size=8).digest(), 'little')


def flat(text: Any) -> Iterator[str]:
  """The texts within nested tuples, in their order."""
  if isinstance(text, str):
    yield text
  else:
    for one in text:
      yield from flat(one)


def checked(
  file: File, lines: Iterable[Line], make: Callable[[Line], Record | str]
) -> tuple[list[Record], list[str]]:
  """(what `make` makes of lines, 'line 7 of FILE has ...' of those that it cannot use)."""
  records: list[Record] = []
  bad: list[str] = []
  for line in lines:
    made = line.wrong or make(line)
    if isinstance(made, str):
      bad.append(f'line {line.number} of {file.path} has {made}')
    else:
      records.append(made)
  return records, bad


def name_of(file: File, line: Line) -> str:
  """The id of a line's record."""
  return f'{file.part}/{line.number:06d}' if file.part else f'{line.number:06d}'


def cell(line: Line, columns: Mapping[str, str], kind: str) -> tuple[str, str]:
  """(the label, split or group that a line has or '', what is wrong with it or '')."""
  if kind not in columns:
    return '', ''
  found = line.values.get(columns[kind])
  value = _tables.value(found if isinstance(found, str) else json.dumps(found))
  return value, wrong_value(value and found, kind, (str, int, float), 'text or a number')


def placed(file: File, line: Line, columns: Mapping[str, str]) -> tuple[str, str, str]:
  """(the part and the group of a line's record, what is wrong with one of them or '')."""
  split, wrong = ('', '') if file.part else cell(line, columns, 'split')  # the file's name says it
  part = SPLITS.get(split.lower(), '') if split else file.part or 'all'
  if not part:
    wrong = wrong or f'the split {split!r}; have {", ".join(SPLITS)}'
  group, of_group = cell(line, columns, 'group')
  return part, group, wrong or of_group


def files(kind: str, path: str) -> list[File]:
  """The one file, or those of a folder that are named as parts: train.jsonl, val.jsonl.gz.

  Raises:
    ValueError: nothing there, no part for training, or two files of one part.
  """
  root = epath.Path(path).expanduser()
  if not root.is_dir():
    return [File(_tables.find(kind, path), '', kind)]
  pattern = rf'(.+?)({"|".join(map(re.escape, ENDINGS[kind]))})(\.gz)?'
  found: dict[str, epath.Path] = {}
  others = []
  for file in sorted(root.iterdir(), key=os.fspath):
    match = re.fullmatch(pattern, file.name.lower())
    if not match:
      continue
    part = SPLITS.get(match[1], '')
    if not part:
      others.append(file.name)
    elif part in found:
      raise ValueError(
        f'{root} holds {found[part].name} and {file.name}, both of {part}. Keep one.'
      )
    else:
      found[part] = file
  want = f'Want train{ENDINGS[kind][0]} (or .gz), and perhaps one each of val and test.'
  if 'train' not in found:
    names = ', '.join([*(file.name for file in found.values()), *others])
    raise ValueError(f'{root} holds {names or f"no {kind} file"}. {want}')
  if others:
    raise ValueError(f'{root} holds {", ".join(others)} beside {found["train"].name}. {want}')
  return [File(found[part], part, kind) for part in ('train', 'val', 'test') if part in found]


def rows(file: File) -> tuple[list[str], list[Line]]:
  """(the columns of a file, its lines), by its kind and, of text, by its name."""
  if file.rows is not None:
    return file.rows
  with opened(file.path) as stream:
    if file.kind == 'csv':
      return table(file.path, stream)
    if file.kind == 'text' and '.jsonl' not in file.path.name.lower():
      return ['text'], plain(stream)
    return jsonl(stream)


class _Bounded(io.RawIOBase):
  """What a packed file unpacks to, of which so many bytes are read at the most."""

  def __init__(self, unpacked: Any, most: int, file: epath.Path):
    self.unpacked, self.most, self.left, self.file = unpacked, most, most, file

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    count = self.unpacked.readinto(buffer)
    self.left -= count
    if self.left < 0:
      raise ValueError(
        f'{self.file} unpacks to more than {self.most:,} bytes; refused. Unpack it yourself.'
      )
    return count


@contextlib.contextmanager
def opened(file: epath.Path) -> Iterator[Any]:
  """The bytes of a file, unpacked.

  Raises:
    ValueError: it cannot be unpacked to its end, or to more than 64 MiB and 64 bytes for each of
      its own.
  """
  with file.open('rb') as stream:
    if not file.name.lower().endswith('.gz'):
      yield stream
      return
    try:
      with gzip.open(stream) as unpacked:
        most = _FREE_BYTES + _BYTES_PER_BYTE * file.stat().length
        yield io.BufferedReader(_Bounded(unpacked, most, file))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
      raise ValueError(f'Cannot unpack {file}: {error}. Copy it anew.') from error


def jsonl(stream: Iterable[bytes]) -> tuple[list[str], list[Line]]:
  """(all keys, the lines that are not empty) of a file of one JSON object a line."""
  keys: dict[str, None] = {}
  lines = []
  for number, data in enumerate(stream, 1):
    if not data.strip():
      continue
    try:
      found = json.loads(data.decode('utf-8-sig'))
    except UnicodeDecodeError:
      lines.append(Line(number, {}, 'bytes that are not UTF-8'))
    except (ValueError, RecursionError) as error:
      lines.append(Line(number, {}, f'no JSON: {error}'))
    else:
      if isinstance(found, dict):
        keys.update(dict.fromkeys(found))
        lines.append(Line(number, found, ''))
      else:
        wrong = f'a JSON {type(found).__name__}, wanted an object'
        lines.append(Line(number, {}, wrong))
  return list(keys), lines


def plain(stream: Iterable[bytes]) -> list[Line]:
  """The lines that are not empty of a file of texts, each as the column 'text'."""
  lines = []
  for number, data in enumerate(stream, 1):
    try:
      text = data.decode('utf-8-sig' if number == 1 else 'utf-8').rstrip('\r\n')
    except UnicodeDecodeError:
      lines.append(Line(number, {}, 'bytes that are not UTF-8'))
    else:
      if text.strip():
        lines.append(Line(number, {'text': text}, ''))
  return lines


def decoded(stream: IO[bytes]) -> io.TextIOWrapper:
  """The text of a table; what is no UTF-8 becomes lone surrogates, which `_record` finds."""
  return io.TextIOWrapper(stream, 'utf-8-sig', 'surrogateescape', newline='')


def table(file: epath.Path, stream: IO[bytes]) -> tuple[list[str], list[Line]]:
  """(the column names, the rows below them) of a table."""
  text = decoded(stream)
  delimiter, header = _tables.header(file, text.readline())
  lines = []
  for row in _tables.rows(text, delimiter, len(header)):
    lines.append(Line(row.line, dict(zip(header, row.cells)), row.wrong))
  return header, lines


def wrong_value(found: Any, kind: str, types: tuple[type, ...], wanted: str) -> str:
  """What is wrong with a value of a line, or ''."""
  if found is None or (isinstance(found, str) and not found.strip()):
    return f'an empty {kind}'
  if not isinstance(found, types):
    return f'a {type(found).__name__} as its {kind}, wanted {wanted}'
  if isinstance(found, str) and re.search('[\ud800-\udfff]', found):  # lone halves of a character
    return f'bytes that are not UTF-8 in its {kind}'
  return ''
