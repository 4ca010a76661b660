"""Llama (arXiv:2302.13971, 2307.09288), SmolLM2, SmolLM3, TinyLlama, Mistral, Qwen2, Qwen3, Granite
and the first Gemma.

Inputs are a dict: 'ids' [B, T] int, and optionally 'mask' [B, T] (0 on padding, at the left or the
right).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _config, _names, _text, chain
from tlx.backbones._attention import ACTIVATIONS, OF_TRANSFORMERS
from tlx.backbones._layers import choose
from tlx.types import Array, Network, PyTree


class Options(NamedTuple):
  """The sizes of SmolLM2-135M.

  kv_heads: keys and values, each shared by heads / kv_heads queries
  head_dim: depth of a head, dim / heads where None
  rope_factors: what each of the head_dim / 2 rotary frequencies is divided by (`options_of` works
  out those of Llama 3); None: 1
  no_rope: the numbers of the blocks whose attention knows no positions (SmolLM3)
  window: how many tokens a token attends to, itself among them (Mistral); None: all so far
  qkv_bias: a bias on query, key and value (Qwen2)
  out_bias, mlp_bias: a bias on the output of the attention, on the layers of the MLP
  qk_norm: an RMS norm of each head's queries and keys (Qwen3)
  activation: of the MLP's gate, one of `ACTIVATIONS` in _attention.py
  embed_scale, residual_scale, logit_scale: of token embeddings, of what a block adds, of the logits
  (Granite; Gemma has the first)
  score_scale: of the attention's scores (Granite); None: 1 / sqrt(head_dim)
  centred_norms: the file holds what norms multiply by, less 1 (Gemma); ours is the whole factor
  tied: the output layer is the token embedding
  head_pad_id: the head of a classifier reads the last token that is not this one, as the
  transformers library has it; None: the last of the mask
  logits: False: the head gives what the logits are the product of, {'features' [B, T, D], 'kernel'
  [V, D]}, to a loss that goes over the vocabulary in chunks (tlx/tasks/_vocabulary.py)
  """

  vocab_size: int = 49152
  dim: int = 576
  depth: int = 30
  heads: int = 9
  kv_heads: int = 3
  head_dim: int | None = None
  mlp_dim: int = 1536
  rope_theta: float = 100000.0
  rope_factors: Sequence[float] | None = None
  no_rope: Sequence[int] = ()
  window: int | None = None
  norm_eps: float = 1e-5
  qkv_bias: bool = False
  out_bias: bool = False
  mlp_bias: bool = False
  qk_norm: bool = False
  activation: str = 'silu'
  embed_scale: float = 1.0
  residual_scale: float = 1.0
  score_scale: float | None = None
  logit_scale: float = 1.0
  centred_norms: bool = False
  tied: bool = True
  head_pad_id: int | None = None
  logits: bool = True
  dtype: str = 'float32'
  precision: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {  # from the config.json of each model
  'smollm2_135m': {},
  'smollm2_360m': {'dim': 960, 'depth': 32, 'heads': 15, 'kv_heads': 5, 'mlp_dim': 2560},
  'tinyllama_1.1b': {
    'vocab_size': 32000,
    'dim': 2048,
    'depth': 22,
    'heads': 32,
    'kv_heads': 4,
    'mlp_dim': 5632,
    'rope_theta': 10000.0,
    'tied': False,
  },
  'qwen2_0.5b': {
    'vocab_size': 151936,
    'dim': 896,
    'depth': 24,
    'heads': 14,
    'kv_heads': 2,
    'mlp_dim': 4864,
    'rope_theta': 1000000.0,
    'norm_eps': 1e-6,
    'qkv_bias': True,
  },
}

# Tensors of public files that a network does not use: rotary frequencies kept as buffers.
IGNORE = (r'rotary_emb\.inv_freq$', r'^rope_freqs\.weight$')

FORM = 'text'


def build(num_classes: int | None = None, variant: str | None = None, **options: Any) -> Network:
  """A Llama with stages embed, block0.., norm, head.

  The head gives the next token's logits [B, T, V]; with `num_classes`, class scores [B, K] from the
  last token that is not padding.

  Raises:
    ValueError: an unknown variant or option, or options that do not go together.
  """
  o = _resolve(variant, options)
  network = chain(
    [
      ('embed', Embed(o)),
      *((f'block{i}', Block(o, i not in o.no_rope)) for i in range(o.depth)),
      ('norm', Norm(o)),
      ('head', _text.head(num_classes, o, o.logit_scale)),
    ],
    o.precision,
  )
  return _text.tie(network) if o.tied and num_classes is None else network


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
    'heads': 4,
    'kv_heads': 2,
    'mlp_dim': 12,
  }
  return options, _text.tiny_inputs([0, 0, 0, 1, 1])


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Any:
  """The options, checked, with the depth of a head filled in."""
  o = _text.resolve(Options(), VARIANTS, variant, options)
  choose('activation', o.activation, tuple(ACTIVATIONS))
  depth = o.head_dim or o.dim // o.heads
  if o.rope_factors is not None and (len(o.rope_factors) != depth // 2 or min(o.rope_factors) <= 0):
    raise ValueError(
      f'Option rope_factors is {o.rope_factors!r}; give {depth // 2} numbers above 0, one a rotary '
      'frequency.'
    )
  if o.window is not None and o.window < 1:
    raise ValueError(
      f'Option window is {o.window!r}; a token attends to itself at least: give a number from 1 '
      'on, or None.'
    )
  factors = None if o.rope_factors is None else tuple(o.rope_factors)
  return o._replace(head_dim=depth, rope_factors=factors, no_rope=tuple(o.no_rope))


class Embed(nn.Module):
  """Token embeddings; positions enter in the attention."""

  o: Options

  @nn.compact
  def __call__(self, inputs: PyTree, train: bool) -> dict[str, Any]:
    ids, x = _text.begin(inputs, head_pad_id=self.o.head_pad_id)
    tokens = nn.Embed(
      self.o.vocab_size, self.o.dim, self.o.dtype, embedding_init=_text.INIT, name='tokens'
    )
    return {**x, 'hidden': _scaled(tokens(ids), self.o.embed_scale)}


def _scaled(x: Array, scale: float) -> Array:
  """x scaled, or as it is; the factor has the type of x, as Gemma's code has it."""
  return x if scale == 1.0 else x * jnp.asarray(scale, x.dtype)


