"""A first config for data that somebody has: what it is, which source and methods fit it, and which
sizes it allows.
"""

import json
import keyword
import os
import pathlib
import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import pandas as pd
from etils import epath

from tlx import datasets, sources
from tlx.command import spelled
from tlx.datasets import _csv, _tables, _texts
from tlx.datasets._types import SUFFIXES, UNREADABLE
from tlx.study import config as configs
from tlx.study import spreadsheet

TARGET: Mapping[str, Any] = configs.TARGET  # its defaults
_listed = spreadsheet.listed
_LOOKED_AT = 20  # cells of a column that tell whether they are files of images
LEAST = 5  # rows of a class of a table; with fewer no part has enough of them
PARTS = ('train', 'training', 'val', 'valid', 'validation', 'dev', 'test', 'testing')
SIZES = (1, 5, 20, 80)  # examples a class that are offered
_SOURCES = {  # by kind of data: an entry of the catalogue, and how it is called
  'image': ('lite0.imagenet', 'EfficientNet-Lite0'),
  'annotated image': ('lite0.imagenet', 'EfficientNet-Lite0'),
  'text': ('minilm_l6', 'MiniLM-L6 (English)'),
  'dialogue': ('smollm2_135m.chat', 'SmolLM2-135M'),
  'document': ('smollm2_135m.chat', 'SmolLM2-135M'),
}
_LABELS = (  # what a column of classes is called, if it is not called as tlx/datasets wants it
  'label',
  'class',
  'category',
  'topic',
  'intent',
  'queue',
  'team',
  'department',
  'type',
  'sentiment',
  'priority',
  'status',
  'kategorie',
  'klasse',
  'thema',
  'warteschlange',
  'abteilung',
  'zuständig',
  'anliegen',
  'catégorie',
  'classe',
  'service',
  'categoría',
  'clase',
  'tipo',
  'departamento',
)
# Columns of a table of what is asked and what is answered, where nothing else is said of them.
_ASKED = ('question', 'prompt', 'instruction', 'query', 'input', 'patient', 'user')
_ANSWERED = ('answer', 'response', 'output', 'completion', 'reply', 'doctor', 'assistant')
_ANSWERS = ('assistant', 'gpt', 'agent', 'doctor', 'support', 'bot', 'answer', 'teacher')


class Asked(NamedTuple):
  """What the user says instead of letting it be inferred; '' or () is inferred."""

  text: tuple[str, ...] = ()  # columns of a table, joined by line feeds
  label: str = ''
  group: str = ''
  answers: str = ''
  source: str = ''


class Found(NamedTuple):
  """What a path holds.

  kind: of its examples; dataset: as a config names it; target: fields of the config's target
  smallest: the examples of the smallest class that there will be to train on
  said: what was inferred, a line each, with the argument that overrides it
  columns: of a table that was written again, those that the text is made of
  """

  kind: str
  dataset: str
  target: Mapping[str, Any]
  task: str
  num_classes: int
  smallest: int
  said: tuple[str, ...]
  columns: tuple[str, ...] = ()


def find(path: str | os.PathLike, asked: Asked, out: pathlib.Path) -> Found:
  """What is at `path`. A table whose columns have other names than tlx/datasets wants is written
  again as `out`, a new .jsonl beside the config.

  Raises:
    ValueError: nothing there, nothing that a study takes, or a file in the place of `out`; the
      message says what would be.
  """
  root = pathlib.Path(path).expanduser().absolute()
  if not root.exists():
    raise ValueError(f'There is nothing at {path}.')
  name = root.name.lower().removesuffix('.gz')
  if root.is_dir():
    return _folder(root, asked, out)
  if name.endswith(('.csv', '.tsv', '.jsonl', *spreadsheet.WORKBOOKS)):
    return _records(root, asked, out)
  if name.endswith('.txt'):
    return _of_dataset(f'text:{root}', asked, ())
  if name.endswith('.json'):
    if not _is_coco(root):
      raise ValueError(f'{path} is no COCO file. Of other data want .jsonl: a line an example.')
    return _of_dataset(f'coco:{root}', asked, ())
  raise ValueError(
    f'{path} is no folder, .csv, .tsv, .xlsx, .jsonl, .txt or .json of COCO. Images go into a '
    'folder for each class, as do documents of one (.pdf, .tif). Save .xls and .ods as .xlsx.'
  )


