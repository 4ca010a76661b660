"""Small files that ask for any amount of time or memory, and a process that reads them within
bounds.

`python -m tests.sources.hostile FILE...` prints 'FILE<tab>ERROR<tab>MESSAGE' for each.
"""

import faulthandler
import io
import json
import os
import pathlib
import resource
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib

import numpy as np

from tests.sources import writers
from tests.sources.writers import Call, Global, Persistent, pickled, storage, tensor

ONE = np.ones(4, np.float32)
BUFFERS = {'0': ONE.tobytes()}
ORDERED = Global('collections.OrderedDict')
REBUILD = Global('torch._utils._rebuild_tensor_v2')
SECONDS, MEMORY, PEAK = 30, 1 << 31, 3 << 27


def doubled(times=60):
  """Opcodes of a tuple that holds twice the one before it, and so on: 2 ** 60 in 300 bytes."""
  out = b')'
  for place in range(times):
    out += b'q' + bytes([place]) + b'h' + bytes([place]) + b'\x86'
  return out


def nested(times=300_000):
  """Opcodes of a tuple in a tuple in a tuple."""
  return b')' + b'\x85' * times


def pth(folder, node, buffers=BUFFERS):
  return writers.write_zip(folder / 'model.pth', [tensor(ONE, '0'), node], buffers)


def long_names(folder):
  leaf = b'K\x01'
  return pth(
    folder, b'}X' + struct.pack('<I', 1 << 20) + b'a' * (1 << 20) + b'](' + leaf * 9999 + b'es'
  )


def many_copies(folder):
  pairs = b'](' + b''.join(b'K' + bytes([i]) + b'K\x01\x86' for i in range(256)) * 100 + b'eq\x01'
  calls = b'ccollections\nOrderedDict\nq\x02' + b'h\x02h\x01\x85R' * 100_000
  return pth(folder, b'(' + pairs + calls + b't')


def colliding_keys(folder):
  keys = b''.join(
    b'\x8a\x0c' + (i * (2**61 - 1)).to_bytes(12, 'little') + b'K\x01' for i in range(1, 200_000)
  )
  return pth(folder, b'}(' + keys + b'u')


def same_storage(folder):
  big = np.zeros(1 << 18, np.float32)
  tree = {str(i): tensor(big, '0') for i in range(400)}
  return writers.write_zip(folder / 'model.pth', tree, {'0': big.tobytes()})


def huge_strides(folder):
  number = b'\x8b' + struct.pack('<i', 1 << 20) + b'\x7f' * (1 << 20)
  shape = number + b'q\x01(' + b'h\x01' * 20_000 + b't'
  return pth(folder, Call(REBUILD, (storage(ONE, '0'), 0, shape, shape)))


def legacy_keys(folder):
  path = writers.write_legacy(folder, {'a': ONE})
  data = path.read_bytes()
  keys = pickled(['0'])
  path.write_bytes(data.replace(keys, b'\x80\x02](' + doubled() + b'e.'))
  return path


def orbax(folder, **changes):
  import orbax.checkpoint as ocp

  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
    checkpointer.save(folder / 'checkpoint', {'a': np.ones((4, 5), np.float32)})
  (header,) = (folder / 'checkpoint').glob('a/.zarray')
  header.write_text(json.dumps(json.loads(header.read_text()) | changes))
  return folder / 'checkpoint'


def orbax_pipe(folder):
  path = orbax(folder)
  (path / 'a' / '0.0').unlink()
  os.mkfifo(path / 'a' / '0.0')
  return path


def orbax_loop(folder):
  path = orbax(folder)
  (path / 'a' / 'again').symlink_to(path)
  return path


def pipe(folder, name):
  os.mkfifo(folder / name)
  return folder / name


def pipe_as_shard(folder):
  os.mkfifo(folder / 'model-0.safetensors')
  path = folder / 'model.safetensors.index.json'
  path.write_text('{"weight_map": {"a": "model-0.safetensors"}}')
  return path


def endless(folder, name):
  (folder / name).symlink_to('/dev/zero')
  return folder / name


def pipe_beside(folder):
  os.mkfifo(folder / 'config.json')
  return writers.write_npz(folder, {'a': ONE})


def hole(folder):
  with (folder / 'model.npz').open('wb') as file:
    file.truncate(1 << 43)
  return folder / 'model.npz'


def study(folder, pipe='', **result):
  """A run of a study, of which one file is a pipe or the result says something else."""
  from tests.sources.test_study import write_study

  uri = write_study(folder / 'study', meta=result)
  if pipe:
    (folder / 'study' / pipe).unlink(missing_ok=True)
    os.mkfifo(folder / 'study' / pipe)
  return uri


