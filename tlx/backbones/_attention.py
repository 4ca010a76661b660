"""Pieces of transformers, with gradients written by hand: they keep less for the backward pass and
go over it in fewer passes.

Blocks hand tokens on as rows [B T, D]. The products of a dense layer then take the sum of residuals
as it is; where a reshape stands between, XLA on CPU computes the whole sum, back to the loss, again
for each of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tlx.types import Array


@jax.custom_vjp
def gelu(x: Array) -> Array:
  """x Phi(x), the exact GELU (arXiv:1606.08415)."""
  return (0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))).astype(x.dtype)


def _gelu_backward(x: Array, output: Array) -> tuple[Array]:
  density = jnp.exp(-0.5 * x * x) * (0.5 / jnp.pi) ** 0.5
  return (output * (0.5 * (1 + jax.lax.erf(x * 0.5**0.5)) + x * density),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def quick_gelu(x: Array) -> Array:
  """x sigmoid(1.702 x), as in CLIP."""
  return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  'gelu': gelu,
  'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
  'quick_gelu': quick_gelu,
  'relu': jax.nn.relu,
  'silu': jax.nn.silu,
}
# What the transformers library calls them.
OF_TRANSFORMERS = {
  'gelu': 'gelu',
  'gelu_python': 'gelu',
  'gelu_new': 'gelu_tanh',
  'gelu_fast': 'gelu_tanh',
  'gelu_pytorch_tanh': 'gelu_tanh',
  'quick_gelu': 'quick_gelu',
  'relu': 'relu',
  'silu': 'silu',
  'swish': 'silu',
}


FUSED_DEPTH = 128  # of a head, at most, that cuDNN's flash attention takes on every card


def attend(
  query: Array, key: Array, value: Array, allowed: Array | None, causal: bool = False
) -> Array:
  """softmax(query key' / sqrt(d)) value [B, H, T, d], the softmax in float32, for keys and values
  [B, K, S, d], each of which H / K queries share (arXiv:2305.13245).

  `allowed`, which broadcasts to [B, 1, T, S], is False where a query may not look; with `causal` it
  is so wherever the key comes after the query. One that may look nowhere sees a mean. On NVIDIA
  cards bfloat16 goes to cuDNN's flash attention (arXiv:2205.14135); it has none for float32.
  """
  batch, _, num_queries, depth = query.shape
  if _is_fused(query):
    if allowed is not None:
      allowed = jnp.broadcast_to(allowed, (batch, 1, num_queries, key.shape[2]))
    return _fused(causal, query, key, value, allowed)
  groups = query.shape[1] // key.shape[1]
  if allowed is not None and allowed.shape[2] > 1:
    allowed = jnp.tile(allowed, (1, 1, groups, 1))
  shared = query.reshape(batch, key.shape[1], groups * num_queries, depth)
  # What a gradient multiplies is traced later, outside of what set the precision here.
  precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
  return _plain(precision, shared, key, value, allowed).reshape(query.shape)


def _is_fused(query: Array) -> bool:
  """Whether cuDNN's flash attention is for such queries; not for a single one, nor in a program of
  any number of examples, which runs everywhere.
  """
  return (
    query.dtype == jnp.bfloat16
    and isinstance(query.shape[0], int)
    and query.shape[2] > 1
    and query.shape[3] % 8 == 0
    and query.shape[3] <= FUSED_DEPTH
    and has_flash()
  )


def has_flash() -> bool:
  """Whether JAX runs on NVIDIA cards that cuDNN's flash attention is made for: Ampere and later."""
  if jax.default_backend() != 'gpu':
    return False
  capability = jax.devices()[0].compute_capability  # '9.0'; 'gfx942' of a card of AMD's
  return capability[:1].isdigit() and float(capability) >= 8


def _flash(
  causal: bool, query: Array, key: Array, value: Array, allowed: Array | None = None
) -> Array:
  """Attention by cuDNN, which has time before heads and wants an even number of tokens: where one
  is added, no query sees it.
  """
  odd_queries, odd_keys = query.shape[2] % 2, key.shape[2] % 2
  lengths = None
  if allowed is not None:
    allowed = jnp.pad(allowed, ((0, 0), (0, 0), (0, odd_queries), (0, odd_keys)))
  elif odd_keys:
    lengths = jnp.full(len(key), key.shape[2], jnp.int32)

  def by_time(array: Array, odd: int) -> Array:
    return jnp.pad(array.transpose(0, 2, 1, 3), ((0, 0), (0, odd), (0, 0), (0, 0)))

  mixed = jax.nn.dot_product_attention(
    by_time(query, odd_queries),
    by_time(key, odd_keys),
    by_time(value, odd_keys),
    mask=allowed,
    is_causal=causal,
    key_value_seq_lengths=lengths,
    implementation='cudnn',
  )
  return mixed[:, : query.shape[2]].transpose(0, 2, 1, 3)


def _over_runs(function: Callable) -> Callable:
  """A function of arrays [B, ...] that sees the runs of a cohort as more examples.

  JAX's own rule for `vmap` over cuDNN's attention wants all arguments to have runs, and a mask a
  head.
  """
  flat = jax.custom_batching.custom_vmap(function)

  @flat.def_vmap
  def _(num_runs: int, has_runs: list[bool], *arrays: Array) -> tuple[Any, Any]:
    examples = []
    for array, has in zip(arrays, has_runs):
      full = array if has else jnp.broadcast_to(array, (num_runs, *array.shape))
      examples.append(full.reshape(-1, *full.shape[2:]))
    found = flat(*examples)
    found = jax.tree.map(lambda leaf: leaf.reshape(num_runs, -1, *leaf.shape[1:]), found)
    return found, jax.tree.map(lambda _: True, found)

  return flat


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(causal: bool, query: Array, key: Array, value: Array, allowed: Array | None) -> Array:
  arrays = query, key, value, *(() if allowed is None else (allowed,))
  return _over_runs(functools.partial(_flash, causal))(*arrays)


def _fused_forward(
  causal: bool, query: Array, key: Array, value: Array, allowed: Array | None
) -> tuple[Array, tuple[Array, ...]]:
  arrays = query, key, value, *(() if allowed is None else (allowed,))

  def forward(*arrays: Array) -> Array:
    return _differentiated(causal, arrays)[0]

  return _over_runs(forward)(*arrays), arrays


def _fused_backward(
  causal: bool, arrays: tuple[Array, ...], output: Array
) -> tuple[Array, Array, Array, None]:
  def backward(output: Array, *arrays: Array) -> tuple[Array, ...]:
    return _differentiated(causal, arrays)[1](output)

  return *_over_runs(backward)(output, *arrays), None


def _differentiated(causal: bool, arrays: tuple[Array, ...]) -> tuple[Array, Callable]:
  """(attention, what makes gradients of queries, keys and values of one of it).

  The forward and the backward pass both call it: their attentions are the same operation on the
  same arrays, which XLA computes once.
  """

  def of(query: Array, key: Array, value: Array) -> Array:
    return _flash(causal, query, key, value, *arrays[3:])

  return jax.vjp(of, *arrays[:3])


_fused.defvjp(_fused_forward, _fused_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _plain(
  precision: str | None, query: Array, key: Array, value: Array, allowed: Array | None
) -> Array:
  """`attend`, of as many heads of keys as of queries."""
  return _plain_forward(precision, query, key, value, allowed)[0]


def _plain_forward(
  precision: str | None, query: Array, key: Array, value: Array, allowed: Array | None
) -> tuple[Array, tuple[Array | None, ...]]:
  scores = _product(precision, 'bhtd,bhsd->bhts', query * query.shape[-1] ** -0.5, key)
  if allowed is not None:
    scores = jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)
  weights = jnp.exp(scores - scores.max(-1, keepdims=True))
  total = weights.sum(-1, keepdims=True)
  weights = weights.astype(value.dtype)
  # dividing [T, d] and not [T, S]
  mixed = _product(precision, 'bhts,bhsd->bhtd', weights, value) / total
  return mixed.astype(value.dtype), (query, key, value, allowed, weights, total, mixed)


def _plain_backward(
  precision: str | None, saved: tuple[Any, ...], output: Array
) -> tuple[Array, Array, Array, None]:
  query, key, value, allowed, weights, total, mixed = saved
  output = output.astype(jnp.float32) / total
  mean = (output * mixed).sum(-1, keepdims=True)
  output = output.astype(value.dtype)
  scores = weights * (_product(precision, 'bhtd,bhsd->bhts', output, value) - mean)
  if allowed is not None:
    scores = jnp.where(allowed, scores, 0)
  scores = (scores * query.shape[-1] ** -0.5).astype(query.dtype)
  return (
    _product(precision, 'bhts,bhsd->bhtd', scores, key).astype(query.dtype),
    _product(precision, 'bhts,bhtd->bhsd', scores, query).astype(key.dtype),
    _product(precision, 'bhts,bhtd->bhsd', weights, output).astype(value.dtype),
    None,
  )


_plain.defvjp(_plain_forward, _plain_backward)


def _product(precision: str | None, places: str, a: Array, b: Array) -> Array:
  return jnp.einsum(places, a, b, precision=precision, preferred_element_type=jnp.float32)
