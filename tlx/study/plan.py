"""From a config to cells, cohorts and programs, without touching data."""
import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tlx import backbones, datasets, freezing, tree
from tlx import inputs as forms
from tlx.plug import plug
from tlx.study import ranges
from tlx.study.config import form_of, named
from tlx.train import cohort, fit, step
from tlx.train.prefix import activation, boundary, variable_shapes
from tlx.types import Cell, Form, Network, Task, Variables

TASK = 'classification'  # where the config does not say
PRETRAINING = {'val_fraction': 0.1, 'test_fraction': 0.3, 'val_examples': 0}  # of the data set that a source is trained on


class Cohort(NamedTuple):
  """Cells that are trained together; cohorts of one source, target and method are chosen from together."""
  id: str
  cells: tuple[Cell, ...]


def cell_id(cell: Cell) -> str:
  """The name of a run's folder; rates as the shortest decimals that read back as the same number."""
  shots = f'{cell.shots}shot' if cell.shots else 'full'
  rate = f'-lr{float(cell.learning_rate)!r}' if cell.learning_rate else ''
  decay = f'-wd{float(cell.weight_decay)!r}' if cell.weight_decay else ''
  return f'{cell.source}-{cell.target}-{cell.method}-{shots}-seed{cell.seed}{rate}{decay}'


def settings_of(method: Mapping[str, Any]) -> list[tuple[float, float]]:
  """[(learning rate, weight decay)] that a method really tries.

  Where every phase has a rate of its own or is solved exactly, the grid's rates would make identical runs: there is one, the last
  phase's, 0.0 for an exact solution.
  """
  rates = method['grid']['learning_rate']
  if all(phase['learning_rate'] or phase['solver'] != 'sgd' for phase in method['phases']):
    last = method['phases'][-1]
    rates = (last['learning_rate'] if last['solver'] == 'sgd' else 0.0,)
  return list(itertools.product(rates, method['grid']['weight_decay']))


def cells_of(study: Mapping[str, Any]) -> list[Cell]:
  """Every run of a resolved config, those that a cohort may hold together next to each other."""
  return [Cell(source, target, name, shots, seed, rate, decay)
          for source, target, (name, method) in itertools.product(study['sources'], study['targets'], study['methods'].items())
          for shots, seed in itertools.product(study['shots'], study['seeds'])
          for rate, decay in settings_of(method)]


