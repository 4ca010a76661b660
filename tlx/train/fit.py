"""One cohort through its phases: label, partition, train, evaluate, save; the same again after an interruption."""

import contextlib
import functools
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from tlx import checkpoint
from tlx import tree as trees
from tlx.train import cohort, exact, feed, memory, step
from tlx.train import mesh as meshes
from tlx.train.job import Job, PhasePlan, hyper_of, keys, orders, steps_at, steps_before
from tlx.train.spread import Spread
from tlx.types import Batch, PyTree, RunState

Spent = defaultdict[str, float]  # seconds by kind

SEGMENT_SECONDS = (
  5.0  # how long the device is left alone: progress is shown and an interruption heeded this often
)
SAVE_SHARE = 0.05  # of the time may go into saving
FIRST_STEPS = 10  # of a program whose speed is not known yet


class Fitted(NamedTuple):
  """The end of a cohort: arrays on the host, stacked [R, ...]."""

  own: PyTree  # all params that were initialised or trained here; None where the source's serve
  stats: PyTree
  progress: dict[str, Any]  # see `_no_progress`


class Phased(NamedTuple):
  """A phase with all its arrays on the devices, before its first step."""

  state: RunState
  runs: cohort.Runs
  shared: cohort.Shared
  advance: cohort.Program
  evaluate: cohort.Program


def fit(
  job: Job,
  folder: epath.Path,
  save_seconds: float = 30.0,
  say: Callable[[int, float], None] = lambda steps, rate: None,
  interrupted: Callable[[], int] = lambda: 0,
  spent: Spent | None = None,
) -> Fitted:
  """Trains the cohort, or finishes it from the checkpoint in `folder`: the numbers are the same bit for bit.

  Args:
    say: called with (steps of a run done so far, steps per second of all runs together).
    interrupted: where it returns a signal's number, the state is saved and KeyboardInterrupt(number) raised.
    spent: gains the seconds of this call by kind: 'setup', 'train', 'eval', 'compile', 'save'.
  """
  job = job.timed()
  spread = job.spread()
  own, stats = spread.pad(job.own), spread.pad(job.stats)
  progress = meshes.on_first(lambda: checkpoint.latest(folder)) or _no_progress(job)
  spent = Spent(float) if spent is None else spent
  saved, saving = meshes.on_first(time.perf_counter), 0.0

  for index in range(progress['phase'], len(job.phases)):
    plan = job.phases[index]
    with booked(spent, 'setup'):
      own = _with_trained(own, job, index, spread)
      state, runs, shared, advance, evaluate = prepare(job, index, own, stats, spread)
      batches, mask = _validation(job, plan, spread)
    sums = _zeros(spread)
    if index == progress['phase'] and progress['at']:
      state, sums, runs = _restore(
        folder, _without_optimizer(state, job, index, progress['at']), sums, runs, spread
      )
    progress['phase'] = index
    progress['optimizer_bytes'] = max(
      progress['optimizer_bytes'], _optimizer_bytes(plan, state, spread)
    )
    if len(progress['frozen']) == index:
      _, frozen_own, frozen_source = _partition(own, job.base.params, plan.phase, spread)
      progress['frozen'].append(
        {'before': _digests(plan.phase, frozen_own, frozen_source, stats, spread)}
      )
      progress['train_seconds'].append(0.0)
    rate = 0.0
    while progress['at'] < plan.num_steps:
      stop = next(s for s in plan.stops if s > progress['at'])
      chunk = min(
        stop - progress['at'], max(1, int(rate * SEGMENT_SECONDS)) if rate else FIRST_STEPS
      )
      chunk = meshes.on_first(
        functools.partial(int, chunk)
      )  # a matter of time, which processes feel differently
      with _watched(progress, spent) as watch:
        if plan.phase.solver == 'sgd':
          chunks = spread.place(
            spread.pad(
              steps_at(job, index, progress['at'] + chunk) - steps_at(job, index, progress['at'])
            )
          )
          state, sums = jax.block_until_ready(advance((state, sums), (runs, chunks), shared))
        else:
          heed = functools.partial(_heed, interrupted)
          state, sums, progress['converged'] = exact.solve_phase(job, index, state, spread, heed)
      rate = chunk / watch.seconds
      spent['train'] += watch.seconds
      progress['train_seconds'][index] += watch.seconds
      progress['at'] += chunk
      if progress['at'] == stop:
        with _watched(progress, spent) as watch:
          looked = cohort.Evaluated(state.trainable, runs.frozen, state.stats, mask)
          val_sums = evaluate((), looked, (shared.frozen, batches))
          progress['history'].append(_metrics(job, index, progress['at'], sums, val_sums, spread))
        spent['eval'] += watch.seconds
        progress['eval_seconds'] += watch.seconds
        sums = _zeros(spread)
      say(steps_before(job, index) + progress['at'], rate * len(job.seeds))
      ended = progress['at'] == plan.num_steps
      if ended:
        after = _digests(
          plan.phase, runs.frozen, _all_frozen(job, plan.phase, shared.frozen), state.stats, spread
        )
        progress['frozen'][index]['after'] = after
        progress['taken'].append(spread.unpad(state.step).tolist())
      final = ended and index == len(job.phases) - 1
      signal, since = meshes.on_first(lambda: (interrupted(), time.perf_counter()))
      due = save_seconds and max(save_seconds, saving / SAVE_SHARE)  # 0: after every segment
      if final or signal or since - saved > due:
        kept = _without_optimizer(state, job, index, progress['at'])
        _save(folder, steps_before(job, index) + progress['at'], kept, sums, runs, progress, spread)
        saved = meshes.on_first(time.perf_counter)
        saving = saved - since
        spent['save'] += saving
        if signal and not final:
          raise KeyboardInterrupt(signal)
    progress['at'] = 0
    own, stats = trees.merge(state.trainable, runs.frozen), state.stats

  return Fitted(spread.unpad(own), spread.unpad(stats), progress)


