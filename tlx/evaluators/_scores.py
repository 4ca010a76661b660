"""What several evaluators compute: probabilities and areas under ROC curves."""

import numpy as np
from scipy import special, stats


def probabilities(logits: np.ndarray) -> np.ndarray:
  """Softmax over the last axis, in float64."""
  return special.softmax(np.asarray(logits, np.float64), axis=-1)


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
  """P(score of a positive > score of a negative), ties half (Mann-Whitney's U / (n m)).

  NaN where there is no positive or no negative.

  >>> auroc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
  0.875
  """
  positive = np.asarray(positive, bool)
  num, others = int(positive.sum()), int((~positive).sum())
  if not num or not others:
    return float('nan')
  ranks = stats.rankdata(scores)
  return float((ranks[positive].sum() - num * (num + 1) / 2) / (num * others))
