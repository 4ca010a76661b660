"""PyTorch files: equal to what torch reads, and nothing but arrays comes out of them."""

import argparse
import collections
import dataclasses
import datetime
import enum
import pathlib
import pickle
import re
import struct
import types
import zipfile

import numpy as np
import pytest

from tests.sources import writers
from tests.sources.writers import Call, Global, Persistent, pickled, storage, tensor
from tlx import sources

TORCH = pathlib.Path(__file__).parents[2] / 'third_party' / 'tests' / 'torch'
ONE = np.ones(4, np.float32)
BUFFERS = {'0': ONE.tobytes()}


@pytest.mark.parametrize('file', ['tensors.pth', 'tensors_legacy.pth'])
def test_equals_torch(file):
  weights = sources.load(str(TORCH / file))
  assert (weights.provenance['wrapper'], weights.provenance['left_out']) == (
    'state_dict/',
    ['optimizer'],
  )
  with np.load(TORCH / 'tensors.npz') as wanted:
    assert wanted.keys() - weights.arrays.keys() == (
      set() if file == 'tensors.pth' else {'uint16', 'float8'}
    )
    for name, array in weights.arrays.items():
      raw = array.view(wanted[name].dtype) if name in ('bfloat16', 'float8') else array
      assert raw.dtype == wanted[name].dtype
      np.testing.assert_array_equal(raw, wanted[name])
  assert np.shares_memory(weights.arrays['shared'], weights.arrays['whole'])
  assert not weights.arrays['whole'].flags.writeable


def test_nested_wrappers(tmp_path):
  one = tensor(ONE, '0')
  path = str(tmp_path / 'model.pth')
  writers.write_zip(
    path,
    {'teacher': {'a.b': one}, 'student': {'a.b': one}, 'optimizer': {'m': one}, 'epoch': 1},
    BUFFERS,
  )
  with pytest.raises(
    ValueError,
    match=r"several models under the same names: student, teacher\. Choose .*part.*'student'",
  ):
    sources.load(path)  # Which of the two is meant is not for the reader to guess.
  assert set(sources.read(path)) == {'teacher/a.b', 'student/a.b', 'optimizer/m'}
  best = Call(REBUILD, (storage(ONE, '0'), 0, (), ()))
  for beside, wrapper, left_out in (
    ({'best': best}, 'state_dict/', ['best']),
    ({'mean': one}, '', []),
  ):
    writers.write_zip(path, {'state_dict': {'a.b': one, 'scale': best}, **beside}, BUFFERS)
    weights = sources.load(path)
    assert (weights.provenance['wrapper'], weights.provenance['left_out']) == (wrapper, left_out)
    assert set(weights.arrays) == (
      {'a.b', 'scale'} if wrapper else {'state_dict/a.b', 'state_dict/scale', 'mean'}
    )
  writers.write_zip(path, {'optimizer': {'m': one}}, BUFFERS)
  # Nothing else is there, so this is what was meant.
  assert set(sources.load(path).arrays) == {'optimizer/m'}


def test_a_part_is_chosen(tmp_path):
  path = str(tmp_path / 'model.pth')
  two = {
    'model': {'a.b': tensor(ONE, '0'), 'c': tensor(ONE, '0')},
    'model_ema': {'a.b': tensor(2 * ONE, '1')},
    'optimizer': {'m': tensor(ONE, '0')},
    'nested': {'state_dict': {'a.b': tensor(ONE, '0')}},
    'epoch': 1,
  }
  writers.write_zip(path, two, {'0': ONE.tobytes(), '1': (2 * ONE).tobytes()})
  with pytest.raises(ValueError, match='several models under the same names: model, model_ema'):
    sources.load(path)
  weights = sources.load(path, part='model_ema')
  np.testing.assert_array_equal(weights.arrays['a.b'], 2 * ONE)
  assert (set(weights.arrays), weights.provenance['wrapper']) == ({'a.b'}, 'model_ema/')
  assert weights.provenance['left_out'] == ['model', 'nested', 'optimizer']
  assert set(sources.load(path, part='model').arrays) == {'a.b', 'c'}
  assert set(sources.load(path, part='optimizer').arrays) == {'m'}
  for part in ('nested', 'nested/state_dict'):
    weights = sources.load(path, part=part)
    assert (set(weights.arrays), weights.provenance['wrapper']) == ({'a.b'}, 'nested/state_dict/')
  with pytest.raises(
    ValueError,
    match=r"no part 'model_em'; it has model, model_ema, nested, optimizer\. Did you mean 'model_e",
  ):
    sources.load(path, part='model_em')