def _folder(root: pathlib.Path, asked: Asked, out: pathlib.Path) -> Found:
  """Images in a folder for each class, a table beside images, or files of texts."""
  names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith('.'))
  if dataset := _annotated(root):
    return _of_dataset(dataset, asked, ())
  tables = {'.jsonl': 'jsonl', '.csv': 'csv', '.tsv': 'csv', '.txt': 'text'}
  images = _images(root)
  said = []
  for ending, kind in tables.items():
    files = [name for name in names if name.lower().removesuffix('.gz').endswith(ending)]
    if any(re.match(r'train(ing)?\.', name.lower()) for name in files) and not images:
      return _of_dataset(f'{kind}:{root}', asked, ())
    if len(files) == 1 and kind == 'csv' and files[0].lower() != 'groups.csv':
      if not _in_classes(images) or _lists(root / files[0], images):
        return _of_table(root / files[0], asked, out)
      said.append(
        f'{files[0]} is not taken but the folders: in it no columns image and label name these '
        'images and their classes.'
      )
    if len(files) == 1 and kind == 'jsonl' and not images:
      return _of_table(root / files[0], asked, out)
    if files and kind == 'text' and not images:
      return _of_dataset(f'text:{root}', asked, ())
  classes = sorted({name.split('/')[0] for name in images if '/' in name})
  if not classes:
    raise ValueError(
      f'{root} holds {len(images):,} images and no folder for each class. Put the images of each '
      'class into one, as PATH/<class>/<image>, or add a table: labels.csv with the columns image '
      'and label.'
    )
  deep = any(name.count('/') > 1 for name in images)
  if not deep and all(name.lower() in PARTS for name in classes):
    raise ValueError(
      f'{root} is divided into {_listed(classes)}, and none of these holds a folder for each '
      'class. Want PATH/<part>/<class>/<image>.'
    )
  if stray := [name for name in images if '/' not in name]:
    said.append(f'{len(stray):,} images lie in no class and are left out: {_listed(stray)}.')
  return _of_dataset(f'folder:{root}', asked, tuple(said))


def _of_table(file: pathlib.Path, asked: Asked, out: pathlib.Path) -> Found:
  """The one table of a folder, which is said."""
  found = _records(file, asked, out)
  taken = f'Of the folder the table {file.name} is taken.'
  return found._replace(said=(found.said[0], taken, *found.said[1:]))


def _in_classes(images: Iterable[str]) -> bool:
  """Whether images lie in folders of several classes, perhaps within parts.

  >>> _in_classes(['cat/0.png', 'dog/0.png']), _in_classes(['train/0.png', 'test/0.png'])
  (True, False)
  """
  classes = set()
  for name in images:
    folders = name.split('/')[:-1]
    if len(folders) > 1 and folders[0].lower() in PARTS:
      folders = folders[1:]
    classes.update(folders[:1])
  return len(classes) > 1 and not all(name.lower() in PARTS for name in classes)


def _lists(file: pathlib.Path, images: Iterable[str]) -> bool:
  """Whether a table says the classes of images: has the columns of both, and most cells of the one
  name some of these, as paths from its folder with their endings or without.
  """
  try:
    table, _ = spreadsheet.read(file)
    columns = _csv.columns(epath.Path(file), list(table.columns))
  except ValueError:
    return False
  if not {'image', 'label'} <= columns.keys():
    return False
  known = {name for image in images for name in (image, posixpath.splitext(image)[0])}
  cells = table[columns['image']].map(posixpath.normpath)
  return bool(cells.isin(known).mean() > 0.5)


def _images(root: pathlib.Path) -> tuple[str, ...]:
  """The images in a folder and the folders below it, by their paths in it."""
  try:
    return tuple(name.replace(os.sep, '/') for name in datasets.unlabelled(root).ids)
  except ValueError:
    return ()


