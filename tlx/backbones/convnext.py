"""ConvNeXt (arXiv:2201.03545) with names of timm, torchvision, transformers, the official code."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _config, _names, chain
from tlx.backbones._layers import Conv, Head, compute_dtype, resolve, sizes
from tlx.types import Array, Network


class Options(NamedTuple):
  """The sizes of ConvNeXt-T.

  layers: blocks in each of the groups layer1, layer2, ...; every group but the first halves the
  image
  channels: the width of each group
  layer_scale: the initial value of each block's learned scale per channel
  norm_eps: of every norm; pool_eps: of that after the pooling where it has another (transformers)
  """

  layers: tuple[int, ...] = (3, 3, 9, 3)
  channels: tuple[int, ...] = (96, 192, 384, 768)
  layer_scale: float = 1e-6
  norm_eps: float = 1e-6
  pool_eps: float | None = None
  dtype: str = 'float32'
  precision: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {
  'convnext_tiny': {},
  'convnext_small': {'layers': (3, 3, 27, 3)},
  'convnext_base': {'layers': (3, 3, 27, 3), 'channels': (128, 256, 512, 1024)},
  'convnext_large': {'layers': (3, 3, 27, 3), 'channels': (192, 384, 768, 1536)},
  'convnext_xlarge': {'layers': (3, 3, 27, 3), 'channels': (256, 512, 1024, 2048)},
}
IGNORE = ()
weight_init = nn.initializers.truncated_normal(0.02)


def build(num_classes: int, variant: str | None = None, **options: Any) -> Network:
  """The network with stages stem, layer1_0, ..., layer4_2 (one a block), pool (mean, norm), head.

  Departs from the official code in having no stochastic depth.

  Raises:
    ValueError: a bad option.
  """
  o = _resolve(variant, options)
  blocks = []
  for group, number in enumerate(o.layers, 1):
    for i in range(number):
      down = i == 0 and group > 1
      blocks.append((f'layer{group}_{i}', Block(o, o.channels[group - 1], down)))
  return chain(
    [('stem', Stem(o)), *blocks, ('pool', Pool(o)), ('head', Head(num_classes))], o.precision
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked."""
  o = resolve(Options(), VARIANTS, variant, options)
  layers = sizes('layers', o.layers)
  return o._replace(layers=layers, channels=sizes('channels', o.channels, len(layers)))


class Stem(nn.Module):
  """A convolution of disjoint 4x4 patches and a layer norm: [B, H, W, C] to [B, H/4, W/4, K]."""

  o: Options

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return _norm(self.o, 'norm')(_conv(self.o, self.o.channels[0], 'conv', 4, 4)(x))


class Block(nn.Module):
  """x + scale * mlp(norm(depthwise 7x7 convolution of x)); if `down`, a norm and halving first."""

  o: Options
  channels: int
  down: bool

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    o, dtype = self.o, compute_dtype(self.o.dtype)
    if self.down:
      x = _conv(o, self.channels, 'down', 2, 2)(_norm(o, 'norm_down')(x))
    y = Conv(
      self.channels,
      7,
      1,
      3,
      depthwise=True,
      use_bias=True,
      dtype=dtype,
      kernel_init=weight_init,
      name='conv',
    )(x)
    y = nn.Dense(4 * self.channels, dtype=dtype, kernel_init=weight_init, name='up')(
      _norm(o, 'norm')(y)
    )
    y = nn.Dense(self.channels, dtype=dtype, kernel_init=weight_init, name='project')(
      nn.gelu(y, approximate=False)
    )
    scale = self.param(
      'layer_scale', nn.initializers.constant(o.layer_scale), (self.channels,), jnp.float32
    )
    return x + y * scale.astype(dtype)


class Pool(nn.Module):
  """The layer norm of the mean over an image's places: [B, H, W, C] to [B, C]."""

  o: Options

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    o = self.o if self.o.pool_eps is None else self.o._replace(norm_eps=self.o.pool_eps)
    return _norm(o, 'norm')(x.mean((1, 2), dtype=jnp.float32))


def _conv(o: Options, channels: int, name: str, width: int, stride: int) -> nn.Module:
  return Conv(
    channels,
    width,
    stride,
    use_bias=True,
    dtype=compute_dtype(o.dtype),
    kernel_init=weight_init,
    name=name,
  )


def _norm(o: Options, name: str) -> nn.Module:
  return nn.LayerNorm(o.norm_eps, compute_dtype(o.dtype), use_fast_variance=False, name=name)


