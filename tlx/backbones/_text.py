"""What the language backbones share: attention, masks, key-value cache, positions, head, tying.

Between stages an activation is a dict:
  hidden [B, T, D]
  mask   [B, S]     0 on padding, at the left or the right; S is T, or the length of the cache while
         tokens are generated. Causal models take rows of several texts too, which are numbered from
         1: none sees another, and positions begin anew with each. Prompts and prefixes (tlx/peft),
         which all of them see, have -1, and the first text goes on counting from them
  cache             only in generation (tlx/generate.py): one (key, value) [B, heads, S, depth] a
                    block. Each block takes the first pair and puts its own at the end, so after all
                    blocks they are in order again
  index  []         only in generation after the prompt: the cache slot of the first of the T tokens
  after  [B]        only where a classifier of the transformers library reads another token than the
         last of the mask: how many come after it
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tlx.backbones import _layers
from tlx.backbones._attention import ACTIVATIONS, attend
from tlx.types import Array, Network, PyTree, Variables

INIT = nn.initializers.normal(0.02)


def resolve(
  defaults: Any,
  variants: Mapping[str, Mapping[str, Any]],
  variant: str | None,
  changes: Mapping[str, Any],
) -> Any:
  """The options of a language backbone, with heads that divide.

  Raises:
    ValueError: an unknown variant, option or dtype, or heads that do not divide.
  """
  options = _layers.resolve(defaults, variants, variant, changes)
  if getattr(options, 'head_dim', None) is None and options.dim % options.heads:
    raise ValueError(
      f'Option dim is {options.dim}, which {options.heads} heads do not divide; choose other dim '
      'or heads.'
    )
  if options.heads % getattr(options, 'kv_heads', 1):
    raise ValueError(
      f'Option heads is {options.heads}, which {options.kv_heads} kv_heads do not divide; choose '
      'other heads.'
    )
  return options


def begin(
  inputs: PyTree, max_positions: int | None = None, head_pad_id: int | None = None
) -> tuple[Array, dict[str, Any]]:
  """(token ids [B, T], the rest of the activation that begins at these inputs); without a mask no
  token is padding. `LastTokenHead` reads the last token that is not `head_pad_id`.

  Raises:
    ValueError: the inputs are not a dict with 'ids', the mask does not cover them, or they are
      longer than `max_positions`.
  """
  if not isinstance(inputs, Mapping) or 'ids' not in inputs:
    got = (
      f'a dict of {sorted(inputs)}'
      if isinstance(inputs, Mapping)
      else f'an array {jnp.shape(inputs)}'
    )
    raise ValueError(f"Text inputs are a dict of 'ids' [B, T] and 'mask' [B, T], got {got}.")
  ids = inputs['ids']
  x = {name: inputs[name] for name in ('mask', 'cache', 'index') if name in inputs}
  x.setdefault('mask', jnp.ones(ids.shape, jnp.int32))
  if 'index' not in x and x['mask'].shape != ids.shape:
    raise ValueError(
      f'The mask covers {x["mask"].shape}, the ids are {ids.shape}; both are [B, T].'
    )
  length = x['mask'].shape[1]
  if max_positions is not None and length > max_positions:
    raise ValueError(
      f'{length} tokens, but the network has {max_positions} positions. Take input.length = '
      f'{max_positions} at most, or ask for fewer new tokens.'
    )
  if head_pad_id is not None:
    x['after'] = _after_last(ids != head_pad_id)
  return ids, x


def _after_last(chosen: Array) -> Array:
  """How many places [B] come after the last True of each row [B, T]; 0 where there is none."""
  return jnp.argmax(chosen[:, ::-1], axis=1)


def positions(x: Mapping[str, Any], num_tokens: int) -> Array:
  """The positions [B, T] of the activation's tokens, counted from the first real token of each row,
  and anew from the first of each further text.

  So padding at the left shifts nothing, as in the official `generate`; the official `forward`
  counts from the padding. What has a negative mask is before every text of its row.
  """
  mask = own = x['mask']
  if 'index' in x:
    own = jax.lax.dynamic_slice_in_dim(mask, x['index'], num_tokens, axis=1)
  first = jnp.argmax(mask != 0, axis=1)[:, None]
  steps = (x.get('index', 0) + jnp.arange(num_tokens))[None, :]
  before, after = own[:, :-1], own[:, 1:]
  other = (after != before) & (after != 0) & (before >= 0)
  counted = steps - (mask < 0).sum(1, keepdims=True)
  begins = jnp.where(jnp.pad(other, ((0, 0), (1, 0))), counted, 0)
  return jnp.maximum(steps - jnp.maximum(first, jax.lax.cummax(begins, axis=1)), 0)


def visible(
  x: Mapping[str, Any], num_tokens: int, causal: bool, window: int | None = None
) -> Array:
  """Which of the S keys each of the T queries may attend to, [B, T or 1, S]; with a window itself
  and the window - 1 before it. A causal query sees its own text alone.
  """
  allowed = (x['mask'] != 0)[:, None, :]
  if not causal:
    return allowed if window is None else allowed & _around(x, num_tokens, window)[None]
  query = x.get('index', 0) + jnp.arange(num_tokens)
  key = jnp.arange(x['mask'].shape[1])
  near = key[None, :] <= query[:, None]
  if window is not None:
    near &= key[None, :] > query[:, None] - window
  text = own = x['mask']
  if 'index' in x:
    own = jax.lax.dynamic_slice_in_dim(text, x['index'], num_tokens, axis=1)
  text, own = text[:, None, :], own[:, :, None]
  # What padding sees is of no use to anybody; it is what official outputs have there.
  return allowed & near[None] & ((text == own) | (text < 0) | (own == 0))


def _around(x: Mapping[str, Any], num_tokens: int, window: int) -> Array:
  """The keys [T, S] that queries may attend to: itself, window - 1 before and as many after it."""
  query = x.get('index', 0) + jnp.arange(num_tokens)
  return jnp.abs(query[:, None] - jnp.arange(x['mask'].shape[1])[None, :]) < window


def rotate(
  x: Array, position: Array, theta: float, factors: Sequence[float] | None = None
) -> Array:
  """Rotary embedding (arXiv:2104.09864) of x [B, H, T, d] at positions [B, T]: entry i turns with
  entry i + d/2.

  The d/2 angles a position are theta^(-2i/d), each divided by its factor where there are `factors`.
  The angles are float32 whatever the type of x. GGUF files pair neighbours instead; llama.py undoes
  that in its name map.
  """
  depth = x.shape[-1]
  rates = np.float32(1) / np.float32(theta) ** (
    np.arange(0, depth, 2, dtype=np.float32) / np.float32(depth)
  )
  if factors is not None:
    rates /= np.asarray(factors, np.float32)
  # [B, 1, T, d/2]
  angles = position[:, None, :, None].astype(jnp.float32) * rates[None, None, None]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def remember(x: Mapping[str, Any], key: Array, value: Array) -> tuple[Array, Array, dict[str, Any]]:
  """(keys, values to attend to, what changes in the activation): with a cache, the new tokens join
  those in it.
  """
  if 'cache' not in x:
    return key, value, {}
  if 'index' not in x:  # the prompt: nothing to join, its keys and values begin the cache
    return key, value, {'cache': (*x['cache'], (key, value))}
  (keys, values), *others = x['cache']
  keys = jax.lax.dynamic_update_slice_in_dim(keys, key, x['index'], axis=2)
  values = jax.lax.dynamic_update_slice_in_dim(values, value, x['index'], axis=2)
  return keys, values, {'cache': (*others, (keys, values))}


class Attention(nn.Module):
  """Multi-head attention (arXiv:1706.03762); `heads // kv_heads` queries share a key and a value
  (arXiv:2305.13245).

  Heads come before time, which is the faster layout on CPU; the softmax is float32.
  """

  heads: int
  kv_heads: int
  head_dim: int
  causal: bool
  qkv_bias: bool
  out_bias: bool
  rope_theta: float | None
  dtype: str
  rope_factors: Sequence[float] | None = None
  window: int | None = None
  norm_eps: float | None = None  # of an RMS norm of each head's queries and keys (Qwen3)
  scale: float = 1.0  # of the scores, beyond 1 / sqrt(head_dim)

  @nn.compact
  def __call__(
    self, rows: Array, x: Mapping[str, Any], shape: tuple[int, ...]
  ) -> tuple[Array, dict[str, Any]]:
    """(the mixed tokens as rows [B T, D], what changes in the activation x) of rows that are tokens
    of `shape` [B, T, D].
    """
    batch, num_tokens, dim = shape

    def project(name: str, heads: int) -> Array:
      dense = nn.Dense(
        heads * self.head_dim, self.qkv_bias, self.dtype, kernel_init=INIT, name=name
      )
      # [B, H, T, d]
      return dense(rows).reshape(batch, num_tokens, heads, self.head_dim).transpose(0, 2, 1, 3)

    query = project('query', self.heads)
    key = project('key', self.kv_heads)
    value = project('value', self.kv_heads)
    if self.norm_eps is not None:
      query, key = (
        nn.RMSNorm(self.norm_eps, self.dtype, name=f'{name}_norm')(array)
        for name, array in (('query', query), ('key', key))
      )
    if self.rope_theta is not None:
      position = positions(x, num_tokens)
      query, key = (
        rotate(array, position, self.rope_theta, self.rope_factors) for array in (query, key)
      )
    query = query if self.scale == 1.0 else query * self.scale
    key, value, changes = remember(x, key, value)

    allowed = visible(x, num_tokens, self.causal, self.window)[:, None]  # [B, 1, T or 1, S]
    # Of a cache there are keys that come before all queries.
    mixed = attend(query, key, value, allowed, self.causal and key.shape[2] == num_tokens)
    mixed = mixed.transpose(0, 2, 1, 3).reshape(rows.shape[0], -1)
    return nn.Dense(dim, self.out_bias, self.dtype, kernel_init=INIT, name='out')(mixed), changes


class MLP(nn.Module):
  """Two layers with an activation between, `size` wide there. `o` are the options of a backbone:
  dim, activation, dtype.
  """

  o: Any
  size: int

  @nn.compact
  def __call__(self, hidden: Array) -> Array:
    o = self.o
    up = nn.Dense(self.size, dtype=o.dtype, kernel_init=INIT, name='up')(hidden)
    down = nn.Dense(o.dim, dtype=o.dtype, kernel_init=INIT, name='down')
    return down(ACTIVATIONS[o.activation](up))


class GatedMLP(nn.Module):
  """A gated MLP (arXiv:2002.05202): down(activation(gate(x)) * up(x)), SwiGLU with SiLU, GeGLU with
  GELU. `o` are the options of a backbone: dim, mlp_dim, mlp_bias, activation, dtype.
  """

  o: Any

  @nn.compact
  def __call__(self, hidden: Array) -> Array:
    def dense(features: int, name: str) -> nn.Module:
      return nn.Dense(features, self.o.mlp_bias, self.o.dtype, kernel_init=INIT, name=name)

    gate = ACTIVATIONS[self.o.activation](dense(self.o.mlp_dim, 'gate')(hidden))
    return dense(self.o.dim, 'down')(gate * dense(self.o.mlp_dim, 'up')(hidden))


def pool(x: Mapping[str, Any], how: str) -> Array:
  """One float32 vector a text [B, D]: of its first token ('cls'), or the mean over its tokens
  ('mean'); or the vectors of all tokens as they are, [B, T, D] ('tokens').
  """
  hidden, real = x['hidden'].astype(jnp.float32), x['mask'] != 0
  if how == 'tokens':
    return hidden
  if how == 'cls':
    first = jnp.argmax(real, axis=1)
    return jnp.take_along_axis(hidden, first[:, None, None], axis=1)[:, 0]
  weight = real.astype(jnp.float32)[..., None]
  return (hidden * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)


class Pooled(nn.Module):
  """What is pooled as it is, for the head of an encoder that is asked for no classes."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return x