def make(study: Mapping[str, Any], begun: Sequence[Cohort] = ()) -> list[Cohort]:
  """The cohorts of a resolved config, in the order they run: of each group those `begun` before, then its other cells.

  Raises:
    ValueError: an unknown data set or option, rules that do not fit the network, more shots or steps than there can be, or runs that
      would share a folder.
  """
  _check_ids(study)
  cohorts: list[Cohort] = []
  for source in study['sources'].values():
    _check_source(study, source)
    for name, target in study['targets'].items():
      _located(f'config.targets.{name}', lambda target=target, source=source: _check_memory(study, target, source))
  for group, wanted in itertools.groupby(cells_of(study), key=lambda cell: cell[:3]):
    _check_shots(study, group[1])
    own = [cohort for cohort in begun if cohort.cells[0][:3] == group]
    there = {cell for cohort in own for cell in cohort.cells}
    cells = [cell for cell in wanted if cell not in there]
    cohorts += own
    if cells:
      _check_steps(study, cells)
      size = max(1, int(study['cohort_bytes'] // _run_bytes(study, cells[0])))
      free = _free_ids('-'.join(group), {cohort.id for cohort in own})
      cohorts += [Cohort(next(free), tuple(cells[i:i + size])) for i in range(0, len(cells), size)]
  return cohorts


def _free_ids(name: str, taken: set[str]) -> Iterator[str]:
  """name, name-2, name-3, ..., without those that are taken."""
  numbered = itertools.chain([name], (f'{name}-{number}' for number in itertools.count(2)))
  return (one for one in numbered if one not in taken)


def dependencies(study: Mapping[str, Any], cell: Cell, data_sha256: str | None = None, source_sha256: str | None = None) -> dict[str, Any]:
  """All that a run's numbers depend on but its own cell and the versions of the code, under the names it has in the config.

  Of the source that is its form and its parameters, whatever they came from. Digests that are None are not known yet, and left out.
  """
  source, method = study['sources'][cell.source], dict(study['methods'][cell.method])
  method.pop('grid')
  known: dict[str, Any] = {
      'sources': {cell.source: {name: source[name] for name in ('backbone', 'input')}},
      'targets': {cell.target: study['targets'][cell.target]},
      'methods': {cell.method: method},
      'validation': study['validation']}
  if data_sha256 is not None:
    known['data'] = {f'{cell.source}/{cell.target}': data_sha256}
  if source_sha256 is not None:
    known['weights'] = {cell.source: source_sha256}
  return known


def classes_of(study: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, ...]:
  """The class names of a source's or a target's data set."""
  return _info_of(study, data).class_names


def task_of(study: Mapping[str, Any], data: Mapping[str, Any]) -> Task:
  """What is asked of a source's or a target's data set; a source's own training is classification."""
  return make_task(data.get('task', TASK), len(classes_of(study, data)))


def make_task(task: str | Mapping[str, Any], num_classes: int, label_smoothing: float = 0.0) -> Task:
  """The task of that name and options; the same arguments give the same object, so programs are shared.

  Raises:
    ValueError: an option that the task does not take.
  """
  name, options = named(task)
  options |= {'label_smoothing': label_smoothing} if label_smoothing else {}
  try:
    return plug('tasks', name).task(num_classes, **options)
  except TypeError as error:
    raise ValueError(f'Task {name!r}: {str(error).replace("task()", "it")}.') from None


def network_of(source: Mapping[str, Any], num_outputs: int, head_after: str | Mapping[str, Any] = '') -> Network:
  """A source's architecture with a head of `num_outputs`; the same arguments give the same object, so programs are shared."""
  return _build(json.dumps(source['backbone'], sort_keys=True), num_outputs, json.dumps(head_after, sort_keys=True))


def shapes_of(source: Mapping[str, Any], network: Network) -> Variables:
  """The shapes of a network's variables for the examples of its source."""
  return variable_shapes(network, form_of(source))


def phases_of(method: Mapping[str, Any], source: Mapping[str, Any], num_classes: int, room: float = 0.0,
              reuse: bool = True, task: str | Mapping[str, Any] = TASK) -> tuple[fit.PhasePlan, ...]:
  """A method's phases on one architecture.

  Args:
    task: as a target of the config has it.
    room: bytes that may be kept of each example's activations; each phase begins at the deepest stage that frozen stages lead to
      and whose activation fits. 0: at the first.
    reuse: False lets phases begin at the first stage, but for exact solutions and kept views, whose numbers are of activations.

  Raises:
    ValueError: rules that do not fit the network's parameters or train none, groups without a learning rate, or what needs a frozen
      prefix without one.
  """
  network, form = network_of(source, make_task(task, num_classes).head, method.get('head_after', '')), form_of(source)
  shapes = shapes_of(source, network)
  depth = freezing.groups(network.stages, shapes.params)
  plans: list[fit.PhasePlan] = []
  changed = {name for name, _ in tree.named_leaves(shapes.params)} if method.get('init') == 'random' else set()
  for phase in method['phases']:
    policy, options = named(phase['tune'], 'policy')
    try:
      rules = tuple(plug('freezing', policy).rules(depth, **options))
    except TypeError as error:
      raise ValueError(f'Freezing policy {policy!r}: {str(error).replace("rules()", "it")}.') from None
    groups = tree.named_leaves(tree.label(shapes.params, rules, ('frozen', *phase['rates'])))
    if all(label == 'frozen' for _, label in groups):
      raise ValueError(f'tune = {phase["tune"]!r} freezes every parameter; a phase trains at least one, such as the head.')
    labels, rates = _layer_rates(groups, depth, phase['rates'], phase['layer_decay'])
    optimizer, optimizer_options = named(phase['optimizer'])
    frozen_norms = freezing.frozen_norms(shapes.params, shapes.stats, rules, phase['norm'])
    asked = make_task(task, num_classes, phase['label_smoothing'])
    if phase['solver'] not in ('sgd', *asked.solvers):
      have = ', '.join(('sgd', *asked.solvers))
      raise ValueError(f"solver {phase['solver']!r} solves no {named(task)[0]}; it has {have}.")
    deepest = boundary(network, shapes, dict(labels), frozen_norms, frozenset(changed))
    start = _start(network, form, phase, deepest, room, reuse)
    moving = {name.rpartition('/')[0] for name, _ in tree.named_leaves(shapes.stats)} - frozen_norms
    changed |= {name for name, group in labels if group != 'frozen'} | moving
    static = step.Phase(
        labels, rates, frozen_norms, optimizer, tuple(sorted(optimizer_options.items())), phase['schedule'], phase['warmup'],
        phase['clip_norm'], tuple(sorted(phase['augment'].items())), start, phase['views'], phase['solver'], phase['remat'],
        phase['accumulate'])
    plans.append(fit.PhasePlan(static, asked, phase['steps'], phase['batch_size'], phase['evaluations'],
                               phase['learning_rate'], phase['epochs']))
  return tuple(plans)


def _start(network: Network, form: Form, phase: Mapping[str, Any], deepest: int, room: float, reuse: bool) -> int:
  """The stage a phase begins at: the deepest there is whose activation fits into `room`."""
  head = len(network.stages) - 1
  if phase['solver'] != 'sgd':
    feature = activation(network, form, head)
    if deepest < head or (any(phase['augment'].values()) and not phase['views']) or getattr(feature, 'ndim', 0) != 2:
      raise ValueError(f"solver {phase['solver']!r} wants fixed feature vectors: every stage before the head frozen with its statistics "
                       f"(norm = 'frozen'), no augment, and a stage such as 'pool' before the head, got {feature}.")
    return head
  if not phase['views'] and (not reuse or any(phase['augment'].values())):
    return 0
  if phase['views'] and not deepest:
    raise ValueError(f"views = {phase['views']} are kept of what is frozen, and tune = {phase['tune']!r} trains from the first stage on. "
                     'Set views = 0: images are augmented anew at every step.')
  fitting = (start for start in range(deepest, 0, -1)
             if max(1, phase['views']) * tree.num_bytes(activation(network, form, start)) <= room)
  start = next(fitting, 0)
  if phase['views'] and not start:
    raise ValueError(f'{phase["views"]} views of an activation need more than the {room:,.0f} bytes an example that config.reuse and '
                     'config.feature_bytes leave.')
  return start


def frozen_groups(network: Network, shapes: Variables, labels: Mapping[str, str]) -> tuple[int, int]:
  """(how many groups of stages before the first with a trained parameter, how many groups there are): the depth of freezing.

  `labels` are those of a phase. Groups are counted as the freezing policies do (`freezing.groups`).
  """
  depth = freezing.groups(network.stages, shapes.params)
  trained = {name.split('/')[0] for name, label in labels.items() if label != 'frozen'}
  return freezing.leading(depth, trained), len(depth)


def reused_groups(network: Network, shapes: Variables, start: int) -> int:
  """How many whole groups of stages run once before a phase that begins at stage `start`."""
  return freezing.leading(freezing.groups(network.stages, shapes.params), network.stages[start:])


def sizes(shapes: Variables) -> list[tuple[str, int]]:
  """[(name, number of scalars)] of the parameters."""
  return [(name, int(np.prod(leaf.shape))) for name, leaf in tree.named_leaves(shapes.params)]


def table(study: Mapping[str, Any], cohorts: list[Cohort]) -> list[dict[str, Any]]:
  """What the study will cost: a row a cohort, trained sources first. Memory is parameters, gradients and optimizer state of its runs.

  'GFLOP' is training, 'evaluation' validation and test of the chosen runs, NaN where a data set's size is not known yet; what frozen
  stages cost that run once is in neither (`frozen_flops`).
  """
  rows: list[dict[str, Any]] = []
  programs: set[tuple] = set()
  for name, source, data, head_after, plans, examples, chosen in _trainings(study, cohorts):
    network, form = network_of(source, task_of(study, data).head, head_after), form_of(source)
    shapes, num_runs, counts = shapes_of(source, network), len(examples), _counts(study, data)
    trained = [sum(size for leaf, size in sizes(shapes) if dict(plan.phase.labels)[leaf] != 'frozen') for plan in plans]
    steps = np.array([[plan.steps_for(num) for plan in plans] for num in examples])  # [R, phases]
    before = len(programs)
    programs |= {(network, plan.phase, plan.batch_size, num_runs, max(fit.ORDER_STEPS, longest)) for plan, longest in zip(plans, steps.max(0))}
    known = all(examples) or not any(plan.epochs for plan in plans)
    rows.append({
        'cohort': name, 'runs': num_runs, 'phases': len(plans), 'new programs': len(programs) - before,
        'steps': int(steps.sum(1).max()) if known else float('nan'), 'trained': max(trained),
        'share': max(trained) / tree.count(shapes.params), 'reused': ','.join(str(plan.phase.start) for plan in plans),
        'stages': len(network.stages),
        'GFLOP': train_flops(plans, steps.sum(0).tolist(), network, form) / 1e9 if known else float('nan'),
        'evaluation': _evaluation_flops(network, form, plans, num_runs, chosen, counts) / 1e9 if all(counts.values()) else float('nan'),
        'MB': num_runs * max(_state_bytes(shapes, plan) for plan in plans) / 1e6})
  return rows


def same_methods(study: Mapping[str, Any], source: str, target: str) -> list[tuple[str, ...]]:
  """The groups of methods that train the same parameters in the same way, but perhaps with other rates of the grid."""
  config, head = study['sources'][source], task_of(study, study['targets'][target]).head
  found: dict[tuple, list[str]] = {}
  for name, plans in phases_for(study, source, target).items():
    method = study['methods'][name]
    network = network_of(config, head, method['head_after'])
    found.setdefault((network, method['init'], tuple(map(_way, plans))), []).append(name)
  return [tuple(names) for names in found.values() if len(names) > 1]


def _way(plan: fit.PhasePlan) -> tuple:
  """Equal for phases that train the same parameters in the same way, whatever their groups are called."""
  rates = dict(plan.phase.rates)
  leaves = tuple((name, rates.get(label)) for name, label in plan.phase.labels)
  return leaves, plan._replace(phase=plan.phase._replace(labels=(), rates=(), start=0), evaluations=1)


class _Training(NamedTuple):
  """Runs that are trained together, a source's or a cohort's."""
  name: str
  source: Mapping[str, Any]
  data: Mapping[str, Any]
  head_after: Any
  phases: tuple[fit.PhasePlan, ...]
  examples: list[int]  # of each run; 0 where their number is not known yet
  chosen: float  # how many of the runs are tested


def _trainings(study: Mapping[str, Any], cohorts: list[Cohort]) -> Iterator[_Training]:
  for name, source in study['sources'].items():
    if source['dataset']:
      data = PRETRAINING | source
      phases = phases_of({'phases': (source['train'],)}, source, len(classes_of(study, source)))
      yield _Training(f'source {name}', source, data, '', phases, [_counts(study, data)['train']], 1)
  for pair, group in itertools.groupby(cohorts, key=lambda cohort: cohort.cells[0][:2]):
    of_methods = phases_for(study, *pair)
    for one in group:
      name = one.cells[0].method
      method, examples = study['methods'][name], [num_train(study, cell) for cell in one.cells]
      yield _Training(one.id, study['sources'][pair[0]], study['targets'][pair[1]], method['head_after'], of_methods[name], examples,
                      len(one.cells) / len(settings_of(method)))


def train_flops(phases: tuple[fit.PhasePlan, ...], steps: Sequence[int], network: Network, form: Form) -> float:
  """FLOPs of so many training steps of each phase; evaluation and what runs once for all runs are not counted."""
  return float(sum(count * _flops(network, form, plan) for plan, count in zip(phases, steps)))


def _evaluation_flops(network: Network, form: Form, phases: tuple[fit.PhasePlan, ...], num_runs: int, chosen: float,
                      counts: Mapping[str, int]) -> float:
  """FLOPs of looking at the validation part as often as the phases do, and once at the test part with each chosen run."""
  rest = [_stages_flops(network, form, plan.phase.start, len(network.stages)) for plan in phases]  # of one example
  val = sum(len(plan.stops) * flops for plan, flops in zip(phases, rest))
  return num_runs * counts['val'] * val + chosen * counts['test'] * rest[-1]


def phases_for(study: Mapping[str, Any], source: str, target: str,
               counts: Mapping[str, int] | None = None) -> dict[str, tuple[fit.PhasePlan, ...]]:
  """{method: its phases} from a source to a target, as the study trains them.

  Frozen stages run once for every image only where that costs less than running them in every step and evaluation; where exact
  solutions ask for their activations anyway, others take part.

  Args:
    counts: the images of 'train' (used by some run), 'val' and 'test', for a data set whose size was not known without its data.
  """
  images = _images(study, target) or counts
  of_methods = functools.partial(_phases_of_methods, study, source, target, room_of(study, images))
  phases = of_methods(reuse=True)
  if images is None:
    return phases
  cost = _frozen_flops(study, source, target, phases, images)
  return phases if cost.once - cost.needed < cost.spared else of_methods(reuse=False)


def _phases_of_methods(study: Mapping[str, Any], source: str, target: str, room: float, reuse: bool):
  config, data = study['sources'][source], study['targets'][target]
  num_classes = len(classes_of(study, data))
  return {name: phases_of(method, config, num_classes, room, reuse, data['task']) for name, method in study['methods'].items()}


class Frozen(NamedTuple):
  """FLOPs of stages that stay frozen."""
  once: float  # to run once for every image
  needed: float  # of `once`, what exact solutions and kept views ask for
  instead: float  # in every step and evaluation, if activations were not kept
  spared: float  # of `instead`, what is of steps that could do without


def frozen_flops(study: Mapping[str, Any], source: str, target: str) -> Frozen | None:
  """What the frozen stages from a source to a target cost as the study runs them; None where the target's size is not known yet."""
  images = _images(study, target)
  return None if images is None else _frozen_flops(study, source, target, phases_for(study, source, target), images)


def _frozen_flops(study: Mapping[str, Any], source: str, target: str, phases: Mapping[str, tuple[fit.PhasePlan, ...]],
                  images: Mapping[str, int]) -> Frozen:
  config, data = study['sources'][source], study['targets'][target]
  form, num_classes, head = form_of(config), len(classes_of(study, data)), task_of(study, data).head
  once: dict[tuple, float] = {}
  needed: dict[tuple, float] = {}
  instead = spared = 0.0
  for name, plans in phases.items():
    method = study['methods'][name]
    network = network_of(config, head, method['head_after'])
    settings = len(settings_of(method))
    sizes_of_runs = [shots * num_classes or images['train'] for shots in study['shots'] for _ in study['seeds']]
    for plan in plans:
      flops = prefix_flops(network, form, plan.phase.start)
      exact = plan.phase.solver != 'sgd'
      views = max(1, plan.phase.views)
      passes = {('train', plan.phase.views and plan.phase.augment, views): views * images['train'], ('held out',): images['val'] + images['test']}
      for key, count in passes.items():
        for total in (once, needed) if exact or plan.phase.views else (once,):
          total[key] = max(total.get(key, 0.0), flops * count)
      trained = sum(num if exact else plan.steps_for(num) * plan.batch_size for num in sizes_of_runs)
      seen = settings * (trained + len(sizes_of_runs) * len(plan.stops) * images['val'])
      seen += len(sizes_of_runs) * images['test'] if plan is plans[-1] else 0
      instead += flops * seen
      spared += 0.0 if exact or plan.phase.views else flops * seen
  return Frozen(sum(once.values()), sum(needed.values()), instead, spared)


def room_of(study: Mapping[str, Any], images: Mapping[str, int] | None) -> float:
  """Bytes that may be kept of each image's activations; all of them where the number of images is not known yet."""
  return study['feature_bytes'] / max(sum(images.values()) if images else 1, 1) if study['reuse'] else 0.0


def num_train(study: Mapping[str, Any], cell: Cell) -> int:
  """The examples a cell trains on; 0 for all of a set that TFDS does not know the size of yet."""
  data = study['targets'][cell.target]
  return cell.shots * len(classes_of(study, data)) or _counts(study, data)['train']


def _images(study: Mapping[str, Any], target: str) -> dict[str, int] | None:
  """The images of each split that a study looks at, of the training part at most every subset's; None where TFDS does not know yet."""
  data = study['targets'][target]
  counts = _counts(study, data)
  most = max(study['shots']) * len(classes_of(study, data)) * len(study['seeds'])
  train = counts['train'] if 0 in study['shots'] else min(counts['train'], most)
  return counts | {'train': train} if all(counts.values()) else None


def _counts(study: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, int]:
  """The examples of 'train', 'val' and 'test', as a data set of one split will be divided; 0 where TFDS does not know yet."""
  counts = dict(_info_of(study, data).num_examples)
  train = counts.pop('train', counts.pop('all', 0))
  for split in ('test', 'val'):
    if split not in counts:
      counts[split] = int(data[f'{split}_fraction'] * train)
      train -= counts[split]
  val = min(counts['val'], data['val_examples'] or counts['val'])
  return counts | {'train': train, 'val': val}


def _info_of(study: Mapping[str, Any], data: Mapping[str, Any]) -> datasets.Info:
  return _info(data['dataset'], study['data_dir'] or None, data['shift'], data['group'], data['skip_bad'])


def _layer_rates(labels: Sequence[tuple[str, str]], depth: freezing.Groups, rates: Mapping[str, float],
                 decay: float) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, float], ...]]:
  """((name, label), ...) and ((label, rate), ...); with layer-wise decay each group of stages has a label of its own.

  Rates as in MAE and timm: the group of the head learns at 1, each below at `decay` times the one above it.
  """
  if decay == 1.0:
    return tuple(labels), tuple(sorted((label, rates[label]) for label in {label for _, label in labels} - {'frozen'}))
  layer = {stage: i for i, group in enumerate(depth) for stage in group}
  layered: dict[str, float] = {}
  renamed = []
  for name, label in labels:
    i = layer[name.split('/')[0]]
    own = label if label == 'frozen' else f'{label}@{depth[i][-1]}'
    renamed.append((name, own))
    if own != 'frozen':
      layered[own] = rates[label] * decay ** (len(depth) - 1 - i)
  return tuple(renamed), tuple(sorted(layered.items()))


