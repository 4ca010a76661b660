"""Controls of transfer in a study: scales without weights, random features, a random subspace; what
a run saves, and how fast it answers.
"""

import json

import numpy as np
import pytest

from tests.study import tiny
from tlx import report
from tlx.study import run, store
from tlx.tree import named_leaves

METHODS = {
  # before those whose frozen stages reach further than what these have of the source
  'part': {'init': 'first_1', 'phases': ({'tune': 'all', 'steps': 0},)},
  'part_frozen': {'init': 'first_1', 'phases': ({'tune': {'policy': 'after', 'k': 1}},)},
  'part_probe': {'init': 'first_1', 'phases': ({'tune': 'head'},)},
  'mean_var': {'init': 'mean_var', 'phases': ({'tune': 'all', 'steps': 0},)},
  'scales': {'init': 'mean_var'},
  'random_features': {'init': 'random', 'phases': ({'tune': 'head'},)},
  'subspace': {'added': {'name': 'intrinsic', 'size': 20}, 'phases': ({'tune': 'added'},)},
  'probe': {'phases': ({'tune': 'head'},)},
}
HEAD = 12 * 10 + 10
ALL = 64 * 16 + 16 + 16 * 12 + 12 + HEAD


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  config = tiny.get_config(steps='4')
  config.sources.turned.train.steps = 4
  config.data_dir, config.shots = str(tmp_path_factory.mktemp('data')), (4,)
  config.grid.learning_rate, config.baseline = (1e-2,), 'probe'
  config.methods, config.evaluators = METHODS, ({'name': 'inference', 'batch_size': 7},)
  return run.run(config, tmp_path_factory.mktemp('controls') / 'study')


def test_mean_and_variance_are_the_sources_and_nothing_else(finished):
  table = report.read(finished)
  source, _ = store.trained(finished / 'sources' / 'turned' / 'checkpoints', 0)
  drawn = []
  for row in table[table.method == 'mean_var'].to_dict('records'):
    assert row['init'] == 'mean_var' and row['source_sha256']
    params, _ = store.params(finished, row['id'])
    for stage in ('dense1', 'dense2'):
      ours, theirs = (tree[stage]['linear']['kernel'] for tree in (params, source))
      error = 4 * theirs.std() / theirs.size**0.5
      assert abs(ours.mean() - theirs.mean()) < error
      assert abs(ours.std() - theirs.std()) < error
      assert abs(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]) < 4 / theirs.size**0.5
    drawn.append(params['dense1']['linear']['kernel'])
  assert np.abs(drawn[0] - drawn[1]).max() > 0.01  # another seed


def test_what_is_trained_and_saved(finished):
  table = report.read(finished)
  assert set(table.status) == {'ok'} and table.frozen_unchanged.all()
  by_method = table.groupby('method').first()
  upper = ALL - (64 * 16 + 16)
  trained = {'mean_var': 0, 'scales': ALL, 'random_features': HEAD, 'subspace': HEAD + 20}
  trained |= {'part': 0, 'part_frozen': upper, 'part_probe': HEAD}
  assert by_method.trainable_params.to_dict() == {**trained, 'probe': HEAD}
  # a seed of each of two stages beside the 20 numbers; random features are saved too
  saved = {'mean_var': ALL, 'scales': ALL, 'random_features': ALL, 'subspace': HEAD + 20 + 2}
  saved |= {'part': ALL, 'part_frozen': upper, 'part_probe': upper}  # but what the source has
  saved = {name: 4 * number for name, number in {**saved, 'probe': HEAD}.items()}
  assert by_method.saved_bytes.to_dict() == saved


def test_the_first_stages_are_the_sources_and_the_others_random(finished):
  table = report.read(finished)
  source, _ = store.trained(finished / 'sources' / 'turned' / 'checkpoints', 0)
  random = table.set_index(['method', 'seed']).id['random_features', 0]
  of_random, _ = store.params(finished, random)
  part = table[table.method.str.startswith('part')]
  assert set(part.init) == {'first_1'} and len(part) == 6
  for row in part.to_dict('records'):
    params, _ = store.params(finished, row['id'])
    first, second = (params[stage]['linear']['kernel'] for stage in ('dense1', 'dense2'))
    np.testing.assert_array_equal(first, source['dense1']['linear']['kernel'])
    # nor where the source of that seed began, which a random start of it does
    for other in (source, of_random):
      assert abs(second - other['dense2']['linear']['kernel']).max() > 0.1
  part = part.set_index('method')
  assert (part.reused_stages[['part_frozen', 'part_probe']] == 1).all()  # dense2 is each seed's own


@pytest.mark.parametrize(
  ('changed', 'said'),
  [
    ({'init': 'first_3'}, '2 groups of stages come before the head'),
    ({'init': 'first_x'}, 'first_3'),
    ({'init': 'first_1', 'phases': ({'penalty': 'l2_sp'},)}, "wants init = 'source'"),
  ],
)
def test_parts_that_there_are_not(tmp_path, changed, said):
  config = tiny.get_config(steps='4')
  config.methods, config.baseline = {**METHODS, 'part': changed}, 'probe'
  with pytest.raises(ValueError, match=said):
    run.run(config, tmp_path / 'study')


def test_random_features_stay_as_drawn(finished):
  table = report.read(finished).set_index(['method', 'seed'])
  first, second = (
    store.params(finished, table.id['random_features', seed])[0]['dense1'] for seed in (0, 1)
  )
  leaves = zip(named_leaves(first), named_leaves(second))
  assert any(np.abs(ours - theirs).max() > 0.01 for (_, ours), (_, theirs) in leaves)


def test_how_fast_a_run_answers_is_in_its_result(finished):
  flops = {}
  for path in finished.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    test = result['test']
    assert test['examples_per_second'] > 0 and test['inference_device'] != ['']
    assert result['evaluators'] == [{'name': 'inference', 'batch_size': 7}]
    flops.setdefault(result['cell']['method'], test['inference_flops'])
  # of the multiplications of three layers; what is added is merged before
  products = 2 * (64 * 16 + 16 * 12 + 12 * 10)
  assert products < flops['probe'] < 1.3 * products
  assert flops['subspace'] == flops['probe']