@contextlib.contextmanager
def booked(spent: Spent, kind: str) -> Iterator[None]:
  """Books the time of what is done within under `kind`, but for what is booked meanwhile."""
  began, others = time.perf_counter(), sum(spent.values())
  try:
    yield
  finally:
    spent[kind] += time.perf_counter() - began - (sum(spent.values()) - others)


class _Watch:
  """`seconds` that passed, those of compiling left out."""

  seconds = 0.0


@contextlib.contextmanager
def _watched(progress: dict[str, Any], spent: Spent) -> Iterator[_Watch]:
  """Takes the time of what is done within; what is compiled meanwhile is booked by itself."""
  watch, before, began = _Watch(), cohort.Program.so_far, time.perf_counter()
  yield watch
  more = cohort.Program.so_far - before
  watch.seconds = time.perf_counter() - began - more.seconds
  progress['compile_seconds'] += more.seconds
  progress['compiled_programs'] += more.programs
  spent['compile'] += more.seconds


def _validation(job: Job, plan: PhasePlan, spread: Spread) -> tuple[Batch, jax.Array]:
  """(batches of the validation examples that some run looks at, mask [R, N / B, B]: 1.0 where a run looks)."""
  arrays = job.val(plan.phase)
  rows = job.val_rows or [np.arange(feed.length(arrays))] * len(job.seeds)
  used = np.unique(np.concatenate(rows))
  if len(used) < feed.length(arrays):
    arrays = jax.tree.map(lambda leaf: leaf[used], arrays)
  batches = spread.batches(*arrays)
  mask = np.zeros((len(rows), batches.mask.size), np.float32)
  for looked, own in zip(mask, rows):
    looked[np.searchsorted(used, own)] = 1.0
  return batches, spread.place(spread.pad(mask.reshape(-1, *batches.mask.shape)))


def _optimizer_bytes(plan: PhasePlan, state: RunState, spread: Spread) -> int:
  """Bytes of one run's optimizer state; an exact solution has none."""
  return trees.num_bytes(state.opt_state) // len(spread.rows) if plan.phase.solver == 'sgd' else 0


def prepare(job: Job, index: int, own: PyTree, stats: PyTree, spread: Spread) -> Phased:
  """The arrays of phase `index` on the devices: label, partition, optimizer state, orders, keys, data."""
  plan = job.phases[index]
  trainable, frozen_own, frozen_source = _partition(own, job.base.params, plan.phase, spread)
  hyper = hyper_of(job, index, spread)
  start = jax.vmap(
    lambda trainable, stats, hyper: step.init_state(trainable, stats, plan.phase, hyper)
  )
  state = jax.jit(
    start, out_shardings=spread.shardings(jax.eval_shape(start, trainable, stats, hyper))
  )(spread.place(trainable), spread.place(stats), hyper)
  data = job.train(plan.phase)
  runs = cohort.Runs(
    spread.place(frozen_own),
    orders(job, index, feed.length(data), spread),
    keys(job, index, spread),
    hyper,
  )
  shared = cohort.Shared(
    spread.whole(_leaves_that_run(job, plan.phase, frozen_source)), spread.everywhere(data)
  )
  return Phased(
    state,
    runs,
    shared,
    *(
      cohort.program(function, job.recipe(index), spread.mesh)
      for function in (cohort.advance, cohort.evaluate)
    ),
  )


