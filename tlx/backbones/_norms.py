"""Batch and layer norms with gradients written by hand: derived ones keep several times as much.

The backward pass writes the normalised input in other terms than the forward pass, or XLA would
take it for the same and keep it.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tlx.types import Array

Bounds = tuple[float, float] | None
RELU, RELU6 = (0.0, float('inf')), (0.0, 6.0)


def unit(x: Array) -> Array:
  """Vectors [..., D] in float32, each divided by its L2 norm; of none what is next to 0."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.maximum((x**2).sum(-1, keepdims=True), 1e-24))


def batch_norm(
  x: Array,
  train: bool,
  name: str,
  epsilon: float = 1e-5,
  momentum: float = 0.9,
  bounds: Bounds = None,
) -> Array:
  """x through a BatchNorm, then clipped to `bounds`; PyTorch's momentum m is 1 - m here.

  The running variance takes the batch's biased variance in, where PyTorch takes the unbiased one.
  """
  return BatchNorm(momentum=momentum, epsilon=epsilon, dtype=x.dtype, bounds=bounds, name=name)(
    x, use_running_average=not train
  )


class BatchNorm(nn.BatchNorm):
  """flax's over all dimensions but the last, statistics in float32, then a clip to `bounds`."""

  bounds: Bounds = None

  @nn.compact
  def __call__(self, x: Array, use_running_average: bool | None = None) -> Array:  # type: ignore[override]
    shape = x.shape[-1:]
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale = self.param('scale', nn.initializers.ones, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    if use_running_average:
      rate = jax.lax.rsqrt(var.value + self.epsilon) * scale
      return _clip(x * rate + (bias - mean.value * rate), self.bounds).astype(x.dtype)
    y, batch_mean, batch_var = _batch_norm(x, scale, bias, self.epsilon, self.bounds)
    if not self.is_initializing():
      mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
      var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
    return y


def _clip(x: Array, bounds: Bounds) -> Array:
  return x if bounds is None else jnp.clip(x, *bounds)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_norm(
  x: Array, scale: Array, bias: Array, epsilon: float, bounds: Bounds
) -> tuple[Array, Array, Array]:
  """(the normalised x, the batch's mean and variance [C]); no gradient flows through those."""
  return _batch_norm_forward(x, scale, bias, epsilon, bounds)[0]


def _batch_norm_forward(
  x: Array, scale: Array, bias: Array, epsilon: float, bounds: Bounds
) -> tuple[Any, ...]:
  axes = tuple(range(x.ndim - 1))
  mean = x.mean(axes, dtype=jnp.float32)
  var = jnp.square(x.astype(jnp.float32) - mean).mean(axes)
  rate = jax.lax.rsqrt(var + epsilon)
  y = _clip(x * (rate * scale) + (bias - mean * (rate * scale)), bounds).astype(x.dtype)
  return (y, mean, var), (x, mean, rate, scale, bias)


def _batch_norm_backward(
  epsilon: float, bounds: Bounds, saved: tuple[Array, ...], outputs: tuple[Array, ...]
) -> tuple[Array, ...]:
  x, mean, rate, scale, bias = saved
  axes, output = tuple(range(x.ndim - 1)), outputs[0].astype(jnp.float32)
  normal = x * rate - mean * rate
  if bounds is not None:
    y = normal * scale + bias
    output = jnp.where((y > bounds[0]) & (y < bounds[1]), output, 0)
  total, along = output.sum(axes), (output * normal).sum(axes)
  gradient = rate * scale * (output - (total + normal * along) * (x.shape[-1] / x.size))
  return gradient.astype(x.dtype), along, total


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


class LayerNorm(nn.Module):
  """A layer norm (arXiv:1607.06450) with parameters `scale`, `bias` [D] and float32 statistics."""

  epsilon: float
  dtype: Any
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param('scale', nn.initializers.ones, x.shape[-1:], jnp.float32)
    bias = jnp.zeros(x.shape[-1:], jnp.float32)
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, x.shape[-1:], jnp.float32)
    return _layer_norm(x, scale, bias, self.epsilon).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
  return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(
  x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, tuple[Array, ...]]:
  mean = x.mean(-1, keepdims=True, dtype=jnp.float32)
  rate = jax.lax.rsqrt(jnp.square(x.astype(jnp.float32) - mean).mean(-1, keepdims=True) + epsilon)
  return (x - mean) * rate * scale + bias, (x, mean, rate, scale)


def _layer_norm_backward(
  epsilon: float, saved: tuple[Array, ...], output: Array
) -> tuple[Array, Array, Array]:
  x, mean, rate, scale = saved
  normal = x * rate - mean * rate
  scaled = output * scale
  gradient = rate * (
    scaled - scaled.mean(-1, keepdims=True) - normal * (scaled * normal).mean(-1, keepdims=True)
  )
  rows = tuple(range(x.ndim - 1))
  return gradient.astype(x.dtype), (output * normal).sum(rows), output.sum(rows)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
