"""tfds:NAME of texts: its records as the rows of a table whose columns are its features."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from tlx.datasets import _dialogues, _lines, _running, _tagged, _texts, _tfds, _values
from tlx.datasets._types import Examples, Info, Published

# What the second of two supervised features is called, by its kind.
_CALLED = {'text': 'text_pair', 'class': 'label', 'whole number': 'label', 'number': 'score'}
Read = Callable[[list[_lines.File], str, bool], Published]
_OF_ONE_CLASS = {'document': _running.CLASS_NAMES, 'dialogue': _dialogues.CLASS_NAMES}
_OTHER = (tfds.features.Image, tfds.features.Video, tfds.features.Audio)


def columns(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
  """{column: the feature that it is} of a set of texts; {} of another.

  Two supervised features are 'text' and 'text_pair', 'label' or 'score', whatever they are called:
  articles and their topics, or sentences in two languages. Else the columns have the features'
  names, but that numbers called labels are scores.
  """
  features = builder.info.features
  names = list(features) if isinstance(features, tfds.features.FeaturesDict) else []
  if any(isinstance(features[name], _OTHER) for name in names):
    return {}
  found = {name: name for name in names if _value_kind(features[name])}
  keys = [key for key in builder.info.supervised_keys or () if isinstance(key, str)]
  kinds = [_value_kind(features[key]) for key in dict.fromkeys(keys) if key in found]
  if len(kinds) == 2 and kinds[0] == 'text' and kinds[1] in _CALLED:
    others = {name: name for name in found if name not in keys}
    return {**others, 'text': keys[0], _CALLED[kinds[1]]: keys[1]}
  made = {}
  for name in found:
    is_score = name in _texts.LABEL and _value_kind(features[name]) == 'number'
    made['score' if is_score else name] = name
  texts = {column for column, name in made.items() if _value_kind(features[name]) == 'text'}
  if _texts.text_columns(texts) or _is_tagged(made) or _dialogues.holds(_said(made, features)):
    return made
  return {}


def _said(found: Mapping[str, str], features: Any) -> list[str]:
  """The columns that dialogues may be made of: texts, and lists of messages."""
  kinds = {column: _value_kind(features[name]) for column, name in found.items()}
  return [
    column
    for column, of_kind in kinds.items()
    if of_kind == ('messages' if column in _dialogues.COLUMNS else 'text')
  ]


def _is_tagged(found: Mapping[str, str]) -> bool:
  return any(name in found for name in _tagged.WORDS) and any(tag in found for tag in _tagged.TAGS)


def _value_kind(feature: Any) -> str:
  """'text', 'class', 'number' or 'whole number', of a list 'texts', 'classes' or 'messages'; of
  anything else ''.
  """
  if isinstance(feature, tfds.features.Sequence):
    if isinstance(feature.feature, tfds.features.FeaturesDict):
      kinds = {name: _value_kind(of_one) for name, of_one in feature.feature.items()}
      return 'messages' if _dialogues.are_messages(kinds) else ''
    return {'text': 'texts', 'class': 'classes'}.get(_value_kind(feature.feature), '')
  if getattr(feature, 'shape', None) != ():
    return ''
  if isinstance(feature, tfds.features.ClassLabel):
    return 'class'
  kinds = {'O': 'text', 'f': 'number', 'i': 'whole number', 'u': 'whole number'}
  return kinds.get(np.dtype(feature.np_dtype).kind, '')


def kind(builder: tfds.core.DatasetBuilder) -> str:
  """As `datasets.kind`; what holds no texts is held to be images."""
  found = columns(builder)
  if not found:
    return 'image'
  if _is_tagged(found):
    return 'tagged sentence'
  asked = {*_texts.LABEL, *(name for names in _values.COLUMNS.values() for name in names)}
  if _dialogues.holds(_said(found, builder.info.features)) and not _texts.text_columns(found):
    return 'dialogue'
  is_pair = len(_texts.text_columns(found)) == 2
  return 'text' if is_pair or asked.intersection(found) else 'document'


def is_valued(builder: tfds.core.DatasetBuilder) -> bool:
  """As `datasets.is_valued`."""
  found = columns(builder)
  return _is_tagged(found) or (kind(builder) == 'text' and not found.keys() & {*_texts.LABEL})


def describe(builder: tfds.core.DatasetBuilder) -> Info:
  """What is known of texts that are not prepared yet: their classes.

  Raises:
    ValueError: the classes are not known.
  """
  of_kind, names = kind(builder), class_names(builder)
  if of_kind in _OF_ONE_CLASS:
    return Info(_OF_ONE_CLASS[of_kind], {})
  if of_kind != 'text' or not (names or is_valued(builder)):
    raise ValueError(
      f'The classes of tfds:{builder.name} show in its records alone, and it is not prepared. Run '
      f'`tfds build {builder.name} --file_format=array_record` and give its folder as data_dir.'
    )
  return Info(names or (_values.ONE,), {})


def class_names(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
  """Of the feature that is the label; () where none is, or none with names."""
  found = columns(builder)
  name = next((found[column] for column in _texts.LABEL if column in found), '')
  is_class = (
    name and kind(builder) == 'text' and _value_kind(builder.info.features[name]) == 'class'
  )
  return tuple(builder.info.features[name].names) if is_class else ()


def published(
  builder: tfds.core.DatasetBuilder, read: Read, group: str = '', skip_bad: bool = False
) -> Published:
  """What `read` makes of the published parts of a prepared set as files of rows.

  Its classes are all that the builder names, in that order.

  Raises:
    ValueError: as `read`.
  """
  files, notes = _files(builder)
  found = read(files, group, skip_bad)
  found = found._replace(notes=(*notes, *found.notes))
  if not (names := class_names(builder)):
    return found
  number = np.array([names.index(name) for name in found.class_names], np.int32)
  splits: dict[str, Examples] = {}
  for part, examples in found.splits.items():
    splits[part] = examples._replace(labels=number[examples.labels])
  return found._replace(class_names=names, splits=splits)


def _files(builder: tfds.core.DatasetBuilder) -> tuple[list[_lines.File], tuple[str, ...]]:
  """(the published parts as files of rows, what to say of those that are left aside).

  Parts of other names are, and those of which no record has a label (-1), as tests of GLUE have it.
  """
  found, root = columns(builder), epath.Path(f'tfds:{builder.info.full_name.rpartition("/")[0]}')
  parts = _tfds.split_names(builder)
  aside = [name for name in builder.info.splits if name not in parts.values()]
  made = []
  for part, split in parts.items():
    lines = list(_rows(builder, split, found))
    asked = [column for column in ('score', *_texts.LABEL) if column in found]
    if asked and all(line.values[asked[0]] in (None, -1.0) for line in lines):
      aside.append(split)
      continue
    made.append(_lines.File(root / split, '' if part == 'all' else part, rows=([*found], lines)))
  notes = (f'Left aside, without a label or of another name: {", ".join(aside)}.',) if aside else ()
  return made, notes


def _rows(
  builder: tfds.core.DatasetBuilder, split: str, found: Mapping[str, str]
) -> Iterator[_lines.Line]:
  """The records of a part, numbered from 0."""
  features, read = builder.info.features, _tfds.records(builder, split)
  count = builder.info.splits[split].num_examples
  for first in range(0, count, _tfds.CHUNK):
    numbers = range(first, min(first + _tfds.CHUNK, count))
    for number, row in zip(numbers, read(numbers)):
      values: dict[str, Any] = {}
      wrong = ''
      for column, name in found.items():
        try:
          values[column] = _value(row, name, features[name])
        except UnicodeDecodeError:
          wrong = f'bytes that are not UTF-8 in its {name}'
      yield _lines.Line(number, values, wrong)


def _value(row: Any, name: str, feature: Any) -> Any:
  """What a record has: text, a number, the name of a class or None (-1), or a list of these or of
  messages.
  """
  if _value_kind(feature) == 'messages':
    return _messages(row, name, feature.feature)
  stored = row[name]
  if isinstance(feature, tfds.features.Sequence):
    of_one = feature.feature
    return [_of_one(one, of_one) for one in (*stored.bytes_list.value, *stored.int64_list.value)]
  of_kind = stored.bytes_list, stored.int64_list, stored.float_list
  return next((_of_one(one.value[0], feature) for one in of_kind if one.value), None)


def _messages(row: Any, name: str, of_one: Any) -> list[dict[str, str]]:
  """A list of messages, whose fields lie apart, each a list."""
  fields = [key for key in of_one if _value_kind(of_one[key]) in ('text', 'class')]
  said = [_value(row, f'{name}/{key}', tfds.features.Sequence(of_one[key])) for key in fields]
  return [dict(zip(fields, message)) for message in zip(*said)]


def _of_one(one: Any, feature: Any) -> Any:
  if isinstance(one, bytes):
    return one.decode()
  if isinstance(feature, tfds.features.ClassLabel):
    return feature.names[one] if one >= 0 else None
  return one