class Block(nn.Module):
  """Rotary attention to the tokens so far, then the gated MLP; norm and residual sum for each."""

  o: Any  # Options with a head_dim
  rope: bool

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    o, shape = self.o, x['hidden'].shape
    rows = x['hidden'].reshape(-1, shape[-1])  # see _attention.py
    attention = _text.Attention(
      o.heads,
      o.kv_heads,
      o.head_dim,
      True,
      o.qkv_bias,
      o.out_bias,
      o.rope_theta if self.rope else None,
      o.dtype,
      rope_factors=o.rope_factors,
      window=o.window,
      norm_eps=o.norm_eps if o.qk_norm else None,
      scale=1.0 if o.score_scale is None else o.score_scale * o.head_dim**0.5,
      name='attention',
    )
    mixed, changes = attention(rms_norm(o, 'norm1')(rows), x, shape)
    rows = rows + _scaled(mixed, o.residual_scale)
    added = _text.GatedMLP(o, name='mlp')(rms_norm(o, 'norm2')(rows))
    rows = rows + _scaled(added, o.residual_scale)
    return {**x, **changes, 'hidden': rows.reshape(shape)}


class Norm(nn.Module):
  """The norm after the last block."""

  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    return {**x, 'hidden': rms_norm(self.o, 'norm')(x['hidden'])}


