"""The share of examples whose nearest others have their class."""

import numpy as np

from tlx.scores import checked

NEEDS = ('features',)
ROWS = 512  # examples at a time


def score(labels, features, k: int = 1) -> float:
  """Leave-one-out accuracy of the vote of the k nearest by Euclidean distance, in [0, 1]."""
  return float(hits(labels, features, k).mean())


def hits(labels, features, k: int = 1) -> np.ndarray:
  """bool [N], whether the vote of an example's k nearest others is for its class.

  Of classes with as many votes the lower number wins, of equally near examples the first. A class
  with one example is always missed.
  """
  labels, features = checked(labels, features)
  if not 1 <= k < len(labels):
    raise ValueError(f'Of {len(labels)} examples the {k} nearest others cannot be asked.')
  features = features - features.mean(0)
  squares = (features**2).sum(1)
  classes, right = np.eye(labels.max() + 1), np.zeros(len(labels), bool)
  for first in range(0, len(labels), ROWS):
    rows = np.arange(first, min(first + ROWS, len(labels)))
    far = squares - 2 * features[rows] @ features.T
    far[np.arange(len(rows)), rows] = np.inf
    nearest = np.argsort(far, axis=1, kind='stable')[:, :k]
    right[rows] = classes[labels[nearest]].sum(1).argmax(1) == labels[rows]
  return right
