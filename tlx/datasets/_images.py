"""Image files to one uint8 array, or to what decodes them when they are taken."""

import concurrent.futures
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import io
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError, features
from PIL import __version__ as PILLOW

from tlx.datasets import _shifts
from tlx.datasets._shifts import SHIFTS
from tlx.datasets._types import HEIF, PDF, UNREADABLE, Examples, Form, Split, is_file
from tlx.plug import closest

_CHUNK, _TASK = 512, 64  # encoded images in memory at a time; images a thread takes at a time
_TAKEN = 8  # images a thread takes at a time of those that are wanted now
PART_BYTES = 2**26  # of decoded images, where all pass by once
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


def decode(file: bytes | epath.Path | ValueError, form: Form) -> np.ndarray:
  """One image, uint8 [image_size, image_size, channels].

  The first frame of an animation or page of a document, turned as its EXIF says; what is
  transparent stands on white; 16 bits of grey are scaled to 8; grey is ITU-R 601 luma; CIELAB (D50)
  becomes sRGB; other colour profiles are not applied.

  Raises:
    ValueError: why the file is not an intact image.
  """
  if isinstance(file, ValueError):
    raise file
  if not isinstance(file, bytes):
    if how := lacking(file.suffix):
      raise ValueError(f'{file.suffix} files are not read; {how}')
    if not is_file(file):
      raise ValueError('it is no file')
    file = file.read_bytes()
  _reads_heif()
  try:
    with _opened(file) as opened:
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


_CONVERT = 'convert it to JPEG or PNG'
_HEIF_READER = f"pip install 'tlx-jax[heif]', or {_CONVERT}"
_PDF_READER = f"pip install 'tlx-jax[pdf]', or {_CONVERT}"
_PDF_MARK = b'%PDF-'
_PDF_DPI, _PDF_SIDE = 150, 4000  # as offices scan; pixels of a longer side at most
_pdfium = threading.Lock()  # PDFium is for one thread at a time


def lacking(ending: str) -> str:
  """What to do so that images whose names have this ending are read; '' where they are."""
  ending = ending.lower()
  read = (ending in HEIF and _reads_heif()) or (ending == PDF and _reads_pdf())
  if ending not in UNREADABLE or read:
    return ''
  return {PDF: _PDF_READER, **dict.fromkeys(HEIF, _HEIF_READER)}.get(ending, _CONVERT)


@functools.cache
def _reads_heif() -> bool:
  """Whether HEIC is read, by pillow-heif, which Pillow is told of."""
  try:
    import pillow_heif
  except ImportError:
    return False
  pillow_heif.register_heif_opener()
  return True


@functools.cache
def _reads_pdf() -> bool:
  """Whether PDF is read, by pypdfium2."""
  return importlib.util.find_spec('pypdfium2') is not None


def _opened(data: bytes) -> Image.Image:
  """The image of a file's bytes; of a PDF its first page, at 150 dots an inch.

  Raises:
    ValueError: a PDF that is damaged, empty or locked.
  """
  if not data.startswith(_PDF_MARK):
    return Image.open(io.BytesIO(data))
  if not _reads_pdf():
    raise ValueError(f'it is a PDF, which is not read; {_PDF_READER}')
  import pypdfium2

  with _pdfium:
    try:
      document = pypdfium2.PdfDocument(data)
      page = document[0]
      scale = min(_PDF_DPI / 72, _PDF_SIDE / max(page.get_size()))
      return page.render(scale=scale).to_pil()
    except (pypdfium2.PdfiumError, IndexError) as error:
      raise ValueError(f'a PDF that cannot be read: {error}') from None


def _num_pages(data: bytes) -> int:
  import pypdfium2

  with _pdfium:
    return len(pypdfium2.PdfDocument(data))


class Raw(NamedTuple):
  """An image file: (width, height) in pixels, Pillow's names of its mode and format, and its
  pages, of which the first is read.
  """

  size: tuple[int, int]
  mode: str
  format: str
  pages: int = 1


def raw(file: bytes | epath.Path | ValueError) -> Raw | None:
  """What an image file says of itself, pixels unread; None where it cannot be read."""
  try:
    _reads_heif()
    with without_warnings():
      if not isinstance(file, bytes) and file.suffix.lower() == PDF:  # type: ignore[union-attr]
        data = file.read_bytes()  # type: ignore[union-attr]
        return Raw(_opened(data).size, 'RGB', 'PDF', _num_pages(data))
      opened = io.BytesIO(file) if isinstance(file, bytes) else os.fspath(file)  # type: ignore[arg-type]
      with Image.open(opened) as image:
        pages = getattr(image, 'n_frames', 1) if image.format == 'TIFF' else 1
        return Raw(image.size, image.mode, image.format or '', pages)
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


