"""The share of examples whose nearest others have their class."""

import numpy as np

from tlx.scores import checked

NEEDS = ('features',)
ROWS = 512  # examples at a time


def score(labels, features, k: int = 1) -> float:
  """Leave-one-out accuracy of the vote of the k nearest by Euclidean distance, in [0, 1].

  Of classes with as many votes the lower number wins, of equally near examples the first. A class
  with one example is always missed.
  """
  labels, features = checked(labels, features)
  if not 1 <= k < len(labels):
    raise ValueError(f'Of {len(labels)} examples the {k} nearest others cannot be asked.')
  features = features - features.mean(0)
  squares = (features**2).sum(1)
  classes, right = np.eye(labels.max() + 1), 0
  for first in range(0, len(labels), ROWS):
    rows = np.arange(first, min(first + ROWS, len(labels)))
    far = squares - 2 * features[rows] @ features.T
    far[np.arange(len(rows)), rows] = np.inf
    nearest = np.argsort(far, axis=1, kind='stable')[:, :k]
    right += int((classes[labels[nearest]].sum(1).argmax(1) == labels[rows]).sum())
  return right / len(labels)
