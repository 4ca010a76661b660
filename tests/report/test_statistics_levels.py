"""Intervals over crossed levels: source seeds, folds and seeds at once."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tlx.report import statistics


def scores_of(values):
  return {place: float(value) for place, value in np.ndenumerate(values)}


def draw(random, num, shape, variances, of_all=1.0):
  """Values [num, *shape] of mean 0: an effect of each factor's levels, and one of every value."""
  values = math.sqrt(of_all) * random.normal(size=(num, *shape))
  for i, variance in enumerate(variances):
    of_levels = [size if i == j else 1 for j, size in enumerate(shape)]
    values = values + math.sqrt(variance) * random.normal(size=(num, *of_levels))
  return values


def explained(values, sets):
  """The sum of squares that indicators of all combinations of the levels of each set leave."""
  rows = list(np.ndindex(values.shape))
  columns = [np.ones(len(rows))]
  for of_set in sets:
    for one in itertools.product(*(range(values.shape[i]) for i in of_set)):
      columns.append(np.array([tuple(row[i] for i in of_set) == one for row in rows], float))
  design = np.stack(columns, axis=1)
  left = values.ravel() - design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
  return float(left @ left)


def test_two_factors_are_the_analysis_of_variance_by_least_squares():
  values = draw(np.random.default_rng(0), 1, (3, 5), (2.0, 1.0))[0]
  a, b = values.shape
  ss_a = explained(values, []) - explained(values, [(0,)])
  ss_b = explained(values, []) - explained(values, [(1,)])
  ss_ab = explained(values, [(0,), (1,)])
  ms_a, ms_b, ms_ab = ss_a / (a - 1), ss_b / (b - 1), ss_ab / (a - 1) / (b - 1)
  variance = (ms_a + ms_b - ms_ab) / (a * b)
  freedom = variance**2 / sum(
    (ms / a / b) ** 2 / df for ms, df in ((ms_a, a - 1), (ms_b, b - 1), (ms_ab, (a - 1) * (b - 1)))
  )
  error, freedoms = statistics.errors(values)
  np.testing.assert_allclose(error**2, [variance, ms_a / a / b, ms_b / a / b], rtol=1e-9)
  np.testing.assert_allclose(freedoms, [min(max(freedom, a - 1), a + b - 2), a - 1, b - 1])
  halves = stats.t.ppf(0.975, freedoms) * error
  interval = statistics.crossed_interval(scores_of(values))
  assert interval.mean == pytest.approx(values.mean()) and interval.n == 15
  assert interval.high - interval.mean == pytest.approx(halves.max())
  # no narrower than Student's over the means of the levels of either factor
  for axis in (0, 1):
    alone = statistics.mean_interval(values.mean(axis=axis))
    assert interval.low <= alone.low + 1e-12 and interval.high >= alone.high - 1e-12


def test_the_variance_of_three_factors_is_unbiased():
  variances, of_all, shape = (0.5, 1.0, 2.0), 1.0, (3, 4, 5)
  values = draw(np.random.default_rng(1), 20_000, shape, variances, of_all)
  error, freedom = statistics.errors(values, num_factors=3)
  wanted = sum(v / size for v, size in zip(variances, shape)) + of_all / math.prod(shape)
  assert error.shape == freedom.shape == (20_000, 4)
  assert (error[:, 0] ** 2).mean() == pytest.approx(wanted, rel=0.02)  # seldom cut at 0
  assert values.mean(axis=(1, 2, 3)).var() == pytest.approx(wanted, rel=0.03)


def test_one_factor_is_students_interval_to_the_last_digit():
  values = np.random.default_rng(2).normal(size=7)
  wanted = statistics.mean_interval(values)
  assert statistics.crossed_interval(dict(enumerate(values))) == wanted
  assert statistics.crossed_interval({(3, 0, i): v for i, v in enumerate(values)}) == wanted
  plain = statistics.paired(dict(enumerate(values)), dict.fromkeys(range(7), 0.1))
  keyed = {(3, 0, i): v for i, v in enumerate(values)}
  assert statistics.paired(keyed, dict.fromkeys(keyed, 0.1)) == plain
  error, freedom = statistics.errors(values)
  np.testing.assert_allclose(error, stats.sem(values))
  assert freedom.tolist() == [6, 6]


def test_a_factor_that_changes_nothing_leaves_the_other():
  """As runs from a random start would under every source seed: copies."""
  values = np.tile([0.1, 0.5, 0.3, 0.4], (3, 1))
  wanted = statistics.mean_interval(values[0])
  assert statistics.crossed_interval(scores_of(values))[:3] == pytest.approx(wanted[:3])


