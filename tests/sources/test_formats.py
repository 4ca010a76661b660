"""What is particular to one format: quantisation, prefixes, metadata, and headers that lie."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest

from tests.sources import writers
from tlx import sources

TWO = {'a': np.ones(4, np.float32), 'b': np.zeros((2, 3), np.float32)}


def write_header(path, header, data=b''):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + data)
  return str(path)


@pytest.mark.parametrize(
  'header, data',
  [
    ({'a': {'dtype': 'F32', 'shape': [4], 'data_offsets': [0, 16]}}, bytes(12)),
    ({'a': {'dtype': 'F32', 'shape': [4], 'data_offsets': [16, 32]}}, bytes(16)),
    (
      {
        'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]},
        'b': {'dtype': 'F32', 'shape': [2], 'data_offsets': [4, 12]},
      },
      bytes(12),
    ),
    ({'a': {'dtype': 'F32', 'shape': [5], 'data_offsets': [0, 16]}}, bytes(16)),
    ({'a': {'dtype': 'F32', 'shape': [1 << 62, 4], 'data_offsets': [0, 16]}}, bytes(16)),
    ({'a': {'dtype': 'OBJ', 'shape': [4], 'data_offsets': [0, 16]}}, bytes(16)),
    (b'{' * 10, b''),
  ],
)
def test_safetensors_header_lies(header, data, tmp_path):
  with pytest.raises(ValueError, match='cannot be read as safetensors'):
    sources.load(write_header(tmp_path / 'model.safetensors', header, data))


def test_safetensors_huge_header(tmp_path):
  (tmp_path / 'model.safetensors').write_bytes(struct.pack('<Q', 1 << 60) + b'{}')
  with pytest.raises(ValueError, match='cannot be read as safetensors'):
    sources.load(str(tmp_path / 'model.safetensors'))


@pytest.mark.parametrize(
  'change, message',
  [
    ({'d': 'model-0.safetensors'}, r'- d in model-0'),
    ({'a': None}, r'\+ a in model-0'),
    ({'a': 'model-1.safetensors'}, r'(?s)- a in model-1.*\+ a in model-0'),
    ({'a': '../../etc/passwd'}, 'leads out of its folder'),
    ({'a': '/etc/passwd'}, 'leads out of its folder'),
    ({'a': 'model-7.safetensors'}, 'No such file'),
    ({'a': 3}, 'not the index of a sharded model'),
  ],
)
def test_sharded_index_lies(change, message, tmp_path):
  path = writers.write_sharded(tmp_path, {**TWO, 'c': TWO['a']})  # a and c in model-0, b in model-1
  index = json.loads(path.read_text())
  index['weight_map'] = {
    name: shard for name, shard in {**index['weight_map'], **change}.items() if shard
  }
  path.write_text(json.dumps(index))
  with pytest.raises(ValueError, match=message):
    sources.load(str(path))


def test_npz_prefixes(tmp_path):
  np.savez(
    tmp_path / 'params.npz',
    **{'params/embedding/kernel': TWO['a'], 'opt/0': TWO['b'], 'extra/step': np.array(3)},
  )
  weights = sources.load(str(tmp_path / 'params.npz'))
  assert set(weights.arrays) == {'embedding/kernel'}
  assert weights.provenance['left_out'] == ['extra', 'opt']
  np.savez(tmp_path / 'old.npz', **{'opt/target/embedding/kernel': TWO['a']})
  assert set(sources.load(str(tmp_path / 'old.npz')).arrays) == {'embedding/kernel'}
  np.savez(tmp_path / 'bit.npz', **{'resnet/block1/unit01/a/conv2d/kernel': TWO['b']})
  assert set(sources.load(str(tmp_path / 'bit.npz')).arrays) == {
    'resnet/block1/unit01/a/conv2d/kernel'
  }
  np.savez(tmp_path / 'flax.npz', **{'params/a': TWO['a'], 'batch_stats/a': TWO['b']})
  assert set(sources.load(str(tmp_path / 'flax.npz')).arrays) == {'params/a', 'batch_stats/a'}


def test_npz_objects_run_nothing(tmp_path, canary):
  np.savez(tmp_path / 'model.npz', a=np.array([writers.Poison(canary)], dtype=object))
  with pytest.raises(ValueError, match='holds Python objects; refused'):
    sources.load(str(tmp_path / 'model.npz'))


@pytest.mark.parametrize('shape', [(3,), (5,), (1 << 60,), (1 << 40, 1 << 40)])
def test_npz_header_lies(shape, tmp_path):
  member = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    member, {'descr': '<f4', 'fortran_order': False, 'shape': shape}
  )
  with zipfile.ZipFile(tmp_path / 'model.npz', 'w') as archive:
    archive.writestr('a.npy', member.getvalue() + bytes(16))
  with pytest.raises(ValueError, match=r'the member has another size|takes 4[0-9]{18,} bytes'):
    sources.load(str(tmp_path / 'model.npz'))


def test_npz_size_lies(tmp_path):
  path = writers.write_npz(tmp_path, TWO)
  data = bytearray(path.read_bytes())
  start = data.index(b'PK\x01\x02') + 24  # the uncompressed size in the archive's directory
  data[start : start + 4] = struct.pack('<I', (1 << 32) - 2)
  path.write_bytes(data)
  with pytest.raises(ValueError, match='takes 4294967294 bytes'):
    sources.load(str(path))


def test_msgpack_refuses_objects_and_other_extensions(tmp_path):
  import msgpack

  path = tmp_path / 'model.msgpack'
  bad = (
    (1, ((1,), 'object', bytes(8)), 'dtype object'),
    (1, ((2,), 'V8', bytes(16)), 'dtype'),
    (1, ((3,), 'float32', bytes(16)), 'reshape'),
    (9, (), 'extension 9'),
  )
  for code, content, message in bad:
    path.write_bytes(msgpack.packb({'a': msgpack.ExtType(code, msgpack.packb(content))}))
    with pytest.raises(ValueError, match=message):
      sources.load(str(path))


def test_msgpack_chunks(tmp_path, monkeypatch):
  from flax import serialization

  monkeypatch.setattr(serialization, 'MAX_CHUNK_SIZE', 64)
  array = np.arange(60, dtype=np.float32).reshape(3, 20)
  path = writers.write_msgpack(tmp_path, {'params': {'Dense_0': {'kernel': array}}})
  assert b'__msgpack_chunked_array__' in path.read_bytes()
  np.testing.assert_array_equal(sources.load(str(path)).arrays['Dense_0/kernel'], array)


def write_manifest(folder, entry, data):
  (folder / 'shard').write_bytes(data)
  path = folder / 'model.json'
  path.write_text(
    json.dumps(
      {'weightsManifest': [{'weights': [{'name': 'a', 'shape': [3], **entry}], 'paths': ['shard']}]}
    )
  )
  return str(path)


def test_tfjs_quantised(tmp_path):
  # of conv32_down/conv/filters in face-api
  scale, least = 0.0005260649557207145, -0.07101876902229645
  entry = {
    'dtype': 'float32',
    'shape': [256],
    'quantization': {'dtype': 'uint8', 'scale': scale, 'min': least},
  }
  found = sources.load(write_manifest(tmp_path, entry, bytes(range(256)))).arrays['a']
  assert found.dtype == np.float32
  np.testing.assert_array_equal(
    found, np.array([value * scale + least for value in range(256)], np.float32)
  )
  entry = {'dtype': 'float32', 'quantization': {'dtype': 'uint16', 'scale': 0.1, 'min': -1.0}}
  stored = np.array([0, 300, 65535], '<u2').tobytes()
  found = sources.load(write_manifest(tmp_path, entry, stored)).arrays['a']
  np.testing.assert_array_equal(found, np.array([-1, 29, 6552.5], np.float32))
  entry['dtype'] = 'int32'
  stored = np.array([4, 15, 16], '<u2').tobytes()
  found = sources.load(write_manifest(tmp_path, entry, stored)).arrays['a']
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, [-1, 1, 1])  # -0.6, 0.5 (Math.round rounds halves up), 0.6
  entry = {'dtype': 'float32', 'quantization': {'dtype': 'float16'}}
  stored = np.array([1, 2, 3], '<f2').tobytes()
  found = sources.load(write_manifest(tmp_path, entry, stored)).arrays['a']
  np.testing.assert_array_equal(found, np.array([1, 2, 3], np.float32))


def test_tfjs_lies(tmp_path):
  with pytest.raises(ValueError, match='end at byte 11'):
    sources.load(write_manifest(tmp_path, {'dtype': 'float32'}, bytes(11)))
  with pytest.raises(ValueError, match='have 13 bytes, their tensors need 12'):
    sources.load(write_manifest(tmp_path, {'dtype': 'float32'}, bytes(13)))
  with pytest.raises(ValueError, match='cannot be read as tfjs'):
    sources.load(write_manifest(tmp_path, {'dtype': 'string'}, bytes(12)))
  with pytest.raises(ValueError, match='no shape'):
    sources.load(write_manifest(tmp_path, {'dtype': 'float32', 'shape': [-3]}, bytes(12)))
  for name in ('../secret', '/etc/passwd'):
    (tmp_path / 'manifest.json').write_text(json.dumps([{'weights': [], 'paths': [name]}]))
    with pytest.raises(ValueError, match='leads out of its folder'):
      sources.load(str(tmp_path / 'manifest.json'))


def test_gguf_dequantises_and_keeps_metadata(tmp_path):
  gguf = pytest.importorskip(
    'gguf', reason='the package gguf (extra gguf) is not installed: pip install gguf'
  )
  values = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
  kinds = ('Q4_0', 'Q4_1', 'Q5_0', 'Q8_0', 'BF16', 'F16')
  writer = gguf.GGUFWriter(tmp_path / 'model.gguf', 'llama')
  writer.add_float32('llama.rope.freq_base', 1e5)
  writer.add_array('tokenizer.ggml.scores', [0.5, 2.0])
  writer.add_token_list(['a', '\u0120b'])
  writer.add_bool('tokenizer.ggml.add_bos_token', True)
  for kind in kinds:
    code = gguf.GGMLQuantizationType[kind]
    data = values.astype(np.float16) if kind == 'F16' else gguf.quantize(values, code)
    writer.add_tensor(kind, data, raw_dtype=None if kind == 'F16' else code)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  weights = sources.load(str(tmp_path / 'model.gguf'))
  for wanted in gguf.GGUFReader(tmp_path / 'model.gguf').tensors:
    array = weights.arrays[wanted.name]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, gguf.dequantize(wanted.data, wanted.tensor_type))
    np.testing.assert_allclose(array, values, atol=0.5)
  assert weights.metadata['llama.rope.freq_base'] == 1e5
  assert weights.metadata['tokenizer.ggml.tokens'] == ['a', '\u0120b']
  assert weights.metadata['tokenizer.ggml.scores'] == [0.5, 2.0]
  assert weights.metadata['tokenizer.ggml.add_bos_token'] is True


def gguf_string(text):
  return struct.pack('<Q', len(text)) + text.encode()


@pytest.mark.parametrize(
  'header',
  [
    struct.pack('<QQ', 0, 1 << 60),
    struct.pack('<QQ', 1 << 60, 0),
    struct.pack('<QQQ', 0, 1, 1 << 60),
    struct.pack('<QQ', 0, 1) + gguf_string('k') + struct.pack('<IIQ', 9, 4, 1 << 60),
    struct.pack('<QQ', 0, 1) + gguf_string('k') + struct.pack('<IIQ', 9, 8, 1 << 60),
    struct.pack('<QQ', 0, 1) + gguf_string('k') + struct.pack('<II', 99, 0),
    struct.pack('<QQ', 1, 0) + gguf_string('a') + struct.pack('<IQIQ', 1, 1 << 60, 0, 0),
    struct.pack('<QQ', 1, 0)
    + gguf_string('a')
    + struct.pack('<IQIQ', 1, 4, 0, 1 << 40)
    + bytes(64),
    struct.pack('<QQ', 1, 0) + gguf_string('a') + struct.pack('<IQIQ', 1, 31, 2, 0) + bytes(640),
    struct.pack('<QQ', 1, 0) + gguf_string('a') + struct.pack('<II', 1 << 31, 0),
  ],
)
def test_gguf_header_lies(header, tmp_path):
  pytest.importorskip(
    'gguf', reason='the package gguf (extra gguf) is not installed: pip install gguf'
  )
  (tmp_path / 'model.gguf').write_bytes(b'GGUF' + struct.pack('<I', 3) + header)
  with pytest.raises(ValueError, match='cannot be read as gguf'):
    sources.load(str(tmp_path / 'model.gguf'))


def test_h5_refuses_other_files(tmp_path):
  h5py = pytest.importorskip(
    'h5py', reason='the package h5py (extra h5) is not installed: pip install h5py'
  )
  (tmp_path / 'secret').write_bytes(bytes(16))
  with h5py.File(tmp_path / 'other.h5', 'w') as file:
    file['a'] = TWO['a']

  def external(file):
    file['a'] = h5py.ExternalLink(str(tmp_path / 'other.h5'), 'a')

  def raw(file):
    file.create_dataset('a', (4,), 'f4', external=[(str(tmp_path / 'secret'), 0, 16)])

  def virtual(file):
    layout = h5py.VirtualLayout((4,), 'f4')
    layout[:] = h5py.VirtualSource(str(tmp_path / 'other.h5'), 'a', (4,))
    file.create_virtual_dataset('a', layout)

  def bomb(file):
    file.create_dataset('a', (1 << 40,), 'f4', chunks=(1024,), compression='gzip')

  def never_written(file):
    file.create_dataset('a', (4,), 'f4')

  def strings(file):
    file['a'] = 'abc'

  for number, build in enumerate((external, raw, virtual, bomb, never_written, strings)):
    path = tmp_path / f'{number}.h5'
    with h5py.File(path, 'w') as file:
      build(file)
    with pytest.raises(ValueError, match=r'refused|no array of numbers'):
      sources.load(str(path))


def test_optional_package_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'h5py', None)
  (tmp_path / 'model.h5').write_bytes(b'')
  with pytest.raises(ImportError, match=r"needs the package h5py: pip install 'tlx-jax\[h5\]'"):
    sources.load(str(tmp_path / 'model.h5'))
