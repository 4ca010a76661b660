"""One cohort through its phases: label, partition, train, evaluate, save.

The same again after an interruption.
"""

import contextlib
import functools
import hashlib
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from tlx import checkpoint
from tlx import tree as trees
from tlx.train import cohort, exact, feed, memory, prefix, statistics, step, stream
from tlx.train import mesh as meshes
from tlx.train.anchor import Reference
from tlx.train.job import (
  Job,
  PhasePlan,
  balanced,
  class_weights,
  hyper_of,
  keys,
  steps_at,
  steps_before,
)
from tlx.train.profile import Profile
from tlx.train.spread import Spread
from tlx.types import PyTree, RunState, Variables, num_logits

Spent = defaultdict[str, float]  # seconds by kind

# How long the device is left alone: progress is shown and an interruption heeded this often.
SEGMENT_SECONDS = 5.0
SAVE_SHARE = 0.05  # of the time may go into saving
FIRST_STEPS = 10  # of a program whose speed is not known yet


class Fitted(NamedTuple):
  """The end of a cohort: arrays on the host, stacked [R, ...]."""

  own: PyTree  # all params that were initialised or trained here; None where the source's serve
  stats: PyTree
  progress: dict[str, Any]  # see `_no_progress`
  # Where the last phase ended with its best step: (own, stats) of the last one.
  last: tuple[PyTree, PyTree] | None = None


class Phased(NamedTuple):
  """A phase with its leaves on the devices, before its first step."""

  state: RunState
  runs: cohort.Runs
  frozen: PyTree  # the source's leaves that all runs share
  reference: Reference | None  # what else a penalty is told of the source
  advance: cohort.Program
  evaluate: cohort.Program
  kept: Variables | tuple[()] = ()  # [R, K, ...]: the best steps on validation so far, best first
  last: Variables | tuple[()] = ()  # once the phase ended with another than its last step


class _Course(NamedTuple):
  """What all phases of a call share; `progress`, `spent` and `saver` change as it goes."""

  job: Job
  spread: Spread
  progress: dict[str, Any]
  spent: Spent
  saver: '_Saver'
  say: Callable[[int, float], None]
  interrupted: Callable[[], int]
  profile: Profile | None


def fit(
  job: Job,
  folder: epath.Path,
  save_seconds: float = 30.0,
  say: Callable[[int, float], None] = lambda steps, rate: None,
  interrupted: Callable[[], int] = lambda: 0,
  spent: Spent | None = None,
  profile: Profile | None = None,
) -> Fitted:
  """Trains the cohort, or finishes it from the checkpoint in `folder`: bit for bit the same.

  Args:
    say: called with (steps of a run done so far, steps per second of all runs together).
    interrupted: where it returns a signal's number, the state is saved and
      KeyboardInterrupt(number) raised.
    spent: gains the seconds of this call by kind: 'setup', 'train', 'wait' (of the steps, for their
      examples), 'eval', 'compile', 'save'.
    profile: steps that are traced, which changes no number.
  """
  job = job.timed()
  spread = job.spread()
  progress = meshes.on_first(lambda: checkpoint.latest(folder)) or _no_progress(job)
  spent = Spent(float) if spent is None else spent
  saver = _Saver(folder, save_seconds)
  course = _Course(job, spread, progress, spent, saver, say, interrupted, profile)
  own, stats = spread.pad(job.own), spread.pad(job.stats)
  for index in range(progress['phase'], len(job.phases)):
    phased = _run_phase(course, index, own, stats)
    own, stats = _left(phased, phased.state.trainable), phased.state.stats
  fitted = Fitted(spread.unpad(own), spread.unpad(stats), progress)
  if not phased.last:
    return fitted
  last = _left(phased, phased.last.params), phased.last.stats
  return fitted._replace(last=spread.unpad(last))


def _left(phased: Phased, trainable: PyTree) -> PyTree:
  """The runs' own params after a phase, of which these were trained."""
  return trees.merge(trainable, phased.runs.frozen)