def _of_dataset(dataset: str, asked: Asked, said: tuple[str, ...]) -> Found:
  """A data set that tlx/datasets reads as it is.

  Raises:
    ValueError: it does not; or a class is too small to be divided.
  """
  kind = datasets.kind(dataset)
  target: dict[str, Any] = {'dataset': dataset, 'skip_bad': True, 'duplicates': 'drop'}
  if asked.group:
    target['group'] = asked.group
  if kind == 'dialogue':
    roles = datasets.roles(dataset)
    answers = asked.answers or next((name for name in _ANSWERS if name in roles), roles[-1])
    if answers != TARGET['answers'] and answers != 'gpt':
      target['answers'] = answers
    said += (f'Answers are what {answers} says, of the roles {_listed(roles)} (--answers=ROLE).',)
  if kind in ('image', 'annotated image'):
    said += tuple(
      f'{count:,} are {ending[1:].upper()}, which are left out until you {how}.'
      for ending, (count, how) in datasets.unread(dataset, asked.group).items()
    )
  answers = target.get('answers', TARGET['answers'])
  counts = datasets.class_counts(dataset, asked.group, True, answers)
  names = datasets.info(dataset, group=asked.group, skip_bad=True, answers=answers).class_names
  bare = [name for name, *of_part in zip(names, *counts.values()) if not any(of_part)]
  if kind == 'image' and bare:
    raise ValueError(
      f'{dataset} has no image of {_listed(bare)} that can be read: {" ".join(said)} Or take the '
      'class away.'
    )
  valued = datasets.is_valued(dataset, asked.group, skip_bad=True)
  task = {
    'dialogue': 'dialogue',
    'document': 'language',
    'tagged sentence': 'tagging',
    'annotated image': 'detection',
  }.get(kind, '')
  if not task and valued:
    task = 'regression' if len(names) < 2 else 'multi_label'
  smallest = _smallest_train(counts, names if not task else ())
  if kind not in ('image', 'annotated image'):
    read = {'group': asked.group, 'skip_bad': True, 'answers': answers, 'wanted': kind}
    fractions = {name: TARGET[name] for name in ('val_fraction', 'test_fraction')}
    data = datasets.load_text(dataset, **read, **fractions)
    said += tuple(note for note in data.notes if '(skip_bad)' in note)
    if task == 'regression' and np.isnan(data.train.values).all():
      task = 'retrieval'
  if kind in ('image', 'annotated image'):
    said += _of_images(dataset)
  return Found(
    kind if kind != 'tagged sentence' else 'text',
    dataset,
    target,
    task,
    0 if task else len(names),
    smallest,
    (_counted(kind, counts, names if not task else ()), *said),
  )


def _counted(kind: str, counts: Mapping[str, Sequence[int]], names: Sequence[str]) -> str:
  """'1,200 images of 4 classes (smallest: cat, 212), not divided: test and validation are ...'."""
  total = [sum(column) for column in zip(*counts.values())]
  text = f'{sum(total):,} {kind}s'
  if names:
    least = min(range(len(total)), key=total.__getitem__)
    text += f' of {len(names):,} classes (the smallest: {names[least]}, {total[least]:,})'
  if 'all' in counts or len(counts) == 1:
    return (
      f'{text}, not divided: a study takes {TARGET["test_fraction"]:.0%} as test and '
      f'{TARGET["val_fraction"]:.0%} of the rest as validation.'
    )
  parts = ', '.join(f'{sum(column):,} {part}' for part, column in counts.items())
  return f'{text}, divided as published: {parts}.'


def _smallest_train(counts: Mapping[str, Sequence[int]], names: Sequence[str]) -> int:
  """The training examples of the smallest class, or all without classes, about: groups change what
  is held out.

  Raises:
    ValueError: a class that cannot be divided.
  """
  of_train = list(counts.get('train', counts.get('all', ())))
  if not names:
    of_train = [sum(of_train)]
  parts = [part for part in ('test', 'val') if part not in counts]
  left = [_left_to_train(count, parts) for count in of_train]
  if few := [f'{name} ({n:,})' for name, n, rest in zip(names, of_train, left) if rest < 2]:
    raise ValueError(
      f'Some classes are too small to be divided into training, validation and test: '
      f'{_listed(few)}. Want {LEAST} examples of each: add some, or take the class away.'
    )
  return min(left, default=0)


