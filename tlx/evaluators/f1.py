"""The mean of the F1 scores of all classes."""

import numpy as np

from tlx.evaluators import Finished

KEPT = 'logits'
COLUMNS = ('macro_f1',)


def evaluate(finished: Finished) -> dict[str, float]:
  """'macro_f1': the mean over classes of 2 TP / (2 TP + FP + FN), in [0, 1].

  Over the classes that are in the test set or among the answers, as scikit-learn's f1_score with
  average='macro' has it; one that is in only one of the two has 0.
  """
  answers = finished.predict('test')['logits'].argmax(-1)
  labels = finished.data('test').targets
  of_classes = []
  for number in np.union1d(labels, answers):
    right = int(((labels == number) & (answers == number)).sum())
    of_classes.append(2 * right / int((labels == number).sum() + (answers == number).sum()))
  return {'macro_f1': float(np.mean(of_classes))}
