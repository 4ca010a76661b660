"""Llama (arXiv:2302.13971, 2307.09288) and the models of its form: SmolLM2, TinyLlama, Qwen2.

Inputs are a dict: 'ids' [B, T] int, and optionally 'mask' [B, T] (0 on padding, at the left or the right).
"""
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.backbones import NameMap, _names, _text, chain
from tlx.types import Array, Network, PyTree


class Options(NamedTuple):
  """The sizes of SmolLM2-135M.

  kv_heads: keys and values, each shared by heads / kv_heads queries
  head_dim: depth of a head, dim / heads where None
  qkv_bias: a bias on query, key and value (Qwen2)
  tied: the output layer is the token embedding
  """
  vocab_size: int = 49152
  dim: int = 576
  depth: int = 30
  heads: int = 9
  kv_heads: int = 3
  head_dim: int | None = None
  mlp_dim: int = 1536
  rope_theta: float = 100000.0
  norm_eps: float = 1e-5
  qkv_bias: bool = False
  tied: bool = True
  dtype: str = 'float32'


VARIANTS: dict[str, dict[str, Any]] = {  # from the config.json of each model
    'smollm2_135m': {},
    'smollm2_360m': {'dim': 960, 'depth': 32, 'heads': 15, 'kv_heads': 5, 'mlp_dim': 2560},
    'tinyllama_1.1b': {'vocab_size': 32000, 'dim': 2048, 'depth': 22, 'heads': 32, 'kv_heads': 4, 'mlp_dim': 5632,
                       'rope_theta': 10000.0, 'tied': False},
    'qwen2_0.5b': {'vocab_size': 151936, 'dim': 896, 'depth': 24, 'heads': 14, 'kv_heads': 2, 'mlp_dim': 4864,
                   'rope_theta': 1000000.0, 'norm_eps': 1e-6, 'qkv_bias': True},
}

# Tensors of public files that a network does not use: rotary frequencies kept as buffers.
IGNORE = (r'rotary_emb\.inv_freq$', r'^rope_freqs\.weight$')


def build(num_classes: int | None = None, variant: str | None = None, **options: Any) -> Network:
  """A Llama with stages embed, block0.., norm, head.

  The head gives the next token's logits [B, T, V]; with `num_classes`, class scores [B, K] from the last token that is not
  padding. Rotary frequencies are not rescaled for long texts.

  Raises:
    ValueError: an unknown variant or option.
  """
  o = _text.resolve(Options(), VARIANTS, variant, options)
  network = chain([('embed', Embed(o)), *((f'block{i}', Block(o)) for i in range(o.depth)), ('norm', Norm(o)),
                   ('head', _text.head(num_classes, o.vocab_size, o.dtype))])
  return _text.tie(network) if o.tied and num_classes is None else network


def tiny() -> tuple[dict[str, Any], PyTree]:
  """(options of a small network, inputs for it)."""
  options = {'num_classes': 3, 'vocab_size': 17, 'dim': 8, 'depth': 2, 'heads': 4, 'kv_heads': 2, 'mlp_dim': 12}
  ids = jnp.arange(15, dtype=jnp.int32).reshape(3, 5)
  return options, {'ids': ids, 'mask': jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]], jnp.int32)}


def head_dim(o: Options) -> int:
  """The depth of a head."""
  return o.head_dim or o.dim // o.heads


class Embed(nn.Module):
  """Token embeddings; positions enter in the attention."""
  o: Options

  @nn.compact
  def __call__(self, inputs: PyTree, train: bool) -> dict[str, Any]:
    ids, x = _text.begin(inputs)
    tokens = nn.Embed(self.o.vocab_size, self.o.dim, self.o.dtype, embedding_init=_text.INIT, name='tokens')
    return {**x, 'hidden': tokens(ids)}


class Block(nn.Module):
  """Rotary attention to the tokens so far, then the gated MLP; a norm goes before each, and a residual sum around."""
  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    o, shape = self.o, x['hidden'].shape
    rows = x['hidden'].reshape(-1, shape[-1])  # see _attention.py
    attention = _text.Attention(o.heads, o.kv_heads, head_dim(o), True, o.qkv_bias, False, o.rope_theta, o.dtype,
                                name='attention')
    mixed, changes = attention(rms_norm(o, 'norm1')(rows), x, shape)
    rows = rows + mixed
    rows = rows + MLP(o, name='mlp')(rms_norm(o, 'norm2')(rows))
    return {**x, **changes, 'hidden': rows.reshape(shape)}