def _left_to_train(count: int, parts: Iterable[str]) -> int:
  """The examples of a class that are left once these parts are held out; 0 where one gets none."""
  for part in parts:
    held = datasets.num_held(count, TARGET[f'{part}_fraction'])
    if not 0 < held < count:
      return 0
    count -= held
  return count


def _of_images(dataset: str) -> tuple[str, ...]:
  """What the files of images are."""
  files = datasets.raw_images(dataset, most=200)
  if not files:
    return ()
  sides = sorted(min(file.size) for file in files)
  grey = all(file.mode in ('L', '1', 'I;16', 'I', 'LA') for file in files)
  formats = Counter(file.format for file in files)
  text = (
    f'Files are {_listed(sorted(formats))}{", all grey" if grey else ""}, their shorter sides '
    f'{sides[0]:,} to {sides[-1]:,} pixels (of {len(files):,} looked at).'
  )
  several = sum(file.pages > 1 for file in files)
  pages = f'{several:,} of these files have several pages, of which the first is read: the kind of '
  return (text, f'{pages}a document is taken from it.') if several else (text,)


def _records(file: pathlib.Path, asked: Asked, out: pathlib.Path) -> Found:
  """A table or lines of JSON. Taken as it is where tlx/datasets can, else written again with the
  columns that it wants.
  """
  kind = 'jsonl' if '.jsonl' in file.name.lower() else 'csv'
  dataset = f'{kind}:{file}'
  if kind == 'csv' and not asked.text and (images := _images_listed(file)) is not None:
    return _of_image_table(file, images, asked)
  chosen = asked.text or asked.label
  ours = not chosen and file.suffix.lower() not in spreadsheet.WORKBOOKS
  refused = None
  if ours and (kind == 'jsonl' or spreadsheet.is_utf8(file)):
    try:
      found = _of_dataset(dataset, asked, ())
      if found.task != 'retrieval':
        return found
      pair = _asked_and_answered(spreadsheet.read(file)[0].columns)
      if not pair:
        return found
    except ValueError as error:
      if kind == 'jsonl' and datasets.kind(dataset) != 'text':
        raise
      refused = error
  table, said = spreadsheet.read(file)
  if not chosen and (pair := _asked_and_answered(table.columns)):
    return _of_answers(file, table, pair, asked, out)
  if refused and _says_more(table.columns):
    raise refused
  text = tuple(spreadsheet.column(table, name, '--text') for name in asked.text)
  text = text or _text_column(table)
  of_images = [name for name in text or table.columns if _are_images(file.parent, table[name])]
  if len(of_images) >= max(1, len(text)):
    raise ValueError(
      f'{file}: the cells of {of_images[0]} are files of images. Want a table of images as CSV in '
      'UTF-8, whose first line names the columns image and label.'
    )
  label = ''
  if asked.label:
    label = spreadsheet.column(table, asked.label, '--label')
  elif text:
    label = _label_column(table, text)
  if not text:
    raise ValueError(
      f'{file} has the columns {_listed(table.columns)}: which has the text? Say it by '
      '--text=COLUMN.'
    )
  if not label:
    few = _few_values(table, text)
    raise ValueError(
      f'{file}: which column has the class? Say it by --label=COLUMN. '
      + (
        f'Few different values are in {_listed(f"{name} ({n:,})" for name, n in few.items())}.'
        if few
        else f'Each of {_listed(table.columns)} has more than one value in {LEAST} rows.'
      )
    )
  others = {name: n for name, n in _few_values(table, text).items() if name != label}
  if others and not asked.label:
    listed = _listed(f'{name} ({n:,} values)' for name, n in others.items())
    said = (*said, f'The class may as well be {listed}: --label=COLUMN takes another column.')
  found = _written(file, table, (text, label), asked, out)
  return found._replace(said=(found.said[0], *said, *found.said[1:]), columns=text)


def _images_listed(file: pathlib.Path) -> pd.DataFrame | None:
  """A table that tlx/datasets takes as one of images and whose cells are such; None for others."""
  try:
    if datasets.kind(f'csv:{file}') != 'image':
      return None
    table, _ = spreadsheet.read(file)
  except ValueError:
    return None
  names = {name.lower(): name for name in table.columns}
  images = [names[name] for name in _csv.IMAGE if name in names]
  return table if not images or _are_images(file.parent, table[images[0]]) else None