@functools.cache
def _build(backbone: str, num_outputs: int, head_after: str) -> Network:
  name, options = named(json.loads(backbone))
  options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
  try:
    network = plug('backbones', name).build(num_outputs, **options)
    stage, place = named(json.loads(head_after), 'stage')
    return backbones.head_after(network, stage, num_outputs, **place) if stage else network
  except TypeError as error:
    raise ValueError(f'Backbone {name!r}: {str(error).replace("build()", "it")}.') from None


_info = functools.lru_cache(maxsize=None)(datasets.info)


def forget() -> None:
  """Classes and counts of data sets are looked up anew."""
  _info.cache_clear()


def _flops(network: Network, form: Form, plan: fit.PhasePlan) -> float:
  """FLOPs of one step of a phase; an exact solution's are not known before it is found, and small."""
  if plan.phase.solver != 'sgd':
    return 0.0
  return cohort.gradient_flops(cohort.costing(step.Recipe(network, form, plan.task, plan.phase)), plan.batch_size)


def prefix_flops(network: Network, form: Form, start: int) -> float:
  """FLOPs of one example's way to stage `start`."""
  return _stages_flops(network, form, 0, start)


@functools.cache
def _stages_flops(network: Network, form: Form, start: int, stop: int) -> float:
  """FLOPs of one example's way from stage `start` to stage `stop`, as XLA counts them; computes nothing."""
  if start == stop:
    return 0.0
  inputs = activation(network, form, start) if start else forms.entered(form, 1)
  run = jax.jit(lambda variables, x: network.apply(variables, x, train=False, start=start, stop=stop)[0])
  return float((run.lower(variable_shapes(network, form), inputs).cost_analysis() or {}).get('flops', float('nan')))


