"""What a program gives of many examples, a batch at a time."""

from collections.abc import Callable

import jax
import numpy as np

from tlx.train import feed
from tlx.types import PyTree, Variables


def in_batches(
  program: Callable[[Variables, PyTree], PyTree],
  variables: Variables,
  examples: PyTree,
  batch_size: int,
  rows: np.ndarray | None = None,
) -> PyTree:
  """`program(variables, batch)` of examples [N, ...], or of some rows of them, on the host.

  The last batch is filled up with its last example, so that one compiled program serves all.
  """
  rows = np.arange(feed.length(examples)) if rows is None else rows

  def batch(first: int) -> PyTree:
    return feed.take(examples, feed.filled(rows[first : first + batch_size], batch_size))

  found = []
  for of_batch in feed.ahead(batch, range(0, len(rows), batch_size)):
    found.append(jax.device_get(program(variables, of_batch)))
  return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *found)
