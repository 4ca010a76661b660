"""Conditional entropy under an optimal-transport coupling of examples (Tan et al. 2021, OTCE)."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from tlx.scores import checked

NEEDS = ('features', 'source_features', 'source_labels')
MOST = 1000  # examples of each side


def score(labels, features, source_features, source_labels, seed: int = 0) -> float:
  """-H(Y_t | Y_s) = sum P(y_s, y_t) log P(y_t | y_s), in [-log C, 0]: how well the source's classes
  tell the target's where each of its examples stands for the target's example next to it.

  The paper adds the cost of the coupling with weights that are fitted on other tasks of known
  accuracy; without those it is this (its OT-based NCE). Departs from the official code in the
  coupling: one without entropy, which of as many examples on both sides is an assignment (of
  squared Euclidean distances); of the larger side as many are drawn as the other has, at most MOST.

  Args:
    source_features, source_labels: of examples of the source, [M, D] and [M].
    seed: of the draw.
  """
  labels, features = checked(labels, features)
  source_labels, source_features = checked(source_labels, source_features)
  if features.shape[1] != source_features.shape[1]:
    raise ValueError(
      f'Features of target and source are {features.shape[1]} and {source_features.shape[1]} wide; '
      'OTCE wants them from one stage.'
    )
  size = min(len(labels), len(source_labels), MOST)
  own, other = (
    np.sort(np.random.default_rng(seed).permutation(number)[:size])
    for number in (len(labels), len(source_labels))
  )
  ours, theirs = features[own], source_features[other]
  far = (ours**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * ours @ theirs.T
  rows, columns = linear_sum_assignment(far)
  joint = np.zeros((source_labels.max() + 1, labels.max() + 1))
  np.add.at(joint, (source_labels[other][columns], labels[own][rows]), 1 / size)
  given = joint / np.maximum(joint.sum(1, keepdims=True), 1e-300)
  return float((joint[joint > 0] * np.log(given[joint > 0])).sum())