def input_share(source: Mapping[str, Any], own: Mapping[str, Any]) -> float:
  """The FLOPs of an example of the source's input over those of one of the input `own`; 0.0 where the network does not take that."""
  network = network_of(source, 2)
  stop = len(network.stages) - 1
  try:
    return prefix_flops(network, form_of(source), stop) / prefix_flops(network, form_of({**source, 'input': own}), stop)
  except ValueError:
    return 0.0


def _state_bytes(shapes: Variables, plan: fit.PhasePlan) -> int:
  """Bytes of a run's trainable parameters, their gradients and updates, and its optimizer state."""
  scalar = jax.ShapeDtypeStruct((), np.float32)
  state = jax.eval_shape(lambda params, stats, hyper: step.start(step.split(params, plan.phase)[0], stats, plan.phase, hyper), shapes.params, shapes.stats,
                         step.Hyper(scalar, scalar, scalar))
  return 3 * tree.num_bytes(state.trainable) + tree.num_bytes(state.opt_state)


def _run_bytes(study: Mapping[str, Any], cell: Cell) -> int:
  source = study['sources'][cell.source]
  target = study['targets'][cell.target]
  classes = classes_of(study, target)
  method, room = study['methods'][cell.method], room_of(study, _images(study, cell.target))
  phases = _located(f'config.methods.{cell.method}', lambda: phases_of(method, source, len(classes), room, task=target['task']))
  shapes = shapes_of(source, network_of(source, task_of(study, target).head, method['head_after']))
  return max(_state_bytes(shapes, plan) for plan in phases)


