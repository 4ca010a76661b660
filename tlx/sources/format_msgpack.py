"""flax msgpack (`flax.serialization.to_bytes`, flax_model.msgpack): decoded by msgpack alone."""

from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

from tlx.sources._budget import Budget
from tlx.sources._names import flatten

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # flax.serialization._MsgpackExtType
_CHUNKED = '__msgpack_chunked_array__'
_KINDS = 'biufc'  # bool, integers, floats, complex: no objects, no structures


def matches(path: Path) -> bool:
  return path.suffix == '.msgpack'


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({'params/Dense_0/kernel': array}, {}); leaves that are no arrays are passed over."""
  budget = Budget.of(path)
  tree = msgpack.unpackb(path.read_bytes(), ext_hook=_extension, strict_map_key=False)
  leaves = flatten(_unchunk(tree), budget)
  arrays = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
  if not arrays:
    raise ValueError('it holds no arrays')
  return arrays, {}


def _extension(code: int, data: bytes) -> Any:
  if code == _COMPLEX:
    return complex(*msgpack.unpackb(data))
  if code not in (_ARRAY, _SCALAR):
    raise ValueError(f'msgpack extension {code} is none of flax')
  shape, name, buffer = msgpack.unpackb(data, raw=True)
  dtype = np.dtype(ml_dtypes.bfloat16 if name == b'bfloat16' else name.decode())
  if dtype.kind not in _KINDS and dtype != ml_dtypes.bfloat16:
    raise ValueError(f'an array of dtype {dtype}')
  return np.frombuffer(buffer, dtype).reshape(shape)


def _unchunk(tree: Any, depth: int = 0) -> Any:
  """Arrays of more than 1 GiB: {_CHUNKED: True, 'shape': {'0': 3}, 'chunks': {'0': array}}."""
  if not isinstance(tree, dict) or depth > 32:
    return tree
  if _CHUNKED not in tree:
    return {key: _unchunk(child, depth + 1) for key, child in tree.items()}
  return np.concatenate(_in_order(tree['chunks'])).reshape(_in_order(tree['shape']))


def _in_order(part: dict[str, Any]) -> list:
  return [part[str(i)] for i in range(len(part))]
