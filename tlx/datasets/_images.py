"""Image files to one uint8 array."""

import concurrent.futures
import contextlib
import functools
import hashlib
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from tlx.datasets._types import HEIF, UNREADABLE, Examples, Form, Split, is_file
from tlx.plug import closest

_CHUNK, _TASK = 512, 64  # encoded images in memory at a time; images a thread takes at a time
FITS = ('squeeze', 'crop', 'pad')
_FILTERS = {
  'nearest': Image.Resampling.NEAREST,
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
}


def check(form: Form) -> None:
  """Raises ValueError where images cannot be made into this form."""
  if form.channels not in (1, 3) or form.image_size < 1:
    raise ValueError(
      f'Got image_size {form.image_size} and channels {form.channels}; '
      'wanted a positive size and 1 (grey) or 3 (RGB) channels.'
    )
  for field, have in (('interpolation', tuple(_FILTERS)), ('fit', FITS)):
    if (value := getattr(form, field)) not in have:
      raise ValueError(f'Unknown {field} {value!r}; have {", ".join(have)}.{closest(value, have)}')
  if not 0 < form.crop <= 1:
    raise ValueError(
      f'Got crop {form.crop}; wanted the share of each side that is kept, above 0 and at most 1.'
    )
  if form.fit == 'pad' and form.crop != 1:
    raise ValueError(
      f"Got crop {form.crop} with fit 'pad', which keeps the whole image. Use crop 1.0 or fit "
      "'crop'."
    )


def check_memory(count: int, image_size: int, channels: int, data_bytes: float) -> None:
  """Raises ValueError where so many images, decoded, would take more than `data_bytes`."""
  num_bytes = count * image_size**2 * channels
  if num_bytes > data_bytes:
    fits = int((data_bytes / (count * channels)) ** 0.5)
    raise ValueError(
      f'{count:,} images of {image_size} x {image_size} x {channels} take {num_bytes / 2**30:.2f} '
      f'GiB, the limit is {data_bytes / 2**30:.2f} GiB. Use image_size <= {fits}, fewer images '
      '(val_examples caps validation), or a higher data_bytes.'
    )


def decode(file: bytes | epath.Path | ValueError, form: Form) -> np.ndarray:
  """One image, uint8 [image_size, image_size, channels].

  The first frame of an animation, turned as its EXIF says; what is transparent stands on white; 16
  bits of grey are scaled to 8; grey is ITU-R 601 luma; CIELAB (D50) becomes sRGB; other colour
  profiles are not applied.

  Raises:
    ValueError: why the file is not an intact image.
  """
  if isinstance(file, ValueError):
    raise file
  if not isinstance(file, bytes):
    if file.suffix.lower() in UNREADABLE and not (file.suffix.lower() in HEIF and _reads_heif()):
      how = _HEIF_READER if file.suffix.lower() in HEIF else 'convert it to JPEG or PNG'
      raise ValueError(f'{file.suffix} files are not read; {how}')
    if not is_file(file):
      raise ValueError('it is no file')
    file = file.read_bytes()
  _reads_heif()
  try:
    with Image.open(io.BytesIO(file)) as opened:
      opened.load()
      image = _eight_bits(_upright(opened))
      mode = {1: 'L', 3: 'RGB'}[form.channels]
      if image.mode != mode:
        image = image.convert(mode)
      return np.asarray(_square(image, form)).reshape(
        form.image_size, form.image_size, form.channels
      )
  except UnidentifiedImageError:
    raise ValueError(_unidentified(file)) from None


_HEIF_READER = "pip install 'tlx-jax[heif]', or convert it to JPEG or PNG"


@functools.cache
def _reads_heif() -> bool:
  """Whether HEIC is read, by pillow-heif, which Pillow is told of."""
  try:
    import pillow_heif
  except ImportError:
    return False
  pillow_heif.register_heif_opener()
  return True


class Raw(NamedTuple):
  """An image file: (width, height) in pixels, and Pillow's names of its mode and format."""

  size: tuple[int, int]
  mode: str
  format: str


def raw(file: bytes | epath.Path | ValueError) -> Raw | None:
  """What an image file says of itself, pixels unread; None where it cannot be read."""
  try:
    _reads_heif()
    opened = io.BytesIO(file) if isinstance(file, bytes) else os.fspath(file)  # type: ignore[arg-type]
    with without_warnings(), Image.open(opened) as image:
      return Raw(image.size, image.mode, image.format or '')
  except Exception:  # as in decode_all; a ValueError in place of a file is no path
    return None


