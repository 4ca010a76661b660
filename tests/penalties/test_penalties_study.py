"""Penalties in a study: they change runs, cost what they compute, and refuse what they lack."""

import jax
import numpy as np
import pytest

from tests.study import tiny
from tlx import report
from tlx.penalties import half_square, moved
from tlx.study import config as configs
from tlx.study import run, store
from tlx.study.cohorts import cohorts_of

PENALTIES = {
  'full': '',
  'l2_sp': {'name': 'l2_sp', 'alpha': 10.0},
  'co_tuning': 'co_tuning',
  'ewc': {'name': 'ewc', 'alpha': 100.0, 'examples': 50},
}


def study_of(data_dir, seeds, methods, **fields):
  config = tiny.get_config(steps='6')
  config.data_dir, config.shots, config.seeds = str(data_dir), (4,), seeds
  config.grid.learning_rate = (1e-2,)
  config.methods = {
    name: {'phases': ({'penalty': penalty, **fields},)} for name, penalty in methods.items()
  }
  config.baseline = next(iter(methods))
  return config


@pytest.fixture(scope='module')
def places(tmp_path_factory):
  return tmp_path_factory.mktemp('data'), tmp_path_factory.mktemp('penalties')


@pytest.fixture(scope='module')
def finished(places):
  return run.run(study_of(places[0], (0, 1), PENALTIES), places[1] / 'study')


def distances(folder):
  """{method: how far its run of seed 0 went from the source}."""
  source, _ = store.trained(folder / 'sources' / 'turned' / 'checkpoints', 0)
  source = {**source, 'head': jax.tree.map(lambda _: None, source['head'])}
  table = report.read(folder)
  first = table[table.seed == 0].set_index('method').id
  params = {method: store.params(folder, name)[0] for method, name in first.items()}
  return {method: float(half_square(moved(own, source))) for method, own in params.items()}


def test_what_is_held_stays_nearer_to_the_source(finished):
  found = distances(finished)
  assert found['l2_sp'] < 0.9 * found['full'] and found['ewc'] < found['full']
  assert abs(found['co_tuning'] - found['full']) > 1e-6


def test_the_source_and_what_is_observed_are_paid_for(finished):
  flops = report.read(finished).groupby('method').train_flops.first()
  assert flops['full'] < flops['l2_sp'] < flops['ewc']  # 50 examples, forward and backward
  assert flops['co_tuning'] > 1.1 * flops['full']


def test_a_run_alone_equals_that_of_a_cohort(places, finished):
  wanted = {name: PENALTIES[name] for name in ('co_tuning', 'ewc')}
  alone = run.run(study_of(places[0], (0,), wanted), places[1] / 'alone')
  of_both = {folder: report.read(folder).set_index('id') for folder in (finished, alone)}
  for name in of_both[alone].index:
    one, other = (store.params(folder, name)[0] for folder in (finished, alone))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'penalty, fields, said',
  [
    ('l2_ps', {}, "Did you mean 'l2_sp'"),
    ({'name': 'l2_sp', 'strength': 1}, {}, 'strength'),
    ({'name': 'bss', 'k': 0}, {}, 'k is a whole number of at least 1'),
    ('l2_sp', {'tune': 'head'}, 'trains none that it reaches'),
    ('bss', {'tune': 'head'}, 'trains the head alone'),
    ('stochnorm', {}, 'batch norms'),
    ({'name': 'delta', 'stages': ('dense9',)}, {}, 'no stage before the head'),
    ('l2_sp', {'tune': 'head', 'solver': 'ridge'}, 'step by step'),
  ],
)
def test_what_cannot_be_held_is_refused_before_anything_runs(places, penalty, fields, said):
  config = study_of(places[0], (0,), {'held': penalty}, **fields)
  with pytest.raises(ValueError, match=said):
    cohorts_of(configs.resolve(config))


def test_a_random_start_has_no_source(places):
  config = study_of(places[0], (0,), {'held': 'l2_sp'})
  config.methods['held']['init'] = 'random'
  with pytest.raises(ValueError, match="wants init = 'source'"):
    cohorts_of(configs.resolve(config))