def _of_image_table(file: pathlib.Path, table: pd.DataFrame, asked: Asked) -> Found:
  """A table of images, as it is.

  Raises:
    ValueError: another column is asked for than the class is taken from, or as `_of_dataset`.
  """
  taken = _csv.columns(epath.Path(file), list(table.columns), asked.group).get('label', '')
  if asked.label and (wanted := spreadsheet.column(table, asked.label, '--label')) != taken:
    free = ', and label to another name' if taken.lower() == 'label' else ''
    raise ValueError(
      f'{file} is a table of images, which is taken as it is: rename the column {wanted} to '
      f'label{free}. For a study of texts say --text=COLUMN.'
    )
  return _of_dataset(f'csv:{file}', asked, ())


def _are_images(folder: pathlib.Path, cells: pd.Series) -> bool:
  """Whether most of the first cells name files of images, which need not be there where their
  endings say it, or may lack the endings where they are.
  """
  first = [cell for cell in cells.str.strip() if cell][:_LOOKED_AT]
  endings = (*SUFFIXES, *UNREADABLE)

  def is_image(cell: str) -> bool:
    if cell.lower().endswith(endings):
      return ' ' not in cell or os.path.isfile(folder / cell)
    return any(os.path.isfile(folder / f'{cell}{ending}') for ending in endings)

  return sum(map(is_image, first)) > len(first) / 2


def _says_more(columns: Iterable[str]) -> bool:
  """Whether columns that tlx/datasets takes for a text and its class have a second text, a part or
  a group beside them, which would be lost where they are written again.
  """
  names = {name.lower() for name in columns}
  texts = _texts.text_columns(names)
  more = names.intersection((*_tables.SPLIT, *_tables.GROUP))
  labelled = names.intersection(_texts.LABEL)
  return bool(texts and labelled and (texts in _texts.PAIRS or more))


def _written(
  file: pathlib.Path,
  table: pd.DataFrame,
  columns: tuple[tuple[str, ...], str],
  asked: Asked,
  out: pathlib.Path,
) -> Found:
  """The rows that can be used, written as `out`; those without a text or a label, and of classes
  with fewer than LEAST, are left out.
  """
  text, label = columns
  rows = pd.DataFrame({'text': spreadsheet.texts(table, text), 'label': table[label].str.strip()})
  if asked.group:
    rows['group'] = table[spreadsheet.column(table, asked.group, '--group')]
  whole = rows[(rows.text.str.strip() != '') & (rows.label != '')]
  counts = whole.label.value_counts()
  rare = sorted(counts[counts < LEAST].index)
  kept = whole[~whole.label.isin(rare)]
  said = [
    f'The text is {" and ".join(text)} (--text=COLUMN[,COLUMN]), the class {label} '
    f'(--label=COLUMN); the columns are {_listed(table.columns)}.'
  ]
  if lost := len(rows) - len(whole):
    said.append(f'{lost:,} of {len(rows):,} rows have no text or no label, and are left out.')
  if rare:
    said.append(
      f'{len(rare):,} classes have fewer than {LEAST} rows, and are left out: {_listed(rare)}.'
    )
  if kept.label.nunique() < 2:
    raise ValueError(f'{file}: the column {label} has no two classes of {LEAST} rows or more.')
  said.append(f'Wrote {out}, {len(kept):,} rows with the columns text and label.')
  return _saved(kept, out, asked, tuple(said))


def _asked_and_answered(columns: Iterable[str]) -> tuple[str, ...]:
  """The column of what is asked and that of what is answered, or ()."""
  names = {name.strip().lower(): name for name in columns}
  pair = [next((names[name] for name in of if name in names), '') for of in (_ASKED, _ANSWERED)]
  return tuple(pair) if all(pair) else ()


