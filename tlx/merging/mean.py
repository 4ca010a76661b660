"""The mean of the weights: a uniform soup, and between a start and one run WiSE-FT."""

from collections.abc import Mapping, Sequence

from tlx import ranges
from tlx.merging import Merged, Score, Vector, everyone, mean_of

RANGES: Mapping[str, ranges.Kind] = {}
OVER = 'settings'
FROM_START = False


def merge(vectors: Sequence[Vector], score: Score) -> Merged:
  """sum_i v_i / M of all M vectors.

  Over settings the uniform soup of Wortsman et al. 2022 (arXiv:2203.05482, section 2); of a single
  run at scale alpha (1 - alpha) start + alpha run, WiSE-FT (arXiv:2109.01903, eq. 1).
  """
  return Merged(mean_of(vectors), everyone(vectors))
