"""An artefact: one run in a folder of its own, with all that it takes to use it and what is known
of it. It needs neither the study's folder, nor the data, nor a network.

    artefact.json       what the network is, its input, task, classes, and the digests of the rest
    weights.safetensors parameters and statistics under our own names, 'params/head/kernel'
    tokenizer.json      of texts
    README.md           a card: results, data, where the weights are from, versions
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from tlx import checkpoint, tree
from tlx.inputs import _tokenizers, dialogue
from tlx.study.phases import make_task, network_of
from tlx.types import Variables

ABOUT, WEIGHTS, TOKENIZER, CARD = (
  'artefact.json',
  'weights.safetensors',
  'tokenizer.json',
  'README.md',
)
_FORMAT = 1


def is_one(folder: os.PathLike | str) -> bool:
  """Whether a folder is an artefact."""
  return (pathlib.Path(folder).expanduser() / ABOUT).is_file()


def new_folder(folder: os.PathLike | str) -> pathlib.Path:
  """An empty folder, made where there is none.

  Raises:
    ValueError: it is there already and holds something.
  """
  path = pathlib.Path(folder).expanduser()
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise ValueError(f'{path} is there already and not empty. Name another --out.')
  path.mkdir(parents=True, exist_ok=True)
  return path


def write(
  folder: pathlib.Path, model: Mapping[str, Any], variables: Variables, card: Mapping[str, Any]
) -> None:
  """Writes the artefact of a model into an empty folder.

  Args:
    model: its 'source' and 'method' as resolved, 'task', 'class_names', 'leaves', 'about'.
    card: what is known of the run, JSON; `of_card` writes it for people.
  """
  source = dict(model['source'])
  if uri := source['input'].get('tokenizer'):
    (folder / TOKENIZER).write_text(_tokenizers.of_uri(uri).to_str(), encoding='utf-8')
    source['input'] = {**source['input'], 'tokenizer': TOKENIZER}
    if source['input'].get('template') == '':  # as the weights bring it, from which it parts here
      source['input']['template'] = dialogue.template_of(uri)
  arrays = {}
  for kind, part in zip(Variables._fields, variables):
    for name, leaf in tree.named_leaves(part):
      arrays[f'{kind}/{name}'] = np.ascontiguousarray(leaf)
  checkpoint.write_arrays(folder / WEIGHTS, arrays, {'format': 'tlx'})
  (folder / CARD).write_text(of_card(card), encoding='utf-8')
  files = {path.name: _digest(path) for path in sorted(folder.iterdir())}
  about = {**model, 'source': source, 'card': card, 'format': _FORMAT, 'files': files}
  checkpoint.write_json(folder / ABOUT, checkpoint.sealed(checkpoint.plain(about)))


def read(folder: os.PathLike | str) -> tuple[dict[str, Any], Variables]:
  """(what `write` was given as `model`, with 'network' and its 'card'; the variables).

  Raises:
    ValueError: it was made by a later version, or a file is missing or damaged.
  """
  place = pathlib.Path(folder).expanduser()
  about = checkpoint.unsealed(place / ABOUT)
  if about['format'] > _FORMAT:
    raise ValueError(f'{place} was written by a later version of tlx. Update tlx.')
  for name, digest in about['files'].items():
    if not (place / name).is_file() or _digest(place / name) != digest:
      raise ValueError(f'{place / name} is missing or was changed after it was written.')
  source = about['source']
  fields = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in source['input'].items()
  }
  if 'tokenizer' in fields:
    fields['tokenizer'] = os.fspath(place.resolve() / TOKENIZER)
  source = {**source, 'input': fields}
  parts: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in Variables._fields}
  for name, array in load_file(place / WEIGHTS).items():
    kind, _, leaf = name.partition('/')
    parts[kind][leaf] = array
  variables = Variables(*(tree.nested(parts[kind].items()) for kind in Variables._fields))
  task = make_task(about['task'], len(about['class_names']))
  network = network_of(source, task.head, about['method'])
  return {**about, 'source': source, 'network': network}, variables


def of_card(card: Mapping[str, Any]) -> str:
  """The card in Markdown."""
  cells = [row['cell'] for row in card['runs']]
  # the seed, and what else differs between the runs
  told = [name for name in cells[0] if name == 'seed' or len({cell[name] for cell in cells}) > 1]
  lines = [
    f'# {card["name"]}',
    '',
    card['claim'],
    '',
    f'{card["method"]} from {card["source"]} on {card["target"]}, {card["num_train"]:,} training '
    f'examples. The run is {card["run"]}. {card["caution"]}'.strip(),
    '',
    '## Results',
    '',
    f'{card["column"]} of the runs of this setting; that of the test part is what to expect.',
    '',
    f'| {" | ".join(name.replace("_", " ") for name in told)} | validation | test |',
    f'|{"---|" * len(told)}--:|--:|',
  ]
  for row in card['runs']:
    values = ' | '.join(str(row['cell'][name]) for name in told)
    lines.append(f'| {values} | {_number(row["val"])} | {_number(row["test"])} |')
  lines += ['', '## Data', '']
  counts = ', '.join(f'{count:,} {part}' for part, count in card['data']['num_examples'].items())
  lines.append(f'{card["dataset"]}: {counts}; sha256 {card["data"]["sha256"]}.')
  lines += ['', *(f'- {note}' for note in card['data']['notes'])]
  lines += ['', '## Weights', '', f'{json.dumps(card["provenance"], indent=2)}', '', '## Made by']
  lines += ['', ', '.join(f'{name} {version}' for name, version in card['versions'].items())]
  lines += [
    '',
    '## Use',
    '',
    '```python',
    'import tlx',
    "answers = tlx.predict(tlx.load_run('THIS FOLDER'), 'NEW')",
    '```',
    '',
  ]
  return '\n'.join(lines)


def _number(value: Any) -> str:
  return '' if value is None else f'{value:.4f}'


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()