# Per layout: the stem's convolution and norm; a group's norm and halving convolution by {group}
# from 0; a block's pieces by {i}; the last norm and the head. torchvision counts its
# norms-and-halvings and groups in one list.
LAYOUTS = {
  'timm': {
    'stem': ('stem.0', 'stem.1'),
    'down': ('stages.{group}.downsample.0', 'stages.{group}.downsample.1'),
    'block': 'stages.{group}.blocks.{i}.',
    'pieces': ('conv_dw', 'norm', 'mlp.fc1', 'mlp.fc2', 'gamma'),
    'end': ('head.norm', 'head.fc'),
  },
  'official': {
    'stem': ('downsample_layers.0.0', 'downsample_layers.0.1'),
    'down': ('downsample_layers.{group}.0', 'downsample_layers.{group}.1'),
    'block': 'stages.{group}.{i}.',
    'pieces': ('dwconv', 'norm', 'pwconv1', 'pwconv2', 'gamma'),
    'end': ('norm', 'head'),
  },
  'torchvision': {
    'stem': ('features.0.0', 'features.0.1'),
    'down': ('features.{even}.0', 'features.{even}.1'),
    'block': 'features.{odd}.{i}.',
    'pieces': ('block.0', 'block.2', 'block.3', 'block.5', 'layer_scale'),
    'end': ('classifier.0', 'classifier.2'),
  },
  'transformers': {
    'stem': ('embeddings.patch_embeddings', 'embeddings.layernorm'),
    'down': (
      'encoder.stages.{group}.downsampling_layer.0',
      'encoder.stages.{group}.downsampling_layer.1',
    ),
    'block': 'encoder.stages.{group}.layers.{i}.',
    'pieces': ('dwconv', 'layernorm', 'pwconv1', 'pwconv2', 'layer_scale_parameter'),
    'end': ('layernorm', 'classifier'),
  },
}


def names(arrays: Mapping[str, np.ndarray], variant: str | None = None, **options: Any) -> NameMap:
  """The names in `arrays`, of the layout that has most of them, for a network of these options."""
  o = _resolve(variant, options)
  maps = [_names_in(layout, arrays, o) for layout in LAYOUTS.values()]
  return max(maps, key=lambda found: sum(theirs in arrays for theirs, _ in found.values()))


def _names_in(layout: Mapping[str, Any], arrays: Mapping[str, np.ndarray], o: Options) -> NameMap:
  """The name map of one layout."""
  found = {
    **_names.conv('stem/conv', layout['stem'][0], True),
    **_names.norm('stem/norm', layout['stem'][1]),
    **_names.norm('pool/norm', layout['end'][0]),
  }
  conv, norm, up, project, scale = layout['pieces']
  for group, number in enumerate(o.layers):
    place = {'group': group, 'even': 2 * group, 'odd': 2 * group + 1}
    if group > 0:
      found |= _names.norm(f'layer{group + 1}_0/norm_down', layout['down'][0].format(**place))
      found |= _names.conv(f'layer{group + 1}_0/down', layout['down'][1].format(**place), True)
    for i in range(number):
      ours, theirs = f'layer{group + 1}_{i}/', layout['block'].format(i=i, **place)
      found |= _names.conv(f'{ours}conv', theirs + conv, True) | _names.norm(
        f'{ours}norm', theirs + norm
      )
      found |= _names.dense(f'{ours}up', theirs + up) | _names.dense(
        f'{ours}project', theirs + project
      )
      found[f'{ours}layer_scale'] = (theirs + scale, np.ravel)
  prefix = _names.prefix_of(arrays, f'{layout["stem"][0]}.weight')
  head = _names.dense('head', layout['end'][1])
  return {
    **_names.prefixed(prefix, found),
    **(head if layout['end'][1] == 'classifier' else _names.prefixed(prefix, head)),
  }


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = ('norm_eps', 'pool_eps')
ASSUMED = (
  'The MLP is taken to have the exact GELU, and the last norm to stand after the pooling.',
)
HEADS = r'ConvNextModel|ConvNextForImageClassification'
TIMM = ('convnext',)
READ = (
  'hidden_sizes',
  'depths',
  'hidden_act',
  'layer_norm_eps',
  'layer_scale_init_value',
  'patch_size',
  'num_stages',
  'num_channels',
  'image_size',
  'global_pool',
  'model_args',
)


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of transformers or timm asks for.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  if 'architecture' in config:
    name = re.sub(r'_(1k|22k|in22ft1k|in22k)\w*$', '', config['architecture'])
    if name not in VARIANTS:
      raise _config.refused(
        'architecture',
        config['architecture'],
        f'convnext computes of timm {", ".join(VARIANTS)} only',
      )
    _config.timm_args(config)
    _config.only(config, {'global_pool': ('avg', '')}, 'convnext')
    o = _resolve(name, {})
    return {
      option: ('architecture', getattr(o, option))
      for option in ('layers', 'channels', 'norm_eps', 'pool_eps')
    }
  _config.only(
    config,
    {
      'model_type': ('convnext',),
      'hidden_act': ('gelu', 'gelu_python'),
      'patch_size': (4,),
      'num_channels': (3,),
    },
    'convnext',
  )
  found = _config.given(
    config, {'layers': 'depths', 'channels': 'hidden_sizes', 'pool_eps': 'layer_norm_eps'}
  )
  # transformers does not take the epsilon of the other norms from its config
  return {**_config.hashable(found), 'norm_eps': ('model_type', 1e-6)}


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """The preprocessing of ImageNet's weights; mean and std are for values in 0..1 (uint8 / 255)."""
  _resolve(variant, options)
  return {**_names.IMAGENET_INPUT, 'interpolation': 'bicubic'}


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  inputs = np.random.default_rng(0).normal(size=(4, 16, 8, 3)).astype('float32')
  return {'num_classes': 3, 'layers': (1, 2), 'channels': (4, 6), 'layer_scale': 0.5}, inputs
