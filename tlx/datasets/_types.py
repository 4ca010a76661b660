"""The types of this room. No jax and no TFDS in here: a dry run asks for classes before anything heavy is imported."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath


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


class Example(NamedTuple):
  """One image as published: the bytes of its file, or the path to it."""
  id: str
  label: int
  image: bytes | epath.Path


class Examples(NamedTuple):
  """A published split that is read piece by piece: `read([0, 5])` gives its first and sixth example."""
  num_examples: int
  read: Callable[[Sequence[int]], list[Example]]
