"""What a study will cost, before it runs: FLOPs, bytes and programs; and what frozen stages spare
by running once.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tlx import inputs as forms
from tlx import tree
from tlx.study.cells import (
  PRETRAINING,
  Cohort,
  classes_of,
  counts_of,
  examples_of,
  num_strata,
  num_train,
  settings_of,
)
from tlx.study.config import form_of, located
from tlx.study.informed import EXAMPLES, num_stages
from tlx.study.phases import (
  added_of,
  network_of,
  phases_of,
  shapes_of,
  sizes_of,
  source_classes_of,
  task_of,
)
from tlx.train import cohort, step
from tlx.train.job import ORDER_STEPS, PhasePlan
from tlx.train.prefix import activation, variable_shapes
from tlx.types import Cell, Form, Network


def cost_table(study: Mapping[str, Any], cohorts: list[Cohort]) -> list[dict[str, Any]]:
  """What the study will cost: a row a cohort, trained sources first. Memory is parameters,
  gradients and optimizer state of its runs.

  'GFLOP' is training, 'evaluation' validation and test of the chosen runs, NaN where a data set's
  size is not known yet; what frozen stages cost that run once is in neither (`frozen_flops`). Runs
  that are made of others' weights take no step of their own.
  """
  rows: list[dict[str, Any]] = []
  programs: set[tuple] = set()
  for training in _trainings(study, cohorts):
    name, source, data, method, plans, examples, chosen = training
    if method.get('merge'):
      rows.append(_merged_row(study, training))
      continue
    network, form = (
      network_of(source, task_of(study, data).head, method),
      form_of(source),
    )
    shapes, num_runs, counts = (
      shapes_of(source, network),
      len(examples),
      counts_of(study, data),
    )
    told = num_stages(network, added_of(method), shapes)
    steps = np.array([[plan.steps_for(num) for plan in plans] for num in examples])  # [R, phases]
    before = len(programs)
    programs |= {
      (network, plan.phase, plan.batch_size, num_runs, max(ORDER_STEPS, longest))
      for plan, longest in zip(plans, steps.max(0))
    }
    known = all(examples) or not any(plan.epochs for plan in plans)
    trained = [
      sum(size for leaf, size in sizes_of(shapes) if dict(plan.phase.labels)[leaf] != 'frozen')
      for plan, taken in zip(plans, steps.sum(0))
      if taken or not known
    ]
    rows.append(
      {
        'cohort': name,
        'runs': num_runs,
        'phases': len(plans),
        'new programs': len(programs) - before,
        'steps': int(steps.sum(1).max()) if known else float('nan'),
        'trained': max(trained, default=0),
        'share': max(trained, default=0) / tree.count(shapes.params),
        'reused': ','.join(str(plan.phase.start) for plan in plans),
        'stages': len(network.stages),
        'GFLOP': train_flops(plans, steps.sum(0).tolist(), network, form, examples, informed=told)
        / 1e9
        if known
        else float('nan'),
        'evaluation': _evaluation_flops(network, form, plans, num_runs, chosen, counts) / 1e9
        if all(counts.values())
        else float('nan'),
        'MB': num_runs * max(_state_bytes(network, form, plan) for plan in plans) / 1e6,
      }
    )
  return rows


def _merged_row(study: Mapping[str, Any], training: '_Training') -> dict[str, Any]:
  """What runs cost that are made of others: validation of what is tried, and the test."""
  method, plans, num_runs = training.method, training.phases, len(training.examples)
  merge = method['merge']
  looks = len(merge['scale'])
  if merge['name'] == 'greedy':  # and once for each run that may go in
    of = study['methods'][merge['of']]
    looks += len(study['seeds'] if merge['over'] == 'seeds' else settings_of(of))
  network = network_of(training.source, task_of(study, training.data).head, method)
  shapes, form = shapes_of(training.source, network), form_of(training.source)
  counts, start = counts_of(study, training.data), plans[-1].phase.start
  flops = _stages_flops(network, form, start, len(network.stages))
  trained = {leaf for plan in plans for leaf, group in plan.phase.labels if group != 'frozen'}
  count = sum(size for leaf, size in sizes_of(shapes) if leaf in trained)
  return {
    'cohort': training.name,
    'runs': num_runs,
    'phases': 0,
    'new programs': 0,
    'steps': 0,
    'trained': count,
    'share': count / tree.count(shapes.params),
    'reused': str(start),
    'stages': len(network.stages),
    'GFLOP': 0.0,
    'evaluation': num_runs * (looks * counts['val'] + counts['test']) * flops / 1e9
    if all(counts.values())
    else float('nan'),
    'MB': num_runs * tree.num_bytes(shapes.params) / 1e6,
  }


class _Training(NamedTuple):
  """Runs that are trained together, a source's or a cohort's."""

  name: str
  source: Mapping[str, Any]
  data: Mapping[str, Any]
  method: Mapping[str, Any]
  phases: tuple[PhasePlan, ...]
  examples: list[int]  # of each run; 0 where their number is not known yet
  chosen: float  # how many of the runs are tested


def _trainings(study: Mapping[str, Any], cohorts: list[Cohort]) -> Iterator[_Training]:
  for name, source in study['sources'].items():
    if source['dataset']:
      data = PRETRAINING | source
      phases = phases_of(
        {'phases': (source['train'],)},
        source,
        len(classes_of(study, source)),
        source['task'],
      )
      yield _Training(
        f'source {name}',
        source,
        data,
        {},
        phases,
        [counts_of(study, data)['train']],
        1,
      )
  for pair, group in itertools.groupby(cohorts, key=lambda cohort: cohort.cells[0][:2]):
    of_methods = phases_for(study, *pair)
    for one in _in_rows(study, group):
      name = one.cells[0].method
      method, examples = (
        study['methods'][name],
        [num_train(study, cell) for cell in one.cells],
      )
      yield _Training(
        one.id,
        study['sources'][pair[0]],
        study['targets'][pair[1]],
        method,
        of_methods[name],
        examples,
        len(one.cells) / len(settings_of(method)),
      )


def _in_rows(study: Mapping[str, Any], cohorts: Iterable[Cohort]) -> list[Cohort]:
  """Cohorts of one source and target; those of a method that is made of others' runs as one."""
  found: dict[str, Cohort] = {}
  for one in cohorts:
    name = one.cells[0].method
    row = name if study['methods'][name].get('merge') else one.id
    found[row] = Cohort(found[row].id, found[row].cells + one.cells) if row in found else one
  return list(found.values())


