"""The image towers of CLIP (arXiv:2103.00020) and SigLIP (arXiv:2303.15343).

clip_text.py is the text tower. Features are in the space that both share; a head of class names
there classifies without training (tlx/study/zero_shot.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _clip, _config, _names, _text, _vit, chain
from tlx.backbones._attention import OF_TRANSFORMERS, attend
from tlx.backbones._layers import Head, choose, resolve, sizes
from tlx.types import Array, Network


class Options(NamedTuple):
  """The sizes of CLIP ViT-B/32.

  family: 'clip' (a class token, a norm before the blocks, a projection of the class token) or
  'siglip' (no class token, attention pooling)
  image_size: one number or (height, width), multiples of the patch
  projection: the size of the space shared with texts; None leaves the projection out, as the linear
  probes of the paper do. SigLIP has none
  gelu: 'quick', 'exact' or 'tanh'
  """

  family: str = 'clip'
  dim: int = 768
  depth: int = 12
  heads: int = 12
  patch: int = 32
  image_size: int | Sequence[int] = 224
  mlp_ratio: float = 4.0
  projection: int | None = 512
  gelu: str = 'quick'
  norm_eps: float = 1e-5
  dtype: str = 'float32'
  precision: str = 'float32'


_SIGLIP = {'family': 'siglip', 'projection': None, 'gelu': 'tanh', 'norm_eps': 1e-6}
_LARGE = {'dim': 1024, 'depth': 24, 'heads': 16}
VARIANTS: dict[str, dict[str, Any]] = {
  'b/32': {},
  'b/16': {'patch': 16},
  'l/14': {**_LARGE, 'patch': 14, 'projection': 768},
  'l/14@336': {**_LARGE, 'patch': 14, 'projection': 768, 'image_size': 336},
  'siglip_b/16': {**_SIGLIP, 'patch': 16},
  'siglip_l/16': {**_SIGLIP, **_LARGE, 'patch': 16, 'image_size': 256},
}
# Tensors of public files that the tower does not use: the other tower's, a counted range, the scale
# of the logits, a projection that is left out.
IGNORE = (
  r'^text_model\.',
  r'^(text|visual)_projection\.',
  r'^logit_(scale|bias)$',
  r'position_ids$',
)
TEXT = 'clip_text'  # the backbone of the names of classes, of the same weights


class _Tower(NamedTuple):
  """What the modules of _vit.py read."""

  dim: int
  heads: int
  patch: int
  image_size: int | Sequence[int]
  mlp_ratio: float
  gelu: str
  norm_eps: float
  dtype: str
  class_token: bool
  class_position: bool
  registers: int = 0
  layer_scale: float | None = None
  qkv_bias: bool = True


def build(num_classes: int | None = None, variant: str | None = None, **options: Any) -> Network:
  """The image tower with stages embed, block0, ..., pool ([B, D] in the shared space) and head.

  'pool' has the last norm, the pooling and the projection. Without `num_classes` the head passes on
  what is pooled. Variants are 'b/32', 'l/14@336', 'siglip_b/16' and so on.

  Raises:
    ValueError: a bad option.
  """
  o = _resolve(variant, options)
  tower, siglip = _tower(o), o.family == 'siglip'
  block = _vit.Block(tower)
  pool = AttentionPool(tower) if siglip else TokenPool(tower, o.projection)
  return chain(
    [
      ('embed', _vit.Embed(tower, patch_bias=siglip, pre_norm=not siglip)),
      *((f'block{i}', block) for i in range(o.depth)),
      ('pool', pool),
      ('head', _text.Pooled() if num_classes is None else Head(num_classes)),
    ],
    o.precision,
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked, with `image_size` as (height, width)."""
  o = resolve(Options(), VARIANTS, variant, options)
  sizes('dim, depth, heads, patch', (o.dim, o.depth, o.heads, o.patch), 4)
  if o.dim % o.heads:
    raise ValueError(
      f'Option dim is {o.dim}, which {o.heads} heads do not divide; choose other dim or heads.'
    )
  choose('gelu', o.gelu, tuple(_vit.GELUS))
  if choose('family', o.family, _clip.FAMILIES) == 'siglip' and o.projection is not None:
    raise ValueError(
      f'Option projection is {o.projection}, and the images of SigLIP have none; set it to None.'
    )
  return o._replace(image_size=_vit.whole_patches('image_size', o.image_size, o.patch))


def _tower(o: Options) -> _Tower:
  common = {name: getattr(o, name) for name in _Tower._fields if name in Options._fields}
  token = o.family == 'clip'
  return _Tower(**common, class_token=token, class_position=token)


class TokenPool(nn.Module):
  """The class token, normalised and projected: [B, T, D] to [B, P]."""

  o: _Tower
  projection: int | None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = _vit.layer_norm(self.o, 'norm')(x[:, 0])
    if self.projection is None:
      return x
    return _vit.dense(self.o, self.projection, 'projection', bias=False)(x)


class AttentionPool(nn.Module):
  """What a learned query sees of all tokens (SigLIP's MAP head): [B, T, D] to [B, D]."""

  o: _Tower

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    o, batch, dim = self.o, len(x), x.shape[-1]
    x = _vit.layer_norm(o, 'norm')(x)
    probe = self.param('probe', nn.initializers.xavier_uniform(), (1, 1, dim), jnp.float32)
    mixed = Mix(o, name='mix')(jnp.broadcast_to(probe, (batch, 1, dim)).astype(x.dtype), x)[:, 0]
    return mixed + _vit.Mlp(o, name='mlp')(_vit.layer_norm(o, 'mlp_norm')(mixed))


