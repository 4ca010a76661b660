"""How often the right class is among the k most probable."""

import numpy as np

from tlx.evaluators import Finished
from tlx.types import Task, num_logits

KEPT = 'logits'
COLUMNS = ('top_*_accuracy',)


def check(task: Task, k: int = 5) -> None:
  """Raises ValueError where k is no number of classes below all of them."""
  num_classes = num_logits(task)
  if not isinstance(k, int) or not 1 <= k < num_classes:
    raise ValueError(
      f'top_k wants a whole k from 1 to {num_classes - 1}, below the {num_classes} classes (with '
      f'all of them every answer is right), got {k!r}.'
    )


def evaluate(finished: Finished, k: int = 5) -> dict[str, float]:
  """'top_<k>_accuracy': the share of test examples whose class is among the k largest logits.

  Of equal logits that of the lower class number comes first, so k = 1 is the accuracy.
  """
  logits, labels = finished.predict('test')['logits'], finished.data('test').targets
  order = np.argsort(-logits, axis=-1, kind='stable')[:, :k]
  return {f'top_{k}_accuracy': float((order == labels[:, None]).any(-1).mean())}
