"""From a config to cells, cohorts and programs, without touching data."""
import functools
import itertools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tlx import datasets, freezing, tree
from tlx.plug import plug
from tlx.study.config import named
from tlx.tasks import classification
from tlx.train import cohort, fit, step
from tlx.types import Cell, Network, Variables


class Cohort(NamedTuple):
  """Cells that are trained together; cohorts of one source, target and method are chosen from together."""
  id: str
  cells: tuple[Cell, ...]


def cell_id(cell: Cell) -> str:
  """The name of a run's folder."""
  shots = f'{cell.shots}shot' if cell.shots else 'full'
  decay = f'-wd{cell.weight_decay:g}' if cell.weight_decay else ''
  return f'{cell.source}-{cell.target}-{cell.method}-{shots}-seed{cell.seed}-lr{cell.learning_rate:g}{decay}'


def cells_of(study: Mapping[str, Any]) -> list[Cell]:
  """Every run of a resolved config, those that a cohort may hold together next to each other."""
  return [Cell(source, target, name, shots, seed, rate, decay)
          for source, target, (name, method) in itertools.product(study['sources'], study['targets'], study['methods'].items())
          for shots, seed in itertools.product(study['shots'], study['seeds'])
          for rate, decay in itertools.product(method['grid']['learning_rate'], method['grid']['weight_decay'])]


def make(study: Mapping[str, Any]) -> list[Cohort]:
  """The cohorts of a resolved config, in the order they run; every one of them can be built.

  Raises:
    ValueError: an unknown data set or option, rules that do not fit the network, or more shots than there are examples.
  """
  cohorts = []
  for source in study['sources'].values():
    _check_source(study, source)
  for (source, target, method), group in itertools.groupby(cells_of(study), key=lambda cell: cell[:3]):
    _check_shots(study, target)
    cells = list(group)
    size = max(1, int(study['cohort_bytes'] // _run_bytes(study, cells[0])))
    for i in range(0, len(cells), size):
      part = f'-part{i // size}' if len(cells) > size else ''
      cohorts.append(Cohort(f'{source}-{target}-{method}{part}', tuple(cells[i:i + size])))
  return cohorts


def classes_of(study: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, ...]:
  """The class names of a source's or a target's data set."""
  return _info(data['dataset'], study['data_dir'] or None, data['shift']).class_names


def network_of(source: Mapping[str, Any], num_classes: int) -> Network:
  """A source's architecture with a head of `num_classes`; the same arguments give the same object, so programs are shared."""
  return _build(json.dumps(source['backbone'], sort_keys=True), num_classes)


def shapes_of(source: Mapping[str, Any], network: Network) -> Variables:
  """The shapes of a network's variables for the images of its source."""
  return _shapes(network, _image_shape(source))


def phases_of(method: Mapping[str, Any], source: Mapping[str, Any], num_classes: int) -> tuple[fit.PhasePlan, ...]:
  """A method's phases on one architecture.

  Raises:
    ValueError: rules that do not fit the network's parameters, or groups without a learning rate.
  """
  network = network_of(source, num_classes)
  shapes = shapes_of(source, network)
  plans = []
  for phase in method['phases']:
    policy, options = named(phase['tune'], 'policy')
    try:
      rules = tuple(plug('freezing', policy).rules(network.stages, **options))
    except TypeError as error:
      raise ValueError(f'Freezing policy {policy!r}: {str(error).replace("rules()", "it")}.') from None
    groups = tree.named_leaves(tree.label(shapes.params, rules, ('frozen', *phase['rates'])))
    labels, rates = _layer_rates(groups, network.stages, phase['rates'], phase['layer_decay'])
    optimizer, optimizer_options = named(phase['optimizer'])
    static = step.Phase(
        labels, rates, freezing.frozen_norms(shapes.params, shapes.stats, rules, phase['norm']), optimizer,
        tuple(sorted(optimizer_options.items())), phase['schedule'], phase['warmup'], phase['clip_norm'],
        tuple(sorted(phase['augment'].items())), tuple(source['input']['mean']), tuple(source['input']['std']), num_classes)
    plans.append(fit.PhasePlan(static, _task(phase['label_smoothing']), phase['steps'], phase['batch_size'], phase['evaluations'],
                               phase['learning_rate']))
  return tuple(plans)


def sizes(shapes: Variables) -> list[tuple[str, int]]:
  """[(name, number of scalars)] of the parameters."""
  return [(name, int(np.prod(leaf.shape))) for name, leaf in tree.named_leaves(shapes.params)]


def table(study: Mapping[str, Any], cohorts: list[Cohort]) -> list[dict[str, Any]]:
  """What the study will cost: a row a cohort, sources first. Memory is parameters, gradients and optimizer state of its runs."""
  rows: list[dict[str, Any]] = []
  programs: set[tuple] = set()
  pretraining = [(f'source {name}', source, classes_of(study, source), {'phases': (source['train'],)}, 1)
                 for name, source in study['sources'].items()]
  transfers = [(c.id, study['sources'][c.cells[0].source], classes_of(study, study['targets'][c.cells[0].target]),
                study['methods'][c.cells[0].method], len(c.cells)) for c in cohorts]
  for name, source, classes, method, num_runs in pretraining + transfers:
    network, phases = network_of(source, len(classes)), phases_of(method, source, len(classes))
    shapes = shapes_of(source, network)
    trained = [sum(size for leaf, size in sizes(shapes) if dict(plan.phase.labels)[leaf] != 'frozen') for plan in phases]
    before = len(programs)
    programs |= {(network, plan.phase, plan.batch_size, num_runs, max(fit.ORDER_STEPS, plan.num_steps)) for plan in phases}
    flops = [plan.num_steps * _flops(network, plan, _image_shape(source)) for plan in phases]
    rows.append({
        'cohort': name, 'runs': num_runs, 'phases': len(phases), 'new programs': len(programs) - before,
        'steps': sum(plan.num_steps for plan in phases), 'trained': max(trained),
        'share': max(trained) / tree.count(shapes.params), 'GFLOP': num_runs * sum(flops) / 1e9,
        'MB': num_runs * max(_state_bytes(shapes, plan) for plan in phases) / 1e6})
  return rows


def train_flops(phases: tuple[fit.PhasePlan, ...], network: Network, source: Mapping[str, Any]) -> float:
  """FLOPs of the training steps of one run, evaluation not counted."""
  return sum(plan.num_steps * _flops(network, plan, _image_shape(source)) for plan in phases)


def _layer_rates(groups, stages, rates: Mapping[str, float], decay: float):
  """((name, group), ...) and ((group, rate), ...); with layer-wise decay each stage of a group becomes a group of its own."""
  if decay == 1.0:
    return tuple(groups), tuple(sorted((group, rates[group]) for group in {group for _, group in groups} - {'frozen'}))
  depth = {stage: len(stages) - 1 - i for i, stage in enumerate(stages)}
  labels, layered = [], {}
  for name, group in groups:
    stage = name.split('/')[0]
    label = group if group == 'frozen' else f'{group}@{stage}'
    labels.append((name, label))
    if group != 'frozen':
      layered[label] = rates[group] * decay ** depth[stage]
  return tuple(labels), tuple(sorted(layered.items()))


@functools.cache
def _build(backbone: str, num_classes: int) -> Network:
  name, options = named(json.loads(backbone))
  options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
  try:
    return plug('backbones', name).build(num_classes, **options)
  except TypeError as error:
    raise ValueError(f'Backbone {name!r}: {str(error).replace("build()", "it")}.') from None


_info = functools.lru_cache(maxsize=None)(datasets.info)
_task = functools.lru_cache(maxsize=None)(classification.task)


@functools.cache
def _shapes(network: Network, image_shape: tuple[int, ...]) -> Variables:
  return jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), np.float32))


