"""BERT (arXiv:1810.04805), RoBERTa (arXiv:1907.11692), DistilBERT (arXiv:1910.01108) and the MiniLM
sentence encoders, which are small BERTs (arXiv:2002.10957).

Inputs are a dict: 'ids' [B, T] int, and optionally 'mask' [B, T] (0 on padding) and 'types' [B, T]
(which of two texts).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _config, _names, _text, chain
from tlx.backbones._attention import ACTIVATIONS, OF_TRANSFORMERS
from tlx.backbones._layers import Head, choose
from tlx.backbones._norms import LayerNorm, unit
from tlx.types import Array, Network, PyTree


class Options(NamedTuple):
  """The sizes of BERT-base; `pool` says how tokens become one vector for the head.

  activation: of the MLP, one of `ACTIVATIONS` in _attention.py
  pad_id: RoBERTa's id of padding, from which on it counts the positions of the other tokens; None
  counts all tokens from 0
  num_types: how many texts 'types' tells apart; 0: it is not looked at (DistilBERT)
  pool: 'pooler' (the trained tanh layer over the first token), 'relu_pooler' (with a ReLU, in
  DistilBERT's classifiers), 'cls' (the first token), 'mean' (over the tokens that are not padding;
  sentence encoders) or 'tokens' (each by itself; taggers)
  unit: what is pooled is divided by its L2 norm, as sentence encoders end
  """

  vocab_size: int = 30522
  dim: int = 768
  depth: int = 12
  heads: int = 12
  mlp_dim: int = 3072
  max_positions: int = 512
  num_types: int = 2
  norm_eps: float = 1e-12
  activation: str = 'gelu'
  pad_id: int | None = None
  pool: str = 'pooler'
  unit: bool = False
  dtype: str = 'float32'
  precision: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {
  'bert_base': {},
  'bert_large': {'dim': 1024, 'depth': 24, 'heads': 16, 'mlp_dim': 4096},
  'minilm_l6': {'dim': 384, 'depth': 6, 'mlp_dim': 1536, 'pool': 'mean'},
  'minilm_l12': {'dim': 384, 'depth': 12, 'mlp_dim': 1536, 'pool': 'mean'},
}

POOLS = ('pooler', 'relu_pooler', 'cls', 'mean', 'tokens')
# Tensors of public files that a network does not use: a counted range, a pooler that the options do
# not ask for, the heads of pretraining tasks and of answers to questions; and, with a head of one's
# own, what else a classifier has.
IGNORE = (
  r'position_ids$',
  r'pooler\.dense\.',
  r'^(cls|lm_head|vocab_transform|vocab_layer_norm|vocab_projector|qa_outputs)\.',
)
IGNORE_WITH_HEAD = (r'^(pre_)?classifier\.',)

FORM = 'text'


def build(num_classes: int | None = None, variant: str | None = None, **options: Any) -> Network:
  """BERT with stages embed, block0.., pool, head; without `num_classes` the head passes on [B, D].

  Departs from the official code in having no dropout.

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
  choose('pool', o.pool, POOLS)
  choose('activation', o.activation, tuple(ACTIVATIONS))
  return o


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
    'max_positions': 8,
  }
  return options, _text.tiny_inputs([1, 0, 0, 0, 0])


class Embed(nn.Module):
  """The sum of token, position and type embeddings, normalised; positions count from the first real
  token, which the official code does for RoBERTa alone.
  """

  o: Options

  @nn.compact
  def __call__(self, inputs: PyTree, train: bool) -> dict[str, Any]:
    o = self.o
    ids, x = _text.begin(inputs, o.max_positions - (0 if o.pad_id is None else o.pad_id + 1))

    def embed(number: int, name: str) -> nn.Module:
      return nn.Embed(number, o.dim, o.dtype, embedding_init=_text.INIT, name=name)

    hidden = embed(o.vocab_size, 'tokens')(ids)
    if o.num_types:
      hidden += embed(o.num_types, 'types')(inputs.get('types', jnp.zeros_like(ids)))
    position = _text.positions(x, ids.shape[1])
    if o.pad_id is not None:
      real = (ids != o.pad_id).astype(jnp.int32)
      position = o.pad_id + jnp.cumsum(real, axis=1) * real
    hidden += embed(o.max_positions, 'positions')(position)
    return {'mask': x['mask'], 'hidden': layer_norm(o, 'norm')(hidden)}


class Block(nn.Module):
  """Attention to all tokens but padding, then the MLP, each followed by the norm of its sum."""

  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    o, shape = self.o, x['hidden'].shape
    rows = x['hidden'].reshape(-1, shape[-1])  # see _attention.py
    attention = _text.Attention(
      o.heads, o.heads, o.dim // o.heads, False, True, True, None, o.dtype, name='attention'
    )
    rows = layer_norm(o, 'norm1')(rows + attention(rows, x, shape)[0])
    rows = layer_norm(o, 'norm2')(rows + _text.MLP(o, o.mlp_dim, name='mlp')(rows))
    return {**x, 'hidden': rows.reshape(shape)}


class Pool(nn.Module):
  """One float32 vector a text, [B, D]; a token, [B, T, D], where nothing is pooled."""

  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> Array:
    if self.o.pool in ('pooler', 'relu_pooler'):
      activation = jnp.tanh if self.o.pool == 'pooler' else jax.nn.relu
      dense = nn.Dense(self.o.dim, kernel_init=_text.INIT, name='dense')
      pooled = activation(dense(_text.pool(x, 'cls')))
    else:
      pooled = _text.pool(x, self.o.pool)
    return unit(pooled) if self.o.unit else pooled


