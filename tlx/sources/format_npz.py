"""NumPy archives (.npz), such as the weights of big_vision, ViT and BiT; names as in the file."""

import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from tlx.sources._budget import Budget


def matches(path: Path) -> bool:
  return path.suffix == '.npz'


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({name: array}, {}). Arrays of 2-byte voids are bfloat16, as in big_vision/utils.py.

  Raises:
    ValueError: an array holds Python objects (a pickle), or a header promises other data than its
      member has.
  """
  arrays, budget = {}, Budget.of(path)
  with zipfile.ZipFile(path) as archive:
    for info in budget.members(archive).values():
      with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = (
          np.lib.format.read_array_header_1_0
          if version == (1, 0)
          else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(stream)
        wanted = budget.array(info.filename, shape, dtype.itemsize)
        if dtype.hasobject or stream.tell() + wanted != info.file_size:
          raise ValueError(
            f'{info.filename}: {dtype} {shape} '
            + (
              'holds Python objects; refused'
              if dtype.hasobject
              else f'needs {wanted} bytes, the member has another size'
            )
          )
      with archive.open(info) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
      arrays[info.filename.removesuffix('.npy')] = (
        array.view(ml_dtypes.bfloat16) if array.dtype == 'V2' else array
      )
  return arrays, {}
