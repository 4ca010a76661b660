"""Similarity of two representations of the same examples: one measure a file,
`similarity(x, y, **options) -> float` of features [N, D] and [N, E].

In float64 on the host. Features of several places are averaged first, or flattened by who asks.
"""

import numpy as np


def checked(x, y) -> tuple[np.ndarray, np.ndarray]:
  """Both in float64, each minus its mean over the examples.

  Raises:
    ValueError: no two arrays [N, D] and [N, E] of two examples or more, or values not finite.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
    raise ValueError(f'Wanted features [N, D] and [N, E] with N > 1, got {x.shape} and {y.shape}.')
  if not (np.isfinite(x).all() and np.isfinite(y).all()):
    raise ValueError('Features are not finite.')
  x, y = x - x[0], y - y[0]  # a constant is then exactly 0
  return x - x.mean(0), y - y.mean(0)


def canonical(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(correlations [K], canonical variables [N, K] of x, and of y) of centred features.

  By orthonormal bases of what each spans, K = min(rank x, rank y) (Björck and Golub 1973), largest
  first.
  """
  ours, theirs = basis(x), basis(y)
  left, correlations, right = np.linalg.svd(ours.T @ theirs, full_matrices=False)
  return np.minimum(correlations, 1.0), ours @ left, theirs @ right.T


def basis(x: np.ndarray) -> np.ndarray:
  """[N, rank], orthonormal columns that span those of x."""
  left, singular, _ = np.linalg.svd(x, full_matrices=False)
  least = singular.max(initial=0.0) * max(x.shape) * np.finfo(float).eps
  return left[:, singular > least]
