"""DARE: most of what was learned is dropped at random, the rest made larger, and then merged."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from tlx import ranges
from tlx.merging import Merged, Score, Vector, everyone, mean_of

RANGES: Mapping[str, ranges.Kind] = {
  'drop': ranges.Range(0.0, 1.0, below=True),
  'seed': ranges.Range(0, 2**32 - 1),
}
OVER = 'targets'
FROM_START = True


def merge(vectors: Sequence[Vector], score: Score, drop: float = 0.9, seed: int = 0) -> Merged:
  """The mean of the vectors with each value 0 by the chance `drop`, else 1 / (1 - drop) times
  itself (Yu et al. 2024, arXiv:2311.03099, eq. 3).

  The paper merges what is left by any rule; with scale M lambda the mean of M is their task
  arithmetic of lambda.
  """
  kept = []
  for place, vector in enumerate(vectors):
    own = {}
    for name, leaf in vector.items():
      random = np.random.default_rng((seed, place, zlib.crc32(name.encode())))
      own[name] = leaf * (random.random(leaf.shape) >= drop) / (1 - drop)
    kept.append(own)
  return Merged(mean_of(kept), everyone(vectors))
