"""The Fréchet distance of two Gaussians (Dowson and Landau 1982; the FID of Heusel et al. 2017)."""

import numpy as np

from tlx.distances import checked


def distance(x, y) -> float:
  """|mean_x - mean_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), in squared units of the features.

  Covariances S by N - 1. The last trace is the sum of the singular values of X_c Y_c^T, which needs
  no square root of a matrix, so that fewer examples than features are no special case. Grows with
  fewer examples: compare distances of as many.
  """
  x, y = checked(x, y)
  between = float(((x.mean(0) - y.mean(0)) ** 2).sum())
  x, y = ((part - part.mean(0)) / np.sqrt(len(part) - 1) for part in (x, y))
  if min(len(x), len(y)) > x.shape[1]:  # a [D, D] factor of each covariance does as well
    x, y = (np.linalg.qr(part, mode='r') for part in (x, y))
  shared = np.linalg.svd(x @ y.T, compute_uv=False).sum()
  return max(0.0, between + float((x**2).sum() + (y**2).sum() - 2 * shared))
