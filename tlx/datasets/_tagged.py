"""jsonl:PATH of which each line has words and a tag for each: names, places and the like."""

import re
from typing import Any

from tlx.datasets import _lines, _tables
from tlx.datasets._types import Published, in_order

WORDS = ('tokens', 'words')
TAGS = ('tags', 'ner_tags', 'ner')
_TAG = r'O|[BI]-(.+)'


def published(files: list[_lines.File], group: str = '', skip_bad: bool = False) -> Published:
  """The sentences of files, as `_lines.published` has them, which raises.

  A text is (words, their tags). Tags are those of IOB2 (Ramshaw and Marcus 1995): 'O', 'B-PLACE'
  where a place begins and 'I-PLACE' where it goes on. The classes are 'O', then B and I of each
  type, so that a tag's number alone tells its type.
  """

  def read(file: _lines.File) -> tuple[list[_lines.Record], list[str]]:
    header, lines = _lines.rows(file)
    kinds = {'words': WORDS, 'tags': TAGS, 'split': _tables.SPLIT, 'group': _tables.GROUP}
    columns = _tables.columns(file.path, header, kinds, group)

    def record(line: _lines.Line) -> _lines.Record | str:
      words: Any = line.values.get(columns.get('words', WORDS[0]))
      tags: Any = line.values.get(columns.get('tags', TAGS[0]))
      if wrong := _wrong_words(words, 'words') or _wrong_words(tags, 'tags'):
        return wrong
      if len(words) != len(tags):
        return f'{len(words)} words and {len(tags)} tags'
      if unknown := [tag for tag in tags if not re.fullmatch(_TAG, tag)]:
        return f'the tag {unknown[0]!r}, wanted O, B-TYPE or I-TYPE'
      split, of_group, wrong = _lines.placed(file, line, columns)
      text = tuple(words), tuple(tags)
      return wrong or _lines.Record(_lines.name_of(file, line), 'sentence', split, of_group, text)

    return _lines.checked(file, lines, record)

  found = _lines.published(files, read, 'words and their tags on every line', group, skip_bad)
  types: dict[str, set[str]] = {}
  for part, examples in found.splits.items():
    types[part] = set()
    for _, tags in examples.read(range(len(examples.ids))):
      types[part] |= {tag[2:] for tag in tags if tag != 'O'}
  every = set().union(*types.values())
  _tables.check_trained(files[0].path, every, types['train' if 'train' in types else 'all'])
  names = ['O', *(f'{place}-{name}' for name in in_order(every) for place in 'BI')]
  return found._replace(class_names=tuple(names))


def _wrong_words(found: Any, kind: str) -> str:
  """What is wrong with a list of words or tags, or ''."""
  if not isinstance(found, list) or not found:
    return f'no list of {kind}'
  for number, word in enumerate(found, 1):
    if wrong := _lines.wrong_value(word, f'{kind[:-1]} (the {number}th)', (str,), 'text'):
      return wrong
  return ''
