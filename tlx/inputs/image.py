"""Images: stored as uint8, normalised on the device, moved, mirrored and mixed at random."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx import datasets
from tlx.inputs import _squares
from tlx.ranges import Range
from tlx.types import Array, Batch, Form, Mixed

KIND = 'image'  # the data sets that are made into this
OF_NETWORK = False  # a network's `input_spec` is of its weights: others take any images
INPUT = {  # of a source: the fields, where neither its weights nor the config say otherwise
  'image_size': 16,
  'channels': 1,
  'mean': (0.5,),
  'std': (0.25,),
  'interpolation': 'bicubic',
  'fit': 'squeeze',
  'crop': 1.0,
}
RANGES = {
  **_squares.RANGES,
  'fit': ('squeeze', 'crop', 'pad'),
  'crop': Range(0.0, 1.0, above=True),
}
AUGMENT = {'crop': 0.0, 'shift': 0, 'flip': 0.0, 'mixup': 0.0, 'cutmix': 0.0}  # all off
HOW = ('shift', *_squares.HOW)
STREAMS = _squares.STREAMS


@functools.cache
def form(
  image_size: int,
  channels: int,
  mean: tuple[float, ...] = (0.0,),
  std: tuple[float, ...] = (1.0,),
  interpolation: str = 'bicubic',
  fit: str = 'squeeze',
  crop: float = 1.0,
) -> Form:
  """Squares uint8 [H, W, C]; what enters a network is float32, (x / 255 - mean) / std.

  `interpolation`, `fit` and `crop` say how an image of another size becomes such a square
  (`datasets.load`).

  Raises:
    ValueError: fields that do not go together.
  """
  enter = _squares.entering(channels, mean, std)
  datasets.check(image_size, channels, interpolation, fit, crop)
  stored = {'interpolation': interpolation, 'fit': fit, 'crop': crop}
  options = {'image_size': image_size, 'channels': channels, 'mean': mean, 'std': std, **stored}

  def check(augmentations: Mapping[str, float]) -> None:
    _check(augmentations, image_size)

  return Form(f'image {options}', _squares.spec(image_size, channels), enter, augment, check)


def load(name: str, fields: Mapping[str, Any], how: Mapping[str, Any]) -> datasets.Dataset:
  """The data set as stored images; `how` holds arguments of `datasets.load`, which raises."""
  resized = {field: value for field, value in fields.items() if field not in ('mean', 'std')}
  return datasets.load(name, **resized, **how)


def store(records: Sequence[Any], fields: Mapping[str, Any]) -> tuple[np.ndarray, dict[int, str]]:
  """(image files as they are stored [N, H, W, C], {row: why} of those that cannot be read)."""
  resized = {field: value for field, value in fields.items() if field not in ('mean', 'std')}
  return datasets.decoded(records, **resized)


def _check(options: Mapping[str, float], image_size: int) -> None:
  """Raises ValueError for an augmentation there is not, or a value out of its range."""
  most: Mapping[str, tuple[float, str]] = {
    'crop': ((image_size - 0.01) / 2, f'pixels, less than half of an image of {image_size}'),
    'shift': (image_size - 1, f'whole pixels, fewer than an image of {image_size} has'),
    'flip': (1.0, 'the share of images that are mirrored, up to 1'),
    'mixup': (1000.0, 'the parameter of a Beta distribution, up to 1000'),
    'cutmix': (1000.0, 'the parameter of a Beta distribution, up to 1000'),
  }
  _squares.check(options, most)
  if (pixels := options.get('shift', 0)) != int(pixels):
    raise ValueError(f"Augmentation 'shift' takes {most['shift'][1]}; got {pixels!r}.")
  if options.get('mixup') and options.get('cutmix'):
    raise ValueError('mixup and cutmix both pair the examples of a batch. Set one of them to 0.')


def augment(key: Array, batch: Batch, options: Mapping[str, float]) -> Batch:
  """The batch (images [B, H, W, C]) augmented in the order crop, shift, flip, mixup or cutmix.

  `{'shift': 2, 'flip': 0.5, 'mixup': 0.2, 'crop': 4}`: pixels, share, Beta parameter, pixels; 0 is
  off.
  """
  return _squares.augmented(key, batch, options, AUGMENTATIONS)


def _crop(key: Array, batch: Batch, pixels: float) -> Batch:
  """A random window, smaller by up to `pixels` a side, resized (linearly) to the image's size."""
  height, width = batch.inputs.shape[1:3]
  sides = jax.random.uniform(key, (len(batch.inputs), 4), maxval=pixels)  # top, bottom, left, right

  def window(image: Array, side: Array) -> Array:
    scale = jnp.stack([height / (height - side[0] - side[1]), width / (width - side[2] - side[3])])
    begin = -jnp.stack([side[0], side[2]]) * scale
    return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, begin, 'linear')

  return batch._replace(inputs=jax.vmap(window)(batch.inputs, sides))


