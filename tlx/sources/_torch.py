"""PyTorch's pickled tensors as records of (storage, offset, shape, strides), and as views of the storages' bytes.

The functions that a checkpoint names are those of torch/_utils.py (`_rebuild_*`); none is imported or called.
"""
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tlx.sources import _pickle

_DTYPES: dict[str, Any] = {
    **{name: np.dtype(name) for name in (
        'float16', 'float32', 'float64', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'bool',
        'complex64', 'complex128')},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in ('bfloat16', 'float8_e4m3fn', 'float8_e5m2')}}
_STORAGES = {
    'torch.storage.UntypedStorage': _DTYPES['uint8'],
    **{f'torch.{kind}Storage': _DTYPES[name] for kind, name in {
        'Float': 'float32', 'Double': 'float64', 'Half': 'float16', 'BFloat16': 'bfloat16', 'Long': 'int64', 'Int': 'int32',
        'Short': 'int16', 'Char': 'int8', 'Byte': 'uint8', 'Bool': 'bool', 'ComplexFloat': 'complex64',
        'ComplexDouble': 'complex128'}.items()}}
_MOST_REPEATED = 1 << 28  # elements of a tensor that is larger than its storage (by strides of 0)
_REBUILD = 'torch._utils._rebuild_'
_ALLOWED = {'collections.OrderedDict', 'torch.Size', 'torch.device', *_STORAGES, *(f'torch.{name}' for name in _DTYPES), *(
    _REBUILD + kind for kind in ('tensor', 'tensor_v2', 'tensor_v3', 'parameter', 'parameter_with_state'))}


class Storage(NamedTuple):
  key: str
  dtype: np.dtype
  size: int  # elements


class Tensor(NamedTuple):
  storage: Storage
  offset: int  # elements, as the strides
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  dtype: np.dtype


def unpickle(stream: Any, id_size: int) -> tuple[Any, dict[str, Storage]]:
  """(the object of a checkpoint with `Tensor` for its tensors, the storages that they use).

  Args:
    id_size: fields of a storage's id: 5 in zip archives, 6 in legacy files.

  Raises:
    ValueError: it needs anything but tensors, containers, strings and numbers; or as `_pickle.loads`.
  """
  storages: dict[str, Storage] = {}

  def persistent(found: Any) -> Storage:
    match found:
      case ('storage', _pickle.Global(name), str(key), str(), int(size), *view) if len(found) == id_size and not any(view):
        if name in _STORAGES and size >= 0:
          storage = Storage(key, _STORAGES[name], size)
          if storages.setdefault(key, storage) == storage:
            return storage
    raise ValueError(f"a storage's id is {str(found)[:200]}: not ('storage', type, key, place, size), or it has two types")

  return _pickle.loads(stream, _ALLOWED, _call, persistent), storages


def _call(name: str, arguments: tuple) -> Any:
  match name.removeprefix(_REBUILD), arguments:
    case 'collections.OrderedDict', ():
      return {}
    case 'collections.OrderedDict', [list(pairs)]:
      return dict(pairs)
    case 'torch.Size', [tuple(sizes)]:
      return sizes
    case 'torch.device', _:
      return None
    case 'parameter' | 'parameter_with_state', [Tensor() as tensor, *_]:
      return tensor
    case 'tensor' | 'tensor_v2', [Storage() as storage, offset, tuple(shape), tuple(strides), *rest] if not any(rest[2:]):
      return Tensor(storage, offset, shape, strides, storage.dtype)
    case 'tensor_v3', [Storage() as storage, offset, tuple(shape), tuple(strides), _, _, _pickle.Global(dtype), *rest] if (
        dtype.removeprefix('torch.') in _DTYPES and not any(rest)):
      return Tensor(storage, offset, shape, strides, _DTYPES[dtype.removeprefix('torch.')])
  raise ValueError(f'the pickle calls {name} with arguments that no tensor has: {str(arguments)[:200]}')


def array(name: str, tensor: Tensor, buffers: Mapping[str, bytes]) -> np.ndarray:
  """The read-only view that a tensor is of its storage; shared storages stay shared, and stride 0 costs nothing.

  Raises:
    ValueError: the storage is not as long as it says, or the tensor reaches outside it.
  """
  storage, buffer = tensor.storage, buffers[tensor.storage.key]
  if len(buffer) != storage.size * storage.dtype.itemsize:
    raise ValueError(f'{name}: its storage has {len(buffer)} bytes, wanted {storage.size} x {storage.dtype}')
  numbers = (tensor.offset, *tensor.shape, *tensor.strides)
  if len(tensor.shape) != len(tensor.strides) or not all(type(n) is int and n >= 0 for n in numbers):
    raise ValueError(f'{name}: shape {tensor.shape}, strides {tensor.strides}, offset {tensor.offset}')
  if 0 in tensor.shape:
    return np.empty(tensor.shape, tensor.dtype)
  last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides))
  itemsize = tensor.dtype.itemsize
  if (last + 1) * itemsize > len(buffer):
    raise ValueError(f'{name}: shape {tensor.shape}, strides {tensor.strides}, offset {tensor.offset} lead outside its storage')
  if (size := math.prod(tensor.shape)) > max(storage.size, _MOST_REPEATED):
    raise ValueError(f'{name}: shape {tensor.shape} repeats a storage of {storage.size} elements {size // storage.size} times; refused')
  return np.ndarray(tensor.shape, tensor.dtype, buffer, tensor.offset * itemsize, [n * itemsize for n in tensor.strides])