def _of_answers(
  file: pathlib.Path,
  table: pd.DataFrame,
  columns: tuple[str, ...],
  asked: Asked,
  out: pathlib.Path,
) -> Found:
  """The rows with a question and an answer, written as `out`."""
  rows = pd.DataFrame({'prompt': table[columns[0]], 'answer': table[columns[1]]})
  if asked.group:
    rows['group'] = table[spreadsheet.column(table, asked.group, '--group')]
  whole = rows[(rows.prompt.str.strip() != '') & (rows.answer.str.strip() != '')]
  said = (
    f'{columns[0]} is what is asked and {columns[1]} the answer: a language model learns it. For '
    'classes of the rows say --label=COLUMN.',
    f'{len(rows) - len(whole):,} of {len(rows):,} rows lack one of them, and are left out.',
    f'Wrote {out}, {len(whole):,} rows with the columns prompt and answer.',
  )
  return _saved(whole, out, asked, said)


def _saved(rows: pd.DataFrame, out: pathlib.Path, asked: Asked, said: tuple[str, ...]) -> Found:
  """The data set of rows, written as `out`, a new file; none is left where no study takes it.

  Raises:
    ValueError: there is such a file already, or as `_of_dataset`.
  """
  out = out.absolute()
  out.parent.mkdir(parents=True, exist_ok=True)
  try:
    stream = out.open('x', encoding='utf-8', errors='backslashreplace')  # as JSON writes halves
  except FileExistsError:
    raise ValueError(
      f'The rows that a study takes would be written as {out}, which is there already: name '
      'another config by --out=FILE.py; they go beside it.'
    ) from None
  try:
    with stream:
      for row in rows.to_dict('records'):
        stream.write(json.dumps(row, ensure_ascii=False) + '\n')
    return _of_dataset(f'jsonl:{out}', asked._replace(group=''), said)
  except BaseException:
    out.unlink()
    raise


def _text_column(table: pd.DataFrame) -> tuple[str, ...]:
  """The column whose cells are longest, of those that are mostly different; else one that is called
  as tlx/datasets wants it; or ().
  """
  names = [name.lower() for name in table.columns]
  lengths = {
    column: table[column].str.len().mean()
    for column in table.columns
    if table[column].nunique() > len(table) / 2 and table[column].str.contains(' ').mean() > 0.5
  }
  called = [name for name in table.columns if (name.lower(),) == _texts.text_columns(names)]
  return (max(lengths, key=lengths.__getitem__),) if lengths else tuple(called)


def _label_column(table: pd.DataFrame, text: Sequence[str]) -> str:
  """The column of classes: of those with few different cells the one that is called like one; where
  none has few, one that is called as tlx/datasets wants it; or ''.
  """
  few = _few_values(table, text)
  for word in _LABELS:
    for column in few:
      if word in column.lower():
        return column
  if not few:
    few = {name: 0 for name in table.columns if name.lower() in _texts.LABEL and name not in text}
  return next(iter(few)) if len(few) == 1 else ''


def _few_values(table: pd.DataFrame, text: Sequence[str]) -> dict[str, int]:
  """{column: its different cells} of those that may be classes."""
  counts = {name: table[name].nunique() for name in table.columns if name not in text}
  return {name: n for name, n in counts.items() if 2 <= n <= min(500, len(table) / LEAST)}


def _annotated(root: pathlib.Path) -> str:
  """The data set that a folder is whose images have boxes, or '' where they have none."""
  if any((root / name).is_file() for name in ('data.yaml', 'data.yml')):
    return f'yolo:{root}'
  files = [file for depth in ('*', '*/*') for file in sorted(root.glob(f'{depth}.json'))]
  of_coco = [file for file in files if _is_coco(file)]
  if len(of_coco) == 1:
    return f'coco:{of_coco[0]}'
  beside = [file for depth in ('*', '*/*') for file in sorted(root.glob(f'{depth}.xml'))]
  of_voc = any(b'<object>' in file.read_bytes() for file in beside[:3])
  return f'coco:{root}' if of_coco else f'voc:{root}' if of_voc else ''


def _is_coco(file: pathlib.Path) -> bool:
  try:
    content = json.loads(file.read_bytes())
  except (ValueError, OSError, RecursionError):
    return False
  return isinstance(content, dict) and {'images', 'annotations'} <= content.keys()


