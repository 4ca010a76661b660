import itertools
import math
from fractions import Fraction

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
  np.testing.assert_allclose(
    statistics.mean_interval(values, level=0.9)[:3], (values.mean(), low, high), rtol=1e-12
  )


def test_one_value_has_no_interval_and_equal_values_have_none():
  one = statistics.mean_interval([0.7])
  assert one.mean == 0.7 and one.n == 1 and math.isnan(one.low) and math.isnan(one.high)
  assert statistics.bootstrap_interval([0.7])[:1] == (0.7,)
  assert math.isnan(statistics.bootstrap_interval([0.7]).low)
  for interval in (statistics.mean_interval, statistics.bootstrap_interval):
    equal = interval([0.1, 0.1, 0.1])  # whose float mean is not 0.1
    assert equal.n == 3 and math.isnan(equal.low) and math.isnan(equal.high)
  assert statistics.mean_interval([]).n == 0


def test_not_finite_is_an_error():
  with pytest.raises(ValueError, match='finite'):
    statistics.mean_interval([0.1, math.nan])


def test_bootstrap_is_scipys():
  values = np.random.default_rng(1).normal(size=12)
  wanted = stats.bootstrap(
    (values,),
    np.mean,
    method='percentile',
    n_resamples=20000,
    random_state=np.random.default_rng(5),
  )
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


@pytest.mark.parametrize('gap', [0.0, 0.1])
def test_differences_that_do_not_vary_have_no_interval_and_no_p(gap):
  pair = statistics.paired(
    {i: 0.4 + 0.05 * i + gap for i in range(6)}, {i: 0.4 + 0.05 * i for i in range(6)}
  )
  assert pair.difference == pytest.approx(gap) and pair.n == 6 and pair.wins + pair.ties == 6
  assert all(map(math.isnan, (pair.low, pair.high, pair.t_p, pair.wilcoxon_p)))
  assert all(map(math.isnan, statistics.holm([pair.t_p, pair.t_p])))


def by_hand(differences):
  """Wilcoxon's p over all 2^n choices of signs."""
  moved = [d for d in differences if d]
  ranks = stats.rankdata(np.abs(moved))
  found = min(ranks[np.array(moved) > 0].sum(), ranks[np.array(moved) < 0].sum())
  sums = [
    sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(moved))
  ]
  return min(1.0, 2 * np.mean([total <= found for total in sums]))


def test_wilcoxon_is_exact_with_ties_of_counts():
  found = [6, -1, 5, 4, -4, 4, 2, 4]
  assert by_hand(found) == pytest.approx(0.09375)
  # As float32 quotients equal differences of counts are not equal, and p would be .047 or so
  base = [511, 530, 502, 547, 560, 513, 529, 541]
  scores = {i: Fraction(b + d, 599) for i, (b, d) in enumerate(zip(base, found))}
  pair = statistics.paired(scores, {i: Fraction(b, 599) for i, b in enumerate(base)})
  assert pair.wilcoxon_p == pytest.approx(by_hand(found), abs=1e-12)


@pytest.mark.parametrize('seed', range(6))
def test_wilcoxon_is_the_full_enumeration(seed):
  found = np.random.default_rng(seed).integers(-3, 5, size=6 + seed)
  assert statistics.signed_rank(found.tolist()) == pytest.approx(by_hand(found.tolist()), abs=1e-12)
  apart = np.random.default_rng(seed).normal(0.3, 1, size=6 + seed)
  assert statistics.signed_rank(apart.tolist()) == pytest.approx(
    stats.wilcoxon(apart, method='exact').pvalue, abs=1e-12
  )


def test_wilcoxon_of_nothing():
  assert math.isnan(statistics.signed_rank([0.0, 0.0]))


def test_paired_with_one_or_no_pair():
  one = statistics.paired({0: 0.5, 1: 0.6}, {0: 0.4, 2: 0.1})
  assert one.n == 1 and one.num_missing == 2 and math.isnan(one.low) and math.isnan(one.t_p)
  assert statistics.paired({0: 0.5}, {1: 0.4}).n == 0


def test_six_wins_reach_wilcoxons_smallest_p():
  pair = statistics.paired({i: 0.5 + 0.01 * i for i in range(6)}, dict.fromkeys(range(6), 0.4))
  assert pair.wilcoxon_p == 2 / 2**6


