"""The text towers of CLIP (arXiv:2103.00020) and SigLIP (arXiv:2303.15343); clip.py has the images.

Inputs are a dict: 'ids' [B, T] int, and optionally 'mask' [B, T] (0 on padding).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _clip, _config, _names, _text, chain
from tlx.backbones._attention import ACTIVATIONS, OF_TRANSFORMERS
from tlx.backbones._layers import Head, choose
from tlx.backbones._norms import LayerNorm
from tlx.types import Array, Network, PyTree


class Options(NamedTuple):
  """The sizes of the text tower of CLIP ViT-B/32.

  family: 'clip' (each token sees those before it, the text is its end token) or 'siglip' (each
  sees all, padding up to `max_positions` too, as it was trained; the text is the last token)
  projection: the size of the space shared with images; None leaves CLIP's projection out
  end_id: the id of the end token, of which the first counts; None: the greatest id, as OpenAI has
  it
  pad_id: of SigLIP, what texts with a mask are padded with; without one they are taken as they are
  """

  family: str = 'clip'
  vocab_size: int = 49408
  dim: int = 512
  depth: int = 12
  heads: int = 8
  mlp_dim: int = 2048
  max_positions: int = 77
  projection: int | None = 512
  norm_eps: float = 1e-5
  activation: str = 'quick_gelu'
  end_id: int | None = None
  pad_id: int = 1
  dtype: str = 'float32'
  precision: str = 'float32'


_SIGLIP = {
  'family': 'siglip',
  'vocab_size': 32000,
  'max_positions': 64,
  'norm_eps': 1e-6,
  'activation': 'gelu_tanh',
}
_BASE = {'dim': 768, 'heads': 12, 'mlp_dim': 3072, 'projection': 768}
_LARGE = {'dim': 1024, 'depth': 24, 'heads': 16, 'mlp_dim': 4096, 'projection': 1024}
VARIANTS: dict[str, dict[str, Any]] = {  # by the names of clip.py
  'b/32': {},
  'b/16': {},
  'l/14': _BASE,
  'l/14@336': _BASE,
  'siglip_b/16': {**_SIGLIP, **_BASE},
  'siglip_l/16': {**_SIGLIP, **_LARGE},
}
# Tensors of public files that the tower does not use, as in clip.py.
IGNORE = (
  r'^vision_model\.',
  r'^(text|visual)_projection\.',
  r'^logit_(scale|bias)$',
  r'position_ids$',
)

FORM = 'text'


def build(num_classes: int | None = None, variant: str | None = None, **options: Any) -> Network:
  """The text tower with stages embed, block0, ..., pool ([B, D] in the shared space) and head.

  'pool' has the last norm, the pooling and the projection. Without `num_classes` the head passes on
  what is pooled.

  Raises:
    ValueError: an unknown variant or option, or inputs longer than `max_positions`.
  """
  o = _resolve(variant, options)
  return chain(
    [
      ('embed', Embed(o)),
      *((f'block{i}', Block(o)) for i in range(o.depth)),
      ('pool', Pool(o)),
      ('head', _text.Pooled() if num_classes is None else Head(num_classes)),
    ],
    o.precision,
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked."""
  o = _text.resolve(Options(), VARIANTS, variant, options)
  choose('activation', o.activation, tuple(ACTIVATIONS))
  if choose('family', o.family, _clip.FAMILIES) == 'siglip' and o.projection is None:
    raise ValueError('Option projection is None, and the texts of SigLIP have one; give its size.')
  return o


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """What the network decides of its texts (tlx/inputs/text.py): the rows of its vocabulary and the
  most tokens that it takes.

  Raises:
    ValueError: a bad option.
  """
  o = _resolve(variant, options)
  return {'vocab_size': o.vocab_size, 'length': o.max_positions}


def tiny() -> tuple[dict[str, Any], PyTree]:
  """(options of a small network, inputs for it)."""
  options = {
    'num_classes': 3,
    'vocab_size': 17,
    'dim': 8,
    'depth': 2,
    'heads': 2,
    'mlp_dim': 12,
    'max_positions': 8,
    'projection': 6,
  }
  return options, _text.tiny_inputs([1, 0, 0, 0, 0])


class Embed(nn.Module):
  """The sum of token and position embeddings, and how far from the right the token stands that is
  pooled.
  """

  o: Options

  @nn.compact
  def __call__(self, inputs: PyTree, train: bool) -> dict[str, Any]:
    o = self.o
    if o.family == 'siglip' and 'mask' in inputs:
      inputs = _padded(inputs, o)
    ids, x = _text.begin(inputs, o.max_positions)
    x['after'] = jnp.zeros(ids.shape[0], jnp.int32)
    if o.family == 'clip':
      ends = ids if o.end_id is None else ids == o.end_id
      own = x['mask'][:, -ids.shape[1] :]
      x['after'] = ids.shape[1] - 1 - jnp.argmax(jnp.where(own != 0, ends, -1), axis=1)
    hidden = nn.Embed(o.vocab_size, o.dim, o.dtype, embedding_init=_text.INIT, name='tokens')(ids)
    place = nn.Embed(o.max_positions, o.dim, o.dtype, embedding_init=_text.INIT, name='positions')
    return {**x, 'hidden': hidden + place(_text.positions(x, ids.shape[1]))}


