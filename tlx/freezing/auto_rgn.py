"""Tune every weight at a rate of its own (Auto-RGN, Lee et al. 2023, arXiv:2210.11466)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tlx.freezing import NORM, Groups, Watch, check_steps
from tlx.tree import Rules, map_named, named_leaves
from tlx.types import Array, PyTree


class State(NamedTuple):
  taken: Array  # steps
  sums: PyTree  # of relative norms so far
  factors: PyTree


def rules(groups: Groups, steps: int = 5) -> Rules:
  """All leaves but those of normalisation layers are trained, at rates that `watch` gives."""
  check_steps('auto_rgn', steps)
  return (f'^(?!.*{NORM})', 'train'), ('.*', 'frozen')


@functools.cache
def watch(groups: Groups, steps: int = 5) -> Watch:
  """Each leaf's rate is |gradient| / |leaf|, over the largest of these ratios.

  Euclidean norms, averaged over the first `steps` steps of the phase, in which nothing moves; the
  official code does the same over five batches and leaves norms out. Departs from it in leaving the
  head out of the comparison, whose ratio tops all others where it is new, and in measuring once,
  not at every epoch. The head and leaves that are 0, which have no ratio, learn at rate 1.
  """
  head = groups[-1][-1]

  def init(params: PyTree) -> State:
    zeros = jax.tree.map(lambda _: jnp.zeros(()), params)
    return State(jnp.zeros((), jnp.int32), zeros, zeros)

  def update(state: State, grads: PyTree, params: PyTree, num_steps: Array) -> State:
    taken = state.taken + 1
    measured = jax.tree.map(jnp.add, state.sums, jax.tree.map(_relative, grads, params))
    sums = jax.tree.map(lambda new, old: jnp.where(taken <= steps, new, old), measured, state.sums)
    others = [leaf for name, leaf in named_leaves(sums) if not name.startswith(f'{head}/')]
    most = jnp.nanmax(jnp.stack(others)) if others else jnp.ones(())

    def factor(name: str, total: Array) -> Array:
      alone = name.startswith(f'{head}/') | jnp.isnan(total)
      rate = jnp.where(alone, 1.0, total / jnp.maximum(most, 1e-30))
      return jnp.where(taken > steps, rate, 0.0)

    return State(taken, sums, map_named(factor, sums))

  return Watch(init, update)


def _relative(grad: Array, leaf: Array) -> Array:
  """The norm of a gradient over that of its leaf; NaN for a leaf of zeros."""
  norm = jnp.linalg.norm(leaf.ravel())
  return jnp.linalg.norm(grad.ravel()) / jnp.where(norm > 0, norm, jnp.nan)
