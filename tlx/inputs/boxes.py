"""Images with boxes: letterboxed squares, and what is to be found in them.

Published targets of an image, of a fixed number M of boxes, that of the image with the most:
  boxes     float32 [M, 4] x0, y0, x1, y1 in pixels of the square, continuous
  labels    int32 [M]
  valid     float32 [M] 1 where there is a box
  crowd     float32 [M] 1 where it is no single object, or is not judged
  area      float32 [M] of the object in square pixels of the original
  frame     float32 [5] scale, pad_x, pad_y, width, height: a point of the original, which is
            width x height, stands at point * scale + pad
  image_id  int32, by which COCO orders images
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx import datasets
from tlx.inputs import _squares
from tlx.types import Array, Batch, Form, PyTree

KIND = 'annotated image'  # the data sets that are made into this
UNLABELLED = 'image'  # the kind of new examples
OF_NETWORK = False
INPUT = {  # of a source: the fields, where neither its weights nor the config say otherwise
  'image_size': 320,
  'channels': 3,
  'mean': (0.485, 0.456, 0.406),
  'std': (0.229, 0.224, 0.225),
  'interpolation': 'bicubic',
}
RANGES = _squares.RANGES
AUGMENT = {'zoom': 0.0, 'flip': 0.0, 'colour': 0.0}  # all off
HOW = _squares.HOW
STREAMS = _squares.STREAMS
VISIBLE = 0.2  # of its area that a box must keep to stay in training
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601


@functools.cache
def form(
  image_size: int,
  channels: int,
  mean: tuple[float, ...] = (0.0,),
  std: tuple[float, ...] = (1.0,),
  interpolation: str = 'bicubic',
) -> Form:
  """Squares uint8 [H, W, C] in which an image keeps its ratio, in the middle of black; what enters
  a network is float32, (x / 255 - mean) / std.

  Raises:
    ValueError: fields that do not go together.
  """
  enter = _squares.entering(channels, mean, std)
  datasets.check(image_size, channels, interpolation, 'pad')
  options = {'image_size': image_size, 'channels': channels, 'mean': mean, 'std': std}
  options |= {'interpolation': interpolation}
  return Form(
    f'boxes {options}', _squares.spec(image_size, channels), enter, augment, check, moves=True
  )


def load(name: str, fields: Mapping[str, Any], how: Mapping[str, Any]) -> datasets.Dataset:
  """The data set as stored images; `how` holds arguments of `datasets.load`, which raises."""
  return datasets.load(name, **_resized(fields), **how, wanted=KIND)


def store(records: Sequence[Any], fields: Mapping[str, Any]) -> tuple[np.ndarray, dict[int, str]]:
  """(image files as they are stored [N, H, W, C], {row: why} of those that cannot be read)."""
  return datasets.decoded(records, **_resized(fields))


def _resized(fields: Mapping[str, Any]) -> dict[str, Any]:
  """What of the fields makes stored images."""
  return {
    'fit': 'pad',
    **{name: fields[name] for name in ('image_size', 'channels', 'interpolation')},
  }


def check(options: Mapping[str, float]) -> None:
  """Raises ValueError for an augmentation there is not, or a value out of its range."""
  most: Mapping[str, tuple[float, str]] = {
    'zoom': (0.9, 'sides become longer or shorter by up to this share, up to 0.9'),
    'flip': (1.0, 'the share of images that are mirrored, up to 1'),
    'colour': (1.0, 'brightness, contrast and saturation change by up to this share, up to 1'),
  }
  _squares.check(options, most, 'images with boxes')


def augment(key: Array, batch: Batch, options: Mapping[str, float]) -> Batch:
  """The batch (images [B, H, W, C]) augmented in the order zoom, flip, colour; boxes go along.

  `{'zoom': 0.3, 'flip': 0.5, 'colour': 0.2}`: shares; 0 is off. A box stays valid while its centre
  is in the square and a fifth of its area can be seen, and is cut to what can be seen. What is done
  to an image depends on the key and its place in the batch alone, not on the targets, which where
  they are no dict of boxes are left as they are.
  """
  return _squares.augmented(key, batch, options, AUGMENTATIONS)


def _zoom(key: Array, batch: Batch, share: float) -> Batch:
  """Each image larger or smaller by up to `share`, elsewhere in its square, with black around it.

  The scale is drawn evenly from [1 - share, 1 + share] and the place so that what is smaller stays
  within the square, and what is larger fills it: scale jitter and random crops in one (Ghiasi et
  al. 2021, arXiv:2012.07177, section 3).
  """
  number, height, width = batch.inputs.shape[:3]
  scale_key, place_key = jax.random.split(key)
  scales = jax.random.uniform(scale_key, (number, 1), minval=1 - share, maxval=1 + share)
  sides = jnp.array([height, width], jnp.float32)
  corners = jax.random.uniform(place_key, (number, 2)) * sides * (1 - scales)

  def move(image: Array, scale: Array, corner: Array) -> Array:
    scale = jnp.broadcast_to(scale, 2)
    return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, corner, 'linear')

  images = jax.vmap(move)(batch.inputs, scales, corners)
  begin = jnp.tile(corners[:, ::-1], 2)[:, None]  # x, y, x, y

  def moved(boxes: Array) -> Array:
    return boxes * scales[:, None] + begin

  return batch._replace(inputs=images, targets=_targets(batch.targets, moved, (height, width)))


def _flip(key: Array, batch: Batch, share: float) -> Batch:
  """Mirrors `share` of the images left to right."""
  height, width = batch.inputs.shape[1:3]
  flipped = jax.random.bernoulli(key, float(share), (len(batch.inputs), 1, 1))

  def mirrored(boxes: Array) -> Array:
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)
    return jnp.where(flipped, jnp.stack([width - x1, y0, width - x0, y1], -1), boxes)

  images = jnp.where(flipped[..., None], batch.inputs[:, :, ::-1], batch.inputs)
  return batch._replace(inputs=images, targets=_targets(batch.targets, mirrored, (height, width)))


def _colour(key: Array, batch: Batch, share: float) -> Batch:
  """Brightness, contrast and saturation, each times a number from [1 - share, 1 + share]; the
  padding becomes no longer quite black where contrast falls.
  """
  shape = (3, len(batch.inputs), 1, 1, 1)
  factors = jax.random.uniform(key, shape, minval=1 - share, maxval=1 + share)
  brightness, contrast, saturation = factors
  images = batch.inputs * brightness
  mean = images.mean((1, 2, 3), keepdims=True)
  images = (images - mean) * contrast + mean
  if images.shape[-1] == 3:
    grey = (images * jnp.asarray(_GREY)).sum(-1, keepdims=True)
    images = (images - grey) * saturation + grey
  return batch._replace(inputs=jnp.clip(images, 0, 255))


def _targets(targets: PyTree, move: Any, size: tuple[int, int]) -> PyTree:
  """The targets with their boxes moved and cut to the square; of unknown targets those."""
  if not isinstance(targets, Mapping):
    return targets
  height, width = size
  moved = move(targets['boxes'])
  limits = jnp.array([width, height, width, height], jnp.float32)
  cut = jnp.clip(moved, 0, limits)
  centre = (moved[..., :2] + moved[..., 2:]) / 2
  inside = ((centre >= 0) & (centre <= limits[:2])).all(-1)
  seen = _area(cut) >= VISIBLE * _area(moved)
  valid = targets['valid'] * inside * seen
  boxes = jnp.where(valid[..., None] > 0, cut, 0.0)
  return {**targets, 'boxes': boxes, 'valid': valid}


def _area(boxes: Array) -> Array:
  return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


AUGMENTATIONS = {'zoom': _zoom, 'flip': _flip, 'colour': _colour}
