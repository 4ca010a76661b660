"""A cohort as it is handed to training: its phases, the leaves its runs begin with, its orders."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from tlx.train import feed, step
from tlx.train.anchor import Origin
from tlx.train.spread import ANY_DEVICES, Devices, Spread
from tlx.types import Form, Network, PyTree, Task, Variables, num_logits

ORDER_STEPS = 128  # orders of examples are at least this long (`order_length`)


def num_steps(steps: int, epochs: float, batch_size: int, num_examples: int) -> int:
  """The steps of a run on so many examples: `steps`, or as many as `epochs` over them are."""
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
  # The phase ends with its best step on validation, or a greedy soup of so many; 0: the last.
  best: int = 0

  @property
  def stops(self) -> list[int]:
    """The steps after which the validation part is looked at; the last is the phase's last."""
    return sorted(
      {-(-self.num_steps * (i + 1) // self.evaluations) for i in range(self.evaluations)}
    )

  @property
  def num_kept(self) -> int:
    """How many of the best steps are kept beside the last; with a single look the last is best."""
    return min(self.best, len(self.stops)) if len(self.stops) > 1 else 0

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
  # On the host, what enters stage `phase.start`; `examples` are rows of it.
  train: Callable[[step.Phase], feed.Arrays]
  val: Callable[[step.Phase], feed.Arrays]
  examples: Sequence[np.ndarray]  # per run, the rows it trains on
  seeds: Sequence[int]
  learning_rates: Sequence[float]
  weight_decays: Sequence[float]
  devices: Devices = ANY_DEVICES
  val_rows: Sequence[np.ndarray] = ()  # per run, the rows of `val` it is evaluated on; () for all
  device_bytes: float = 0.0  # of a split's examples on a device; 0.0: a share of its memory
  depths: Sequence[int] = ()  # per run, how many groups its examples speak for freezing
  origin: Origin | None = None  # of the source, where a phase's penalty reads it
  informed: int = 0  # so many stages were run on each run's examples to make `own`

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
  """The rates and lengths of the runs in phase `index`, [R] on the devices."""
  plan = job.phases[index]
  columns = (
    [plan.learning_rate or rate for rate in job.learning_rates],
    job.weight_decays,
    job.steps(index),
    job.depths or [0] * len(job.seeds),
  )
  return spread.place(
    spread.pad(step.Hyper(*(np.asarray(column, np.float32) for column in columns)))
  )


def class_weights(job: Job, index: int) -> np.ndarray:
  """float32 [R, K]: n / (k n_c) of each class c among the n training examples of a run, which have
  k classes; 0 of a class without one. As scikit-learn's compute_class_weight('balanced').
  """
  plan = job.phases[index]
  labels = np.asarray(job.train(plan.phase._replace(start=0, views=0)).targets)
  return balanced(labels, job.examples, num_logits(plan.task))


def balanced(labels: np.ndarray, examples: Sequence[np.ndarray], num_classes: int) -> np.ndarray:
  """As `class_weights`, of runs whose examples have these rows of `labels`."""
  weights = np.zeros((len(examples), num_classes), np.float32)
  for of_run, rows in zip(weights, examples):
    counts = np.bincount(labels[rows], minlength=len(of_run))
    there = counts > 0
    of_run[there] = len(rows) / (there.sum() * counts[there])
  return weights


def order_length(num_steps: int) -> int:
  """A power of two, so that phases of other lengths share programs; the rest is never taken."""
  return max(ORDER_STEPS, 1 << (num_steps - 1).bit_length())


def orders(job: Job, index: int, num_rows: int) -> list[np.ndarray]:
  """Per run int32 [its steps, B], the rows of each step; equal runs share one array.

  Where the data hold several views of each example, one after another, every place draws one.
  """
  plan = job.phases[index]
  found: dict[tuple, np.ndarray] = {}
  of_runs = []
  for examples, seed, steps in zip(job.examples, job.seeds, job.steps(index).tolist()):
    key = seed, steps, hashlib.sha256(np.asarray(examples).tobytes()).digest()
    of_runs.append(key)
    if key in found:
      continue
    found[key] = feed.order(examples, steps, plan.batch_size, (seed, index))
    if plan.phase.views:
      random = np.random.default_rng((seed, index, 1))
      views = random.integers(0, plan.phase.views, found[key].shape)
      found[key] += (views * (num_rows // plan.phase.views)).astype(np.int32)
  return [found[key] for key in of_runs]


def keys(job: Job, index: int, spread: Spread) -> jax.Array:
  """The keys of the runs in phase `index`, [R] on the devices."""
  of_runs = [jax.random.fold_in(jax.random.key(job.seeds[run]), index + 1) for run in spread.rows]
  data = np.stack([np.asarray(jax.random.key_data(key)) for key in of_runs])
  return jax.random.wrap_key_data(spread.place(data))


def steps_at(job: Job, index: int, at: int) -> np.ndarray:
  """int32 [R]: the steps of each run when the longest has taken `at`: the same share of its own."""
  longest = max(1, job.phases[index].num_steps)
  return np.asarray(-(-at * job.steps(index) // longest), np.int32)


def steps_before(job: Job, index: int) -> int:
  """The steps of the longest run in all phases before `index`."""
  return sum(plan.num_steps for plan in job.phases[:index])
