"""PACTran: a PAC-Bayes bound on a linear head (Ding et al. 2022), the Gaussian form."""

import numpy as np
from scipy import optimize
from scipy.special import log_softmax

from tlx.scores import checked

NEEDS = ('features',)


def score(labels, features, strength: float = 1.0, variance: float = 10.0) -> float:
  """The negative of L* + D C s^2 / (2 lambda N) log(1 / sigma^2), a bound, so that more is better.

  L* is the least mean cross-entropy + |W|^2 / (2 lambda N) of a head on centred features, whose
  bias is free. `strength` is lambda and `variance` x lambda / D is s^2, the prior's. sigma^2 is
  from the diagonal of the Hessian as in the official code, whose data part is a sum, not a mean.
  """
  labels, features = checked(labels, features)
  features = features - features.mean(0)
  dims, classes = features.shape[1], int(labels.max()) + 1
  targets, penalty = np.eye(classes)[labels], strength * len(labels)

  def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
    weights, bias = flat[: dims * classes].reshape(dims, classes), flat[dims * classes :]
    logs = log_softmax(features @ weights + bias, axis=1)
    away = (np.exp(logs) - targets) / len(labels)
    value = -(logs * targets).sum() / len(labels) + (weights**2).sum() / (2 * penalty)
    return value, np.concatenate([(features.T @ away + weights / penalty).ravel(), away.sum(0)])

  begin = np.zeros((dims + 1) * classes)
  found = optimize.minimize(loss, begin, jac=True, method='L-BFGS-B', options={'maxiter': 1000})
  weights = found.x[: dims * classes].reshape(dims, classes)
  chances = np.exp(log_softmax(features @ weights + found.x[dims * classes :], axis=1))
  spread = chances - chances**2
  curvature = (features**2).T @ spread + 1 / penalty
  precision = penalty * (curvature.sum() + spread.sum()) / (dims * classes) + 1e-10
  prior = variance * strength / dims
  return -float(found.fun + dims * classes / (2 * penalty) * prior * np.log(precision))
