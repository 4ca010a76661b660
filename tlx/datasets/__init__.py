"""Data sets by name, as arrays in memory.

  mnist_5k, uci_digits           digits that ship in installed packages: one file each in this folder
  tfds:NAME[/config][:version]   any TFDS data set of images with a label; a bare TFDS name works too
  vtab1k:TASK                    one of the tasks of VTAB-1k that are an image and its class
  folder:PATH                    PATH/<class>/<image> or PATH/{train,val,test}/<class>/<image>
  csv:PATH/labels.csv            a table of image files, labels and perhaps splits; or of pixels, as in FER-2013
"""
import hashlib
import os
import re

from tlx.datasets import _csv, _folder, _images, _shifts, _splits, _vtab
from tlx.datasets._subsets import subsets
from tlx.datasets._types import Dataset, Examples, Form, Info, Split
from tlx.plug import available, closest, plug

__all__ = ['Dataset', 'Info', 'Split', 'check', 'info', 'load', 'subsets']

_FILES = {'folder': _folder, 'csv': _csv}
DataDir = str | os.PathLike | None  # None is TFDS's own: TFDS_DATA_DIR or ~/tensorflow_datasets


def info(name: str, data_dir: DataDir = None, shift: str = 'none') -> Info:
  """Classes (of the shifted labels) and counts, without reading data; importing TFDS for its own only.

  Raises:
    ValueError: an unknown name or shift, or a data set that cannot be used; the message says why.
  """
  kind, rest = _parse(name)
  if kind == 'package':
    module = plug('datasets', rest)
    found = Info(module.CLASS_NAMES, dict(module.NUM_EXAMPLES))
  elif kind in _FILES:
    found = _FILES[kind].describe(rest)
  else:
    from tlx.datasets import _tfds
    rest, splits = _vtab.splits(rest) if kind == 'vtab1k' else (rest, None)
    found = _tfds.describe(_tfds.tfds_builder(rest, data_dir, prepare=False), splits)
  return found._replace(class_names=_shifts.class_names(shift, found.class_names))


def check(image_size: int, channels: int, interpolation: str = 'bicubic', fit: str = 'squeeze', crop: float = 1.0) -> None:
  """Raises ValueError where `load` would not take these arguments, without reading data."""
  _images.check(Form(image_size, channels, interpolation, fit, crop))


def load(name: str, image_size: int, channels: int, shift: str = 'none', val_fraction: float = 0.2,
         test_fraction: float = 0.3, data_dir: DataDir = None, max_bytes: int = 4 * 2**30, interpolation: str = 'bicubic',
         fit: str = 'squeeze', crop: float = 1.0) -> Dataset:
  """The data set as uint8 images of `image_size` x `image_size` x `channels`, the same bytes at every call.

  How an image becomes square, `scaled` being image_size / crop rounded down:
    fit 'squeeze': all of it is resized to scaled x scaled, whose centre is taken (crop 1.0: all of it)
    fit 'crop': its shorter side is resized to `scaled`, then the centre is taken, as timm and torchvision evaluate
    fit 'pad': its longer side is resized to image_size, and it stands in the middle of black, as face-api does it
  Interpolation is nearest, bilinear, bicubic or lanczos; all but nearest are antialiased.

  Published splits are kept. Where there is none, test is taken from the whole (`test_fraction`) and val from train
  (`val_fraction`), of each class alike and by hash of the ids. The shift comes last and applies to every split.

  Raises:
    ValueError: an unknown name or shift, what `check` does not take, unusable or damaged data, a class too small to divide, or
      arrays of more than `max_bytes`.
  """
  form = Form(image_size, channels, interpolation, fit, crop)
  _images.check(form)
  _shifts.check(shift)
  names, published = _published(name, data_dir)
  names = _shifts.class_names(shift, names)
  _check_ids(name, published)
  _images.check_memory(published, form, max_bytes)
  of_inputs, of_labels = _shifts.SHIFTS[shift]
  splits = {}
  for split, examples in _splits.complete(published, val_fraction, test_fraction).items():
    decoded = _images.decode_all(examples, form, of_inputs)
    splits[split] = decoded._replace(labels=of_labels(decoded.labels))
  train, val, test = splits['train'], splits['val'], splits['test']
  return Dataset(train, val, test, names, _sha256(train, val, test))


def _parse(name: str) -> tuple[str, str]:
  """(kind of data set, its name within that kind)."""
  kind, colon, rest = name.partition(':')
  if colon and kind in ('tfds', 'vtab1k', *_FILES):
    return kind, rest
  names = available('datasets')
  if name in names:
    return 'package', name
  from tlx.datasets import _tfds  # only here: TFDS takes 0.6 s to import
  if re.split('[/:]', name)[0] in _tfds.known_names():
    return 'tfds', name
  raise ValueError(f'Unknown data set {name!r}; have {", ".join(names)}, tfds:NAME, vtab1k:TASK, folder:PATH and csv:FILE.'
                   f'{closest(name, (*names, *_tfds.known_names()))}')


def _published(name: str, data_dir: DataDir):
  """(class names, {split: examples yet to be decoded})."""
  kind, rest = _parse(name)
  if kind in _FILES:
    return _FILES[kind].published(rest)
  from tlx.datasets import _tfds
  rest, splits = _vtab.splits(rest) if kind == 'vtab1k' else (rest, None)
  builder = _tfds.package_builder(rest, data_dir) if kind == 'package' else _tfds.tfds_builder(rest, data_dir, prepare=True)
  return _tfds.published(builder, splits)


def _check_ids(name: str, splits: dict[str, Examples]) -> None:
  ids = [i for split in splits.values() for i in split.ids]
  if len(set(ids)) < len(ids):
    raise ValueError(f'{name} has {len(ids) - len(set(ids))} examples whose id another has too; ids decide splits. '
                     'Write the data out as folder:PATH.')


def _sha256(*splits: Split) -> str:
  digest = hashlib.sha256()
  for inputs, labels, ids in splits:
    digest.update(f'{inputs.shape} {inputs.dtype} {labels.dtype}\n'.encode())
    digest.update(inputs.data)  # not tobytes(), which copies
    digest.update(labels.tobytes())
    digest.update('\n'.join(ids).encode())
  return digest.hexdigest()
