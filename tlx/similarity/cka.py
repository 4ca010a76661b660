"""Centred kernel alignment (Kornblith et al. 2019), whole or over a stream of batches."""

from typing import NamedTuple

import numpy as np

from tlx.similarity import checked


def similarity(x, y, debiased: bool = False) -> float:
  """Linear CKA, |Yc^T Xc|_F^2 / (|Xc^T Xc|_F |Yc^T Yc|_F), in [0, 1].

  1 where one is a rotation and scaling of the other, NaN where either is constant.

  Args:
    debiased: by HSIC_1 of Song et al. 2012, which is 0 on average for features that have nothing to
      do with each other, and may be below it; wants four examples. The biased one grows with D / N.
  """
  checked(x, y)
  return finish(add(start(), x, y), debiased)


class Moments(NamedTuple):
  """What both forms need of the examples so far: sums over them, of features less `at`."""

  at: tuple[np.ndarray, np.ndarray] | None
  size: int
  sums: tuple[np.ndarray, np.ndarray]  # sum x, sum y
  products: tuple[np.ndarray, np.ndarray, np.ndarray]  # X^T X, Y^T Y, X^T Y
  lengths: np.ndarray  # [2, 2], sum of |x|^2 |x|^2, |x|^2 |y|^2, |y|^2 |y|^2
  weighted: tuple[np.ndarray, ...]  # sum x |x|^2, x |y|^2, y |x|^2, y |y|^2


def start() -> Moments:
  """No examples yet."""
  zero = np.zeros(())
  return Moments(None, 0, (zero, zero), (zero,) * 3, np.zeros((2, 2)), (zero,) * 4)


def add(moments: Moments, x, y) -> Moments:
  """With a further batch [B, D] and [B, E]; memory is that of D^2 + E^2 + D E numbers."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  at = moments.at or (x[0], y[0])  # little cancels, and constants are exactly 0
  x, y = x - at[0], y - at[1]
  long = np.stack([(x**2).sum(1), (y**2).sum(1)])
  return Moments(
    at,
    moments.size + len(x),
    _plus(moments.sums, (x.sum(0), y.sum(0))),
    _plus(moments.products, (x.T @ x, y.T @ y, x.T @ y)),
    moments.lengths + long @ long.T,
    _plus(moments.weighted, (long[0] @ x, long[1] @ x, long[0] @ y, long[1] @ y)),
  )


def _plus(one: tuple, other: tuple) -> tuple:
  return tuple(a + b for a, b in zip(one, other))


def finish(moments: Moments, debiased: bool = False) -> float:
  """CKA of all examples that were added, the same whatever the batches."""
  (sum_x, sum_y), (xx, yy, xy) = moments.sums, moments.products
  size = moments.size
  if not debiased:
    centred = (
      xx - np.outer(sum_x, sum_x) / size,
      yy - np.outer(sum_y, sum_y) / size,
      xy - np.outer(sum_x, sum_y) / size,
    )
    own_x, own_y, both = (float((part**2).sum()) for part in centred)
  else:
    if size < 4:
      raise ValueError(f'Debiased CKA wants four examples or more, got {size}.')
    lengths, (x_x, x_y, y_x, y_y) = moments.lengths, moments.weighted
    own_x = _hsic(size, (sum_x, sum_x), (xx, xx, xx), lengths[0, 0], (x_x, x_x))
    own_y = _hsic(size, (sum_y, sum_y), (yy, yy, yy), lengths[1, 1], (y_y, y_y))
    both = _hsic(size, (sum_x, sum_y), (xx, yy, xy), lengths[0, 1], (x_y, y_x))
  if own_x <= 0 or own_y <= 0:
    return float('nan')
  return float(both / np.sqrt(own_x * own_y))


def _hsic(size: int, sums: tuple, products: tuple, lengths: float, weighted: tuple) -> float:
  """HSIC_1 (Song et al. 2012, equation 5) of linear kernels K and L without their diagonals.

  [tr(KL) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'KL1] / (n (n - 3)), each from sums.

  Args:
    weighted: sum of x |y|^2 and of y |x|^2.
  """
  (sum_x, sum_y), (xx, yy, xy) = sums, products
  trace = float((xy**2).sum()) - lengths
  all_k = float(sum_x @ sum_x - np.trace(xx))
  all_l = float(sum_y @ sum_y - np.trace(yy))
  rows = float(sum_x @ xy @ sum_y - sum_x @ weighted[0] - sum_y @ weighted[1]) + lengths
  inner = trace + all_k * all_l / ((size - 1) * (size - 2)) - 2 / (size - 2) * rows
  return inner / (size * (size - 3))
