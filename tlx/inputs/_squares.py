"""What forms of images have in common: squares uint8, normalised and augmented on the device."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tlx.plug import closest
from tlx.ranges import Each, Range
from tlx.types import Array, Batch

RANGES = {
  'image_size': Range(1, 8192),
  'channels': Range(1, 3),
  'mean': Each(Range(-1000.0, 1000.0), different=False),
  'std': Each(Range(1e-6, 1000.0), different=False),
  'interpolation': ('nearest', 'bilinear', 'bicubic', 'lanczos'),
}
STREAMS = True  # data sets of more than data_bytes are decoded when they are needed
HOW = (  # the fields of a data set and of a study that `load` takes
  'val_fraction',
  'test_fraction',
  'group',
  'val_examples',
  'duplicates',
  'skip_bad',
  'fold',
  'folds',
  'data_dir',
  'data_bytes',
  'once',
)


def entering(
  channels: int, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Array], Array]:
  """What makes float32 (x / 255 - mean) / std of stored images.

  Raises:
    ValueError: not as many means and stds as channels.
  """
  if not len(mean) == len(std) == channels:
    raise ValueError(f'{channels} channels want as many means and stds, got {mean} and {std}.')

  def enter(images: Array) -> Array:
    return (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)

  return enter


def spec(image_size: int, channels: int) -> jax.ShapeDtypeStruct:
  """The shape of a stored image."""
  return jax.ShapeDtypeStruct((image_size, image_size, channels), np.uint8)


def check(
  options: Mapping[str, float], most: Mapping[str, tuple[float, str]], what: str = 'images'
) -> None:
  """Nothing, where `most`, {augmentation: (its largest value, what it is)}, allows these.

  Raises:
    ValueError: an augmentation there is not, or a value out of its range.
  """
  for name, value in options.items():
    if name not in most:
      have = ', '.join(most)
      raise ValueError(
        f'Unknown augmentation {name!r} of {what}; have {have}.{closest(name, most)}'
      )
    high, meaning = most[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= high:
      raise ValueError(
        f'Augmentation {name!r} takes a number of at least 0 (0 is off): {meaning}; got {value!r}.'
      )


def augmented(
  key: Array,
  batch: Batch,
  options: Mapping[str, float],
  functions: Mapping[str, Callable[[Array, Batch, float], Batch]],
) -> Batch:
  """The batch after those of the functions that are on, in their order, each with its own key."""
  if any(options.values()):
    batch = batch._replace(inputs=batch.inputs.astype(jnp.float32))
  for i, (name, function) in enumerate(functions.items()):
    if options.get(name):
      batch = function(jax.random.fold_in(key, i), batch, options[name])
  return batch
