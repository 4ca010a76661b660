"""A multilayer perceptron: flattened inputs through dense layers with ReLU."""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import chain
from tlx.backbones._layers import Head, compute_dtype, he_normal, sizes
from tlx.types import Array, Network


def build(num_classes: int, *, widths: Sequence[int] = (128, 128, 128, 64), dtype: str = 'float32') -> Network:
  """The network with stages dense1, dense2, ... and head.

  Raises:
    ValueError: a bad option.
  """
  widths, compute = sizes('widths', widths), compute_dtype(dtype)
  return chain([*((f'dense{i}', Layer(width, compute)) for i, width in enumerate(widths, 1)), ('head', Head(num_classes))])


class Layer(nn.Module):
  """relu(x W + b) of flattened inputs: [B, ...] to [B, D]."""
  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = x.reshape(x.shape[0], -1)
    return nn.relu(nn.Dense(self.width, dtype=self.dtype, kernel_init=he_normal, name='linear')(x))


def tiny() -> tuple[dict, np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  return {'num_classes': 3, 'widths': (6, 5)}, np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype('float32')
