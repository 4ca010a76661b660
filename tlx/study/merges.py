"""Runs that are not trained: their weights are made of those of other runs of the study
(tlx/merging), chosen on validation like any other.
"""

import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from tlx import checkpoint, merging, tree
from tlx.merging import Merged
from tlx.plug import plug
from tlx.study import record, store
from tlx.study.cells import Cohort, cell_id
from tlx.study.config import MERGE, located
from tlx.study.cost import phases_for
from tlx.study.phases import network_of
from tlx.train import feed, fit, statistics
from tlx.train import mesh as meshes
from tlx.train.cohort import Program
from tlx.train.job import Job
from tlx.types import Cell, PyTree

Leaves = Mapping[str, np.ndarray]


class Parts(NamedTuple):
  """The runs that one is made of, as their results say.

  runs: whose vectors are merged, best first; weights: of each
  heads: whose leaves are averaged where the start has none; () are those that the rule takes
  start: the run where they start; None is the source
  """

  runs: list[dict[str, Any]]
  weights: list[float]
  heads: list[dict[str, Any]]
  start: dict[str, Any] | None

  def all(self) -> list[dict[str, Any]]:
    """Each run that is needed, once."""
    found = [*self.runs, *self.heads, *([self.start] if self.start else [])]
    return list({run['id']: run for run in found}.values())


def check(study: Mapping[str, Any]) -> None:
  """Whether the runs of a merge have leaves in common with where they start, without touching data.

  Raises:
    ValueError: they do not; the message says what to do.
  """
  for name, method in study['methods'].items():
    if not method.get('merge'):
      continue
    for source, target in itertools.product(study['sources'], study['targets']):
      check_pair = functools.partial(_check, study, method['merge'], source, target)
      located(f'config.methods.{name}.merge', check_pair)


def _check(study: Mapping[str, Any], merge: Mapping[str, Any], source: str, target: str) -> None:
  of, begun = merge['of'], merge['start']
  own = _trained(study, source, target, of)
  if more := begun and sorted(_trained(study, source, target, begun) - own):
    raise ValueError(
      f'start = {begun!r} trains what {of} leaves alone, such as {more[0]}. Take one that trains '
      f'no more than {of}.'
    )
  head = network_of(study['sources'][source], 2).stages[-1]
  looks = plug('merging', merge['name']).FROM_START or merge['scale'] != MERGE['scale']
  given = begun or study['methods'][of].get('head')
  if looks and not given and all(leaf.split('/')[0] == head for leaf in own):
    raise ValueError(
      f'{of} trains its head alone, which starts at random: there is nothing between it and the '
      'source. Take the mean (or greedy) at scale (1.0,), or a method that trains more.'
    )


def _trained(study: Mapping[str, Any], source: str, target: str, method: str) -> set[str]:
  """The leaves that some phase of a method trains."""
  phases = phases_for(study, source, target)[method]
  labels = [label for plan in phases for label in plan.phase.labels]
  return {leaf for leaf, group in labels if group != 'frozen'}


def parts_of(study: Mapping[str, Any], workdir: epath.Path, cell: Cell) -> Parts:
  """The runs that a cell is made of: finished ones of the study's plan."""
  merge = study['methods'][cell.method]['merge']
  over, targets = merge['over'], merge['targets'] or dict.fromkeys(study['targets'], 1.0)
  alike = _finished(study, workdir, cell._replace(method=merge['of']), over)
  if over == 'targets':
    by_target = {run['cell']['target']: run for run in alike}
    runs, weights = [by_target[name] for name in targets], list(targets.values())
    heads = [by_target[cell.target]]
  else:
    runs = sorted(alike, key=_quality, reverse=True)
    weights, heads = [1.0] * len(runs), []
  start = None
  if merge['start']:
    (start,) = _finished(study, workdir, cell._replace(method=merge['start']), 'run')
  return Parts(runs, weights, heads, start)


