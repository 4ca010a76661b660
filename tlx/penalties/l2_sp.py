"""L2-SP: the distance of the weights from the source's (Li, Grandvalet and Davoine 2018)."""

import functools

from tlx.penalties import Penalty, Seen, check_amounts, every, fresh, half_square, moved
from tlx.types import Array


@functools.cache
def penalty(alpha: float = 0.1, beta: float = 0.01) -> Penalty:
  """alpha/2 |w - w0|^2 + beta/2 |v|^2 (arXiv:1802.01483, equation 3).

  w are the trained leaves that the source brings, norms and biases too, v those that it does not: a
  new head, added leaves. Running statistics are no weights. It takes the place of weight decay,
  which draws w to 0: leave the grid's at 0.
  """
  check_amounts(alpha=alpha, beta=beta)

  def value(seen: Seen) -> Array:
    new = fresh(seen.trained, seen.source)
    return alpha * half_square(moved(seen.trained, seen.source)) + beta * half_square(new)

  return Penalty(holds=every, value=value)
