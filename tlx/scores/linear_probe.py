"""Cross-validated accuracy of a linear probe."""

import numpy as np
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tlx.scores import checked

NEEDS = ('features',)
PENALTIES = tuple(10.0**power for power in range(-2, 6))


def score(labels, features, folds: int = 5, seed: int = 0) -> float:
  """Accuracy in [0, 1] of ridge regression on one-hot labels, over stratified folds.

  Features are standardised and the penalty chosen by leave-one-out inside each training part. There
  are no more folds than the smallest class has examples.

  Raises:
    ValueError: a class with one example, which cannot be in two parts.
  """
  labels, features = checked(labels, features)
  fewest = int(np.bincount(labels).min())
  if fewest < 2:
    raise ValueError('Cross-validation wants two examples of each class, and one has a single one.')
  parts = StratifiedKFold(min(folds, fewest), shuffle=True, random_state=seed)
  probe = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES))
  return float(cross_val_score(probe, features, labels, cv=parts).mean())
