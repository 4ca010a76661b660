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
  tf = pytest.importorskip(
    'tensorflow', reason='tensorflow (extra tensorflow) is not installed: pip install tensorflow'
  )
  module = tf.Module()
  for name, array in arrays.items():
    setattr(module, name, tf.Variable(array))
  tf.saved_model.save(module, folder / 'saved')
  return folder / 'saved'


class Poison:
  """Creates `path` when it is unpickled."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return open, (self.path, 'w')


def poison(path):
  return pickle.dumps(Poison(path), protocol=2)
