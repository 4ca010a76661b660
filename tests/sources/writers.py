"""Writers of every format, and of PyTorch files by hand: pickle opcodes, honest and poisoned,
without torch.
"""

import io
import json
import pickle
import struct
import zipfile
from typing import NamedTuple

import numpy as np
import pytest


class Global(NamedTuple):
  name: str


class Call(NamedTuple):
  function: object
  arguments: object


class Persistent(NamedTuple):
  id: tuple


def pickled(tree):
  """`tree` in pickle protocol 2, as torch writes it."""
  out = io.BytesIO()

  def emit(node):
    match node:
      case None | True | False:
        out.write({None: b'N', True: b'\x88', False: b'\x89'}[node])
      case Global(name):
        out.write(b'c' + b'\n'.join(part.encode() for part in name.rsplit('.', 1)) + b'\n')
      case Call(function, arguments):
        emit(function)
        emit(arguments)
        out.write(b'R')
      case Persistent(identity):
        emit(identity)
        out.write(b'Q')
      case int():
        out.write(b'\x8a\x0a' + node.to_bytes(10, 'little', signed=True))
      case float():
        out.write(b'G' + struct.pack('>d', node))
      case str():
        out.write(b'X' + struct.pack('<I', len(node.encode())) + node.encode())
      case tuple():
        out.write(b'(')
        for item in node:
          emit(item)
        out.write(b't')
      case list():
        out.write(b'](')
        for item in node:
          emit(item)
        out.write(b'e')
      case dict():
        out.write(b'}(')
        for key, item in node.items():
          emit(key)
          emit(item)
        out.write(b'u')
      case bytes():  # opcodes as they are
        out.write(node)

  out.write(b'\x80\x02')
  emit(tree)
  return out.getvalue() + b'.'


_STORAGES = {
  'float32': 'Float',
  'int64': 'Long',
  'float16': 'Half',
  'bfloat16': 'BFloat16',
  'bool': 'Bool',
}


def storage(array, key, fields=5):
  kind = Global(f'torch.{_STORAGES[array.dtype.name]}Storage')
  return Persistent(('storage', kind, key, 'cpu', array.size, None)[:fields])