def _run_phase(course: _Course, index: int, own: PyTree, stats: PyTree) -> Phased:
  """Phase `index`, or what is left of it, at its end."""
  job, spread, progress = course.job, course.spread, course.progress
  plan = job.phases[index]
  with contextlib.ExitStack() as stack:
    with booked(course.spent, 'setup'):
      own = _with_trained(own, job, index, spread)
      phased = prepare(job, index, own, stats, spread)
      val, sums = _validation(job, plan, spread), _zeros(spread, plan.phase)
      if index == progress['phase'] and progress['at']:
        phased, sums = _restored(course, index, phased, sums)
      else:
        phased = _informed(job, index, phased, spread)
      _begin(course, index, phased, own, stats)
      windows = None  # an exact solution sees all examples at once
      if plan.phase.solver == 'sgd' and progress['at'] < plan.num_steps:
        windows = stack.enter_context(stream.Windows(job, index, spread))
        windows.seek(progress['at'], phased.state.step)
    if not plan.num_steps and not progress['taken']:  # it is looked at as it came
      phased = _look(course, index, phased, sums, val)
      phased = _end(course, index, phased, val)
      _save_if_due(course, index, phased, sums)
    rate = 0.0
    while progress['at'] < plan.num_steps:
      stop = next(step for step in plan.stops if step > progress['at'])
      if windows:
        phased, sums, rate = _take_steps(course, index, phased, sums, windows, stop, rate)
      else:
        phased, sums, rate = _solve(course, index, phased, stop)
      if progress['at'] == stop:
        phased = _look(course, index, phased, sums, val)
        sums = _zeros(spread, plan.phase)
      course.say(steps_before(job, index) + progress['at'], rate * len(job.seeds))
      if progress['at'] == plan.num_steps:
        phased = _end(course, index, phased, val)
      _save_if_due(course, index, phased, sums)
  progress['at'] = 0
  return phased


def _begin(course: _Course, index: int, phased: Phased, own: PyTree, stats: PyTree) -> None:
  """Notes what a phase begins with, where it does begin."""
  job, spread, progress = course.job, course.spread, course.progress
  plan = job.phases[index]
  progress['phase'] = index
  optimizer_bytes = _optimizer_bytes(plan, phased.state, spread)
  progress['optimizer_bytes'] = max(progress['optimizer_bytes'], optimizer_bytes)
  if len(progress['frozen']) == index:
    _, frozen_own, frozen_source = _partition(own, job.base.params, plan.phase, spread)
    before = _digests(plan.phase, frozen_own, frozen_source, stats, spread)
    progress['frozen'].append({'before': before})
    progress['train_seconds'].append(0.0)
    progress['kept'] = [[] for _ in job.seeds]


def _take_steps(
  course: _Course,
  index: int,
  phased: Phased,
  sums: PyTree,
  windows: stream.Windows,
  stop: int,
  rate: float,
) -> tuple[Phased, PyTree, float]:
  """(the phase, the sums of metrics, steps per second) some steps later, by `stop` at the most."""
  job, spread, progress = course.job, course.spread, course.progress
  at = progress['at']
  with _watched(progress, course.spent) as watch:
    waited = -course.spent['wait']
    with booked(course.spent, 'wait'):
      window = windows.seek(at, phased.state.step)
    waited += course.spent['wait']
    stop = min(stop, window.stop)
    segment = max(1, int(rate * SEGMENT_SECONDS)) if rate else FIRST_STEPS
    traced: contextlib.AbstractContextManager = contextlib.nullcontext()
    if course.profile:
      done = steps_before(job, index) + at
      segment, traced = min(segment, course.profile.left(done)), course.profile.traced(done)
    # A matter of time, which processes feel differently.
    chunk = meshes.on_first(functools.partial(min, stop - at, segment))
    chunks = steps_at(job, index, at + chunk) - steps_at(job, index, at)
    own = phased.runs, window.order, spread.place(spread.pad(chunks))
    shared = cohort.Shared(phased.frozen, window.data, phased.reference)
    with traced:
      state, sums = phased.advance((phased.state, sums), own, shared)
      jax.block_until_ready((state, sums))
  rate = _book_steps(course, index, chunk, watch.seconds)
  progress['train_seconds'][index] += waited
  return phased._replace(state=state), sums, rate


def _solve(course: _Course, index: int, phased: Phased, stop: int) -> tuple[Phased, PyTree, float]:
  """As `_take_steps`, where an exact solution stands for all steps."""
  progress = course.progress
  heed = functools.partial(_heed, course.interrupted)
  with _watched(progress, course.spent) as watch:
    found = exact.solve_phase(course.job, index, phased, course.spread, heed)
    state, sums, progress['converged'] = found
  rate = _book_steps(course, index, stop - progress['at'], watch.seconds)
  return phased._replace(state=state), sums, rate


def _book_steps(course: _Course, index: int, num_steps: int, seconds: float) -> float:
  """Notes steps that were taken; how many a second."""
  course.spent['train'] += seconds
  course.progress['train_seconds'][index] += seconds
  course.progress['at'] += num_steps
  return num_steps / seconds


def _look(
  course: _Course, index: int, phased: Phased, sums: PyTree, val: Iterable[stream.Part]
) -> Phased:
  """The phase with what it keeps; evaluates on validation, and adds a line to the history."""
  job, spread, progress = course.job, course.spread, course.progress
  with _watched(progress, course.spent) as watch:
    found = _validated(course, index, phased, step.evaluated(phased.state), val)
    line = _metrics(job, index, progress['at'], spread.unpad(sums), found)
    progress['history'].append(line)
    phased = _shelve(course, index, phased, line)
  course.spent['eval'] += watch.seconds
  progress['eval_seconds'] += watch.seconds
  return phased


