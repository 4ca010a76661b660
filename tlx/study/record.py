"""What is chosen of a group of runs, and what is written of each."""

import functools
import resource
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from tlx import checkpoint, datasets, tree
from tlx.study import pair as pairs
from tlx.study import store
from tlx.study.cells import Cohort, cell_id, dependencies, trains
from tlx.study.cost import train_flops
from tlx.study.phases import frozen_groups, reused_groups, shapes_of, sizes_of
from tlx.train import fit
from tlx.train import mesh as meshes
from tlx.train.job import Job, PhasePlan
from tlx.types import Cell, Variables


class Tested(NamedTuple):
  """A chosen run on the test set."""

  scores: Mapping[str, Any]
  kept: Mapping[str, np.ndarray]  # what the task keeps of the outputs [N, ...]
  targets: Mapping[
    str, np.ndarray
  ]  # what it compares them with, by name; {} where that is the labels
  seconds: float
  evaluators: list[dict[str, Any]]  # that looked at it too, as the config has them
  last: Mapping[str, Any] | None = None  # the task's columns of its last step, where it has another


class Trained(NamedTuple):
  """A cohort at its end; `features` says what its frozen stages cost here: seconds, and whether
  they ran or were read.
  """

  cohort: Cohort
  job: Job
  fitted: fit.Fitted
  features: pairs.Features
  merge: 'Merge | None' = None  # of its single run, where that was made of others


class Merge(NamedTuple):
  """What a run was made of."""

  told: Mapping[str, Any]  # as its result says it
  runs: list[dict[str, Any]]  # the results of all runs that it needs


def outcome(job: Job, fitted: fit.Fitted, row: int) -> dict[str, Any]:
  """A run's status and the validation metrics of the weights it ended with: of its last step, or of
  its best. Anything but 'ok' is no result to rely on.
  """
  best = fitted.progress.get('best')
  val = {name: values[row] for name, values in best['val'].items()} if best else _last(fitted, row)
  return {'status': _status(job, fitted, row, val['loss']), 'val': val}


def in_short(chosen: Mapping[Cell, Mapping[str, Any]], select: tuple[str, int]) -> str:
  """A line on the chosen runs of a method: the mean of their validation column at each size."""
  column, _ = select
  of_size: dict[int, list[float]] = {}
  for cell, outcome in sorted(chosen.items()):
    of_size.setdefault(cell.shots, []).append(outcome['val'][column])
  if not of_size:
    return 'No run of the method has numbers to choose by.'
  means = []
  for shots, values in of_size.items():
    size = f'{shots} shots' if shots else 'all'
    means.append(f'{np.mean(values):.3f} ({size}, {len(values)} runs)')
  cell = next(iter(chosen))
  return (
    f'{cell.method} from {cell.source} on {cell.target}: validation {column} {", ".join(means)}'
  )


def _last(fitted: fit.Fitted, row: int) -> dict[str, Any]:
  """The validation metrics of a run's last step."""
  last = fitted.progress['history'][-1]
  return {
    name.removeprefix('val_'): values[row]
    for name, values in last.items()
    if name.startswith('val_')
  }


def _status(job: Job, fitted: fit.Fitted, row: int, val_loss: float | None) -> str:
  taken = 0
  for index, steps in enumerate(fitted.progress['taken']):
    taken += steps[row]
    if steps[row] < job.steps(index)[row]:
      return f'diverged at step {taken}'
  if not is_finite(val_loss):
    return f'not finite after step {taken}'
  return 'ok' if fitted.progress['converged'][row] else 'not solved'


def is_finite(value: float | None) -> bool:
  """Whether a metric is a number; JSON has None where it is not."""
  return value is not None and bool(np.isfinite(value))


