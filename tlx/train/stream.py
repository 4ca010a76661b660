"""Examples on their way to the devices: those that fit lie there, of others come the next rows.

Training reads windows: the distinct rows of the next steps of all runs, in arrays of one size, and
the steps as places in these. One program serves all windows, and a step computes the same whichever
it is read from. Evaluation walks in parts. The next window or part is fetched while the present one
is worked on, so each may take half of what examples may take of a device.
"""

import concurrent.futures
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from tlx.train import cohort, feed, memory
from tlx.train import mesh as meshes
from tlx.train.job import Job, order_length, orders, steps_at
from tlx.train.spread import Spread
from tlx.types import Batch, PyTree

SHARE = 0.25  # of a device's memory, where the job does not say how much
# Of examples that are made when they are taken no more than so much lies there, or two steps: the
# first step waits for the first window.
MADE_BYTES = 2**26
ORDER_BYTES = 4  # of a row's number
EVAL_BATCH = 256  # examples that are evaluated at a time, at most
# Of an order: where there is a single step, XLA takes its examples out of the loop and fuses what
# follows in another way, which rounds differently.
LEAST_PLACES = 2


def device_bytes(job: Job, examples: feed.Arrays, least: float = 0.0) -> float:
  """What the examples of one split may take of a device, `least` of those that are made when they
  are taken; the same in every process.
  """
  if job.device_bytes:
    return job.device_bytes
  available = meshes.on_first(memory.available_bytes)
  limit = SHARE * available or float('inf')
  return min(limit, max(MADE_BYTES, least)) if feed.is_made(examples) else limit


class Size(NamedTuple):
  """Of the windows of a phase; `rows` is None where all examples lie on the devices."""

  steps: int
  rows: int | None