def rms_norm(o: Options, name: str) -> nn.Module:
  """An RMS norm (arXiv:1910.07467) whose mean square is float32."""
  return nn.RMSNorm(o.norm_eps, o.dtype, name=name)


TRANSFORMERS = {
  'tokens': 'embed_tokens',
  'norm': 'norm',
  'block': 'layers.{}',
  'norm1': 'input_layernorm',
  'norm2': 'post_attention_layernorm',
  'attention/query': 'self_attn.q_proj',
  'attention/key': 'self_attn.k_proj',
  'attention/value': 'self_attn.v_proj',
  'attention/out': 'self_attn.o_proj',
  'attention/query_norm': 'self_attn.q_norm',
  'attention/key_norm': 'self_attn.k_norm',
  'mlp/gate': 'mlp.gate_proj',
  'mlp/up': 'mlp.up_proj',
  'mlp/down': 'mlp.down_proj',
}
GGUF = {
  'tokens': 'token_embd',
  'norm': 'output_norm',
  'block': 'blk.{}',
  'norm1': 'attn_norm',
  'norm2': 'ffn_norm',
  'attention/query': 'attn_q',
  'attention/key': 'attn_k',
  'attention/value': 'attn_v',
  'attention/out': 'attn_output',
  'attention/query_norm': 'attn_q_norm',
  'attention/key_norm': 'attn_k_norm',
  'mlp/gate': 'ffn_gate',
  'mlp/up': 'ffn_up',
  'mlp/down': 'ffn_down',
}


def names(
  arrays: Mapping[str, np.ndarray],
  variant: str | None = None,
  *,
  num_classes: int | None = None,
  **options: Any,
) -> NameMap:
  """The names of GGUF or of the transformers library for a network of these options.

  `arrays` are those of the file, and tell which it is; they may have something before them, as
  'model.', which stands there where no file is given. The GGUF files of Llama models (not of Qwen2
  and 3, which are those with `qkv_bias` or `qk_norm`) hold the rows of query and key so that rotary
  pairs are neighbours; here they become halves again.

  Raises:
    ValueError: the network ties input and output embeddings, and the file holds two that differ; or
      it holds other rope_factors.
  """
  o = _resolve(variant, options)
  gguf = 'token_embd.weight' in arrays
  table, output = (GGUF, 'output.weight') if gguf else (TRANSFORMERS, 'lm_head.weight')
  model = _names.prefix_of(arrays, f'{table["tokens"]}.weight') if arrays else 'model.'
  if (factors := arrays.get('rope_freqs.weight')) is not None and not _config.same(
    o.rope_factors or np.ones_like(factors), factors
  ):
    raise ValueError(
      'The file has rope_freqs.weight, which the network must be built with: '
      f'rope_factors={_floats(factors)}.'
    )
  _text.check_tied(
    arrays, o.tied and num_classes is None, f'{model}{table["tokens"]}.weight', output
  )
  whole = _one_more if o.centred_norms and not gguf else _names.same
  found: dict[str, Any] = {
    'embed/tokens/embedding': (f'{model}{table["tokens"]}.weight', _names.same),
    'head/embedding': (output, _names.same),
    'head/kernel': ('score.weight', np.transpose),
    'head/bias': ('score.weight', _names.no_bias),
    'norm/norm/scale': (f'{model}{table["norm"]}.weight', whole),
  }
  has_bias = {
    'attention/query': o.qkv_bias,
    'attention/key': o.qkv_bias,
    'attention/value': o.qkv_bias,
    'attention/out': o.out_bias,
    'mlp/gate': o.mlp_bias,
    'mlp/up': o.mlp_bias,
    'mlp/down': o.mlp_bias,
  }
  paired = gguf and not (o.qkv_bias or o.qk_norm)
  norms: tuple[str, ...] = ('norm1', 'norm2')
  if o.qk_norm:
    norms += ('attention/query_norm', 'attention/key_norm')
  for i in range(o.depth):
    block = model + table['block'].format(i)
    for part, biased in has_bias.items():
      layer = _names.dense(f'block{i}/{part}', f'{block}.{table[part]}', biased)
      for ours, (theirs, change) in layer.items():
        turned = paired and part in ('attention/query', 'attention/key')
        found[ours] = (theirs, halves(o.head_dim, change) if turned else change)
    for part in norms:
      found[f'block{i}/{part}/scale'] = (f'{block}.{table[part]}.weight', whole)
  return found


