"""TensorFlow's checkpoints without TensorFlow, against bytes that TensorFlow 2.21 wrote."""

import base64
import struct

import ml_dtypes
import numpy as np
import pytest

from tests.sources import writers
from tests.sources.test_sources_contract import ARRAYS
from tlx import sources
from tlx.sources import _budget, _tensor_bundle

# tf.saved_model.save of a tf.Module with a tf.Variable for each of ARRAYS: variables.index, and
# variables.data-00000-of-00001
INDEX = (
  '000IE0U81b0RS8iUqeVmLrYLkNlsKjLQF+pPeMvXLsVZ!QbABi2nP}XAdmwnjRG~92ZP)I9}!|{VRJ7oK~z*yNkUar'
  'MN=<UK~hOULQF+pRzXZvMF;^B1QG%W10Vz_3^fLBkX-'
  ';E4`Xk2Zgej$K~z*yNkUarMN=<UK~hOULQF+pRzXZvMF;~D1QG%W0Vo7D*w_$r03jM{WpZw1Y%eZBR8&$)LRC~nQ!i'
  'FQQb|EVOhsQ-'
  'K}=Oe2muld5&{SU5&{SV5&{SiAP^{k12w(*kgos$000310000iQboW30000100000!1AH6009GR0OA1v0000100000'
  'Ewkl?=K%=x0S^EG0000000000000000000000000000000000000000SNnjABy~sI'
)
DATA = (
  '0ssI2006+h00000S=j(H00000B}o!KB}tM#w{6=#B}o!LZre6Lw{2TL004kLB}tM$Ns^>LZrip$k|fDLw{6=$+qUgL'
  '0000$k|YU0B}o!Mw{06hNs=T$+qNx0Zre6M002Nhk|aq$B}r01w{2TMNs?qh+qP{$ZrgT1004kMNs@#>k|c>h+qR8B'
  'B}tM%ZrheXw{4q1005vsNs^>Mk|e1>+qSJhB}uYCZrip%w{5#X006*1Ns`1sk|fDM+qTU>B}vjiZrj#Cw{6=%007`X'
  'Ns{D1k|gOs+qUgMB}wu?Zrk=iw{81C0000%B}oE7Ns<IXZrcVyk|YU1w`~hS+qMls000m{B}o!NNs<&nZrc_?k|Y^H'
  'w{06i+qNA+001CCB}pPdNs=T%Zrdh7k|ZfXw{0sy+qNx1001ySB}p<tNs=@{Zre6Nk|a4nw{1H?+qOMH002NiB}qa-'
  'Ns>fCZresdk|aq%w{1&7+qO+X002-'
  'yB}r02Ns?4SZrfHtk|bF{hXN$iYGn#F3JC}S5(Q&#b#8PD2nYfa1Y&7na|#Lw0}=*nWpZw1Yzhtt1QH5!X=iR>bair'
  'Nb1DJ|0SZDAJPHn0K~hOULQF+pRzXZvMG^>BVRC6<Vr*p^AY*TJZgej$K~z*yNkUarMN=<UK~hOULQF+pRzXZvMJfU'
  'a0SZA9I|>d~K~hOULQF+pRzXZvMG^>BVRC6<Vr*p^A7W`?b1yDIR8&$)LRC~nQ!iFQQb|EVOhsQ-'
  'K}=OeDgp=r3PTb-3Jz95Qb|EVOhsQ-K}=Oe5(rjda%o{=Y-'
  'JiDYh`k7Wo$1lK~z*yNkUarMN=<UK~hOULQF+pRzXZvMJfUa0SW>t00'
)


@pytest.fixture
def saved(tmp_path):
  folder = tmp_path / 'saved'
  (folder / 'variables').mkdir(parents=True)
  (folder / 'saved_model.pb').write_bytes(b'')
  (folder / 'variables' / 'variables.index').write_bytes(base64.b85decode(INDEX))
  data = folder / 'variables' / 'variables.data-00000-of-00001'
  data.write_bytes(base64.b85decode(DATA))
  return folder


def test_what_tensorflow_wrote_is_read(saved):
  found = sources.load(str(saved)).arrays
  assert found.keys() == ARRAYS.keys()
  for name, array in ARRAYS.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


