"""What tasks of vectors share: length 1, and how far numbers go together."""

import math

import jax.numpy as jnp
import numpy as np

from tlx.types import Array

NONE = -1e9  # the cosine of what is none of the others; finite, for the gradient's sake


def unit(vectors: Array) -> Array:
  """Vectors [..., D] of length 1; of none what is next to 0."""
  vectors = vectors.astype(jnp.float32)
  return vectors / jnp.sqrt(jnp.maximum(jnp.sum(vectors**2, -1, keepdims=True), 1e-24))


def check_pairs(outputs: Array, task: str) -> None:
  """Raises ValueError where outputs are not vectors of the two texts of pairs, [B, 2, D]."""
  if outputs.ndim != 3 or outputs.shape[1] != 2:
    raise ValueError(
      f'{task} wants a vector of each text of a pair [B, 2, D], got {list(outputs.shape)}. Take an '
      "encoder that pools its tokens, such as pool = 'mean'."
    )


def correlations(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
  """{'pearson', 'spearman'} of numbers [N] (ties have their mean rank), each in [-1, 1]; NaN where
  one of both does not vary or is not finite.
  """
  from scipy import stats  # most of a second, which other tasks do not need

  values, targets = np.asarray(values, np.float64), np.asarray(targets, np.float64)
  if not np.isfinite(values).all() or (targets == targets[0]).all() or (values == values[0]).all():
    return {'pearson': math.nan, 'spearman': math.nan}
  ranks = stats.rankdata(values), stats.rankdata(targets)
  return {
    'pearson': float(np.corrcoef(values, targets)[0, 1]),
    'spearman': float(np.corrcoef(*ranks)[0, 1]),
  }
