"""SFDA: regularised discriminants that are challenged by their own errors (Shao et al. 2022)."""

import numpy as np
from scipy import linalg
from scipy.special import softmax

from tlx.scores import checked, class_means

NEEDS = ('features',)


def score(labels, features) -> float:
  """The mean probability of the labels, in [0, 1], after discriminants are fitted twice.

  The second time on p x + (1 - p) mu, where mu is the mean of the other classes' means and p a
  softmax of the first time's probabilities. As in the official code the mean is of p(y), not of its
  logarithm as in the paper; unlike there the features given are left as they are.
  """
  labels, features = checked(labels, features)
  chances, shrinkage = discriminant(labels, features, None)
  confident = softmax(chances, axis=1)[np.arange(len(labels)), labels][:, None]
  means = class_means(labels, features)
  others = (means.sum(0) - means) / (len(means) - 1)
  mixed = confident * features + (1 - confident) * others[labels]
  chances, _ = discriminant(labels, mixed, shrinkage)
  return float(chances[np.arange(len(labels)), labels].mean())


def discriminant(
  labels: np.ndarray, features: np.ndarray, shrinkage: float | None
) -> tuple[np.ndarray, float]:
  """(p(y | x) [N, C], shrinkage) of Fisher's discriminants with a shrunk scatter within classes.

  Shrinkage is exp(-5 x the largest eigenvalue of that scatter) where it is not given, found by
  three rounds of the power method.
  """
  means = class_means(labels, features)
  priors = np.bincount(labels) / len(labels)
  apart = features - means[labels]
  within = apart.T @ apart / len(labels)
  if not within.any() and not np.ptp(features, axis=0).any():
    return np.tile(priors, (len(labels), 1)), 1.0
  if shrinkage is None:
    shrinkage = max(np.exp(-5 * _largest(within)), 1e-10)
  total = shrunk(np.cov(features.T, bias=True).reshape(within.shape), shrinkage)
  within = shrunk(within, shrinkage)
  least = 1e-10 * max(np.trace(within) / len(within), 1e-300)  # more features than examples
  within.flat[:: len(within) + 1] += least
  _, axes = linalg.eigh(total - within, within)
  weights = means @ axes @ axes.T
  bias = -0.5 * (means * weights).sum(1) + np.log(priors)
  return softmax(features @ weights.T + bias, axis=1), shrinkage


def shrunk(covariance: np.ndarray, share: float) -> np.ndarray:
  """(1 - share) x covariance + share x the mean variance on the diagonal."""
  size = len(covariance)
  return (1 - share) * covariance + share * np.trace(covariance) / size * np.eye(size)


def _largest(matrix: np.ndarray) -> float:
  x = matrix.sum(1)
  y = x
  for _ in range(3):
    y = matrix @ x
    y = y / max(np.linalg.norm(y), 1e-300)
    x = matrix @ y
    x = x / max(np.linalg.norm(x), 1e-300)
  return float(x @ matrix @ y)