def choose(outcomes: Mapping[Cell, Mapping[str, Any]], select: tuple[str, int]) -> set[Cell]:
  """For each size, the cells of the setting whose validation is best in the mean over the seeds;
  ties go to the lower loss.

  `select` is the column that is compared, and +1 where more of it is better, -1 where less is.

  A setting with a run that is not ok is taken only where every setting has one, and none whose
  metrics are not finite.
  """
  chosen: set[Cell] = set()
  for shots in {cell.shots for cell in outcomes}:
    settings: dict[tuple, list[Cell]] = {}
    for cell in outcomes:
      if cell.shots == shots:
        settings.setdefault((cell.learning_rate, cell.weight_decay), []).append(cell)
    finite = [
      cells
      for cells in settings.values()
      if all(_has_numbers(outcomes[cell], select) for cell in cells)
    ]
    if finite:
      chosen |= set(max(finite, key=functools.partial(_quality, outcomes, select)))
  return chosen


def _has_numbers(outcome: Mapping[str, Any], select: tuple[str, int]) -> bool:
  return all(is_finite(outcome['val'][column]) for column in ('loss', select[0]))


def _quality(
  outcomes: Mapping[Cell, Mapping[str, Any]],
  select: tuple[str, int],
  cells: Iterable[Cell],
) -> tuple[bool, float, float]:
  column, direction = select
  values = [outcomes[cell]['val'] for cell in cells]
  usable = all(outcomes[cell]['status'] == 'ok' for cell in cells)
  return (
    usable,
    round(direction * float(np.mean([v[column] for v in values])), 12),
    -float(np.mean([v['loss'] for v in values])),
  )


def write(
  study: Mapping[str, Any],
  workdir: epath.Path,
  trained: Trained,
  row: int,
  source_sha256: str,
  data: datasets.Dataset,
  tested: Tested | None,
) -> None:
  """One run's folder; `tested` is what a chosen run did on the test set."""
  cohort, job, fitted = trained.cohort, trained.job, trained.fitted
  cell, merge = cohort.cells[row], trained.merge
  shapes = shapes_of(study['sources'][cell.source], job.network)
  groups = [dict(phase.phase.labels) for phase in job.phases]
  num_frozen, num_groups = frozen_groups(job.network, shapes, groups[-1])
  exact = all(phase.phase.solver != 'sgd' for phase in job.phases)
  method = study['methods'][cell.method]
  as_it_is = not trains(method) and (bool(method.get('head')) or _is_whole(job, shapes))
  phases = _phases_of(merge) if merge else _phases(trained, row, shapes)
  config = {
    'cell': cell._asdict(),
    **dependencies(study, cell, data.sha256, source_sha256),
  }
  result = {
    'id': cell_id(cell),
    'cell': cell._asdict(),
    **outcome(job, fitted, row),
    **_beside(fitted, row, tested),
    'select': list(job.phases[-1].task.select),
    'chosen': tested is not None,
    'test': tested and tested.scores,
    'evaluators': tested.evaluators if tested else [],
    'init': study['methods'][cell.method]['init'],
    'deterministic': as_it_is
    or (exact and not cell.shots and bool(source_sha256))
    or (merge is not None and merge.told['over'] == 'seeds'),
    'num_train': len(job.examples[row]),
    'num_classes': len(data.class_names),
    'num_strata': len(np.unique(data.train.labels)),
    'num_stages': num_groups,
    'frozen_stages': num_frozen,
    'head': job.network.stages[-1],
    'cohort': cohort.id,
    'row': row,
    'source_sha256': source_sha256,
    'data_sha256': data.sha256,
    'versions': store.versions(),
    'phases': phases,
    'cost': _cost(trained, row, phases, shapes, tested),
    **({'merged': _told(workdir, cell, merge)} if merge else {}),
  }
  labels, predictions = _label_text(groups), tested and _predictions(data, tested)
  meshes.on_first(
    lambda: store.write_run(
      workdir, cell_id(cell), config, history(fitted, row), labels, predictions, result
    )
  )


