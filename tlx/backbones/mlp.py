"""A multilayer perceptron: flattened inputs through dense layers with ReLU."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import chain
from tlx.backbones._layers import Head, compute_dtype, he_normal, resolve, sizes
from tlx.types import Array, Network


class Options(NamedTuple):
  """The width of each dense layer."""

  widths: tuple[int, ...] = (128, 128, 128, 64)
  dtype: str = 'float32'
  precision: str = 'float32'


def build(num_classes: int, **options: Any) -> Network:
  """The network with stages dense1, dense2, ... and head.

  Raises:
    ValueError: a bad option.
  """
  o = resolve(Options(), {}, None, options)
  layers = [
    (f'dense{i}', Layer(width, compute_dtype(o.dtype)))
    for i, width in enumerate(sizes('widths', o.widths), 1)
  ]
  return chain([*layers, ('head', Head(num_classes))], o.precision)


class Layer(nn.Module):
  """relu(x W + b) of flattened inputs: [B, ...] to [B, D]."""

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = x.reshape(x.shape[0], -1)
    return nn.relu(nn.Dense(self.width, dtype=self.dtype, kernel_init=he_normal, name='linear')(x))


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  x = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype('float32')
  return {'num_classes': 3, 'widths': (6, 5)}, x
