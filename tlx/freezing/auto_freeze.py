"""Freeze from the first stage on while training, as gradients settle.

AutoFreeze (Liu et al. 2021, arXiv:2102.01386; YuhanLiu11/AutoFreeze).
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tlx.freezing import Groups, Watch, of_groups
from tlx.tree import Rules, map_named
from tlx.types import Array, PyTree


class State(NamedTuple):
  taken: Array  # steps
  sums: PyTree  # gradients of the interval so far
  before: Array  # how large those of the interval before were, one a group; NaN in the first
  first: Array  # the first group that is trained
  factors: PyTree


def rules(groups: Groups, intervals: int = 10, percentile: float = 50.0) -> Rules:
  """All leaves are in training at its start.

  Raises:
    ValueError: fewer than two intervals, or no percentile.
  """
  if not isinstance(intervals, int) or isinstance(intervals, bool) or intervals < 2:
    raise ValueError(
      f'auto_freeze wants a whole number of intervals from 2 on, got {intervals!r}: it compares '
      'one with the one before.'
    )
  number = isinstance(percentile, int | float) and not isinstance(percentile, bool)
  if not number or not 0 <= percentile <= 100:
    raise ValueError(f'auto_freeze wants a percentile from 0 to 100, got {percentile!r}.')
  return (('.*', 'train'),)


@functools.cache
def watch(groups: Groups, intervals: int = 10, percentile: float = 50.0) -> Watch:
  """At the end of each of `intervals` parts of the phase, perhaps more groups are frozen.

  d is the sum of absolute values of a group's gradients, added up over the interval, and its change
  |d_before - d| / d_before. Of the groups that are trained, those before the first whose change is
  at least the percentile of theirs are frozen from then on. The last group, which holds the head,
  is neither compared nor frozen. Departs from the official code in what Adam remembers, which stays
  where that starts anew, and in saving no time: gradients of frozen groups are computed too.
  """
  number = len(groups) - 1

  def init(params: PyTree) -> State:
    sums = jax.tree.map(jnp.zeros_like, params)
    ones = jax.tree.map(lambda _: jnp.ones(()), params)
    zero = jnp.zeros((), jnp.int32)
    return State(zero, sums, jnp.full(number, jnp.nan), zero, ones)

  def update(state: State, grads: PyTree, params: PyTree, num_steps: Array) -> State:
    taken = state.taken + 1
    sums = jax.tree.map(jnp.add, state.sums, grads)
    ends = taken % jnp.maximum(1, num_steps // intervals).astype(jnp.int32) == 0
    size = of_groups(groups, sums, params, _size)
    change = jnp.abs(state.before - size) / jnp.maximum(state.before, 1e-30)
    trained = jnp.arange(number) >= state.first
    least = jnp.nanpercentile(jnp.where(trained, change, jnp.nan), percentile)
    found = jnp.argmax(trained & (change >= least)).astype(jnp.int32)
    known = ends & ~jnp.isnan(least)
    first = jnp.where(known, found, state.first)
    where = {stage: i for i, group in enumerate(groups) for stage in group}

    def factor(name: str, _: Array) -> Array:
      return jnp.where(where[name.split('/')[0]] >= first, 1.0, 0.0)

    return State(
      taken,
      jax.tree.map(lambda leaf: jnp.where(ends, 0.0, leaf), sums),
      jnp.where(ends, size, state.before),
      first,
      map_named(factor, params),
    )

  return Watch(init, update, moved_before=True)


def _size(sums: Mapping[str, Array], leaves: Mapping[str, Array]) -> Array:
  """The sum of absolute values."""
  return jnp.asarray(sum(jnp.sum(jnp.abs(leaf)) for leaf in sums.values()))
