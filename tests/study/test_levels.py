"""Source seeds and folds of a config: which sources, targets and runs they become."""

import pytest

from tests.study import tiny
from tlx.study import config as configs
from tlx.study.cells import cell_id, cells_of
from tlx.study.cohorts import cohorts_of
from tlx.study.dry_run import describe


@pytest.fixture
def config():
  return tiny.get_config()


def test_a_study_without_levels_resolves_as_it_did(config):
  study = configs.resolve(config)
  assert list(study['sources']) == ['turned'] and list(study['targets']) == ['digits']
  assert 'seeds' not in study['sources']['turned']
  assert not {'fold', 'folds'} & set(study['targets']['digits'])


def test_the_seed_of_a_source_keeps_its_name_and_others_say_theirs(config):
  plain = configs.resolve(config)['sources']['turned']
  config.sources.turned.seeds = (2, 0, 1)
  sources = configs.resolve(config)['sources']
  assert {name: source['seed'] for name, source in sources.items()} == {
    'turned@2': 2,
    'turned': 0,
    'turned@1': 1,
  }
  assert sources['turned'] == plain and sources['turned@2'] == {**plain, 'seed': 2}
  config.sources.turned.seed = 7
  assert list(configs.resolve(config)['sources']) == ['turned@2', 'turned@0', 'turned@1']


def test_a_random_start_is_run_for_one_source_seed_alone(config):
  config.sources.turned.seeds = (1, 0)
  cells = cells_of(configs.resolve(config))
  found = {(cell.source, cell.method) for cell in cells}
  wanted = {('turned', method) for method in ('scratch', 'probe', 'lp_ft')}
  assert found == wanted | {('turned@1', 'probe'), ('turned@1', 'lp_ft')}
  assert 'turned@1-digits-probe-1shot-seed0-lr0.001' in map(cell_id, cells)


def test_folds_are_targets_with_a_test_part_each(config):
  config.targets.digits.folds = 3
  targets = configs.resolve(config)['targets']
  assert list(targets) == ['digits@1of3', 'digits@2of3', 'digits@3of3']
  assert [target['fold'] for target in targets.values()] == [1, 2, 3]
  assert {target['folds'] for target in targets.values()} == {3}
  assert {target['test_fraction'] for target in targets.values()} == {1 / 3}


def weights(config):
  config.sources.turned = {'backbone': 'mlp', 'weights': 'path:x.npz', 'seeds': (0, 1)}


@pytest.mark.parametrize(
  'change, words',
  [
    (weights, r'sources\.turned\.seeds is for a source that the study trains'),
    (lambda c: c.sources.turned.update(seeds=(1, 1)), r'seeds takes different whole numbers'),
    (lambda c: c.targets.digits.update(folds=1), r'targets\.digits\.folds is 1; there are two'),
    (
      lambda c: c.targets.digits.update(folds=5, test_fraction=0.2),
      r'folds is 5 beside test_fraction',
    ),
  ],
)
def test_levels_that_cannot_be_are_refused(config, change, words):
  change(config)
  with pytest.raises(ValueError, match=words):
    configs.resolve(config)


def test_folds_of_what_has_a_test_part_are_refused_before_data_are_read(config):
  config.targets.digits.folds = 5
  with pytest.raises(ValueError, match=r'targets\.digits: folds .* has a test part of its own'):
    cohorts_of(configs.resolve(config))


def test_the_dry_run_says_what_its_estimate_leaves_out(config):
  assert 'source seed' not in describe(config)
  config.sources.turned.seeds = (0, 1)
  assert 'within one source seed and fold' in describe(config)