def compile_ahead(job: Job) -> list[dict[str, Any]]:
  """Compiles the programs of every phase without running them: a row a program with its 'phase', 'seconds' and 'bytes' on a device.

  Programs compiled before are not in it. Raises ValueError as a run would, where one does not fit into memory.
  """
  job = job.timed()
  spread, rows = job.spread(), []
  for index, plan in enumerate(job.phases):
    own = _with_trained(spread.pad(job.own), job, index, spread)
    state, runs, shared, advance, evaluate = prepare(job, index, own, spread.pad(job.stats), spread)
    batches, mask = _validation(job, plan, spread)
    looked = cohort.Evaluated(state.trainable, runs.frozen, state.stats, mask)
    wanted: list[tuple[cohort.Program, tuple]] = [
      (evaluate, ((), looked, (shared.frozen, batches)))
    ]
    if plan.phase.solver == 'sgd':  # an exact solution has a program of its own
      wanted.insert(0, (advance, ((state, _zeros(spread)), (runs, spread.each(1)), shared)))
    for program, arguments in wanted:
      before = cohort.Program.so_far
      executable = program.compile(*arguments)
      if (more := cohort.Program.so_far - before).programs:
        rows.append(
          {'phase': index, 'seconds': more.seconds, 'bytes': memory.needed_bytes(executable)}
        )
  return rows


def _no_progress(job: Job) -> dict[str, Any]:
  """What a checkpoint says in JSON beside its arrays."""
  return {
    'phase': 0,
    'at': 0,  # steps done of that phase
    'taken': [],  # per finished phase, the steps [R] taken: fewer than the phase has where a run diverged
    'converged': [True] * len(job.seeds),  # False where an exact solution was not found
    'history': [],  # per evaluation: step, phase and lists [R] of loss, grad_norm and the task's columns as val_<column>
    'frozen': [],  # per phase: digests [R] of the frozen leaves, 'before' and 'after'
    # Of the whole cohort, without what it shared with earlier ones:
    'train_seconds': [],  # per phase, of the steps alone
    'eval_seconds': 0.0,
    'compile_seconds': 0.0,
    'compiled_programs': 0,
    'optimizer_bytes': 0,  # of one run
  }


def _heed(interrupted: Callable[[], int]) -> None:
  """Raises KeyboardInterrupt where a signal asks for an end: half a set of exact solutions is not kept."""
  if signal := meshes.on_first(interrupted):
    raise KeyboardInterrupt(signal)


def _without_optimizer(state: RunState, job: Job, index: int, at: int) -> RunState:
  """What a checkpoint holds of the state: after the last step of all, which no other follows, nothing of the optimizer's."""
  return (
    state._replace(opt_state=())
    if (index, at) == (len(job.phases) - 1, job.phases[-1].num_steps)
    else state
  )


def _save(
  folder: epath.Path,
  at: int,
  state: RunState,
  sums: PyTree,
  runs: cohort.Runs,
  progress: dict[str, Any],
  spread: Spread,
):
  tree = spread.unpad({'state': state, 'sums': sums, 'frozen': runs.frozen})
  meshes.on_first(lambda: checkpoint.save(folder, at, tree, progress))


def _restore(folder: epath.Path, state: RunState, sums: PyTree, runs: cohort.Runs, spread: Spread):
  """(state, sums, runs) as they were saved, on whatever devices there are now."""
  carry = {'state': state, 'sums': sums, 'frozen': runs.frozen}
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((spread.num_runs, *leaf.shape[1:]), leaf.dtype), carry
  )
  carry = spread.place(spread.pad(meshes.on_first(lambda: checkpoint.restore(folder, like))))
  return carry['state'], carry['sums'], runs._replace(frozen=carry['frozen'])


class Predicted(NamedTuple):
  """A run on examples: the sums of its task's terms, and what the task keeps of the outputs [N, ...]."""

  sums: dict[str, tuple[float, float]]
  kept: dict[str, np.ndarray]


def predict(
  job: Job, fitted: Fitted, runs: Sequence[int], data: Callable[[step.Phase], feed.Arrays]
) -> list[Predicted]:
  """What each of some runs does on all of `data`."""
  spread = Spread.over(1)
  plan = job.phases[-1]
  arrays = data(plan.phase)
  batches, shared = (
    spread.batches(*arrays),
    spread.whole(_leaves_that_run(job, plan.phase, job.base.params)),
  )
  plain = step.Phase((), (), start=plan.phase.start)  # one program for every method
  recipe = job.recipe(-1)._replace(phase=plain)
  program = cohort.program(cohort.predict, recipe, spread.mesh)
  mask = np.ones((1, *batches.mask.shape), np.float32)
  results = []
  for run in runs:
    of_all = _leaves_that_run(job, plan.phase, fitted.own), fitted.stats
    own, stats = jax.tree.map(lambda leaf, run=run: leaf[run : run + 1], of_all)
    nothing = jax.tree.map(lambda _: None, own)
    looked = cohort.Evaluated(spread.place(own), nothing, spread.place(stats), spread.place(mask))
    sums, kept = meshes.get(program((), looked, (shared, batches)))
    kept = jax.tree.map(
      lambda leaf: leaf[0].reshape(-1, *leaf.shape[3:])[: feed.length(arrays)], kept
    )
    results.append(Predicted(_of_run(sums, 0), kept))
  return results