class Images:
  """The images of a split that are decoded when they are taken, again and again.

  shape, dtype: of all of them, [N, H, W, C]
  digests: uint64 [N] of their pixels before `shift`
  """

  dtype = np.dtype(np.uint8)

  def __init__(self, examples: Examples, form: Form, shift: str, digests: np.ndarray):
    self.examples, self.form, self.shift = examples, form, shift
    self.digests = digests
    self.shape = len(examples.ids), form.image_size, form.image_size, form.channels
    for about in ({'category': Image.DecompressionBombWarning}, {'module': r'PIL\.'}):
      warnings.filterwarnings('ignore', **about)  # in all threads, unlike `without_warnings`

  def __len__(self) -> int:
    return len(self.digests)

  def take(self, rows: np.ndarray) -> np.ndarray:
    """uint8 [len(rows), H, W, C], decoded in as many threads as there are cores.

    Raises:
      ValueError: a file that could be read at first and no longer can, or is another image now.
    """
    made = np.empty((len(rows), *self.shape[1:]), np.uint8)

    def work(first: int) -> None:
      part = made[first : first + _TAKEN]
      some = np.asarray(rows)[first : first + _TAKEN].tolist()
      for place, (row, file) in enumerate(zip(some, self.examples.read(some), strict=True)):
        try:
          part[place] = decode(file, self.form)
        except Exception as error:  # as in decode_all
          raise ValueError(
            f'{self.examples.ids[row]} can no longer be read: {error}. Put it back as it was.'
          ) from error
        if _digest(part[place]) != self.digests[row]:
          raise ValueError(
            f'{self.examples.ids[row]} is another image than it was at first. Put it back as it '
            'was, or begin a new study with what is there now.'
          )
      part[:] = SHIFTS[self.shift][0](part)

    with concurrent.futures.ThreadPoolExecutor(_num_threads()) as pool:
      list(pool.map(work, range(0, len(rows), _TAKEN)))
    return made

  def sha256(self, rows: np.ndarray | None = None) -> str:
    """A digest of what `take` gives of some rows, or of all, without decoding them."""
    digests = self.digests if rows is None else self.digests[rows]
    about = f'{self.shape[1:]} {self.shift}\n'
    return hashlib.sha256(about.encode() + digests.tobytes()).hexdigest()


def stamp(parts: Mapping[str, Examples], form: Form, shift: str) -> str:
  """A digest of all that `Looked` depends on, without decoding: of files their path, size and times
  of change, of records their bytes, of what decodes them its versions and our own code; '' where
  files are not on this machine's disks.

  Of a file also the time of change of its inode, which nothing sets back: archives and copies keep
  the time of change of what is in it.
  """
  decoders = (PILLOW, features.version('jpg'), *map(_version, ('pillow-heif', 'pypdfium2')))
  digest = hashlib.sha256(f'{decoders} {form} {shift}\n'.encode())
  for module in (sys.modules[__name__], _shifts):
    digest.update(inspect.getsource(module).encode())
  for name, part in parts.items():
    values = part.values if isinstance(part.values, dict) else {'': part.values}
    digest.update('\n'.join((name, *part.ids)).encode() + part.labels.tobytes())
    for value in values.values():
      digest.update(b'' if value is None else value.tobytes())
    for start in range(0, len(part.ids), _CHUNK):
      for file in part.read(range(start, min(start + _CHUNK, len(part.ids)))):
        if isinstance(file, bytes):
          digest.update(hashlib.blake2b(file).digest())
        elif not isinstance(file, ValueError) and '://' in os.fspath(file):
          return ''
        elif isinstance(file, ValueError) or not os.path.isfile(file):
          digest.update(f'{file}\n'.encode())
        else:
          found = os.stat(file)
          known = found.st_size, found.st_mtime_ns, found.st_ctime_ns
          digest.update(f'{known}\n'.encode() + os.fsencode(file))
  return digest.hexdigest()


def _version(package: str) -> str:
  """Of an installed package, or ''."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ''


def _num_threads() -> int:
  """As many as there are cores: Pillow lets go of the lock while it works."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def decode_all(
  examples: Examples,
  form: Form,
  shift: str,
  digest: Any = None,
) -> tuple[Split, dict[str, str]]:
  """(all images of a split, {id: what is wrong with it} of those that cannot be decoded, whose rows
  hold nothing of use).

  Decoded in a few threads. The whole array exists once; or, with a `digest` of hashlib that is
  updated with all pixels in their order, no more than two parts of it: what then stands for the
  images decodes them again when they are taken.
  """
  count, streamed = len(examples.ids), digest is not None
  shape, (change, _) = (form.image_size, form.image_size, form.channels), SHIFTS[shift]
  size = max(_TASK, PART_BYTES // math.prod(shape)) if streamed else _CHUNK
  inputs = None if streamed else np.empty((count, *shape), np.uint8)
  digests = np.zeros(count, np.uint64)
  bad: dict[int, str] = {}
  with (
    concurrent.futures.ThreadPoolExecutor(_num_threads()) as pool,
    without_warnings(),
  ):
    hashed = pool.submit(str)  # of the part before
    for start in range(0, count, size):
      files = examples.read(range(start, min(start + size, count)))
      whole = np.empty((len(files), *shape), np.uint8) if inputs is None else inputs[start:]

      def work(
        first: int,
        start: int = start,
        files: Sequence[bytes | epath.Path | ValueError] = files,
        whole: np.ndarray = whole,
      ) -> None:
        some = files[first : first + _TASK]
        part = whole[first : first + len(some)]
        for place, file in enumerate(some):
          row = start + first + place
          try:
            part[place] = decode(file, form)
          # a damaged file can raise nearly anything, down to struct.error and SyntaxError
          except Exception as error:
            bad[row] = str(error) or type(error).__name__
          else:
            digests[row] = _digest(part[place])
        part[:] = change(part)

      list(pool.map(work, range(0, len(files), _TASK)))  # list() raises what a thread raised
      hashed.result()
      if streamed:
        hashed = pool.submit(digest.update, whole.data)
    hashed.result()
  wrong = {examples.ids[row]: bad[row] for row in sorted(bad)}
  found = Images(examples, form, shift, digests) if inputs is None else inputs
  return (
    Split(found, examples.labels, examples.ids, digests, examples.groups, examples.values),
    wrong,
  )


def _digest(pixels: np.ndarray) -> int:
  """Of one image as it is decoded."""
  return int.from_bytes(hashlib.blake2b(pixels.data, digest_size=8).digest(), 'little')


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
  """Within, Pillow keeps quiet about metadata that it cannot read and about large images: they are
  read or named as bad.
  """
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    yield
