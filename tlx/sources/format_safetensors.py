"""safetensors, alone or sharded with an index; the official reader checks the header first."""

from pathlib import Path

import numpy as np
import safetensors

from tlx.sources._budget import Budget
from tlx.sources._files import sharded


def matches(path: Path) -> bool:
  return path.name.endswith(('.safetensors', '.safetensors.index.json'))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({name: array}, the header's own key-values)."""
  return sharded(path, Budget.of(path), _read)


def _read(path: Path, budget: Budget) -> tuple[dict[str, np.ndarray], dict]:
  with safetensors.safe_open(path, 'np') as file:
    # no byte is of two tensors: the reader sees to that
    budget.step('the header', len(file.keys()))
    names = list(file.keys())
    return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
