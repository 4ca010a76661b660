"""Tune what is drawn at random, and the head: the control for a choice of stages or of weights."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tlx.freezing import Groups, Watch, check_depth, tune_groups
from tlx.tree import Rules, map_named, named_leaves
from tlx.types import Array, PyTree


class State(NamedTuple):
  factors: PyTree


def rules(groups: Groups, k: int | None = None, weights: int | None = None, seed: int = 0) -> Rules:
  """k of the groups of stages before the last, each as likely, and the last are trained.

  The draw is numpy's default generator's of that seed: the same for every run of a cohort. With
  `weights` instead of k all leaves are in training, and `watch` draws the single weights that move.

  Raises:
    ValueError: neither or both of k and weights, more groups than there are, no seed.
  """
  if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
    raise ValueError(f'random wants a seed that is a whole number from 0 on, got seed={seed!r}.')
  if weights is not None:
    if k is not None or not isinstance(weights, int) or isinstance(weights, bool) or weights < 1:
      raise ValueError(
        'random wants k stages or a whole number of weights from 1 on, not both, got '
        f'k={k!r}, weights={weights!r}.'
      )
    return (('.*', 'train'),)
  if k is None:
    raise ValueError('random wants k stages or a whole number of weights, got neither.')
  check_depth(k, groups)
  drawn = np.random.default_rng(seed).permutation(len(groups) - 1)[:k]
  return tune_groups(groups, [*(groups[i] for i in sorted(drawn)), groups[-1]])


@functools.cache
def watch(
  groups: Groups, k: int | None = None, weights: int | None = None, seed: int = 0
) -> Watch | None:
  """So many weights move, each of those before the head as likely, and the whole head.

  The control of Ben Zaken et al. (2022, arXiv:2106.10199, section 4.3) for their choice of biases.
  The draw is of `seed`: the same for every run. There are no more than all weights.
  """
  if weights is None:
    return None
  head = groups[-1][-1]

  def init(params: PyTree) -> State:
    drawn: dict[str, Array] = {}
    for i, (name, leaf) in enumerate(named_leaves(params)):
      if name.split('/')[0] != head:
        drawn[name] = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), i), leaf.shape)
    flat = [leaf.ravel() for leaf in drawn.values()]
    chosen = jnp.argsort(jnp.concatenate(flat), stable=True)[:weights]
    moves = jnp.zeros(sum(map(len, flat))).at[chosen].set(1.0)
    starts = np.cumsum([0, *map(len, flat)]).tolist()
    masks = {
      name: moves[start : start + leaf.size].reshape(leaf.shape)
      for start, (name, leaf) in zip(starts, drawn.items())
    }
    return State(map_named(lambda name, _: masks.get(name, jnp.ones(())), params))

  def update(state: State, grads: PyTree, params: PyTree, num_steps: Array) -> State:
    return state

  return Watch(init, update)
