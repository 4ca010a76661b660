"""What was trained, put to use: a run of a study, or bare weights, on examples without labels."""

import functools
import inspect
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from tlx import backbones, checkpoint, datasets, sources
from tlx.command import spelled
from tlx.plug import closest, plug
from tlx.study import artefact, store
from tlx.study import config as configs
from tlx.study import pair as pairs
from tlx.study.cells import base, cell_id
from tlx.study.phases import make_task, network_of, shapes_of
from tlx.train import feed
from tlx.types import Cell, Network, PyTree, Variables

BATCH = 32  # examples that go through at a time


class Model(NamedTuple):
  """A network with its variables, and all that makes examples for it and sense of its outputs.

  source: the backbone and input of a config, resolved
  task: a file of tlx/tasks, or {'name': ..., 'option': ...}; '' for bare weights, whose head is
    their own
  about: what it is, in words
  leaves: of the examples that it was trained on, by their names; () where that is not known
  """

  network: Network
  variables: Variables
  source: Mapping[str, Any]
  task: str | Mapping[str, Any]
  class_names: tuple[str, ...]
  about: str
  leaves: tuple[str, ...] = ()
  method: Mapping[str, Any] = {}  # of a config, resolved
  others: tuple[Variables, ...] = ()  # of the runs whose answers are averaged with these


def load_run(workdir: str | os.PathLike, run: str = 'best') -> Model:
  """A finished run of a study, or what an artefact's folder holds.

  Args:
    run: 'best' is the one that validation prefers (`best_run`), 'ensemble' all of its setting,
      whose answers are averaged.

  Raises:
    ValueError: no such run, a damaged one, or runs that cannot be compared.
  """
  folder = epath.Path(workdir).expanduser()
  if artefact.is_one(folder):
    if run != 'best':
      raise ValueError(f'{folder} is an artefact, of one run: --run={run} names none in it.')
    return _of_artefact(folder)
  if run == 'ensemble':
    return _ensemble(folder)
  name, about = run, run
  if run == 'best':
    name, about = best_run(folder)
    about = f'{about} {_caution(folder, name)}'.strip()
  of_run, _ = configs.of_run(f'study:{folder}/{name}')
  cell = Cell(**of_run['cell'])
  source, method = of_run['sources'][cell.source], of_run['methods'][cell.method]
  source = {**source, 'input': _as_resolved(source['input'])}
  task = of_run['targets'][cell.target]['task']
  data = checkpoint.unsealed(folder / 'study.json')['data'][f'{cell.source}/{cell.target}']
  class_names = tuple(data['class_names'])
  now = pairs.tokenizer_of(source)
  if data.get('tokenizer', now.get('tokenizer')) != now.get('tokenizer'):
    raise ValueError(
      f'{source["input"]["tokenizer"]} is another tokenizer than when {folder} was begun, and '
      'gives the network other tokens than it knows. Bring it back.'
    )
  network = network_of(source, make_task(task, len(class_names)).head, method)
  variables = Variables(*store.params(folder, name))
  leaves = tuple(data.get('leaves', ()))
  return Model(network, variables, source, task, class_names, about, leaves, method)


def _of_artefact(folder: epath.Path) -> Model:
  about, variables = artefact.read(folder)
  return Model(
    about['network'],
    variables,
    about['source'],
    about['task'],
    tuple(about['class_names']),
    f'{about["about"]} (artefact {folder.name})',
    tuple(about['leaves']),
    about['method'],
  )


def _ensemble(folder: epath.Path) -> Model:
  """The runs of the setting that validation prefers, as one model whose answers are averaged."""
  alike, _, why = _best_setting(folder)
  first, *others = (load_run(folder, run['id']) for run in alike)
  about = f'ensemble: the average of {len(alike)} runs, whose own score is in no table. {why}.'
  about = f'{about} {_caution(folder, alike[0]["id"])}'.strip()
  return first._replace(others=tuple(one.variables for one in others), about=about)


def _caution(folder: epath.Path, name: str) -> str:
  """What the report says against a run."""
  from tlx.report import cautions  # brings pandas and scipy, which a study does not need at once

  return cautions.of_run(folder, name)


def best_run(workdir: str | os.PathLike) -> tuple[str, str]:
  """(the run that validation prefers, why): of the largest training sets the source and method
  with the best mean over seeds (source seeds and folds too), of equals the first in the config, and
  of these runs the best.

  Raises:
    ValueError: no study, no run that was chosen yet, or runs of several targets.
  """
  alike, worth, why = _best_setting(epath.Path(workdir).expanduser())
  best = max(alike, key=lambda run: worth([run]))
  column = best['select'][0]
  about = f'{best["id"]}: {why}; of these the best, {best["val"][column]:.3f}.'
  return cell_id(Cell(**best['cell'])), about