def test_a_flipped_bit_is_noticed_anywhere(saved):
  for file in (saved / 'variables').iterdir():
    data = file.read_bytes()
    for place in range(0, len(data), 7):
      damaged = bytearray(data)
      damaged[place] ^= 16
      file.write_bytes(damaged)
      try:
        found = sources.read(saved)
      except ValueError:
        continue
      for name, array in ARRAYS.items():  # of the padding, or of a string, which is left out
        np.testing.assert_array_equal(found[name], array)
    file.write_bytes(data)


@pytest.mark.parametrize('few', [_tensor_bundle._FEW, 0])
def test_the_checksum_is_that_of_rfc_3720(few, monkeypatch):
  monkeypatch.setattr(_tensor_bundle, '_FEW', few)
  for data, wanted in (
    (bytes(32), 0x8A9136AA),
    (b'\xff' * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (b'', 0),
  ):
    assert _tensor_bundle.crc32c(data) == wanted
  random = np.random.default_rng(0)
  for size in (1, 1023, 1024, 1025, 5000):
    data = random.bytes(size)
    crc = _tensor_bundle.crc32c(data)
    assert ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == writers.masked(data)


def test_a_checkpoint_of_many_names_and_types(tmp_path):
  """Of several the one that the file `checkpoint` says is the latest."""
  arrays = {f'bert/layer_{i}/kernel': np.full((i % 3, 2), i, np.float32) for i in range(40)}
  arrays['half'] = np.array([1.5, -2], ml_dtypes.bfloat16)
  arrays['scalar'] = np.array(True)
  writers.write_bundle(tmp_path / 'model.ckpt-1', {'old': np.zeros(2, np.float32)})
  writers.write_bundle(tmp_path / 'model.ckpt-2', arrays)
  with pytest.raises(ValueError, match=r'checkpoints model\.ckpt-1, model\.ckpt-2: keep one'):
    sources.read(tmp_path)
  (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "/home/me/model.ckpt-2"\n')
  found = sources.read(tmp_path)
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
  'key, entry, words',
  [
    (b'', b'\x08\x01\x10\x01', 'big-endian'),
    (b'', b'\x08\x00', 'of no shard'),
    (b'x', b'\x08\x01\x3a\x00', 'divided into slices'),
    (b'x', b'\x08\x14', 'of the type 20, which numpy lacks'),
    (b'x', b'\x08\x01\x18\x05\x28\x04', 'in shard 5 of 1'),
    (b'x', b'\x08\x01\x12\x07\x12\x05\x08\xff\xff\xff\x7f\x28\x04', 'more than 64 times'),
    (b'x', b'\x08\x01\x12\x0d\x12\x0b\x08' + b'\xff' * 9 + b'\x01', 'no shape'),
    (b'x', b'\x08\x01\x28\x04\x20\xff\xff\x03', 'its checksum is another'),
    (b'x', b'\x0b', 'no known kind'),
    (b'x', b'\x12\xff\x01', 'cut short'),
    (b'x', b'\x80', 'has no end'),
  ],
)
def test_an_index_that_lies_is_refused(tmp_path, key, entry, words):
  header = entry if not key else b'\x08\x01'
  more = [(key, entry)] if key else []
  writers.write_bundle(tmp_path / 'm', {'zero': np.zeros(2, np.float32)}, header, more)
  with pytest.raises(ValueError, match=words):
    sources.read(tmp_path)


def test_a_block_that_the_index_names_again_and_again_is_refused(tmp_path, monkeypatch):
  """Each time its checksum would be made again: hours, of an index of a few megabytes."""
  monkeypatch.setattr(_budget, '_FREE_BYTES', 0)
  block = struct.pack('<5001I', *[0] * 5000, 5000) + b'\0'  # restarts alone
  size = len(block) - 1
  block += struct.pack('<I', writers.masked(block))
  handle = writers._varint(0) + writers._varint(size)
  top = writers._block([(b'%05d' % i, handle) for i in range(2000)])
  footer = bytes(2) + writers._varint(len(block)) + writers._varint(len(top) - 5)
  magic = struct.pack('<Q', _tensor_bundle._MAGIC)
  (tmp_path / 'm.index').write_bytes(block + top + footer.ljust(40, b'\0') + magic)
  (tmp_path / 'm.data-00000-of-00001').write_bytes(b'')
  with pytest.raises(ValueError, match='a block of the index takes .* more than 64 times'):
    sources.read(tmp_path)