def _finished(
  study: Mapping[str, Any], workdir: epath.Path, cell: Cell, over: str
) -> list[dict[str, Any]]:
  """The results of the runs of a method that go with a cell: of those that ended well, or of all
  where none did.
  """
  targets = study['targets'] if over == 'targets' else (cell.target,)
  wanted = checkpoint.unsealed(workdir / 'study.json')['plan']['runs']
  found = []
  for target in targets:
    begins = f'{cell.source}-{target}-{cell.method}-'
    of_target = [store.result(workdir, name) for name in wanted if name.startswith(begins)]
    alike = [
      run
      for run in filter(None, of_target)
      if run['cell']['method'] == cell.method
      and run['cell']['target'] == target
      and run['cell']['shots'] == cell.shots
      and (run['cell']['seed'] == cell.seed or over == 'seeds')
      and (run['chosen'] or over == 'settings')
    ]
    if not alike:
      raise ValueError(
        f'{cell_id(cell)} is made of runs of {cell.method} on {target}, and validation could '
        'choose none: their losses are not finite. Lower their learning rates.'
      )
    found += [run for run in alike if run['status'] == 'ok'] or alike
  return found


def _quality(run: Mapping[str, Any]) -> tuple[float, float]:
  """What orders runs by validation: the better one is more; of equal ones that of lower loss."""
  return _rank(run['val'], run['select'])


def _rank(val: Mapping[str, Any], select: Sequence[Any]) -> tuple[float, float]:
  column, direction = select
  values = [val.get(name) for name in (column, 'loss')]
  score, loss = (np.nan if value is None else value for value in values)
  return float(np.nan_to_num(direction * score, nan=-np.inf)), -float(
    np.nan_to_num(loss, nan=np.inf)
  )


def made_of(workdir: epath.Path, parts: Parts) -> list[str]:
  """What a merged run depends on beside its config: the weights of each run, by their digests."""
  found = []
  for run in parts.all():
    folder = store.checkpoints(workdir, Cohort(run['cohort'], ()))
    meta = checkpoint.latest(folder) or {'arrays_sha256': ''}
    found.append(f'{run["id"]} {run["row"]} {meta["arrays_sha256"]}')
  return found


def is_current(study: Mapping[str, Any], workdir: epath.Path, cohort: Cohort) -> bool:
  """Whether a merged run is there with its weights, of the runs that it would be made of now."""
  (cell,) = cohort.cells
  result = store.result(workdir, cell_id(cell))
  meta = checkpoint.latest(store.checkpoints(workdir, cohort))
  if result is None or meta is None:
    return False
  now = made_of(workdir, parts_of(study, workdir, cell))
  return result['merged']['made_of'] == meta['merged']['made_of'] == now


def fitted(
  job: Job, cohort: Cohort, study: Mapping[str, Any], workdir: epath.Path
) -> tuple[fit.Fitted, record.Merge]:
  """(the single run of a cohort as if it had been trained, what it was made of); read from its
  checkpoint where that is there.
  """
  (cell,) = cohort.cells
  parts, now, meta = meshes.on_first(lambda: _made(study, workdir, cohort))
  folder = store.checkpoints(workdir, cohort)
  if meta is None or meta['merged']['made_of'] != now:
    compiled, began = Program.so_far, time.perf_counter()
    own, stats, told = _Merge(job, study['methods'][cell.method], workdir, parts).best()
    val, told = told['val'], {**told, 'made_of': now}
    compiled = Program.so_far - compiled
    line = {'step': [sum(run['cost']['steps'] for run in parts.all())], 'phase': 0}
    progress = {
      'history': [line | {f'val_{name}': [value] for name, value in val.items()}],
      'taken': [job.steps(index).tolist() for index in range(len(job.phases))],
      'converged': [True],
      'eval_seconds': time.perf_counter() - began - compiled.seconds,
      'compile_seconds': compiled.seconds,
      'compiled_programs': compiled.programs,
    }
    saved = {'state': jax.tree.map(lambda leaf: leaf[None], {'trainable': own, 'stats': stats})}
    meshes.on_first(lambda: checkpoint.save(folder, 0, saved, {**progress, 'merged': told}))
  meta, found = meshes.on_first(lambda: (checkpoint.latest(folder), checkpoint.load(folder)))
  own = tree.map_named(lambda name, _: found.get(f'state/trainable/{name}'), _whole(job))
  stats = tree.map_named(lambda name, _: found[f'state/stats/{name}'], job.stats)
  return fit.Fitted(own, stats, meta), record.Merge(meta['merged'], parts.all())