def layer_norm(o: Options, name: str) -> nn.Module:
  """A layer norm whose statistics are float32."""
  return LayerNorm(o.norm_eps, o.dtype, name=name)


_PARTS = {
  'attention/query': ('attention.self.query', 'attention.q_lin'),
  'attention/key': ('attention.self.key', 'attention.k_lin'),
  'attention/value': ('attention.self.value', 'attention.v_lin'),
  'attention/out': ('attention.output.dense', 'attention.out_lin'),
  'mlp/up': ('intermediate.dense', 'ffn.lin1'),
  'mlp/down': ('output.dense', 'ffn.lin2'),
  'norm1': ('attention.output.LayerNorm', 'sa_layer_norm'),
  'norm2': ('output.LayerNorm', 'output_layer_norm'),
}  # of a block: (BERT's and RoBERTa's, DistilBERT's)


def names(
  arrays: Mapping[str, np.ndarray],
  variant: str | None = None,
  *,
  num_classes: int | None = None,
  **options: Any,
) -> NameMap:
  """The names of the transformers library for the network that `build` makes of these options.

  `arrays` are those of the file; their names may have something before them, as 'bert.', and norms
  the names of the first release, LayerNorm.gamma and beta, as in bert-base-uncased. A classifier's
  head is mapped: 'classifier', in RoBERTa 'classifier.dense' and 'out_proj', in DistilBERT
  'pre_classifier' and 'classifier', where the dense layer before the last one is our pooler.
  """
  o = _resolve(variant, options)
  bert = _names.prefix_of(arrays, 'embeddings.word_embeddings.weight')
  tables = {'tokens': 'word', 'positions': 'position'}
  if o.num_types:
    tables['types'] = 'token_type'
  found: dict[str, Any] = {}
  for ours, theirs in tables.items():
    found[f'embed/{ours}/embedding'] = (f'{bert}embeddings.{theirs}_embeddings.weight', _names.same)
  found |= _names.norm('embed/norm', f'{bert}embeddings.LayerNorm')
  distil = f'{bert}transformer.layer.0.attention.q_lin.weight' in arrays
  for i in range(o.depth):
    block = f'{bert}{"transformer" if distil else "encoder"}.layer.{i}'
    for ours, both in _PARTS.items():
      layer = _names.norm if ours.startswith('norm') else _names.dense
      found |= layer(f'block{i}/{ours}', f'{block}.{both[distil]}')
  if f'{bert}embeddings.LayerNorm.gamma' in arrays:
    old = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}
    found = {
      ours: (re.sub(r'LayerNorm\.\w+$', lambda name: old[name[0]], theirs), change)
      for ours, (theirs, change) in found.items()
    }
  pooler, head = f'{bert}pooler.dense', 'classifier'
  if o.pool == 'relu_pooler':
    pooler = 'pre_classifier'
  if 'classifier.out_proj.weight' in arrays:
    pooler, head = 'classifier.dense', 'classifier.out_proj'
  return found | _names.dense('pool/dense', pooler) | _names.dense('head', head)


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = ('heads', 'norm_eps', 'activation', 'pad_id')
ASSUMED = ()
_FAMILY = r'(Bert|Roberta|XLMRoberta|Camembert|DistilBert)'
HEADS = rf'{_FAMILY}(Model|For\w+)'  # without classes ours passes on what is pooled
CLASS_HEADS = rf'{_FAMILY}For(Sequence|Token)Classification'
READ = (
  'vocab_size',
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'intermediate_size',
  'hidden_act',
  'type_vocab_size',
  'layer_norm_eps',
  'position_embedding_type',
  'is_decoder',
  'add_cross_attention',
  'dim',
  'n_layers',
  'n_heads',
  'hidden_dim',
  'activation',
  'sinusoidal_pos_embds',  # which are among the tensors
)


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of the transformers library asks for; `pool` it says for the
  head of a classifier alone.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  kind = config.get('model_type', 'bert')
  activation = 'activation' if kind == 'distilbert' else 'hidden_act'
  _config.only(
    config,
    {
      'model_type': ('bert', 'roberta', 'xlm-roberta', 'camembert', 'distilbert'),
      activation: tuple(OF_TRANSFORMERS),
      'position_embedding_type': ('absolute',),
      'is_decoder': (False,),
      'add_cross_attention': (False,),
    },
    'bert',
  )
  fields = {
    'vocab_size': 'vocab_size',
    'dim': 'hidden_size',
    'depth': 'num_hidden_layers',
    'heads': 'num_attention_heads',
    'mlp_dim': 'intermediate_size',
    'norm_eps': 'layer_norm_eps',
    'max_positions': 'max_position_embeddings',
    'num_types': 'type_vocab_size',
  }
  if kind == 'distilbert':
    fields |= {'dim': 'dim', 'depth': 'n_layers', 'heads': 'n_heads', 'mlp_dim': 'hidden_dim'}
  found = _config.given(config, fields)
  if kind == 'distilbert':
    found |= {'num_types': ('model_type', 0), 'norm_eps': ('model_type', 1e-12)}
  padded = kind in ('roberta', 'xlm-roberta', 'camembert')
  found |= {
    'activation': (activation, OF_TRANSFORMERS[config.get(activation, 'gelu')]),
    'pad_id': ('pad_token_id', config.get('pad_token_id', 1) if padded else None),
  }
  head = next(iter(config.get('architectures') or ()), '')
  if head.endswith('ForTokenClassification'):
    found['pool'] = ('architectures', 'tokens')
  if head.endswith('ForSequenceClassification'):
    pool = 'relu_pooler' if kind == 'distilbert' else 'pooler'
    found['pool'] = ('architectures', pool)
  return found
