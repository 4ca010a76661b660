"""Random augmentation of image batches on the device, a pure function of the key."""
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from tlx.plug import closest
from tlx.types import Array, Batch


def check(options: Mapping[str, float], image_size: int) -> None:
  """Raises ValueError for an augmentation there is not, or a value outside its range for images of this size."""
  most: Mapping[str, tuple[float, str]] = {
      'crop': ((image_size - 0.01) / 2, f'pixels, less than half of an image of {image_size}'),
      'shift': (image_size - 1, f'whole pixels, fewer than an image of {image_size} has'),
      'flip': (1.0, 'the share of images that are mirrored, up to 1'), 'mixup': (1000.0, 'the parameter of a Beta distribution, up to 1000')}
  for name, value in options.items():
    if name not in AUGMENTATIONS:
      raise ValueError(f'Unknown augmentation {name!r}; have {", ".join(AUGMENTATIONS)}.{closest(name, AUGMENTATIONS)}')
    high, meaning = most[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= high or (name == 'shift' and value != int(value)):
      raise ValueError(f'Augmentation {name!r} takes a number of at least 0 (0 is off): {meaning}; got {value!r}.')


def _shift(key: Array, batch: Batch, pixels: int) -> Batch:
  """Moves each image by up to `pixels` in each direction and fills with zeros: random crop of the padded image."""
  pixels = int(pixels)
  padded = jnp.pad(batch.inputs, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
  corners = jax.random.randint(key, (len(padded), 2), 0, 2 * pixels + 1)
  cut = lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), batch.inputs.shape[1:])
  return batch._replace(inputs=jax.vmap(cut)(padded, corners))


def _crop(key: Array, batch: Batch, pixels: int) -> Batch:
  """A random window that is smaller by up to `pixels` a side, resized (linearly) to the image's size."""
  height, width = batch.inputs.shape[1:3]
  sides = jax.random.uniform(key, (len(batch.inputs), 4), maxval=pixels)  # top, bottom, left, right

  def window(image: Array, side: Array) -> Array:
    scale = jnp.stack([height / (height - side[0] - side[1]), width / (width - side[2] - side[3])])
    return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, -jnp.stack([side[0], side[2]]) * scale, 'linear')

  return batch._replace(inputs=jax.vmap(window)(batch.inputs, sides))


def _flip(key: Array, batch: Batch, share: float) -> Batch:
  """Mirrors `share` of the images left to right."""
  flipped = jax.random.bernoulli(key, float(share), (len(batch.inputs), 1, 1, 1))
  return batch._replace(inputs=jnp.where(flipped, batch.inputs[:, :, ::-1], batch.inputs))


def _mixup(key: Array, batch: Batch, alpha: float) -> Batch:
  """Convex mixtures of pairs of examples and of their one-hot targets [B, K], weight ~ Beta(alpha, alpha) (Zhang et al. 2018)."""
  weight_key, pair_key = jax.random.split(key)
  weight = jax.random.beta(weight_key, float(alpha), float(alpha))
  pair = jax.random.permutation(pair_key, len(batch.inputs))
  mix = lambda a: weight * a + (1 - weight) * a[pair]
  return batch._replace(inputs=mix(batch.inputs), targets=mix(batch.targets))


AUGMENTATIONS: dict[str, Callable[..., Batch]] = {'crop': _crop, 'shift': _shift, 'flip': _flip, 'mixup': _mixup}


def augment(key: Array, batch: Batch, options: Mapping[str, float], num_classes: int) -> Batch:
  """The batch (inputs [B, H, W, C], any number type) under the augmentations of `options`, in the order crop, shift, flip, mixup.

  `{'shift': 2, 'flip': 0.5, 'mixup': 0.2, 'crop': 4}`: pixels, share, Beta parameter, pixels; 0 is off.
  """
  if any(options.values()):
    batch = batch._replace(inputs=batch.inputs.astype(jnp.float32))
  if options.get('mixup'):
    batch = batch._replace(targets=jax.nn.one_hot(batch.targets, num_classes))
  for i, (name, function) in enumerate(AUGMENTATIONS.items()):
    if options.get(name):
      batch = function(jax.random.fold_in(key, i), batch, options[name])
  return batch
