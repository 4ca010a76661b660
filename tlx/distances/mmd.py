"""Maximum mean discrepancy (Gretton et al. 2012, JMLR 13)."""

import numpy as np

from tlx.distances import checked, squares

ROWS = 2000  # examples of each side; more are drawn from, since memory is their square


def distance(x, y, width: float = 0.0, seed: int = 0) -> float:
  """The unbiased MMD^2 (their equation 3), of the kernel exp(-|a - b|^2 / (2 width^2)).

  0 on average for two draws from one distribution, and below it half of the time; at most 2.

  Args:
    width: 0 takes the median distance of two different examples of both sets together; where that
      is 0 too, such as of constants, their root mean square distance.
    seed: of the draw of ROWS examples of a larger set.
  """
  x, y = checked(x, y)
  random = np.random.default_rng(seed)
  x, y = (
    part[np.sort(random.permutation(len(part))[:ROWS])] if len(part) > ROWS else part
    for part in (x, y)
  )
  far = squares(np.concatenate([x, y]), np.concatenate([x, y]))
  pairs = far[np.triu_indices(len(far), 1)]
  scale = width**2 or float(np.median(pairs)) or float(pairs.mean()) or 1.0
  kernel = np.exp(-far / (2 * scale))
  np.fill_diagonal(kernel, 0.0)
  n, m = len(x), len(y)
  within = kernel[:n, :n].sum() / (n * (n - 1)) + kernel[n:, n:].sum() / (m * (m - 1))
  return float(within - 2 * kernel[:n, n:].mean())
