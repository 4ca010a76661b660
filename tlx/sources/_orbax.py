"""What restoring an Orbax checkpoint takes, told by its metadata."""

import math
from typing import Any

import jax
import numpy as np

from tlx.sources._budget import Budget

_STEPS_A_LEAF = 20  # opening one takes about as long as 20 nodes of a tree


def weigh(tree: Any, budget: Budget) -> None:
  """Takes from the budget what restoring a tree of Orbax's metadata takes.

  Raises:
    ValueError: there is not so much left.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path)
    budget.step(name, _STEPS_A_LEAF, depth=len(path))
    shape, dtype = getattr(leaf, 'shape', None), getattr(leaf, 'dtype', None)
    if shape is not None and dtype is not None:
      itemsize = np.dtype(dtype).itemsize
      budget.array(name, map(int, shape), itemsize)
      chunk = getattr(getattr(leaf, 'storage', None), 'chunk_shape', None) or ()
      excess = math.prod(map(int, chunk)) - math.prod(map(int, shape))
      budget.take(max(excess, 0) * itemsize, f'{name} in chunks of {chunk}')
