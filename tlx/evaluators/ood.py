"""Whether examples of another data set can be told from those of the task."""

import numpy as np
from scipy import special

from tlx import datasets
from tlx.evaluators import Finished, _scores
from tlx.types import Task

KEPT = 'logits'
COLUMNS = ('ood_softmax_auroc', 'ood_energy_auroc')


def check(task: Task, dataset: str) -> None:
  """Raises ValueError where there is no such data set."""
  datasets.kind(dataset)


def evaluate(finished: Finished, dataset: str) -> dict[str, float]:
  """AUROC of telling the test set from the test part of `dataset`, a name of tlx/datasets.

  'ood_softmax_auroc': by the largest probability (Hendrycks and Gimpel 2017)
  'ood_energy_auroc': by the log of the sum of exponentials of the logits (Liu et al. 2020, eq. 4,
    temperature 1)
  1 where every example of the task is the surer one, 0.5 where it cannot be told.
  """
  inside = finished.predict('test')['logits']
  outside = finished.predict(finished.load(dataset))['logits']
  own = np.repeat([True, False], [len(inside), len(outside)])
  logits = np.asarray(np.concatenate([inside, outside]), np.float64)
  return {
    'ood_softmax_auroc': _scores.auroc(_scores.probabilities(logits).max(-1), own),
    'ood_energy_auroc': _scores.auroc(special.logsumexp(logits, -1), own),
  }
