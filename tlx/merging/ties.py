"""TIES: trim, elect a sign, and take the mean of the values that have it."""

from collections.abc import Mapping, Sequence

import numpy as np

from tlx import ranges
from tlx.merging import Merged, Score, Vector, everyone

RANGES: Mapping[str, ranges.Kind] = {'density': ranges.Range(0.0, 1.0, above=True)}
OVER = 'targets'
FROM_START = True


def merge(vectors: Sequence[Vector], score: Score, density: float = 0.2) -> Merged:
  """Yadav et al. 2023 (arXiv:2306.01708, algorithm 1).

  Of each vector the share `density` of its values that is largest is kept, over all leaves
  together; each place gets the sign of their sum, and the mean of the values of that sign. A sum of
  0 takes the sign of most places, as in the official code (prateeky2806/ties-merging), which keeps
  one value more.
  """
  trimmed = np.stack([_trimmed(vector, density) for vector in vectors])  # [M, P]
  signs = np.sign(trimmed.sum(0))
  signs[signs == 0] = np.sign(signs.sum())
  agrees = trimmed * signs > 0
  flat = (trimmed * agrees).sum(0) / np.maximum(agrees.sum(0), 1)
  found, first = {}, 0
  for name, leaf in vectors[0].items():
    found[name] = flat[first : first + leaf.size].reshape(leaf.shape)
    first += leaf.size
  return Merged(found, everyone(vectors))


def _trimmed(vector: Vector, density: float = 0.2) -> np.ndarray:
  """A vector as one array [P], 0 but for its largest values."""
  flat = np.concatenate([np.ravel(leaf) for leaf in vector.values()])
  smallest = np.argsort(np.abs(flat), kind='stable')[: flat.size - int(density * flat.size)]
  flat[smallest] = 0.0
  return flat