def _validated(
  course: _Course,
  index: int,
  phased: Phased,
  variables: Variables,
  val: Iterable[stream.Part],
) -> list[dict[str, Any]]:
  """The task's columns on the validation part with these weights, of each run; [] without one.

  Of a task that looks at all examples together, the columns that are numbers.
  """
  task, spread = course.job.phases[index].task, course.spread
  sums, kept = [], []
  for part in val:
    looked = cohort.Evaluated(variables.params, phased.runs.frozen, variables.stats, part.mask)
    found = phased.evaluate((), looked, (phased.frozen, part.batches))
    if task.whole:
      found, of_part = found
      looks, targets = spread.unpad(part.mask), meshes.get(part.batches.targets)
      kept.append((spread.unpad(of_part), targets, looks))
    sums.append(spread.unpad(found))
  if not sums:
    return []
  total, columns = cohort.total(sums), []
  for run in range(len(course.job.seeds)):
    of_all = _seen_by(run, kept) if task.whole else ()
    scores = task.scores(_of_run(total, run), *of_all)
    columns.append({name: value for name, value in scores.items() if not isinstance(value, list)})
  return columns


def _seen_by(run: int, parts: Sequence[tuple[PyTree, PyTree, np.ndarray]]) -> tuple[PyTree, PyTree]:
  """(what was kept, the targets) of the examples that a run looks at, of parts with (what was kept
  [R, P, B, ...], targets [P, B, ...], who looks [R, P, B]).
  """
  own = []
  for kept, targets, looks in parts:
    there = looks[run] > 0
    of_run = jax.tree.map(lambda leaf: np.asarray(leaf)[run], kept)
    own.append(jax.tree.map(lambda leaf: leaf[there], (of_run, targets)))  # noqa: B023
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *own)


def _shelve(course: _Course, index: int, phased: Phased, line: Mapping[str, Any]) -> Phased:
  """With the weights of now among those kept, for each run where they are good enough.

  By the task's own column on validation; of equal steps the earlier is better.
  """
  plan, spread = course.job.phases[index], course.spread
  if not plan.num_kept:
    return phased
  column, direction = plan.task.select
  slots = []  # [R][K], of those kept so far and (K) of now
  for of_run, value in zip(course.progress['kept'], line[f'val_{column}'], strict=True):
    places = [*range(len(of_run)), plan.num_kept]
    of_run.append([direction * value if np.isfinite(value) else None, course.progress['at']])
    order = sorted(range(len(of_run)), key=functools.partial(_rank, of_run))[: plan.num_kept]
    of_run[:] = [of_run[i] for i in order]
    filled = [places[i] for i in order]
    slots.append(filled + [0] * (plan.num_kept - len(filled)))
  now = step.evaluated(phased.state)
  return phased._replace(kept=_picked(phased.kept, now, spread.place(spread.pad(np.array(slots)))))


def _rank(of_run: Sequence[tuple[float | None, int]], i: int) -> tuple[bool, float, int]:
  """What orders a run's kept steps: the least is best."""
  value, at = of_run[i]
  return value is None, -(value or 0.0), at


@jax.jit
def _picked(kept: PyTree, now: PyTree, slots: jax.Array) -> PyTree:
  """Of each run's K kept trees and that of now, those in the slots [R, K]."""

  def of_leaf(kept: jax.Array, now: jax.Array) -> jax.Array:
    both = jnp.concatenate([kept, now[:, None]], axis=1)
    return jax.vmap(lambda own, places: own[places])(both, slots)

  return jax.tree.map(of_leaf, kept, now)


@jax.jit
def _mixed(kept: PyTree, shares: jax.Array) -> PyTree:
  """The sum of each run's K kept trees in their shares [R, K]; one of share 0 is not looked at."""

  def of_leaf(kept: jax.Array) -> jax.Array:
    weights = shares.reshape(shares.shape + (1,) * (kept.ndim - 2))
    return jnp.sum(jnp.where(weights > 0, kept * weights, 0), axis=1).astype(kept.dtype)

  return jax.tree.map(of_leaf, kept)


def _best(
  course: _Course, index: int, phased: Phased, val: Iterable[stream.Part]
) -> tuple[Variables, dict[str, Any]]:
  """(what each run ends the phase with, its record): its best step, or a greedy soup of several.

  Wortsman et al. 2022, recipe 1: from the best on, each next one stays in the mean where that is at
  least as good on validation. Batch statistics of a mean are computed anew on training examples.
  """
  job, kept = course.job, course.progress['kept']
  column, direction = job.phases[index].task.select
  members, best = [[0] for _ in kept], [of_run[0][0] for of_run in kept]
  for slot in range(1, job.phases[index].num_kept):
    tried = []
    for own, of_run in zip(members, kept, strict=True):
      there = slot < len(of_run) and of_run[slot][0] is not None
      tried.append([*own, slot] if there else own)
    _, scores = _soup(course, index, phased, tried, val)
    for run, score in enumerate(scores):
      if len(tried[run]) > len(members[run]) and direction * score[column] >= best[run]:
        members[run], best[run] = tried[run], direction * score[column]
  chosen, scores = _soup(course, index, phased, members, val)
  record = {
    'steps': [[kept[run][slot][1] for slot in own] for run, own in enumerate(members)],
    'val': {name: [of_run[name] for of_run in scores] for name in scores[0]},
  }
  return chosen, record


