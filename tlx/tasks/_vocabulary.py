"""Scores over a vocabulary of which only a chunk exists at a time."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tlx.types import Array

_Sums = tuple[Array, Array, Array]
_WHOLE = contextvars.ContextVar('whole', default=False)


@contextlib.contextmanager
def whole() -> Iterator[None]:
  """Within, the vocabulary is a single chunk, as long as nothing is computed: XLA counts the FLOPs
  of a loop's body once, however often it runs.
  """
  before = _WHOLE.set(True)
  try:
    yield
  finally:
    _WHOLE.reset(before)


def nll(features: Array, kernel: Array, targets: Array, chunk: int = 4096) -> Array:
  """The negative log-probability, in nats, of each target under softmax(features kernel'),
  [B, T] float32.

  The scores [B, T, V] are never there: the forward and the backward pass go over `chunk` tokens of
  the vocabulary at a time, with a running maximum and sum (Milakov & Gimelshein 2018,
  arXiv:1805.02867) and, for the gradient of the features, a running mean of the kernel's rows, as
  in FlashAttention (arXiv:2205.14135). Products are made in the type of the features, sums are
  float32.

  Args:
    features: [B, T, D], what the head multiplies.
    kernel: [V, D], of which a tied head's is the token embedding.
    targets: [B, T] token ids in [0, V); where a place does not count, any of them.
    chunk: tokens of the vocabulary at a time; [B, T, chunk] numbers are there at once.

  Raises:
    ValueError: shapes that do not go together, or a chunk below 1.
  """
  if features.shape[:-1] != targets.shape or features.shape[-1:] != kernel.shape[1:]:
    raise ValueError(
      f'Features {features.shape}, kernel {kernel.shape} and targets {targets.shape} do not go '
      'together; wanted [B, T, D], [V, D] and [B, T].'
    )
  if chunk < 1:
    raise ValueError(f'chunk is {chunk}, wanted at least 1 token of the vocabulary.')
  return _nll(features, kernel, targets, len(kernel) if _WHOLE.get() else min(chunk, len(kernel)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _nll(features: Array, kernel: Array, targets: Array, chunk: int) -> Array:
  """`nll`, of checked shapes."""

  def step(carry: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
    _, scores = _scores(features, kernel, number, chunk)
    largest, shrink, weights = _join(carry[0], scores)
    return (largest, carry[1] * shrink + weights.sum(-1)), None

  begin = _begin(targets)
  (largest, total), _ = jax.lax.scan(step, begin, _numbers(kernel, chunk))
  return jnp.log(total) + largest - _wanted(features, kernel, targets)


def _forward(
  features: Array, kernel: Array, targets: Array, chunk: int
) -> tuple[Array, tuple[Array, ...]]:
  """`_nll`, and what its gradient needs: the log of the sum, and the mean of the kernel's rows by
  their probability [B, T, D].
  """

  def step(carry: _Sums, number: Array) -> tuple[_Sums, None]:
    before, total, mean = carry
    rows, scores = _scores(features, kernel, number, chunk)
    largest, shrink, weights = _join(before, scores)
    mean = mean * shrink[..., None] + _product('btv,vd->btd', weights.astype(rows.dtype), rows)
    return (largest, total * shrink + weights.sum(-1), mean), None

  begin = (*_begin(targets), jnp.zeros(features.shape, jnp.float32))
  (largest, total, mean), _ = jax.lax.scan(step, begin, _numbers(kernel, chunk))
  log_total = jnp.log(total) + largest
  loss = log_total - _wanted(features, kernel, targets)
  return loss, (features, kernel, targets, log_total, mean / total[..., None])


def _backward(chunk: int, saved: tuple[Array, ...], output: Array) -> tuple[Array, Array, None]:
  """output (mean - kernel[target]) for the features, output (p - 1[target]) features for the
  kernel; where that is frozen nothing asks for it and nothing computes it.
  """
  features, kernel, targets, log_total, mean = saved
  of_features = output[..., None] * (mean - _rows_of(kernel, targets, features.dtype))

  def step(gradient: Array, number: Array) -> tuple[Array, None]:
    _, scores = _scores(features, kernel, number, chunk)
    weights = jnp.exp(scores - log_total[..., None]) * output[..., None]
    added = _product('btv,btd->vd', weights.astype(features.dtype), features)
    start = number * chunk  # of the last chunk as in `_scores`: what it has again is 0 there
    old = jax.lax.dynamic_slice_in_dim(gradient, start, chunk)
    return jax.lax.dynamic_update_slice_in_dim(gradient, old + added, start, 0), None

  wanted = (output[..., None] * features.astype(jnp.float32)).reshape(-1, features.shape[-1])
  begin = jnp.zeros(kernel.shape, jnp.float32).at[targets.ravel()].add(-wanted)
  of_kernel, _ = jax.lax.scan(step, begin, _numbers(kernel, chunk))
  return of_features.astype(features.dtype), of_kernel.astype(kernel.dtype), None


_nll.defvjp(_forward, _backward)


def _numbers(kernel: Array, chunk: int) -> Array:
  """The numbers of the chunks; the last one may reach beyond the vocabulary."""
  return jnp.arange(-(-len(kernel) // chunk))


def _begin(targets: Array) -> tuple[Array, Array]:
  """The greatest score and the sum of their exponentials before the first chunk."""
  return jnp.full(targets.shape, -jnp.inf, jnp.float32), jnp.zeros(targets.shape, jnp.float32)


def _scores(features: Array, kernel: Array, number: Array, chunk: int) -> tuple[Array, Array]:
  """(the rows of a chunk [chunk, D], their scores [B, T, chunk]).

  A last chunk that would reach beyond the vocabulary begins earlier, where `dynamic_slice` puts it;
  rows that it has again have the score -inf.
  """
  rows = jax.lax.dynamic_slice_in_dim(kernel, number * chunk, chunk).astype(features.dtype)
  scores = _product('btd,vd->btv', features, rows)
  again = jnp.maximum((number + 1) * chunk - len(kernel), 0)
  return rows, jnp.where(jnp.arange(chunk) < again, -jnp.inf, scores)


def _join(before: Array, scores: Array) -> tuple[Array, Array, Array]:
  """(the greatest score so far, by what the sums so far shrink, the exponentials of the scores)."""
  largest = jnp.maximum(before, scores.max(-1))
  return largest, jnp.exp(before - largest), jnp.exp(scores - largest[..., None])


def _wanted(features: Array, kernel: Array, targets: Array) -> Array:
  """The scores of the targets [B, T]."""
  return _product('btd,btd->bt', features, _rows_of(kernel, targets, features.dtype))


def _rows_of(kernel: Array, targets: Array, dtype: Any) -> Array:
  """The kernel's rows of the targets [B, T, D]."""
  return kernel[targets].astype(dtype)


def _product(places: str, a: Array, b: Array) -> Array:
  return jnp.einsum(places, a, b, preferred_element_type=jnp.float32)