def phases_for(
  study: Mapping[str, Any],
  source: str,
  target: str,
  counts: Mapping[str, int] | None = None,
) -> dict[str, tuple[PhasePlan, ...]]:
  """{method: its phases} from a source to a target, as the study trains them.

  Frozen stages run once for every example only where that costs less than running them in every
  step and evaluation; where exact solutions ask for their activations anyway, others take part.

  Args:
    counts: the examples of 'train' (used by some run), 'val' and 'test', for a data set whose
      size was not known without its data.
  """
  examples = examples_of(study, target) or counts
  of_methods = functools.partial(
    _phases_of_methods, study, source, target, room_of(study, examples)
  )
  phases = of_methods(reuse=True)
  if examples is None:
    return phases
  cost = _frozen_flops(study, source, target, phases, examples)
  return phases if cost.once - cost.needed < cost.spared else of_methods(reuse=False)


def _phases_of_methods(
  study: Mapping[str, Any], source: str, target: str, room: float, reuse: bool
):
  config, data = study['sources'][source], study['targets'][target]
  num_classes = len(classes_of(study, data))
  return {
    name: phases_of(
      method, config, num_classes, data['task'], room, reuse, source_classes_of(study, config)
    )
    for name, method in study['methods'].items()
  }


class Frozen(NamedTuple):
  """FLOPs of stages that stay frozen."""

  once: float  # to run once for every example
  needed: float  # of `once`, what exact solutions and kept views ask for
  instead: float  # in every step and evaluation, if activations were not kept
  spared: float  # of `instead`, what is of steps that could do without


def frozen_flops(study: Mapping[str, Any], source: str, target: str) -> Frozen | None:
  """What the frozen stages from a source to a target cost as the study runs them; None where the
  target's size is not known yet.
  """
  examples = examples_of(study, target)
  return (
    None
    if examples is None
    else _frozen_flops(study, source, target, phases_for(study, source, target), examples)
  )


def _frozen_flops(
  study: Mapping[str, Any],
  source: str,
  target: str,
  phases: Mapping[str, tuple[PhasePlan, ...]],
  examples: Mapping[str, int],
) -> Frozen:
  config, data = study['sources'][source], study['targets'][target]
  form, strata, head = (
    form_of(config),
    num_strata(study, data),
    task_of(study, data).head,
  )
  once: dict[tuple, float] = {}
  needed: dict[tuple, float] = {}
  instead = spared = 0.0
  for name, plans in phases.items():
    method = study['methods'][name]
    if method.get('merge'):  # begins where the runs do that it is made of
      continue
    network = network_of(config, head, method)
    settings = len(settings_of(method))
    sizes_of_runs = [
      shots * strata or examples['train'] for shots in study['shots'] for _ in study['seeds']
    ]
    for plan in plans:
      flops = prefix_flops(network, form, plan.phase.start)
      exact = plan.phase.solver != 'sgd'
      fixed = exact and plan.phase.start == len(network.stages) - 1
      views = max(1, plan.phase.views)
      passes = {
        ('train', plan.phase.views and plan.phase.augment, views): views * examples['train'],
        ('held out',): examples['val'] + examples['test'],
      }
      for key, count in passes.items():
        for total in (once, needed) if fixed or plan.phase.views else (once,):
          total[key] = max(total.get(key, 0.0), flops * count)
      trained = sum(
        num if exact else plan.steps_for(num) * plan.batch_size for num in sizes_of_runs
      )
      seen = settings * (trained + len(sizes_of_runs) * len(plan.stops) * examples['val'])
      seen += len(sizes_of_runs) * examples['test'] if plan is plans[-1] else 0
      instead += flops * seen
      spared += 0.0 if fixed or plan.phase.views else flops * seen
  return Frozen(sum(once.values()), sum(needed.values()), instead, spared)