class Mix(nn.Module):
  """Multi-head attention of queries [B, Q, D] to tokens [B, T, D]; the softmax is in float32."""

  o: _Tower

  @nn.compact
  def __call__(self, queries: Array, tokens: Array) -> Array:
    parts = []
    for name, x in (('query', queries), ('key', tokens), ('value', tokens)):
      part = _vit.dense(self.o, self.o.dim, name)(x)
      parts.append(part.reshape(*x.shape[:2], self.o.heads, -1).transpose(0, 2, 1, 3))
    query, key, value = parts
    attended = attend(query, key, value, None).transpose(0, 2, 1, 3)
    return _vit.dense(self.o, self.o.dim, 'out')(attended.reshape(queries.shape))


def names(arrays: Mapping[str, np.ndarray], variant: str | None = None, **options: Any) -> NameMap:
  """The names of the transformers library; position embeddings of another grid are resized as in
  vit.py.
  """
  del arrays
  o = _resolve(variant, options)
  token, grid = o.family == 'clip', _vit.grid(o.image_size, o.patch)
  embed = 'vision_model.embeddings'
  found: dict[str, Any] = {
    'embed/position': (
      f'{embed}.position_embedding.weight',
      lambda array: _vit.resize_positions(array[None], grid, token),
    ),
    **_names.conv('embed/patch', f'{embed}.patch_embedding', bias=not token),
    **_names.norm('pool/norm', 'vision_model.post_layernorm'),
  }
  for i in range(o.depth):
    found |= _clip.block(f'block{i}', f'vision_model.encoder.layers.{i}')
  if token:
    found['embed/class'] = (f'{embed}.class_embedding', lambda array: array[None, None])
    found |= _names.norm('embed/norm', 'vision_model.pre_layrnorm')  # as it is spelt there
    return found | _names.dense('pool/projection', 'visual_projection', bias=False)
  head = 'vision_model.head'
  for i, piece in enumerate(('query', 'key', 'value')):
    rows = slice(i * o.dim, (i + 1) * o.dim)
    weight, bias = f'{head}.attention.in_proj_weight', f'{head}.attention.in_proj_bias'
    found[f'pool/mix/{piece}/kernel'] = (weight, lambda array, rows=rows: array[rows].T)
    found[f'pool/mix/{piece}/bias'] = (bias, lambda array, rows=rows: array[rows])
  return found | {
    'pool/probe': (f'{head}.probe', _names.same),
    **_names.dense('pool/mix/out', f'{head}.attention.out_proj'),
    **_names.norm('pool/mlp_norm', f'{head}.layernorm'),
    **_names.dense('pool/mlp/up', f'{head}.mlp.fc1'),
    **_names.dense('pool/mlp/down', f'{head}.mlp.fc2'),
  }


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = ('heads', 'norm_eps', 'gelu')
ASSUMED = ()
HEADS = r'(CLIP|Siglip)(Vision)?Model|CLIPVisionModelWithProjection'
READ = _clip.READ


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of the transformers library asks for.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  family, fields = _clip.tower(config, 'vision')
  ours_of = {name: ours for ours, name in _vit.GELUS.items()}
  gelus = {theirs: ours_of[name] for theirs, name in OF_TRANSFORMERS.items() if name in ours_of}
  only = {'hidden_act': tuple(gelus), 'num_channels': (3,), 'vision_use_head': (True,)}
  _config.only(fields, only, 'clip')
  ratio = fields['intermediate_size'] / fields['hidden_size']
  return {
    'family': ('model_type', family),
    **_config.given(
      fields,
      {
        'dim': 'hidden_size',
        'depth': 'num_hidden_layers',
        'heads': 'num_attention_heads',
        'patch': 'patch_size',
        'image_size': 'image_size',
        'norm_eps': 'layer_norm_eps',
      },
    ),
    'mlp_ratio': ('intermediate_size', ratio),
    'gelu': ('hidden_act', gelus[fields['hidden_act']]),
    'projection': ('projection_dim', fields['projection_dim']),
  }


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """The preprocessing of public weights; mean and std are for values in 0..1 (uint8 / 255).

  CLIP cuts the middle out of the resized image, SigLIP squeezes all of it into a square.

  Raises:
    ValueError: a bad option, or an image_size that is no square.
  """
  o = _resolve(variant, options)
  side = _vit.side_of_square(o.image_size)
  spec = {'image_size': side, 'channels': 3, 'interpolation': 'bicubic', 'crop': 1.0}
  if o.family == 'siglip':
    return {**spec, 'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5), 'fit': 'squeeze'}
  return {
    **spec,
    'mean': (0.48145466, 0.4578275, 0.40821073),
    'std': (0.26862954, 0.26130258, 0.27577711),
    'fit': 'crop',
  }


def similarity(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
  """(scale, bias) of the logits: cosines times scale, plus bias; the bias is SigLIP's alone."""
  scale = float(np.exp(np.asarray(arrays['logit_scale'], np.float64).reshape(())))
  bias = np.asarray(arrays['logit_bias']) if 'logit_bias' in arrays else np.zeros(())
  return scale, float(bias.reshape(()))


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  inputs = np.random.default_rng(0).normal(size=(4, 16, 8, 3)).astype('float32')
  options = {'num_classes': 3, 'dim': 8, 'depth': 2, 'heads': 2, 'patch': 4, 'projection': 6}
  return {**options, 'image_size': (16, 8)}, inputs
