"""CKA over minibatches, for features too wide for a stream's products (Nguyen et al. 2021)."""

import numpy as np

from tlx.similarity import checked


def similarity(x, y, batch_size: int = 256) -> float:
  """sum HSIC_1(K_b, L_b) / sqrt(sum HSIC_1(K_b, K_b) sum HSIC_1(L_b, L_b)), linear kernels.

  A ratio of sums over batches in the given order, not a mean of ratios; a last part of fewer than
  four examples is left out. Memory is that of one batch's kernels.
  """
  x, y = checked(x, y)
  sums = np.zeros(3)
  for first in range(0, len(x), batch_size):
    ours, theirs = x[first : first + batch_size], y[first : first + batch_size]
    if len(ours) >= 4:
      one, other = ours @ ours.T, theirs @ theirs.T
      sums += hsic(one, other), hsic(one, one), hsic(other, other)
  both, own_x, own_y = sums
  return float(both / np.sqrt(own_x * own_y)) if own_x > 0 and own_y > 0 else float('nan')


def hsic(one: np.ndarray, other: np.ndarray) -> float:
  """HSIC_1 of two kernels [n, n] (Song et al. 2012, equation 5), n >= 4."""
  size = len(one)
  one, other = one - np.diag(np.diag(one)), other - np.diag(np.diag(other))
  inner = (one * other).sum() + one.sum() * other.sum() / ((size - 1) * (size - 2))
  return float((inner - 2 / (size - 2) * one.sum(0) @ other.sum(1)) / (size * (size - 3)))