def _check_ids(study: Mapping[str, Any]) -> None:
  """Raises ValueError where two runs would have one folder, or a folder's name would be too long for a file system."""
  ids = [cell_id(cell) for cell in cells_of(study)]
  if len(set(ids)) < len(ids):
    raise ValueError(f'Two runs would share the folder {next(name for name in ids if ids.count(name) > 1)!r}; give their methods other names.')
  longest = max(ids, key=len)
  if len(longest.encode()) > 200:
    raise ValueError(f'The run {longest!r} has a name of {len(longest.encode())} bytes, more than 200; shorten the names of sources, targets or '
                     'methods.')


def _check_steps(study: Mapping[str, Any], cells: Sequence[Cell]) -> None:
  """Raises ValueError where epochs come to more steps than can be counted."""
  for cell, phase in itertools.product(cells, study['methods'][cells[0].method]['phases']):
    steps = fit.num_steps(phase['steps'], phase['epochs'], phase['batch_size'], num_train(study, cell))
    if steps > ranges.MOST_STEPS or steps * phase['batch_size'] > ranges.MOST_EXAMPLES:
      raise ValueError(f'config.methods.{cell.method}: {phase["epochs"]:,} epochs of {num_train(study, cell):,} examples are {steps:,} steps of '
                       f'{phase["batch_size"]:,}; there are at most {ranges.MOST_STEPS:,}, of {ranges.MOST_EXAMPLES:,} examples.')


