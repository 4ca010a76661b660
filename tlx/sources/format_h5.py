"""Keras weights in HDF5 (.h5 .hdf5), through h5py (extra `h5`)."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tlx.sources._budget import Budget
from tlx.sources._files import need

_STEPS_A_LINK = 20  # following one takes about as long as 20 nodes of a tree
_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000  # filters of HDF5 and h5py


def matches(path: Path) -> bool:
  return path.suffix in ('.h5', '.hdf5')


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({'conv1/conv1/kernel:0': array}, {}): every dataset under its path in the file.

  Raises:
    ValueError: the file points to other files (external links or storage, virtual datasets), or a
      dataset is no numbers or claims more bytes than the file can hold.
  """
  h5py, budget = need('h5py', 'h5'), Budget.of(path)
  arrays: dict[str, np.ndarray] = {}

  def walk(group: Any, prefix: str, depth: int):
    for key in group:
      name, link = prefix + key, group.get(key, getlink=True)
      budget.step(name, _STEPS_A_LINK, depth)
      if not isinstance(link, h5py.HardLink):
        raise ValueError(f'{name} is a link to elsewhere; refused')
      item = group[key]
      if isinstance(item, h5py.Group):
        walk(item, f'{name}/', depth + 1)
      else:
        arrays[name] = _dataset(name, item, budget)

  with h5py.File(path, 'r') as file:
    walk(file, '', 0)
  return arrays, {}


def _dataset(name: str, item: Any, budget: Budget) -> np.ndarray:
  if item.external or item.is_virtual:
    raise ValueError(f'{name} lies in another file; refused')
  if item.dtype.kind not in 'biuf' or (item.size and not item.id.get_storage_size()):
    raise ValueError(
      f'{name}: {item.dtype} {item.shape} is no array of numbers that this file can hold'
    )
  budget.array(name, item.shape, item.dtype.itemsize)
  if item.chunks:
    _chunks(name, item, budget)
  return np.asarray(item[()])


def _chunks(name: str, item: Any, budget: Budget) -> None:
  """Raises ValueError where a chunk holds more than its shape says: HDF5 would unpack all of it."""
  filters = item.id.get_create_plist()
  kinds = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
  if len(set(kinds)) != len(kinds) or not set(kinds) <= {_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF}:
    raise ValueError(
      f'{name} passed through the filters {kinds}; wanted deflate, LZF, shuffle and checksums, '
      'each once'
    )
  wanted = int(np.prod(item.chunks, dtype=object)) * item.dtype.itemsize
  budget.take(wanted, f'a chunk {item.chunks} of {name}')
  for i in range(item.id.get_num_chunks() if kinds else 0):
    budget.step(name, _STEPS_A_LINK)
    chunk = item.id.get_chunk_info(i)
    budget.take(chunk.size, f'a chunk of {name} as it is stored')
    if _DEFLATE not in kinds:
      continue
    mask, raw = item.id.read_direct_chunk(chunk.chunk_offset)
    skipped = bool(mask >> kinds.index(_DEFLATE) & 1)
    most = wanted + 4  # with a checksum
    if not skipped and len(zlib.decompressobj().decompress(raw, most + 1)) > most:
      raise ValueError(f'{name}: a chunk unpacks to more than its {wanted} bytes; refused')