def _shift(key: Array, batch: Batch, pixels: float) -> Batch:
  """Moves each image by up to `pixels` in each direction and fills with zeros.

  That is a random crop of the padded image.
  """
  pixels = int(pixels)
  padded = jnp.pad(batch.inputs, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
  corners = jax.random.randint(key, (len(padded), 2), 0, 2 * pixels + 1)

  def cut(image: Array, corner: Array) -> Array:
    return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), batch.inputs.shape[1:])

  return batch._replace(inputs=jax.vmap(cut)(padded, corners))


def _flip(key: Array, batch: Batch, share: float) -> Batch:
  """Mirrors `share` of the images left to right."""
  flipped = jax.random.bernoulli(key, float(share), (len(batch.inputs), 1, 1, 1))
  return batch._replace(inputs=jnp.where(flipped, batch.inputs[:, :, ::-1], batch.inputs))


def _mixup(key: Array, batch: Batch, alpha: float) -> Batch:
  """Convex mixtures of pairs of images, with the targets of both (Zhang et al. 2018).

  The share of the first is drawn from Beta(alpha, alpha).
  """
  share_key, pair_key = jax.random.split(key)
  share = jax.random.beta(share_key, float(alpha), float(alpha))
  pair = jax.random.permutation(pair_key, len(batch.inputs))
  images = share * batch.inputs + (1 - share) * batch.inputs[pair]
  second = jax.tree.map(lambda leaf: leaf[pair], batch.targets)
  shares = jnp.broadcast_to(share, (len(pair),))
  return batch._replace(inputs=images, targets=Mixed(batch.targets, second, shares))


def _cutmix(key: Array, batch: Batch, alpha: float) -> Batch:
  """Images with a box of another one, with the targets of both by area (Yun et al. 2019).

  The share of the first is drawn from Beta(alpha, alpha), the box's middle uniformly over the
  image; sides are sqrt(1 - share) of the image's, whole pixels, and what lies outside is cut off.
  Shares are corrected to the pixels that were kept, as in the official code and timm.
  """
  share_key, pair_key, place_key = jax.random.split(key, 3)
  share = jax.random.beta(share_key, float(alpha), float(alpha))
  pair = jax.random.permutation(pair_key, len(batch.inputs))
  sizes = batch.inputs.shape[1:3]
  middles = [
    jax.random.randint(jax.random.fold_in(place_key, i), (), 0, size)
    for i, size in enumerate(sizes)
  ]
  box = _box(share, middles, sizes)
  images = jnp.where(box[..., None], batch.inputs[pair], batch.inputs)
  second = jax.tree.map(lambda leaf: leaf[pair], batch.targets)
  shares = jnp.broadcast_to(1 - box.mean(), (len(pair),))
  return batch._replace(inputs=images, targets=Mixed(batch.targets, second, shares))


def _box(share: Array, middles: Sequence[Array], sizes: Sequence[int]) -> Array:
  """[H, W], True inside the box of CutMix around a middle, for what is left outside it."""
  inside = []
  for middle, size in zip(middles, sizes):
    side = jnp.floor(size * jnp.sqrt(1 - share)).astype(jnp.int32)
    pixel = jnp.arange(size)
    inside.append((pixel >= middle - side // 2) & (pixel < middle + side // 2))
  return inside[0][:, None] & inside[1]


AUGMENTATIONS = {
  'crop': _crop,
  'shift': _shift,
  'flip': _flip,
  'mixup': _mixup,
  'cutmix': _cutmix,
}
