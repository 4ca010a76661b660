"""The types of this room. No jax and no TFDS in here: a dry run asks for classes before anything heavy is imported."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.webp')  # of image files


class Split(NamedTuple):
  """Decoded examples: inputs uint8 [N, H, W, C], labels int32 [N], ids unique within a data set ('train/0007')."""
  inputs: np.ndarray
  labels: np.ndarray
  ids: tuple[str, ...]


class Dataset(NamedTuple):
  """Three disjoint splits; `sha256` covers their inputs, labels and ids."""
  train: Split
  val: Split
  test: Split
  class_names: tuple[str, ...]
  sha256: str


class Info(NamedTuple):
  """Known without reading data. `num_examples` counts the splits as published, before a missing one is made; {} if unknown."""
  class_names: tuple[str, ...]
  num_examples: dict[str, int]


class Examples(NamedTuple):
  """A split yet to be decoded: ids, labels int32 [N], and `read([0, 5])`, the image files of its first and sixth example.

  An image file is given as its bytes or as the path to it.
  """
  ids: tuple[str, ...]
  labels: np.ndarray
  read: Callable[[Sequence[int]], list[bytes | epath.Path]]


class Form(NamedTuple):
  """What an image is made into; the fields are explained at `datasets.load`."""
  image_size: int
  channels: int
  interpolation: str
  fit: str
  crop: float
