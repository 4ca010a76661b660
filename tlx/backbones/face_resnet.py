"""The face-recognition network of dlib (King 2017) as converted for face-api: a ResNet of 29 layers
with a 128-number descriptor.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _names, chain
from tlx.backbones._layers import (
  Conv,
  Head,
  Pool,
  check_window,
  compute_dtype,
  max_pool,
  resolve,
  sizes,
)
from tlx.types import Array, Network


class Options(NamedTuple):
  """The sizes of the published network: per group of channels its residual blocks, and whether a
  last halving block follows.
  """

  channels: tuple[int, ...] = (32, 64, 128, 256)
  layers: tuple[int, ...] = (3, 4, 3, 3)
  descriptor: int = 128
  dtype: str = 'float32'
  precision: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {}
IGNORE = ()


def build(num_classes: int, variant: str | None = None, **options: Any) -> Network:
  """The network with stages stem, conv32_1, ..., conv256_down_out, pool, descriptor and head.

  Blocks have the names of the published file; '_down' ones halve the image.

  Raises:
    ValueError: a bad option.
  """
  o = _resolve(variant, options)
  blocks = [(name, Block(o, channels, 'down' in name)) for name, channels in blocks_of(o)]
  return chain(
    [
      ('stem', Stem(o)),
      *blocks,
      ('pool', Pool()),
      ('descriptor', Descriptor(o)),
      ('head', Head(num_classes)),
    ],
    o.precision,
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked."""
  o = resolve(Options(), VARIANTS, variant, options)
  channels = sizes('channels', o.channels)
  sizes('descriptor', (o.descriptor,))
  return o._replace(channels=channels, layers=sizes('layers', o.layers, len(channels)))


def blocks_of(o: Options) -> list[tuple[str, int]]:
  """(name, channels) of the residual blocks; every group but the first begins with a halving one,
  and one more ends the last.
  """
  blocks = []
  for group, (channels, number) in enumerate(zip(o.channels, o.layers)):
    names = (
      [f'conv{channels}_{i}' for i in range(1, number + 1)]
      if group == 0
      else [f'conv{channels}_down', *(f'conv{channels}_{i}' for i in range(1, number))]
    )
    blocks += [(name, channels) for name in names]
  return [*blocks, (f'conv{o.channels[-1]}_down_out', o.channels[-1])]


class Affine(nn.Module):
  """scale * x + bias per channel: what is left of a batch norm after training."""

  dtype: jnp.dtype
  scale: float = 1.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param('scale', nn.initializers.constant(self.scale), (x.shape[-1],), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],), jnp.float32)
    return x * scale.astype(self.dtype) + bias.astype(self.dtype)


class Stem(nn.Module):
  """A 7x7 convolution and a 3x3 maximum, each of stride 2 and without padding: 150 px to 35."""

  o: Options

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    dtype = compute_dtype(self.o.dtype)
    x = Conv(self.o.channels[0], 7, 2, use_bias=True, dtype=dtype, name='conv')(x)
    return max_pool(nn.relu(Affine(dtype, name='affine')(x)), 3, 2)


class Block(nn.Module):
  """relu(x + two 3x3 convolutions of x). Where `down`, x is averaged by 2x2 and the shorter of the
  two sums gets zeros.
  """

  o: Options
  channels: int
  down: bool

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    dtype = compute_dtype(self.o.dtype)
    stride, padding = (2, 0) if self.down else (1, 1)
    y = Conv(self.channels, 3, stride, padding, use_bias=True, dtype=dtype, name='conv1')(x)
    y = nn.relu(Affine(dtype, name='affine1')(y))
    y = Conv(self.channels, 3, 1, 1, use_bias=True, dtype=dtype, name='conv2')(y)
    # untrained: a small branch keeps the sum of fourteen blocks in range
    y = Affine(dtype, 0.2, name='affine2')(y)
    if self.down:
      check_window(x.shape[1:3], (2, 2))
      x = nn.avg_pool(x, (2, 2), (2, 2))
      x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.channels - x.shape[3])))
      y = jnp.pad(y, ((0, 0), (0, x.shape[1] - y.shape[1]), (0, x.shape[2] - y.shape[2]), (0, 0)))
    return nn.relu(x + y)


class Descriptor(nn.Module):
  """The 128 numbers that tell faces apart: a linear map without bias."""

  o: Options

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return nn.Dense(self.o.descriptor, False, compute_dtype(self.o.dtype), name='linear')(x)


def names(arrays: Mapping[str, np.ndarray], variant: str | None = None, **options: Any) -> NameMap:
  """The names of face_recognition_model, whose kernels are laid out as ours, for these options.

  The file has no head: leave ours fresh.
  """
  o = _resolve(variant, options)
  found = _layer('stem/', '', f'conv{o.channels[0]}_down')
  for block, _ in blocks_of(o):
    found |= _layer(f'{block}/', '1', f'{block}/conv1') | _layer(f'{block}/', '2', f'{block}/conv2')
  found['descriptor/linear/kernel'] = ('fc', _names.same)
  return _names.prefixed(_names.prefix_of(arrays, f'conv{o.channels[0]}_down/conv/filters'), found)


def _layer(ours: str, number: str, theirs: str) -> dict:
  """Entries for one convolution and the scaling after it."""
  pairs = {
    f'conv{number}/kernel': 'conv/filters',
    f'conv{number}/bias': 'conv/bias',
    f'affine{number}/scale': 'scale/weights',
    f'affine{number}/bias': 'scale/biases',
  }
  return {ours + mine: (f'{theirs}/{their}', _names.same) for mine, their in pairs.items()}


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """The preprocessing of the weights; mean and std are for values in 0..1 (uint8 / 255).

  face-api pads an image to a square, in its middle, rather than cropping it.
  """
  _resolve(variant, options)
  return {
    'image_size': 150,
    'channels': 3,
    'mean': (122.782 / 255, 117.001 / 255, 104.298 / 255),
    'std': (1.0, 1.0, 1.0),
    'interpolation': 'bilinear',
    'fit': 'pad',
    'crop': 1.0,
  }


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  inputs = np.random.default_rng(0).normal(size=(4, 66, 62, 3)).astype('float32')
  return {'num_classes': 3, 'channels': (4, 6), 'layers': (1, 2), 'descriptor': 5}, inputs
