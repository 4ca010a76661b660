"""What a dry run says, and that the study does the same."""

import math

import jax
import numpy as np
import pytest
import scipy.stats

from tests.study import tiny
from tlx import report
from tlx.study import cells, config, cost, dry_run
from tlx.study.cells import counts_of
from tlx.study.cohorts import cohorts_of
from tlx.study.cost import (
  cost_table,
  frozen_flops,
  phases_for,
  prefix_flops,
  same_methods,
)
from tlx.study.pair import Pair
from tlx.study.phases import network_of
from tlx.train import prefix


def with_methods(**methods):
  made = tiny.get_config()
  made.methods = methods
  made.baseline = ''
  return made


def test_methods_that_are_the_same_are_said():
  made = with_methods(
    probe={'phases': ({'tune': 'head'},)},
    last_1={'phases': ({'tune': {'policy': 'last', 'k': 1}, 'layer_decay': 0.5},)},
    other={'phases': ({'tune': 'head'},), 'grid': {'learning_rate': (0.1, 0.2)}},
    longer={'phases': ({'tune': 'head', 'steps': 9},)},
    full={'phases': ({'tune': 'all'},)},
    scratch={'init': 'random', 'phases': ({'tune': 'all'},)},
  )
  study = config.resolve(made)
  assert same_methods(study, 'turned', 'digits') == [('probe', 'last_1', 'other')]
  assert (
    'probe and last_1 and other train the same parameters in the same way, with other rates '
    '(source turned).' in dry_run.describe(made)
  )
  made = with_methods(a={}, b={'phases': ({'tune': {'policy': 'after', 'k': 0}},)})
  assert 'a and b train the same parameters in the same way (source turned).' in dry_run.describe(
    made
  )


def test_depths_of_a_residual_network_are_different_methods():
  made = with_methods(
    **{f'last_{k}': {'phases': ({'tune': {'policy': 'last', 'k': k}},)} for k in range(1, 8)}
  )
  made.sources = {
    'resnet': {
      'backbone': {
        'name': 'resnet',
        'channels': (4, 4, 4, 8),
        'block': 'basic',
        'layers': (1, 1, 1, 2),
      },
      'weights': 'x.npz',
      'input': {'image_size': 32},
    }
  }
  assert same_methods(config.resolve(made), 'resnet', 'digits') == []


def test_settings_that_are_not_tried_are_said():
  made = with_methods(fixed={'phases': ({'tune': 'all', 'learning_rate': 0.1},)}, free={})
  text = dry_run.describe(made)
  assert 'fixed tries 1 of the 2 settings' in text and 'free tries' not in text


def test_frozen_stages_that_are_not_kept_are_said_and_what_keeps_them():
  made = with_methods(
    probe={'phases': ({'tune': 'head'},)},
    first={'phases': ({'tune': {'policy': 'after', 'k': 1}},)},
    full={},
  )
  assert 'config.feature_bytes' not in dry_run.describe(made)
  made.feature_bytes = 3e4
  (line,) = [line for line in dry_run.describe(made).split('\n') if 'feature_bytes' in line]
  assert line.startswith(
    'probe, first from turned on digits run frozen stages at every step: kept of '
  )
  made.feature_bytes = float(line.split('With ')[1].split()[0])
  assert 'config.feature_bytes' not in dry_run.describe(made)
  made.feature_bytes *= 0.98
  assert 'config.feature_bytes' in dry_run.describe(made)


def test_evaluation_is_counted():
  made = tiny.get_config()
  study = config.resolve(made)
  rows = {row['cohort'].split('-')[-1]: row for row in cost_table(study, cohorts_of(study))}
  forward = prefix_flops(
    network_of(study['sources']['turned'], 10),
    config.form_of(study['sources']['turned']),
    3,
  )
  counts = counts_of(study, study['targets']['digits'])
  assert counts['val'] > 200 and counts['test'] > 500
  assert rows['scratch']['evaluation'] == pytest.approx(
    forward * (8 * 2 * counts['val'] + 4 * counts['test']) / 1e9
  )
  assert rows['probe']['evaluation'] < 0.5 * rows['scratch']['evaluation']  # from the head on
  assert (
    f'{sum(row["evaluation"] for row in rows.values()):,.0f} GFLOP of evaluation'
    in dry_run.describe(made)
  )


def test_a_way_costs_what_its_stages_do():
  """As one program of all of them is counted; a stage is counted once, whoever asks."""
  study = config.resolve(tiny.get_config())
  source = study['sources']['turned']
  network, form = network_of(source, 10), config.form_of(source)
  x = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), x)
  for stop in (1, 2, 3):
    whole = jax.jit(lambda variables, x: network.apply(variables, x, train=False, stop=stop)[0])  # noqa: B023
    flops = whole.lower(variables, x).cost_analysis()['flops']
    assert prefix_flops(network, form, stop) == flops > 0
  cost._stage_flops.cache_clear()
  dry_run.describe(tiny.get_config())
  asked = cost._stage_flops.cache_info()
  assert asked.misses == 3 < asked.hits


def test_a_stage_that_computes_nothing_costs_nothing():
  idle = network_of(config.resolve(tiny.get_config())['sources']['turned'], 10)
  idle = idle._replace(apply=lambda variables, x, **_: (x, {}))
  form = config.form_of(config.resolve(tiny.get_config())['sources']['turned'])
  assert prefix_flops(idle, form, 1) == 0.0


