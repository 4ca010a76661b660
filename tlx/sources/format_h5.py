"""Keras weights in HDF5 (.h5 .hdf5), through h5py (extra `h5`)."""
from pathlib import Path

import numpy as np

from tlx.sources._files import need

_MOST_DEFLATED = 1032  # deflate cannot shrink data more than this


def matches(path: Path) -> bool:
  return path.suffix in ('.h5', '.hdf5')


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({'conv1/conv1/kernel:0': array}, {}): every dataset under its path in the file.

  Raises:
    ValueError: the file points to other files (external links or storage, virtual datasets), or a dataset is no numbers
      or claims more bytes than the file can hold.
  """
  h5py, arrays = need('h5py', 'h5'), {}
  limit = _MOST_DEFLATED * path.stat().st_size

  def walk(group, prefix: str, depth: int):
    if depth > 32:
      raise ValueError('groups nest deeper than 32 levels')
    for key in group:
      name, link = prefix + key, group.get(key, getlink=True)
      if not isinstance(link, h5py.HardLink):
        raise ValueError(f'{name} is a link to elsewhere; refused')
      if isinstance(item := group[key], h5py.Group):
        walk(item, f'{name}/', depth + 1)
      else:
        if item.external or item.is_virtual:
          raise ValueError(f'{name} lies in another file; refused')
        if item.dtype.kind not in 'biuf' or item.nbytes > limit or (item.size and not item.id.get_storage_size()):
          raise ValueError(f'{name}: {item.dtype} {item.shape} is no array of numbers that this file can hold')
        arrays[name] = item[()]

  with h5py.File(path, 'r') as file:
    walk(file, '', 0)
  return {name: np.asarray(array) for name, array in arrays.items()}, {}
