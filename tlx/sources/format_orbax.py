"""Orbax checkpoints: a saved PyTree, or one step of a manager that saved one as its only item.

Orbax does not notice bytes that were flipped: give the checksum in the config.
"""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from tlx import checkpoint
from tlx.sources._budget import Budget
from tlx.sources._names import flatten
from tlx.sources._orbax import weigh


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


def _item(path: Path) -> Path | None:
  """The folder with the tree: `path` or its only sub-folder that is one."""
  files = [*path.glob('_METADATA'), *path.glob('*/_METADATA')]
  return files[0].parent if len(files) == 1 else None