def _soup(
  course: _Course, index: int, phased: Phased, members: list[list[int]], val: Iterable[stream.Part]
) -> tuple[Variables, list[dict[str, Any]]]:
  """(the mean of those kept steps of each run [R], the task's columns of each on validation)."""
  job, spread = course.job, course.spread
  plan = job.phases[index]
  shares = np.zeros((len(members), plan.num_kept), np.float32)
  for run, own in enumerate(members):
    shares[run, own] = 1 / len(own)
  mean = _mixed(phased.kept, spread.place(spread.pad(shares)))
  merged = [run for run, own in enumerate(members) if len(own) > 1]
  if merged and statistics.moving(plan.phase, phased.state.stats):
    params, stats = spread.unpad((_left(phased, mean.params), mean.stats))
    anew = statistics.recomputed(job, index, params, stats, merged)
    mean = mean._replace(stats=spread.place(spread.pad(anew)))
  return mean, _validated(course, index, phased, mean, val)


def _evaluation(phased: Phased, part: stream.Part) -> tuple:
  """The arguments of the program that evaluates."""
  trainable, stats = step.evaluated(phased.state)
  looked = cohort.Evaluated(trainable, phased.runs.frozen, stats, part.mask)
  return (), looked, (phased.frozen, part.batches)


def _end(course: _Course, index: int, phased: Phased, val: Iterable[stream.Part]) -> Phased:
  """The phase with the weights that it leaves; notes what it ended with."""
  job, spread, progress = course.job, course.spread, course.progress
  plan = job.phases[index]
  left, last = step.evaluated(phased.state), phased.last
  progress['best'] = None
  if plan.num_kept:
    with _watched(progress, course.spent) as watch:
      last = left
      left, progress['best'] = _best(course, index, phased, val)
    course.spent['eval'] += watch.seconds
    progress['eval_seconds'] += watch.seconds
  frozen = _all_frozen(job, plan.phase, phased.frozen)
  after = _digests(plan.phase, phased.runs.frozen, frozen, left.stats, spread)
  progress['frozen'][index]['after'] = after
  if plan.phase.watch is not None:
    found = spread.unpad(jax.vmap(step.watched)(phased.state))
    progress['frozen'][index]['factors'] = jax.tree.map(np.ndarray.tolist, found)
  progress['taken'].append(spread.unpad(phased.state.step).tolist())
  state = phased.state._replace(trainable=left.params, stats=left.stats, average=())
  return phased._replace(state=state, kept=(), last=last)


class _Saver:
  """When to save, and how long that took."""

  def __init__(self, folder: epath.Path, save_seconds: float):
    self.folder = folder
    self.save_seconds = save_seconds  # between two saves at least; 0 for after every segment
    self.last = meshes.on_first(time.perf_counter)
    self.took = 0.0

  def is_due(self, now: float) -> bool:
    """Whether enough time has passed since the last save, in the time of the first process."""
    least = self.save_seconds and max(self.save_seconds, self.took / SAVE_SHARE)
    return now - self.last > least


def _save_if_due(course: _Course, index: int, phased: Phased, sums: PyTree) -> None:
  """Saves at the end, when interrupted and now and then.

  Raises:
    KeyboardInterrupt: with the number of the signal, once the state is saved.
  """
  job, progress, saver = course.job, course.progress, course.saver
  final = (index, progress['at']) == (len(job.phases) - 1, job.phases[-1].num_steps)
  signal, now = meshes.on_first(lambda: (course.interrupted(), time.perf_counter()))
  if not (final or signal or saver.is_due(now)):
    return
  state, runs = phased.state, phased.runs
  if progress['at'] == job.phases[index].num_steps:  # no step of the phase follows
    state, runs = state._replace(opt_state=()), runs._replace(known=None)
  tree = course.spread.unpad(_saved(phased._replace(state=state, runs=runs), sums))
  at = steps_before(job, index) + progress['at']
  meshes.on_first(lambda: checkpoint.save(saver.folder, at, tree, progress))
  saver.last = meshes.on_first(time.perf_counter)
  saver.took = saver.last - now
  course.spent['save'] += saver.took
  if signal and not final:
    raise KeyboardInterrupt(signal)


