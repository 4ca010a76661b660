"""Methods of each kind in a study: added calls, parameters, leaves that stay as they start."""

import functools
import json
import types

import jax
import numpy as np
import pytest

from tests.study import test_texts, tiny
from tlx import datasets, peft, report
from tlx.backbones import bert, cnn
from tlx.peft import lora
from tlx.plug import plug
from tlx.study import run, store
from tlx.study.informed import _program

METHODS = {
  'pissa': {'name': 'lora', 'at': 'linear$', 'rank': 2, 'init': 'pissa', 'dora': True},
  'vera': {'name': 'vera', 'at': 'linear$', 'rank': 4},
  'loha': {'name': 'loha', 'at': 'linear$', 'rank': 2},
  'eva': {'name': 'lora', 'at': 'linear$', 'rank': 2, 'init': 'eva'},
}
PAIRS = ((64, 16), (16, 12))
TRAINED = {
  'pissa': sum(2 * rows + 3 * columns for rows, columns in PAIRS),
  'vera': sum(4 + columns for _, columns in PAIRS),
  'loha': sum(4 * (rows + columns) for rows, columns in PAIRS),
  'eva': sum(2 * (rows + columns) for rows, columns in PAIRS),
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('added')
  config = tiny.get_config(steps='4')
  config.data_dir, config.shots, config.seeds = str(folder / 'data'), (4,), (0,)
  config.grid.learning_rate = (1e-2,)
  config.methods = {
    name: {'added': added, 'phases': ({'tune': 'added'},)} for name, added in METHODS.items()
  }
  config.methods['eva']['phases'][0]['steps'] = 1  # which moves b alone
  config.baseline = 'vera'
  return run.run(config, folder / 'study')


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


def test_eva_starts_where_the_inputs_of_a_runs_own_examples_vary_most(finished):
  """By the singular vectors of centred inputs; the first step moves b alone."""
  table = report.read(finished).set_index('method')
  parts = {'val_fraction': 0.22, 'test_fraction': 0.3}
  data = datasets.load('uci_digits', 8, 1, data_dir=str(finished.parent / 'data'), **parts)
  own = json.loads((finished / 'subsets' / 'digits.json').read_text())['0']['4']
  rows = np.flatnonzero(np.isin(data.train.ids, own))
  assert len(rows) == 40
  x = (data.train.take(rows)[0] / 255 - 0.3).reshape(40, 64) / 0.4
  source, _ = store.trained(finished / 'sources' / 'turned' / 'checkpoints', 0)
  leaves = peft.split(store.params(finished, table.id['eva'])[0], 'lora')[1]
  for stage in ('dense1', 'dense2'):
    want = np.linalg.svd(x - x.mean(0))[2][:2]
    found = leaves[f'{stage}/linear/a'].T
    np.testing.assert_allclose(np.abs((found * want).sum(1)), 1.0, atol=1e-4)
    linear = source[stage]['linear']
    x = np.maximum(x @ linear['kernel'] + linear['bias'], 0)
  # 40 examples once through the first two stages.
  flops = table.train_flops
  assert 40 * 2 * (64 * 16 + 16 * 12) < flops['eva'] < flops['loha']


def test_inputs_that_are_padding_tell_nothing():
  network = peft.wrap(bert.build(**bert.tiny()[0]), lora.added(rank=2, init='eva'))
  inputs = bert.tiny()[1]
  variables = network.init(jax.random.key(0), inputs)
  layers = lora.added(rank=2, init='eva').watched(variables.params)
  form = types.SimpleNamespace(enter=lambda x: x)
  longer = {name: np.pad(leaf, ((0, 0), (0, 3))) for name, leaf in inputs.items()}
  found = []
  for given, counts in ((inputs, [1, 1, 0]), (longer, [1, 1, 0])):
    found.append(_program.__wrapped__(network, form, layers)(variables, given, np.float32(counts)))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *found)
  assert float(found[0][layers[0]].number) == np.asarray(inputs['mask'])[:2].sum()


def test_eva_is_for_dense_layers():
  network = peft.wrap(cnn.build(**cnn.tiny()[0]), lora.added(at='conv', rank=2, init='eva'))
  with pytest.raises(ValueError, match="init='eva' is for dense layers, and block1/conv"):
    jax.eval_shape(network.init, jax.random.key(0), cnn.tiny()[1])


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
