"""Freeze as many first groups of stages as each run's own training examples speak for.

The sign rule of tlx/study/depth.py, which experiments.advise explains and docs/scores.md has on
trial.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from tlx.freezing import Groups, Watch
from tlx.tree import Rules, map_named
from tlx.types import Array, PyTree


class State(NamedTuple):
  factors: PyTree


def rules(groups: Groups) -> Rules:
  """All leaves are in training; `watch` says which of them move."""
  return (('.*', 'train'),)


@functools.cache
def watch(groups: Groups) -> Watch:
  """The groups from a run's depth on move, the last always.

  The depth is found before the first step, from what the source makes of the examples that the run
  trains on. Departs from after.py of that depth in saving no time, since gradients of frozen groups
  are computed too, in counting them where gradients are clipped, and in norms that see their batch
  everywhere, so that their statistics move.
  """
  where = {stage: i for i, group in enumerate(groups) for stage in group}

  def init(params: PyTree, depth: Array) -> State:
    def factor(name: str, _: Array) -> Array:
      return jnp.where(where[name.split('/')[0]] >= depth, 1.0, 0.0)

    return State(map_named(factor, params))

  def update(state: State, grads: PyTree, params: PyTree, num_steps: Array) -> State:
    return state

  return Watch(init, update, by_depth=True)