def test_holm_by_hand():
  # .005*4, max with .01*3, .03*2, .04*1; the untested one does not count
  np.testing.assert_allclose(
    statistics.holm([0.01, 0.04, math.nan, 0.03, 0.005]), [0.03, 0.06, math.nan, 0.06, 0.02]
  )
  assert statistics.holm([0.9, 0.8]).tolist() == [1.0, 1.0] and len(statistics.holm([])) == 0


def test_effective_data_interpolates_in_log_size_and_never_beyond():
  sizes, scores = [1, 10, 100], [0.2, 0.6, 0.5]
  assert statistics.effective_data(0.4, sizes, scores) == (pytest.approx(math.sqrt(10)), '')
  assert statistics.effective_data(0.2, sizes, scores) == (1.0, '')
  assert statistics.effective_data(0.1, sizes, scores) == (1.0, '<=')
  assert statistics.effective_data(0.61, sizes, scores) == (100.0, '>=')
  with pytest.raises(ValueError, match='rising sizes'):
    statistics.effective_data(0.5, [10, 1], [0.2, 0.6])


def test_a_curve_that_does_not_rise_is_worth_no_data():
  for scores in ([0.5, 0.5], [0.5, 0.4], [0.1, 0.1]):
    for score in (0.4, 0.5, 0.6):
      assert math.isnan(statistics.effective_data(score, [1, 16], scores)[0])


def test_the_interval_of_effective_data_is_that_of_its_draws_and_open_beyond_the_curve():
  random = np.random.default_rng(0)
  sizes = [1, 4, 16, 64]
  curves = np.array([0.3, 0.5, 0.6, 0.7]) + random.normal(0, 0.02, (401, 4))
  scores = 0.55 + random.normal(0, 0.02, 401)
  found = [
    statistics.effective_data(score, sizes, curve)[0] for score, curve in zip(scores, curves)
  ]
  ends = np.quantile(found, (0.025, 0.975), method='inverted_cdf')
  assert statistics.effective_data_interval(scores, sizes, curves) == pytest.approx(tuple(ends))
  low, high = statistics.effective_data_interval(scores + 0.2, sizes, curves)
  assert high == math.inf and 16 < low <= 64  # half of the draws are beyond the last size
  low, high = statistics.effective_data_interval(scores - 0.25, sizes, curves)
  assert low == 0 and 1 < high < 4
  falling = np.tile([0.5, 0.4, 0.3, 0.2], (401, 1))
  assert statistics.effective_data_interval(scores, sizes, falling) == (0, math.inf)
  curves[:20, 2] = math.nan  # a draw without a run
  assert statistics.effective_data_interval(scores, sizes, curves) == (0, math.inf)


def test_effective_data_recovers_hernandez_2021():
  # Their fit for text to python, D_T = 1.9e4 D_F^.18 N^.38 at D_F = 1e6 and N = 1e8; a curve
  # straight in log data, so exact.
  transferred = 1.9e4 * 1e6**0.18 * 1e8**0.38
  assert transferred == pytest.approx(250468780.32571733)
  sizes = [1e5, 1e7, 1e9]
  effective, bound = statistics.effective_data(
    math.log(1e6 + transferred), sizes, [math.log(size) for size in sizes]
  )
  assert bound == '' and effective - 1e6 == pytest.approx(transferred)


def test_first_reaching():
  assert statistics.first_reaching(0.5, [10, 20, 30], [0.4, 0.5, 0.6]) == 20
  assert statistics.first_reaching(0.45, [10, 20, 30], [0.4, 0.5, 0.6]) == pytest.approx(15)
  assert statistics.first_reaching(0.3, [10, 20], [0.4, 0.5]) == 10
  assert statistics.first_reaching(0.7, [10, 20, 30], [0.4, 0.5, 0.6]) == math.inf


def test_wilson_is_scipys():
  for correct, count in ((0, 20), (20, 20), (587, 599)):
    wanted = stats.binomtest(correct, count).proportion_ci(method='wilson')
    np.testing.assert_allclose(
      statistics.wilson_interval(correct / count, count), wanted, atol=1e-12
    )


