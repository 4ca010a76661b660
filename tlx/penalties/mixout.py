"""Mixout: each weight is the source's at random steps (Lee, Cho and Kang 2020)."""

import functools
import zlib

import jax
import jax.numpy as jnp

from tlx.penalties import Penalty, map_both
from tlx.types import Array, PyTree


@functools.cache
def penalty(rate: float = 0.9) -> Penalty:
  """In training each entry of a kernel is the source's with probability `rate`: `mixed`.

  It reaches kernels that the source brings, of convolutions too (the official code: of linear
  layers); not biases, norms, embeddings and the new head. Departs from that code
  (bloodwass/mixout) in two things: each entry is drawn by itself, as equation 4 has it, where
  there all weights that leave an input are drawn together; and gradients are those of what the
  network ran with, where its `backward` leaves the 1 / (1 - rate) of its `forward` out. So to it
  a rate here is as 1 / (1 - rate) times that on the kernels; Adam's steps do not depend on it.

  Raises:
    ValueError: a rate outside [0, 1).
  """
  if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate < 1:
    raise ValueError(f'rate is a probability in [0, 1), got {rate!r}.')

  def replace(key: Array, trained: PyTree, source: PyTree) -> PyTree:
    def of_leaf(name: str, new: Array, old: Array | None) -> Array:
      if old is None or not is_kernel(name):
        return new
      own = jax.random.fold_in(key, zlib.crc32(name.encode()))
      return mixed(new, old, jax.random.bernoulli(own, 1 - rate, new.shape), rate)

    return map_both(of_leaf, trained, source)

  return Penalty(holds=is_kernel, replace=replace)


def is_kernel(name: str) -> bool:
  """Whether a leaf is the matrix of a layer."""
  return name.endswith('/kernel')


def mixed(new: Array, old: Array, kept: Array, rate: float) -> Array:
  """(kept new + (1 - kept) old - rate old) / (1 - rate), whose mean is `new` (equation 4)."""
  return (jnp.where(kept, new, old) - rate * old) / (1 - rate)