def _of_run(sums: cohort.Sums, run: int) -> dict[str, tuple[float, float]]:
  """The sums of one run as numbers, of those [R] of all."""
  return {name: (float(total[run]), float(weight[run])) for name, (total, weight) in sums.items()}


def _leaves_that_run(job: Job, phase: step.Phase, params: PyTree) -> PyTree:
  """`params` with None in the stages that ran once before the phase; a head without parameters borrows those of the first stage."""
  stages = job.network.stages
  kept = {
    *stages[phase.start :],
    *(() if jax.tree.leaves((job.base.params[stages[-1]], job.own[stages[-1]])) else stages[:1]),
  }
  return {
    stage: leaves if stage in kept else jax.tree.map(lambda _: None, leaves)
    for stage, leaves in params.items()
  }


def _with_trained(own: PyTree, job: Job, index: int, spread: Spread) -> PyTree:
  """`own` with room for all that phases before `index` trained: what a resumed run needs before its values are read."""
  trained = {
    name for plan in job.phases[:index] for name, group in plan.phase.labels if group != 'frozen'
  }
  source = trees.map_named(lambda name, leaf: leaf if name in trained else None, job.base.params)
  return trees.merge(own, spread.broadcast(source))


def _partition(
  own: PyTree, base: PyTree, phase: step.Phase, spread: Spread
) -> tuple[PyTree, PyTree, PyTree]:
  """(trainable [R, ...], the runs' own frozen leaves [R, ...], the source's frozen leaves)."""
  groups = dict(phase.labels)
  frozen = lambda name: groups[name] == 'frozen'
  only = lambda tree, keep: trees.map_named(lambda name, leaf: leaf if keep(name) else None, tree)
  owned = {name for name, _ in trees.named_leaves(own)}
  trainable = trees.merge(
    only(own, lambda name: not frozen(name)),
    spread.broadcast(only(base, lambda name: not frozen(name) and name not in owned)),
  )
  return trainable, only(own, frozen), only(base, lambda name: frozen(name) and name not in owned)


def _zeros(spread: Spread) -> dict[str, jax.Array]:
  return spread.place(
    {name: np.zeros(len(spread.rows), np.float32) for name in ('loss', 'grad_norm')}
  )


def _metrics(
  job: Job, index: int, at: int, sums: PyTree, val_sums: PyTree, spread: Spread
) -> dict[str, Any]:
  """One line of history: means over the steps since the line before, and the validation part."""
  before = max([stop for stop in job.phases[index].stops if stop < at], default=0)
  done, earlier = steps_at(job, index, at), sum(job.steps(i) for i in range(index))
  with np.errstate(
    invalid='ignore'
  ):  # a run of fewer steps than evaluations takes none between some
    means = {
      name: value / (done - steps_at(job, index, before))
      for name, value in spread.unpad(sums).items()
    }
  line = {'step': (earlier + done).tolist(), 'phase': index} | {
    name: value.tolist() for name, value in means.items()
  }
  val_sums = spread.unpad(val_sums)
  scores = [job.phases[index].task.scores(_of_run(val_sums, run)) for run in range(len(job.seeds))]
  return line | {f'val_{column}': [of_run[column] for of_run in scores] for column in scores[0]}


def _all_frozen(job: Job, phase: step.Phase, source: PyTree) -> PyTree:
  """The source's frozen leaves: those on the devices, and those of the stages that ran before the phase."""
  before = {
    stage: job.base.params[stage]
    for stage in job.network.stages[: phase.start]
    if stage in job.base.params
  }
  groups = dict(phase.labels)
  before = trees.map_named(lambda name, leaf: leaf if groups[name] == 'frozen' else None, before)
  return meshes.get(source) | before


def _digests(
  phase: step.Phase, own: PyTree, source: PyTree, stats: PyTree, spread: Spread
) -> list[str]:
  """Per run, the digest of its frozen leaves and statistics, its own [R, ...] and the source's; '' where nothing is frozen."""
  shared = trees.sha256(source) if jax.tree.leaves(source) else ''
  kept = trees.map_named(
    lambda name, leaf: leaf if name.rpartition('/')[0] in phase.frozen_norms else None, stats
  )
  of_runs = spread.unpad((own, kept))
  if not jax.tree.leaves(of_runs):
    return [shared] * spread.num_runs
  runs = []
  for run in range(spread.num_runs):
    of_run = jax.tree.map(lambda leaf, run=run: leaf[run], of_runs)
    runs.append(trees.sha256(of_run))
  return [hashlib.sha256(f'{shared}{digest}'.encode()).hexdigest() for digest in runs]
