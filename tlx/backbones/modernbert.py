"""ModernBERT (arXiv:2412.13663): an encoder with rotary positions and attention to near tokens in
most blocks.

Inputs are a dict: 'ids' [B, T] int, and optionally 'mask' [B, T] (0 on padding, at the left or the
right).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _config, _names, _text, chain
from tlx.backbones._attention import ACTIVATIONS, OF_TRANSFORMERS
from tlx.backbones._layers import Head, choose
from tlx.backbones._norms import LayerNorm, unit
from tlx.types import Array, Network, PyTree


class Options(NamedTuple):
  """The sizes of ModernBERT-base.

  local_blocks: the numbers of the blocks whose tokens attend to near ones; None: but every third
  local_attention: to so many tokens, half of them before and half after, beside themselves
  rope_theta, local_rope_theta: of the other blocks, and of those
  activation: of the MLP's gate, one of `ACTIVATIONS` in _attention.py
  pool: 'cls' (the first token), 'mean' (over the tokens that are not padding) or 'tokens' (each by
  itself; taggers)
  pool_dense: a dense layer, an activation and a norm of what is pooled, as classifiers have
  pool_bias, pool_activation: of that dense layer
  unit: what is pooled is divided by its L2 norm, as sentence encoders end
  """

  vocab_size: int = 50368
  dim: int = 768
  depth: int = 22
  heads: int = 12
  mlp_dim: int = 1152
  local_blocks: Sequence[int] | None = None
  local_attention: int = 128
  rope_theta: float = 160000.0
  local_rope_theta: float = 10000.0
  norm_eps: float = 1e-5
  norm_bias: bool = False
  attention_bias: bool = False
  mlp_bias: bool = False
  activation: str = 'gelu'
  pool: str = 'cls'
  pool_dense: bool = False
  pool_bias: bool = False
  pool_activation: str = 'gelu'
  unit: bool = False
  dtype: str = 'float32'
  precision: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {  # from the config.json of each model
  'modernbert_base': {},
  'modernbert_large': {'dim': 1024, 'depth': 28, 'heads': 16, 'mlp_dim': 2624},
}

# Tensors of public files that a network does not use: the head of masked language modelling.
IGNORE = (r'^decoder\.', r'^head\.')

FORM = 'text'


def build(num_classes: int | None = None, variant: str | None = None, **options: Any) -> Network:
  """ModernBERT with stages embed, block0.., norm, pool, head; without `num_classes` the head passes
  on what is pooled.

  Departs from the official code in having no dropout.

  Raises:
    ValueError: an unknown variant or option, or options that do not go together.
  """
  o = _resolve(variant, options)
  return chain(
    [
      ('embed', Embed(o)),
      *((f'block{i}', Block(o, i)) for i in range(o.depth)),
      ('norm', Norm(o)),
      ('pool', Pool(o)),
      ('head', _text.Pooled() if num_classes is None else Head(num_classes)),
    ],
    o.precision,
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked, with the numbers of the local blocks filled in."""
  o = _text.resolve(Options(), VARIANTS, variant, options)
  choose('pool', o.pool, ('cls', 'mean', 'tokens'))
  choose('activation', o.activation, tuple(ACTIVATIONS))
  choose('pool_activation', o.pool_activation, tuple(ACTIVATIONS))
  if o.local_attention < 0:
    raise ValueError(f'Option local_attention is {o.local_attention}; give a number from 0 on.')
  local = o.local_blocks
  if local is None:
    local = [i for i in range(o.depth) if i % 3]
  return o._replace(local_blocks=tuple(local))


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """What the network decides of its texts (tlx/inputs/text.py): the rows of its vocabulary.

  Raises:
    ValueError: a bad option.
  """
  return {'vocab_size': _resolve(variant, options).vocab_size}


def tiny() -> tuple[dict[str, Any], PyTree]:
  """(options of a small network, inputs for it)."""
  options = {
    'num_classes': 3,
    'vocab_size': 17,
    'dim': 8,
    'depth': 2,
    'heads': 2,
    'mlp_dim': 12,
    'local_attention': 2,
    'pool_dense': True,
  }
  return options, _text.tiny_inputs([1, 0, 0, 0, 0])


