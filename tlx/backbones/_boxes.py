"""The head of detection: pyramids of places at several strides, and what each says of an object."""

import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from tlx.backbones._layers import Conv
from tlx.types import Array, PyTree

GROUP = 8  # channels of a group norm: 32 groups of 256, as in FCOS
PRIOR = 0.01  # the probability of every class at every place before the first step
LARGEST = 7.0  # exponent of a side's distance in strides


class Boxes(nn.Module):
  """Of places A of all levels: {'logits' [B, A, K] of classes, 'sides' [B, A, 4] the distances in
  pixels of a box's left, top, right and bottom side from the place, 'centre' [B, A] the logit of
  its centreness, 'places' [B, A, 3] their x, y and stride in pixels}; rows of the finest level
  first. Place (i, j) of a level lies at ((j + 1/2) stride, (i + 1/2) stride), as in FCOS's official
  code, also where an image is no multiple of it and the last row of places reaches beyond.
  `strides` are those of `stages`, in pixels.

  The head of FCOS (Tian et al. 2019, arXiv:1904.01355) as torchvision builds it, with centreness
  beside the boxes: two towers of `depth` 3 x 3 convolutions of `size` channels with group norms,
  the same for all levels, distances exp(s x) strides with a learned s a level. Of several stages
  it sees a feature pyramid (Lin et al. 2017, arXiv:1612.03144) without further levels, of one the
  simple pyramid of ViTDet (Li et al. 2022, arXiv:2203.16527) at half, once and twice its stride;
  that of a vision transformer is of its patches. Departs from these in narrow towers, `size` and
  `depth` of the papers being 256 and 4, in a group norm behind each first map of a stage, so that
  stages of any scale serve, and in a norm and a ReLU behind the pyramid's last convolution, without
  which narrow towers are hardly deeper than a linear map.
  """

  num_classes: int
  stages: tuple[str, ...]
  strides: tuple[int, ...]
  size: int = 64
  depth: int = 1

  @nn.compact
  def __call__(self, x: PyTree, train: bool) -> Mapping[str, Array]:
    levels, strides = self._pyramid([_image(x['seen'][stage]) for stage in self.stages])
    smooth = self._tower('smooth', 1)
    towers = {name: self._tower(name, self.depth) for name in ('class', 'box')}
    small = nn.initializers.normal(0.01)
    prior = nn.initializers.constant(math.log(PRIOR / (1 - PRIOR)))
    to_class = Conv(self.num_classes, 3, padding=1, kernel_init=small, name='class')
    bias = self.param('class_bias', prior, (self.num_classes,), jnp.float32)
    to_box = Conv(5, 3, padding=1, use_bias=True, kernel_init=small, name='box')
    scales = self.param('scale', nn.initializers.ones, (len(levels),), jnp.float32)
    found: list[dict[str, Array]] = []
    for number, (level, stride) in enumerate(zip(levels, strides)):
      level = smooth(level)
      of_box = to_box(towers['box'](level))
      places = _places(level.shape[1], level.shape[2], stride)
      distances = jnp.exp(jnp.minimum(of_box[..., :4] * scales[number], LARGEST))
      flat = {
        'logits': to_class(towers['class'](level)) + bias[None, None, None],
        'sides': distances * stride,
        'centre': of_box[..., 4],
        'places': jnp.broadcast_to(places[None], (len(level), *places.shape)),
      }
      for name, leaf in flat.items():
        flat[name] = leaf.reshape(len(level), -1, *leaf.shape[3:])
      found.append(flat)
    return {name: jnp.concatenate([of[name] for of in found], 1) for name in found[0]}

  def _pyramid(self, seen: list[Array]) -> tuple[list[Array], list[float]]:
    """(levels [B, h, w, size], the finest first; the stride of each)."""
    if len(seen) == 1:
      (only,), (stride,) = seen, self.strides
      finer = _twice(Conv(4 * self.size, 1, kernel_init=_map, name='finer')(only))
      once = Conv(self.size, 1, kernel_init=_map, name='once')(only)
      coarser = Conv(self.size, 1, kernel_init=_map, name='coarser')(_half(only))
      levels = [finer, once, coarser]
      levels = [self._norm(f'norm_{i}')(level) for i, level in enumerate(levels)]
      return levels, [stride / 2, stride, 2 * stride]
    levels = []
    for i in reversed(range(len(seen))):
      stage = self.stages[i]
      level = Conv(self.size, 1, kernel_init=_map, name=f'lateral_{stage}')(seen[i])
      level = self._norm(f'norm_{stage}')(level)
      if levels:
        times = self.strides[i + 1] // self.strides[i]
        level = level + _nearest(levels[0], times, level.shape[1:3])
      levels.insert(0, level)
    return levels, list(self.strides)

  def _norm(self, name: str) -> nn.Module:
    return nn.GroupNorm(num_groups=None, group_size=GROUP, epsilon=1e-5, name=name)

  def _tower(self, name: str, depth: int) -> Callable[[Array], Array]:
    """Convolutions, each with its norm, that all levels share."""
    layers: list[tuple[nn.Module, nn.Module]] = []
    for i in range(depth):
      conv = Conv(self.size, 3, padding=1, name=f'{name}_tower{i}')
      layers.append((conv, self._norm(f'norm_{name}{i}')))

    def run(x: Array) -> Array:
      for conv, norm in layers:
        x = nn.relu(norm(conv(x)))
      return x

    return run


