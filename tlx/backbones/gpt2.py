"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

Inputs are a dict: 'ids' [B, T] int, and optionally 'mask' [B, T] (0 on padding, at the left or the
right).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from tlx.backbones import NameMap, _config, _names, _text, chain
from tlx.backbones._attention import ACTIVATIONS, OF_TRANSFORMERS
from tlx.backbones._layers import choose
from tlx.backbones._norms import LayerNorm
from tlx.types import Network, PyTree


class Options(NamedTuple):
  """The sizes of the small GPT-2.

  activation: of the MLP, one of `ACTIVATIONS` in _attention.py
  scale_by_block: the scores of block i, from 1, are divided by i too
  tied: the output layer is the token embedding
  head_pad_id: the head of a classifier reads the last token that is not this one, as the
  transformers library has it; None: the last of the mask
  logits: False: the head gives what the logits are the product of, {'features' [B, T, D], 'kernel'
  [V, D]}, to a loss that goes over the vocabulary in chunks (tlx/tasks/_vocabulary.py)
  """

  vocab_size: int = 50257
  dim: int = 768
  depth: int = 12
  heads: int = 12
  max_positions: int = 1024
  norm_eps: float = 1e-5
  activation: str = 'gelu_tanh'
  scale_by_block: bool = False
  tied: bool = True
  head_pad_id: int | None = None
  logits: bool = True
  dtype: str = 'float32'
  precision: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {
  'gpt2': {},
  'distilgpt2': {'depth': 6},
  'gpt2_medium': {'dim': 1024, 'depth': 24, 'heads': 16},
  'gpt2_large': {'dim': 1280, 'depth': 36, 'heads': 20},
  'gpt2_xl': {'dim': 1600, 'depth': 48, 'heads': 25},
}

# Tensors of public files that a network does not use: causal masks kept as buffers.
IGNORE = (r'attn\.bias$', r'attn\.masked_bias$')

FORM = 'text'


