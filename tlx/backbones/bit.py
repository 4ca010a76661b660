"""Big Transfer (arXiv:1912.11370): pre-activation ResNets with group norm and weight
standardisation, as in timm's ResNetV2.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _config, _names, chain
from tlx.backbones._layers import Conv, Head, Pool, compute_dtype, max_pool, resolve, sizes
from tlx.types import Array, Network


class Options(NamedTuple):
  """The sizes of BiT-R50x1.

  layers: residual blocks in each of the groups layer1, layer2, ...; every group but the first
  halves the image
  channels: the output width of each group; within a block it is a quarter of that, in multiples of
  8
  groups: groups of every group norm
  weight_eps: what is added to the variance of a kernel when it is standardised
  """

  layers: tuple[int, ...] = (3, 4, 6, 3)
  channels: tuple[int, ...] = (256, 512, 1024, 2048)
  stem_channels: int = 64
  groups: int = 32
  norm_eps: float = 1e-5
  weight_eps: float = 1e-8
  dtype: str = 'float32'
  precision: str = 'float32'


def _variant(layers: tuple[int, ...], wide: int) -> dict[str, Any]:
  channels = (256 * wide, 512 * wide, 1024 * wide, 2048 * wide)
  return {'layers': layers, 'stem_channels': 64 * wide, 'channels': channels}


VARIANTS: dict[str, dict[str, Any]] = {
  'bit_r50x1': _variant((3, 4, 6, 3), 1),
  'bit_r50x3': _variant((3, 4, 6, 3), 3),
  'bit_r101x1': _variant((3, 4, 23, 3), 1),
  'bit_r101x3': _variant((3, 4, 23, 3), 3),
  'bit_r152x2': _variant((3, 8, 36, 3), 2),
  'bit_r152x4': _variant((3, 8, 36, 3), 4),
}
IGNORE = ()


def build(num_classes: int, variant: str | None = None, **options: Any) -> Network:
  """The network with stages stem, layer1_0, ..., layer4_2 (one a residual block), norm, pool, head.

  Raises:
    ValueError: a bad option.
  """
  o = _resolve(variant, options)
  blocks = []
  for group, number in enumerate(o.layers, 1):
    for i in range(number):
      stride = 2 if i == 0 and group > 1 else 1
      blocks.append((f'layer{group}_{i}', Block(o, o.channels[group - 1], stride, i == 0)))
  return chain(
    [('stem', Stem(o)), *blocks, ('norm', Norm(o)), ('pool', Pool()), ('head', Head(num_classes))],
    o.precision,
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked."""
  o = resolve(Options(), VARIANTS, variant, options)
  layers = sizes('layers', o.layers)
  o = o._replace(layers=layers, channels=sizes('channels', o.channels, len(layers)))
  sizes('stem_channels, groups', (o.stem_channels, o.groups), 2)
  widths = [o.stem_channels, *o.channels, *(inner(channels) for channels in o.channels)]
  if any(width % o.groups for width in widths):
    raise ValueError(
      f'Option groups is {o.groups}, which does not divide all of the widths {widths}; choose '
      'other groups.'
    )
  return o


