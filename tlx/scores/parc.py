"""PARC: pairwise annotation representation comparison (Bolya et al. 2021)."""

import numpy as np
from scipy import stats

from tlx.scores import checked, principal

NEEDS = ('features',)


def score(labels, features, dims: int = 0, most: int = 2000) -> float:
  """100 x Spearman's correlation of 1 - Pearson's between examples' features and their labels.

  Features are standardised; constant ones are 0. Labels are one-hot, so their distances are one of
  two, which tie; the official code leaves it to rounding errors to order them (47.375 where ties
  give 47.159).

  Args:
    dims: so many principal axes first (32 in the paper's tables); 0 takes the features as they are.
    most: examples that are compared, evenly of those given, since all pairs are held at once.
  """
  labels, features = checked(labels, features)
  rows = np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(int)
  labels, features = labels[rows], features[rows]
  if dims:
    features = principal(features, dims)
  spread = features.std(0)
  features = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
  upper = np.triu_indices(len(labels), 1)
  far = (1 - correlation(features))[upper]
  other = (labels[:, None] != labels)[upper].astype(float)
  if not np.ptp(far) or not np.ptp(other):
    return 0.0
  return float(stats.spearmanr(far, other).statistic * 100)


def correlation(rows: np.ndarray) -> np.ndarray:
  """[N, N], Pearson's between rows; 0 with rows that are constant."""
  rows = rows - rows.mean(1, keepdims=True)
  sizes = np.linalg.norm(rows, axis=1, keepdims=True)
  rows = rows / np.where(sizes > 0, sizes, 1)
  return rows @ rows.T
