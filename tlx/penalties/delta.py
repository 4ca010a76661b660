"""DELTA: the distance of feature maps from the source's on the batch (Li et al. 2019)."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tlx.penalties import (
  Model,
  Penalty,
  Seen,
  check_amounts,
  check_count,
  every,
  fresh,
  half_square,
)
from tlx.types import Array, Batch, PyTree

TEMPERATURE = 5.0  # of the softmax over channels, as in the official code


@functools.cache
def penalty(
  alpha: float = 0.01,
  beta: float = 0.01,
  stages: tuple[str, ...] = (),
  attention: bool = False,
  examples: int = 256,
) -> Penalty:
  """alpha sum of `distance` over stages + beta/2 |v|^2, v the leaves that the source lacks.

  `stages` () are all with trained leaves before the head; the official code takes the last
  convolutions of a ResNet's four groups. Distances are summed over the batch as there, so `alpha`
  counts as many times as there are examples in it. `attention` weights channels by how much the
  loss rises without them, softmax(rise / 5), of the run as it begins the phase, on at most
  `examples` of its own: a phase that trains the head goes before. Here a channel of what comes out
  of the stage is set to 0, there a filter of a convolution.
  """
  check_amounts(alpha=alpha, beta=beta)
  check_count('examples', examples, 1)

  def compared(seen: Seen) -> list[str]:
    trained = [name for name in seen.stages if jax.tree.leaves(seen.trained.get(name))]
    return [name for name in trained if not stages or name in stages]

  def value(seen: Seen) -> Array:
    total = jnp.zeros(())
    for stage in compared(seen):
      weights = seen.known[stage] if attention else None
      total += distance(seen.stages[stage], seen.source_stages[stage], weights)
    decay = beta * half_square(fresh(seen.trained, seen.source))
    return alpha * total * (seen.batch_size / len(seen.batch.mask)) + decay

  def observe(model: Model, batch: Batch) -> PyTree:
    seen = model.see(batch)
    return {name: _rises(model, name, seen.stages[name], batch) for name in compared(seen)}

  def conclude(rises: PyTree, count: Array) -> PyTree:
    return jax.tree.map(lambda rise: jax.nn.softmax(rise / count / TEMPERATURE), rises)

  made = Penalty(frozenset({'features', 'source'}), stages, every, value)
  return made._replace(observe=observe, conclude=conclude, examples=examples) if attention else made


def distance(ours: Any, theirs: Any, attention: Array | None = None) -> Array:
  """1/2 |ours - theirs|^2 over a batch of feature maps [B, ..., C].

  With `attention` [C] the squares of each channel count so much, times C over the number of places.
  Of texts, tokens of padding count nothing.
  """
  square = (_map_of(ours) - _map_of(theirs)) ** 2
  if isinstance(ours, Mapping):
    square *= (ours['mask'] != 0)[..., None]
  if attention is None:
    return 0.5 * jnp.sum(square)
  channels, places = square.shape[-1], square[0, ..., 0].size
  return 0.5 * channels / places * jnp.sum(square * attention)


def _map_of(x: Any) -> Array:
  return (x['hidden'] if isinstance(x, Mapping) else x).astype(jnp.float32)


def _rises(model: Model, stage: str, x: Any, batch: Batch) -> Array:
  """[C]: how much the loss rises without each channel of what comes out of a stage."""
  before = model.rest(stage, x, batch)

  def without(channel: Array) -> Array:
    kept = 1.0 - jax.nn.one_hot(channel, _map_of(x).shape[-1])
    if isinstance(x, Mapping):
      return model.rest(stage, {**x, 'hidden': x['hidden'] * kept.astype(x['hidden'].dtype)}, batch)
    return model.rest(stage, x * kept.astype(x.dtype), batch)

  return jax.vmap(without)(jnp.arange(_map_of(x).shape[-1])) - before