def test_a_dry_run_computes_nothing(monkeypatch):
  """Not even a key, which is two programs to compile."""
  key = jax.random.key

  def traced(seed):
    made = key(seed)
    assert isinstance(made, jax.core.Tracer)
    return made

  monkeypatch.setattr(jax.random, 'key', traced)
  prefix.variable_shapes.cache_clear()
  dry_run.describe(tiny.get_config())


def test_reuse_only_where_it_costs_less():
  """One step of one run looks at fewer images than there are; many steps at more. An exact
  solution wants its activations anyway.
  """
  made = with_methods(probe={'phases': ({'tune': 'head', 'evaluations': 1, 'steps': 1},)})
  made.seeds, made.shots, made.grid.learning_rate = (0,), (0,), (1e-3,)
  starts = lambda made: [
    [phase.phase.start for phase in phases]
    for phases in phases_for(config.resolve(made), 'turned', 'digits').values()
  ]
  assert starts(made) == [[0]]
  cost = frozen_flops(config.resolve(made), 'turned', 'digits')
  assert cost.once == cost.instead == 0.0
  made.methods.probe.phases = ({'tune': 'head', 'evaluations': 1, 'steps': 2000},)
  assert starts(made) == [[2]]
  cost = frozen_flops(config.resolve(made), 'turned', 'digits')
  assert 0 < cost.once < cost.instead == cost.spared
  made.methods.probe.phases = ({'tune': 'head', 'evaluations': 1, 'steps': 1},)
  made.methods.exact = {'phases': ({'tune': 'head', 'solver': 'ridge'},)}
  assert starts(made) == [[2], [2]]
  made.reuse = False
  assert starts(made) == [[0], [2]]


def test_the_study_reuses_what_the_dry_run_says(data_dir):
  for steps in (1, 2000):
    made = with_methods(probe={'phases': ({'tune': 'head', 'evaluations': 1, 'steps': steps},)})
    made.seeds, made.shots, made.grid.learning_rate, made.data_dir = (
      (0,),
      (0,),
      (1e-3,),
      str(data_dir),
    )
    study = config.resolve(made)
    assert Pair(study, 'turned', 'digits', None).phases == phases_for(study, 'turned', 'digits')


def test_sizes_that_are_not_known_yet_are_said(monkeypatch):
  for module in (cells, cost):
    monkeypatch.setattr(module, 'counts_of', lambda study, data: {'train': 0, 'val': 0, 'test': 0})
  made = tiny.get_config()
  made.train.epochs = 3.0
  made.shots = (0,)
  text = dry_run.describe(made)
  assert (
    'What frozen stages spare on digits is not known yet' in text
    and 'not known yet of evaluation' in text
  )
  assert 'GFLOP instead of' not in text


def test_detectable_differences_are_those_of_a_t_test():
  """By simulation: 80% of studies find differences of that mean and standard deviation 1."""
  random = np.random.default_rng(0)
  for num_seeds in (3, 5, 10):
    differences = random.normal(dry_run.detectable(num_seeds), 1.0, (20_000, num_seeds))
    found = scipy.stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_what_the_planned_seeds_could_show_is_said(finished):
  made = tiny.get_config()
  made.seeds = (0, 1, 2, 3, 4)
  factor = dry_run.detectable(5)
  text = dry_run.describe(made)
  assert (
    'With 5 seeds' in text
    and f'from {factor:.1f} points on' in text
    and f'{5 * factor:.1f} by 5.' in text
  )
  assert 'In the finished runs they vary by' in dry_run.describe(made, finished[0])
  assert 'In the finished runs' not in dry_run.describe(made, finished[0] / 'nowhere')
  made.seeds = (0,)
  assert 'With one seed no difference' in dry_run.describe(made)


def test_differences_of_other_scores_than_accuracy_are_no_points():
  made = tiny.get_config()
  made.targets.digits.task = 'regression'
  text = dry_run.describe(made)
  factor = dry_run.detectable(len(made.seeds))
  assert f'from {factor:.1f} times their standard deviation over seeds on.' in text
  assert 'point' not in text.splitlines()[-1]


def test_the_spread_of_finished_runs_is_that_of_their_differences(finished):
  runs = report.read(finished[0])
  runs = runs[runs.chosen]
  spreads = []
  for (_, shots), part in runs[runs.method != 'scratch'].groupby(['method', 'shots']):
    base = runs[(runs.method == 'scratch') & (runs.shots == shots)].set_index('seed').test_accuracy
    spreads.append(100 * (part.set_index('seed').test_accuracy - base).std(ddof=1))
  assert dry_run._spread(config.resolve(tiny.get_config()), finished[0]) == pytest.approx(
    np.median(spreads)
  )
  assert math.isnan(dry_run._spread(config.resolve(tiny.get_config()), finished[0] / 'nowhere'))


def test_what_fewer_pixels_spare_is_said():
  made = with_methods(probe={'phases': ({'tune': 'head'},)})
  made.sources = {
    'lite': {
      'backbone': {'name': 'efficientnet_lite'},
      'weights': 'x.pth',
      'input': {'image_size': 64},
    }
  }
  text = dry_run.describe(made)
  assert (
    "config.sources.lite.input.image_size is 64; the weights' own is 224." in text
    and 'Examples of this input cost' in text
  )
  assert (
    config.resolve(
      {
        **made.to_dict(),
        'sources': {'lite': {'backbone': 'efficientnet_lite', 'weights': 'x.pth'}},
      }
    )['sources']['lite']['input']['image_size']
    == 224
  )
