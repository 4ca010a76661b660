"""Methods of each kind in a study: added calls, parameters, leaves that stay as they start."""

import numpy as np
import pytest

from tests.study import test_texts, tiny
from tlx import peft, report
from tlx.plug import plug
from tlx.study import run, store

METHODS = {
  'pissa': {'name': 'lora', 'at': 'linear$', 'rank': 2, 'init': 'pissa', 'dora': True},
  'vera': {'name': 'vera', 'at': 'linear$', 'rank': 4},
  'loha': {'name': 'loha', 'at': 'linear$', 'rank': 2},
}
PAIRS = ((64, 16), (16, 12))
TRAINED = {
  'pissa': sum(2 * rows + 3 * columns for rows, columns in PAIRS),
  'vera': sum(4 + columns for _, columns in PAIRS),
  'loha': sum(4 * (rows + columns) for rows, columns in PAIRS),
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  config = tiny.get_config(steps='4')
  config.data_dir, config.shots, config.seeds = str(tmp_path_factory.mktemp('data')), (4,), (0,)
  config.grid.learning_rate = (1e-2,)
  config.methods = {
    name: {'added': added, 'phases': ({'tune': 'added'},)} for name, added in METHODS.items()
  }
  config.baseline = 'vera'
  return run.run(config, tmp_path_factory.mktemp('added') / 'study')


def test_what_is_trained_and_counted(finished):
  table = report.read(finished)
  assert set(table.status) == {'ok'} and table.frozen_unchanged.all()
  trained = table.groupby('method').trainable_params.first().to_dict()
  assert trained == {name: 130 + number for name, number in TRAINED.items()}


def test_what_starts_from_the_source_does_and_fixed_leaves_stay(finished):
  table = report.read(finished).set_index('method')
  source, _ = store.trained(finished / 'sources' / 'turned' / 'checkpoints', 0)
  params, _ = store.params(finished, table.id['pissa'])
  leaves = peft.split(params, 'lora')[1]
  for stage in ('dense1', 'dense2'):
    kernel = source[stage]['linear']['kernel']
    own = {name.removeprefix(f'{stage}/linear/'): leaf for name, leaf in leaves.items()}
    left, values, right = np.linalg.svd(kernel)
    want = (left[:, :2] * values[:2]) @ right[:2]
    np.testing.assert_allclose(2 * own['fixed/a'] @ own['fixed/b'], want, atol=1e-5)
    assert np.abs(own['a'] - own['fixed/a']).max() > 1e-4
  method = {name: option for name, option in METHODS['pissa'].items() if name != 'name'}
  merged = plug('peft', 'lora').added(**method).merge(params)
  assert (
    np.abs(merged['dense1']['linear']['kernel'] - source['dense1']['linear']['kernel']).max() > 0
  )
  vera = peft.split(store.params(finished, table.id['vera'])[0], 'vera')[1]
  np.testing.assert_array_equal(vera['dense1/fixed/b'], vera['dense2/fixed/b'])
  assert np.abs(vera['dense1/linear/b']).max() > 0


def test_tokens_are_added_in_a_study_of_texts(tmp_path):
  config = test_texts.get_config(tmp_path)
  config.sources.topics.train.steps = 8
  config.methods = {}
  for name in ('prompt', 'prefix'):
    added = {'name': name, 'tokens': 3}
    config.methods[name] = {'added': added, 'phases': ({'tune': 'added'},)}
  config.shots, config.seeds, config.baseline = (2,), (0,), 'prompt'
  config.grid.learning_rate, config.train.steps = (1e-2,), 4
  table = report.read(run.run(config, tmp_path / 'study'))
  assert set(table.status) == {'ok'} and table.frozen_unchanged.all()
  trained = table.groupby('method').trainable_params.first().to_dict()
  head = 3 * (16 + 1)
  assert trained == {'prompt': head + 3 * 16, 'prefix': head + 2 * 2 * 3 * 16}