def study_claims(folder):
  """A run of a study whose checkpoint claims an array of 2 ** 50 numbers."""
  uri = study(folder)
  (arrays,) = (folder / 'study').glob('cohorts/c/checkpoints/*/arrays')
  shutil.rmtree(arrays)
  orbax(folder, shape=[1 << 25, 1 << 25]).rename(arrays)
  return uri


def h5(folder, build):
  import h5py

  with h5py.File(folder / 'model.h5', 'w') as file:
    build(file)
  return folder / 'model.h5'


def linked_groups(file):
  file['29/a'] = ONE
  for i in range(29):
    file[f'{28 - i}/left'] = file[f'{28 - i}/right'] = file[str(29 - i)]


def linked_dataset(file):
  file['a'] = np.ones(1 << 18, np.float32)
  for i in range(5000):
    file[str(i)] = file['a']


def inflating_chunk(file):
  made = file.create_dataset('a', (4,), 'f4', chunks=(4,), compression='gzip')
  deflate = zlib.compressobj(9, wbits=-15)
  zeros = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
  checksum = struct.pack('>HH', (1 << 32) % 65521, 1)
  made.id.write_direct_chunk((0,), b'\x78\x9c' + zeros * 4096 + b'\x03\x00' + checksum)


def chunk_larger_than_all(file):
  file.create_dataset('a', (4,), 'f4', maxshape=(None,), chunks=(1 << 29,), compression='gzip')[
    :
  ] = 1


def gguf(folder, offsets):
  """Tensors of 1 MiB at these places, in a file of 2 MiB."""

  def string(text):
    return struct.pack('<Q', len(text)) + text.encode()

  header = b'GGUF' + struct.pack('<IQQ', 3, len(offsets), 0)
  for i, offset in enumerate(offsets):
    header += string(str(i)) + struct.pack('<IQIQ', 1, 1 << 18, 0, offset)
  (folder / 'model.gguf').write_bytes(header + bytes(-len(header) % 32) + bytes(1 << 21))
  return folder / 'model.gguf'


def manifest(folder, names):
  (folder / 'shard').write_bytes(bytes(1 << 20))
  weights = [{'name': 'a', 'shape': [len(names) << 18], 'dtype': 'float32'}]
  (folder / 'model.json').write_text(json.dumps([{'weights': weights, 'paths': names}]))
  return folder / 'model.json'


def npz(folder, members, compression=zipfile.ZIP_DEFLATED):
  data = io.BytesIO()
  np.save(data, np.zeros(1 << 24, np.uint8))
  with zipfile.ZipFile(folder / 'model.npz', 'w', compression) as archive:
    for i in range(members):
      archive.writestr(f'{i}.npy', data.getvalue())
  return folder / 'model.npz'


def npz_of_nothing(folder):
  member = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    member, {'descr': '|V0', 'fortran_order': False, 'shape': (1 << 50,)}
  )
  with zipfile.ZipFile(folder / 'model.npz', 'w') as archive:
    archive.writestr('a.npy', member.getvalue())
  return folder / 'model.npz'


def nested_claims(folder):
  (folder / 'model.msgpack').write_bytes(
    (b'\xdd' + struct.pack('>I', 1 << 20)) * 500 + bytes(1 << 20)
  )
  return folder / 'model.msgpack'


def spellings(count):
  return ['./' * i + 'shard' for i in range(count)]


