import math

import numpy as np
import pytest
from scipy import stats

from tlx.report import statistics


def test_mean_interval_by_hand():
  # s = 1, t(.975, 2) = 4.302653 (tables), 4.302653 / sqrt(3) = 2.484138
  interval = statistics.mean_interval([1.0, 2.0, 3.0])
  np.testing.assert_allclose(interval, (2.0, 2 - 2.484138, 2 + 2.484138, 3), atol=1e-6)


def test_mean_interval_is_scipys():
  values = np.random.default_rng(0).normal(size=7)
  low, high = stats.t.interval(0.9, 6, values.mean(), stats.sem(values))
  np.testing.assert_allclose(statistics.mean_interval(values, level=0.9)[:3], (values.mean(), low, high), rtol=1e-12)


def test_one_value_has_no_interval_and_equal_values_have_none_but_a_point():
  one = statistics.mean_interval([0.7])
  assert one.mean == 0.7 and one.n == 1 and math.isnan(one.low) and math.isnan(one.high)
  assert statistics.bootstrap_interval([0.7])[:1] == (0.7,) and math.isnan(statistics.bootstrap_interval([0.7]).low)
  equal = statistics.mean_interval([0.1, 0.1, 0.1])  # whose float mean is not 0.1
  assert equal.high - equal.low == 0.0
  assert statistics.mean_interval([]).n == 0


def test_not_finite_is_an_error():
  with pytest.raises(ValueError, match='finite'):
    statistics.mean_interval([0.1, math.nan])


def test_bootstrap_is_scipys():
  values = np.random.default_rng(1).normal(size=12)
  wanted = stats.bootstrap((values,), np.mean, method='percentile', n_resamples=20000, random_state=np.random.default_rng(5))
  interval = statistics.bootstrap_interval(values, num_resamples=20000)
  np.testing.assert_allclose((interval.low, interval.high), wanted.confidence_interval, atol=0.02)
  assert interval == statistics.bootstrap_interval(values, num_resamples=20000)


def test_paired_is_scipys_over_the_common_seeds():
  random = np.random.default_rng(2)
  a, b = dict(enumerate(random.normal(0.2, 1, 9))), dict(enumerate(random.normal(0, 1, 8)))
  pair = statistics.paired(a, b)
  x, y = np.array([a[i] for i in range(8)]), np.array([b[i] for i in range(8)])
  test = stats.ttest_rel(x, y)
  assert pair.n == 8 and pair.num_missing == 1
  np.testing.assert_allclose(pair.t_p, test.pvalue, rtol=1e-6)
  np.testing.assert_allclose((pair.low, pair.high), test.confidence_interval(), rtol=1e-6)
  np.testing.assert_allclose(pair.wilcoxon_p, stats.wilcoxon(x, y).pvalue)
  assert (pair.wins, pair.ties, pair.losses) == ((x > y).sum(), 0, (x < y).sum())


def test_paired_counts_rounding_as_a_tie():
  pair = statistics.paired({0: 0.1 + 0.2, 1: 0.5, 2: 0.1}, {0: 0.3, 1: 0.4, 2: 0.2})
  assert (pair.wins, pair.ties, pair.losses) == (1, 1, 1) and math.isnan(pair.wilcoxon_p)


def test_paired_without_variance():
  equal = statistics.paired(dict.fromkeys(range(6), 0.4), dict.fromkeys(range(6), 0.4))
  assert (equal.difference, equal.t_p, equal.wilcoxon_p, equal.ties) == (0.0, 1.0, 1.0, 6)
  moved = statistics.paired({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 1: 0.6, 2: 0.8})
  assert moved.t_p == 0.0 and moved.low == moved.high == pytest.approx(0.1)


def test_paired_with_one_or_no_pair():
  one = statistics.paired({0: 0.5, 1: 0.6}, {0: 0.4, 2: 0.1})
  assert one.n == 1 and one.num_missing == 2 and math.isnan(one.low) and math.isnan(one.t_p)
  assert statistics.paired({0: 0.5}, {1: 0.4}).n == 0


def test_six_wins_reach_wilcoxons_smallest_p():
  pair = statistics.paired({i: 0.5 + 0.01 * i for i in range(6)}, dict.fromkeys(range(6), 0.4))
  assert pair.wilcoxon_p == 2 / 2**6


def test_holm_by_hand():
  # .005*4, max with .01*3, .03*2, .04*1; the untested one does not count
  np.testing.assert_allclose(statistics.holm([0.01, 0.04, math.nan, 0.03, 0.005]), [0.03, 0.06, math.nan, 0.06, 0.02])
  assert statistics.holm([0.9, 0.8]).tolist() == [1.0, 1.0] and len(statistics.holm([])) == 0


def test_effective_data_interpolates_in_log_size_and_never_beyond():
  sizes, scores = [1, 10, 100], [0.2, 0.6, 0.5]
  assert statistics.effective_data(0.4, sizes, scores) == (pytest.approx(math.sqrt(10)), '')
  assert statistics.effective_data(0.2, sizes, scores) == (1.0, '')
  assert statistics.effective_data(0.1, sizes, scores) == (1.0, '<=')
  assert statistics.effective_data(0.61, sizes, scores) == (100.0, '>=')
  with pytest.raises(ValueError, match='rising sizes'):
    statistics.effective_data(0.5, [10, 1], [0.2, 0.6])


def test_effective_data_recovers_hernandez_2021():
  # Their fit for text to python, D_T = 1.9e4 D_F^.18 N^.38 at D_F = 1e6 and N = 1e8; a curve straight in log data, so exact.
  transferred = 1.9e4 * 1e6**0.18 * 1e8**0.38
  assert transferred == pytest.approx(250468780.32571733)
  sizes = [1e5, 1e7, 1e9]
  effective, bound = statistics.effective_data(math.log(1e6 + transferred), sizes, [math.log(size) for size in sizes])
  assert bound == '' and effective - 1e6 == pytest.approx(transferred)


def test_first_reaching():
  assert statistics.first_reaching(0.5, [10, 20, 30], [0.4, 0.5, 0.6]) == 20
  assert statistics.first_reaching(0.7, [10, 20, 30], [0.4, 0.5, 0.6]) == math.inf


def test_rliables_numbers():
  """Golden values of rliable (Agarwal et al. 2021) for five runs of four tasks."""
  random = np.random.RandomState(7)
  a = random.rand(5, 4)
  b = a + 0.1 * random.randn(5, 4) + 0.02
  assert a.mean() == pytest.approx(0.48126400765922045)
  assert statistics.interquartile_mean(a) == pytest.approx(0.4770252914664793, rel=1e-12)
  assert statistics.interquartile_mean(a) == pytest.approx(stats.trim_mean(a, 0.25, axis=None))
  assert statistics.probability_of_improvement(b, a) == pytest.approx(0.48)
  interval = statistics.iqm_interval(a)
  assert interval.low < interval.mean < interval.high and interval.mean == statistics.interquartile_mean(a)


def test_iqm_interval_resamples_runs_within_tasks():
  apart = np.array([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])  # each task is certain, so the mean is
  assert statistics.iqm_interval(apart)[:3] == pytest.approx((0.5, 0.5, 0.5))
  assert math.isnan(statistics.iqm_interval(apart[:1]).low)
