"""Canonical correlations weighted by how much of the features they carry (Morcos et al. 2018)."""

import numpy as np

from tlx.similarity import canonical, checked


def similarity(x, y) -> float:
  """sum_i a_i rho_i / sum_i a_i with a_i = sum_j |<h_i, x_j>|: the weights are of x, not of y.

  h_i are x's canonical variables (the paper, section 2.2). Two public codes differ from the paper
  and from each other: google/svcca omits a whitening and fails where x has more dimensions than y.
  """
  x, y = checked(x, y)
  correlations, ours, _ = canonical(x, y)
  weights = np.abs(ours.T @ x).sum(1)
  return float(weights @ correlations / weights.sum()) if weights.sum() > 0 else float('nan')
