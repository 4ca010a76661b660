"""From a config to cells, cohorts and programs, without touching data."""
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tlx import backbones, datasets, freezing, tree
from tlx.plug import plug
from tlx.study.config import named
from tlx.tasks import classification
from tlx.train import cohort, fit, prefix, step
from tlx.types import Cell, Network, Variables

PRETRAINING = {'val_fraction': 0.1, 'test_fraction': 0.3}  # of the data set that a source is trained on


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


def network_of(source: Mapping[str, Any], num_classes: int, head_after: str | Mapping[str, Any] = '') -> Network:
  """A source's architecture with a head of `num_classes`; the same arguments give the same object, so programs are shared."""
  return _build(json.dumps(source['backbone'], sort_keys=True), num_classes, json.dumps(head_after, sort_keys=True))


def shapes_of(source: Mapping[str, Any], network: Network) -> Variables:
  """The shapes of a network's variables for the images of its source."""
  return _shapes(network, _image_shape(source))


def phases_of(method: Mapping[str, Any], source: Mapping[str, Any], num_classes: int, room: float = 0.0) -> tuple[fit.PhasePlan, ...]:
  """A method's phases on one architecture.

  Args:
    room: bytes that may be kept of each example's activations; each phase begins at the deepest stage that frozen stages lead to
      and whose activation fits. 0: at the first.

  Raises:
    ValueError: rules that do not fit the network's parameters, groups without a learning rate, or what needs a frozen prefix without one.
  """
  network = network_of(source, num_classes, method.get('head_after', ''))
  shapes = shapes_of(source, network)
  plans: list[fit.PhasePlan] = []
  changed = {name for name, _ in tree.named_leaves(shapes.params)} if method.get('init') == 'random' else set()
  for phase in method['phases']:
    policy, options = named(phase['tune'], 'policy')
    try:
      rules = tuple(plug('freezing', policy).rules(network.stages, **options))
    except TypeError as error:
      raise ValueError(f'Freezing policy {policy!r}: {str(error).replace("rules()", "it")}.') from None
    groups = tree.named_leaves(tree.label(shapes.params, rules, ('frozen', *phase['rates'])))
    labels, rates = _layer_rates(groups, network.stages, phase['rates'], phase['layer_decay'])
    optimizer, optimizer_options = named(phase['optimizer'])
    frozen_norms = freezing.frozen_norms(shapes.params, shapes.stats, rules, phase['norm'])
    start = _start(network, shapes, source, phase, prefix.boundary(network, shapes, dict(labels), frozen_norms, frozenset(changed)), room)
    moving = {name.rpartition('/')[0] for name, _ in tree.named_leaves(shapes.stats)} - frozen_norms
    changed |= {name for name, group in labels if group != 'frozen'} | moving
    static = step.Phase(
        labels, rates, frozen_norms, optimizer, tuple(sorted(optimizer_options.items())), phase['schedule'], phase['warmup'],
        phase['clip_norm'], tuple(sorted(phase['augment'].items())), start, phase['views'], phase['solver'], phase['remat'],
        phase['accumulate'], tuple(source['input']['mean']), tuple(source['input']['std']), num_classes)
    plans.append(fit.PhasePlan(static, _task(phase['label_smoothing']), phase['steps'], phase['batch_size'], phase['evaluations'],
                               phase['learning_rate'], phase['epochs']))
  return tuple(plans)


def _start(network: Network, shapes: Variables, source: Mapping[str, Any], phase: Mapping[str, Any], deepest: int, room: float) -> int:
  """The stage a phase begins at: the deepest there is whose activation fits into `room`."""
  head = len(network.stages) - 1
  if phase['solver'] != 'sgd':
    feature = activation(network, _image_shape(source), head)
    if deepest < head or (any(phase['augment'].values()) and not phase['views']) or getattr(feature, 'ndim', 0) != 2:
      raise ValueError(f"solver {phase['solver']!r} wants fixed feature vectors: every stage before the head frozen with its statistics "
                       f"(norm = 'frozen'), no augment, and a stage such as 'pool' before the head, got {feature}.")
    return head
  if any(phase['augment'].values()) and not phase['views']:
    return 0
  if phase['views'] and not deepest:
    raise ValueError(f"views = {phase['views']} are kept of what is frozen, and tune = {phase['tune']!r} trains from the first stage on. "
                     'Set views = 0: images are augmented anew at every step.')
  fitting = (start for start in range(deepest, 0, -1)
             if max(1, phase['views']) * tree.num_bytes(activation(network, _image_shape(source), start)) <= room)
  start = next(fitting, 0)
  if phase['views'] and not start and room:
    raise ValueError(f'{phase["views"]} views of an activation need more than the {room:,.0f} bytes an example that config.feature_bytes leaves.')
  return start


