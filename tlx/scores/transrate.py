"""TransRate: mutual information of features and labels by coding rates (Huang et al. 2022)."""

import numpy as np

from tlx.scores import checked

NEEDS = ('features',)


def score(labels, features, epsilon: float = 1e-4) -> float:
  """R(F) - mean over classes of R(F_c), where R(Z) = 1/2 log det(I + Z^T Z / (n epsilon)), nats.

  The features are centred once, over all classes. Classes weigh alike, as in the official code; the
  paper's equation weighs them by their share.
  """
  labels, features = checked(labels, features)
  features = features - features.mean(0)
  classes = range(labels.max() + 1)
  inside = [coding_rate(features[labels == number], epsilon) for number in classes]
  return coding_rate(features, epsilon) - float(np.mean(inside))


def coding_rate(values: np.ndarray, epsilon: float) -> float:
  """1/2 log det(I + Z^T Z / (n epsilon)) of Z [n, D]."""
  singular = np.linalg.svd(values, compute_uv=False)
  return float(np.log1p(singular**2 / (len(values) * epsilon)).sum() / 2)
