"""jsonl:PATH and csv:PATH: texts or pairs of texts with labels; a file, or one for each part.

Also of sets of TFDS (_tfds_texts.py).
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from etils import epath

from tlx.datasets import _csv, _dialogues, _lines, _tables, _tagged, _values
from tlx.datasets._types import Published

# The names that a column may have, whatever the case. Pairs are looked for before single texts.
PAIRS = (
  ('text', 'text_pair'),
  ('text_a', 'text_b'),
  ('text1', 'text2'),
  ('sentence1', 'sentence2'),
  ('sentence_a', 'sentence_b'),
  ('premise', 'hypothesis'),
  ('question1', 'question2'),
  ('question', 'sentence'),
  ('question', 'passage'),
  ('query', 'passage'),
  ('question', 'answer'),
  ('anchor', 'positive'),
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
LABEL = (
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


Text = str | tuple[str, str]


def of_table(path: str) -> str:
  """What csv:PATH holds, by its columns: 'text', 'dialogue' or 'image'.

  Raises:
    ValueError: there is no such file, or its columns may be either, or are neither.
  """
  file = _lines.files('csv', path)[0].path
  with _lines.opened(file) as stream:
    columns = _tables.header(file, _lines.decoded(stream).readline())[1]
  names = [name.strip().lower() for name in columns]
  images = [name for name in (*_csv.IMAGE, *_csv.PIXELS) if name in names]
  texts = text_columns(names)
  if not images and _is_dialogue(names):
    return 'dialogue'
  if images and texts:
    raise ValueError(
      f'{file} has columns of images ({", ".join(images)}) and of texts ({", ".join(texts)}). '
      'Remove or rename the ones that are not meant.'
    )
  if not images and not texts:
    raise _csv.no_column(file, columns, 'image')
  return 'text' if texts else 'image'


def contents(path: str) -> str:
  """What jsonl:PATH holds, by its first object: 'text', 'dialogue' or 'tagged sentence'.

  Raises:
    ValueError: there is no such file.
  """
  with _lines.opened(_lines.files('jsonl', path)[0].path) as stream:
    for data in stream:
      keys, _ = _lines.jsonl([data])
      names = {key.strip().lower() for key in keys}
      if _is_dialogue(names):
        return 'dialogue'
      if names.intersection(_tagged.WORDS) and names.intersection(_tagged.TAGS):
        return 'tagged sentence'
      if names:
        break
  return 'text'


def _is_dialogue(names: Collection[str]) -> bool:
  """Whether columns, in lower case, are those of dialogues and of no text."""
  return _dialogues.holds(names) and not text_columns(names)


def published(files: list[_lines.File], group: str = '', skip_bad: bool = False) -> Published:
  """The texts of files with their labels, as `_lines.published` has them, which raises."""

  def read(file: _lines.File) -> tuple[list[_lines.Record], list[str]]:
    header, lines = _lines.rows(file)
    usable = any(not line.wrong for line in lines)
    columns = _columns(file.path, header, group) if header or usable else {}
    return _lines.checked(file, lines, lambda line: _record(file, line, columns))

  wanted = 'a text and its label on every line'
  return _lines.published(files, read, wanted, group, skip_bad)


def text_columns(names: Iterable[str]) -> tuple[str, ...]:
  """The column of the text, or the two of a pair, among names in lower case; or ().

  >>> text_columns(['label', 'premise', 'hypothesis']), text_columns(['text', 'label'])
  (('premise', 'hypothesis'), ('text',))
  """
  names = set(names)
  if 'text' in names and 'text_pair' not in names:
    return ('text',)
  for pair in PAIRS:
    if names.issuperset(pair):
      return pair
  return tuple(name for name in _TEXT if name in names)


def without_labels(kind: str, path: epath.Path) -> list[tuple[str, Text | ValueError]]:
  """[(number of the line, its text or pair, or what is wrong with it)] of a file, labels or not.

  Raises:
    ValueError: it cannot be unpacked, or has no column of texts.
  """
  file = _lines.File(path, 'test', kind)
  header, lines = _lines.rows(file)
  columns = _of_texts(path, header)
  found: list[tuple[str, Text | ValueError]] = []
  for line in lines:
    record = line.wrong or _record(file, line, columns)
    text = ValueError(record) if isinstance(record, str) else record.text
    found.append((str(line.number), text))
  return found


def _columns(file: epath.Path, header: list[str], group: str) -> dict[str, str]:
  """{'text' or 'first' and 'second', 'label', perhaps 'split' and 'group': the column}.

  Raises:
    ValueError: there is none for the text or the label, or there are several.
  """
  of_text: dict[str, tuple[str, ...]] = {}
  for kind, column in _of_texts(file, header).items():
    of_text[kind] = (column.strip().lower(),)
  others = {'label': LABEL, 'split': _tables.SPLIT, 'group': _tables.GROUP}
  found = _tables.columns(file, header, of_text | others | _values.COLUMNS, group)
  asked = [kind for kind in ('label', *_values.COLUMNS) if kind in found]
  if not asked and 'text' in of_text:
    raise ValueError(
      f'{_have(file, header)} one for the label, named {", ".join(LABEL)}, a number, named '
      f'{", ".join(_values.COLUMNS["score"])}, or several labels, named '
      f'{", ".join(_values.COLUMNS["labels"])}. Rename the one that is meant.'
    )
  if len(asked) > 1 and asked[0] != 'label':
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
  texts = text_columns(theirs)
  if not texts:
    raise ValueError(
      f'{_have(file, header)} one for the text, named {", ".join(_TEXT)}, or two for a pair, such '
      f'as {" and ".join(PAIRS[0])} or {" and ".join(PAIRS[5])}. Rename the ones that are meant.'
    )
  if len(texts) > 1 and texts not in PAIRS:
    raise ValueError(
      f"{file} has the columns {' and '.join(texts)}. Rename the one that is meant to 'text'."
    )
  kinds = ('text',) if len(texts) == 1 else ('first', 'second')
  return {kind: theirs[name] for kind, name in zip(kinds, texts)}


def _record(
  file: _lines.File, line: _lines.Line, columns: Mapping[str, str]
) -> _lines.Record | str:
  """The record of a line, or what is wrong with it."""
  texts: list[str] = []
  for kind in ('text', 'first', 'second'):
    if kind in columns:
      found: Any = line.values.get(columns[kind])
      if wrong := _lines.wrong_value(found, columns[kind], (str,), 'text'):
        return wrong
      texts.append(found)
  label, wrong = _lines.cell(line, columns, 'label')
  value = None
  if not {'label', *_values.COLUMNS} & columns.keys():  # a pair, of which nothing is said
    label, value, wrong = _values.ONE, math.nan, ''
  for kind in _values.COLUMNS:
    if kind in columns:
      label = _values.ONE
      value, wrong = _values.read(kind, line.values.get(columns[kind]))
  if wrong:
    return wrong
  split, group, wrong = _lines.placed(file, line, columns)
  if wrong:
    return wrong
  text = texts[0] if len(texts) == 1 else tuple(texts)
  return _lines.Record(_lines.name_of(file, line), label, split, group, text, value)
