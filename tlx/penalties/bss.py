"""BSS: the smallest singular values of the batch's features (Chen et al. 2019)."""

import functools

import jax.numpy as jnp

from tlx.penalties import Penalty, Seen, check_amounts, check_count, last
from tlx.types import Array


@functools.cache
def penalty(alpha: float = 1e-3, k: int = 1) -> Penalty:
  """alpha times the sum of the squares of the k smallest singular values of features [B, D].

  There are min(B, D) of them (equation 3). Of a batch in parts it is the mean over the parts.
  """
  check_amounts(alpha=alpha)
  check_count('k', k, 1)

  def value(seen: Seen) -> Array:
    return alpha * smallest(last(seen.stages), k)

  return Penalty(frozenset({'features', 'vector'}), value=value)


def smallest(features: Array, k: int) -> Array:
  """The sum of the squares of the k smallest singular values."""
  values = jnp.linalg.svd(features.astype(jnp.float32), compute_uv=False)
  return jnp.sum(values[-k:] ** 2)