def room_of(study: Mapping[str, Any], examples: Mapping[str, int] | None) -> float:
  """Bytes that may be kept of each example's activations; all of them where the number of
  examples is not known yet.
  """
  return (
    study['feature_bytes'] / max(sum(examples.values()) if examples else 1, 1)
    if study['reuse']
    else 0.0
  )


def same_methods(study: Mapping[str, Any], source: str, target: str) -> list[tuple[str, ...]]:
  """The groups of methods that train the same parameters in the same way, but perhaps with other
  rates of the grid.
  """
  config, head = (
    study['sources'][source],
    task_of(study, study['targets'][target]).head,
  )
  found: dict[tuple, list[str]] = {}
  for name, plans in phases_for(study, source, target).items():
    method = study['methods'][name]
    if method.get('merge'):
      continue
    network = network_of(config, head, method)
    found.setdefault((network, method['init'], tuple(map(_way, plans))), []).append(name)
  return [tuple(names) for names in found.values() if len(names) > 1]


def _way(plan: PhasePlan) -> tuple:
  """Equal for phases that train the same parameters in the same way, whatever their groups are
  called.
  """
  rates = dict(plan.phase.rates)
  leaves = tuple((name, rates.get(label)) for name, label in plan.phase.labels)
  return leaves, plan._replace(
    phase=plan.phase._replace(labels=(), rates=(), start=0), evaluations=1
  )


def train_flops(
  phases: tuple[PhasePlan, ...],
  steps: Sequence[int],
  network: Network,
  form: Form,
  examples: Sequence[int],
  share: float = 1.0,
  informed: int = 0,
) -> float:
  """FLOPs of so many training steps of each phase, of runs that train on so many `examples` each.

  With the features of each example where a solution or a policy asks for a run's own, and with what
  penalties observe before the first step: of the source's data once for a cohort, of which these
  runs take a `share`, and the first `informed` stages, which tell added weights how to start.
  Evaluation, and stages that run once for all runs, are not counted.
  """
  head = len(network.stages) - 1
  told = sum(min(num, EXAMPLES) for num in examples)
  total = told * _stages_flops(network, form, 0, informed)
  for plan, count in zip(phases, steps):
    looks = plan.phase.watch is not None and plan.phase.watch.by_depth
    if plan.phase.solver != 'sgd' or looks:  # at features of a run's own examples
      total += sum(examples) * _stages_flops(network, form, plan.phase.start, head)
    observed = _observed_flops(network, form, plan, examples, share)
    total += count * _flops(network, form, plan) + observed
  return float(total)


def _observed_flops(
  network: Network, form: Form, plan: PhasePlan, examples: Sequence[int], share: float
) -> float:
  """FLOPs of what the penalty of a phase observes before its first step."""
  anchor = plan.phase.anchor
  if anchor is None or anchor.penalty.observe is None or not plan.num_steps:
    return 0.0
  most = anchor.penalty.examples
  of_source, phase = anchor.penalty.of_source, plan.phase
  seen = share * most if of_source else sum(min(num, most or num) for num in examples)
  phase = phase._replace(start=0) if of_source else phase
  return seen * cohort.observe_flops(cohort.costing(step.Recipe(network, form, plan.task, phase)))


def _evaluation_flops(
  network: Network,
  form: Form,
  phases: tuple[PhasePlan, ...],
  num_runs: int,
  chosen: float,
  counts: Mapping[str, int],
) -> float:
  """FLOPs of looking at the validation part as often as the phases do, and once at the test part
  with each chosen run.
  """
  rest = [
    _stages_flops(network, form, plan.phase.start, len(network.stages)) for plan in phases
  ]  # of one example
  val = sum(
    (len(plan.stops) + plan.num_kept) * flops
    for plan, flops in zip(phases, rest)
    if not plan.phase.headless
  )
  tests = 2 if phases[-1].num_kept else 1  # the best step, and the last beside it
  return num_runs * counts['val'] * val + tests * chosen * counts['test'] * rest[-1]