def _beside(fitted: fit.Fitted, row: int, tested: Tested | None) -> dict[str, Any]:
  """Where a run ended with its best step or a soup: the steps in that, and what the last one is
  worth.
  """
  best = fitted.progress.get('best')
  if not best:
    return {}
  last = {'val': _last(fitted, row), 'test': tested.last if tested else None}
  return {'kept_steps': best['steps'][row], 'last': last}


def _is_whole(job: Job, shapes: Variables) -> bool:
  """Whether the source brings every parameter, so that nothing is drawn."""
  return len(list(tree.named_leaves(job.base.params))) == len(sizes_of(shapes))


def _told(workdir: epath.Path, cell: Cell, merge: Merge) -> dict[str, Any]:
  """What a result says of its merge: also how many runs that were made of fewer, in its place
  before the study grew, saw the test set.
  """
  earlier = meshes.on_first(lambda: store.result(workdir, cell_id(cell)))
  seen = 0
  if earlier:
    seen = earlier['merged']['tested_before']
    changed = earlier['merged']['made_of'] != merge.told['made_of']
    seen += int(changed and bool(earlier['test']))
  return {**merge.told, 'tested_before': seen}


def _phases_of(merge: Merge) -> list[dict[str, Any]]:
  """The phases of all runs that one is made of, which it could not be had without."""
  return [phase for run in merge.runs for phase in run['phases']]


def _phases(trained: Trained, row: int, shapes: Variables) -> list[dict[str, Any]]:
  """What each phase of a run took, trained and left alone."""
  job, found, sizes = trained.job, trained.fitted.progress, sizes_of(shapes)
  phases = []
  for i, plan in enumerate(job.phases):
    of_all = job.steps(i)  # [R]
    taken, frozen = int(of_all[row]), found['frozen'][i]
    phases.append(
      {
        'steps': taken,
        'train_seconds': found['train_seconds'][i] * taken / max(1, int(of_all.sum())),
        'trainable_params': int(of_all.any()) * _num_trained(plan, sizes, frozen, row),
        'reused_stages': reused_groups(job.network, shapes, plan.phase.start),
        'frozen_sha256_before': frozen['before'][row],
        'frozen_sha256_after': frozen['after'][row],
        **_factors(frozen, row),
      }
    )
  return phases


def _factors(found: Mapping[str, Any], row: int) -> dict[str, Any]:
  """{'factors': {leaf: what its updates were multiplied by at the end}} of a watched phase."""
  if 'factors' not in found:
    return {}
  return {'factors': {name: means[row] for name, (means, _) in found['factors'].items()}}


def _num_trained(
  plan: PhasePlan, sizes: list[tuple[str, int]], found: Mapping[str, Any], row: int
) -> int:
  """The parameters that a phase trained; those that a policy held back all along are not."""
  total, labels = 0, dict(plan.phase.labels)
  shares = {name: of_runs[row] for name, (_, of_runs) in found.get('factors', {}).items()}
  if plan.phase.watch is None or plan.phase.watch.moved_before:
    shares = {}
  for name, size in sizes:
    if labels[name] != 'frozen':
      total += round(size * shares.get(name, 1.0))
  return total


def _cost(
  trained: Trained,
  row: int,
  phases: list[dict[str, Any]],
  shapes: Variables,
  tested: Tested | None,
) -> dict[str, Any]:
  """What a run cost; of what its cohort did together its share."""
  job, found, num_runs = trained.job, trained.fitted.progress, len(trained.cohort.cells)
  steps = [phase['steps'] for phase in phases]
  reused = any(plan.phase.start for plan in job.phases)
  examples = [len(job.examples[row])]
  if trained.merge:
    return _cost_of(trained, trained.merge, phases, shapes, tested)
  return {
    'trainable_params': max(phase['trainable_params'] for phase in phases),
    'total_params': sum(size for _, size in sizes_of(shapes)),
    'saved_bytes': tree.num_bytes((trained.fitted.own, trained.fitted.stats)) // num_runs,
    'optimizer_bytes': found['optimizer_bytes'] if sum(steps) else 0,
    'train_flops': train_flops(
      job.phases, steps, job.network, job.form, examples, 1 / num_runs, job.informed
    ),
    'steps': sum(steps),
    'train_seconds': sum(phase['train_seconds'] for phase in phases),
    'eval_seconds': found['eval_seconds'] / num_runs + (tested.seconds if tested else 0.0),
    'feature_seconds': trained.features.seconds / num_runs,
    'features': ('computed' if trained.features.computed else 'read') if reused else '',
    'compile_seconds': found['compile_seconds'] / num_runs,
    'compiled_programs': found['compiled_programs'],
    'peak_memory_bytes': _peak_memory(),
  }