@pytest.mark.parametrize(
  'names',
  [
    ('params/Dense_0/kernel', 'batch_stats/Dense_0/mean'),
    ('Dense_0/kernel', 'Dense_1/kernel'),
    ('model.a', 'model_ema.a'),
    ('encoder/a', 'decoder/a'),
    ('params/a', 'params_axes/b'),
    ('model/a', 'model/b', 'model/c', 'model_1/a', 'model_1/d', 'model_1/e'),
  ],
)
def test_what_are_not_several_models(names, tmp_path):
  np.savez(tmp_path / 'model.npz', **dict.fromkeys(names, ONE))
  assert set(sources.load(str(tmp_path / 'model.npz')).arrays) == set(names)


@dataclasses.dataclass
class Settings:
  width: int
  activation: type


class Kind(enum.Enum):
  SMALL = 1


class Options(dict):
  """A dict with attributes, as configs often are."""


def options():
  made = Options(depth=2, kind=Kind.SMALL)
  made.frozen = True
  return made


SETTINGS = {
  'namespace': lambda: argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath('a/b'), layers=[1, 2]),
  'simple namespace': lambda: types.SimpleNamespace(a=1),
  'numpy numbers': lambda: {
    'best': np.float64(0.5),
    'step': np.int64(3),
    np.int32(1): np.bool_(True),
  },
  'numpy arrays': lambda: np.arange(3),
  'numpy state': lambda: np.random.RandomState(0).get_state(),
  'numpy types': lambda: [np.dtype('float32'), np.float32],
  'dataclass': lambda: Settings(3, dict),
  'enum': lambda: {Kind.SMALL: Kind.SMALL},
  'options': options,
  'counts': lambda: [collections.Counter('aab'), collections.defaultdict(list, a=[1])],
  'times': lambda: [datetime.datetime(2024, 1, 2), datetime.timedelta(3)],
  'sets': lambda: [{1, 2}, frozenset((3,))],
  'bytes': lambda: [b'ab', bytearray(b'ab'), 1j, slice(1, 2), 1 << 80],
  'a holder of itself': lambda: (made := argparse.Namespace(), setattr(made, 'me', made))[0],
}


@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.parametrize('name', SETTINGS)
def test_settings_beside_tensors_are_inert(name, protocol, tmp_path):
  # no such module
  data = pickle.dumps(SETTINGS[name](), protocol).replace(__name__.encode(), b'x' * len(__name__))
  # after the protocol's number and the first frame's head
  body = data[2:] if protocol < 4 else data[11:]
  body = body[:-1]
  writers.write_zip(tmp_path / 'model.pth', {'weight': tensor(ONE, '0'), 'args': body}, BUFFERS)
  weights = sources.load(str(tmp_path / 'model.pth'))
  assert set(weights.arrays) == {'weight'}
  np.testing.assert_array_equal(weights.arrays['weight'], ONE)


def test_a_whole_model_is_told_what_to_do(tmp_path):
  net = Call(
    Global('copyreg._reconstructor'), (Global('models.Net'), Global('builtins.object'), None)
  )
  writers.write_zip(tmp_path / 'model.pth', pickled(net), BUFFERS)
  with pytest.raises(
    ValueError, match=r'holds no tensors, only a models.Net. .* save its state_dict\(\) alone'
  ):
    sources.load(str(tmp_path / 'model.pth'))


def test_a_kind_of_dict_gives_its_items(tmp_path):
  item = pickled(('a.b', tensor(ONE, '0')))[3:-2]  # without protocol, mark, tuple and stop
  writers.write_zip(
    tmp_path / 'model.pth', {'state_dict': b'cmodels\nState\n)\x81(' + item + b'u'}, BUFFERS
  )
  assert set(sources.load(str(tmp_path / 'model.pth')).arrays) == {'a.b'}


POISONS = {
  'os.system': Call(Global('os.system'), ('touch CANARY',)),
  'posix.system': Call(Global('posix.system'), ('touch CANARY',)),
  'builtins.eval': Call(Global('builtins.eval'), ('open("CANARY", "w")',)),
  'builtins.getattr chain': Call(
    Call(Global('builtins.getattr'), (Call(Global('builtins.__import__'), ('os',)), 'system')),
    ('touch CANARY',),
  ),
  'numpy function': Call(
    Global('numpy.testing._private.utils.runstring'), ('open("CANARY", "w")', {})
  ),
  'another multiarray': Call(Global('numpy.core.multiarray.fromfile'), ('CANARY',)),
  'dotted name inside torch': Call(Global('torch._utils.os.system'), ('touch CANARY',)),
  'torch.load': Call(Global('torch.load'), ('evil.pth',)),
  'global alone': Global('subprocess.Popen'),
  'dotted name inside torch.nn': Call(
    Global('torch.nn.modules.linear.os.system.a'), ('touch CANARY',)
  ),
  'functools beside partial': Call(
    Global('functools.reduce'), (Global('os.system'), ['touch CANARY'])
  ),
  'code in settings': Call(Global('argparse.FileType'), ('CANARY',)),
}


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('name', POISONS)
def test_refuses_code(name, legacy, tmp_path, canary):
  data = pickled({'weight': tensor(ONE, '0', 6 if legacy else 5), 'evil': POISONS[name]})
  data = data.replace(b'CANARY', str(canary).encode()) if b'CANARY' in data else data
  for old in re.findall(rb'X(.{4})(?=touch|open)', data, re.DOTALL):  # the strings grew
    length = struct.unpack('<I', old)[0] + len(str(canary)) - len('CANARY')
    data = data.replace(old, struct.pack('<I', length), 1)
  path = tmp_path / 'model.pth'
  if legacy:
    head = pickled(0x1950A86A20F9469CFC6C) + pickled(1001) + pickled({'little_endian': True})
    path.write_bytes(head + data + pickled(['0']) + struct.pack('<q', 4) + ONE.tobytes())
  else:
    writers.write_zip(path, data, BUFFERS)
  with pytest.raises(ValueError, match=r'the pickle asks for .*Nothing was run'):
    sources.load(str(path))


