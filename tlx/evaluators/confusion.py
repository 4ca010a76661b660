"""Which classes are taken for which."""

import numpy as np

from tlx.evaluators import Finished
from tlx.types import Task, num_logits

KEPT = 'logits'
COLUMNS = ()
MOST_CLASSES = 200  # a table of whose pairs is kept


def check(task: Task) -> None:
  """Raises ValueError where there are too many classes for a table of all pairs."""
  if num_logits(task) > MOST_CLASSES:
    raise ValueError(
      f'confusion keeps a number for each pair of at most {MOST_CLASSES} classes, and there are '
      f'{num_logits(task)}. Leave it out.'
    )


def evaluate(finished: Finished) -> dict[str, list[list[int]]]:
  """'confusion': how many test examples of each class (rows) were taken for which (columns)."""
  answers = finished.predict('test')['logits'].argmax(-1)
  labels, number = finished.data('test').targets, num_logits(finished.task)
  table = np.zeros((number, number), int)
  np.add.at(table, (labels, answers), 1)
  return {'confusion': table.tolist()}