def _best_setting(folder: epath.Path) -> tuple[list[dict], Callable[[Sequence], float], str]:
  """(the runs of the source and method that validation prefers, what runs are worth, why)."""
  from tlx.report import numbers  # as in `_caution`
  from tlx.report.folder import ordered

  if not folder.exists():
    raise ValueError(f'There is no study at {folder}.')
  runs = [checkpoint.unsealed(path) for path in sorted(folder.glob('runs/*/result.json'))]
  about = folder / 'study.json'
  wanted = checkpoint.unsealed(about)['plan']['runs'] if about.exists() else []
  if wanted:  # the folder may hold others, of a config that had more
    runs = [run for run in runs if run['id'] in set(wanted)]
  chosen = [run for run in runs if run['chosen'] and run['status'] == 'ok']
  if not chosen:
    raise ValueError(f'{folder} has no chosen run yet: run its study to the end.')
  targets = {base(run['cell']['target']) for run in chosen}
  if len(targets) > 1:
    raise ValueError(f'{folder} has runs on {", ".join(sorted(targets))}. Name one of its runs/.')
  study = checkpoint.unsealed(about)['config']
  target = study['targets'][chosen[0]['cell']['target']]
  task = make_task(target['task'], chosen[0]['num_classes'])
  column, direction = task.select
  most = max(_size(run) for run in chosen)
  settings: dict[tuple[str, str], list[dict]] = {}
  for run in chosen:
    if _size(run) == most:
      settings.setdefault((base(run['cell']['source']), run['cell']['method']), []).append(run)

  def worth(runs: Sequence[Mapping[str, Any]]) -> float:
    return direction * numbers.mean([run['val'][column] for run in runs])

  # of equals the first of the config, as the report has it
  order = itertools.product(
    ordered((source for source, _ in settings), map(base, study['sources'])),
    ordered((method for _, method in settings), study['methods']),
  )
  there = [setting for setting in order if setting in settings]
  source, method = max(there, key=lambda setting: worth(settings[setting]))
  alike = settings[source, method]
  why = (
    f'{method} from {source} is best on validation with {alike[0]["num_train"]:,} training '
    f'examples (mean {column} {direction * worth(alike):.3f} over {len(alike)} runs)'
  )
  return alike, worth, why


def _size(run: Mapping[str, Any]) -> float:
  """The examples a class of a run; all of them are most."""
  return run['cell']['shots'] or float('inf')


def load_source(
  backbone: str | Mapping[str, Any],
  weights: str,
  fields: Mapping[str, Any] | None = None,
  form: str = '',
) -> Model:
  """Bare weights: of a language model with its head, of others up to the stage before it.

  Args:
    backbone: as a source of a config has it: 'gpt2', {'name': 'bert', 'variant': 'minilm_l6'}.
    weights: a URI of tlx/sources, or a name of its catalogue; then `backbone` may be ''.
    fields: of the input, where it is another than the weights'.
    form: of the examples, a file of tlx/inputs; '' is what the backbone names. A language model
      that writes takes 'language' or 'dialogue'.

  Raises:
    ValueError: an unknown backbone, or weights that cannot be had or do not fit it.
  """
  source = configs.source_of(backbone, weights, fields or {}, form)
  name, options = configs.named(source['backbone'])
  module = plug('backbones', name)
  own_head = inspect.signature(module.build).parameters['num_classes'].default is None
  network = network_of(source, None if own_head else 2)
  fresh = () if own_head else network.stages[-1:]
  loaded = sources.load(source['weights'], source['sha256'] or None)
  shapes = shapes_of(source, network)
  variables, _ = backbones.from_weights(module, options, loaded, shapes, fresh=fresh)
  return Model(network, variables, source, '', (), f'{name} with {weights}')


def predict(model: Model, new: datasets.Unlabelled) -> dict[str, Sequence[Any]]:
  """{'id': ..., what the task answers: a value an example, ..., 'error': '' or why there is
  none}.

  Raises:
    ValueError: bare weights, or examples of another kind than the network takes.
  """
  if not model.task:
    raise ValueError(f'{model.about}: bare weights answer no task. Name a run of a study.')
  name, _ = configs.named(model.task)
  module = plug('tasks', name)
  if not hasattr(module, 'answers'):
    raise ValueError(
      f'{model.about}: the task {name} says nothing of new examples by themselves. Take their '
      f'vectors ({spelled("embed")}), what the model writes ({spelled("generate")}), or boxes '
      f'({spelled("predict")}).'
    )
  task = make_task(model.task, len(model.class_names))
  outputs, bad = apply(model, new)
  kept = task.keep(outputs)
  if model.others:
    if not hasattr(module, 'averaged'):
      raise ValueError(f'Answers of the task {name} are not averaged over runs. Take one run.')
    runs = (model._replace(variables=variables) for variables in model.others)
    kept = module.averaged([kept, *(task.keep(apply(one, new)[0]) for one in runs)])
  answers = module.answers(kept, model.class_names)
  for column in answers.values():
    blank = '' if isinstance(column, list) else np.nan
    for row in bad:
      column[row] = blank
  return {
    'id': new.ids,
    **answers,
    'error': [bad.get(row, '') for row in range(len(new.ids))],
  }


