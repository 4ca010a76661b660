"""Transferability estimates: one a file, `score(labels, **evidence) -> float`; more is better.

What a source makes of a target's training examples, turned into one number that should order
sources (or stages of one) as their accuracies after transfer would. A file says in NEEDS which
evidence it takes beside the labels [N]:

features: [N, D], what enters the head, or comes out of any stage
probs: [N, Z], the probabilities that the source's own head gives to its own classes
source_features, source_labels: [M, D] and [M], of examples that the source was trained on

All in float64 on the host. Where the official code does otherwise than its paper, or than is right,
the file says so beside the formula.
"""

import numpy as np


def checked(labels, values) -> tuple[np.ndarray, np.ndarray]:
  """(labels [N] in 0 to C - 1, values [N, D] in float64); classes without an example do not count.

  Raises:
    ValueError: fewer than two classes or examples, other numbers of labels and rows, or values that
      are not finite.
  """
  values, labels = np.asarray(values, np.float64), np.asarray(labels)
  if values.ndim != 2 or labels.shape != values.shape[:1] or not values.shape[1]:
    raise ValueError(f'Wanted values [N, D] and labels [N], got {values.shape} and {labels.shape}.')
  classes, labels = np.unique(labels, return_inverse=True)
  if len(classes) < 2:
    raise ValueError(f'A score wants examples of two classes or more, got {len(classes)}.')
  if not np.isfinite(values).all():
    rows = np.flatnonzero(~np.isfinite(values).all(1))
    raise ValueError(f'Values of {len(rows)} examples are not finite, the first is {rows[0]}.')
  return labels, values


def class_means(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
  """[C, D], the mean of the values of each class."""
  sums = np.zeros((labels.max() + 1, values.shape[1]))
  np.add.at(sums, labels, values)
  return sums / np.bincount(labels)[:, None]


def principal(values: np.ndarray, size: int) -> np.ndarray:
  """[N, min(size, N, D)], the values on their first principal axes."""
  values = values - values.mean(0)
  left, singular, _ = np.linalg.svd(values, full_matrices=False)
  return (left * singular)[:, :size]


def log_leep(labels: np.ndarray, probs: np.ndarray) -> float:
  """The mean of log sum_z p(y|z) p(z|x), where p(y|z) is as these examples have it."""
  joint = np.zeros((labels.max() + 1, probs.shape[1]))
  np.add.at(joint, labels, probs)
  seen = joint.sum(0) > 0
  given = joint[:, seen] / joint[:, seen].sum(0)
  return float(np.log((given[labels] * probs[:, seen]).sum(1)).mean())
