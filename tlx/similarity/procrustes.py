"""Orthogonal Procrustes (Ding et al. 2021), as a similarity."""

import numpy as np

from tlx.similarity import checked


def similarity(x, y) -> float:
  """|A^T B|_*, in [0, 1], of centred features of unit Frobenius norm.

  The squared distance after the best rotation is 2 - 2 times it. NaN where either is constant.
  """
  x, y = checked(x, y)
  sizes = np.linalg.norm(x) * np.linalg.norm(y)
  if not sizes > 0:
    return float('nan')
  return float(np.linalg.svd(x.T @ y, compute_uv=False).sum() / sizes)