class Vocabulary(nn.Module):
  """A score in float32 for every token of the vocabulary, [B, T, V]; without `logits` what they are
  the product of, {'features' [B, T, D], 'kernel' [V, D]}.
  """

  vocab_size: int
  dtype: str
  logits: bool
  scale: float = 1.0  # of the scores

  @nn.compact
  def __call__(self, x: Mapping[str, Any], train: bool) -> Array | dict[str, Array]:
    embedding = self.param('embedding', INIT, (self.vocab_size, x['hidden'].shape[-1]))
    features = x['hidden'] if self.scale == 1.0 else x['hidden'] * self.scale
    return (
      scores(features, embedding) if self.logits else {'features': features, 'kernel': embedding}
    )


def scores(features: Array, kernel: Array) -> Array:
  """The score in float32 of every token of the vocabulary [B, T, V], for a kernel [V, D]."""
  return jnp.einsum(
    'btd,vd->btv', features, kernel.astype(features.dtype), preferred_element_type=jnp.float32
  )


class LastTokenHead(_layers.Head):
  """Class scores in float32 from each row's last token that is not padding, [B, K].

  Heads of the transformers library have no bias; ours starts from 0.
  """

  def __call__(self, x: PyTree, train: bool) -> Array:
    after = x['after'] if 'after' in x else _after_last(x['mask'] != 0)
    last = x['hidden'].shape[1] - 1 - after
    return super().__call__(
      jnp.take_along_axis(x['hidden'], last[:, None, None], axis=1)[:, 0], train
    )


