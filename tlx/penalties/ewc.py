"""EWC: the weights that mattered to the source's task move less (Kirkpatrick et al. 2017)."""

import functools

import jax
import jax.numpy as jnp

from tlx.penalties import Model, Penalty, Seen, check_amounts, check_count, every, map_both, moved
from tlx.types import Array, Batch, PyTree


@functools.cache
def penalty(alpha: float = 1.0, data: str = 'source', examples: int = 1000) -> Penalty:
  """alpha/2 sum over weights of F (w - w0)^2 (equation 3).

  F is the mean over at most `examples` of the squared gradient of their loss: the empirical Fisher
  information, with the examples' own labels, where the paper does not say whether labels are drawn
  from the network. `data`: 'source', what the study trained the source on, with its own head;
  'target', the run's own examples as it begins the phase, where the source's data are not to be
  had: that protects what serves the target already, not what the source knew.

  Raises:
    ValueError: other data.
  """
  check_amounts(alpha=alpha)
  check_count('examples', examples, 1)
  if data not in ('source', 'target'):
    raise ValueError(f"data is 'source' or 'target', got {data!r}.")

  def value(seen: Seen) -> Array:
    return alpha * weighted(moved(seen.trained, seen.source), seen.known)

  return Penalty(
    holds=every,
    value=value,
    observe=observe,
    conclude=lambda sums, count: jax.tree.map(lambda leaf: leaf / count, sums),
    of_source=data == 'source',
    examples=examples,
  )


def weighted(distance: PyTree, fisher: PyTree) -> Array:
  """1/2 sum of F d^2 over the leaves that both have."""
  terms = jax.tree.map(lambda d, f: jnp.sum(f * d**2), distance, fisher)
  return 0.5 * sum(jax.tree.leaves(terms), jnp.zeros(()))


def observe(model: Model, batch: Batch) -> PyTree:
  """The squared gradient of one example's loss, of the leaves that the source brings."""
  grads = jax.grad(model.loss)(model.trained, batch)
  return map_both(lambda _, grad, old: None if old is None else grad**2, grads, model.source)