def _one_more(array: np.ndarray) -> np.ndarray:
  """The factors of norms of which the file holds what they are more than 1."""
  return array + 1


def halves(
  depth: int, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
  """`change`, after the rows of each head go from pairs (0, 1), (2, 3), .. to pairs (0, depth/2),
  (1, depth/2 + 1), ..

  >>> halves(4, _names.same)(np.arange(8))
  array([0, 2, 1, 3, 4, 6, 5, 7])
  """

  def apart(array: np.ndarray) -> np.ndarray:
    return change(
      array.reshape(-1, depth // 2, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    )

  return apart


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = (
  'heads',
  'kv_heads',
  'rope_theta',
  'rope_factors',
  'no_rope',
  'window',
  'norm_eps',
  'activation',
  'embed_scale',
  'residual_scale',
  'score_scale',
  'logit_scale',
  'centred_norms',
)
ASSUMED = ()
_FAMILY = r'(Llama|Mistral|Qwen2|Qwen3|SmolLM3|Granite|Gemma)'
HEADS = rf'{_FAMILY}(ForCausalLM|Model)'
CLASS_HEADS = rf'{_FAMILY}ForSequenceClassification'
READ = (
  'vocab_size',
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'num_key_value_heads',
  'intermediate_size',
  'hidden_act',
  'hidden_activation',
  'rms_norm_eps',
  'head_dim',
  'attention_bias',
  'mlp_bias',
  'rope_theta',
  'rope_scaling',
  'rope_parameters',
  'sliding_window',
  'use_sliding_window',
  'max_window_layers',
  'layer_types',
  'no_rope_layers',
  'no_rope_layer_interval',
  'partial_rotary_factor',
  'embedding_multiplier',
  'residual_multiplier',
  'attention_multiplier',
  'logits_scaling',
  'use_bidirectional_attention',
)


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of the transformers library asks for.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  rope = {**(config.get('rope_scaling') or {}), **(config.get('rope_parameters') or {})}
  _config.only(
    config,
    {
      'model_type': ('llama', 'mistral', 'qwen2', 'qwen3', 'smollm3', 'granite', 'gemma'),
      'hidden_act': tuple(OF_TRANSFORMERS),
      'use_bidirectional_attention': (False, None),
      'use_sliding_window': (False, None),
      'partial_rotary_factor': (1.0, None),
    },
    'llama',
  )
  _config.only(rope, {'partial_rotary_factor': (1.0, None)}, 'llama')
  kind = config.get('model_type', 'llama')
  found = _config.given(
    config,
    {
      'vocab_size': 'vocab_size',
      'dim': 'hidden_size',
      'depth': 'num_hidden_layers',
      'heads': 'num_attention_heads',
      'kv_heads': 'num_attention_heads',
      'mlp_dim': 'intermediate_size',
      'norm_eps': 'rms_norm_eps',
      'tied': 'tie_word_embeddings',
      'rope_theta': 'rope_theta',
    },
  )
  found |= _config.given(config, {'kv_heads': 'num_key_value_heads', 'head_dim': 'head_dim'})
  if 'head_dim' not in found and {'dim', 'heads'} <= found.keys():
    found['head_dim'] = ('hidden_size / num_attention_heads', found['dim'][1] // found['heads'][1])
  found |= _config.given(rope, {'rope_theta': 'rope_theta'})
  field = 'rope_parameters' if config.get('rope_parameters') else 'rope_scaling'
  found['rope_factors'] = (field, _factors(field, rope, found))
  found.setdefault('tied', ('model_type', kind in ('smollm3', 'gemma')))
  bias, mlp_bias = bool(config.get('attention_bias')), bool(config.get('mlp_bias'))
  found |= _scales(config, kind) | _text.head_pad_id(config)
  found |= {
    'qkv_bias': ('attention_bias', bias or kind == 'qwen2'),
    'out_bias': ('attention_bias', bias),
    'mlp_bias': ('mlp_bias', mlp_bias),
    'qk_norm': ('model_type', kind == 'qwen3'),
  }
  window = config.get('sliding_window') if kind == 'mistral' else None
  attentions = {'sliding_attention' if window else 'full_attention'}
  if set(config.get('layer_types') or attentions) != attentions:
    raise _config.refused(
      'layer_types', config['layer_types'], 'all blocks of llama have one kind of attention'
    )
  found['window'] = ('sliding_window', window)
  rotated = config.get('no_rope_layers')
  if kind == 'smollm3' and rotated is None:
    interval = config.get('no_rope_layer_interval', 4)
    rotated = [(i + 1) % interval for i in range(config.get('num_hidden_layers', 36))]
  return found | {
    'no_rope': ('no_rope_layers', tuple(i for i, on in enumerate(rotated or ()) if not on))
  }


def _scales(config: Mapping[str, Any], kind: str) -> _config.Told:
  """The activation and the factors by which Granite and Gemma are no Llama.

  Raises:
    ValueError: a Gemma with another activation.
  """
  found: _config.Told = {
    'embed_scale': ('model_type', 1.0),
    'residual_scale': ('model_type', 1.0),
    'score_scale': ('model_type', None),
    'logit_scale': ('model_type', 1.0),
    'centred_norms': ('model_type', kind == 'gemma'),
    'activation': ('hidden_act', OF_TRANSFORMERS[config.get('hidden_act', 'silu')]),
  }
  if kind == 'gemma':
    tanh = 'gelu_pytorch_tanh'  # of which the first files say 'gelu'
    only = {'hidden_act': ('gelu', tanh), 'hidden_activation': (None, tanh)}
    _config.only(config, only, 'llama (gemma)')
    found |= {
      'activation': ('hidden_act', 'gelu_tanh'),
      'embed_scale': ('hidden_size', config.get('hidden_size', 3072) ** 0.5),
    }
  if kind == 'granite':
    found |= {
      'embed_scale': ('embedding_multiplier', config.get('embedding_multiplier', 1.0)),
      'residual_scale': ('residual_multiplier', config.get('residual_multiplier', 1.0)),
      'score_scale': ('attention_multiplier', config.get('attention_multiplier', 1.0)),
      'logit_scale': ('logits_scaling', 1 / config.get('logits_scaling', 1.0)),
    }
  return found


def _factors(field: str, rope: Mapping[str, Any], found: _config.Told) -> tuple[float, ...] | None:
  """What each rotary frequency is divided by, as transformers' modeling_rope_utils.py does; None
  for one everywhere.

  Raises:
    ValueError: another kind of scaling, or one that lacks a number.
  """
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind == 'default':
    return None
  if kind not in ('linear', 'llama3'):
    raise _config.refused(
      f'{field}.{"rope_type" if "rope_type" in rope else "type"}',
      kind,
      'llama computes default, linear and llama3 only',
    )
  try:
    number = found['head_dim'][1] // 2
    if kind == 'linear':
      return (float(rope['factor']),) * number
    length = rope['original_max_position_embeddings']
    low = rope['low_freq_factor']
    high = rope['high_freq_factor']
    frequencies = found['rope_theta'][1] ** -(np.arange(number) / number)
    # within the length that the model was first trained on
    turns = length * frequencies / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return _floats(1 / ((1 - smooth) / rope['factor'] + smooth))
  except (KeyError, TypeError) as error:
    raise _config.refused(
      field, dict(rope), f'{kind} scaling wants a number where it has none ({error})'
    ) from None


def _floats(values: Any) -> tuple[float, ...]:
  """Numbers as short as float32 has them."""
  return tuple(float(str(np.float32(value))) for value in values)


_GGUF_FIELDS = {
  'dim': 'embedding_length',
  'depth': 'block_count',
  'heads': 'attention.head_count',
  'kv_heads': 'attention.head_count_kv',
  'mlp_dim': 'feed_forward_length',
  'vocab_size': 'vocab_size',
  'rope_theta': 'rope.freq_base',
  'norm_eps': 'attention.layer_norm_rms_epsilon',
  'head_dim': 'attention.key_length',
  'window': 'attention.sliding_window',
}
_GGUF_HARMLESS = (
  'context_length',
  'rope.scaling.original_context_length',
  'rope.scaling.finetuned',
  'tensor_data_layout',
)


def told_by_gguf(metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> _config.Told:
  """The options that the metadata of a GGUF file asks for (gguf-py/gguf/constants.py in llama.cpp).

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  _config.only(metadata, {'general.architecture': ('llama', 'qwen2', 'qwen3')}, 'llama')
  kind = metadata['general.architecture']
  own = {
    name.removeprefix(f'{kind}.'): value
    for name, value in metadata.items()
    if name.startswith(f'{kind}.')
  }
  found = {
    option: (f'{kind}.{field}', own[field])
    for option, field in _GGUF_FIELDS.items()
    if field in own
  }
  for option in ('rope_theta', 'norm_eps'):
    if option in found:
      found[option] = (found[option][0], _floats([found[option][1]])[0])
  if 'head_dim' not in found and {'dim', 'heads'} <= found.keys():
    found['head_dim'] = (f'{kind}.attention.head_count', found['dim'][1] // found['heads'][1])
  scaling = own.get('rope.scaling.type', 'linear' if 'rope.scale_linear' in own else 'none')
  factor = own.get('rope.scaling.factor', own.get('rope.scale_linear', 1.0))
  depth = found.get('head_dim', ('', None))[1]
  _config.only(
    {'rope.scaling.type': scaling, **own},
    {
      'rope.scaling.type': ('none', 'linear'),
      'expert_count': (0,),
      'rope.dimension_count': (depth,),
      'attention.value_length': (depth,),
      'attention.causal': (True,),
    },
    f'llama ({kind})',
  )
  read = {
    *_GGUF_FIELDS.values(),
    *_GGUF_HARMLESS,
    'rope.scaling.type',
    'rope.scaling.factor',
    'rope.scale_linear',
    'expert_count',
    'expert_used_count',
    'rope.dimension_count',
    'attention.value_length',
    'attention.causal',
  }
  for field in sorted(own.keys() - read):
    raise _config.refused(f'{kind}.{field}', own[field], 'llama computes nothing of that name')
  biased = 'blk.0.attn_q.bias' in arrays
  if biased and kind == 'llama':
    raise _config.refused(
      'general.architecture', kind, 'with a bias on queries the order of their rows is not known'
    )
  factors = _floats(arrays['rope_freqs.weight']) if 'rope_freqs.weight' in arrays else None
  if scaling == 'linear' and factor != 1.0 and depth:
    factors = tuple(factor * one for one in factors or (1.0,) * (depth // 2))
  return found | {
    'rope_factors': (f'{kind}.rope.scaling.type', factors),
    'qkv_bias': ('blk.0.attn_q.bias', biased),
    'qk_norm': ('general.architecture', kind == 'qwen3'),
    'tied': ('output.weight', 'output.weight' not in arrays),
    'no_rope': ('general.architecture', ()),
    'window': found.get('window', ('general.architecture', None)),
    **_scales({}, kind),
  }