def sizes(shapes: Variables) -> list[tuple[str, int]]:
  """[(name, number of scalars)] of the parameters."""
  return [(name, int(np.prod(leaf.shape))) for name, leaf in tree.named_leaves(shapes.params)]


def table(study: Mapping[str, Any], cohorts: list[Cohort]) -> list[dict[str, Any]]:
  """What the study will cost: a row a cohort, trained sources first. Memory is parameters, gradients and optimizer state of its runs.

  'GFLOP' is training; 'saved' what the same steps would have cost more if frozen stages ran in each of them.
  """
  rows: list[dict[str, Any]] = []
  programs: set[tuple] = set()
  pretraining = [(f'source {name}', source, classes_of(study, source), {'phases': (source['train'],)}, [_counts(study, PRETRAINING | source)['train']], 0.0)
                 for name, source in study['sources'].items() if source['dataset']]
  transfers = [(c.id, study['sources'][c.cells[0].source], classes_of(study, study['targets'][c.cells[0].target]),
                study['methods'][c.cells[0].method], [num_train(study, cell) for cell in c.cells],
                room_of(study, _num_images(study, c.cells[0].target))) for c in cohorts]
  for name, source, classes, method, examples, room in pretraining + transfers:
    network, phases = network_of(source, len(classes), method.get('head_after', '')), phases_of(method, source, len(classes), room)
    shapes, num_runs = shapes_of(source, network), len(examples)
    trained = [sum(size for leaf, size in sizes(shapes) if dict(plan.phase.labels)[leaf] != 'frozen') for plan in phases]
    steps = np.array([[plan.steps_for(num) for plan in phases] for num in examples])  # [R, phases]
    before = len(programs)
    programs |= {(network, plan.phase, plan.batch_size, num_runs, max(fit.ORDER_STEPS, longest)) for plan, longest in zip(phases, steps.max(0))}
    saved = [plan.batch_size * prefix_flops(network, _image_shape(source), plan.phase.start) for plan in phases]
    rows.append({
        'cohort': name, 'runs': num_runs, 'phases': len(phases), 'new programs': len(programs) - before,
        'steps': int(steps.sum(1).max()), 'trained': max(trained),
        'share': max(trained) / tree.count(shapes.params), 'reused': ','.join(str(plan.phase.start) for plan in phases),
        'stages': len(network.stages), 'GFLOP': train_flops(phases, steps.sum(0).tolist(), network, source) / 1e9, 'saved': float(steps.sum(0) @ saved) / 1e9,
        'MB': num_runs * max(_state_bytes(shapes, plan) for plan in phases) / 1e6})
  return rows


def train_flops(phases: tuple[fit.PhasePlan, ...], steps: Sequence[int], network: Network, source: Mapping[str, Any]) -> float:
  """FLOPs of so many training steps of each phase; evaluation and what runs once for all runs are not counted."""
  return float(sum(count * _flops(network, plan, _image_shape(source)) for plan, count in zip(phases, steps)))


def prefix_gflop(study: Mapping[str, Any], cohorts: list[Cohort]) -> float:
  """GFLOP of running the frozen stages once for every image that a study looks at, as far as their number is known."""
  deepest: dict[tuple[str, str], float] = {}
  for source_name, target, name in dict.fromkeys(c.cells[0][:3] for c in cohorts):
    source, method, num_classes = study['sources'][source_name], study['methods'][name], len(classes_of(study, study['targets'][target]))
    network = network_of(source, num_classes, method['head_after'])
    for plan in phases_of(method, source, num_classes, room_of(study, _num_images(study, target))):
      flops = max(1, plan.phase.views) * prefix_flops(network, _image_shape(source), plan.phase.start)
      deepest[source_name, target] = max(flops, deepest.get((source_name, target), 0.0))
  return sum(flops * _num_images(study, target) for (_, target), flops in deepest.items()) / 1e9