def _saved(phased: Phased, sums: PyTree) -> dict[str, PyTree]:
  """What a checkpoint holds of a phase."""
  return {
    'state': phased.state,
    'sums': sums,
    'frozen': phased.runs.frozen,
    'known': phased.runs.known,
    'kept': phased.kept,
    'last': phased.last,
  }


def _restored(course: _Course, index: int, phased: Phased, sums: PyTree) -> tuple[Phased, PyTree]:
  """(the phase, its sums) as they were saved, on whatever devices there are now."""
  job, spread, folder = course.job, course.spread, course.saver.folder
  if course.progress['at'] == job.phases[index].num_steps:  # as `_end` and `_save_if_due` leave it
    last = Variables(phased.state.trainable, phased.state.stats) if phased.kept else ()
    state = phased.state._replace(opt_state=(), average=())
    runs = phased.runs._replace(known=None)
    phased = phased._replace(state=state, kept=(), last=last, runs=runs)
  carry = _saved(phased, sums)
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((spread.num_runs, *leaf.shape[1:]), leaf.dtype), carry
  )
  carry = spread.place(spread.pad(meshes.on_first(lambda: checkpoint.restore(folder, like))))
  runs = phased.runs._replace(frozen=carry['frozen'], known=carry['known'])
  whole = phased._replace(runs=runs, **{name: carry[name] for name in ('state', 'kept', 'last')})
  return whole, carry['sums']


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
  """Takes the time of what is done within, but for what is compiled or booked meanwhile: frozen
  stages run when their activations are first asked for.
  """
  watch, before, began = _Watch(), cohort.Program.so_far, time.perf_counter()
  others = sum(spent.values())
  yield watch
  more = cohort.Program.so_far - before
  booked_within = sum(spent.values()) - others
  watch.seconds = time.perf_counter() - began - more.seconds - booked_within
  progress['compile_seconds'] += more.seconds
  progress['compiled_programs'] += more.programs
  spent['compile'] += more.seconds


def _validation(job: Job, plan: PhasePlan, spread: Spread) -> Iterable[stream.Part]:
  """The validation examples that some run looks at; none where a phase has no head to judge."""
  if plan.phase.headless:
    return ()
  examples = job.val(plan.phase)
  rows = job.val_rows or [np.arange(feed.length(examples))] * len(job.seeds)
  return _looked_at(job, plan.phase, examples, rows, spread)


def _looked_at(
  job: Job, phase: step.Phase, examples: feed.Arrays, rows: Sequence[np.ndarray], spread: Spread
) -> stream.Parts:
  """Examples that enter a phase, in parts."""
  most, devices = stream.EVAL_BATCH, spread.mesh.shape['data']
  most = prefix.at_a_time(job.network, job.form, phase.start, most, devices)
  return stream.Parts(examples, rows, spread, stream.device_bytes(job, examples), most)


def _optimizer_bytes(plan: PhasePlan, state: RunState, spread: Spread) -> int:
  """Bytes of one run's optimizer state, with the average of its weights where it keeps one.

  An exact solution has none.
  """
  kept = state.opt_state, state.average
  return trees.num_bytes(kept) // len(spread.rows) if plan.phase.solver == 'sgd' else 0


def prepare(job: Job, index: int, own: PyTree, stats: PyTree, spread: Spread) -> Phased:
  """The leaves of phase `index` on the devices: label, partition, optimizer state, keys."""
  plan = job.phases[index]
  trainable, frozen_own, frozen_source = _partition(own, job.base.params, plan.phase, spread)
  hyper = hyper_of(job, index, spread)

  @jax.vmap
  def start(trainable: PyTree, stats: PyTree, hyper: step.Hyper) -> RunState:
    return step.init_state(trainable, stats, plan.phase, hyper)

  shardings = spread.shardings(jax.eval_shape(start, trainable, stats, hyper))
  placed = spread.place(trainable), spread.place(stats), hyper
  state = jax.jit(start, out_shardings=shardings)(*placed)
  zeros = jax.tree.map(
    lambda leaf: np.zeros((len(spread.rows), *leaf.shape), leaf.dtype),
    cohort.known_shapes(job.recipe(index)),
  )
  runs = cohort.Runs(
    spread.place(frozen_own), keys(job, index, spread), hyper, known=spread.place(zeros)
  )
  if plan.task.balanced:
    weights = spread.place(spread.pad(class_weights(job, index)))
    runs = runs._replace(class_weights=weights)
  frozen = spread.whole(_leaves_that_run(job, plan.phase, frozen_source))
  recipe = job.recipe(index)
  advance = cohort.program(cohort.advance, recipe, spread.mesh)
  look = cohort.predict if plan.task.whole else cohort.evaluate
  evaluate = cohort.program(look, recipe, spread.mesh)
  kept: Variables | tuple[()] = ()
  if plan.num_kept:
    kept = jax.tree.map(
      lambda leaf: np.repeat(np.asarray(leaf)[:, None], plan.num_kept, axis=1),
      Variables(trainable, stats),
    )
    kept = spread.place(kept)
  reference = _reference(job, plan.phase, spread)
  return Phased(state, runs, frozen, reference, advance, evaluate, kept)


