"""Nearness of two tasks by the weights that matter to each (Achille et al. 2019, Task2Vec)."""

import numpy as np

from tlx.scores import checked

NEEDS = ('fisher', 'source_fisher')


def score(labels, fisher, source_fisher) -> float:
  """Less the cosine distance of a / (a + b) and b / (a + b), in [-1, 0]: 0 where the diagonal
  Fisher information a of the target's task and b of the source's is the same (the symmetric
  distance of section 4; `cosine` of the official task_similarity.py).

  Departs from the official code in that no 1e-8 is added to a + b, which is no small number beside
  the information of a network that knows its task well; filters that matter to neither count as 0.
  The asymmetric distance, which takes off a multiple of that to a trivial task, is left out: its
  factor is fitted on other tasks of known accuracy.

  Args:
    fisher, source_fisher: [F], of each filter of one probe network, both with a head that is fitted
      to the task.

  Raises:
    ValueError: fewer than two classes, other numbers of filters, or values that are not finite or
      below 0.
  """
  checked(labels, np.zeros((len(labels), 1)))
  ours, theirs = np.asarray(fisher, np.float64), np.asarray(source_fisher, np.float64)
  if ours.ndim != 1 or ours.shape != theirs.shape:
    raise ValueError(
      f'Wanted information [F] of the same filters, got {ours.shape}, {theirs.shape}.'
    )
  total = ours + theirs
  if not (np.isfinite(total).all() and min(ours.min(), theirs.min()) >= 0):
    raise ValueError('Fisher information has to be finite and at least 0.')
  ours, theirs = (one / np.where(total > 0, total, 1.0) for one in (ours, theirs))
  sizes = np.linalg.norm(ours) * np.linalg.norm(theirs)
  return float(ours @ theirs / sizes - 1) if sizes > 0 else -1.0
