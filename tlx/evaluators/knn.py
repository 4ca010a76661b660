"""What the nearest training examples say, without the head."""

import numpy as np

from tlx.evaluators import Finished
from tlx.types import Task, num_logits

KEPT = 'logits'
COLUMNS = ('knn_accuracy',)
ROWS = 512  # test examples at a time


def check(task: Task, k: int = 20, temperature: float = 0.07) -> None:
  """Raises ValueError where k is no number of neighbours or the temperature not above 0."""
  if not isinstance(k, int) or k < 1 or not temperature > 0:
    raise ValueError(
      f'knn wants a whole k from 1 on and a temperature above 0, got k={k!r}, '
      f'temperature={temperature!r}.'
    )


def evaluate(finished: Finished, k: int = 20, temperature: float = 0.07) -> dict[str, float]:
  """'knn_accuracy' of a vote of the k nearest of the run's own training examples.

  Neighbours by cosine similarity s of what enters the head, each voting exp(s / temperature) for
  its class (Wu et al. 2018, section 3.4; DINO's evaluation, Caron et al. 2021). All vote where
  there are fewer than k. Of classes with equal votes the lower number wins.
  """
  train, test = (unit(finished.features(part)) for part in ('train', 'test'))
  labels, wanted = finished.data('train').targets, finished.data('test').targets
  classes = np.eye(num_logits(finished.task))[labels]
  k, right = min(k, len(labels)), 0
  for first in range(0, len(test), ROWS):
    near = test[first : first + ROWS] @ train.T
    # of equally near ones the first, so that just k vote
    order = np.argsort(-near, axis=1, kind='stable')[:, :k]
    votes = np.zeros_like(near)
    rows = np.arange(len(near))[:, None]
    nearest = near.max(1, keepdims=True)  # taken off all, so that no vote is infinite
    votes[rows, order] = np.exp((near[rows, order] - nearest) / temperature)
    answers = (votes @ classes).argmax(1)
    right += int((answers == wanted[first : first + ROWS]).sum())
  return {'knn_accuracy': right / len(test)}


def unit(features: np.ndarray) -> np.ndarray:
  """Rows of length 1; those of zeros stay so."""
  features = np.asarray(features, np.float64)
  return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