def _reference(job: Job, phase: step.Phase, spread: Spread) -> Reference | None:
  """What a phase's penalty is told of the source; None without one."""
  anchor = phase.anchor
  if anchor is None:
    return None
  params = trees.map_named(
    lambda name, leaf: leaf if name in anchor.leaves else None,
    _leaves_that_run(job, phase, job.base.params),
  )
  # The runs begin with the source's statistics.
  stats = jax.tree.map(lambda leaf: np.asarray(leaf[0]), job.stats)
  head: dict[str, Any] = {}
  if anchor.num_classes:
    assert job.origin is not None
    head = job.origin.variables.params[job.origin.network.stages[-1]]
  return spread.whole(Reference(params, stats, head))


def _informed(job: Job, index: int, phased: Phased, spread: Spread) -> Phased:
  """The phase, whose penalty now knows what it wants to at the first step."""
  anchor = job.phases[index].phase.anchor
  if anchor is None or anchor.penalty.observe is None:
    return phased
  if anchor.penalty.of_source:
    known = _known_of_source(job, index)
    known = spread.place(spread.broadcast(known))
  else:
    known = _known_of_runs(job, index, phased, spread)
  return phased._replace(runs=phased.runs._replace(known=known))


def _known_of_runs(job: Job, index: int, phased: Phased, spread: Spread) -> PyTree:
  """What the penalty observes of each run's own examples [R, ...]."""
  plan, recipe = job.phases[index], job.recipe(index)
  assert plan.phase.anchor is not None
  most = plan.phase.anchor.penalty.examples
  rows = [_some(own, most, seed) for own, seed in zip(job.examples, job.seeds)]
  state, shared = phased.state, (phased.frozen, phased.reference)
  counts = spread.place(spread.pad(np.array([len(own) for own in rows], np.float32)))
  examples = job.train(plan.phase)
  parts = _looked_at(job, plan.phase, examples, rows, spread)
  runs = state.trainable, phased.runs.frozen, state.stats, phased.runs.class_weights
  return _observed(recipe, parts, runs, shared, counts, spread)


def _known_of_source(job: Job, index: int) -> PyTree:
  """What the penalty observes of the source on the examples that it was trained on."""
  phase, origin = job.phases[index].phase, job.origin
  assert origin is not None and phase.anchor is not None
  held = {name for name, group in phase.labels if group != 'frozen'} & phase.anchor.leaves
  own = trees.map_named(lambda name, leaf: leaf if name in held else None, origin.variables.params)
  rest = trees.map_named(lambda name, leaf: None if name in held else leaf, origin.variables.params)
  labels = tuple(
    (name, 'train' if name in held else 'frozen')
    for name, _ in trees.named_leaves(origin.variables.params)
  )
  alone = step.Phase(labels, (('train', 1.0),), anchor=phase.anchor)
  recipe = step.Recipe(origin.network, job.form, origin.task, alone)
  spread, examples = Spread.over(1), origin.train()
  everything = np.arange(feed.length(examples))
  rows = _some(everything, phase.anchor.penalty.examples, 0)
  parts = _looked_at(job, alone, examples, [rows], spread)
  reference = spread.whole(Reference(own, origin.variables.stats, {}))
  stacked = spread.place(spread.broadcast((own, origin.variables.stats)))
  weights = None
  if origin.task.balanced:
    targets = np.asarray(feed.whole(examples.targets))
    weights = spread.place(balanced(targets, [everything], num_logits(origin.task)))
  runs = stacked[0], jax.tree.map(lambda _: None, rest), stacked[1], weights
  counts = spread.place(np.array([len(rows)], np.float32))
  known = _observed(recipe, parts, runs, (spread.whole(rest), reference), counts, spread)
  found = dict(trees.named_leaves(spread.unpad(known)))
  shapes = cohort.known_shapes(job.recipe(index))
  return trees.map_named(lambda name, _: found[name][0], shapes)


