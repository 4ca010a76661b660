"""LogME: the log evidence of a Bayesian linear model of the labels (You et al. 2021)."""

import numpy as np

from tlx.scores import checked

NEEDS = ('features',)
TURNS = 11  # of the fixed point, as in the official code
CHANGE = 1e-3  # of alpha / beta, below which it has arrived
LEAST = 1e-5  # beside what is divided by


def score(labels, features) -> float:
  """The mean over classes of max log p(one-hot | F, alpha, beta) / N, in nats.

  Evidence as in equation 4 of the paper, its fixed point as in You et al. 2022 and thuml/LogME.
  That code sums log(alpha + beta sigma^2) over min(N, D) singular values only, and misses
  -(D - N) / 2 log alpha where there are fewer examples than features; here all D are counted.
  """
  labels, features = checked(labels, features)
  left, singular, _ = np.linalg.svd(features, full_matrices=False)
  targets = np.eye(labels.max() + 1)[labels]
  evidences = [evidence(left, singular**2, features.shape[1], target) for target in targets.T]
  return float(np.mean(evidences))


def evidence(left: np.ndarray, squares: np.ndarray, dims: int, target: np.ndarray) -> float:
  """max over alpha and beta of log p(target | F, alpha, beta) / N.

  Args:
    left, squares: left singular vectors [N, K] of the features and their squared singular values.
    dims: the number D of features.
    target: [N], of one class or of a regression.
  """
  size = len(target)
  along = (left.T @ target) ** 2
  beyond = max(float(target @ target - along.sum()), 0.0)
  ratio, found = 1.0, 0.0  # alpha / beta
  for _ in range(TURNS):
    gamma = (squares / (squares + ratio)).sum()
    weights = (squares * along / (ratio + squares) ** 2).sum()
    residual = (along / (1 + squares / ratio) ** 2).sum() + beyond
    alpha = max(gamma, 1e-300) / (weights + LEAST)
    beta = max(size - gamma, 1e-300) / (residual + LEAST)
    determinant = np.log(alpha + beta * squares).sum() + (dims - len(squares)) * np.log(alpha)
    found = (
      dims * np.log(alpha)
      + size * np.log(beta)
      - determinant
      - beta * residual
      - alpha * weights
      - size * np.log(2 * np.pi)
    ) / (2 * size)
    before, ratio = ratio, alpha / beta
    if abs(ratio - before) <= CHANGE * before:
      break
  return found