def _unidentified(data: bytes) -> str:
  if not data:
    return 'it is empty'
  if data[4:8] == b'ftyp' and data[8:12] in (
    b'heic',
    b'heix',
    b'hevc',
    b'heim',
    b'heis',
    b'mif1',
    b'msf1',
  ):
    return f'it is HEIC, which is not read; {_HEIF_READER}'
  return 'its content is no image of a known kind'


def orientation(image: Image.Image) -> int:
  """How EXIF says that an image is turned, 1 to 8: not at all where it is damaged or says nothing,
  and from 5 on with its sides exchanged.
  """
  try:
    return image.getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # damaged bytes raise nearly anything
    return 1


def _upright(image: Image.Image) -> Image.Image:
  """The image turned as its EXIF says."""
  return ImageOps.exif_transpose(image) if orientation(image) != 1 else image


def _eight_bits(image: Image.Image) -> Image.Image:
  """The image in a mode of 8 bits a channel without transparency."""
  clear = image.info.get('transparency')
  if image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PPM'):
    values = np.asarray(image)
    if clear is not None:
      values = np.where(values == clear, 65535, values)
    return Image.fromarray(np.round(values / 257).astype(np.uint8))
  if image.mode[0] in 'IF':
    raise ValueError(
      f'it has pixels of mode {image.mode}, whose range is not known; wanted 8 bits a channel, or '
      '16 of grey'
    )
  if image.mode == 'LAB':
    lab, rgb = ImageCms.createProfile('LAB'), ImageCms.createProfile('sRGB')
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, rgb, 'LAB', 'RGB'))
    assert converted is not None  # as it is where nothing is done in place
    return converted
  if clear is not None or image.mode in ('LA', 'PA', 'RGBA', 'RGBa'):
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
  return image


def _square(image: Image.Image, form: Form) -> Image.Image:
  """The image resized and cropped or padded as `form.fit` says, to the pixel as timm, torchvision
  and face-api do.

  timm rounds image_size / crop down; torchvision rounds the longer side down and half a pixel of
  the margins to even; face-api puts the odd row or column of the padding at the end.
  """
  size, (width, height) = form.image_size, image.size
  scaled = math.floor(size / form.crop)
  if form.fit == 'squeeze':
    resized = (scaled, scaled)
  elif form.fit == 'crop':
    resized = (scaled * width // min(width, height), scaled * height // min(width, height))
  else:
    resized = (
      max(1, round(size * width / max(width, height))),
      max(1, round(size * height / max(width, height))),
    )
  if image.size != resized:
    image = image.resize(resized, _FILTERS[form.interpolation])
  if resized == (size, size):
    return image
  left, top = (
    -((size - side) // 2) if form.fit == 'pad' else round((side - size) / 2) for side in resized
  )
  return image.crop((left, top, left + size, top + size))  # black where the image does not reach


def decode_all(
  examples: Examples, form: Form, change: Callable[[np.ndarray], np.ndarray]
) -> tuple[Split, dict[str, str]]:
  """(all images of a split, {id: what is wrong with it} of those that cannot be decoded, whose rows
  hold nothing of use).

  Decoded in a few threads (Pillow lets go of the lock while it works). `change` takes some of the
  decoded images and returns as many; the whole array exists once.
  """
  count = len(examples.ids)
  inputs = np.empty((count, form.image_size, form.image_size, form.channels), np.uint8)
  digests = np.zeros(count, np.uint64)
  bad: dict[int, str] = {}
  with (
    concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    without_warnings(),
  ):
    for start in range(0, count, _CHUNK):
      files = examples.read(range(start, min(start + _CHUNK, count)))

      def work(
        first: int, start: int = start, files: Sequence[bytes | epath.Path | ValueError] = files
      ) -> None:
        begin = start + first
        part = inputs[begin : begin + min(_TASK, len(files) - first)]
        for row, file in enumerate(files[first : first + _TASK], begin):
          try:
            inputs[row] = decode(file, form)
          # a damaged file can raise nearly anything, down to struct.error and SyntaxError
          except Exception as error:
            bad[row] = str(error) or type(error).__name__
          else:
            digest = hashlib.blake2b(inputs[row].data, digest_size=8).digest()
            digests[row] = int.from_bytes(digest, 'little')
        part[:] = change(part)

      list(pool.map(work, range(0, len(files), _TASK)))  # list() raises what a thread raised
  wrong = {examples.ids[row]: bad[row] for row in sorted(bad)}
  return (
    Split(inputs, examples.labels, examples.ids, digests, examples.groups, examples.values),
    wrong,
  )


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
  """Within, Pillow keeps quiet about metadata that it cannot read and about large images: they are
  read or named as bad.
  """
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    yield