def written(found: Found, asked: Asked, name: str) -> str:
  """The config file for `found`: a source that fits it, three methods, sizes and seeds."""
  entry, called = _SOURCES[found.kind]
  if asked.source:
    entry = called = asked.source
  language = found.task in ('dialogue', 'language')
  shots = _sizes(found)
  target = dict(found.target)
  if found.task:
    target['task'] = found.task
  if language:
    target['val_examples'] = 20
  if found.task == 'detection':
    target['val_examples'] = 60
  source = f'{entry!r}'
  if language:
    source = f"{{'weights': {entry!r}, 'input': {{'length': 128}}}}"
  elif found.kind == 'text':
    source = f"{{'weights': {entry!r}, 'input': {{'length': 64}}}}"
  boxes = found.task == 'detection'
  methods = _LANGUAGE if language else _TEXTS if found.kind == 'text' else _IMAGES
  methods = _BOXES if boxes else methods
  if found.task == 'retrieval':
    methods = methods.replace(_EXACT, _AS_IT_IS)
  if found.task in ('regression', 'multi_label', 'tagging'):
    methods = methods.replace(_EXACT, _TRAINED)
  unit = 'examples a class' if found.num_classes else 'examples'
  return _CONFIG.format(
    title=f'{called} to {name}',
    config=_inert(shlex.quote(f'{name}.py')),
    workdir=_inert(shlex.quote(f'runs/{name}')),
    first=_inert(found.said[0]),
    source=source,
    key=_key(name),
    target=_dict(target),
    shots=shots,
    unit=unit,
    smallest=found.smallest,
    seeds=(0, 1) if language or boxes else (0, 1, 2),
    steps=30 if language else 100 if boxes else 60,
    batch=2 if language else 4 if boxes else 16,
    train=_OF_BOXES if boxes else '',
    rates=_RATES.get(found.kind, '(1e-4, 5e-4)'),
    methods=methods,
    baseline='as_it_is' if language or found.task == 'retrieval' else 'head' if boxes else 'probe',
    study=spelled('study'),
    predict=spelled('predict'),
    inputs=_inert(f'NEW --text={shlex.quote(",".join(found.columns))}' if found.columns else 'NEW'),
    listing=spelled('list'),
    look=spelled('look'),
  )


_RATES = {'image': '(3e-4, 1e-3)', 'annotated image': '(1e-3,)'}  # of texts lower ones


def _key(name: str) -> str:
  """What `config.targets.KEY` can be called, after a file that may have any name.

  >>> _key('mine'), _key('my-data'), _key('2024'), _key('class'), _key('items')
  ('mine', 'my_data', 'my_2024', 'my_class', 'my_items')
  """
  key = re.sub(r'\W', '_', name)
  taken = keyword.iskeyword(key) or hasattr(ml_collections.ConfigDict, key)
  return key if key.isidentifier() and not taken else f'my_{key}'


def _inert(text: str) -> str:
  """A name out of somebody's data, so that it ends neither a docstring nor a comment."""
  return ' '.join(text.replace('"', "'").replace(chr(92), '/').split())


def _dict(fields: Mapping[str, Any]) -> str:
  """A dict of a config, a field a line."""
  lines = ''.join(f'    {name!r}: {value!r},\n' for name, value in fields.items())
  return f'{{\n{lines}  }}'


def _sizes(found: Found) -> tuple[int, ...]:
  """Up to three sizes, of which other seeds have other examples; (0,), all, where there are too
  few.
  """
  offered = SIZES if found.num_classes else (20, 100, 400)
  offered = SIZES[1:] if found.task == 'detection' else offered
  return tuple(size for size in offered if 2 * size <= found.smallest)[-3:] or (0,)


_CONFIG = '''"""{first}

  {study} --config={config} --workdir={workdir}
  {predict} --workdir={workdir} --inputs={inputs} --out=labels.csv
"""

from tlx.study.config import base


def get_config():
  config = base()  # every field with its default; what they mean: docs/study.md
  config.name = {title!r}
  # Where features come from. Others: {listing} weights
  config.sources.pretrained = {source}
  # What cannot be read is left out (skip_bad), as are copies of test examples (duplicates); both
  # are counted and named, as by {look} --config={config}
  config.targets.{key} = {target}
  config.shots = {shots}  # {unit}; there are about {smallest:,} to train on. 0 is all
  config.seeds = {seeds}  # each draws its own examples; five tell smaller differences from chance
  config.train.steps, config.train.batch_size = {steps}, {batch}
{train}  config.grid.learning_rate = {rates}  # tried by each method; validation chooses
  config.methods = {{
{methods}
  }}
  config.baseline = {baseline!r}  # what the others are compared with
  return config
'''
_EXACT = """    # a linear classifier on frozen features, solved exactly
    'probe': {
      'phases': [{'tune': 'head', 'solver': 'logistic'}],
      'grid': {'learning_rate': (1.0,), 'weight_decay': (0.03, 1.0)},
    },"""
