"""Representational similarity analysis (Kriegeskorte et al. 2008)."""

import numpy as np
from scipy import stats

from tlx.similarity import checked


def similarity(x, y) -> float:
  """Spearman's correlation between the 1 - Pearson dissimilarities of all pairs of examples.

  In [-1, 1]; N^2 numbers are held. NaN where all pairs of either are alike.
  """
  checked(x, y)
  upper = np.triu_indices(len(x), 1)
  ours, theirs = (_dissimilarity(part)[upper] for part in (x, y))
  if len(ours) < 2 or not np.ptp(ours) or not np.ptp(theirs):
    return float('nan')
  return float(stats.spearmanr(ours, theirs).statistic)


def _dissimilarity(x) -> np.ndarray:
  x = np.asarray(x, np.float64)
  x = x - x.mean(1, keepdims=True)
  sizes = np.linalg.norm(x, axis=1, keepdims=True)
  x = x / np.where(sizes > 0, sizes, 1)
  return 1 - x @ x.T
