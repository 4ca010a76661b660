"""H-score: how much of the features' variance the classes explain (Bao et al. 2019)."""

import numpy as np
from sklearn.covariance import LedoitWolf

from tlx.scores import checked, class_means

NEEDS = ('features',)


def score(labels, features, shrinkage: bool = False) -> float:
  """tr(cov(F)^-1 cov(E[F | y])), in [0, min(D, C - 1)].

  Computed from the left singular vectors of the centred features, as the sum over classes of
  n_c |mean of their rows|^2, so that directions without variance drop out by rank; the official
  code's pseudo-inverse divides by rounding errors where there are fewer examples than features.

  Args:
    shrinkage: of the covariance as Ledoit and Wolf (2004) estimate it, the regularised H-score of
      Ibrahim et al. 2022: (1 - a) tr(cov_a(F)^-1 cov(E[F | y])).
  """
  labels, features = checked(labels, features)
  features = features - features.mean(0)
  if shrinkage:
    return _shrunk(labels, features)
  left, singular, _ = np.linalg.svd(features, full_matrices=False)
  least = singular.max() * max(features.shape) * np.finfo(float).eps
  means = class_means(labels, left[:, singular > least])
  return float((np.bincount(labels) * (means**2).sum(1)).sum())


def _shrunk(labels: np.ndarray, features: np.ndarray) -> float:
  if not features.any():
    return 0.0
  found = LedoitWolf().fit(features)
  means = class_means(labels, features)[labels]
  between = means.T @ means / (len(labels) - 1)
  return float((1 - found.shrinkage_) * np.trace(np.linalg.pinv(found.covariance_) @ between))
