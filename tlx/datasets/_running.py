"""text:PATH: running text. A document is a line of a file, or a file of a folder."""

import os
from collections.abc import Mapping

from etils import epath

from tlx.datasets import _lines, _tables, _texts
from tlx.datasets._types import SPLITS, Published

CLASS_NAMES = ('text',)  # what few-shot subsets balance over: there is one class of all
_ENDING = '.txt'


def published(path: str, group: str = '', skip_bad: bool = False) -> Published:
  """The documents of `text:PATH`, as `_lines.published` has them, which raises.

  PATH is a file of one document a line (.txt, or .jsonl of which the text is taken, each also .gz),
  a folder of such files named as parts, train.txt and perhaps val.txt and test.txt, or a folder of
  other .txt files, of one document each. Empty lines are passed over; documents keep their spaces.
  """
  root = epath.Path(path).expanduser()
  if root.is_dir() and (documents := _documents(root)):
    return _lines.published(documents, _whole, 'text in every file', group, skip_bad)

  return of_rows(_lines.files('text', path), group, skip_bad)


def of_rows(files: list[_lines.File], group: str = '', skip_bad: bool = False) -> Published:
  """The documents of files of a document a line, as `_lines.published` has them, which raises."""

  def read(file: _lines.File) -> tuple[list[_lines.Record], list[str]]:
    header, lines = _lines.rows(file)
    columns = _columns(file.path, header, group) if header else {}
    return _lines.checked(file, lines, lambda line: _record(file, line, columns))

  return _lines.published(files, read, 'a document on every line', group, skip_bad)


def _documents(root: epath.Path) -> list[_lines.File]:
  """The .txt files of a folder in which none is named as a part."""
  files = sorted(root.iterdir(), key=os.fspath)
  texts = [file for file in files if file.name.lower().endswith(_ENDING)]
  if any(file.name.lower().split('.')[0] in SPLITS for file in files):
    return []
  return [_lines.File(file, '') for file in texts]


def _whole(file: _lines.File) -> tuple[list[_lines.Record], list[str]]:
  """The document that is a file."""
  data = file.path.read_bytes()
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b'\n') + 1
    return [], [f'line {line} of {file.path} has bytes that are not UTF-8']
  if not text.strip():
    return [], [f'{file.path} has no text']
  return [_lines.Record(file.path.name, CLASS_NAMES[0], 'all', '', text)], []


def _columns(file: epath.Path, header: list[str], group: str) -> dict[str, str]:
  """{'text', perhaps 'split' and 'group': the column}.

  Raises:
    ValueError: there is none for the text, or there are several.
  """
  names = [name.strip().lower() for name in header]
  texts = _texts.text_columns(names)
  if len(texts) != 1:
    raise ValueError(
      f"{file} has the columns {', '.join(names)}. Rename the one of running text to 'text'."
    )
  others = {'split': _tables.SPLIT, 'group': _tables.GROUP}
  return _tables.columns(file, header, {'text': texts, **others}, group)


def _record(
  file: _lines.File, line: _lines.Line, columns: Mapping[str, str]
) -> _lines.Record | str:
  """The document of a line, or what is wrong with it."""
  text = line.values.get(columns.get('text', 'text'))
  if wrong := _lines.wrong_value(text, 'text', (str,), 'text'):
    return wrong
  split, group, wrong = _lines.placed(file, line, columns)
  return wrong or _lines.Record(_lines.name_of(file, line), CLASS_NAMES[0], split, group, text)