def _flops(network: Network, plan: fit.PhasePlan, image_shape: tuple[int, ...]) -> float:
  """FLOPs of one step of a phase."""
  inputs = jax.ShapeDtypeStruct((plan.batch_size, *image_shape), np.uint8)
  trained = frozenset(name for name, group in plan.phase.labels if group != 'frozen')
  return cohort.gradient_flops(network, plan.task, trained, plan.phase.frozen_norms, inputs)


def _image_shape(source: Mapping[str, Any]) -> tuple[int, ...]:
  return source['input']['image_size'], source['input']['image_size'], source['input']['channels']


def _state_bytes(shapes: Variables, plan: fit.PhasePlan) -> int:
  """Bytes of a run's trainable parameters, their gradients and updates, and its optimizer state."""
  scalar = jax.ShapeDtypeStruct((), np.float32)
  state = jax.eval_shape(lambda params, stats, hyper: step.start(step.split(params, plan.phase)[0], stats, plan.phase, hyper), shapes.params, shapes.stats,
                         step.Hyper(scalar, scalar, scalar))
  return 3 * tree.num_bytes(state.trainable) + tree.num_bytes(state.opt_state)


def _run_bytes(study: Mapping[str, Any], cell: Cell) -> int:
  source = study['sources'][cell.source]
  classes = classes_of(study, study['targets'][cell.target])
  phases = _located(f'config.methods.{cell.method}', lambda: phases_of(study['methods'][cell.method], source, len(classes)))
  shapes = shapes_of(source, network_of(source, len(classes)))
  return max(_state_bytes(shapes, plan) for plan in phases)


def _check_source(study: Mapping[str, Any], source: Mapping[str, Any]) -> None:
  _located('config.sources', lambda: phases_of({'phases': (source['train'],)}, source, len(classes_of(study, source))))


def _check_shots(study: Mapping[str, Any], target: str) -> None:
  """Catches what the counts of the training part alone rule out; the exact counts of each class are checked with the data."""
  data = study['targets'][target]
  info = _info(data['dataset'], study['data_dir'] or None, data['shift'])
  if info.num_examples.get('train') and max(study['shots']) * len(info.class_names) > info.num_examples['train']:
    raise ValueError(f'config.shots: {max(study["shots"])} shots of {len(info.class_names)} classes are more than the '
                     f'{info.num_examples["train"]} training examples of {data["dataset"]!r}.')


def _located(where: str, function):
  try:
    return function()
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from None