def build(num_classes: int | None = None, variant: str | None = None, **options: Any) -> Network:
  """GPT-2 with stages embed, block0.., norm, head.

  The head gives the next token's logits [B, T, V]; with `num_classes`, class scores [B, K] from the
  last token that is not padding. Departs from the official code in having no dropout, and counts
  positions from the first real token.

  Raises:
    ValueError: an unknown variant or option, or inputs longer than `max_positions`.
  """
  o = _resolve(variant, options)
  blocks = []
  for i in range(o.depth):
    blocks.append((f'block{i}', Block(o, 1 / (i + 1) if o.scale_by_block else 1.0)))
  head = _text.head(num_classes, o)
  network = chain([('embed', Embed(o)), *blocks, ('norm', Norm(o)), ('head', head)], o.precision)
  return _text.tie(network) if o.tied and num_classes is None else network


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked."""
  o = _text.resolve(Options(), VARIANTS, variant, options)
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
    'max_positions': 16,
  }
  return options, _text.tiny_inputs([0, 0, 0, 1, 1])


class Embed(nn.Module):
  """The sum of token and position embeddings."""

  o: Options

  @nn.compact
  def __call__(self, inputs: PyTree, train: bool) -> dict[str, Any]:
    o = self.o
    ids, x = _text.begin(inputs, o.max_positions, o.head_pad_id)
    hidden = nn.Embed(o.vocab_size, o.dim, o.dtype, embedding_init=_text.INIT, name='tokens')(ids)
    place = nn.Embed(o.max_positions, o.dim, o.dtype, embedding_init=_text.INIT, name='positions')
    return {**x, 'hidden': hidden + place(_text.positions(x, ids.shape[1]))}


class Block(nn.Module):
  """Attention to the tokens so far, then the MLP; a norm before and a residual sum around each."""

  o: Options
  scale: float

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    o, shape = self.o, x['hidden'].shape
    rows = x['hidden'].reshape(-1, shape[-1])  # see _attention.py
    attention = _text.Attention(
      o.heads,
      o.heads,
      o.dim // o.heads,
      True,
      True,
      True,
      None,
      o.dtype,
      scale=self.scale,
      name='attention',
    )
    mixed, changes = attention(layer_norm(o, 'norm1')(rows), x, shape)
    rows = rows + mixed
    rows = rows + _text.MLP(o, 4 * o.dim, name='mlp')(layer_norm(o, 'norm2')(rows))
    return {**x, **changes, 'hidden': rows.reshape(shape)}


class Norm(nn.Module):
  """The norm after the last block."""

  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    return {**x, 'hidden': layer_norm(self.o, 'norm')(x['hidden'])}


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
  """The names of the transformers library for the network that `build` makes of these options.

  `arrays` are those of the file; their names may have something before them, as 'transformer.',
  which stands there where no file is given.
  Official kernels are [in, out] like ours, and hold query, key and value side by side.

  Raises:
    ValueError: the network ties input and output embeddings, and the file holds two that differ.
  """
  o = _resolve(variant, options)
  gpt2 = _names.prefix_of(arrays, 'wte.weight') if arrays else 'transformer.'
  _text.check_tied(arrays, o.tied and num_classes is None, f'{gpt2}wte.weight', 'lm_head.weight')
  found: dict[str, Any] = {
    'embed/tokens/embedding': (f'{gpt2}wte.weight', _names.same),
    'embed/positions/embedding': (f'{gpt2}wpe.weight', _names.same),
    'head/embedding': ('lm_head.weight', _names.same),
    'head/kernel': ('score.weight', np.transpose),
    'head/bias': ('score.weight', _names.no_bias),
  }

  def layer(ours: str, theirs: str, take: Any = _names.same) -> None:
    found[f'{ours}/kernel'], found[f'{ours}/bias'] = (
      (f'{theirs}.weight', take),
      (f'{theirs}.bias', take),
    )

  for i in range(o.depth):
    ours, theirs = f'block{i}', f'{gpt2}h.{i}'
    for part, name in enumerate(('query', 'key', 'value')):
      layer(
        f'{ours}/attention/{name}',
        f'{theirs}.attn.c_attn',
        lambda array, part=part: np.split(array, 3, axis=-1)[part],
      )
    layer(f'{ours}/attention/out', f'{theirs}.attn.c_proj')
    layer(f'{ours}/mlp/up', f'{theirs}.mlp.c_fc')
    layer(f'{ours}/mlp/down', f'{theirs}.mlp.c_proj')
    found |= _names.norm(f'{ours}/norm1', f'{theirs}.ln_1') | _names.norm(
      f'{ours}/norm2', f'{theirs}.ln_2'
    )
  return found | _names.norm('norm/norm', f'{gpt2}ln_f')


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = ('heads', 'norm_eps', 'activation', 'scale_by_block')
ASSUMED = ()
HEADS = r'GPT2(LMHead)?Model'
CLASS_HEADS = r'GPT2ForSequenceClassification'
READ = (
  'vocab_size',
  'n_embd',
  'n_layer',
  'n_head',
  'n_positions',
  'n_inner',
  'layer_norm_epsilon',
  'activation_function',
  'scale_attn_weights',
  'scale_attn_by_inverse_layer_idx',
  'reorder_and_upcast_attn',
  'add_cross_attention',
)


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of the transformers library asks for.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  _config.only(
    config,
    {
      'model_type': ('gpt2',),
      'activation_function': tuple(OF_TRANSFORMERS),
      'scale_attn_weights': (True,),
      'add_cross_attention': (False,),
      'n_inner': (None, 4 * config.get('n_embd', 768)),
    },
    'gpt2',
  )
  found = _config.given(
    config,
    {
      'vocab_size': 'vocab_size',
      'dim': 'n_embd',
      'depth': 'n_layer',
      'heads': 'n_head',
      'max_positions': 'n_positions',
      'norm_eps': 'layer_norm_epsilon',
      'tied': 'tie_word_embeddings',
    },
  )
  activation = OF_TRANSFORMERS[config.get('activation_function', 'gelu_new')]
  scaled = bool(config.get('scale_attn_by_inverse_layer_idx'))
  found |= _text.head_pad_id(config)
  return found | {
    'activation': ('activation_function', activation),
    'scale_by_block': ('scale_attn_by_inverse_layer_idx', scaled),
  }
