"""Learning without forgetting: the answers of the source's head are kept (Li and Hoiem 2016)."""

import functools

import jax
import jax.numpy as jnp

from tlx.penalties import Penalty, Seen, check_amounts, last
from tlx.types import Array


@functools.cache
def penalty(alpha: float = 1.0, temperature: float = 2.0) -> Penalty:
  """alpha KL(source || run) of what the source's head says at a temperature; a mean over examples.

  Knowledge distillation (Hinton et al. 2015) from the source. As in the code of Jiang et al.
  (2022), not times the squared temperature. There and in the paper the old head is trained on; here
  it stays as it is.

  Raises:
    ValueError: a temperature that is not above 0.
  """
  check_amounts(alpha=alpha, temperature=temperature)
  if not temperature:
    raise ValueError('temperature is above 0, got 0.')

  def value(seen: Seen) -> Array:
    student, teacher = (seen.head(last(one)) for one in (seen.stages, seen.source_stages))
    return alpha * divergence(student, teacher, temperature)

  return Penalty(frozenset({'features', 'source', 'head', 'vector'}), value=value)


def divergence(student: Array, teacher: Array, temperature: float) -> Array:
  """KL(teacher || student) of logits [B, S] at a temperature, in nats; the mean over examples."""
  log_student, log_teacher = (jax.nn.log_softmax(x / temperature) for x in (student, teacher))
  return jnp.mean(jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), -1))