CASES = {
  'a call of doubled tuples': lambda d: pth(d, Call(doubled(), ())),
  'a call with doubled tuples': lambda d: pth(d, Call(REBUILD, (doubled(),))),
  'a call with doubled tuples in a list': lambda d: pth(d, Call(REBUILD, [doubled()])),
  'doubled tuples as a key': lambda d: pth(d, {b')' + doubled()[1:]: 1}),
  'doubled tuples as a key of pairs': lambda d: pth(d, Call(ORDERED, ([(doubled(), 1)],))),
  'doubled tuples as the id of a storage': lambda d: pth(
    d, Call(REBUILD, (Persistent((doubled(),)), 0, (4,), (1,)))
  ),
  'doubled tuples as a shape': lambda d: pth(
    d, Call(REBUILD, (storage(ONE, '0'), 0, (doubled(),), (1,)))
  ),
  'doubled tuples as a shape and strides': lambda d: pth(
    d, Call(REBUILD, (storage(ONE, '0'), doubled(), (4,), (1,)))
  ),
  'doubled tuples as the name of a global': lambda d: pth(d, doubled() + b'X\x01\x00\x00\x00a\x93'),
  'doubled tuples as a leaf': lambda d: pth(d, doubled()),
  'doubled tuples as legacy keys': legacy_keys,
  'nested tuples as a key': lambda d: pth(d, {nested(): 1}),
  'nested tuples as a leaf': lambda d: pth(d, nested()),
  'nested tuples in a call': lambda d: pth(d, Call(REBUILD, (nested(),))),
  'long names': long_names,
  'many copies of pairs': many_copies,
  'keys that share a hash': colliding_keys,
  'many views of a storage': same_storage,
  'strides of a million digits': huge_strides,
  'orbax shape': lambda d: orbax(d, shape=[1 << 25, 1 << 25]),
  'orbax chunk': lambda d: orbax(d, chunks=[1 << 25, 1 << 25]),
  'orbax with a pipe': orbax_pipe,
  'orbax in a loop of links': orbax_loop,
  'pipe model.pth': lambda d: pipe(d, 'model.pth'),
  'pipe model.npz': lambda d: pipe(d, 'model.npz'),
  'pipe model.h5': lambda d: pipe(d, 'model.h5'),
  'pipe model.gguf': lambda d: pipe(d, 'model.gguf'),
  'pipe model.msgpack': lambda d: pipe(d, 'model.msgpack'),
  'pipe model.safetensors': lambda d: pipe(d, 'model.safetensors'),
  'pipe model.json': lambda d: pipe(d, 'model.json'),
  'pipe model.bin.index.json': lambda d: pipe(d, 'model.bin.index.json'),
  'pipe as a shard': pipe_as_shard,
  'endless model.pth': lambda d: endless(d, 'model.pth'),
  'endless model.npz': lambda d: endless(d, 'model.npz'),
  'endless model.msgpack': lambda d: endless(d, 'model.msgpack'),
  'endless model.json': lambda d: endless(d, 'model.json'),
  'endless model.bin.index.json': lambda d: endless(d, 'model.bin.index.json'),
  'endless model': lambda d: endless(d, 'model'),
  'pipe beside the weights': pipe_beside,
  'a hole of 8 TiB': hole,
  'study with a shape': study_claims,
  'study whose cohort lies elsewhere': lambda d: study(d, cohort='../cohorts/c'),
  **{
    f'study with a pipe {name}': lambda d, name=name: study(d, name)
    for name in (
      'study.json',
      'runs/run-a/result.json',
      'cohorts/c/checkpoints/8/meta.json',
      'sources/base/checkpoints/4/arrays/_METADATA',
    )
  },
  'h5 groups linked twice': lambda d: h5(d, linked_groups),
  'h5 data linked 5,000 times': lambda d: h5(d, linked_dataset),
  'h5 chunk that inflates': lambda d: h5(d, inflating_chunk),
  'h5 chunk larger than all': lambda d: h5(d, chunk_larger_than_all),
  'gguf entries on the same bytes': lambda d: gguf(d, [0] * 400),
  'gguf entries over each other': lambda d: gguf(d, [0, 1 << 19]),
  'tfjs shard 4,000 times': lambda d: manifest(d, ['shard'] * 4000),
  'tfjs shard in 4,000 spellings': lambda d: manifest(d, spellings(1000)),
  'npz of many members': lambda d: npz(d, 20),
  'npz by lzma': lambda d: npz(d, 1, zipfile.ZIP_LZMA),
  'npz by bzip2': lambda d: npz(d, 1, zipfile.ZIP_BZIP2),
  'npz of 2 ** 50 items of no size': npz_of_nothing,
  'msgpack of lists that are not there': nested_claims,
}


def sparse(name, size):
  """A tar entry of a file of `size` bytes, of which none is stored."""
  entry = tarfile.TarInfo(name)
  entry.pax_headers = {'GNU.sparse.map': '0,0', 'GNU.sparse.size': str(size)}
  return entry


def main(paths):
  from tlx import sources

  sources.resolve('.')
  resource.setrlimit(resource.RLIMIT_AS, (status('VmSize') + MEMORY, resource.RLIM_INFINITY))
  for path in paths:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is counted from here
    before = status('VmHWM')
    print(path, end='\t', flush=True)
    try:
      sources.load(path)
      print('none', end='\t')
    except Exception as error:
      taken = status('VmHWM') - before
      kind = (
        type(error).__name__
        if taken < PEAK
        else f'{taken} bytes taken for a {type(error).__name__}'
      )
      print(kind, str(error).replace('\n', ' ')[:2000], sep='\t', end='')
    print(flush=True)


def status(field):
  """Bytes that the process has ('VmSize') or had at its peak ('VmHWM')."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f'{field}:'))


if __name__ == '__main__':
  main(sys.argv[1:])
