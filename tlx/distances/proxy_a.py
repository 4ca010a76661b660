"""The proxy A-distance: how well a linear classifier tells two sets of examples apart.

Ben-David et al. 2007 (NeurIPS), Glorot et al. 2011 (ICML).
"""

import numpy as np
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tlx.distances import checked

PENALTIES = tuple(10.0**power for power in range(-2, 6))


def distance(x, y, folds: int = 5, seed: int = 0) -> float:
  """2 (1 - 2 error), in [0, 2]: 0 where nothing tells them apart, 2 where all are told apart.

  The error is the mean of those of the two sets, on examples that the classifier did not see
  (stratified folds); worse than chance counts as chance. Departs from the papers in the
  classifier, ridge regression on standardised features with a penalty chosen by leave-one-out,
  where they take a support vector machine.
  """
  x, y = checked(x, y)
  if not np.ptp(np.concatenate([x, y]), axis=0).any():  # every answer would be a rounding error's
    return 0.0
  sides = np.repeat([0, 1], [len(x), len(y)])
  parts = StratifiedKFold(min(folds, len(x), len(y)), shuffle=True, random_state=seed)
  probe = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES, class_weight='balanced'))
  said = cross_val_predict(probe, np.concatenate([x, y]), sides, cv=parts)
  return float(2 * max(0.0, 2 * balanced_accuracy_score(sides, said) - 1))
