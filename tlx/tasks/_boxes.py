"""Boxes on the device: overlap, the places of FCOS that answer for them, and the best of many.

Boxes are x0, y0, x1, y1 in pixels, continuous: a box is x1 - x0 wide.
"""

import jax
import jax.numpy as jnp

from tlx.types import Array

CENTRE = 1.5  # centre sampling: half the width of the region of an object's positives, in strides
REACH = 8  # a level answers for objects whose farthest side is at most so many strides away


def giou(one: Array, other: Array) -> Array:
  """Generalised IoU of boxes [..., 4] with their likes, in [-1, 1] (Rezatofighi et al. 2019,
  arXiv:1902.09630): IoU - (C - U) / C with U the union and C the smallest box around both.

  0 - (C - 0) / C of two boxes without area, which no place answers for.
  """
  overlap, union = _overlap_and_union(one, other)
  around = _area(
    jnp.concatenate(
      [jnp.minimum(one[..., :2], other[..., :2]), jnp.maximum(one[..., 2:], other[..., 2:])], -1
    )
  )
  return overlap / jnp.maximum(union, 1e-12) - (around - union) / jnp.maximum(around, 1e-12)


def iou(one: Array, other: Array) -> Array:
  """Overlap over union of boxes [..., 4] with their likes, in [0, 1]."""
  overlap, union = _overlap_and_union(one, other)
  return overlap / jnp.maximum(union, 1e-12)


def _overlap_and_union(one: Array, other: Array) -> tuple[Array, Array]:
  begin, end = jnp.maximum(one[..., :2], other[..., :2]), jnp.minimum(one[..., 2:], other[..., 2:])
  sides = jnp.maximum(end - begin, 0.0)
  overlap = sides[..., 0] * sides[..., 1]
  return overlap, _area(one) + _area(other) - overlap


def _area(boxes: Array) -> Array:
  return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def focal(logits: Array, wanted: Array, alpha: float = 0.25, gamma: float = 2.0) -> Array:
  """-a_t (1 - p_t)^gamma log p_t in nats, of logits and their targets 0 or 1 (Lin et al. 2017,
  arXiv:1708.02002, equation 5): a_t is alpha for 1 and 1 - alpha for 0.
  """
  signed = jnp.where(wanted > 0, logits, -logits)  # p_t = sigmoid(signed)
  share = jnp.where(wanted > 0, alpha, 1 - alpha)
  return -share * jax.nn.sigmoid(-signed) ** gamma * jax.nn.log_sigmoid(signed)


def assigned(
  places: Array,
  boxes: Array,
  counts: Array,
  reach: float = REACH,
  radius: float | None = CENTRE,
) -> tuple[Array, Array]:
  """(the object that each place answers for or -1 [A], the distances of that object's left, top,
  right and bottom side from the place [A, 4]; what they are elsewhere means nothing).

  Tian et al. 2019 (FCOS, arXiv:1904.01355): a place answers for an object that it lies in, near
  whose centre it is (centre sampling: within `radius` strides, and in the object), and whose
  farthest side its level is for: from reach / 2 to `reach` strides away, both ends included as in
  the official code; the first level goes down to 0, the last has no end. Of several objects it is
  the smallest, of equal ones the first.

  Args:
    places: [A, 3], x, y and stride of each in pixels.
    boxes: [M, 4]; those that do not count [M] are no objects.
    radius: None takes all places in the box.
  """
  x, y, stride = (places[:, i : i + 1] for i in range(3))
  x0, y0, x1, y1 = (boxes[None, :, i] for i in range(4))
  sides = jnp.stack([x - x0, y - y0, x1 - x, y1 - y], -1)  # [A, M, 4]
  inside = sides.min(-1) > 0
  if radius is not None:
    apart = jnp.maximum(jnp.abs(x - (x0 + x1) / 2), jnp.abs(y - (y0 + y1) / 2))
    inside &= apart < radius * stride
  farthest = sides.max(-1)
  least = jnp.where(stride > stride.min(), reach / 2 * stride, 0.0)
  most = jnp.where(stride < stride.max(), reach * stride, jnp.inf)
  fits = inside & (least <= farthest) & (farthest <= most) & (counts[None] > 0)
  areas = jnp.where(fits, _area(boxes)[None], jnp.inf)
  chosen = jnp.argmin(areas, 1)
  of_chosen = jnp.take_along_axis(sides, chosen[:, None, None], 1)[:, 0]
  return jnp.where(fits.any(1), chosen, -1), of_chosen


def centreness(sides: Array) -> Array:
  """sqrt(min(l, r) / max(l, r) x min(t, b) / max(t, b)) of distances l, t, r, b > 0 [..., 4]; 1 at
  the centre of an object, near 0 at its edge (FCOS, equation 3).
  """
  across, along = sides[..., 0::2], sides[..., 1::2]
  ratios = [pair.min(-1) / jnp.maximum(pair.max(-1), 1e-12) for pair in (across, along)]
  return jnp.sqrt(ratios[0] * ratios[1])


def decoded(places: Array, sides: Array) -> Array:
  """Boxes [..., 4] of places [..., 3] and the distances of their sides l, t, r, b [..., 4]."""
  centre = places[..., :2]
  return jnp.concatenate([centre - sides[..., :2], centre + sides[..., 2:]], -1)


def best(boxes: Array, scores: Array, labels: Array, threshold: float, most: int) -> Array:
  """Which boxes are kept [most]: class-wise greedy non-maximum suppression.

  By falling score, of equal ones the first; a kept box takes away those of its label with an IoU
  above `threshold`. Of fixed size, `most` rounds over all boxes: once nothing is left, the rest is
  -1. A score of -inf is never kept.
  """

  def pick(left: Array, _: None) -> tuple[Array, Array]:
    chosen = jnp.argmax(left)
    there = left[chosen] > -jnp.inf
    again = (iou(boxes, boxes[chosen][None]) > threshold) & (labels == labels[chosen])
    left = jnp.where(again, -jnp.inf, left).at[chosen].set(-jnp.inf)
    return left, jnp.where(there, chosen, -1)

  _, kept = jax.lax.scan(pick, scores, None, length=most)
  return kept