def inner(channels: int) -> int:
  """The width within a block: a quarter of its output, rounded to a multiple of 8 but never by more
  than a tenth down.
  """
  rounded = max(8, (channels // 4 + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * channels / 4 else rounded


class StandardConv(Conv):
  """A convolution whose kernel has mean 0 and variance 1 for each output (arXiv:1903.10520)."""

  epsilon: float = 1e-8

  def used(self, kernel: Array) -> Array:
    mean, variance = kernel.mean((0, 1, 2)), kernel.var((0, 1, 2))
    return (kernel - mean) / jnp.sqrt(variance + self.epsilon)


class Stem(nn.Module):
  """A 7x7 convolution and a 3x3 maximum over zero padding, each of stride 2: [B, H, W, C] to [B,
  H/4, W/4, stem_channels].
  """

  o: Options

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return max_pool(_conv(self.o, self.o.stem_channels, 'conv', 7, 2)(x), 3, 2, 1)


class Block(nn.Module):
  """skip(x) + convolutions(relu(norm(x))); a group's first skip projects relu(norm(x))."""

  o: Options
  channels: int
  stride: int
  first: bool

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    o, width = self.o, inner(self.channels)
    y = nn.relu(_norm(o, 'norm1')(x))
    if self.first:
      x = _conv(o, self.channels, 'conv_skip', 1, self.stride)(y)
    y = _conv(o, width, 'conv1', 1)(y)
    y = _conv(o, width, 'conv2', 3, self.stride)(nn.relu(_norm(o, 'norm2')(y)))
    return x + _conv(o, self.channels, 'conv3', 1)(nn.relu(_norm(o, 'norm3')(y)))


class Norm(nn.Module):
  """relu(norm(x)) of the last block's output."""

  o: Options

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return nn.relu(_norm(self.o, 'norm')(x))


def _conv(o: Options, channels: int, name: str, width: int, stride: int = 1) -> nn.Module:
  return StandardConv(
    channels,
    width,
    stride,
    width // 2,
    dtype=compute_dtype(o.dtype),
    epsilon=o.weight_eps,
    name=name,
  )


def _norm(o: Options, name: str) -> nn.Module:
  return nn.GroupNorm(
    o.groups, epsilon=o.norm_eps, dtype=compute_dtype(o.dtype), use_fast_variance=False, name=name
  )


def names(arrays: Mapping[str, np.ndarray], variant: str | None = None, **options: Any) -> NameMap:
  """The names in `arrays`, timm's or the official .npz files', for a network of these options."""
  o = _resolve(variant, options)
  if any('standardized_conv2d' in name for name in arrays):
    return _official(o, _names.prefix_of(arrays, 'root_block/standardized_conv2d/kernel'))
  found = {
    **_names.conv('stem/conv', 'stem.conv'),
    **_names.norm('norm/norm', 'norm'),
    **_names.dense('head', 'head.fc'),
  }
  for group, number in enumerate(o.layers, 1):
    for i in range(number):
      ours, theirs = f'layer{group}_{i}/', f'stages.{group - 1}.blocks.{i}.'
      for k in (1, 2, 3):
        found |= _names.norm(f'{ours}norm{k}', f'{theirs}norm{k}') | _names.conv(
          f'{ours}conv{k}', f'{theirs}conv{k}'
        )
      if i == 0:
        found |= _names.conv(f'{ours}conv_skip', f'{theirs}downsample.conv')
  return _names.prefixed(_names.prefix_of(arrays, 'stem.conv.weight'), found)


def _official(o: Options, prefix: str) -> NameMap:
  """The names of the .npz files of the paper, whose kernels are laid out as ours."""
  conv = 'standardized_conv2d/kernel'
  found = {
    'stem/conv/kernel': (f'root_block/{conv}', _names.same),
    'head/bias': ('head/conv2d/bias', np.ravel),
    'head/kernel': ('head/conv2d/kernel', lambda kernel: kernel[0, 0]),
  }

  def norm(ours: str, theirs: str) -> None:
    found[f'{ours}/scale'] = (f'{theirs}group_norm/gamma', np.ravel)
    found[f'{ours}/bias'] = (f'{theirs}group_norm/beta', np.ravel)

  norm('norm/norm', '')
  for group, number in enumerate(o.layers, 1):
    for i in range(number):
      ours, theirs = f'layer{group}_{i}/', f'block{group}/unit{i + 1:02d}/'
      for k, letter in enumerate('abc', 1):
        norm(f'{ours}norm{k}', f'{theirs}{letter}/')
        found[f'{ours}conv{k}/kernel'] = (f'{theirs}{letter}/{conv}', _names.same)
      if i == 0:
        found[f'{ours}conv_skip/kernel'] = (f'{theirs}a/proj/{conv}', _names.same)
  return _names.prefixed(prefix, found)


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = ('groups', 'norm_eps', 'weight_eps')
ASSUMED = ('Groups are taken to have the strides 1, 2, 2, 2, and the stem zeros around it.',)
HEADS = r'(?!)'
TIMM = ('resnetv2',)
READ = ('global_pool', 'model_args')


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of timm asks for.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  if 'architecture' not in config:
    _config.only(config, {'model_type': ()}, 'bit')
    return {}
  name = re.fullmatch(r'resnetv2_(\d+x\d)_bit\w*', config['architecture'])
  if not name or (variant := f'bit_r{name[1]}') not in VARIANTS:
    raise _config.refused(
      'architecture',
      config['architecture'],
      'bit computes of timm resnetv2_50x1_bit and its larger ones only',
    )
  _config.timm_args(config)
  _config.only(config, {'global_pool': ('avg', '')}, 'bit')
  o = _resolve(variant, {})
  ours = ('dtype', 'precision')
  return {
    option: ('architecture', getattr(o, option)) for option in o._fields if option not in ours
  }


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """The preprocessing of the public weights; mean and std are for values in 0..1 (uint8 / 255).

  The official code squeezes images to a square. The size is that of pre-training; BiT-HyperRule
  takes 128 for images of less than 96 x 96 and 480 for larger ones.
  """
  _resolve(variant, options)
  return {
    **_names.IMAGENET_INPUT,
    'mean': (0.5, 0.5, 0.5),
    'std': (0.5, 0.5, 0.5),
    'fit': 'squeeze',
    'crop': 1.0,
  }


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  inputs = np.random.default_rng(0).normal(size=(4, 18, 16, 3)).astype('float32')
  return {
    'num_classes': 3,
    'layers': (2, 1),
    'channels': (8, 16),
    'stem_channels': 8,
    'groups': 4,
  }, inputs
