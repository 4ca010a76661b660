"""What every format must satisfy: round trip, checksum, truncation, a missing name, and no code
ever run.
"""

import os
import pickle
import re

import ml_dtypes
import numpy as np
import pytest

from tests.sources import writers
from tlx import sources
from tlx.plug import available
from tlx.sources import _budget

ARRAYS = {
  'count': np.array([2], np.int32),
  'bias': np.array([-1.5, 0, 3e-8], np.float32),
  # last, and whole blocks: no padding ends the file
  'kernel': np.arange(96, dtype=np.float32).reshape(2, 3, 16) / 7,
}
# case: (writer, the files, by pattern in the folder of the source, of which any truncation must be
# seen)
CASES = {
  'pth': (writers.write_pth, 'model.pth'),
  'pth-legacy': (writers.write_legacy, 'legacy.pth'),
  'safetensors': (writers.write_safetensors, 'model.safetensors'),
  'safetensors-sharded': (writers.write_sharded, 'model*'),
  'npz': (writers.write_npz, 'model.npz'),
  'msgpack': (writers.write_msgpack, 'model.msgpack'),
  'gguf': (writers.write_gguf, 'model.gguf'),
  'h5': (writers.write_h5, 'model.h5'),
  'tfjs': (writers.write_tfjs, '*'),
  'orbax': (writers.write_orbax, 'checkpoint/_METADATA'),
  'savedmodel': (writers.write_savedmodel, 'saved/variables/variables.index'),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
  """(the path of a source with the arrays, those arrays, the files that are truncated)."""
  folder = tmp_path / 'source'
  folder.mkdir()
  writer, pattern = CASES[request.param]
  arrays = dict(ARRAYS)
  if request.param.startswith('pth'):
    arrays['count'] = arrays['count'].astype(np.int64)
  path = writer(folder, arrays)
  return path, arrays, sorted(folder.glob(pattern))


def test_every_format_has_a_case():
  formats = {
    name.removeprefix('format_') for name in available('sources') if name.startswith('format_')
  }
  # test_study.py: its digest is not that of files
  assert formats == {name.split('-')[0] for name in CASES} | {'study'}


def test_round_trip(case):
  path, arrays, _ = case
  weights = sources.load(str(path))
  assert weights.arrays.keys() == arrays.keys()
  for name, array in arrays.items():
    assert weights.arrays[name].dtype == array.dtype
    np.testing.assert_array_equal(weights.arrays[name], array)
  assert weights.provenance['num_tensors'] == 3
  assert weights.provenance['uri'] == str(path)
  assert sources.read(path).keys() == arrays.keys()


def test_checksum(case):
  path, _, _ = case
  right = sources.load(str(path)).provenance['sha256']
  assert sources.load(str(path), right.upper()).provenance['sha256'] == right
  wrong = 'f' * 64
  with pytest.raises(ValueError, match=f'(?s)wanted {wrong}.*got +{right}'):
    sources.load(str(path), wrong)
  with pytest.raises(ValueError, match='64 hex digits'):
    sources.load(str(path), right[:8])


def test_changed_file_is_another_checksum(case):
  path, _, files = case
  before = sources.load(str(path)).provenance['sha256']
  data = bytearray(files[0].read_bytes())
  data[len(data) // 2] ^= 1
  files[0].write_bytes(data)
  with pytest.raises(ValueError, match='Wrong sha256'):
    sources.load(str(path), before)


def test_truncated(case):
  path, _, files = case
  assert files
  for file in files:
    data = file.read_bytes()
    sizes = {0, 1, 7, len(data) // 3, len(data) // 2, len(data) - 9, len(data) - 1}
    for size in sorted(sizes & set(range(len(data)))):
      file.write_bytes(data[:size])
      with pytest.raises(ValueError, match=re.escape(str(path))):
        sources.load(str(path))
    file.write_bytes(data)


def test_every_format_keeps_to_the_budget(case, monkeypatch):
  path, _, _ = case
  monkeypatch.setattr(_budget, '_FREE_STEPS', 0)
  monkeypatch.setattr(_budget, '_STEPS_PER_BYTE', 0)
  with pytest.raises(ValueError, match='more nodes or entries'):
    sources.load(str(path))


def test_the_budget_is_that_of_all_files_each_once(tmp_path):
  (tmp_path / 'a').write_bytes(bytes(10))
  os.link(tmp_path / 'a', tmp_path / 'b')
  (tmp_path / 'c').symlink_to(tmp_path / 'a')
  (tmp_path / 'd').write_bytes(bytes(5))
  budget = _budget.Budget.of(tmp_path)
  assert budget.num_bytes == 15
  budget.take(budget.bytes_left, 'all')
  with pytest.raises(ValueError, match='more than 64 times the 15 bytes'):
    budget.take(1, 'one more')
  for count in (-1, 1 << 80):
    with pytest.raises(ValueError, match='an array takes'):
      _budget.Budget(1 << 30).take(count, 'an array')
  for shape in ((-1,), (True,), (1.5,), (2,) * 33, (1 << 63,)):
    with pytest.raises(ValueError, match='no shape'):
      _budget.Budget(1 << 30).array('a', shape, 4)


def test_missing_name(case):
  path, _, _ = case
  with pytest.raises(KeyError, match=r"no array 'kernels'. Did you mean 'kernel'"):
    sources.load(str(path)).arrays['kernels']


def test_pickle_in_place_of_the_file_runs_nothing(case, canary):
  path, _, files = case
  poisoned = writers.poison(canary)
  pickle.loads(poisoned).close()  # It would, if somebody unpickled it.
  canary.unlink()
  for file in files:
    file.write_bytes(poisoned)
    with pytest.raises(ValueError, match=re.escape(str(path))):
      sources.load(str(path))


def test_unknown_format(tmp_path):
  (tmp_path / 'model.onnx').write_bytes(b'')
  with pytest.raises(ValueError, match=r'No format reads .*have gguf, h5, '):
    sources.load(str(tmp_path / 'model.onnx'))
  with pytest.raises(ValueError, match='No format reads'):
    sources.load(str(tmp_path))


@pytest.mark.parametrize(
  'writer', [writers.write_pth, writers.write_safetensors, writers.write_msgpack, writers.write_npz]
)
def test_bfloat16(writer, tmp_path):
  array = np.array([1, -2.5, 3e38], ml_dtypes.bfloat16)
  found = sources.load(str(writer(tmp_path, {'kernel': array}))).arrays['kernel']
  assert found.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(found, array)