class Embed(nn.Module):
  """Token embeddings, normalised; positions enter in the attention."""

  o: Options

  @nn.compact
  def __call__(self, inputs: PyTree, train: bool) -> dict[str, Any]:
    o = self.o
    ids, x = _text.begin(inputs)
    tokens = nn.Embed(o.vocab_size, o.dim, o.dtype, embedding_init=_text.INIT, name='tokens')
    return {**x, 'hidden': layer_norm(o, 'norm')(tokens(ids))}


class Block(nn.Module):
  """Attention to near or to all tokens, then the gated MLP; a norm before and a residual sum around
  each, where the first block has the norm of the embeddings before its attention.
  """

  o: Any  # Options with local_blocks
  number: int

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    o, shape = self.o, x['hidden'].shape
    rows = x['hidden'].reshape(-1, shape[-1])  # see _attention.py
    local = self.number in o.local_blocks
    attention = _text.Attention(
      o.heads,
      o.heads,
      o.dim // o.heads,
      False,
      o.attention_bias,
      o.attention_bias,
      o.local_rope_theta if local else o.rope_theta,
      o.dtype,
      window=o.local_attention // 2 + 1 if local else None,
      name='attention',
    )
    normal = layer_norm(o, 'norm1')(rows) if self.number else rows
    rows = rows + attention(normal, x, shape)[0]
    rows = rows + _text.GatedMLP(o, name='mlp')(layer_norm(o, 'norm2')(rows))
    return {**x, 'hidden': rows.reshape(shape)}


class Norm(nn.Module):
  """The norm after the last block."""

  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    return {**x, 'hidden': layer_norm(self.o, 'norm')(x['hidden'])}


class Pool(nn.Module):
  """One float32 vector a text, [B, D]; a token, [B, T, D], where nothing is pooled."""

  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> Array:
    o, pooled = self.o, _text.pool(x, self.o.pool)
    if o.pool_dense:
      dense = nn.Dense(o.dim, o.pool_bias, kernel_init=_text.INIT, name='dense')
      norm = LayerNorm(o.norm_eps, jnp.float32, o.norm_bias, name='norm')
      pooled = norm(ACTIVATIONS[o.pool_activation](dense(pooled)))
    return unit(pooled) if o.unit else pooled


def layer_norm(o: Options, name: str) -> nn.Module:
  """A layer norm whose statistics are float32."""
  return LayerNorm(o.norm_eps, o.dtype, o.norm_bias, name=name)


def names(
  arrays: Mapping[str, np.ndarray],
  variant: str | None = None,
  *,
  num_classes: int | None = None,
  **options: Any,
) -> NameMap:
  """The names of the transformers library for the network that `build` makes of these options.

  `arrays` are those of the file; their names may have something before them, as 'model.'. Official
  layers hold query, key and value, and gate and up, one above the other.
  """
  o = _resolve(variant, options)
  model = _names.prefix_of(arrays, 'embeddings.tok_embeddings.weight')
  found: dict[str, Any] = {
    'embed/tokens/embedding': (f'{model}embeddings.tok_embeddings.weight', _names.same),
    **_names.dense('pool/dense', 'head.dense', o.pool_bias),
    **_names.dense('head', 'classifier'),
  }
  norms = {'embed/norm': f'{model}embeddings.norm', 'norm/norm': f'{model}final_norm'}
  norms['pool/norm'] = 'head.norm'
  for i in range(o.depth):
    ours, theirs = f'block{i}', f'{model}layers.{i}'
    for number, part in enumerate(('query', 'key', 'value')):
      whole = _names.dense(f'{ours}/attention/{part}', f'{theirs}.attn.Wqkv', o.attention_bias)
      found |= _part(whole, number, 3)
    for number, part in enumerate(('gate', 'up')):
      found |= _part(_names.dense(f'{ours}/mlp/{part}', f'{theirs}.mlp.Wi', o.mlp_bias), number, 2)
    found |= _names.dense(f'{ours}/attention/out', f'{theirs}.attn.Wo', o.attention_bias)
    found |= _names.dense(f'{ours}/mlp/down', f'{theirs}.mlp.Wo', o.mlp_bias)
    norms |= {f'{ours}/norm1': f'{theirs}.attn_norm', f'{ours}/norm2': f'{theirs}.mlp_norm'}
  for ours, theirs in norms.items():
    entries = _names.norm(ours, theirs)
    if not o.norm_bias:
      del entries[f'{ours}/bias']
    found |= entries
  return found