def num_cut(model: Model, new: datasets.Unlabelled) -> int:
  """How many examples are longer than the network was made for, and lose their end."""
  form = configs.form_module(model.source)
  return form.num_cut(new.records, model.source['input']) if hasattr(form, 'num_cut') else 0


def embed(
  model: Model, new: datasets.Unlabelled, stage: str = ''
) -> tuple[np.ndarray, dict[int, str]]:
  """(float32 [N, D]: what a stage makes of each example, averaged over places or tokens; {row:
  why} of those that cannot be read, whose rows are NaN). The stage is the last before the head,
  or named.

  Raises:
    ValueError: no such stage, or examples of another kind than the network takes.
  """
  if model.others:
    raise ValueError('An ensemble has no vectors of its own. Take one run.')
  stages = model.network.stages[:-1]
  if stage and stage not in (*stages, 'input'):
    raise ValueError(
      f'{stage!r} is no stage before the head of {model.about.partition(":")[0]}; have '
      f'{", ".join(stages)}.{closest(stage, stages)}'
    )
  if getattr(configs.form_module(model.source), 'SIDES', False):  # of one text there is no pair
    source = {**model.source, 'form': ''}
    network = network_of(source, None, model.method)
    model = model._replace(network=network, source=source)
  found = model._replace(network=backbones.head_after(model.network, stage or stages[-1], 2))
  vectors, bad = apply(found, new, stop=-1)
  vectors = np.array(vectors, np.float32)
  vectors[list(bad)] = np.nan
  return vectors, bad


def apply(
  model: Model,
  new: datasets.Unlabelled,
  stop: int | None = None,
  then: Callable[[PyTree], PyTree] | None = None,
) -> tuple[PyTree, dict[int, str]]:
  """(what the stages before `stop`, and `then`, make of each example [N, ...], {row: why} of those
  that cannot be read, whose outputs mean nothing).

  Raises:
    ValueError: examples of another kind than the network takes.
  """
  form = configs.form_module(model.source)
  if new.kind != getattr(form, 'UNLABELLED', form.KIND):
    name = model.about.partition(':')[0]
    raise ValueError(f'{name} takes {form.KIND}s, and these are {new.kind}s.')
  if 'ids' in model.leaves:
    pairs = 'types' in model.leaves or getattr(form, 'SIDES', False)
    wanted = 'pairs of texts' if pairs else 'single texts'
    for name, record in zip(new.ids, new.records):
      known = isinstance(record, (str, tuple))
      if known and isinstance(record, tuple) != pairs:
        raise ValueError(f'{model.about} was trained on {wanted}, and {name} is none.')
  run = _program(model.network, configs.form_of(model.source).enter, stop, then)
  parts: list[PyTree] = []
  bad: dict[int, str] = {}
  order = _by_length(new)
  for first in range(0, len(order), BATCH):
    rows = order[first : first + BATCH]
    leaves, wrong = form.store([new.records[row] for row in rows], model.source['input'])
    bad |= {int(rows[row]): why for row, why in wrong.items()}
    filled = jax.tree.map(lambda leaf: feed.filled(leaf, BATCH), leaves)
    parts.append(jax.device_get(run(model.variables, filled)))
  places = np.argsort(order)  # what the last batch is filled up with is behind all of them
  found = jax.tree.map(lambda *leaves: np.concatenate(leaves)[places], *parts)
  return found, dict(sorted(bad.items()))


def _by_length(new: datasets.Unlabelled) -> np.ndarray:
  """The rows, of texts the shortest first, so that batches hold little padding."""
  if new.kind != 'text':
    return np.arange(len(new.ids))
  return np.argsort([len(str(record)) for record in new.records], kind='stable')


@functools.cache
def _program(
  network: Network, enter: Callable, stop: int | None, then: Callable | None = None
) -> Callable:
  def run(variables: Variables, leaves: PyTree) -> PyTree:
    outputs, _ = network.apply(variables, enter(leaves), train=False, stop=stop)
    return then(outputs) if then else outputs

  return jax.jit(run)


def _as_resolved(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of an input as a config has them, read from JSON: tuples, not lists."""
  return {
    name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
  }