def test_the_poison_is_real(tmp_path):
  canary = tmp_path / 'shown'
  pickle.loads(pickled(Call(Global('os.system'), (f'touch {canary}',))))
  assert canary.exists()


def test_refuses_poison_of_the_real_pickler(tmp_path, canary):
  for protocol in range(6):
    writers.write_zip(
      tmp_path / 'model.pth', pickle.dumps({'a': writers.Poison(canary)}, protocol), BUFFERS
    )
    with pytest.raises(ValueError, match=r'asks for .*open|opcode'):
      sources.load(str(tmp_path / 'model.pth'))


REBUILD = Global('torch._utils._rebuild_tensor_v2')
ORDERED = Global('collections.OrderedDict')
FLOAT = Global('torch.FloatStorage')
MALFORMED = {
  'a tensor of strings': (Call(REBUILD, ('a', 0, (4,), (1,))), 'arguments that no tensor has'),
  'a tensor of too few': (Call(REBUILD, (storage(ONE, '0'),)), 'arguments that no tensor has'),
  'a parameter of a string': (
    Call(Global('torch._utils._rebuild_parameter'), ('a', True, None)),
    'arguments that no',
  ),
  'arguments in a list': (Call(REBUILD, [storage(ONE, '0'), 0, (4,), (1,)]), 'the pickle calls'),
  'a call of a string': (Call('os.system', ('true',)), 'the pickle calls'),
  'a dict of one string': (Call(ORDERED, ('abc',)), 'arguments that no tensor has'),
  'outside by offset': (
    Call(REBUILD, (storage(ONE, '0'), 1, (4,), (1,))),
    'lead outside its storage',
  ),
  'outside by stride': (
    Call(REBUILD, (storage(ONE, '0'), 0, (2,), (4,))),
    'lead outside its storage',
  ),
  'before its storage': (Call(REBUILD, (storage(ONE, '0'), 4, (4,), (-1,))), 'strides and offset'),
  'negative shape': (Call(REBUILD, (storage(ONE, '0'), 0, (-4,), (1,))), 'no shape'),
  'huge shape': (
    Call(REBUILD, (storage(ONE, '0'), 0, (1 << 60,), (1,))),
    'takes 4611686018427387904 bytes',
  ),
  'endless repetition': (
    Call(REBUILD, (storage(ONE, '0'), 0, (1 << 40, 4), (0, 1))),
    'takes 17592186044416 bytes',
  ),
  'one stride too many': (
    Call(REBUILD, (storage(ONE, '0'), 0, (4,), (1, 1))),
    'strides and offset',
  ),
  'boolean size': (Call(REBUILD, (storage(ONE, '0'), 0, (True,), (1,))), 'no shape'),
  'a storage longer than its bytes': (
    Call(REBUILD, (Persistent(('storage', FLOAT, '0', 'cpu', 5)), 0, (4,), (1,))),
    'has 16 bytes, wanted 5 x float32',
  ),
  'a storage that is not there': (tensor(ONE, '7'), 'lacks the storages'),
  'a storage elsewhere': (tensor(ONE, '../../data.pkl'), 'lacks the storages'),
  'odd storage type': (
    Call(REBUILD, (Persistent(('storage', ORDERED, '0', 'cpu', 4)), 0, (4,), (1,))),
    "a storage's id",
  ),
  'odd storage id': (
    Call(REBUILD, (Persistent(('module', FLOAT, '0', 'cpu', 4)), 0, (4,), (1,))),
    "a storage's id",
  ),
  'two types of a storage': ([tensor(ONE, '0'), tensor(np.ones(2, np.int64), '0')], 'two types'),
  'attributes of a tensor': (
    pickled(tensor(ONE, '0'))[2:-1] + b'}b',
    'sets attributes of a Tensor',
  ),
  'opcode INST': (b'(ios\nsystem\n', 'opcode INST'),
  'opcode OBJ': (b'(X\x01\x00\x00\x00ao', 'opcode OBJ'),
  'an object of no class': (b'K\x01)\x81', 'makes an object of a int'),
  'opcode EXT1': (b'\x82\x01', 'opcode EXT1'),
  'opcode PERSID': (b'Pabc\n', 'opcode PERSID'),
  'opcode unknown': (b'\xff', 'unknown'),
  'attributes of a number': (b'K\x01}b', 'sets attributes'),
  'items of a number': (b'K\x01K\x02K\x03s', 'sets 2 keys and values of a int'),
  'append to a string': (b'X\x01\x00\x00\x00aK\x02a', 'appends to a str'),
  'memo not set': (b'h\x07', '7'),
  'an empty stack': (b'0', 'opcode POP'),
  'a mark that is not set': (b'ttttt', 'pop from empty list'),
  'stack left over': (b'K\x01K\x01', 'objects left over'),
  'a key that is a list': (b'}]K\x01s', 'a list as a key'),
  'a dict that holds itself': (b'}q\x00X\x01\x00\x00\x00ah\x00s', 'nest deeper'),
  'no tensors': ('abc', 'holds no tensors'),
}
ALONE = (
  'a storage longer than its bytes',
  'stack left over',
  'a dict that holds itself',
  'no tensors',
)