_TRAINED = """    # a linear head on frozen features
    'probe': {'phases': [{'tune': 'head'}], 'grid': {'learning_rate': (1e-3, 1e-2)}},"""
_IMAGES = f"""{_EXACT}
    # the last three blocks are fine-tuned as well; what is frozen runs once
    'last_blocks': {{'phases': [{{'tune': {{'policy': 'last', 'k': 5}}}}]}},
    # everything is fine-tuned
    'full': {{'phases': [{{'tune': 'all'}}]}},"""
_TEXTS = f"""{_EXACT}
    # the last two blocks are fine-tuned as well; what is frozen runs once
    'last_blocks': {{'phases': [{{'tune': {{'policy': 'last', 'k': 4}}}}]}},
    # everything is fine-tuned
    'full': {{'phases': [{{'tune': 'all'}}]}},"""
_OF_BOXES = """  config.train.evaluations, config.train.clip_norm = 1, 10.0
  config.train.warmup, config.train.augment = 0.05, {'flip': 0.5}
"""
_BOXES = """    # a head on a frozen backbone, which runs once for each image and its four views
    'head': {
      'phases': [
        {'tune': 'head', 'steps': 250, 'batch_size': 8, 'views': 4, 'learning_rate': 2e-3},
      ],
    },
    # the last blocks are fine-tuned as well; norms stay as they are, as detectors have them
    'last_blocks': {'phases': [{'views': 4, 'tune': {'policy': 'regex', 'rules': (
        ('^head/', 'train'), (r'norm[^/]*/(scale|bias)$', 'frozen'),
        (r'^(stem|block\\d|block10)/', 'frozen'), ('.*', 'train'))}}]},
    # everything is fine-tuned but the norms
    'full': {'phases': [{'tune': {'policy': 'regex', 'rules': (
        ('^head/', 'train'), (r'norm[^/]*/(scale|bias)$', 'frozen'), ('.*', 'train'))}}]},"""
_AS_IT_IS = """    # nothing is trained
    'as_it_is': {'phases': [{'steps': 0}]},"""
_LANGUAGE = f"""{_AS_IT_IS}
    # the last block is fine-tuned
    'last_block': {{'phases': [{{'tune': {{'policy': 'last', 'k': 2}}}}]}},
    # low-rank weights beside all others are trained
    'lora': {{'added': {{'name': 'lora', 'rank': 8}}, 'phases': [{{'tune': 'added'}}]}},"""


def choices(found: Found, asked: Asked) -> str:
  """What the config is set to, in a line."""
  entry, called = _SOURCES[found.kind]
  name = asked.source or f'{called}, {entry}'
  return (
    f'source {name} (--source=NAME); sizes {_sizes(found)}; the rest is explained in the file. '
    'For other arguments name another by --out=FILE.py: this one is kept.'
  )


def commands(found: Found, asked: Asked, config: pathlib.Path) -> str:
  """The commands that follow: one more where the weights are not here yet."""
  entry = asked.source or _SOURCES[found.kind][0]
  study = f'{spelled("study")} --config={shlex.quote(str(config))}'
  lines = [f'{study} --dry_run', f'{study} --workdir={shlex.quote(f"runs/{config.stem}")}']
  try:
    sources.resolve(sources.entry(entry).uri)
  except (ValueError, ImportError):
    lines.insert(0, f'{spelled("fetch")} {entry}')
  return '\n'.join([*(f'  {line}' for line in lines), _QUICK])


_QUICK = (
  'For a first table add --config.preset=quick and another --workdir; five seeds: '
  '--config.preset=standard.'
)
