"""Corrupted test images, as in ImageNet-C (Hendrycks and Dietterich 2019)."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from tlx.evaluators import Finished
from tlx.plug import closest
from tlx.types import Task

KEPT = 'logits'
COLUMNS = ('*_accuracy',)
FORM = 'image'
SEVERITIES = (1, 2, 3, 4, 5)
SIZE = 224  # of ImageNet-C's images, for which its radii are


def gaussian_noise(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
  """Normal noise on every number."""
  return x + random.normal(0.0, (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1], x.shape)


def shot_noise(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
  """Counts of so many photons a number."""
  photons = (60, 25, 12, 5, 3)[severity - 1]
  return random.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
  """A share of the numbers is 0 or 1."""
  share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
  drawn = random.random(x.shape)
  return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, x))


def gaussian_blur(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
  """A blur whose radius is that of 224 pixels at the size of the images."""
  radius = (1, 2, 3, 4, 6)[severity - 1] * x.shape[1] / SIZE
  return ndimage.gaussian_filter(x, (0, radius, radius, 0), mode='nearest')


def brightness(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
  """More of the value of HSV, hue and saturation left as they are."""
  more = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
  value = x.max(-1, keepdims=True)
  lifted = np.minimum(value + more, 1.0)
  return np.where(value > 0, x / np.maximum(value, 1e-12), 1.0) * lifted


def contrast(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
  """Less difference to the mean of each channel."""
  share = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
  mean = x.mean((1, 2), keepdims=True)
  return (x - mean) * share + mean


def pixelate(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
  """Resized to a share of the sides and back, by areas."""
  share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]

  def coarse(image: Image.Image) -> Image.Image:
    small = [max(1, int(side * share)) for side in image.size]
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)

  return _each(x, coarse)


def jpeg_compression(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
  """Stored as JPEG of low quality and read again."""
  quality = (25, 18, 15, 10, 7)[severity - 1]

  def stored(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=quality)
    return Image.open(file)

  return _each(x, stored)


CORRUPTIONS: dict[str, Callable[..., np.ndarray]] = {
  function.__name__: function
  for function in (
    gaussian_noise,
    shot_noise,
    impulse_noise,
    gaussian_blur,
    brightness,
    contrast,
    pixelate,
    jpeg_compression,
  )
}


def check(
  task: Task, names: Sequence[str] = tuple(CORRUPTIONS), severities: Sequence[int] = SEVERITIES
) -> None:
  """Raises ValueError where there is no such corruption or severity."""
  for name in names:
    if name not in CORRUPTIONS:
      raise ValueError(
        f'Unknown corruption {name!r}; have {", ".join(CORRUPTIONS)}.{closest(name, CORRUPTIONS)}'
      )
  if not names or not severities or set(severities) - set(SEVERITIES):
    raise ValueError(
      f'corruptions wants names and severities of 1 to 5, got {tuple(names)} and '
      f'{tuple(severities)}.'
    )


def evaluate(
  finished: Finished,
  names: Sequence[str] = tuple(CORRUPTIONS),
  severities: Sequence[int] = SEVERITIES,
) -> dict[str, object]:
  """Accuracies on corrupted copies of the test images, in [0, 1].

  '<name>_accuracy': the mean over severities; '<name>_severities': a list with each
  'corrupted_accuracy': the mean of all
  The functions and constants are those of ImageNet-C's code for 224 pixels; departures: the blur's
  radius is scaled to the size of the images, and corruption is of the images as stored, after they
  were resized. The same noise for every run. It makes the test set anew for each, on the host.
  """
  images, labels = finished.data('test')
  if not isinstance(images, np.ndarray):
    images = images.take(np.arange(len(images)))  # larger than memory, but each copy must fit
  columns: dict[str, object] = {}
  means = []
  for name in names:
    found = []
    for severity in severities:
      logits = finished.predict(corrupted(images, name, severity))['logits']
      found.append(float((logits.argmax(-1) == labels).mean()))
    means.append(float(np.mean(found)))
    columns |= {f'{name}_accuracy': means[-1], f'{name}_severities': found}
  return {'corrupted_accuracy': float(np.mean(means)), **columns}


def corrupted(images: np.ndarray, name: str, severity: int) -> np.ndarray:
  """uint8 [N, H, W, C] images with a corruption, the same at every call."""
  random = np.random.default_rng((list(CORRUPTIONS).index(name), severity))
  made = CORRUPTIONS[name](images.astype(np.float64) / 255, severity, random)
  return (np.clip(made, 0.0, 1.0) * 255).astype(np.uint8)


def _each(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
  """[N, H, W, C] in [0, 1], each image changed by a function of Pillow's."""
  found = []
  for pixels in np.round(x * 255).astype(np.uint8):
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    found.append(np.asarray(change(image)).reshape(pixels.shape))
  return np.stack(found) / 255
