"""CKA with Gaussian kernels (Kornblith et al. 2019)."""

import numpy as np

from tlx.similarity import checked


def similarity(x, y, threshold: float = 1.0) -> float:
  """tr(KHLH) / sqrt(tr(KHKH) tr(LHLH)), in [0, 1]; NaN where either is constant.

  K = exp(-d^2 / (2 threshold^2 median d^2)); the median is over all pairs with the diagonal, as the
  authors' code has it. All pairs are held at once: N^2 numbers.
  """
  one, other = (_centred(_kernel(part, threshold)) for part in checked(x, y))
  sizes = np.linalg.norm(one) * np.linalg.norm(other)
  return float((one * other).sum() / sizes) if sizes > 0 else float('nan')


def _kernel(x: np.ndarray, threshold: float) -> np.ndarray:
  squares = (x**2).sum(1)
  far = np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0)
  median = np.median(far)
  return np.exp(-far / (2 * threshold**2 * median)) if median > 0 else np.ones_like(far)


def _centred(kernel: np.ndarray) -> np.ndarray:
  rows = kernel.mean(0)
  return kernel - rows - rows[:, None] + rows.mean()
