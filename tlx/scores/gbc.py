"""GBC: Gaussian Bhattacharyya coefficient between classes (Pándy et al. 2022)."""

import numpy as np

from tlx.scores import checked, class_means, principal

NEEDS = ('features',)
LEAST = 1e-4  # variance


def score(labels, features, dims: int = 64, spherical: bool = False) -> float:
  """-sum over ordered pairs of classes of exp(-D_B), in [-C (C - 1), 0].

  Each class is a Gaussian with a variance for each axis (or one for all: `spherical`), on the first
  64 principal axes where there are more features; variances are at least 1e-4. D_B is the
  Bhattacharyya distance. The official spherical form does not multiply the logarithm by the number
  of axes; here it does.
  """
  labels, features = checked(labels, features)
  if features.shape[1] > dims:
    features = principal(features, dims)
  means = class_means(labels, features)
  variances = class_means(labels, (features - means[labels]) ** 2)
  if spherical:
    variances = np.repeat(variances.mean(1, keepdims=True), variances.shape[1], axis=1)
  variances = np.maximum(variances, LEAST)
  total = 0.0
  for mean, variance in zip(means, variances):
    between = (variance + variances) / 2
    apart = ((mean - means) ** 2 / between).sum(1) / 8
    ratio = np.log(between) - (np.log(variance) + np.log(variances)) / 2
    total += float(np.exp(-apart - ratio.sum(1) / 2).sum()) - 1  # that of the class with itself
  return -total