def _made(
  study: Mapping[str, Any], workdir: epath.Path, cohort: Cohort
) -> tuple[Parts, list[str], dict[str, Any] | None]:
  """(what a cohort's run is made of now, the same by digests, what its checkpoint says)."""
  parts = parts_of(study, workdir, cohort.cells[0])
  return parts, made_of(workdir, parts), checkpoint.latest(store.checkpoints(workdir, cohort))


def _whole(job: Job) -> PyTree:
  """A tree with a leaf at the place of each parameter."""
  return tree.merge(job.base.params, job.own)


class _Merge:
  """One run in the making."""

  def __init__(self, job: Job, method: Mapping[str, Any], workdir: epath.Path, parts: Parts):
    self.job, self.merge, self.parts = job, method['merge'], parts
    self.rule, self.task = plug('merging', self.merge['name']), job.phases[-1].task
    self.val, rows = job.val(job.phases[-1].phase), job.val_rows[0]
    if len(rows) < feed.length(self.val):
      self.val = feed.some(self.val, rows)
    read = functools.partial(_weights, workdir)
    self.runs = [read(run) for run in parts.runs]
    self.heads = [read(run) for run in parts.heads]
    self.start: Leaves = dict(tree.named_leaves(job.base.params))
    if method.get('head'):  # which runs start from
      own = jax.tree.map(lambda leaf: leaf[0], job.own)
      self.start = {**self.start, **dict(tree.named_leaves(own))}
    if parts.start:
      self.start = {**self.start, **read(parts.start)[0]}
    self.leaves = (self.heads or self.runs)[0][0]  # as the run itself has them
    self.vectors = []
    for (params, _), weight in zip(self.runs, parts.weights):
      vector = {
        name: weight * (params[name].astype(np.float64) - self.start[name])
        for name in self.leaves
        if name in self.start
      }
      self.vectors.append(vector)

  def best(self) -> tuple[PyTree, PyTree, dict[str, Any]]:
    """(own leaves, statistics, the record) of what is best on validation."""
    options = {name: self.merge[name] for name in merging.options_of(self.rule)}
    merged = self.rule.merge(self.vectors, self.score, **options)
    tried: list[dict[str, Any]] = []
    ranks: list[tuple[float, float]] = []
    for scale in self.merge['scale']:
      *made, val = self.look(merged, scale)
      rank = _rank(val, self.task.select)
      if not ranks or rank > max(ranks):
        (own, stats), best = made, {'scale': scale, 'val': val}
      tried.append({'scale': scale, **val})
      ranks.append(rank)
    runs = [run['id'] for run in self.parts.runs]
    used = [runs[place] for place in merged.used]
    return own, stats, {**self.merge, 'runs': runs, 'used': used, **best, 'tried': tried}

  def score(self, merged: Merged) -> float:
    column, direction = self.task.select
    return direction * self.look(merged, 1.0)[-1][column]

  def look(self, merged: Merged, scale: float) -> tuple[PyTree, PyTree, dict[str, float]]:
    """(own leaves, statistics, the task's columns on validation) of the start and so many times a
    vector.
    """
    fresh = self.heads or [self.runs[place] for place in merged.used]
    own = {}
    for name, leaf in self.leaves.items():
      if name in merged.vector:
        value = self.start[name] + scale * merged.vector[name]
      else:
        value = np.mean([params[name] for params, _ in fresh], axis=0, dtype=np.float64)
      own[name] = np.asarray(value, leaf.dtype)
    used = [self.runs[place][1] for place in merged.used]
    anew = len(used) > 1 or scale != 1.0
    params, stats = _mixed(self.job, 0, own, merging.mean_of(used), anew)
    return params, stats, _scored(self.job, params, stats, self.val)