def test_folds_are_nadeaus_and_bengios():
  values = np.random.default_rng(3).normal(size=5)
  scores = {(0, fold, 7): value for fold, value in enumerate(values)}
  interval = statistics.crossed_interval(scores, overlap=(0.0, 1 / 4, 0.0))
  half = stats.t.ppf(0.975, 4) * math.sqrt((1 / 5 + 1 / 4) * values.var(ddof=1))
  assert interval.high - interval.mean == pytest.approx(half)
  pair = statistics.paired(scores, dict.fromkeys(scores, 0.0), overlap=(0.0, 1 / 4, 0.0))
  assert pair.high - pair.difference == pytest.approx(half)
  assert pair.t_p == pytest.approx(
    2 * stats.t.sf(abs(values.mean()) / half * stats.t.ppf(0.975, 4), 4)
  )


@pytest.mark.parametrize('shape', [(3, 5), (5, 5), (3, 3, 4)])
def test_nominal_95_percent_cover_the_mean_whatever_varies(shape):
  """10,000 drawn studies a case leave 0.4 points to either side of 95% (two deviations)."""
  random = np.random.default_rng(4)
  for variances in itertools.product((0.0, 0.3, 4.0), repeat=len(shape)):
    values = draw(random, 10_000, shape, variances)
    error, freedom = statistics.errors(values, num_factors=len(shape))
    half = (stats.t.ppf(0.975, freedom) * error).max(axis=-1)
    means = values.reshape(len(values), -1).mean(axis=1)
    assert (np.abs(means) <= half).mean() >= 0.943, variances
    if max(variances) == 4.0:  # runs taken for independent cover far less
      naive = stats.t.ppf(0.975, math.prod(shape) - 1) * stats.sem(
        values.reshape(len(values), -1), axis=1
      )
      assert (np.abs(means) <= naive).mean() < 0.8


def test_the_interval_excludes_0_exactly_where_p_is_below_5_percent():
  random = np.random.default_rng(5)
  found = set()
  for values in draw(random, 200, (3, 5), (0.1, 0.3)) + 1.0:
    scores = scores_of(values)
    pair = statistics.paired(scores, dict.fromkeys(scores, 0.0))
    assert (pair.low > 0 or pair.high < 0) == (pair.t_p < 0.05)
    assert math.isnan(pair.wilcoxon_p) and pair.n == 15
    found.add(pair.t_p < 0.05)
  assert found == {True, False}


def test_missing_combinations_cost_the_level_that_lacks_most():
  values = np.arange(15.0).reshape(3, 5) ** 2
  scores = scores_of(values)
  del scores[1, 0], scores[1, 3], scores[1, 4]
  np.testing.assert_array_equal(statistics.complete(scores), values[[0, 2]])
  interval = statistics.crossed_interval(scores)
  assert interval == statistics.crossed_interval(scores_of(values[[0, 2]])) and interval.n == 10
  pair = statistics.paired(scores_of(values), {key: 0.0 for key in scores})
  assert (pair.n, pair.num_missing) == (10, 5)
  one = scores_of(values)
  del one[2, 4]  # of a seed and a source seed that lack one each the seed goes, which costs less
  np.testing.assert_array_equal(statistics.complete(one), values[:, :4])
  assert statistics.complete({}).size == 0


def test_levels_of_one_mean_whose_values_vary_are_not_certain():
  """By hand: of the mean 5/6 nine values depart by 1/6, 1/6 and -1/3 in each row and column."""
  values = np.array([[1, 1, 0.5], [1, 0.5, 1], [0.5, 1, 1]])
  error, freedom = statistics.errors(values)
  assert error[0] == pytest.approx(math.sqrt((6 / 36 + 3 / 9) / 4 / 9)) and freedom[0] == 4
  differences = np.array([[0.05, 0.05, -0.05], [0.05, -0.05, 0.05], [-0.05, 0.05, 0.05]])
  (error, *_), (freedom, *_) = statistics.errors(differences)
  assert 2 * stats.t.sf(differences.mean() / error, freedom) > 0.2


def test_levels_that_are_all_alike_say_nothing():
  alike = dict.fromkeys(itertools.product(range(3), range(5)), 0.7)
  interval = statistics.crossed_interval(alike)
  assert interval.n == 15 and math.isnan(interval.low)
  assert math.isnan(statistics.paired(alike, dict.fromkeys(alike, 0.6)).t_p)


def test_test_examples_are_drawn_over_crossed_levels_too():
  values = draw(np.random.default_rng(6), 1, (3, 5), (0.3, 0.3))[0]
  fixed = np.broadcast_to(values, (2_000, 3, 5))  # no example moves anything
  wanted = statistics.crossed_interval(scores_of(values))
  low, high = statistics.two_level_interval(fixed)
  assert (low + high) / 2 == pytest.approx(wanted.mean, abs=1e-3)
  assert high - low == pytest.approx(wanted.high - wanted.low, rel=0.04)  # of 400 points