def head(num_classes: int | None, o: Any, scale: float = 1.0) -> nn.Module:
  """The last stage of a language model of options `o`: over the vocabulary, or over
  `num_classes`.
  """
  if num_classes is None:
    return Vocabulary(o.vocab_size, o.dtype, o.logits, scale)
  return LastTokenHead(num_classes)


def tie(network: Network) -> Network:
  """The network whose head multiplies by the embedding of its first stage.

  That matrix is one parameter, 'embed/tokens/embedding': it is counted, frozen, saved and trained
  once, with the gradients of both uses. The head has no parameter of its own and borrows it from
  `variables`, so slices of stages work as in any network, and activations hold nothing but
  examples, which is what caching them per example asks for.
  """

  def init(key: Array, inputs: PyTree) -> Variables:
    variables = network.init(key, inputs)
    return variables._replace(params={**variables.params, 'head': {}})

  def apply(variables: Variables, x: PyTree, **options: Any) -> tuple[PyTree, PyTree]:
    borrowed = {'embedding': variables.params['embed']['tokens']['embedding']}
    return network.apply(
      variables._replace(params={**variables.params, 'head': borrowed}), x, **options
    )

  return Network(network.stages, init, apply)


def head_pad_id(config: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
  """What a config.json says of the token that a classifier's head reads: the last one that is not
  pad_token_id.
  """
  head = next(iter(config.get('architectures') or ()), '')
  classifier = head.endswith('ForSequenceClassification')
  return {'head_pad_id': ('pad_token_id', config.get('pad_token_id') if classifier else None)}


def check_tied(arrays: Mapping[str, np.ndarray], tied: bool, embedding: str, output: str) -> None:
  """Nothing, where the file agrees that input and output embeddings are one.

  Raises:
    ValueError: the network ties them and the file holds two that differ.
  """
  if (
    tied
    and output in arrays
    and embedding in arrays
    and not np.array_equal(arrays[output], arrays[embedding])
  ):
    raise ValueError(
      f'{output} differs from {embedding} in the file, but the network ties them; build it with '
      'tied=False.'
    )


def tiny_inputs(last: Sequence[int]) -> dict[str, Array]:
  """Three short texts for tests: a whole one, one with padding, and one whose mask is `last`."""
  mask = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], last], jnp.int32)
  return {'ids': jnp.arange(15, dtype=jnp.int32).reshape(3, 5), 'mask': mask}
