"""How well scores order sources: published values, hand-worked ones."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.report import test_levels
from tlx.report import folder, ranking

# LogME of eleven networks on FGVC Aircraft (README of thuml/LogME) and their accuracy after
# fine-tuning there (tw_group1.py of TencentARC/SFDA).
AIRCRAFT = {
  'resnet152': (0.9501244943998941, 86.29),
  'resnet101': (0.948006158997241, 85.53),
  'mnasnet1_0': (0.947849273046989, 66.48),
  'resnet50': (0.9464738509680248, 84.64),
  'densenet169': (0.9434405008356792, 84.19),
  'densenet201': (0.9422277504393521, 85.38),
  'mobilenet_v2': (0.9412819194598648, 79.68),
  'inception_v3': (0.9398580258195871, 80.15),
  'densenet121': (0.9382284242364975, 84.66),
  'googlenet': (0.9338037297080976, 80.32),
  'resnet34': (0.9301353924624043, 84.06),
}


def test_published_protocol():
  found = ranking.agreement(*zip(*AIRCRAFT.values()))
  assert found.weighted_tau == pytest.approx(0.556955477774725)
  assert found.tau == pytest.approx(0.2727272727272727)
  assert found.regret == 0.0
  assert -1 <= found.low < found.weighted_tau < found.high <= 1


def test_regret_of_ties_is_their_mean():
  found = ranking.agreement([2.0, 2.0, 1.0], [0.5, 0.7, 0.8])
  assert found.regret == pytest.approx(0.8 - 0.6)
  assert math.isnan(found.low) and math.isnan(found.high)


def test_order_of_sources_does_not_matter_and_reversed_scores_reverse():
  random = np.random.default_rng(0)
  scores, results = random.normal(size=9), random.normal(size=9)
  order = random.permutation(9)
  one, other = (
    ranking.agreement(scores, results),
    ranking.agreement(scores[order], results[order]),
  )
  assert other.weighted_tau == pytest.approx(one.weighted_tau)
  assert one.rho == pytest.approx(stats.spearmanr(scores, results).statistic)
  assert ranking.agreement(-scores, results).tau == pytest.approx(-one.tau)


def test_constant_scores_order_nothing():
  found = ranking.agreement([1.0] * 5, [0.1, 0.2, 0.3, 0.4, 0.5])
  assert math.isnan(found.weighted_tau) and math.isnan(found.tau) and math.isnan(found.low)
  assert found.regret == pytest.approx(0.2)


@pytest.mark.parametrize('scores', [[1.0], [1.0, math.nan]])
def test_what_cannot_be_ordered_is_refused(scores):
  with pytest.raises(ValueError, match='Wanted scores|have to be finite'):
    ranking.agreement(scores, np.ones(len(scores)))


def test_scores_are_matched_to_results_by_name_not_by_order(tmp_path, make_study):
  test_levels.make(make_study, tmp_path, targets=('digits',), seeds=(0, 1))
  results = folder.load(tmp_path)
  runs = results.runs.query('method == "full" and chosen and shots == 1')
  means = runs.groupby('source_seed')['test_accuracy'].mean()
  assert means.nunique() == 3
  names = {0: 'm', 1: 'm@1', 2: 'm@2'}
  ranked = pd.DataFrame(
    [
      {'target': 'digits', 'source': names[seed], 'stage': 'fc', 'examples': 9, 'real': value}
      for seed, value in reversed(list(means.items()))
    ]
  ).assign(turned=lambda frame: -frame['real'], none=math.nan)
  found = ranking.against_results(ranked, results)
  found = found.query('method == "full" and shots == 1').set_index('score')
  assert set(found.index) == {'real', 'turned'} and set(found['sources']) == {3}
  assert found.loc['real', 'tau'] == pytest.approx(1) and found.loc['real', 'regret'] == 0
  assert found.loc['turned', 'tau'] == pytest.approx(-1) and found.loc['turned', 'regret'] > 0


def test_scores_that_hardly_differ_stay_pale():
  values = np.array([[0.2, 0.900, -4.0, 1.0, math.nan], [0.8, 0.909, -2.0, 1.0, math.nan]])
  shown = ranking.shades(values)
  assert shown[0].tolist()[:4] == [0, 0, 0, 0] and np.isnan(shown[:, 4]).all()
  # 0.009 of 0.909 is a fifth of what is shown as far apart
  assert shown[1][:4] == pytest.approx([1, 0.009 / (0.05 * 0.909), 1, 0])


def test_few_sources_are_said():
  rows = pd.DataFrame({'sources': [7, 4]})
  assert ranking.note(rows).startswith(
    'Orders of 4 sources often agree by chance, and fewer than 6'
  )
  assert ranking.note(rows[:1]) == '' == ranking.note(None)
  assert 'wants two sources or more' in ranking.note(rows[:0])
