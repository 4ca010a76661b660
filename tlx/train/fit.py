"""One cohort through its phases: label, partition, train, evaluate, save; the same again after an interruption."""
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from tlx import checkpoint
from tlx import tree as trees
from tlx.train import cohort, feed, step
from tlx.train import mesh as meshes
from tlx.types import Batch, Network, PyTree, Task, Variables

SEGMENT_SECONDS = 5.0  # how long the device is left alone: progress is shown and an interruption heeded this often
FIRST_STEPS = 10  # of a program whose speed is not known yet
EVAL_BATCH = 256
ORDER_STEPS = 128  # orders of examples are padded to a power of two at least this long, so that phases share programs


class PhasePlan(NamedTuple):
  """A phase: what its program is (`phase`, `task`, `batch_size`) and how it is run."""
  phase: step.Phase
  task: Task
  num_steps: int
  batch_size: int
  evaluations: int
  learning_rate: float  # 0.0: the run's own

  @property
  def stops(self) -> list[int]:
    """The steps after which the validation part is looked at; the last is the phase's last."""
    return sorted({-(-self.num_steps * (i + 1) // self.evaluations) for i in range(self.evaluations)})


class Job(NamedTuple):
  """A cohort of R runs, ready to train."""
  network: Network
  phases: tuple[PhasePlan, ...]
  base: Variables  # the source's leaves, shared by all runs; None where runs have their own
  own: PyTree  # the runs' own params [R, ...], None where the source's serve
  stats: PyTree  # [R, ...]
  data: feed.Arrays  # numpy; what `examples` are rows of
  val: feed.Arrays
  examples: Sequence[np.ndarray]  # per run, the rows it trains on
  seeds: Sequence[int]
  learning_rates: Sequence[float]
  weight_decays: Sequence[float]


class Fitted(NamedTuple):
  """The end of a cohort: arrays on the host, stacked [R, ...]."""
  own: PyTree  # all params that were initialised or trained here; None where the source's serve
  stats: PyTree
  progress: dict[str, Any]  # see `_no_progress`


def fit(job: Job, folder: epath.Path, save_seconds: float = 30.0, say: Callable[[int, float], None] = lambda steps, rate: None,
        interrupted: Callable[[], int] = lambda: 0) -> Fitted:
  """Trains the cohort, or finishes it from the checkpoint in `folder`: the numbers are the same bit for bit.

  Args:
    say: called with (steps of a run done so far, steps per second of all runs together).
    interrupted: where it returns a signal's number, the state is saved and KeyboardInterrupt(number) raised.
  """
  spread = _Spread.over(len(job.seeds))
  data = spread.everywhere(jax.tree.map(jnp.asarray, job.data))
  val = spread.batches(*job.val)
  own, stats = spread.pad(job.own), spread.pad(job.stats)
  progress = checkpoint.latest(folder) or _no_progress()
  all_programs = {program for plan in job.phases for program in _programs(job, plan, spread)}
  compiled = progress['compile_seconds'] - sum(program.compile_seconds for program in all_programs)

  for index in range(progress['phase'], len(job.phases)):
    plan = job.phases[index]
    advance, evaluate = _programs(job, plan, spread)
    own = _with_trained(own, job, index, spread)
    trainable, frozen_own, frozen_source = _partition(own, job.base.params, plan.phase, spread)
    hyper = _hyper(job, plan, spread)
    begin = lambda trainable, stats, hyper, phase=plan.phase: step.start(trainable, stats, phase, hyper)
    state = spread.place(jax.vmap(begin)(trainable, stats, hyper))
    carry = {'state': state, 'sums': _zeros(spread), 'frozen': spread.place(frozen_own)}
    if index == progress['phase'] and progress['at']:
      carry = spread.place(spread.pad(checkpoint.restore(folder, spread.unpad(carry))))
    state, sums = carry['state'], carry['sums']
    runs = cohort.Runs(carry['frozen'], _orders(job, plan, index, spread), _keys(job, index, spread), hyper)
    shared = cohort.Shared(spread.everywhere(frozen_source), data)
    progress['phase'] = index
    progress['optimizer_bytes'] = max(progress['optimizer_bytes'], trees.num_bytes(state.opt_state) // len(spread.rows))
    if len(progress['frozen']) == index:
      progress['frozen'].append({'before': _digests(runs.frozen, shared.frozen, spread)})

    saved, rate = time.perf_counter(), 0.0
    while progress['at'] < plan.num_steps:
      began, compiling = time.perf_counter(), advance.compile_seconds
      stop = next(s for s in plan.stops if s > progress['at'])
      chunk = min(stop - progress['at'], max(1, int(rate * SEGMENT_SECONDS))) if rate else min(stop - progress['at'], FIRST_STEPS)
      state, sums = jax.block_until_ready(advance((state, sums, runs, spread.each(chunk)), shared))
      progress['at'] += chunk
      spent = time.perf_counter() - began - (advance.compile_seconds - compiling)
      rate = chunk / spent
      if progress['at'] == stop:
        val_sums, _ = evaluate((state.trainable, runs.frozen, state.stats), (shared.frozen, val))
        progress['history'].append(_metrics(job, index, progress['at'], sums, val_sums, spread))
        sums = _zeros(spread)
      progress['train_seconds'] += time.perf_counter() - began
      say(_steps_before(job, index) + progress['at'], rate * len(job.seeds))
      ended = progress['at'] == plan.num_steps
      if ended:
        progress['frozen'][index]['after'] = _digests(runs.frozen, shared.frozen, spread)
        progress['taken'].append(spread.unpad(state.step).tolist())
      final = ended and index == len(job.phases) - 1
      if final or interrupted() or time.perf_counter() - saved > save_seconds:
        progress['compile_seconds'] = compiled + sum(program.compile_seconds for program in all_programs)
        tree = spread.unpad({'state': state, 'sums': sums, 'frozen': runs.frozen})
        checkpoint.save(folder, _steps_before(job, index) + progress['at'], tree, progress)
        saved = time.perf_counter()
        if interrupted() and not final:
          raise KeyboardInterrupt(interrupted())
    progress['at'] = 0
    own, stats = trees.merge(state.trainable, runs.frozen), state.stats

  return Fitted(spread.unpad(own), spread.unpad(stats), progress)


def _no_progress() -> dict[str, Any]:
  """What a checkpoint says in JSON beside its arrays."""
  return {
      'phase': 0, 'at': 0,  # steps done of that phase
      'taken': [],  # per finished phase, the steps [R] taken: fewer than the phase has where a run diverged
      'history': [],  # per evaluation: step, phase and lists [R] of loss, grad_norm, val_loss, val_accuracy
      'frozen': [],  # per phase: digests [R] of the frozen leaves, 'before' and 'after'
      'train_seconds': 0.0, 'compile_seconds': 0.0,  # of the whole cohort
      'optimizer_bytes': 0,  # of one run
  }


class _Spread(NamedTuple):
  """How the runs of a cohort lie on the devices: padded to a multiple of them, or, for a single run, its batches split."""
  mesh: jax.sharding.Mesh
  num_runs: int
  rows: np.ndarray  # the run that each place computes

  @classmethod
  def over(cls, num_runs: int) -> '_Spread':
    mesh = meshes.make('run' if num_runs > 1 else 'data')
    places = -(-num_runs // mesh.size) * mesh.size if num_runs > 1 else 1
    return cls(mesh, num_runs, np.minimum(np.arange(places), num_runs - 1))

  def pad(self, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[self.rows], tree)

  def unpad(self, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:self.num_runs], jax.device_get(tree))

  def place(self, tree: PyTree) -> PyTree:
    return jax.device_put(tree, meshes.along(self.mesh) if self.num_runs > 1 else meshes.replicated(self.mesh))

  def everywhere(self, tree: PyTree) -> PyTree:
    return jax.device_put(tree, meshes.replicated(self.mesh))

  def each(self, value: int) -> jax.Array:
    return self.place(np.full(len(self.rows), value, np.int32))

  def broadcast(self, tree: PyTree) -> PyTree:
    return self.place(jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (len(self.rows), *leaf.shape)), tree))

  def along_batch(self, tree: PyTree, dimension: int) -> PyTree:
    """A single run's batches, split where they divide by the devices; a cohort's lie whole on every device."""
    if self.num_runs > 1:
      return self.everywhere(tree)
    split = lambda leaf: leaf.shape[dimension] % self.mesh.size == 0
    return jax.tree.map(lambda leaf: jax.device_put(leaf, meshes.along(self.mesh, dimension) if split(leaf)
                                                    else meshes.replicated(self.mesh)), tree)

  def batches(self, inputs: np.ndarray, targets: np.ndarray) -> Batch:
    """All examples in padded batches on the device."""
    return self.along_batch(feed.padded(inputs, targets, EVAL_BATCH), 1)


def predict(job: Job, fitted: Fitted, run: int, data: feed.Arrays) -> tuple[dict[str, float], np.ndarray]:
  """({'accuracy', 'loss', 'count'}, logits [N, K]) of one run on all of `data`."""
  spread = _Spread.over(1)
  plan = job.phases[-1]
  params = trees.merge(jax.tree.map(lambda leaf: leaf[run], fitted.own), job.base.params)
  plain = step.Phase((), (), mean=plan.phase.mean, std=plan.phase.std)  # one program for every method
  program = cohort.program(cohort.evaluate, job.network, plan.task, plain, spread.mesh)
  one = spread.place(jax.tree.map(lambda leaf: np.asarray(leaf)[None], (params, jax.tree.map(lambda leaf: leaf[run], fitted.stats))))
  nothing = jax.tree.map(lambda _: None, params)
  sums, logits = jax.device_get(program((one[0], nothing, one[1]), (nothing, spread.batches(*data))))
  logits = logits[0].reshape(-1, logits.shape[-1])[:len(data.targets)]
  return {name: float(value[0]) for name, value in averages(sums).items()}, logits


def averages(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Metrics [R] from a task's sums [R]: everything summed over the examples, divided by their count."""
  means = {'accuracy' if name == 'correct' else name: np.asarray(value) / np.asarray(sums['count'])
           for name, value in sums.items() if name != 'count'}
  return means | {'count': np.asarray(sums['count'])}


def _programs(job: Job, plan: PhasePlan, spread: _Spread) -> tuple[cohort.Program, ...]:
  return tuple(cohort.program(function, job.network, plan.task, plan.phase, spread.mesh)
               for function in (cohort.advance, cohort.evaluate))


def _with_trained(own: PyTree, job: Job, index: int, spread: _Spread) -> PyTree:
  """`own` with room for all that phases before `index` trained: what a resumed run needs before its values are read."""
  trained = {name for plan in job.phases[:index] for name, group in plan.phase.labels if group != 'frozen'}
  source = trees.map_named(lambda name, leaf: leaf if name in trained else None, job.base.params)
  return trees.merge(own, spread.broadcast(source))


def _partition(own: PyTree, base: PyTree, phase: step.Phase, spread: _Spread) -> tuple[PyTree, PyTree, PyTree]:
  """(trainable [R, ...], the runs' own frozen leaves [R, ...], the source's frozen leaves)."""
  groups = dict(phase.labels)
  frozen = lambda name: groups[name] == 'frozen'
  only = lambda tree, keep: trees.map_named(lambda name, leaf: leaf if keep(name) else None, tree)
  owned = {name for name, _ in trees.named_leaves(own)}
  trainable = trees.merge(only(own, lambda name: not frozen(name)),
                          spread.broadcast(only(base, lambda name: not frozen(name) and name not in owned)))
  return trainable, only(own, frozen), only(base, lambda name: frozen(name) and name not in owned)


def _hyper(job: Job, plan: PhasePlan, spread: _Spread) -> step.Hyper:
  columns = [plan.learning_rate or rate for rate in job.learning_rates], job.weight_decays, [plan.num_steps] * len(job.seeds)
  return spread.place(spread.pad(step.Hyper(*(np.asarray(column, np.float32) for column in columns))))


def _orders(job: Job, plan: PhasePlan, index: int, spread: _Spread) -> jax.Array:
  """int32 [R, T, B]; T is rounded up so that phases of other lengths share the program, the steps beyond are never taken."""
  length = max(ORDER_STEPS, 1 << (plan.num_steps - 1).bit_length())
  orders = np.zeros((len(job.seeds), length, plan.batch_size), np.int32)
  for run, (examples, seed) in enumerate(zip(job.examples, job.seeds)):
    orders[run, :plan.num_steps] = feed.order(examples, plan.num_steps, plan.batch_size, (seed, index))
  orders = spread.pad(orders)
  return spread.place(orders) if spread.num_runs > 1 else spread.along_batch(orders, 2)


def _keys(job: Job, index: int, spread: _Spread) -> jax.Array:
  keys = [jax.random.fold_in(jax.random.key(job.seeds[run]), index + 1) for run in spread.rows]
  return spread.place(jnp.stack(keys))


def _zeros(spread: _Spread) -> dict[str, jax.Array]:
  return spread.place({name: np.zeros(len(spread.rows), np.float32) for name in ('loss', 'grad_norm')})


def _steps_before(job: Job, index: int) -> int:
  return sum(plan.num_steps for plan in job.phases[:index])


def _metrics(job: Job, index: int, at: int, sums: PyTree, val_sums: PyTree, spread: _Spread) -> dict[str, Any]:
  """One line of history: means over the steps since the line before, and the validation part."""
  before = [stop for stop in job.phases[index].stops if stop < at]
  means = {name: value / (at - (before[-1] if before else 0)) for name, value in spread.unpad(sums).items()}
  val = {f'val_{name}': value for name, value in averages(spread.unpad(val_sums)).items() if name != 'count'}
  return {'step': _steps_before(job, index) + at, 'phase': index} | {name: value.tolist() for name, value in (means | val).items()}


def _digests(own: PyTree, source: PyTree, spread: _Spread) -> list[str]:
  """Per run, the digest of its frozen leaves; '' where nothing is frozen."""
  shared = trees.sha256(source) if jax.tree.leaves(source) else ''
  own = spread.unpad(own)
  if not jax.tree.leaves(own):
    return [shared] * spread.num_runs
  runs = [trees.sha256(jax.tree.map(lambda leaf: leaf[run], own)) for run in range(spread.num_runs)]  # noqa: B023
  return [hashlib.sha256(f'{shared}{digest}'.encode()).hexdigest() for digest in runs]
