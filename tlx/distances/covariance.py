"""How differently two sets of examples vary: CKA with features in the place of examples."""

import numpy as np

from tlx.distances import checked


def distance(x, y) -> float:
  """1 - <S_x, S_y> / (|S_x| |S_y|) of the covariances S [D, D], in [0, 1].

  0 where they vary along the same axes in the same proportions, whatever their means and overall
  scale; 1 where no axis is shared. NaN where one of them is constant. The CKA of X^T and Y^T but
  for their centring, which is over examples here: other examples may be compared.
  """
  x, y = checked(x, y)
  x, y = ((part - part.mean(0)) / np.sqrt(len(part) - 1) for part in (x, y))
  both, ours, theirs = (
    float(((one @ other.T) ** 2).sum()) for one, other in ((x, y), (x, x), (y, y))
  )
  if min(ours, theirs) <= 0:
    return float('nan')
  return float(np.clip(1 - both / np.sqrt(ours * theirs), 0.0, 1.0))
