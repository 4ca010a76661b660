"""How far apart two sets of examples are in one space: one measure a file,
`distance(x, y, **options) -> float` of features [N, D] and [M, D]; larger is further.

The examples are different ones, such as a source's and a target's, and their number need not be the
same. In float64 on the host.
"""

import numpy as np


def checked(x, y) -> tuple[np.ndarray, np.ndarray]:
  """Both in float64, less the mean of x: distances do not depend on where the origin is.

  Raises:
    ValueError: no two arrays [N, D] and [M, D] of two examples or more, or values not finite.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
    raise ValueError(
      f'Wanted features [N, D] and [M, D] of two examples or more each, got {x.shape}, {y.shape}.'
    )
  if not (np.isfinite(x).all() and np.isfinite(y).all()):
    raise ValueError('Features are not finite.')
  at = x.mean(0)
  return x - at, y - at


def squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """[N, M], squared Euclidean distances."""
  return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0.0)