def room_of(study: Mapping[str, Any], num_images: int) -> float:
  """Bytes that may be kept of each image's activations."""
  return study['feature_bytes'] / max(num_images, 1) if study['reuse'] else 0.0


def num_train(study: Mapping[str, Any], cell: Cell) -> int:
  """The examples a cell trains on; 0 for all of a set that TFDS does not know the size of yet."""
  data = study['targets'][cell.target]
  return cell.shots * len(classes_of(study, data)) or _counts(study, data)['train']


def _num_images(study: Mapping[str, Any], target: str) -> int:
  """The images of all splits that a study looks at: at most every subset's, and those held out; 0 where TFDS does not know yet."""
  data = study['targets'][target]
  counts = _counts(study, data)
  most = max(study['shots']) * len(classes_of(study, data)) * len(study['seeds'])
  return counts['val'] + counts['test'] + (counts['train'] if 0 in study['shots'] else min(counts['train'], most))


def _counts(study: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, int]:
  """The examples of 'train', 'val' and 'test', as a data set of one split will be divided; 0 where TFDS does not know yet."""
  counts = dict(_info(data['dataset'], study['data_dir'] or None, data['shift']).num_examples)
  train = counts.pop('train', counts.pop('all', 0))
  for split in ('test', 'val'):
    if split not in counts:
      counts[split] = int(data[f'{split}_fraction'] * train)
      train -= counts[split]
  return counts | {'train': train}


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
def activation(network: Network, image_shape: tuple[int, ...], start: int) -> Any:
  """The shape [1, ...] of one example's activation that enters stage `start`."""
  shapes = _shapes(network, image_shape)
  return prefix.activation(network, shapes, jax.ShapeDtypeStruct((1, *image_shape), np.uint8), start)


@functools.cache
def _build(backbone: str, num_classes: int, head_after: str) -> Network:
  name, options = named(json.loads(backbone))
  options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
  try:
    network = plug('backbones', name).build(num_classes, **options)
    stage, place = named(json.loads(head_after), 'stage')
    return backbones.head_after(network, stage, num_classes, **place) if stage else network
  except TypeError as error:
    raise ValueError(f'Backbone {name!r}: {str(error).replace("build()", "it")}.') from None


_info = functools.lru_cache(maxsize=None)(datasets.info)
_task = functools.lru_cache(maxsize=None)(classification.task)


def forget() -> None:
  """Classes and counts of data sets are looked up anew."""
  _info.cache_clear()


@functools.cache
def _shapes(network: Network, image_shape: tuple[int, ...]) -> Variables:
  return jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), np.float32))


def _flops(network: Network, plan: fit.PhasePlan, image_shape: tuple[int, ...]) -> float:
  """FLOPs of one step of a phase; an exact solution's are not known before it is found, and small."""
  if plan.phase.solver != 'sgd':
    return 0.0
  images = jax.ShapeDtypeStruct((plan.batch_size, *image_shape), np.uint8)
  trained = frozenset(name for name, group in plan.phase.labels if group != 'frozen')
  return cohort.gradient_flops(network, plan.task, trained, plan.phase.frozen_norms, images, plan.phase.start)


@functools.cache
def prefix_flops(network: Network, image_shape: tuple[int, ...], start: int) -> float:
  """FLOPs of one example's way to stage `start`."""
  if not start:
    return 0.0
  images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
  run = jax.jit(lambda variables, x: network.apply(variables, x, train=False, stop=start)[0])
  return float((run.lower(_shapes(network, image_shape), images).cost_analysis() or {}).get('flops', float('nan')))


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
  method, room = study['methods'][cell.method], room_of(study, _num_images(study, cell.target))
  phases = _located(f'config.methods.{cell.method}', lambda: phases_of(method, source, len(classes), room))
  shapes = shapes_of(source, network_of(source, len(classes), method['head_after']))
  return max(_state_bytes(shapes, plan) for plan in phases)


def _check_source(study: Mapping[str, Any], source: Mapping[str, Any]) -> None:
  datasets.check(**{name: value for name, value in source['input'].items() if name not in ('mean', 'std')})
  if source['dataset']:
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