def _check_source(study: Mapping[str, Any], source: Mapping[str, Any]) -> None:
  datasets.check(**{name: value for name, value in source['input'].items() if name not in ('mean', 'std')})
  if source['dataset']:
    _located('config.sources', lambda: _check_memory(study, {**PRETRAINING, **source}, source))
    _located('config.sources', lambda: phases_of({'phases': (source['train'],)}, source, len(classes_of(study, source))))


def _check_memory(study: Mapping[str, Any], data: Mapping[str, Any], source: Mapping[str, Any]) -> None:
  """Refuses a data set whose images, as far as their number is known, take more than config.data_bytes."""
  count = sum(_counts(study, data).values())
  datasets.check_memory(count, source['input']['image_size'], source['input']['channels'], study['data_bytes'])


def _check_shots(study: Mapping[str, Any], target: str) -> None:
  """Catches what the counts of the training part alone rule out; the exact counts of each class are checked with the data."""
  data = study['targets'][target]
  info = _info_of(study, data)
  if info.num_examples.get('train') and max(study['shots']) * len(info.class_names) > info.num_examples['train']:
    raise ValueError(f'config.shots: {max(study["shots"])} shots of {len(info.class_names)} classes are more than the '
                     f'{info.num_examples["train"]} training examples of {data["dataset"]!r}.')


def _located(where: str, function):
  try:
    return function()
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from None