def tensor(array, key, fields=5):
  strides = tuple(n // array.itemsize for n in array.strides)
  return Call(
    Global('torch._utils._rebuild_tensor_v2'),
    (
      storage(array, key, fields),
      0,
      array.shape,
      strides,
      False,
      Call(Global('collections.OrderedDict'), ()),
    ),
  )


def write_zip(path, tree, buffers, compression=zipfile.ZIP_STORED):
  """A PyTorch archive of a tree with `tensor`s, or of pickle bytes."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('archive/data.pkl', tree if isinstance(tree, bytes) else pickled(tree))
    archive.writestr('archive/byteorder', 'little')
    for key, data in buffers.items():
      archive.writestr(f'archive/data/{key}', data)
    archive.writestr('archive/version', '3\n')
  return path


def write_pth(folder, arrays):
  return write_zip(
    folder / 'model.pth',
    {name: tensor(array, str(i)) for i, (name, array) in enumerate(arrays.items())},
    {str(i): array.tobytes() for i, array in enumerate(arrays.values())},
  )


def write_legacy(folder, arrays):
  tree = {name: tensor(array, str(i), fields=6) for i, (name, array) in enumerate(arrays.items())}
  data = (
    pickled(0x1950A86A20F9469CFC6C)
    + pickled(1001)
    + pickled({'little_endian': True})
    + pickled(tree)
  )
  data += pickled([str(i) for i in range(len(arrays))])
  path = folder / 'legacy.pth'
  path.write_bytes(
    data + b''.join(struct.pack('<q', array.size) + array.tobytes() for array in arrays.values())
  )
  return path


def write_safetensors(folder, arrays):
  from safetensors.numpy import save_file

  save_file(arrays, folder / 'model.safetensors')
  return folder / 'model.safetensors'


def write_sharded(folder, arrays):
  from safetensors.numpy import save_file

  weight_map = {}
  for i, (name, array) in enumerate(arrays.items()):
    weight_map[name] = f'model-{i % 2}.safetensors'
    save_file(
      {name: array for j, (name, array) in enumerate(arrays.items()) if j % 2 == i % 2},
      folder / weight_map[name],
    )
  path = folder / 'model.safetensors.index.json'
  path.write_text(json.dumps({'metadata': {}, 'weight_map': weight_map}))
  return path


def write_npz(folder, arrays):
  np.savez_compressed(folder / 'model.npz', **arrays)
  return folder / 'model.npz'


def write_msgpack(folder, arrays):
  from flax import serialization

  (folder / 'model.msgpack').write_bytes(serialization.to_bytes(arrays))
  return folder / 'model.msgpack'


def write_gguf(folder, arrays):
  gguf = pytest.importorskip(
    'gguf', reason='the package gguf (extra gguf) is not installed: pip install gguf'
  )
  writer = gguf.GGUFWriter(folder / 'model.gguf', 'llama')
  writer.add_block_count(3)
  writer.add_token_list(['a', 'b', '\u0120c'])
  for name, array in arrays.items():
    writer.add_tensor(name, array)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return folder / 'model.gguf'


def write_h5(folder, arrays):
  h5py = pytest.importorskip(
    'h5py', reason='the package h5py (extra h5) is not installed: pip install h5py'
  )
  with h5py.File(folder / 'model.h5', 'w') as file:
    for name, array in arrays.items():
      file.create_dataset(name, data=array, compression='gzip' if array.size > 4 else None)
  return folder / 'model.h5'


def write_tfjs(folder, arrays):
  entries = [
    {'name': name, 'shape': list(array.shape), 'dtype': array.dtype.name}
    for name, array in arrays.items()
  ]
  data = b''.join(array.tobytes() for array in arrays.values())
  (folder / 'shard1').write_bytes(data[:40])
  (folder / 'shard2').write_bytes(data[40:])
  path = folder / 'weights_manifest.json'
  path.write_text(json.dumps([{'weights': entries, 'paths': ['shard1', 'shard2']}]))
  return path


def write_orbax(folder, arrays):
  import orbax.checkpoint as ocp

  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(folder / 'checkpoint', arrays)
  return folder / 'checkpoint'


def write_savedmodel(folder, arrays):
  """A SavedModel's variables as TensorBundle writes them, with a string that is no weight."""
  root = folder / 'saved'
  (root / 'variables').mkdir(parents=True)
  (root / 'saved_model.pb').write_bytes(b'')
  suffix = '/.ATTRIBUTES/VARIABLE_VALUE'
  named = {f'{name}{suffix}': array for name, array in arrays.items()}
  write_bundle(root / 'variables' / 'variables', named)
  return root


def write_bundle(prefix, arrays, header=b'\x08\x01\x1a\x02\x08\x01', more=()):
  """A checkpoint of one shard: PREFIX.index, entries of 16 a restart, and the raw bytes."""
  types = {'float32': 1, 'int32': 3, 'bool': 10, 'bfloat16': 14}
  entries, data = [(b'', header), *more], b''
  for name, array in sorted(arrays.items()):
    raw = array.tobytes()
    sides = b''.join(_bytes(2, _number(1, side)) for side in array.shape)
    fields = _number(1, types[array.dtype.name]) + _bytes(2, sides)
    fields += _number(4, len(data)) + _number(5, len(raw))
    entries.append((name.encode(), fields + b'\x35' + struct.pack('<I', masked(raw))))
    data += raw
  block = _block(sorted(entries))
  top = _block([(entries[-1][0], _varint(0) + _varint(len(block) - 5))])
  empty = _block([])
  last = len(block) + len(empty)
  footer = _varint(len(block)) + _varint(len(empty) - 5) + _varint(last) + _varint(len(top) - 5)
  magic = struct.pack('<Q', 0xDB4775248B80FB57)
  table = block + empty + top + footer.ljust(40, b'\0') + magic
  prefix.with_name(f'{prefix.name}.index').write_bytes(table)
  prefix.with_name(f'{prefix.name}.data-00000-of-00001').write_bytes(data)


def masked(data):
  """CRC-32C, a bit at a time, as LevelDB stores it."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _block(entries):
  made, before, restarts = b'', b'', []
  for place, (key, value) in enumerate(entries):
    shared = 0
    while place % 16 and before[: shared + 1] == key[: shared + 1] and shared < len(before):
      shared += 1
    restarts += [] if place % 16 else [len(made)]
    made += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
    made += key[shared:] + value
    before = key
  restarts = restarts or [0]
  made += struct.pack(f'<{len(restarts) + 1}I', *restarts, len(restarts)) + b'\0'
  return made + struct.pack('<I', masked(made))


def _number(field, value):
  return _varint(field << 3) + _varint(value)


def _bytes(field, value):
  return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value):
  made = b''
  while value > 127:
    made += bytes([value & 127 | 128])
    value >>= 7
  return made + bytes([value])


class Poison:
  """Creates `path` when it is unpickled."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return open, (self.path, 'w')


def poison(path):
  return pickle.dumps(Poison(path), protocol=2)
