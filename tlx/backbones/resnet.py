"""Residual networks (arXiv:1512.03385) as in torchvision and timm: stride on a bottleneck's 3x3."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from tlx.backbones import NameMap, _config, _names, chain
from tlx.backbones._layers import Conv, Head, Pool, choose, compute_dtype, max_pool, resolve, sizes
from tlx.backbones._norms import RELU, batch_norm
from tlx.types import Array, Network


class Options(NamedTuple):
  """The sizes of ResNet-50.

  layers: residual blocks in each of the groups layer1, layer2, ...; every group but the first
  halves the image
  channels: the width of each group's 3x3 convolutions; a bottleneck's output is four times as wide
  block: 'basic' (two 3x3 convolutions) or 'bottleneck' (1x1, 3x3, 1x1)
  """

  layers: tuple[int, ...] = (3, 4, 6, 3)
  channels: tuple[int, ...] = (64, 128, 256, 512)
  block: str = 'bottleneck'
  stem_channels: int = 64
  dtype: str = 'float32'
  precision: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {
  'resnet18': {'layers': (2, 2, 2, 2), 'block': 'basic'},
  'resnet34': {'layers': (3, 4, 6, 3), 'block': 'basic'},
  'resnet50': {},
  'resnet101': {'layers': (3, 4, 23, 3)},
  'resnet152': {'layers': (3, 8, 36, 3)},
}
IGNORE = _names.IGNORE_COUNTERS


def build(num_classes: int, variant: str | None = None, **options: Any) -> Network:
  """The network with stages stem, layer1_0, ..., layer4_2 (one a residual block), pool and head.

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
    [('stem', Stem(o)), *blocks, ('pool', Pool()), ('head', Head(num_classes))], o.precision
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked."""
  o = resolve(Options(), VARIANTS, variant, options)
  layers = sizes('layers', o.layers)
  choose('block', o.block, ('basic', 'bottleneck'))
  sizes('stem_channels', (o.stem_channels,))
  return o._replace(layers=layers, channels=sizes('channels', o.channels, len(layers)))


class Stem(nn.Module):
  """A 7x7 convolution and a 3x3 maximum, each of stride 2: [B, H, W, C] to [B, H/4, W/4, K]."""

  o: Options

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    dtype = compute_dtype(self.o.dtype)
    x = Conv(self.o.stem_channels, 7, 2, 3, dtype=dtype, name='conv')(x)
    return max_pool(batch_norm(x, train, 'norm', bounds=RELU), 3, 2, 1)


class Block(nn.Module):
  """relu(skip(x) + convolutions(x)); a group's first block projects its skip."""

  o: Options
  channels: int
  stride: int
  first: bool

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    dtype = compute_dtype(self.o.dtype)
    layers = convolutions(self.o, self.channels, self.stride)
    y = x
    for i, (channels, width, stride) in enumerate(layers, 1):
      y = Conv(channels, width, stride, width // 2, dtype=dtype, name=f'conv{i}')(y)
      y = batch_norm(y, train, f'norm{i}', bounds=RELU if i < len(layers) else None)
    if self.first and (self.stride > 1 or x.shape[-1] != y.shape[-1]):
      x = Conv(y.shape[-1], 1, self.stride, dtype=dtype, name='conv_skip')(x)
      x = batch_norm(x, train, 'norm_skip')
    return nn.relu(x + y)


def convolutions(o: Options, channels: int, stride: int) -> tuple[tuple[int, int, int], ...]:
  """(channels, width, stride) of a block's convolutions."""
  if o.block == 'basic':
    return (channels, 3, stride), (channels, 3, 1)
  return (channels, 1, 1), (channels, 3, stride), (4 * channels, 1, 1)


def names(arrays: Mapping[str, np.ndarray], variant: str | None = None, **options: Any) -> NameMap:
  """The names in `arrays`, of torchvision, timm or transformers, for a network of these options."""
  o = _resolve(variant, options)
  prefix = _names.prefix_of(arrays, 'embedder.embedder.convolution.weight')
  if f'{prefix}embedder.embedder.convolution.weight' in arrays:
    return _transformers(o, prefix)
  found = {
    **_names.conv('stem/conv', 'conv1'),
    **_names.batch_norm('stem/norm', 'bn1'),
    **_names.dense('head', 'fc'),
  }
  width = o.stem_channels
  for group, number in enumerate(o.layers, 1):
    for i in range(number):
      ours, theirs = f'layer{group}_{i}/', f'layer{group}.{i}.'
      layers = convolutions(o, o.channels[group - 1], 1)
      for k in range(1, len(layers) + 1):
        found |= _names.conv(f'{ours}conv{k}', f'{theirs}conv{k}') | _names.batch_norm(
          f'{ours}norm{k}', f'{theirs}bn{k}'
        )
      if i == 0 and (group > 1 or width != layers[-1][0]):
        found |= _names.conv(f'{ours}conv_skip', f'{theirs}downsample.0')
        found |= _names.batch_norm(f'{ours}norm_skip', f'{theirs}downsample.1')
      width = layers[-1][0]
  return _names.prefixed(_names.prefix_of(arrays, 'layer1.0.conv1.weight'), found)


def _transformers(o: Options, prefix: str) -> NameMap:
  """The names of the transformers library; the head alone has no prefix."""
  found: dict[str, Any] = {}

  def layer(conv: str, norm: str, theirs: str) -> None:
    found.update(
      _names.conv(conv, f'{theirs}.convolution')
      | _names.batch_norm(norm, f'{theirs}.normalization')
    )

  layer('stem/conv', 'stem/norm', 'embedder.embedder')
  for group, number in enumerate(o.layers, 1):
    for i in range(number):
      ours, theirs = f'layer{group}_{i}/', f'encoder.stages.{group - 1}.layers.{i}.'
      for k in range(len(convolutions(o, o.channels[group - 1], 1))):
        layer(f'{ours}conv{k + 1}', f'{ours}norm{k + 1}', f'{theirs}layer.{k}')
      if i == 0:
        layer(f'{ours}conv_skip', f'{ours}norm_skip', f'{theirs}shortcut')
  return {**_names.prefixed(prefix, found), **_names.dense('head', 'classifier.1')}


# What is taken for granted where nothing stands beside the weights: their tensors tell all options.
OPEN = ()
ASSUMED = (
  'Activations are taken to be ReLU, groups to have the strides 1, 2, 2, 2 (on the 3x3 convolution '
  'of a bottleneck), and the stem and strides to be without anti-aliasing.',
)
HEADS = r'ResNetModel|ResNetForImageClassification'
TIMM = ('resnet', 'resnext')
READ = (
  'embedding_size',
  'hidden_sizes',
  'depths',
  'layer_type',
  'hidden_act',
  'downsample_in_first_stage',
  'downsample_in_bottleneck',
  'num_channels',
  'global_pool',
  'model_args',
)


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of transformers or timm asks for.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  if 'architecture' in config:
    name = re.sub(
      r'^(tv_|legacy_|ssl_|swsl_|semi_supervised_|semi_weakly_supervised_)',
      '',
      config['architecture'],
    )
    # recipes of training, in names of files
    name = re.sub(r'^(resnet\d+)_(a\d|b\d|c\d|d\d|ram|tv)\w*$', r'\1', name)
    if name not in VARIANTS:
      raise _config.refused(
        'architecture',
        config['architecture'],
        f'resnet computes of timm {", ".join(VARIANTS)} only',
      )
    _config.timm_args(config)
    _config.only(config, {'global_pool': ('avg', '')}, 'resnet')
    o = _resolve(name, {})
    return {
      option: ('architecture', getattr(o, option))
      for option in ('layers', 'channels', 'block', 'stem_channels')
    }
  _config.only(
    config,
    {
      'model_type': ('resnet',),
      'hidden_act': ('relu',),
      'layer_type': ('basic', 'bottleneck'),
      'downsample_in_first_stage': (False,),
      'downsample_in_bottleneck': (False,),
      'num_channels': (3,),
    },
    'resnet',
  )
  found = _config.given(
    config, {'layers': 'depths', 'stem_channels': 'embedding_size', 'block': 'layer_type'}
  )
  if widths := config.get('hidden_sizes'):
    wide = 1 if config.get('layer_type', 'bottleneck') == 'basic' else 4
    if any(width % wide for width in widths):
      raise _config.refused(
        'hidden_sizes', widths, 'the width of a bottleneck is a quarter of its output'
      )
    found['channels'] = ('hidden_sizes', tuple(width // wide for width in widths))
  return _config.hashable(found)


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """The preprocessing of ImageNet's weights; mean and std are for values in 0..1 (uint8 / 255)."""
  _resolve(variant, options)
  return dict(_names.IMAGENET_INPUT)


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  inputs = np.random.default_rng(0).normal(size=(4, 18, 16, 3)).astype('float32')
  return {
    'num_classes': 3,
    'layers': (2, 1),
    'channels': (4, 6),
    'stem_channels': 4,
    'block': 'basic',
  }, inputs
