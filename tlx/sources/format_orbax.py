"""Orbax checkpoints: a saved PyTree, or one step of a manager that saved one as its only item.

Orbax does not notice bytes that were flipped: give the checksum in the config.
"""
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tlx import checkpoint
from tlx.sources._budget import Budget
from tlx.sources._names import flatten

_STEPS_A_LEAF = 20  # opening one takes about as long as 20 nodes of a tree


def matches(path: Path) -> bool:
  return path.is_dir() and _item(path) is not None


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({'params/stem/kernel': array}, {}), on the host whatever devices it was saved from."""
  folder, budget = _item(path), Budget.of(path)
  with checkpoint.checkpointer() as checkpointer:
    metadata = checkpointer.metadata(folder).item_metadata
    if metadata is None:
      raise ValueError('Orbax cannot tell from its _METADATA what is in it')
    weigh(metadata.tree, budget)
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.tree)
    restored = checkpointer.restore(folder, restore_args=arguments)
  return {name: np.asarray(leaf) for name, leaf in flatten(restored, budget).items()}, {}


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


def _item(path: Path) -> Path | None:
  """The folder with the tree: `path` or its only sub-folder that is one."""
  found = [file.parent for pattern in ('_METADATA', '*/_METADATA') for file in path.glob(pattern)]
  return found[0] if len(found) == 1 else None
