"""Tune the stages whose gradients ask for it most, and the head.

By relative gradient norm (RGN, Lee et al. 2023, arXiv:2210.11466) or by Fisher information.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tlx.freezing import Groups, Watch, check_depth, check_steps, of_groups
from tlx.tree import Rules, map_named
from tlx.types import Array, PyTree

SCORES = ('rgn', 'fisher')


class State(NamedTuple):
  taken: Array  # steps
  sums: Array  # of scores so far, one a group
  factors: PyTree


def rules(groups: Groups, k: int, by: str = 'rgn', steps: int = 5) -> Rules:
  """All leaves are in training; `watch` says which of them move.

  Raises:
    ValueError: more groups than there are, an unknown score, or no steps to measure in.
  """
  check_depth(k, groups)
  check_steps('measured', steps)
  if by not in SCORES:
    raise ValueError(f'measured wants by = {" or ".join(map(repr, SCORES))}, got {by!r}.')
  return (('.*', 'train'),)


@functools.cache
def watch(groups: Groups, k: int, by: str = 'rgn', steps: int = 5) -> Watch:
  """The k groups of stages before the last that score highest move, and the last.

  'rgn': |gradient| / |weights| of a group; 'fisher': the mean square of its gradient, the trace of
  the Fisher information over the number of weights, with gradients of batches, not of single
  examples. Averaged over the first `steps` steps of the phase, in which nothing moves. Each run
  measures on its own batches. The head is never compared: where it is new it tops all others.
  """
  number = len(groups) - 1

  def init(params: PyTree) -> State:
    nothing = jax.tree.map(lambda _: jnp.zeros(()), params)
    return State(jnp.zeros((), jnp.int32), jnp.zeros(number), nothing)

  def update(state: State, grads: PyTree, params: PyTree, num_steps: Array) -> State:
    taken = state.taken + 1
    found = of_groups(groups, grads, params, _rgn if by == 'rgn' else _fisher)
    sums = jnp.where(taken <= steps, state.sums + found, state.sums)
    order = jnp.argsort(-sums, stable=True)
    ranks = jnp.zeros(number, jnp.int32).at[order].set(jnp.arange(number))
    where = {stage: i for i, group in enumerate(groups) for stage in group}

    def factor(name: str, _: Array) -> Array:
      i = where[name.split('/')[0]]
      moves = ranks[i] < k if i < number else jnp.ones((), bool)
      return jnp.where((taken > steps) & moves, 1.0, 0.0)

    return State(taken, sums, map_named(factor, params))

  return Watch(init, update)


def _rgn(grads: Mapping[str, Array], leaves: Mapping[str, Array]) -> Array:
  """|gradient| / |weights| of a group."""
  sizes = [sum(jnp.sum(leaf**2) for leaf in tree.values()) for tree in (grads, leaves)]
  return jnp.sqrt(sizes[0] / jnp.maximum(sizes[1], 1e-24))


def _fisher(grads: Mapping[str, Array], leaves: Mapping[str, Array]) -> Array:
  """The mean square of a group's gradient."""
  total = sum(jnp.sum(grad**2) for grad in grads.values())
  return jnp.asarray(total / max(1, sum(grad.size for grad in grads.values())))
