"""Batch statistics of weights that no training step went through: means of several networks."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tlx import tree as trees
from tlx.train import feed, step
from tlx.train.job import Job
from tlx.types import PyTree, Variables

MOST_BATCHES = 64


def moving(phase: step.Phase, stats: PyTree) -> frozenset[str]:
  """The norm layers ('block1/norm') whose statistics follow the data in a phase."""
  names = {name.rpartition('/')[0] for name, _ in trees.named_leaves(stats)}
  return frozenset(names) - phase.frozen_norms


def recomputed(job: Job, index: int, own: PyTree, stats: PyTree, runs: Sequence[int]) -> PyTree:
  """`stats` [R, ...] with those of some runs that move in phase `index` computed anew.

  They are the means of the statistics of batches over up to 64 batches of the run's own training
  examples, drawn as in training and not augmented: torch's `swa_utils.update_bn`, which Izmailov et
  al. 2018 ask for where weights are averaged.
  """
  plan = job.phases[index]
  program, data = _batch_statistics(job.recipe(index)), job.train(plan.phase)
  found = jax.tree.map(np.array, stats)
  for run in runs:
    params = trees.merge(jax.tree.map(lambda leaf, run=run: leaf[run], own), job.base.params)
    variables = Variables(params, jax.tree.map(lambda leaf, run=run: leaf[run], stats))
    rows = np.asarray(job.examples[run])
    batches = int(np.clip(-(-len(rows) // plan.batch_size), 1, MOST_BATCHES))
    order = feed.order(rows, batches, plan.batch_size, (job.seeds[run], index))
    of_batches = []
    for number, batch in enumerate(order):
      inputs = feed.take(data.inputs, batch)
      key = jax.random.fold_in(jax.random.key(job.seeds[run]), number)
      of_batches.append(jax.device_get(program(variables, inputs, key)))
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *of_batches)
    for leaf, anew in zip(jax.tree.leaves(found), jax.tree.leaves(mean), strict=True):
      leaf[run] = anew
  return found


@functools.cache
def _batch_statistics(recipe: step.Recipe) -> Callable:
  """(variables, inputs, key) -> the statistics of this batch alone.

  Networks keep m x old + (1 - m) x those of the batch; old ones of 0 and of 1 give both unknowns.
  """

  def of_batch(variables: Variables, inputs: PyTree, key: jax.Array) -> PyTree:
    moves = moving(recipe.phase, variables.stats)
    entered = step.enter(recipe, inputs)

    def after(old: float) -> PyTree:
      def start(name: str, leaf: jax.Array) -> jax.Array:
        return jnp.full_like(leaf, old) if name.rpartition('/')[0] in moves else leaf

      stats = trees.map_named(start, variables.stats)
      return step.forward(
        recipe.network, recipe.phase, Variables(variables.params, stats), entered, key
      )[2]

    def solved(name: str, old: jax.Array, zero: jax.Array, one: jax.Array) -> jax.Array:
      stays = 1 - (one - zero)
      moved = zero / jnp.where(stays > 0, stays, 1.0)
      return jnp.where(stays > 0, moved, old) if name.rpartition('/')[0] in moves else old

    return trees.map_named(solved, variables.stats, after(0.0), after(1.0))

  return jax.jit(of_batch)
