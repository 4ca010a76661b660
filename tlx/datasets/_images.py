"""Image files to one uint8 array."""
import concurrent.futures
import io
import os
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tlx.datasets._types import Example, Examples, Split

_CHUNK, _TASK = 2048, 64  # encoded images in memory at a time; images a thread takes at a time


def check_memory(splits: Mapping[str, Examples], image_size: int, channels: int, max_bytes: int) -> None:
  """Raises ValueError where the decoded arrays would take more than `max_bytes`."""
  count = sum(examples.num_examples for examples in splits.values())
  num_bytes = count * image_size ** 2 * channels
  if num_bytes > max_bytes:
    fits = int((max_bytes / (count * channels)) ** 0.5)
    raise ValueError(f'{count:,} images of {image_size} x {image_size} x {channels} take {num_bytes / 2**30:.2f} GiB, the '
                     f'limit is {max_bytes / 2**30:.2f} GiB. Use image_size <= {fits}, fewer images, or a higher max_bytes.')


def decode(example: Example, image_size: int, channels: int) -> np.ndarray:
  """One image, uint8 [image_size, image_size, channels]: the whole of it, squeezed to a square by antialiased bicubic.

  The first frame of an animation; transparency is dropped, as torchvision's ImageFolder does; grey is ITU-R 601 luma.

  Raises:
    ValueError: a file that is not an intact image of 8 bits a channel.
  """
  mode = {1: 'L', 3: 'RGB'}[channels]
  name = example.id if isinstance(example.image, bytes) else os.fspath(example.image)
  try:
    data = example.image if isinstance(example.image, bytes) else example.image.read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
      opened.load()
      image: Image.Image = opened
      if image.mode[0] in 'IF':
        raise ValueError(f'it has pixels of mode {image.mode}, wanted 8 bits a channel')
      if 'transparency' in image.info:
        image = image.convert('RGBA')  # else Pillow warns about palettes
      if image.mode != mode:
        image = image.convert(mode)
      if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
      return np.asarray(image).reshape(image_size, image_size, channels)
  except Exception as error:  # a damaged file can raise nearly anything, down to struct.error and SyntaxError
    raise ValueError(f'Cannot read image {name}: {error}. Repair or remove the file.') from error


def decode_all(examples: Examples, image_size: int, channels: int) -> Split:
  """All images of a published split, decoded in a few threads (Pillow lets go of the lock while it works)."""
  inputs = np.empty((examples.num_examples, image_size, image_size, channels), np.uint8)
  labels = np.empty(examples.num_examples, np.int32)
  ids: list[str] = []
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    for start in range(0, examples.num_examples, _CHUNK):
      chunk = examples.read(range(start, min(start + _CHUNK, examples.num_examples)))
      labels[start:start + len(chunk)] = [example.label for example in chunk]
      ids.extend(example.id for example in chunk)

      def work(first: int, start: int = start, chunk: list[Example] = chunk) -> None:
        for i, example in enumerate(chunk[first:first + _TASK], start + first):
          inputs[i] = decode(example, image_size, channels)

      list(pool.map(work, range(0, len(chunk), _TASK)))  # list() raises what a thread raised
  return Split(inputs, labels, tuple(ids))
