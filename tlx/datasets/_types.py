"""The types of this room. No jax and no TFDS in here: a dry run asks for classes before anything
heavy is imported.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

# Of image files. The second kind are images too, which Pillow cannot read or of which it reads the
# thumbnail alone.
SUFFIXES = (
  '.jpg',
  '.png',
  '.jpeg',
  '.jfif',
  '.jpe',
  '.webp',
  '.bmp',
  '.gif',
  '.tif',
  '.tiff',
  '.avif',
  '.jp2',
  '.pgm',
  '.ppm',
  '.pbm',
  '.pnm',
)
HEIF = ('.heic', '.heif')  # read where pillow-heif is installed
PDF = '.pdf'  # its first page is read where pypdfium2 is installed
UNREADABLE = (
  *HEIF,
  PDF,
  '.jxl',
  '.svg',
  '.dng',
  '.cr2',
  '.cr3',
  '.nef',
  '.arw',
  '.orf',
  '.raf',
  '.rw2',
)

# The names that a part may have in a folder or a table, whatever the case; FER-2013 has a public
# and a private test.
SPLITS = {
  'train': 'train',
  'training': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'dev': 'val',
  'publictest': 'val',
  'test': 'test',
  'testing': 'test',
  'privatetest': 'test',
}
MOST_NAMED = 100  # of the things that an error lists, a line each


class Rows:
  """Some rows of what is larger than memory, read where they are when they are taken."""

  def __init__(self, inputs: Any, rows: np.ndarray):
    self.inputs, self.rows = inputs, rows
    self.shape, self.dtype = (len(rows), *inputs.shape[1:]), inputs.dtype

  def __len__(self) -> int:
    return len(self.rows)

  def take(self, rows: np.ndarray) -> Any:
    """Arrays [len(rows), ...] of the host."""
    rows = self.rows[rows]
    return self.inputs[rows] if isinstance(self.inputs, np.ndarray) else self.inputs.take(rows)

  def sha256(self) -> str:
    """A digest of them, which is known without reading them where that of all is; else ''."""
    return self.inputs.sha256(self.rows) if hasattr(self.inputs, 'sha256') else ''


def rows_of(inputs: Any, rows: np.ndarray) -> Any:
  """The rows of an array in memory, or where they are of anything else."""
  if isinstance(inputs, Rows):
    return Rows(inputs.inputs, inputs.rows[rows])
  in_memory = isinstance(inputs, np.ndarray) and not isinstance(inputs, np.memmap)
  return inputs[rows] if in_memory else Rows(inputs, np.asarray(rows))


class Split(NamedTuple):
  """Examples: inputs, labels int32 [N], ids unique within a data set ('train/0007').

  inputs: of images uint8 [N, H, W, C]; of texts an array [N] of str, or of pairs of str, or a dict
    of arrays of their tokens (tlx/inputs). Such arrays may be larger than memory: memory-mapped, or
    what has a length, shape and dtype and gives arrays for `take(rows)`.
  digests: uint64 [N], equal for images that are the same byte for byte before the shift, and for
    texts that are the same but for case and spaces; [N, M] where an example is of up to M texts.
  groups: the group of each example ('subject_12'), or () where the data set has none.
  values: float32 [N] or [N, K], what a task is asked for where that is no class (_values.py), or
    a dict of arrays [N, ...] of the boxes of images. Labels are then 0: there is nothing that
    subsets and held-out parts balance over.
  """

  inputs: Any
  labels: np.ndarray
  ids: tuple[str, ...]
  digests: np.ndarray
  groups: tuple[str, ...] = ()
  values: Any = None

  @property
  def targets(self) -> Any:
    """What a task is asked for: values where there are some, else labels."""
    return self.labels if self.values is None else self.values

  def take(self, rows: np.ndarray) -> 'Split':
    """Some of the examples, in the order of `rows`; what is larger than memory is not read."""
    groups = tuple(self.groups[row] for row in rows) if self.groups else ()
    ids = tuple(self.ids[row] for row in rows)
    inputs = self.inputs
    if isinstance(inputs, dict):
      inputs = {name: rows_of(leaf, rows) for name, leaf in inputs.items()}
    else:
      inputs = rows_of(inputs, rows)
    values = self.values
    if isinstance(values, dict):
      values = {name: leaf[rows] for name, leaf in values.items()}
    elif values is not None:
      values = values[rows]
    return Split(inputs, self.labels[rows], ids, self.digests[rows], groups, values)


def noun(split: Split) -> str:
  """What its examples are called: 'images' or 'texts'."""
  stored = isinstance(split.inputs, dict)
  of_str = getattr(split.inputs, 'dtype', None) == np.dtype(object)
  return 'texts' if stored or of_str else 'images'


class Dataset(NamedTuple):
  """Three disjoint splits; `sha256` covers their inputs, labels and ids.

  notes: what whoever reads the numbers should know of the data, a sentence each.
  """

  train: Split
  val: Split
  test: Split
  class_names: tuple[str, ...]
  sha256: str
  notes: tuple[str, ...] = ()


class Info(NamedTuple):
  """Known without reading data. `num_examples` counts the splits as published, before a missing one
  is made; {} if unknown, as of running text, whose rows depend on the tokenizer.
  """

  class_names: tuple[str, ...]
  num_examples: dict[str, int]


class Examples(NamedTuple):
  """A split yet to be decoded: ids, labels int32 [N], and `read([0, 5])`, the image files or texts
  of its first and sixth example.

  An image file is given as its bytes, as the path to it, or as the error why there is none.
  `groups` and `values` are as in `Split`.
  """

  ids: tuple[str, ...]
  labels: np.ndarray
  read: Callable[[Sequence[int]], Sequence[Any]]
  groups: tuple[str, ...] = ()
  values: Any = None

  def take(self, rows: np.ndarray) -> 'Examples':
    """Some of the examples, in the order of `rows`."""
    groups = tuple(self.groups[row] for row in rows) if self.groups else ()
    ids = tuple(self.ids[row] for row in rows)
    values = None if self.values is None else self.values[rows]
    return Examples(
      ids, self.labels[rows], lambda some: self.read([int(rows[i]) for i in some]), groups, values
    )


class Looked(NamedTuple):
  """What decoding all images of a data set finds: the digests of each part as in `Split`, {id: what
  is wrong with it}, and the digest of the set.
  """

  digests: dict[str, np.ndarray]
  bad: dict[str, str]
  sha256: str


class Published(NamedTuple):
  """A data set as it is published; the only split is 'all' where it is not divided."""

  class_names: tuple[str, ...]
  splits: dict[str, Examples]
  notes: tuple[str, ...] = ()


class Form(NamedTuple):
  """What an image is made into; the fields are explained at `datasets.load`."""

  image_size: int
  channels: int
  interpolation: str
  fit: str
  crop: float


def is_file(path: epath.Path) -> bool:
  """Whether there is a file to read; on this machine's disks a pipe is none, which `epath` would
  wait for.
  """
  return path.is_file() if '://' in os.fspath(path) else os.path.isfile(path)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
  """The names of classes sorted: as numbers where all are, else with the whole numbers within them
  as numbers.

  >>> in_order(['10', '-1', '2.5']), in_order(['class10', 'class9', 'Class11'])
  (('-1', '2.5', '10'), ('Class11', 'class9', 'class10'))
  """
  names = set(names)
  if all(re.fullmatch(r'-?[0-9]+(\.[0-9]+)?', name) for name in names):
    return tuple(sorted(names, key=lambda name: (float(name), name)))
  return tuple(sorted(names, key=_natural))


def _natural(name: str) -> tuple[list[str | int], str]:
  """Text and numbers by turns, so that '9' comes before '10'; equal ones by their letters."""
  parts = re.split('([0-9]+)', name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def listing(names: Sequence[str], most: int = 5) -> str:
  """'a, b, c and 7 more'."""
  return ', '.join(names[:most]) + (f' and {len(names) - most:,} more' if len(names) > most else '')
