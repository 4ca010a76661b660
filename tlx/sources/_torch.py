"""PyTorch's pickled tensors as records (storage, offset, shape, strides) and as views of bytes.

The functions that a checkpoint names are those of torch/_utils.py (`_rebuild_*`); none is imported
or called.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tlx.sources import _pickle
from tlx.sources._budget import Budget

_DTYPES: dict[str, Any] = {
  'float16': np.dtype('float16'),
  'float32': np.dtype('float32'),
  'float64': np.dtype('float64'),
  'int8': np.dtype('int8'),
  'int16': np.dtype('int16'),
  'int32': np.dtype('int32'),
  'int64': np.dtype('int64'),
  'uint8': np.dtype('uint8'),
  'uint16': np.dtype('uint16'),
  'uint32': np.dtype('uint32'),
  'uint64': np.dtype('uint64'),
  'bool': np.dtype('bool'),
  'complex64': np.dtype('complex64'),
  'complex128': np.dtype('complex128'),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float8_e4m3fn': np.dtype(ml_dtypes.float8_e4m3fn),
  'float8_e5m2': np.dtype(ml_dtypes.float8_e5m2),
}
_STORAGES = {
  'torch.storage.UntypedStorage': _DTYPES['uint8'],
  'torch.FloatStorage': _DTYPES['float32'],
  'torch.DoubleStorage': _DTYPES['float64'],
  'torch.HalfStorage': _DTYPES['float16'],
  'torch.BFloat16Storage': _DTYPES['bfloat16'],
  'torch.LongStorage': _DTYPES['int64'],
  'torch.IntStorage': _DTYPES['int32'],
  'torch.ShortStorage': _DTYPES['int16'],
  'torch.CharStorage': _DTYPES['int8'],
  'torch.ByteStorage': _DTYPES['uint8'],
  'torch.BoolStorage': _DTYPES['bool'],
  'torch.ComplexFloatStorage': _DTYPES['complex64'],
  'torch.ComplexDoubleStorage': _DTYPES['complex128'],
}
_REBUILD = 'torch._utils._rebuild_'
_TENSORS = {
  'collections.OrderedDict',
  'torch.Size',
  'torch.device',
  *_STORAGES,
  *(f'torch.{name}' for name in _DTYPES),
  _REBUILD + 'tensor',
  _REBUILD + 'tensor_v2',
  _REBUILD + 'tensor_v3',
  _REBUILD + 'parameter',
  _REBUILD + 'parameter_with_state',
}
# Classes that settings beside the tensors have. Nothing else of these libraries is data: it is how
# a file runs code.
_CODE = sys.stdlib_module_names | {'__builtin__', 'copy_reg', 'numpy', 'torch'}
_BUILTINS = (
  'object',
  'type',
  'bool',
  'int',
  'long',
  'float',
  'complex',
  'str',
  'unicode',
  'bytes',
  'bytearray',
  'tuple',
  'list',
  'dict',
  'set',
  'frozenset',
  'range',
  'slice',
)
_OBJECTS = (
  'copyreg._reconstructor',
  'copyreg.__newobj__',
  'copy_reg._reconstructor',
  'copy_reg.__newobj__',
)
_PATHS = ('Path', 'PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath')
_SETTINGS = {
  *(f'builtins.{name}' for name in _BUILTINS),
  *(f'__builtin__.{name}' for name in _BUILTINS),
  *_OBJECTS,
  *(f'collections.{name}' for name in ('defaultdict', 'Counter', 'deque', 'ChainMap')),
  *(f'datetime.{name}' for name in ('date', 'datetime', 'time', 'timedelta', 'timezone')),
  *(f'pathlib.{name}' for name in _PATHS),
  *(f'pathlib._local.{name}' for name in _PATHS),
  *(f'typing.{name}' for name in ('Any', 'Optional', 'Union', 'List', 'Dict', 'Tuple')),
  'argparse.Namespace',
  'types.SimpleNamespace',
  '_codecs.encode',
  'decimal.Decimal',
  'fractions.Fraction',
  'uuid.UUID',
  'functools.partial',
  'numpy.dtype',
  'numpy.ndarray',
  *(f'numpy.{name}' for name in np.sctypeDict if isinstance(name, str)),
  'numpy.core.multiarray.scalar',
  'numpy.core.multiarray._reconstruct',
  'numpy.core.numeric._frombuffer',
  'numpy._core.multiarray.scalar',
  'numpy._core.multiarray._reconstruct',
  'numpy._core.numeric._frombuffer',
  'torch.torch_version.TorchVersion',
}
_SETTINGS_IN = (
  'torch.nn.modules.',
  'torch.nn.functional.',
  'torch.optim.',
  'numpy.random._pickle.',
  'numpy.dtypes.',
)


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


def unpickle(stream: Any, id_size: int, budget: Budget) -> tuple[Any, dict[str, Storage]]:
  """(the object of a checkpoint with `Tensor` for its tensors, the storages that they use).

  Settings beside the tensors (a Namespace, a dataclass, numpy's numbers) are `_pickle.Record`s; no
  class is imported.

  Args:
    id_size: fields of a storage's id: 5 in zip archives, 6 in legacy files.

  Raises:
    ValueError: it wants to run code, or as `_pickle.loads`.
  """
  storages: dict[str, Storage] = {}

  def persistent(found: Any) -> Storage:
    match found:
      case ('storage', _pickle.Global(name), str(key), str(), int(size), *view):
        if len(found) == id_size and not any(view) and name in _STORAGES and size >= 0:
          storage = Storage(key, _STORAGES[name], size)
          if storages.setdefault(key, storage) == storage:
            return storage
    raise ValueError(
      "a storage's id is not ('storage', type, key, place, size), or it has two types"
    )

  def call(name: str, arguments: tuple) -> Any:
    return _call(name, arguments, budget)

  return _pickle.loads(stream, _allows, call, persistent), storages


def _allows(name: str) -> bool:
  """Whether a pickle may name this: a part of a tensor, a class of settings, or a project's own.

  None is imported. To refuse the others only tells the reader what kind of file this is.
  """
  if name in _TENSORS or name in _SETTINGS:
    return True
  if name.startswith(_SETTINGS_IN):
    return name.count('.') <= 4
  return name.split('.')[0] not in _CODE


def _call(name: str, arguments: tuple, budget: Budget) -> Any:
  match name.removeprefix(_REBUILD), arguments:
    case 'collections.OrderedDict', ():
      return {}
    case 'collections.OrderedDict', [list(pairs)]:
      budget.step('an OrderedDict', len(pairs))
      return {_pickle.key(key): value for key, value in pairs}
    case 'torch.Size', [tuple(sizes)]:
      return sizes
    case 'torch.device', _:
      return None
    case 'parameter' | 'parameter_with_state', [Tensor() as tensor, *_]:
      return tensor
    case (
      'tensor' | 'tensor_v2',
      [Storage() as storage, offset, tuple(shape), tuple(strides), *rest],
    ) if not any(rest[2:]):
      return Tensor(storage, offset, shape, strides, storage.dtype)
    case (
      'tensor_v3',
      [
        Storage() as storage,
        offset,
        tuple(shape),
        tuple(strides),
        _,
        _,
        _pickle.Global(dtype),
        *rest,
      ],
    ) if dtype.removeprefix('torch.') in _DTYPES and not any(rest):
      return Tensor(storage, offset, shape, strides, _DTYPES[dtype.removeprefix('torch.')])
    case maker, [_pickle.Global(kind), *_] if maker in _OBJECTS:
      return _pickle.Record(kind)
  if name in _TENSORS:
    raise ValueError(f'the pickle calls {name} with arguments that no tensor has')
  return _pickle.Record(name)


def array(name: str, tensor: Tensor, buffers: Mapping[str, bytes], budget: Budget) -> np.ndarray:
  """The read-only view that a tensor is of its storage, which stays shared; stride 0 costs nothing.

  Raises:
    ValueError: the storage is not as long as it says, or the tensor reaches outside it or repeats
      it beyond the budget.
  """
  storage, buffer = tensor.storage, buffers[tensor.storage.key]
  if len(buffer) != storage.size * storage.dtype.itemsize:
    raise ValueError(
      f'{name}: its storage has {len(buffer)} bytes, wanted {storage.size} x {storage.dtype}'
    )
  budget.array(name, tensor.shape, tensor.dtype.itemsize)
  steps = (tensor.offset, *tensor.strides)
  whole = all(type(n) is int and 0 <= n < 1 << 63 for n in steps)
  if len(tensor.shape) != len(tensor.strides) or not whole:
    raise ValueError(f'{name}: its strides and offset are not such as a shape {tensor.shape} has')
  if 0 in tensor.shape:
    return np.empty(tensor.shape, tensor.dtype)
  last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides))
  itemsize = tensor.dtype.itemsize
  if (last + 1) * itemsize > len(buffer):
    raise ValueError(
      f'{name}: shape {tensor.shape}, strides {tensor.strides}, offset {tensor.offset} lead '
      'outside its storage'
    )
  return np.ndarray(
    tensor.shape,
    tensor.dtype,
    buffer,
    tensor.offset * itemsize,
    [n * itemsize for n in tensor.strides],
  )
