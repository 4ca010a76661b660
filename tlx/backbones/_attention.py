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


@jax.custom_vjp
def attend(query: Array, key: Array, value: Array, allowed: Array | None) -> Array:
  """softmax(query key' / sqrt(d)) value [B, H, T, d], in float32, for keys and values [B, H, S, d].

  `allowed`, which broadcasts to [B, H, T, S], is False where a query may not look. One that may
  look nowhere sees the mean.
  """
  return _attend_forward(query, key, value, allowed)[0]


def _attend_forward(
  query: Array, key: Array, value: Array, allowed: Array | None
) -> tuple[Array, tuple[Array | None, ...]]:
  scores = _product('bhtd,bhsd->bhts', query * query.shape[-1] ** -0.5, key)
  if allowed is not None:
    scores = jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)
  weights = jnp.exp(scores - scores.max(-1, keepdims=True))
  total = weights.sum(-1, keepdims=True)
  weights = weights.astype(value.dtype)
  mixed = _product('bhts,bhsd->bhtd', weights, value) / total  # dividing [T, d] and not [T, S]
  return mixed.astype(value.dtype), (query, key, value, allowed, weights, total, mixed)


def _attend_backward(saved: tuple[Any, ...], output: Array) -> tuple[Array, Array, Array, None]:
  query, key, value, allowed, weights, total, mixed = saved
  output = output.astype(jnp.float32) / total
  mean = (output * mixed).sum(-1, keepdims=True)
  output = output.astype(value.dtype)
  scores = weights * (_product('bhtd,bhsd->bhts', output, value) - mean)
  if allowed is not None:
    scores = jnp.where(allowed, scores, 0)
  scores = (scores * query.shape[-1] ** -0.5).astype(query.dtype)
  return (
    _product('bhts,bhsd->bhtd', scores, key).astype(query.dtype),
    _product('bhts,bhtd->bhsd', scores, query).astype(key.dtype),
    _product('bhts,bhtd->bhsd', weights, output).astype(value.dtype),
    None,
  )


attend.defvjp(_attend_forward, _attend_backward)


def _product(places: str, a: Array, b: Array) -> Array:
  return jnp.einsum(places, a, b, preferred_element_type=jnp.float32)
