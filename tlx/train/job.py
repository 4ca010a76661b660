"""A cohort as it is handed to training: its phases, the leaves its runs begin with, and what each run draws and steps."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from tlx.train import feed, step
from tlx.train.spread import ANY_DEVICES, Devices, Spread
from tlx.types import Form, Network, PyTree, Task, Variables

ORDER_STEPS = 128  # orders of examples are padded to a power of two at least this long, so that phases share programs


def num_steps(steps: int, epochs: float, batch_size: int, num_examples: int) -> int:
  """The steps of a run that trains on so many examples: `steps`, or as many as `epochs` over them are."""
  return max(1, math.ceil(epochs * num_examples / batch_size)) if epochs else steps


class PhasePlan(NamedTuple):
  """A phase: what its program is (`phase`, `task`, `batch_size`) and how it is run."""

  phase: step.Phase
  task: Task
  num_steps: int  # of the longest run
  batch_size: int
  evaluations: int
  learning_rate: float  # 0.0: the run's own
  epochs: float = 0.0  # where not 0, what a run's steps follow from

  @property
  def stops(self) -> list[int]:
    """The steps after which the validation part is looked at; the last is the phase's last."""
    return sorted(
      {-(-self.num_steps * (i + 1) // self.evaluations) for i in range(self.evaluations)}
    )

  def steps_for(self, num_examples: int) -> int:
    """The steps of a run that trains on so many examples."""
    return num_steps(self.num_steps, self.epochs, self.batch_size, num_examples)


class Job(NamedTuple):
  """A cohort of R runs, ready to train."""

  network: Network
  form: Form
  phases: tuple[PhasePlan, ...]
  base: Variables  # the source's leaves, shared by all runs; None where runs have their own
  own: PyTree  # the runs' own params [R, ...], None where the source's serve
  stats: PyTree  # [R, ...]
  train: Callable[
    [step.Phase], feed.Arrays
  ]  # numpy: what enters stage `phase.start`; what `examples` are rows of
  val: Callable[[step.Phase], feed.Arrays]
  examples: Sequence[np.ndarray]  # per run, the rows it trains on
  seeds: Sequence[int]
  learning_rates: Sequence[float]
  weight_decays: Sequence[float]
  devices: Devices = ANY_DEVICES
  val_rows: Sequence[np.ndarray] = ()  # per run, the rows of `val` it is evaluated on; () for all

  def steps(self, index: int) -> np.ndarray:
    """int64 [R]: the steps of each run in phase `index`."""
    return np.array([self.phases[index].steps_for(len(rows)) for rows in self.examples])

  def timed(self) -> 'Job':
    """With phases as long as the longest run."""
    return self._replace(
      phases=tuple(
        plan._replace(num_steps=int(self.steps(i).max())) for i, plan in enumerate(self.phases)
      )
    )

  def recipe(self, index: int) -> step.Recipe:
    """What the programs of phase `index` are made of."""
    plan = self.phases[index]
    return step.Recipe(self.network, self.form, plan.task, plan.phase)

  def spread(self) -> Spread:
    """How the runs lie on the devices."""
    return Spread.over(
      len(self.seeds), self.devices, sum(self.steps(i) for i in range(len(self.phases)))
    )


def hyper_of(job: Job, index: int, spread: Spread) -> step.Hyper:
  plan = job.phases[index]
  columns = (
    [plan.learning_rate or rate for rate in job.learning_rates],
    job.weight_decays,
    job.steps(index),
  )
  return spread.place(
    spread.pad(step.Hyper(*(np.asarray(column, np.float32) for column in columns)))
  )


def orders(job: Job, index: int, num_rows: int, spread: Spread) -> jax.Array:
  """int32 [R, T, B]; T is rounded up so that phases of other lengths share the program, the steps beyond are never taken.

  Where the data hold several views of each example, one after another, every place draws one of them.
  """
  plan = job.phases[index]
  length = max(ORDER_STEPS, 1 << (plan.num_steps - 1).bit_length())
  rows = np.zeros((len(job.seeds), length, plan.batch_size), np.int32)
  for run, (examples, seed, steps) in enumerate(zip(job.examples, job.seeds, job.steps(index))):
    rows[run, :steps] = feed.order(examples, steps, plan.batch_size, (seed, index))
    if plan.phase.views:
      views = np.random.default_rng((seed, index, 1)).integers(0, plan.phase.views, rows[run].shape)
      rows[run] += (views * (num_rows // plan.phase.views)).astype(np.int32)
  return spread.split_batch(spread.pad(rows), 'run', None)


def keys(job: Job, index: int, spread: Spread) -> jax.Array:
  of_runs = [jax.random.fold_in(jax.random.key(job.seeds[run]), index + 1) for run in spread.rows]
  data = np.stack([np.asarray(jax.random.key_data(key)) for key in of_runs])
  return jax.random.wrap_key_data(spread.place(data))


def steps_at(job: Job, index: int, at: int) -> np.ndarray:
  """int32 [R]: the steps of each run when the longest has taken `at` of the phase: the same share of its own."""
  return np.asarray(-(-at * job.steps(index) // job.phases[index].num_steps), np.int32)


def steps_before(job: Job, index: int) -> int:
  return sum(plan.num_steps for plan in job.phases[:index])
