"""Image files to one uint8 array."""
import concurrent.futures
import io
import math
import os
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath
from PIL import Image

from tlx.datasets._types import Examples, Form, Split
from tlx.plug import closest

_CHUNK, _TASK = 512, 64  # encoded images in memory at a time; images a thread takes at a time
FITS = ('squeeze', 'crop', 'pad')
_FILTERS = {'nearest': Image.Resampling.NEAREST, 'bilinear': Image.Resampling.BILINEAR,
            'bicubic': Image.Resampling.BICUBIC, 'lanczos': Image.Resampling.LANCZOS}


def check(form: Form) -> None:
  """Raises ValueError where images cannot be made into this form."""
  if form.channels not in (1, 3) or form.image_size < 1:
    raise ValueError(f'Got image_size {form.image_size} and channels {form.channels}; '
                     'wanted a positive size and 1 (grey) or 3 (RGB) channels.')
  for field, have in (('interpolation', tuple(_FILTERS)), ('fit', FITS)):
    if (value := getattr(form, field)) not in have:
      raise ValueError(f'Unknown {field} {value!r}; have {", ".join(have)}.{closest(value, have)}')
  if not 0 < form.crop <= 1:
    raise ValueError(f'Got crop {form.crop}; wanted the share of each side that is kept, above 0 and at most 1.')
  if form.fit == 'pad' and form.crop != 1:
    raise ValueError(f"Got crop {form.crop} with fit 'pad', which keeps the whole image. Use crop 1.0 or fit 'crop'.")


def check_memory(splits: Mapping[str, Examples], form: Form, max_bytes: int) -> None:
  """Raises ValueError where the decoded arrays would take more than `max_bytes`."""
  count = sum(len(examples.ids) for examples in splits.values())
  size, channels = form.image_size, form.channels
  num_bytes = count * size ** 2 * channels
  if num_bytes > max_bytes:
    fits = int((max_bytes / (count * channels)) ** 0.5)
    raise ValueError(f'{count:,} images of {size} x {size} x {channels} take {num_bytes / 2**30:.2f} GiB, the '
                     f'limit is {max_bytes / 2**30:.2f} GiB. Use image_size <= {fits}, fewer images, or a higher max_bytes.')


def decode(name: str, file: bytes | epath.Path, form: Form) -> np.ndarray:
  """One image, uint8 [image_size, image_size, channels].

  The first frame of an animation; transparency is dropped, as torchvision's ImageFolder does; grey is ITU-R 601 luma.

  Raises:
    ValueError: a file that is not an intact image of 8 bits a channel.
  """
  mode = {1: 'L', 3: 'RGB'}[form.channels]
  try:
    data = file if isinstance(file, bytes) else file.read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
      opened.load()
      image: Image.Image = opened
      if image.mode[0] in 'IF':
        raise ValueError(f'it has pixels of mode {image.mode}, wanted 8 bits a channel')
      if 'transparency' in image.info:
        image = image.convert('RGBA')  # else Pillow warns about palettes
      if image.mode != mode:
        image = image.convert(mode)
      return np.asarray(_square(image, form)).reshape(form.image_size, form.image_size, form.channels)
  except Exception as error:  # a damaged file can raise nearly anything, down to struct.error and SyntaxError
    name = name if isinstance(file, bytes) else os.fspath(file)
    raise ValueError(f'Cannot read image {name}: {error}. Repair or remove the file.') from error


def _square(image: Image.Image, form: Form) -> Image.Image:
  """The image resized and cropped or padded as `form.fit` says, to the pixel as timm, torchvision and face-api do.

  timm rounds image_size / crop down; torchvision rounds the longer side down and half a pixel of the margins to even;
  face-api puts the odd row or column of the padding at the end.
  """
  size, (width, height) = form.image_size, image.size
  scaled = math.floor(size / form.crop)
  if form.fit == 'squeeze':
    resized = (scaled, scaled)
  elif form.fit == 'crop':
    resized = (scaled * width // min(width, height), scaled * height // min(width, height))
  else:
    resized = (max(1, round(size * width / max(width, height))), max(1, round(size * height / max(width, height))))
  if image.size != resized:
    image = image.resize(resized, _FILTERS[form.interpolation])
  if resized == (size, size):
    return image
  left, top = (-((size - side) // 2) if form.fit == 'pad' else round((side - size) / 2) for side in resized)
  return image.crop((left, top, left + size, top + size))  # black where the image does not reach


def decode_all(examples: Examples, form: Form, change: Callable[[np.ndarray], np.ndarray]) -> Split:
  """All images of a split, decoded in a few threads (Pillow lets go of the lock while it works).

  `change` takes some of the decoded images and returns as many; the whole array exists once.
  """
  count = len(examples.ids)
  inputs = np.empty((count, form.image_size, form.image_size, form.channels), np.uint8)
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    for start in range(0, count, _CHUNK):
      files = examples.read(range(start, min(start + _CHUNK, count)))

      def work(first: int, start: int = start, files: list[bytes | epath.Path] = files) -> None:
        part = inputs[start + first:start + min(first + _TASK, len(files))]
        for i, file in enumerate(files[first:first + _TASK]):
          part[i] = decode(examples.ids[start + first + i], file, form)
        part[:] = change(part)

      list(pool.map(work, range(0, len(files), _TASK)))  # list() raises what a thread raised
  return Split(inputs, examples.labels, examples.ids)