def _mixed(job: Job, row: int, own: Leaves, stats: Leaves, anew: bool) -> tuple[PyTree, PyTree]:
  """(params that are a run's own, statistics) as trees. Those statistics that move in the last
  phase are computed anew on the run's training examples where that is asked for, as for soups of
  one run's steps.
  """
  params = tree.map_named(lambda name, _: own.get(name), _whole(job))
  kept = tree.map_named(lambda name, leaf: np.asarray(stats[name], leaf.dtype), job.stats)
  if not anew or not statistics.moving(job.phases[-1].phase, kept):
    return params, kept
  alone = job._replace(examples=[job.examples[row]], seeds=[job.seeds[row]])
  runs = jax.tree.map(lambda leaf: leaf[None], (params, kept))
  found = statistics.recomputed(alone, len(job.phases) - 1, runs[0], runs[1], [0])
  return params, jax.tree.map(lambda leaf: leaf[0], found)


def _scored(job: Job, params: PyTree, stats: PyTree, examples: feed.Arrays) -> dict[str, float]:
  """The columns of the job's task on examples."""
  own, moved = jax.tree.map(lambda leaf: leaf[None], (params, stats))
  (found,) = fit.predict(job, fit.Fitted(own, moved, {}), [0], lambda phase: examples)
  task = job.phases[-1].task
  scores = task.scores(found.sums, *((found.kept, examples.targets) if task.whole else ()))
  return {name: value for name, value in scores.items() if not isinstance(value, list)}


def between(
  job: Job,
  row: int,
  ends: Sequence[tuple[Leaves, Leaves]],
  points: int,
  examples: feed.Arrays,
) -> tuple[float, list[dict[str, float]]] | None:
  """(the distance of two runs, the task's columns at so many points from the first, (params, stats)
  by name, to the second, which is run `row` of the job); None where they are equal.
  """
  (first, first_stats), (last, last_stats) = ends
  moved = {name: last[name].astype(np.float64) - first[name] for name in last}
  squares = sum(float((vector**2).sum()) for vector in moved.values())
  if not squares:
    return None
  scores = []
  for place in np.linspace(0.0, 1.0, points).tolist():
    own = {
      name: np.asarray(first[name] + place * vector, last[name].dtype)
      for name, vector in moved.items()
    }
    stats = {
      name: (1 - place) * first_stats[name] + place * leaf for name, leaf in last_stats.items()
    }
    made = _mixed(job, row, own, stats, 0 < place < 1)
    scores.append(_scored(job, *made, examples))
  return squares**0.5, scores


def weights_of(workdir: epath.Path, cell: Cell) -> tuple[Leaves, Leaves] | None:
  """(params, stats) by name that a cell has of its own; None where no cohort has it."""

  def find() -> tuple[str, int] | None:
    for cohort, _ in store.begun(workdir):
      if cell in cohort.cells and store.has_parameters(workdir, cohort):
        return cohort.id, cohort.cells.index(cell)
    return None

  found = meshes.on_first(find)
  return _weights(workdir, {'cohort': found[0], 'row': found[1]}) if found else None


def _weights(workdir: epath.Path, run: Mapping[str, Any]) -> tuple[Leaves, Leaves]:
  """(params, stats) by name that a run has of its own."""
  folder = store.checkpoints(workdir, Cohort(run['cohort'], ()))
  params, stats = meshes.on_first(lambda: store.trained(folder, run['row']))
  return dict(tree.named_leaves(params)), dict(tree.named_leaves(stats))