def test_two_levels_are_students_with_many_examples_and_the_bootstrap_with_one_seed():
  random = np.random.default_rng(0)
  means = np.array([0.70, 0.74, 0.79, 0.72])
  fixed = np.broadcast_to(means, (40_000, 4))  # no example moves anything
  np.testing.assert_allclose(
    statistics.two_level_interval(fixed), statistics.mean_interval(means)[1:3], atol=2e-3
  )
  right = (random.random((1, 400)) < 0.8).astype(float)
  draws = statistics.resample_examples(right, 20_000)
  half = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 400)
  low, high = statistics.two_level_interval(draws)
  assert (low, high) == pytest.approx((right.mean() - half, right.mean() + half), abs=3e-3)
  alike = np.repeat(draws, 5, axis=1)  # five copies are as good as one
  assert statistics.two_level_interval(alike) == pytest.approx((low, high), abs=1e-12)


def test_two_levels_are_wider_than_seeds_alone():
  random = np.random.default_rng(1)
  chances = random.normal(0.8, 0.02, 5)
  right = (random.random((5, 300)) < chances[:, None]).astype(float)
  low, high = statistics.two_level_interval(statistics.resample_examples(right))
  alone = statistics.mean_interval(right.mean(axis=1))
  assert low < alone.low and high > alone.high


def test_one_draw_of_examples_serves_all_runs():
  right = (np.random.default_rng(2).random((1, 50)) < 0.5).astype(float)
  draws = statistics.resample_examples(np.concatenate([right, right]), 100)
  np.testing.assert_array_equal(draws[:, 0], draws[:, 1])
  assert draws[:, 0].std() > 0.02


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
  assert interval.low < interval.mean < interval.high
  assert interval.mean == statistics.interquartile_mean(a)


def test_iqm_interval_resamples_runs_within_tasks():
  # the tasks differ far more than the runs
  apart = np.array([[0.10, 0.9], [0.11, 0.9], [0.12, 0.9]])
  interval = statistics.iqm_interval(apart)
  assert 0.45 < interval.low < interval.high < 0.55
  alike = np.array([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
  assert math.isnan(statistics.iqm_interval(alike).low)
  assert statistics.iqm_interval(alike).mean == 0.5
  assert math.isnan(statistics.iqm_interval(apart[:1]).low)


@pytest.mark.parametrize('end, ends', [(1.0, (-1.0, 1.0)), (-1.0, (-1.0, 1.0)), (0.0, (0.0, 1.0))])
@pytest.mark.parametrize('threshold', [0.0, 0.25])
def test_scores_that_all_are_an_end_are_a_count_of_all(end, ends, threshold):
  """As many successes as trials: the interval of Clopper and Pearson and the binomial's tail."""
  scores = dict.fromkeys(itertools.product((0, 1, 2, 3, 4, 5), (0,), range(8)), end)
  low, high, p = statistics.all_at_an_end(scores, ends, threshold)
  wide, upper = ends[1] - ends[0], end == ends[1]
  share = (threshold - ends[0]) / wide
  trial = stats.binomtest(6, 6, share if upper else 1 - share)
  count = trial.proportion_ci(0.95, 'exact')
  tail = stats.binom.sf(5, 6, share if upper else 1 - share)
  assert p == pytest.approx(min(1, 2 * tail))
  wanted = (ends[0] + wide * count.low, end) if upper else (end, ends[1] - wide * count.low)
  assert (low, high) == pytest.approx(wanted)
  assert (p < 0.05) == (not low <= threshold <= high)


def test_what_says_nothing_of_chance_at_an_end_has_no_test():
  ends = (-1.0, 1.0)
  for scores, overlap in (
    ({0: 1.0}, ()),
    ({0: 0.5, 1: 0.5}, ()),
    ({0: 1.0, 1: 0.9}, ()),
    ({(0, fold, 0): 1.0 for fold in range(6)}, (0, 0.2, 0)),
  ):
    assert np.isnan(statistics.all_at_an_end(scores, ends, 0.0, overlap=overlap)).all()
  crossed = dict.fromkeys(itertools.product(range(3), (0,), range(9)), 1.0)
  alone = dict.fromkeys(range(3), 1.0)
  assert statistics.all_at_an_end(crossed, ends, 0.0) == statistics.all_at_an_end(alone, ends, 0.0)
