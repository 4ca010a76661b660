"""Co-Tuning: the source's head says what each class was most like there (You et al. 2020)."""

import functools

import jax
import jax.numpy as jnp

from tlx.penalties import Model, Penalty, Seen, check_amounts, last
from tlx.types import Array, Batch, Mixed, PyTree


@functools.cache
def penalty(alpha: float = 2.3) -> Penalty:
  """alpha times the cross-entropy of the source's head to p(source class | class of the target).

  That is the mean of the source's probabilities over the run's own examples of each class, before
  the first step ('direct approach', section 3.2). The paper calibrates those probabilities on
  source data, which its code leaves out, as here; there the source's head is trained on, here it
  stays as it is.
  """
  check_amounts(alpha=alpha)

  def value(seen: Seen) -> Array:
    targets = seen.batch.targets
    if isinstance(targets, Mixed):
      share = targets.share[:, None]
      likely = share * seen.known[targets.first] + (1 - share) * seen.known[targets.second]
    else:
      likely = seen.known[targets]
    return alpha * cross_entropy(seen.head(last(seen.stages)), likely)

  def observe(model: Model, batch: Batch) -> PyTree:
    seen = model.see(batch)
    probabilities = jax.nn.softmax(seen.head(last(seen.source_stages)))
    # A head has a row for each class, also for those that a run has no example of.
    classes = jax.nn.one_hot(batch.targets, seen.num_classes)
    return classes.T @ probabilities

  return Penalty(
    frozenset({'features', 'source', 'head', 'vector', 'classes'}),
    value=value,
    observe=observe,
    conclude=relationship,
  )


def relationship(sums: Array, count: Array | None = None) -> Array:
  """p(source class | class) [K, S] of sums of probabilities; 0 of a class without examples."""
  totals = jnp.sum(sums, -1, keepdims=True)
  return jnp.where(totals > 0, sums / jnp.where(totals > 0, totals, 1.0), 0.0)


def cross_entropy(logits: Array, likely: Array) -> Array:
  """The cross-entropy of softmax(logits) [B, S] to probabilities, in nats; mean over examples."""
  return -jnp.mean(jnp.sum(likely * jax.nn.log_softmax(logits), -1))