def outputs(num_classes: int) -> Mapping[str, jax.ShapeDtypeStruct]:
  """The shapes of what `Boxes` gives of one example with one place."""
  shapes = {'logits': (num_classes,), 'sides': (4,), 'centre': (), 'places': (3,)}
  return {name: jax.ShapeDtypeStruct((1, 1, *rest), jnp.float32) for name, rest in shapes.items()}


_map = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')


def _image(x: Array) -> Array:
  """An image [B, H, W, C] in float32; of tokens [B, T, D] those of patches: the last, a square."""
  x = x.astype(jnp.float32)
  if x.ndim == 4:
    return x
  side = math.isqrt(x.shape[1])
  return x[:, x.shape[1] - side**2 :].reshape(len(x), side, side, -1)


def _places(rows: int, columns: int, stride: float) -> Array:
  """[h, w, 3]: x, y and stride of the middle of each place in pixels of the image."""
  shape = rows, columns
  y, x = ((jnp.arange(length) + 0.5) * stride for length in shape)
  of_x, of_y = jnp.broadcast_to(x[None], shape), jnp.broadcast_to(y[:, None], shape)
  return jnp.stack([of_x, of_y, jnp.full(shape, stride)], -1).astype(jnp.float32)


def _nearest(x: Array, times: int, shape: tuple[int, int]) -> Array:
  """An image [B, h, w, C] as one of `shape` places, of which each is a copy of the one it lies in;
  those beyond the last are copies of that.
  """
  for axis, length in enumerate(shape, 1):
    x = jnp.repeat(x, times, axis=axis)
    x = jax.lax.slice_in_dim(x, 0, min(length, x.shape[axis]), axis=axis)
    beyond = [(0, length - x.shape[axis] if i == axis else 0) for i in range(4)]
    x = jnp.pad(x, beyond, mode='edge')
  return x


def _twice(x: Array) -> Array:
  """[B, 2 H, 2 W, C] of [B, H, W, 4 C]: with the map before it a transposed 2 x 2 convolution."""
  batch, rows, columns, channels = x.shape
  x = x.reshape(batch, rows, columns, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, 2 * rows, 2 * columns, -1)


def _half(x: Array) -> Array:
  """The largest of each 2 x 2 places; an odd last row or column goes by itself."""
  return nn.max_pool(x, (2, 2), (2, 2), padding='SAME')
