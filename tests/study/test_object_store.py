"""A study whose folder is in an object store: fsspec's memory stands in for one."""

import jax
import numpy as np
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from tests.study import tiny
from tlx import report
from tlx.study import run, store


class Memory(MemoryFileSystem):
  """S3, as long as the process."""

  protocol = 's3'
  store, pseudo_dirs = {}, ['']

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).removeprefix('s3:/'))


@pytest.fixture
def bucket(monkeypatch):
  monkeypatch.setitem(_registry, 's3', Memory)
  return 's3://bucket/study'


def test_a_study_lives_in_an_object_store(bucket, data_dir, tmp_path):
  """Interrupted there and gone on with, it leaves what it leaves on a disk."""
  config = tiny.get_config(steps='4')
  config.data_dir, config.seeds, config.shots = str(data_dir), (0,), (1,)
  config.methods = {'scratch': {'init': 'random'}, 'probe': {'phases': ({'tune': 'head'},)}}
  run.run(config, tmp_path / 'here')
  told = []

  def interrupt(folder, runs):
    told.extend(runs)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run.run(config, bucket, written=interrupt)
  assert len(told) == 2  # one method's
  run.run(config, bucket)
  here, there = report.read(tmp_path / 'here'), report.read(bucket)
  cost = ('features', 'peak_memory_bytes', 'compiled_programs')  # of what this process did before
  numbers = [name for name in here if 'seconds' not in name and name not in cost]
  assert [name for name in numbers if not here[name].equals(there[name])] == []
  name = there.id.iloc[0]
  params, _ = store.params(epath.Path(bucket), name)
  expected, _ = store.params(epath.Path(tmp_path / 'here'), name)
  jax.tree.map(np.testing.assert_array_equal, params, expected)
