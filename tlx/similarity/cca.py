"""Canonical correlations: their mean, of all directions or of those that matter (SVCCA)."""

import numpy as np

from tlx.similarity import canonical, checked


def similarity(x, y, squared: bool = False, kept: float = 1.0) -> float:
  """The mean canonical correlation over min(rank x, rank y) directions, in [0, 1].

  Features with as many dimensions as examples correlate fully whatever they are: 1 then means
  nothing. NaN where either is constant.

  Args:
    squared: the mean squared correlation, R^2_CCA of Kornblith et al. 2019.
    kept: SVCCA (Raghu et al. 2017) keeps the first directions that carry this share of the sum of
      singular values, 0.99 there (of the values, as the authors' code counts, not of squares).
  """
  x, y = (_leading(part, kept) for part in checked(x, y))
  correlations, _, _ = canonical(x, y)
  if not len(correlations):
    return float('nan')
  return float((correlations**2).mean() if squared else correlations.mean())


def _leading(x: np.ndarray, kept: float) -> np.ndarray:
  if kept >= 1:
    return x
  left, singular, _ = np.linalg.svd(x, full_matrices=False)
  share = np.cumsum(singular) / max(singular.sum(), 1e-300)
  count = int(np.searchsorted(share, kept)) + 1
  return left[:, :count] * singular[:count]