def _flops(network: Network, form: Form, plan: PhasePlan) -> float:
  """FLOPs of one step of a phase, SAM's two gradients counted; an exact solution's are not known
  before it is found, and small.
  """
  if plan.phase.solver != 'sgd':
    return 0.0
  gradients = 2 if plan.phase.sam else 1
  return gradients * cohort.gradient_flops(
    cohort.costing(step.Recipe(network, form, plan.task, plan.phase)),
    plan.batch_size,
  )


def prefix_flops(network: Network, form: Form, start: int) -> float:
  """FLOPs of one example's way to stage `start`."""
  return _stages_flops(network, form, 0, start)


def _stages_flops(network: Network, form: Form, start: int, stop: int) -> float:
  """FLOPs of one example's way from stage `start` to stage `stop`, as XLA counts them; computes
  nothing.
  """
  return sum((_stage_flops(network, form, i) for i in range(start, stop)), 0.0)


@functools.cache
def _stage_flops(network: Network, form: Form, i: int) -> float:
  """FLOPs of one example's way through stage `i`."""
  inputs = activation(network, form, i) if i else forms.entered(form, 1)
  run = jax.jit(
    lambda variables, x: network.apply(variables, x, train=False, start=i, stop=i + 1)[0]
  )
  cost = run.lower(variable_shapes(network, form), inputs).cost_analysis()
  # a stage may compute nothing, and some devices do not count
  return float('nan') if cost is None else float(cost.get('flops', 0.0))


def input_share(source: Mapping[str, Any], own: Mapping[str, Any]) -> float:
  """The FLOPs of an example of the source's input over those of one of the input `own`; 0.0 where
  the network does not take that.
  """
  network = network_of(source, 2)
  stop = len(network.stages) - 1
  try:
    return prefix_flops(network, form_of(source), stop) / prefix_flops(
      network, form_of({**source, 'input': source['input'] | own}), stop
    )
  except ValueError:
    return 0.0


def _state_bytes(network: Network, form: Form, plan: PhasePlan) -> int:
  """Bytes of a run's trainable parameters, their gradients and updates, its optimizer state and
  what a penalty knows of it.
  """
  return _bytes_of(step.Recipe(network, form, plan.task, plan.phase), plan.num_kept)


@functools.cache
def _bytes_of(recipe: step.Recipe, num_kept: int) -> int:
  """`_state_bytes`; cohorts of one method are asked again and again."""
  shapes = variable_shapes(recipe.network, recipe.form)
  scalar = jax.ShapeDtypeStruct((), np.float32)
  state = jax.eval_shape(
    lambda params, stats, hyper: step.init_state(
      step.split(params, recipe.phase)[0], stats, recipe.phase, hyper
    ),
    shapes.params,
    shapes.stats,
    step.Hyper(scalar, scalar, scalar),
  )
  kept = (1 + num_kept) * tree.num_bytes((state.trainable, state.stats)) if num_kept else 0
  known = cohort.known_shapes(cohort.costing(recipe))
  moments = tree.num_bytes((state.opt_state, state.average, known))
  return 3 * tree.num_bytes(state.trainable) + moments + kept


def run_bytes(study: Mapping[str, Any], cell: Cell) -> int:
  """Bytes that a cohort takes for each of its runs, in its largest phase: the run's state, and on
  accelerators, where runs step side by side, what its gradient keeps of the forward pass. (On CPU
  they step one after another, so that this is there once a core, however many runs there are.)
  """
  source = study['sources'][cell.source]
  target = study['targets'][cell.target]
  classes = classes_of(study, target)
  method, room = (
    study['methods'][cell.method],
    room_of(study, examples_of(study, cell.target)),
  )
  phases = located(
    f'config.methods.{cell.method}',
    lambda: phases_of(
      method,
      source,
      len(classes),
      target['task'],
      room,
      source_classes=source_classes_of(study, source),
    ),
  )
  network = network_of(source, task_of(study, target).head, method)
  form = form_of(source)
  return max(
    _state_bytes(network, form, plan) + _activation_bytes(network, form, plan) for plan in phases
  )


def _activation_bytes(network: Network, form: Form, plan: PhasePlan) -> int:
  """Bytes that the gradient of a run's step keeps beside those of other runs."""
  if plan.phase.solver != 'sgd' or jax.default_backend() == 'cpu':
    return 0
  recipe = step.Recipe(network, form, plan.task, plan.phase)
  return cohort.kept_bytes(recipe) * plan.batch_size // plan.phase.accumulate
