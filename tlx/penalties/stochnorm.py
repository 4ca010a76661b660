"""StochNorm: channels are normalised by running statistics at random (Kou et al. 2020)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tlx.backbones import Edit
from tlx.backbones._norms import BatchNorm
from tlx.penalties import Penalty
from tlx.types import Array


@functools.cache
def penalty(p: float = 0.5) -> Penalty:
  """In training a batch norm takes the batch's statistics of a channel with probability p, else
  the running ones.

  Those move by every batch. Each channel is drawn anew at every step, for all examples alike.

  Raises:
    ValueError: a p outside [0, 1].
  """
  if not isinstance(p, (int, float)) or isinstance(p, bool) or not 0 <= p <= 1:
    raise ValueError(f'p is a probability in [0, 1], got {p!r}.')

  def intercept(leaves: Any) -> Callable:
    def interceptor(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
      norm = context.module
      live = not kwargs.get('use_running_average', True)
      if not isinstance(norm, BatchNorm) or not live or norm.is_initializing():
        return call(*args, **kwargs)
      by_running = running(norm, args[0])  # before the batch moves them
      by_batch = call(*args, **kwargs)
      drawn = jax.random.bernoulli(norm.make_rng('dropout'), p, by_batch.shape[-1:])
      return jnp.where(drawn, by_batch, by_running)

    return interceptor

  @functools.cache
  def edit(stages: tuple[str, ...]) -> Edit:
    return Edit('stochnorm', intercept, also=stages)

  return Penalty(frozenset({'norms'}), edit=edit)


def running(norm: BatchNorm, x: Array) -> Array:
  """x normalised by a norm's running statistics."""
  stats: dict = {name: norm.get_variable('batch_stats', name) for name in ('mean', 'var')}
  params: dict = {name: norm.get_variable('params', name) for name in ('scale', 'bias')}
  rate = jax.lax.rsqrt(stats['var'] + norm.epsilon) * params['scale']
  y = x * rate + (params['bias'] - stats['mean'] * rate)
  return (y if norm.bounds is None else jnp.clip(y, *norm.bounds)).astype(x.dtype)
