"""The energy term of ETran (Gholami et al. 2023): how much a source knows the inputs."""

import numpy as np
from scipy.special import logsumexp

from tlx.scores import checked

NEEDS = ('features',)


def score(labels, features) -> float:
  """The mean of log sum exp of the features: no label is looked at.

  ETran's classification and regression terms are other scores here (h_score, sfda); the paper adds
  them after a scaling over the compared sources.
  """
  _, features = checked(labels, features)
  return float(np.mean(logsumexp(features, axis=1)))