def _some(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
  """At most so many of the rows, drawn at random; all where `most` is 0."""
  if not most or len(rows) <= most:
    return np.asarray(rows)
  return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _observed(
  recipe: step.Recipe,
  parts: stream.Parts,
  runs: tuple[PyTree, PyTree, PyTree, PyTree],
  shared: tuple[PyTree, Reference | None],
  counts: jax.Array,
  spread: Spread,
) -> PyTree:
  """What the phase's penalty concludes from the examples [R, ...]."""
  assert recipe.phase.anchor is not None
  conclude = recipe.phase.anchor.penalty.conclude
  assert conclude is not None
  program = cohort.program(cohort.observe, recipe, spread.mesh)
  num_runs = len(spread.rows)
  zeros = jax.tree.map(
    lambda leaf: np.zeros((num_runs, *leaf.shape), leaf.dtype), cohort.sums_shapes(recipe)
  )
  sums = spread.place(zeros)
  for part in parts:
    own = cohort.Observed(*runs[:3], part.mask, runs[3])
    sums = program(sums, own, (*shared, part.batches))
  known = jax.vmap(conclude)(spread.unpad(sums), spread.unpad(counts))
  return spread.place(spread.pad(jax.device_get(known)))


def compile_ahead(job: Job) -> list[dict[str, Any]]:
  """Compiles the programs of every phase without running them.

  Returns a row a program with its 'phase', 'seconds' and 'bytes' on a device. Programs compiled
  before are not in it. Raises ValueError as a run would, where one does not fit into memory.
  """
  job = job.timed()
  spread, rows = job.spread(), []
  for index, plan in enumerate(job.phases):
    own = _with_trained(spread.pad(job.own), job, index, spread)
    phased = prepare(job, index, own, spread.pad(job.stats), spread)
    wanted: list[tuple[cohort.Program, tuple]] = []
    if plan.phase.solver == 'sgd' and plan.num_steps:  # an exact solution has a program of its own
      with stream.Windows(job, index, spread) as windows:
        window = windows.seek(0, phased.state.step)
      runs = phased.runs, window.order, spread.each(1)
      shared = cohort.Shared(phased.frozen, window.data, phased.reference)
      carry = phased.state, _zeros(spread, plan.phase)
      wanted.append((phased.advance, (carry, runs, shared)))
    for part in itertools.islice(_validation(job, plan, spread), 1):
      wanted.append((phased.evaluate, _evaluation(phased, part)))
    for program, arguments in wanted:
      before = cohort.Program.so_far
      executable = program.compile(*arguments)
      if (more := cohort.Program.so_far - before).programs:
        num_bytes = memory.needed_bytes(executable)
        rows.append({'phase': index, 'seconds': more.seconds, 'bytes': num_bytes})
  return rows


def losses(job: Job, folder: epath.Path) -> np.ndarray:
  """[R, T]: of each step of the last phase the loss of its batch before it, in one program.

  Phases before are trained as `fit` does, with their checkpoints in `folder`. Nothing is evaluated
  on validation in the last one. Where a loss is not finite, so are all that follow it.
  """
  own, stats = job.own, job.stats
  index, spread = len(job.phases) - 1, job.spread()
  if index:
    before = fit(job._replace(phases=job.phases[:index]), folder)
    own, stats = before.own, before.stats
  own = _with_trained(spread.pad(own), job, index, spread)
  phased = prepare(job, index, own, spread.pad(stats), spread)
  phased = _informed(job, index, phased, spread)
  num_steps = job.phases[index].num_steps
  carry = phased.state, spread.place(np.zeros((len(spread.rows), num_steps), np.float32))
  program = cohort.program(cohort.sweep, job.recipe(index), spread.mesh)
  with stream.Windows(job, index, spread) as windows:
    at = 0
    while at < num_steps:
      window = windows.seek(at, carry[0].step)
      steps = spread.each(at), spread.each(window.stop - at)
      shared = cohort.Shared(phased.frozen, window.data, phased.reference)
      carry = program(carry, (phased.runs, window.order, *steps), shared)
      at = window.stop
  return spread.unpad(carry[1])


def _no_progress(job: Job) -> dict[str, Any]:
  """What a checkpoint says in JSON beside its arrays."""
  return {
    'phase': 0,
    'at': 0,  # steps done of that phase
    # Per finished phase, the steps [R] taken: fewer than the phase has where a run diverged.
    'taken': [],
    'converged': [True] * len(job.seeds),  # False where an exact solution was not found
    # Per evaluation: step, phase and lists [R] of loss, grad_norm and the task's columns as
    # val_<column>.
    'history': [],
    # Of a phase that may end with its best step: by run [direction x column, steps], best first;
    # and at its end the 'steps' that are in what it left, and its columns of 'val' [R].
    'kept': [],
    'best': None,
    'frozen': [],  # per phase: digests [R] of the frozen leaves, 'before' and 'after'
    # Of the whole cohort, without what it shared with earlier ones:
    'train_seconds': [],  # per phase, of the steps alone
    'eval_seconds': 0.0,
    'compile_seconds': 0.0,
    'compiled_programs': 0,
    'optimizer_bytes': 0,  # of one run
  }


def _heed(interrupted: Callable[[], int]) -> None:
  """Raises KeyboardInterrupt where a signal asks for an end.

  Half a set of exact solutions is not kept.
  """
  if signal := meshes.on_first(interrupted):
    raise KeyboardInterrupt(signal)


class Predicted(NamedTuple):
  """A run on examples: the sums of its task's terms, and what the task keeps [N, ...]."""

  sums: dict[str, tuple[float, float]]
  kept: dict[str, np.ndarray]


def predict(
  job: Job, fitted: Fitted, runs: Sequence[int], data: Callable[[step.Phase], feed.Arrays]
) -> list[Predicted]:
  """What each of some runs does on all of `data`."""
  spread = Spread.over(1)
  phase = job.phases[-1].phase
  examples = data(phase)
  num_examples = feed.length(examples)
  parts = _looked_at(job, phase, examples, [np.arange(num_examples)], spread)
  shared = spread.whole(_leaves_that_run(job, phase, job.base.params))
  plain = step.Phase((), (), start=phase.start)  # one program for every method
  recipe = job.recipe(-1)._replace(phase=plain)
  program = cohort.program(cohort.predict, recipe, spread.mesh)
  of_all = _leaves_that_run(job, phase, fitted.own), fitted.stats
  found: dict[int, list] = {run: [] for run in runs}
  for part in parts:
    for run, of_parts in found.items():
      own, stats = jax.tree.map(lambda leaf, run=run: leaf[run : run + 1], of_all)
      nothing = jax.tree.map(lambda _: None, own)
      looked = cohort.Evaluated(spread.place(own), nothing, spread.place(stats), part.mask)
      of_parts.append(meshes.get(program((), looked, (shared, part.batches))))
  return [_joined(of_parts, num_examples) for of_parts in found.values()]


def _joined(of_parts: Sequence[tuple[cohort.Sums, PyTree]], num_examples: int) -> Predicted:
  """What one run did on all parts."""

  def rows(*leaves: np.ndarray) -> np.ndarray:
    flat = [leaf[0].reshape(-1, *leaf.shape[3:]) for leaf in leaves]
    return np.concatenate(flat)[:num_examples]

  sums, kept = zip(*of_parts)
  return Predicted(_of_run(cohort.total(sums), 0), jax.tree.map(rows, *kept))


def _of_run(sums: cohort.Sums, run: int) -> dict[str, tuple[float, float]]:
  """The sums of one run as numbers, of those [R] of all."""
  return {name: (float(total[run]), float(weight[run])) for name, (total, weight) in sums.items()}


def _leaves_that_run(job: Job, phase: step.Phase, params: PyTree) -> PyTree:
  """`params` with None in the stages that ran once before the phase.

  A head without parameters borrows those of the first stage.
  """
  stages = job.network.stages
  kept = {*stages[phase.start :]}
  if not jax.tree.leaves((job.base.params[stages[-1]], job.own[stages[-1]])):
    kept.add(stages[0])
  return {
    stage: leaves if stage in kept else jax.tree.map(lambda _: None, leaves)
    for stage, leaves in params.items()
  }


def _with_trained(own: PyTree, job: Job, index: int, spread: Spread) -> PyTree:
  """`own` with room for all that phases before `index` trained.

  That is what a resumed run needs before its values are read.
  """
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
  owned = {name for name, _ in trees.named_leaves(own)}

  def is_frozen(name: str) -> bool:
    return groups[name] == 'frozen'

  def only(tree: PyTree, keep: Callable[[str], bool]) -> PyTree:
    return trees.map_named(lambda name, leaf: leaf if keep(name) else None, tree)

  of_source = only(base, lambda name: name not in owned)
  trained = spread.broadcast(only(of_source, lambda name: not is_frozen(name)))
  trainable = trees.merge(only(own, lambda name: not is_frozen(name)), trained)
  return trainable, only(own, is_frozen), only(of_source, is_frozen)


def _zeros(spread: Spread, phase: step.Phase) -> dict[str, jax.Array]:
  """The sums of the training metrics before the first step."""
  zeros = {name: np.zeros(len(spread.rows), np.float32) for name in step.metrics(phase)}
  return spread.place(zeros)


def _metrics(
  job: Job, index: int, at: int, sums: PyTree, scores: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  """One line of history: means over the steps since the line before, and the validation part."""
  before = max([stop for stop in job.phases[index].stops if stop < at], default=0)
  done, earlier = steps_at(job, index, at), sum(job.steps(i) for i in range(index))
  line = {'step': (earlier + done).tolist(), 'phase': index}
  # A run of fewer steps than evaluations takes none between some.
  with np.errstate(invalid='ignore'):
    for name, value in sums.items():
      line[name] = (value / (done - steps_at(job, index, before))).tolist()
  for column in scores[0] if scores else ():
    line[f'val_{column}'] = [of_run[column] for of_run in scores]
  return line


def _all_frozen(job: Job, phase: step.Phase, source: PyTree) -> PyTree:
  """The source's frozen leaves: those on the devices, and those of stages before the phase."""
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
  """Per run, the digest of its frozen leaves and statistics, its own [R, ...] and the source's.

  '' where nothing is frozen.
  """
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