class MLP(nn.Module):
  """SwiGLU (arXiv:2002.05202): down(silu(gate(x)) * up(x))."""
  o: Options

  @nn.compact
  def __call__(self, hidden: Array) -> Array:
    def dense(features: int, name: str) -> nn.Module:
      return nn.Dense(features, False, self.o.dtype, kernel_init=_text.INIT, name=name)

    gated = nn.silu(dense(self.o.mlp_dim, 'gate')(hidden)) * dense(self.o.mlp_dim, 'up')(hidden)
    return dense(self.o.dim, 'down')(gated)


class Norm(nn.Module):
  """The norm after the last block."""
  o: Options

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> dict[str, Any]:
    return {**x, 'hidden': rms_norm(self.o, 'norm')(x['hidden'])}


def rms_norm(o: Options, name: str) -> nn.Module:
  """An RMS norm (arXiv:1910.07467) whose mean square is float32."""
  return nn.RMSNorm(o.norm_eps, o.dtype, name=name)


TRANSFORMERS = {'tokens': 'embed_tokens', 'norm': 'norm', 'block': 'layers.{}',
                'norm1': 'input_layernorm', 'norm2': 'post_attention_layernorm',
                'attention/query': 'self_attn.q_proj', 'attention/key': 'self_attn.k_proj',
                'attention/value': 'self_attn.v_proj', 'attention/out': 'self_attn.o_proj',
                'mlp/gate': 'mlp.gate_proj', 'mlp/up': 'mlp.up_proj', 'mlp/down': 'mlp.down_proj'}
GGUF = {'tokens': 'token_embd', 'norm': 'output_norm', 'block': 'blk.{}', 'norm1': 'attn_norm', 'norm2': 'ffn_norm',
        'attention/query': 'attn_q', 'attention/key': 'attn_k', 'attention/value': 'attn_v', 'attention/out': 'attn_output',
        'mlp/gate': 'ffn_gate', 'mlp/up': 'ffn_up', 'mlp/down': 'ffn_down'}


def names(arrays: Mapping[str, np.ndarray], variant: str | None = None, *, num_classes: int | None = None,
          **options: Any) -> NameMap:
  """The names of GGUF or of the transformers library for the network that `build` makes of these options.

  `arrays` are those of the file, and tell which it is; they may have something before them, as 'model.'. The GGUF files
  of Llama models (not of Qwen2, which are those with `qkv_bias`) hold the rows of query and key so that rotary pairs are
  neighbours; here they become halves again.

  Raises:
    ValueError: the network ties input and output embeddings, and the file holds two that differ.
  """
  o = _text.resolve(Options(), VARIANTS, variant, options)
  gguf = 'token_embd.weight' in arrays
  table, output = (GGUF, 'output.weight') if gguf else (TRANSFORMERS, 'lm_head.weight')
  model = _names.prefix_of(arrays, f'{table["tokens"]}.weight')
  _text.check_tied(arrays, o.tied and num_classes is None, f'{model}{table["tokens"]}.weight', output)
  found: dict[str, Any] = {'embed/tokens/embedding': (f'{model}{table["tokens"]}.weight', _names.same),
                           'head/embedding': (output, _names.same),
                           'norm/norm/scale': (f'{model}{table["norm"]}.weight', _names.same)}
  for i in range(o.depth):
    block = model + table['block'].format(i)
    for part in ('attention/query', 'attention/key', 'attention/value', 'attention/out', 'mlp/gate', 'mlp/up', 'mlp/down'):
      biased = o.qkv_bias and part in ('attention/query', 'attention/key', 'attention/value')
      layer = _names.dense(f'block{i}/{part}', f'{block}.{table[part]}', biased)
      if gguf and not o.qkv_bias and part in ('attention/query', 'attention/key'):
        layer = {ours: (theirs, halves(head_dim(o), change)) for ours, (theirs, change) in layer.items()}
      found |= layer
    for part in ('norm1', 'norm2'):
      found[f'block{i}/{part}/scale'] = (f'{block}.{table[part]}.weight', _names.same)
  return found


def halves(depth: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
  """`change`, after the rows of each head go from pairs (0, 1), (2, 3), .. to pairs (0, depth/2), (1, depth/2 + 1), ..

  >>> halves(4, _names.same)(np.arange(8))
  array([0, 2, 1, 3, 4, 6, 5, 7])
  """
  def apart(array: np.ndarray) -> np.ndarray:
    return change(array.reshape(-1, depth // 2, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape))
  return apart