def _cost_of(
  trained: Trained,
  merge: Merge,
  phases: list[dict[str, Any]],
  shapes: Variables,
  tested: Tested | None,
) -> dict[str, Any]:
  """What a merged run cost: the sums over the runs that it needs, and what merging took."""
  found = trained.fitted.progress
  costs = [run['cost'] for run in merge.runs]
  total = {name: sum(cost[name] for cost in costs) for name in _SUMMED}
  return {
    **total,
    'trainable_params': max(cost['trainable_params'] for cost in costs),
    'total_params': sum(size for _, size in sizes_of(shapes)),
    'saved_bytes': tree.num_bytes((trained.fitted.own, trained.fitted.stats)),
    'optimizer_bytes': max(cost['optimizer_bytes'] for cost in costs),
    'steps': sum(phase['steps'] for phase in phases),
    'eval_seconds': total['eval_seconds']
    + found['eval_seconds']
    + (tested.seconds if tested else 0.0),
    'feature_seconds': total['feature_seconds'] + trained.features.seconds,
    'features': costs[0]['features'],
    'compile_seconds': total['compile_seconds'] + found['compile_seconds'],
    'compiled_programs': found['compiled_programs'],
    'peak_memory_bytes': _peak_memory(),
  }


_SUMMED = ('train_flops', 'train_seconds', 'eval_seconds', 'feature_seconds', 'compile_seconds')


def _predictions(data: datasets.Dataset, tested: Tested) -> dict[str, np.ndarray]:
  """What a run said of the test set, as predictions.npz has it."""
  labels = data.test.targets
  return {
    'ids': np.asarray(data.test.ids),
    'labels': data.test.labels if isinstance(labels, dict) else labels,
    **tested.kept,
    'class_names': np.asarray(data.class_names),
    **tested.targets,
  }


def history(fitted: fit.Fitted, row: int) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl for one run."""
  return [
    {name: value[row] if isinstance(value, list) else value for name, value in line.items()}
    for line in fitted.progress['history']
  ]


def _label_text(groups: list[dict[str, str]]) -> str:
  """Every parameter's group, a line each, phase by phase."""
  return ''.join(
    f'phase {i}\n' + ''.join(f'  {group:<8} {name}\n' for name, group in labels.items())
    for i, labels in enumerate(groups)
  )


def _peak_memory() -> int:
  """Bytes: of the accelerator where it says, else of this process."""
  stats = jax.local_devices()[0].memory_stats() or {}
  process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
    1 if sys.platform == 'darwin' else 1024
  )
  return stats.get('peak_bytes_in_use', process)


def check_same(result: Mapping[str, Any], outcome: Mapping[str, Any], source_sha256: str) -> None:
  """A run that was finished before and is trained again, since its parameters were lost, must
  have come out as it says.

  Raises:
    ValueError: it did not.
  """
  if (result['val'], result['source_sha256']) != (
    checkpoint.plain(outcome['val']),
    source_sha256,
  ):
    made = ', '.join(f'{name} {version}' for name, version in result['versions'].items())
    raise ValueError(
      f'{result["id"]} was finished earlier with val {result["val"]} of source '
      f'{result["source_sha256"][:12]} (made with {made}), and is now {outcome["val"]} of '
      f'{source_sha256[:12]}: what was deleted cannot be made again as it was. Delete its '
      'runs/ folders too, or run the study in a new --workdir.'
    )
