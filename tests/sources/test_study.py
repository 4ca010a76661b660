"""Runs of earlier studies as sources: what a run trained over what its source holds, and nothing of
a damaged folder.
"""

import re

import jax
import numpy as np
import pytest
from etils import epath

from tlx import checkpoint, sources

# What the study's source holds, and what two runs of a cohort trained, stacked.
SOURCE = {
  'stem': {'kernel': np.full((3, 2), 5, np.float32)},
  'block': {'kernel': np.ones(2, np.float32), 'bias': np.ones(2, np.float32)},
  'head': {'kernel': np.ones((2, 7), np.float32)},
}
TRAINED = {
  'block': {'bias': np.arange(4, dtype=np.float32).reshape(2, 2)},
  'head': {'kernel': np.arange(8, dtype=np.float32).reshape(2, 2, 2)},
}
OWN = {'block': {'kernel': np.full((2, 2), 9, np.float32)}}  # frozen, and the run's own
STATS = {'block': {'norm': {'mean': np.array([[1, 2], [3, 4]], np.float32)}}}


def write_study(workdir, init='source', frozen=None, meta=None):
  """A study of one finished run, 'run-a', which is the second of its cohort."""
  workdir = epath.Path(workdir)

  def one(tree):
    """The tree with an axis of one run."""
    return jax.tree.map(lambda leaf: leaf[None], tree)

  checkpoint.save(
    workdir / 'sources' / 'base' / 'checkpoints',
    4,
    {'state': {'trainable': one(SOURCE), 'stats': {}}},
    {},
  )
  tree = {
    'state': {'trainable': TRAINED, 'stats': STATS, 'opt_state': {'mu': np.zeros(2)}},
    'sums': {'loss': np.zeros(2)},
    'frozen': frozen or {},
  }
  checkpoint.save(workdir / 'cohorts' / 'c' / 'checkpoints', 8, tree, {})
  (workdir / 'runs' / 'run-a').mkdir(parents=True)
  checkpoint.write_json(workdir / 'study.json', {'name': 'earlier'})
  result = {
    'cohort': 'c',
    'row': 1,
    'init': init,
    'head': 'head',
    'cell': {'source': 'base'},
    **(meta or {}),
  }
  checkpoint.write_json(workdir / 'runs' / 'run-a' / 'result.json', checkpoint.sealed(result))
  return f'study:{workdir}/run-a'


def test_trained_leaves_lie_over_those_of_the_source(tmp_path):
  uri = write_study(tmp_path)
  weights = sources.load(uri)
  want = {
    'stem/kernel': SOURCE['stem']['kernel'],
    'block/kernel': np.ones(2),
    'block/bias': [2, 3],
    'head/kernel': [[4, 5], [6, 7]],
    'block/norm/mean': [3, 4],
  }
  assert weights.arrays.keys() == want.keys()
  for name, array in want.items():
    np.testing.assert_array_equal(weights.arrays[name], array)
  about = {
    'uri': uri,
    'file': 'run-a',
    'format': 'study',
    'num_tensors': 5,
    'study': 'earlier',
    'run': 'run-a',
  }
  assert about.items() <= weights.provenance.items()
  assert weights.metadata == {'stats': ['block/norm/mean'], 'head': 'head'}
  with pytest.raises(KeyError, match="no array 'stem/kernels'. Did you mean 'stem/kernel'"):
    weights.arrays['stem/kernels']


def test_a_run_from_scratch_has_its_own_leaves_alone(tmp_path):
  arrays = sources.load(write_study(tmp_path, init='random', frozen=OWN)).arrays
  assert set(arrays) == {'block/kernel', 'block/bias', 'head/kernel', 'block/norm/mean'}
  np.testing.assert_array_equal(arrays['block/kernel'], [9, 9])


def test_the_digest_is_that_of_the_weights(tmp_path):
  uri = write_study(tmp_path / 'one')
  same = write_study(tmp_path / 'other', meta={'cost': {'train_seconds': 2.5}})
  first, second = (sources.load(u).provenance['sha256'] for u in (uri, same))
  assert first == second == sources.digest(sources.resolve(uri))
  sources.load(uri, first.upper())
  with pytest.raises(ValueError, match=f'(?s)wanted {"f" * 64}.*got +{first}'):
    sources.load(uri, 'f' * 64)
  changed = write_study(tmp_path / 'changed', meta={'row': 0})
  with pytest.raises(ValueError, match='Wrong sha256'):
    sources.load(changed, first)


def flip(data):
  return bytes([*data[: len(data) // 2], data[len(data) // 2] ^ 1, *data[len(data) // 2 + 1 :]])


@pytest.mark.parametrize(
  'damage',
  [flip, lambda data: data[: len(data) // 2], lambda data: b''],
  ids=['a bit', 'half', 'all'],
)
@pytest.mark.parametrize('part', ['cohorts/c', 'sources/base'])
def test_a_damaged_checkpoint_is_an_error(tmp_path, part, damage):
  uri = write_study(tmp_path)
  data = [
    file for file in (tmp_path / part).rglob('*') if file.is_file() and file.parent.name == 'd'
  ]
  assert data
  for file in data:
    file.write_bytes(damage(file.read_bytes()))
  with pytest.raises(
    ValueError,
    match=rf'(?s){re.escape(str(tmp_path))}/runs/run-a cannot be read as study: .*{part}.*is '
    r'damaged',
  ):
    sources.load(uri)


@pytest.mark.parametrize(
  'text',
  [
    '',
    '{',
    '[]',
    '{"cohort": "c"}',
    '{"cohort": "none", "row": 0, "init": "random", "head": "head"}',
  ],
)
def test_a_broken_result_is_an_error(tmp_path, text):
  uri = write_study(tmp_path)
  (tmp_path / 'runs' / 'run-a' / 'result.json').write_text(text)
  with pytest.raises(ValueError, match='run-a cannot be read as study: '):
    sources.load(uri)


@pytest.mark.parametrize(
  'rest, message',
  [
    ('{}/run-b', r"no finished run 'run-b' in .* Did you mean 'run-a'\? It has 1: run-a"),
    ('{}/..', 'no finished run'),
    ('{}/none/run-a', 'there is no study.json in'),
    ('run-a', r'wanted study:WORKDIR/RUN'),
    ('{}/', 'wanted study:WORKDIR/RUN'),
  ],
)
def test_what_is_no_run(tmp_path, rest, message):
  write_study(tmp_path)
  with pytest.raises(ValueError, match=message):
    sources.load('study:' + rest.format(tmp_path))
