"""NLEEP: LEEP on the clusters of the features, for sources without a head (Li et al. 2021)."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from tlx.scores import checked, log_leep

NEEDS = ('features',)


def score(labels, features, kept: float = 0.8, seed: int = 123) -> float:
  """LEEP with the posteriors of a Gaussian mixture in the place of the source's probabilities.

  Principal axes that keep this share of the variance, then five components a class (of at most half
  as many as there are examples), fitted from k-means of this seed. The official code sets no seed
  and leaves the logarithm out; its numbers cannot be had twice.
  """
  labels, features = checked(labels, features)
  if not np.ptp(features, axis=0).any():
    features = np.zeros((len(features), 1))
  else:
    features = PCA(n_components=kept, svd_solver='full').fit_transform(features)
  components = min(5 * (int(labels.max()) + 1), max(len(labels) // 2, 1))
  if components > len(np.unique(features, axis=0)):
    components = len(np.unique(features, axis=0))
  mixture = GaussianMixture(components, random_state=seed).fit(features)
  return log_leep(labels, mixture.predict_proba(features))
