"""Texts without the padding behind them: batches of texts that are about as long, each cut to one
of a few lengths.

An example's output ignores its padding, so what is cut changes numbers by their rounding alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from tlx.train import feed
from tlx.types import PyTree

# Leaves of stored texts [N, ..., T]; those beside them (tags, what comes next) stay whole.
TOKENS = ('ids', 'mask', 'types')
GRID = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
MOST = 3  # lengths of one pass
# FLOPs that one more length spares at least, or the time to compile it is worth more.
WORTH = {'cpu': 3e11}
WORTH_ON_ACCELERATORS = 1e14


def num_tokens(inputs: PyTree) -> np.ndarray | None:
  """int32 [N]: the places of each example up to its last that is no padding; None of no texts."""
  if not isinstance(inputs, Mapping) or 'mask' not in inputs:
    return None
  real = np.asarray(feed.whole(inputs['mask'])) != 0
  last = np.where(real, np.arange(1, real.shape[-1] + 1, dtype=np.int32), 0)
  return last.reshape(len(real), -1).max(1)


class Batches(NamedTuple):
  """All examples in batches, and the length [P] to which the texts of each are cut; 0 for none."""

  rows: list[np.ndarray]
  lengths: list[int]


def batches(of: np.ndarray | None, count: int, size: int, width: int, flops: float) -> Batches:
  """So many examples, `size` at a time.

  Texts come the longest first, so that the last batch, which may have few, is short. Other examples
  are in their order.

  Args:
    of: the tokens of each text [N]; None of no texts.
    width: places of a text as it is stored.
    flops: of a token.
  """
  order = np.arange(count) if of is None else np.argsort(-of, kind='stable')
  rows = [order[first : first + size] for first in range(0, count, size)]
  if of is None:
    return Batches(rows, [0] * len(rows))
  worth = WORTH.get(jax.default_backend(), WORTH_ON_ACCELERATORS) / max(flops * size, 1.0)
  return Batches(rows, fitted([int(of[batch[0]]) for batch in rows], width, worth))


def fitted(longest: Sequence[int], width: int, worth: float) -> list[int]:
  """The length to which each batch is cut whose longest text has so many tokens.

  Of GRID and `width` those, MOST at the most, with the fewest places, where one more length must
  spare `worth` places of texts.

  >>> fitted([60, 30, 20, 9, 9, 9], 64, 0), fitted([60, 30, 20, 9, 9, 9], 64, 50)
  ([64, 32, 32, 16, 16, 16], [64, 64, 24, 24, 24, 24])
  """
  sizes = [size for size in GRID if size < width]

  def of_batches(chosen: tuple[int, ...]) -> np.ndarray:
    return np.asarray(chosen)[np.searchsorted(chosen, longest)]

  choices: list[tuple[int, ...]] = [(width,)]
  for number in range(1, MOST):
    choices += [(*some, width) for some in itertools.combinations(sizes, number)]
  best = min(choices, key=lambda chosen: of_batches(chosen).sum() + worth * len(chosen))
  return of_batches(best).tolist()


def cut(inputs: PyTree, length: int) -> PyTree:
  """Stored texts with the first `length` places of each; others as they are."""
  if not length:
    return inputs
  return {name: leaf[..., :length] if name in TOKENS else leaf for name, leaf in inputs.items()}


def said(of: np.ndarray, made: Batches, size: int, width: int) -> str:
  """The lengths, and the shares of padding with and without them."""
  names = ', '.join(map(str, sorted(set(made.lengths))))
  before, now = 1 - of.mean() / width, 1 - of.sum() / (size * sum(made.lengths))
  return f'Texts go through at {names} tokens: {now:.0%} of them padding, {before:.0%} as stored.'
