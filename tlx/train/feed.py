"""Examples on the host: which of them each step sees, and how rows are taken of them.

Examples are a tree. Its leaves are arrays [N, ...], perhaps memory-mapped, or anything that has a
length and gives arrays for `take(rows)`: a set of examples may be larger than memory.
"""

import collections
import concurrent.futures
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from tlx import datasets
from tlx import tree as trees
from tlx.types import PyTree

PART_BYTES = 2**26  # about so much is read at a time of what is read once
One = TypeVar('One')
Made = TypeVar('Made')


class Arrays(NamedTuple):
  """Examples [N, ...] and their targets [N, ...], shared by all runs of a cohort."""

  inputs: PyTree
  targets: PyTree


def length(examples: PyTree) -> int:
  """How many examples leaves [N, ...] hold."""
  return len(jax.tree.leaves(examples)[0])


def take(examples: PyTree, rows: np.ndarray) -> PyTree:
  """Some of the examples as arrays [len(rows), ...], in the order of `rows`."""

  def of_leaf(leaf: Any) -> PyTree:
    return leaf[rows] if isinstance(leaf, np.ndarray | jax.Array) else leaf.take(rows)

  return jax.tree.map(of_leaf, examples)


def some(examples: PyTree, rows: np.ndarray) -> PyTree:
  """As `take`, but of what is not in memory nothing is read yet."""
  return jax.tree.map(lambda leaf: datasets.rows_of(leaf, rows), examples)


def whole(examples: PyTree) -> PyTree:
  """All examples as arrays."""

  def of_leaf(leaf: Any) -> PyTree:
    is_array = isinstance(leaf, np.ndarray | jax.Array)
    return leaf if is_array else leaf.take(np.arange(len(leaf)))

  return jax.tree.map(of_leaf, examples)


def is_made(examples: PyTree) -> bool:
  """Whether examples are made whenever they are taken, such as images that are decoded."""
  return any(not isinstance(leaf, np.ndarray | jax.Array) for leaf in jax.tree.leaves(examples))


def ahead(make: Callable[[One], Made], of: Iterable[One], most: int = 1) -> Iterator[Made]:
  """`make(one)` of each in their order; `most` of the next ones are made meanwhile in threads."""
  with concurrent.futures.ThreadPoolExecutor(most) as pool:
    waiting: collections.deque[concurrent.futures.Future[Made]] = collections.deque()
    for one in of:
      waiting.append(pool.submit(make, one))
      if len(waiting) > most:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()


def row_bytes(examples: PyTree) -> int:
  """Bytes of one example."""
  return trees.num_bytes(take(examples, np.zeros(1, int)))


def in_parts(examples: PyTree) -> Iterator[PyTree]:
  """All examples in their order as arrays, about PART_BYTES at a time."""
  num_examples, size = length(examples), max(1, PART_BYTES // max(1, row_bytes(examples)))
  for first in range(0, num_examples, size):
    yield take(examples, np.arange(first, min(first + size, num_examples)))


def sha256(examples: PyTree) -> str:
  """A digest of names, shapes, dtypes and values, never all of them in memory.

  What knows its own digest is not read.
  """
  if hasattr(examples, 'sha256') and (known := examples.sha256()):
    return known
  digests: dict[str, Any] = {}
  for part in in_parts(examples):
    for name, leaf in trees.named_leaves(part):
      if name not in digests:
        about = f'{name} {leaf.dtype} {(length(examples), *leaf.shape[1:])}\n'
        digests[name] = hashlib.sha256(about.encode())
      digests[name].update(leaf.tobytes())
  of_leaves = [digest.hexdigest() for digest in digests.values()]
  return hashlib.sha256(' '.join(of_leaves).encode()).hexdigest()


def order(
  examples: np.ndarray, num_steps: int, batch_size: int, key: tuple[int, ...]
) -> np.ndarray:
  """int32 [num_steps, batch_size], the rows of each step: one fresh permutation after another.

  An epoch that does not divide by the batch size runs on into the next batch, and a set smaller
  than a batch recurs within it, so no example is dropped. `key` alone decides the permutations.
  """
  random = np.random.default_rng(key)
  epochs = -(-num_steps * batch_size // len(examples))
  rows = np.concatenate([random.permutation(examples) for _ in range(epochs)])
  return rows[: num_steps * batch_size].reshape(num_steps, batch_size).astype(np.int32)


def filled(rows: np.ndarray, length: int) -> np.ndarray:
  """`rows` [N, ...] up to `length`, the last one repeated."""
  if len(rows) == length:
    return rows
  return np.concatenate([rows, np.repeat(rows[-1:], length - len(rows), axis=0)])
