"""TensorFlow.js: a weights manifest (or model.json) and its shards, quantised ones too.

Format and dequantisation as in tfjs-core/src/io/io_utils.ts (`decodeWeights`): value * scale + min
in double precision, rounded to float32; int32 tensors to the nearest integer; float16 is widened.
"""

from pathlib import Path

import numpy as np

from tlx.sources._budget import Budget
from tlx.sources._files import normal, read_json

_DTYPES = ('float32', 'int32', 'bool', 'uint8', 'complex64')
_QUANTISED = ('uint8', 'uint16', 'float16')


def matches(path: Path) -> bool:
  return path.name.endswith('manifest.json') or path.name == 'model.json'


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({name: array}, {}).

  Raises:
    ValueError: the shards of a group hold more or fewer bytes than its tensors, or a dtype that
      holds no numbers.
  """
  budget, index = Budget.of(path), read_json(path)
  arrays: dict[str, np.ndarray] = {}
  seen: set[str] = set()
  for group in index['weightsManifest'] if isinstance(index, dict) else index:
    names = [normal(name) for name in group['paths']]
    if len(names) != len(set(names)) or seen & set(names):
      raise ValueError('it names a shard more than once')
    seen.update(names)
    data, start = b''.join((path.parent / name).read_bytes() for name in names), 0
    for entry in group['weights']:
      dtype = np.dtype(entry.get('quantization', entry)['dtype'])
      shape = [int(n) for n in entry['shape']]
      budget.step(entry['name'])
      size = budget.array(entry['name'], shape, 8) // 8  # quantised ones pass through float64
      quantised = 'quantization' in entry
      if entry['dtype'] not in _DTYPES or (quantised and dtype.name not in _QUANTISED):
        raise ValueError(f'{entry["name"]} has dtype {entry["dtype"]} stored as {dtype}')
      if entry['name'] in arrays or start + size * dtype.itemsize > len(data):
        raise ValueError(
          f'{entry["name"]} {shape} is there twice, or its shards {group["paths"]} end at byte '
          f'{len(data)}'
        )
      values = np.frombuffer(data, dtype, size, start).reshape(shape)
      arrays[entry['name']] = _dequantise(values, entry) if quantised else values
      start += size * dtype.itemsize
    if start != len(data):
      raise ValueError(
        f'the shards {group["paths"]} have {len(data)} bytes, their tensors need {start}'
      )
  return arrays, {}


def _dequantise(values: np.ndarray, entry: dict) -> np.ndarray:
  if values.dtype == np.float16:
    return values.astype(np.float32)
  scale = np.float64(entry['quantization']['scale'])
  exact = values * scale + np.float64(entry['quantization']['min'])
  return (np.floor(exact + 0.5) if entry['dtype'] == 'int32' else exact).astype(entry['dtype'])