def _padded(inputs: PyTree, o: Options) -> dict[str, Array]:
  """Ids and mask [B, max_positions] in which padding is a token like others."""
  ids, mask = inputs['ids'], inputs['mask']
  if mask.shape != ids.shape:
    raise ValueError(
      f'The mask covers {mask.shape}, the ids are {ids.shape}: SigLIP takes no prefix and no cache.'
    )
  more = max(o.max_positions - ids.shape[1], 0)
  ids = jnp.pad(jnp.where(mask == 0, o.pad_id, ids), ((0, 0), (0, more)), constant_values=o.pad_id)
  mask = jnp.pad(jnp.where(mask == 0, 1, mask), ((0, 0), (0, more)), constant_values=1)
  return {**inputs, 'ids': ids, 'mask': mask}


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    o, shape = self.o, x['hidden'].shape
    rows = x['hidden'].reshape(-1, shape[-1])  # see _attention.py
    attention = _text.Attention(
      o.heads,
      o.heads,
      o.dim // o.heads,
      o.family == 'clip',
      True,
      True,
      None,
      o.dtype,
      name='attention',
    )
    mixed, changes = attention(layer_norm(o, 'norm1')(rows), x, shape)
    rows = rows + mixed
    rows = rows + _text.MLP(o, o.mlp_dim, name='mlp')(layer_norm(o, 'norm2')(rows))
    return {**x, **changes, 'hidden': rows.reshape(shape)}


class Pool(nn.Module):
  """The token that stands for the text, normalised and projected: float32 [B, P]."""

  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> Array:
    o, last = self.o, x['hidden'].shape[1] - 1 - x['after']
    token = jnp.take_along_axis(x['hidden'], last[:, None, None], axis=1)[:, 0]
    token = layer_norm(o, 'norm')(token)
    if o.projection is not None:
      bias = o.family == 'siglip'
      dense = nn.Dense(o.projection, bias, o.dtype, kernel_init=_text.INIT, name='projection')
      token = dense(token)
    return token.astype(jnp.float32)


def layer_norm(o: Options, name: str) -> nn.Module:
  """A layer norm whose statistics are float32."""
  return LayerNorm(o.norm_eps, o.dtype, name=name)


def names(
  arrays: Mapping[str, np.ndarray],
  variant: str | None = None,
  *,
  num_classes: int | None = None,
  **options: Any,
) -> NameMap:
  """The names of the transformers library for the network that `build` makes of these options."""
  del arrays, num_classes
  o = _resolve(variant, options)
  embed = 'text_model.embeddings'
  found: dict[str, Any] = {
    'embed/tokens/embedding': (f'{embed}.token_embedding.weight', _names.same),
    'embed/positions/embedding': (f'{embed}.position_embedding.weight', _names.same),
    **_names.norm('pool/norm', 'text_model.final_layer_norm'),
  }
  for i in range(o.depth):
    found |= _clip.block(f'block{i}', f'text_model.encoder.layers.{i}')
  if o.family == 'clip':
    return found | _names.dense('pool/projection', 'text_projection', bias=False)
  return found | _names.dense('pool/projection', 'text_model.head')


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = ('heads', 'norm_eps', 'activation', 'end_id', 'pad_id')
ASSUMED = ()
HEADS = r'(CLIP|Siglip)(Text)?Model|CLIPTextModelWithProjection'
CLASS_HEADS = r'$'  # there are none
READ = _clip.READ


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of the transformers library asks for.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  family, fields = _clip.tower(config, 'text')
  _config.only(fields, {'hidden_act': tuple(OF_TRANSFORMERS)}, 'clip_text')
  found = _config.given(
    fields,
    {
      'vocab_size': 'vocab_size',
      'dim': 'hidden_size',
      'depth': 'num_hidden_layers',
      'heads': 'num_attention_heads',
      'mlp_dim': 'intermediate_size',
      'max_positions': 'max_position_embeddings',
      'norm_eps': 'layer_norm_eps',
    },
  )
  # Of 2 the official code says: an old config, and the greatest id is the end token's.
  end = fields['eos_token_id'] if family == 'clip' and fields['eos_token_id'] != 2 else None
  pad = {'pad_id': ('pad_token_id', fields['pad_token_id'])} if family == 'siglip' else {}
  return {
    'family': ('model_type', family),
    **found,
    **pad,
    'activation': ('hidden_act', OF_TRANSFORMERS[fields['hidden_act']]),
    'projection': ('projection_dim', fields['projection_dim']),
    'end_id': ('eos_token_id', end),
  }