@pytest.mark.parametrize('name', MALFORMED)
def test_refuses_malformed(name, tmp_path):
  node, message = MALFORMED[name]
  alone = pickled(node)
  beside = node if isinstance(node, list) else [tensor(ONE, '0'), node]
  writers.write_zip(tmp_path / 'model.pth', alone if name in ALONE else beside, BUFFERS)
  with pytest.raises(ValueError, match=f'(?s)model.pth cannot be read as pth: .*{message}'):
    sources.load(str(tmp_path / 'model.pth'))


def test_a_bomb_of_shared_lists_is_refused(tmp_path):
  # a list that holds nine times the one before it, and so on: 9 ** 12 nodes in 300 bytes
  data = b']q\x00'
  for i in range(12):
    data = data + b'](' + (b'h' + bytes([i])) * 9 + b'eq' + bytes([i + 1])
  lists = b'(' + data + b't'
  with pytest.raises(ValueError, match='more nodes or entries than the 638 bytes'):
    sources.load(str(writers.write_zip(tmp_path / 'model.pth', pickled(lists), {})))


def test_refuses_odd_archives(tmp_path):
  path = tmp_path / 'model.pth'
  writers.write_zip(path, {'a': tensor(ONE, '0')}, BUFFERS, zipfile.ZIP_DEFLATED)
  with pytest.raises(ValueError, match='compressed'):
    sources.load(str(path))
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled({}))
    archive.writestr('other/data.pkl', pickled({}))
  with pytest.raises(ValueError, match='this one has 2'):
    sources.load(str(path))
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled({}))
    archive.writestr('archive/constants.pkl', pickled(()))
  with pytest.raises(ValueError, match='TorchScript program'):
    sources.load(str(path))
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled({}))
    archive.writestr('archive/byteorder', 'big')
  with pytest.raises(ValueError, match='big-endian'):
    sources.load(str(path))
  writers.write_zip(path, {'a': tensor(ONE, '0')}, BUFFERS)
  data = bytearray(path.read_bytes())
  data[data.index(ONE.tobytes())] ^= 1  # A flipped bit is seen by the archive's own checksum.
  path.write_bytes(data)
  with pytest.raises(ValueError, match='CRC'):
    sources.load(str(path))


def test_legacy_storages_that_lie(tmp_path):
  path = writers.write_legacy(tmp_path, {'a': ONE})
  data = path.read_bytes()
  path.write_bytes(data[:-24] + struct.pack('<q', 5) + data[-16:])
  with pytest.raises(ValueError, match='storage 0 has 5 elements, its tensors say 4'):
    sources.load(str(path))
  path.write_bytes(data.replace(pickled(['0']), pickled(['1'])))
  with pytest.raises(ValueError, match=r"it has the storages \['1'\], its tensors use \['0'\]"):
    sources.load(str(path))


def test_refuses_other_files(tmp_path):
  (tmp_path / 'group1-shard1of1.bin').write_bytes(bytes(100))
  with pytest.raises(ValueError, match='naming their manifest'):
    sources.load(str(tmp_path / 'group1-shard1of1.bin'))


def test_sharded(tmp_path):
  writers.write_pth(tmp_path, {'a': ONE}).rename(tmp_path / 'pytorch_model-1.bin')
  path = tmp_path / 'pytorch_model.bin.index.json'
  path.write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
  np.testing.assert_array_equal(sources.load(str(path)).arrays['a'], ONE)