def window_size(
  row_bytes: int, num_rows: int, shape: tuple[int, int, int], num_orders: int, limit: float
) -> Size:
  """The largest windows of which two fit into `limit` bytes; all in one where that fits.

  Args:
    shape: (runs, steps, examples in a batch) of all orders.
    num_orders: how many of the orders differ.

  Raises:
    ValueError: a window would not hold one step of every run.
  """
  num_runs, num_steps, batch_size = shape
  numbers = ORDER_BYTES * num_runs * batch_size  # bytes a step
  if num_rows * row_bytes + num_steps * numbers <= limit:
    return Size(num_steps, None)
  least = least_bytes(row_bytes, shape)
  if least > limit:
    raise ValueError(
      f'A step of {num_runs} runs takes {least // 2:,} bytes of examples, and as many are fetched '
      f'meanwhile; config.device_bytes allows {limit:,.0f} in all. Raise it, or lower batch_size '
      'or cohort_bytes (fewer runs at a time).'
    )
  steps = int(limit / 2 // (num_orders * batch_size * row_bytes + numbers))
  steps = min(max(steps, 1), num_steps)
  return Size(steps, max(steps * num_orders, num_runs) * batch_size)


def least_bytes(row_bytes: int, shape: tuple[int, int, int]) -> int:
  """Of two windows of one step; `shape` as in `window_size`."""
  num_runs, _, batch_size = shape
  return 2 * num_runs * batch_size * (row_bytes + ORDER_BYTES)


class Window(NamedTuple):
  """The steps from `at` to before `stop` of the longest run, and the same share of the others'."""

  at: int
  stop: int
  begins: tuple[int, ...]  # [R], the step of each run with which its order begins
  order: cohort.Order
  data: feed.Arrays


class _Fetched(NamedTuple):
  """A window on the host; `share` is what this process read of its examples."""

  at: int
  stop: int
  begins: tuple[int, ...]
  rows: np.ndarray  # [R, T, B]
  share: feed.Arrays
  num_examples: int


def _share(examples: PyTree, rows: np.ndarray) -> PyTree:
  """What this process reads of some rows: its part of those that are made when they are taken."""
  return feed.take(examples, meshes.share(rows) if feed.is_made(examples) else rows)


def _of_all(examples: PyTree, shares: PyTree, length: int) -> PyTree:
  """The rows, as many as `length`, of which each process took its `_share`."""
  return meshes.joined(shares, length) if feed.is_made(examples) else shares


class Windows:
  """What the steps of a phase see; a context, whose `present` window is the one sought last."""

  present: Window | None = None

  def __init__(self, job: Job, index: int, spread: Spread):
    plan = job.phases[index]
    self.job, self.index, self.spread = job, index, spread
    self.data = job.train(plan.phase)
    num_rows = feed.length(self.data)
    self.orders = orders(job, index, num_rows)
    self.num_steps, self.batch_size = plan.num_steps, plan.batch_size
    shape = len(self.orders), order_length(plan.num_steps), plan.batch_size
    num_orders = len({id(order) for order in self.orders})
    row_bytes = feed.row_bytes(self.data)
    limit = device_bytes(job, self.data, least_bytes(row_bytes, shape))
    self.size = window_size(row_bytes, num_rows, shape, num_orders, limit)
    self.thread = concurrent.futures.ThreadPoolExecutor(1)
    self.next: concurrent.futures.Future[Window | _Fetched] | None = None

  def __enter__(self) -> 'Windows':
    return self

  def __exit__(self, *_) -> None:
    self.thread.shutdown(cancel_futures=True)

  def seek(self, at: int, taken: jax.Array) -> Window:
    """Makes the window with step `at` the present one; `taken` [R] are the steps of the runs.

    A run that is not finite stays at its last step, so what was fetched ahead may be of no use.
    """
    if self.present and self.present.at <= at < self.present.stop:
      return self.present
    begins = tuple(self.spread.unpad(taken).tolist()) if self.size.rows else (0,) * len(self.orders)
    found = self.next.result() if self.next else None
    self.present = self.next = None
    if found is None or (found.at, found.begins) != (at, begins):
      found = None  # its memory is needed
      found = self._fetched(at, begins) if self.size.rows else self._all()
    self.present = found = found if isinstance(found, Window) else self._placed(found)
    if found.stop < self.num_steps:
      self.next = self.thread.submit(self._ahead, found.stop, self._expected(found))
    return found

  def _ahead(self, at: int, begins: tuple[int, ...]) -> Window | _Fetched:
    """A window; one whose parts several processes read is put together when it is sought, since
    all have to do that at the same point.
    """
    found = self._fetched(at, begins)
    return self._placed(found) if jax.process_count() == 1 else found

  def _all(self) -> Window:
    """All examples and all steps."""
    rows = np.zeros((len(self.orders), self.size.steps, self.batch_size), np.int32)
    for of_run, order in zip(rows, self.orders):
      of_run[: len(order)] = order
    begins = (0,) * len(self.orders)
    whole: PyTree = self.data
    if feed.is_made(self.data):
      num_rows = feed.length(self.data)
      whole = _of_all(self.data, _share(self.data, np.arange(num_rows)), num_rows)
    data = self.spread.everywhere(whole)
    return Window(0, self.num_steps, begins, self._order(rows, begins), data)

  def _fetched(self, at: int, begins: tuple[int, ...]) -> _Fetched:
    """As many steps from `at` on as fit; of a run that stays where it is, that step alone."""
    stays = self._stays(at, begins)
    moving = {id(order) for order, stays_here in zip(self.orders, stays) if not stays_here}
    assert self.size.rows is not None
    room = self.size.rows // self.batch_size - sum(stays)
    steps = min(self.size.steps, room // len(moving)) if moving else self.size.steps
    stop = min(at + steps, self.num_steps)
    ends = steps_at(self.job, self.index, stop)
    seen: dict[tuple[int, int, int], np.ndarray] = {}
    keys = []
    for order, begin, end, stays_here in zip(self.orders, begins, ends.tolist(), stays):
      end = begin + 1 if stays_here else end
      keys.append((id(order), begin, end))
      seen[keys[-1]] = order[begin:end]
    used = np.unique(np.concatenate([rows.reshape(-1) for rows in seen.values()]))
    places = {key: np.searchsorted(used, rows) for key, rows in seen.items()}
    num_places = max(self.size.steps, LEAST_PLACES)
    rows = np.zeros((len(keys), num_places, self.batch_size), np.int32)
    for of_run, key in zip(rows, keys):
      of_run[: len(places[key])] = places[key]
    return _Fetched(at, stop, begins, rows, _share(self.data, used), len(used))

  def _placed(self, found: _Fetched) -> Window:
    assert self.size.rows is not None
    examples = _of_all(self.data, found.share, found.num_examples)
    data = self.spread.everywhere(_filled(examples, self.size.rows))
    order = self._order(found.rows, found.begins)
    return Window(found.at, found.stop, found.begins, order, data)

  def _stays(self, at: int, begins: tuple[int, ...]) -> list[bool]:
    """[R] whether a run is behind at step `at`: it is not finite and stays at its step."""
    return (np.asarray(begins) < steps_at(self.job, self.index, at)).tolist()

  def _expected(self, window: Window) -> tuple[int, ...]:
    """The steps of the runs at the end of a window, if no further run stays behind."""
    ends = steps_at(self.job, self.index, window.stop).tolist()
    stays = self._stays(window.at, window.begins)
    return tuple(np.where(stays, window.begins, ends).tolist())

  def _order(self, rows: np.ndarray, begins: tuple[int, ...]) -> cohort.Order:
    spread = self.spread
    first = spread.place(spread.pad(np.asarray(begins, np.int32)))
    return cohort.Order(spread.split_batch(spread.pad(rows), 'run', None), first)


def _filled(examples: PyTree, num_rows: int) -> PyTree:
  """Arrays [N, ...] up to `num_rows`, with zeros that no step looks at."""

  def of_leaf(leaf: np.ndarray) -> np.ndarray:
    filled = np.zeros((num_rows, *leaf.shape[1:]), leaf.dtype)
    filled[: len(leaf)] = leaf
    return filled

  return jax.tree.map(of_leaf, examples)


class Part(NamedTuple):
  """Some of the examples to evaluate on, in padded batches [P, B, ...] on the devices."""

  batches: Batch
  mask: jax.Array  # [R, P, B], 1.0 where a run looks


class Parts:
  """The examples that some run looks at, part by part in their order; one that is all stays.

  rows: per run, the rows of `examples` it looks at.
  most: examples in a batch.
  """

  def __init__(
    self,
    examples: feed.Arrays,
    rows: Sequence[np.ndarray],
    spread: Spread,
    limit: float,
    most: int,
  ):
    self.examples, self.spread = examples, spread
    self.used = np.unique(np.concatenate(rows))
    self.places = [np.searchsorted(self.used, of_run) for of_run in rows]
    self.batch_size = min(most, len(self.used))
    batch_bytes = self.batch_size * feed.row_bytes(examples)
    self.num_batches = -(-len(self.used) // self.batch_size)  # of a part
    if self.num_batches * batch_bytes > limit:
      self.num_batches = max(1, int(limit / 2 // batch_bytes))
    self.num_parts = -(-len(self.used) // (self.num_batches * self.batch_size))
    self.all = self._placed(0, self._read(0)) if self.num_parts == 1 else None

  def __iter__(self) -> Iterator[Part]:
    if self.all:
      yield self.all
      return
    alone = jax.process_count() == 1  # else parts are put together at the same point in all

    def made(number: int) -> Part | PyTree:
      read = self._read(number)
      return self._placed(number, read) if alone else read

    for number, part in enumerate(feed.ahead(made, range(self.num_parts))):
      yield part if alone else self._placed(number, part)

  def _rows(self, number: int) -> np.ndarray:
    size = self.num_batches * self.batch_size
    return self.used[number * size : (number + 1) * size]

  def _read(self, number: int) -> PyTree:
    """What this process reads of a part."""
    return _share(self.examples, self._rows(number))

  def _placed(self, number: int, read: PyTree) -> Part:
    size = self.num_batches * self.batch_size
    first, rows = number * size, self._rows(number)
    there = np.zeros(size, np.float32)
    there[: len(rows)] = 1.0
    looks = np.zeros((len(self.places), size), np.float32)
    for of_run, places in zip(looks, self.places):
      of_run[places[(places >= first) & (places < first + size)] - first] = 1.0
    shape = self.num_batches, self.batch_size
    taken = jax.tree.map(
      lambda leaf: feed.filled(leaf, size).reshape(*shape, *leaf.shape[1:]),
      _of_all(self.examples, read, len(rows)),
    )
    batches = Batch(taken.inputs, taken.targets, there.reshape(shape))
    mask = self.spread.pad(looks.reshape(-1, *shape))
    return Part(self.spread.split_batch(batches, None), self.spread.place(mask))