def _part(layer: NameMap, number: int, parts: int) -> NameMap:
  """The entries of a dense layer that is one of several parts of what stands in the file."""

  def take(change: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    return np.split(change(array), parts, axis=-1)[number]

  return {
    ours: (theirs, functools.partial(take, change)) for ours, (theirs, change) in layer.items()
  }


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = (
  'heads',
  'local_blocks',
  'local_attention',
  'rope_theta',
  'local_rope_theta',
  'norm_eps',
  'activation',
  'pool_activation',
)
ASSUMED = ()
HEADS = r'ModernBert(Model|For\w+)'  # without classes ours passes on what is pooled
CLASS_HEADS = r'ModernBertFor(Sequence|Token)Classification'
READ = (
  'vocab_size',
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'intermediate_size',
  'hidden_activation',
  'norm_eps',
  'norm_bias',
  'attention_bias',
  'mlp_bias',
  'layer_types',
  'local_attention',
  'global_attn_every_n_layers',
  'rope_parameters',
  'rope_scaling',
  'global_rope_theta',
  'local_rope_theta',
  'classifier_pooling',
  'classifier_bias',
  'classifier_activation',
  # of training and of the head of masked language modelling
  'decoder_bias',
  'sparse_pred_ignore_index',
  'sparse_prediction',
  'deterministic_flash_attn',
  'reference_compile',
  'repad_logits_with_grad',
)


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of the transformers library asks for; of pooling it says those
  of the head of a classifier alone.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  _config.only(
    config,
    {
      'model_type': ('modernbert',),
      'hidden_activation': tuple(OF_TRANSFORMERS),
      'classifier_activation': tuple(OF_TRANSFORMERS),
      'rope_scaling': (None,),
    },
    'modernbert',
  )
  found = _config.given(
    config,
    {
      'vocab_size': 'vocab_size',
      'dim': 'hidden_size',
      'depth': 'num_hidden_layers',
      'heads': 'num_attention_heads',
      'mlp_dim': 'intermediate_size',
      'norm_eps': 'norm_eps',
      'norm_bias': 'norm_bias',
      'attention_bias': 'attention_bias',
      'mlp_bias': 'mlp_bias',
      'local_attention': 'local_attention',
      'rope_theta': 'global_rope_theta',
      'local_rope_theta': 'local_rope_theta',
    },
  )
  found['activation'] = (
    'hidden_activation',
    OF_TRANSFORMERS[config.get('hidden_activation', 'gelu')],
  )
  found['local_blocks'] = _local_blocks(config)
  ropes = config.get('rope_parameters') or {}
  for option, kind in (('rope_theta', 'full_attention'), ('local_rope_theta', 'sliding_attention')):
    rope, field = ropes.get(kind) or {}, f'rope_parameters.{kind}'
    _config.only(
      {f'{field}.rope_type': rope.get('rope_type', 'default')},
      {f'{field}.rope_type': ('default',)},
      'modernbert',
    )
    if 'rope_theta' in rope:
      found[option] = (f'{field}.rope_theta', rope['rope_theta'])
  head = next(iter(config.get('architectures') or ()), '')
  if head.endswith(('ForSequenceClassification', 'ForTokenClassification')):
    pooling = ('classifier_pooling', config.get('classifier_pooling', 'cls'))
    activation = OF_TRANSFORMERS[config.get('classifier_activation', 'gelu')]
    found |= {
      'pool': ('architectures', 'tokens') if 'Token' in head else pooling,
      'pool_dense': ('architectures', True),
      'pool_bias': ('classifier_bias', bool(config.get('classifier_bias'))),
      'pool_activation': ('classifier_activation', activation),
    }
  return found


def _local_blocks(config: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
  """(the field that says so, the numbers of the blocks that attend to near tokens).

  Raises:
    ValueError: another kind of attention.
  """
  every = config.get('global_attn_every_n_layers', 3)
  kinds = config.get('layer_types')
  if not kinds:
    depth = config.get('num_hidden_layers', 22)
    return 'global_attn_every_n_layers', tuple(i for i in range(depth) if i % every)
  if unknown := set(kinds) - {'full_attention', 'sliding_attention'}:
    raise _config.refused(
      'layer_types', sorted(unknown), 'modernbert computes full and sliding attention only'
    )
  return 'layer_types', tuple(i for i, kind in enumerate(kinds) if kind == 'sliding_attention')
