"""Tune the head on the features that an earlier phase found worth most (Head2Toe).

Evci et al. 2022 (arXiv:2201.03529; google-research/head2toe).
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from tlx.freezing import Groups, Watch, tune_groups
from tlx.tree import Rules, map_named
from tlx.types import Array, PyTree


class State(NamedTuple):
  factors: PyTree


def rules(groups: Groups, share: float) -> Rules:
  """The head alone is trained.

  Raises:
    ValueError: a share that is not above 0 and up to 1.
  """
  number = isinstance(share, int | float) and not isinstance(share, bool)
  if not number or not 0 < share <= 1:
    raise ValueError(f'select wants a share above 0 and up to 1, got share={share!r}.')
  return tune_groups(groups, [groups[-1][-1:]])


@functools.cache
def watch(groups: Groups, share: float) -> Watch:
  """Of the features that enter the head, those whose weights have the largest squares are kept.

  The score of a feature is the sum of squares over classes of its weights at the phase's start,
  which an earlier phase trained, in the paper with the group lasso sum |w| as its penalty. The
  weights of the others become 0 in the first step and stay so. Departs from the paper in going on
  from the weights there are; what is minimised is convex, so the solution is the same. At least one
  feature is kept; of equal ones the first.
  """

  def keep(name: str, leaf: Array) -> Array:
    if name != f'{groups[-1][-1]}/kernel' or leaf.ndim != 2:
      return jnp.ones(())
    scores = jnp.square(leaf).sum(1)
    number = max(1, round(share * len(leaf)))
    kept = jnp.argsort(-scores, stable=True)[:number]
    return jnp.zeros((len(leaf), 1)).at[kept].set(1.0)

  def init(params: PyTree) -> State:
    return State(map_named(keep, params))

  def update(state: State, grads: PyTree, params: PyTree, num_steps: Array) -> State:
    return state

  return Watch(init, update, clears=True)
