"""Task arithmetic: the sum of task vectors, to learn several tasks or to forget one."""

from collections.abc import Mapping, Sequence

import numpy as np

from tlx import ranges
from tlx.merging import Merged, Score, Vector, everyone

RANGES: Mapping[str, ranges.Kind] = {}
OVER = 'targets'
FROM_START = True


def merge(vectors: Sequence[Vector], score: Score) -> Merged:
  """sum_i v_i (Ilharco et al. 2023, arXiv:2212.04089, section 2), which `scale` multiplies: their
  lambda, below 0 to negate a task.
  """
  total = {name: np.sum([vector[name] for vector in vectors], axis=0) for name in vectors[0]}
  return Merged(total, everyone(vectors))
