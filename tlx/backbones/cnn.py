"""A small convolutional network for small images: milliseconds a training step on a laptop."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import chain
from tlx.backbones._layers import Conv, Head, choose, compute_dtype, he_normal, resolve, sizes
from tlx.backbones._norms import batch_norm
from tlx.types import Array, Network


class Options(NamedTuple):
  """Sizes that suit images of 16 to 32 px.

  channels: the width of each block; every block halves the image
  hidden: the width of the dense stage, which flattens, so that its parameters fit images of the
  size `init` saw
  norm: 'none', 'batch' or 'group' (groups of 8 channels, or one group where 8 does not divide them)
  """

  channels: tuple[int, ...] = (16, 32, 64)
  hidden: int = 64
  norm: str = 'none'
  dtype: str = 'float32'
  precision: str = 'float32'


def build(num_classes: int, **options: Any) -> Network:
  """The network with stages block1, block2, ..., fc and head.

  Raises:
    ValueError: a bad option.
  """
  o = resolve(Options(), {}, None, options)
  choose('norm', o.norm, ('none', 'batch', 'group'))
  sizes('hidden', (o.hidden,))
  dtype = compute_dtype(o.dtype)
  blocks = [
    (f'block{i}', Block(channels, o.norm, dtype))
    for i, channels in enumerate(sizes('channels', o.channels), 1)
  ]
  return chain([*blocks, ('fc', Dense(o.hidden, dtype)), ('head', Head(num_classes))], o.precision)


class Block(nn.Module):
  """A 3x3 convolution of stride 2, norm, ReLU: [B, H, W, C] to [B, ceil(H / 2), ceil(W / 2), K].

  Striding costs a third of what convolving every place and max-pooling does.
  """

  channels: int
  norm: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = Conv(
      self.channels,
      stride=2,
      padding=1,
      use_bias=self.norm == 'none',
      dtype=self.dtype,
      name='conv',
    )(x)
    if self.norm == 'batch':
      x = batch_norm(x, train, 'norm')
    if self.norm == 'group':
      size = 8 if self.channels % 8 == 0 else self.channels
      x = nn.GroupNorm(None, size, dtype=self.dtype, use_fast_variance=False, name='norm')(x)
    return nn.relu(x)


class Dense(nn.Module):
  """relu(x W + b) of flattened activations: [B, ...] to [B, D]."""

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = x.reshape(x.shape[0], -1)
    return nn.relu(nn.Dense(self.width, dtype=self.dtype, kernel_init=he_normal, name='linear')(x))


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  inputs = np.random.default_rng(0).normal(size=(4, 9, 8, 2)).astype('float32')
  return {'num_classes': 3, 'channels': (4, 8), 'hidden': 6, 'norm': 'batch'}, inputs
