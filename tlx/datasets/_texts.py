"""jsonl:PATH and csv:PATH: texts or pairs of texts with labels; a file, or one for each part."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath

from tlx.datasets import _csv, _groups, _tables, _values
from tlx.datasets._types import SPLITS, Examples, Published, Split, in_order

# The names that a column may have, whatever the case. Pairs are looked for before single texts.
_PAIRS = (
  ('text_a', 'text_b'),
  ('text1', 'text2'),
  ('sentence1', 'sentence2'),
  ('sentence_a', 'sentence_b'),
  ('premise', 'hypothesis'),
  ('question1', 'question2'),
  ('question', 'sentence'),
  ('question', 'passage'),
  ('query', 'passage'),
)
_TEXT = (
  'text',
  'sentence',
  'utterance',
  'review',
  'comment',
  'message',
  'tweet',
  'document',
  'content',
  'query',
  'question',
)
_LABEL = (
  'label',
  'intent',
  'class',
  'category',
  'topic',
  'sentiment',
  'emotion',
  'gold_label',
  'target',
)
_ENDINGS = {'jsonl': ('.jsonl',), 'csv': ('.csv', '.tsv')}  # each also with .gz
MOST_BAD = 20  # lines that an error lists

Text = str | tuple[str, str]


class _Record(NamedTuple):
  id: str
  label: str
  split: str
  group: str
  text: Text
  value: Any = None  # where that is asked for instead of the label


class _Line(NamedTuple):
  """A line of a file: its number, {column: value}, and what is wrong with it or ''."""

  number: int
  values: Mapping[str, Any]
  wrong: str


class _File(NamedTuple):
  """A file of one part, or of all that its column `split` says ('')."""

  path: epath.Path
  part: str


def is_table(path: str) -> bool:
  """Whether csv:PATH holds texts: its columns say so, and are not those of images too.

  Raises:
    ValueError: there is no such file, or its columns may be either.
  """
  file = _files('csv', path)[0].path
  with _opened(file) as stream:
    columns = _tables.header(file, _decoded(stream).readline())[1]
  names = [name.strip().lower() for name in columns]
  images = [name for name in (*_csv.IMAGE, *_csv.PIXELS) if name in names]
  texts = _text_columns(names)
  if images and texts:
    raise ValueError(
      f'{file} has columns of images ({", ".join(images)}) and of texts ({", ".join(texts)}). '
      'Remove or rename the ones that are not meant.'
    )
  return bool(texts)


def published(kind: str, path: str, group: str = '', skip_bad: bool = False) -> Published:
  """The texts of `kind:path`, as 'all' where nothing divides them.

  An id is the part's and the line's number ('train/000012'), or the line's alone.

  Raises:
    ValueError: no such file, a missing column, or what is wrong in which lines: all of it at once.
  """
  files = _files(kind, path)
  records: list[_Record] = []
  bad: list[str] = []
  for file in files:
    found, wrong = _read(kind, file, group)
    records += found
    bad += wrong
  where = files[0].path if len(files) == 1 else files[0].path.parent
  notes = _tables.left_out(where, bad, skip_bad, MOST_BAD)
  if not records:
    raise ValueError(f'{where} holds no text. Want a text and its label on every line.')
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


def split_of(examples: Examples) -> Split:
  """The texts of a part: inputs is an array [N] of str or of pairs of str."""
  texts = examples.read(range(len(examples.ids)))
  inputs = np.empty(len(texts), object)
  inputs[:] = texts  # pairs stay pairs: the array has one axis
  digests = np.array([_digest(text) for text in texts], np.uint64)
  return Split(inputs, examples.labels, examples.ids, digests, examples.groups, examples.values)


def _digest(text: Any) -> int:
  """A number of 64 bits for a text or both of a pair, whatever their case and spaces."""
  texts = [text] if isinstance(text, str) else text
  data = '\0'.join(' '.join(one.casefold().split()) for one in texts)
  return int.from_bytes(hashlib.blake2b(data.encode(), digest_size=8).digest(), 'little')


def _examples(records: list[_Record], number: Mapping[str, int]) -> Examples:
  ids = tuple(record.id for record in records)
  labels = np.array([number[record.label] for record in records], np.int32)
  groups = tuple(record.group for record in records) if records[0].group else ()
  return Examples(ids, labels, lambda rows: [records[row].text for row in rows], groups)


def _files(kind: str, path: str) -> list[_File]:
  """The one file, or those of a folder that are named as parts: train.jsonl, val.jsonl.gz.

  Raises:
    ValueError: nothing there, no part for training, or two files of one part.
  """
  root = epath.Path(path).expanduser()
  if not root.is_dir():
    return [_File(_tables.find(kind, path), '')]
  pattern = rf'(.+?)({"|".join(map(re.escape, _ENDINGS[kind]))})(\.gz)?'
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
  want = f'Want train{_ENDINGS[kind][0]} (or .gz), and perhaps one each of val and test.'
  if 'train' not in found:
    names = ', '.join([*(file.name for file in found.values()), *others])
    raise ValueError(f'{root} holds {names or f"no {kind} file"}. {want}')
  if others:
    raise ValueError(f'{root} holds {", ".join(others)} beside {found["train"].name}. {want}')
  return [_File(found[part], part) for part in ('train', 'val', 'test') if part in found]


@contextlib.contextmanager
def _opened(file: epath.Path) -> Iterator[Any]:
  """The bytes of a file, unpacked.

  Raises:
    ValueError: it cannot be unpacked to its end.
  """
  with file.open('rb') as stream:
    if not file.name.lower().endswith('.gz'):
      yield stream
      return
    try:
      with gzip.open(stream) as unpacked:
        yield unpacked
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
      raise ValueError(f'Cannot unpack {file}: {error}. Copy it anew.') from error


def _read(kind: str, file: _File, group: str) -> tuple[list[_Record], list[str]]:
  """(the records of a file, 'line 7 of FILE has ...' of the lines that cannot be used)."""
  with _opened(file.path) as stream:
    header, lines = _jsonl(stream) if kind == 'jsonl' else _table(file.path, stream)
  usable = any(not line.wrong for line in lines)
  columns = _columns(file.path, header, group) if header or usable else {}
  records: list[_Record] = []
  bad: list[str] = []
  for line in lines:
    found = _record(line, columns, file.part)
    if isinstance(found, str):
      bad.append(f'line {line.number} of {file.path} has {found}')
    else:
      records.append(found)
  return records, bad


def without_labels(kind: str, path: epath.Path) -> list[tuple[str, Text | ValueError]]:
  """[(number of the line, its text or pair, or what is wrong with it)] of a file, labels or not.

  Raises:
    ValueError: it cannot be unpacked, or has no column of texts.
  """
  with _opened(path) as stream:
    header, lines = _jsonl(stream) if kind == 'jsonl' else _table(path, stream)
  columns = _of_texts(path, header)
  found: list[tuple[str, Text | ValueError]] = []
  for line in lines:
    record = line.wrong or _record(line, columns, 'test')
    text = ValueError(record) if isinstance(record, str) else record.text
    found.append((str(line.number), text))
  return found


def _jsonl(stream: Iterable[bytes]) -> tuple[list[str], list[_Line]]:
  """(all keys, the lines that are not empty) of a file of one JSON object a line."""
  keys: dict[str, None] = {}
  lines = []
  for number, data in enumerate(stream, 1):
    if not data.strip():
      continue
    try:
      found = json.loads(data.decode('utf-8-sig'))
    except UnicodeDecodeError:
      lines.append(_Line(number, {}, 'bytes that are not UTF-8'))
    except (ValueError, RecursionError) as error:
      lines.append(_Line(number, {}, f'no JSON: {error}'))
    else:
      if isinstance(found, dict):
        keys.update(dict.fromkeys(found))
        lines.append(_Line(number, found, ''))
      else:
        wrong = f'a JSON {type(found).__name__}, wanted an object'
        lines.append(_Line(number, {}, wrong))
  return list(keys), lines


def _decoded(stream: IO[bytes]) -> io.TextIOWrapper:
  """The text of a table; what is no UTF-8 becomes lone surrogates, which `_record` finds."""
  return io.TextIOWrapper(stream, 'utf-8-sig', 'surrogateescape', newline='')


def _table(file: epath.Path, stream: IO[bytes]) -> tuple[list[str], list[_Line]]:
  """(the column names, the rows below them) of a table."""
  text = _decoded(stream)
  delimiter, header = _tables.header(file, text.readline())
  lines = []
  for row in _tables.rows(text, delimiter, len(header)):
    lines.append(_Line(row.line, dict(zip(header, row.cells)), row.wrong))
  return header, lines


def _text_columns(names: Iterable[str]) -> tuple[str, ...]:
  """The column of the text, or the two of a pair, among names in lower case; or ().

  >>> _text_columns(['label', 'premise', 'hypothesis']), _text_columns(['text', 'label'])
  (('premise', 'hypothesis'), ('text',))
  """
  names = set(names)
  if 'text' in names:
    return ('text',)
  for pair in _PAIRS:
    if names.issuperset(pair):
      return pair
  return tuple(name for name in _TEXT if name in names)


def _columns(file: epath.Path, header: list[str], group: str) -> dict[str, str]:
  """{'text' or 'first' and 'second', 'label', perhaps 'split' and 'group': the column}.

  Raises:
    ValueError: there is none for the text or the label, or there are several.
  """
  of_text: dict[str, tuple[str, ...]] = {}
  for kind, column in _of_texts(file, header).items():
    of_text[kind] = (column.strip().lower(),)
  others = {'label': _LABEL, 'split': _tables.SPLIT, 'group': _tables.GROUP}
  found = _tables.columns(file, header, of_text | others | _values.COLUMNS, group)
  asked = [kind for kind in ('label', *_values.COLUMNS) if kind in found]
  if not asked:
    raise ValueError(
      f'{_have(file, header)} one for the label, named {", ".join(_LABEL)}, a number, named '
      f'{", ".join(_values.COLUMNS["score"])}, or several labels, named '
      f'{", ".join(_values.COLUMNS["labels"])}. Rename the one that is meant.'
    )
  if asked[0] != 'label' and len(asked) > 1:
    raise ValueError(
      f'{file} has the columns {found["score"]} and {found["labels"]}. Rename the one that is not '
      'meant.'
    )
  return {kind: column for kind, column in found.items() if kind not in asked[1:]}


def _have(file: epath.Path, header: list[str]) -> str:
  names = ', '.join(name.strip().lower() for name in header)
  return f'{file} has the columns {names}; wanted'


def _of_texts(file: epath.Path, header: list[str]) -> dict[str, str]:
  """{'text' or 'first' and 'second': the column}.

  Raises:
    ValueError: there is none, or there are several.
  """
  theirs = {name.strip().lower(): name for name in header}
  texts = _text_columns(theirs)
  if not texts:
    raise ValueError(
      f'{_have(file, header)} one for the text, named {", ".join(_TEXT)}, or two for a pair, such '
      f'as {" and ".join(_PAIRS[0])} or {" and ".join(_PAIRS[4])}. Rename the ones that are meant.'
    )
  if len(texts) > 1 and texts not in _PAIRS:
    raise ValueError(
      f"{file} has the columns {' and '.join(texts)}. Rename the one that is meant to 'text'."
    )
  kinds = ('text',) if len(texts) == 1 else ('first', 'second')
  return {kind: theirs[name] for kind, name in zip(kinds, texts)}


def _record(line: _Line, columns: Mapping[str, str], part: str) -> _Record | str:
  """The record of a line, or what is wrong with it."""
  if line.wrong:
    return line.wrong
  texts: list[str] = []
  cells = {'label': '', 'split': '', 'group': ''}
  value = None
  for kind, column in columns.items():
    found = line.values.get(column)
    if kind == 'split' and part:  # the name of the file says it
      continue
    if kind in ('text', 'first', 'second'):
      texts.append(found if isinstance(found, str) else '')
      wrong = _wrong_value(found, column, (str,), 'text')
    elif kind in _values.COLUMNS:
      cells['label'] = _values.ONE
      value, wrong = _values.read(kind, found)
    else:
      cells[kind] = _tables.value(found if isinstance(found, str) else json.dumps(found))
      wrong = _wrong_value(cells[kind] and found, kind, (str, int, float), 'text or a number')
    if wrong:
      return wrong
  split = SPLITS.get(cells['split'].lower(), '') if cells['split'] else part or 'all'
  if not split:
    return f'the split {cells["split"]!r}; have {", ".join(SPLITS)}'
  name = f'{part}/{line.number:06d}' if part else f'{line.number:06d}'
  text = texts[0] if len(texts) == 1 else (texts[0], texts[1])
  return _Record(name, cells['label'], split, cells['group'], text, value)


def _wrong_value(found: Any, kind: str, types: tuple[type, ...], wanted: str) -> str:
  """What is wrong with a value of a line, or ''."""
  if found is None or (isinstance(found, str) and not found.strip()):
    return f'an empty {kind}'
  if not isinstance(found, types):
    return f'a {type(found).__name__} as its {kind}, wanted {wanted}'
  if isinstance(found, str) and re.search('[\ud800-\udfff]', found):  # lone halves of a character
    return f'bytes that are not UTF-8 in its {kind}'
  return ''
