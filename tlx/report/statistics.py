"""Intervals, paired tests and corrections, exact about small numbers of seeds."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from scipy import special

Score = float | Fraction
Level = Any  # a seed, or a place among crossed factors: (source seed, fold, seed)


ROUNDING = 1e-12  # what is smaller than another mean square by so much is 0


class Interval(NamedTuple):
  """A mean with its interval; `low` and `high` are NaN where the values say nothing about spread:
  one, none, or all equal.
  """

  mean: float
  low: float
  high: float
  n: int


class Paired(NamedTuple):
  """A method minus a baseline over the seeds (or levels) both have; `num_missing` have only one."""

  difference: float
  low: float
  high: float
  n: int
  num_missing: int
  wins: int
  ties: int
  losses: int
  t_p: float
  wilcoxon_p: float


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
  """The mean and its Student-t interval, mean ± t_{(1+level)/2, n-1} s / sqrt(n).

  Copies of one result are equal, and so are a few coarse ones by chance: neither makes the mean
  certain, so there is no interval where all values are equal.

  >>> [round(x, 3) for x in mean_interval([1., 2., 3.])]
  [2.0, -0.484, 4.484, 3]

  Raises:
    ValueError: a value is not finite.
  """
  array = _finite(values)
  n = len(array)
  if n == 0:
    return Interval(math.nan, math.nan, math.nan, 0)
  mean = float(np.mean(array))
  if not _varies(array):
    return Interval(mean, math.nan, math.nan, n)
  half = (
    float(special.stdtrit(n - 1, (1 + level) / 2)) * float(np.std(array, ddof=1)) / math.sqrt(n)
  )
  return Interval(mean, mean - half, mean + half, n)


def bootstrap_interval(
  values: Sequence[float], level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
  """The mean and its percentile bootstrap interval (Efron, Tibshirani 1993); too narrow for few.

  Efron and Tibshirani 1993, ch. 13. None where all values are equal, as for `mean_interval`.

  Raises:
    ValueError: a value is not finite.
  """
  array = _finite(values)
  if not _varies(array):
    return mean_interval(array.tolist())
  picks = np.random.default_rng(seed).integers(len(array), size=(num_resamples, len(array)))
  low, high = np.quantile(array[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
  return Interval(float(np.mean(array)), float(low), float(high), len(array))


def crossed_interval(
  scores: Mapping[Level, Score], overlap: Sequence[float] = (), level: float = 0.95
) -> Interval:
  """The mean and its interval over all factors by which the scores differ (`errors`).

  Of a single factor without overlap it is `mean_interval`. Where combinations are missing, mean and
  interval are those of the part that `complete` leaves, and `n` counts it.

  Raises:
    ValueError: a score is not finite.
  """
  values = complete(scores)
  if _is_plain(values, overlap) or not _varies(values.ravel()):
    return mean_interval(values.ravel().tolist(), level)
  error, freedom = errors(values, overlap)
  mean, half = (
    float(values.mean()),
    float((special.stdtrit(freedom, (1 + level) / 2) * error).max()),
  )
  return Interval(mean, mean - half, mean + half, values.size)


def complete(scores: Mapping[Level, Score]) -> np.ndarray:
  """The scores as an array with an axis for every factor, its levels in order.

  Where combinations of levels are missing (runs that are not done), levels are left out until none
  is: each time the one that has the smallest share of its combinations, of several that of the
  factor with most levels, and of its levels the last.

  >>> complete({(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.3, (1, 1): 0.4, (2, 0): 0.5}).tolist()
  [[0.1, 0.2], [0.3, 0.4]]

  Raises:
    ValueError: a score is not finite.
  """
  if not scores:
    return np.zeros(0)
  keys = [key if isinstance(key, tuple) else (key,) for key in scores]
  found = dict(zip(keys, _finite([float(score) for score in scores.values()])))
  while True:
    axes = [sorted(set(of_factor)) for of_factor in zip(*found)]
    if len(found) == math.prod(map(len, axes)):
      break
    counts = Counter((i, one) for key in found for i, one in enumerate(key))
    _, _, _, factor, last = min(
      (counts[i, one] * len(axis), -len(axis), -place, i, one)
      for i, axis in enumerate(axes)
      for place, one in enumerate(axis)
    )
    found = {key: score for key, score in found.items() if key[factor] != last}
  values = np.asarray([found[key] for key in itertools.product(*axes)], float)
  return values.reshape([len(axis) for axis in axes])


def errors(
  values: np.ndarray, overlap: Sequence[float] = (), num_factors: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """(standard errors, degrees of freedom) of the mean of crossed random factors, [..., C] each; the
  interval is the widest of the C.

  `values` [..., a, b, ...]: one for every combination of a levels of the first factor, b of the
  second, ...; the last `num_factors` axes (0: all), those with one level left out. With mean
  squares MS_T of the effects of each set T of factors and N values, the variance of the mean is

    V = sum over T of (-1)^(|T| + 1) MS_T / N,   for two factors (MS_A + MS_B - MS_AB) / (a b),

  which is unbiased (Searle, Casella, McCulloch 1992, ch. 4), with Satterthwaite's (1946) degrees of
  freedom V^2 / sum((MS_T / N)^2 / df_T), taken between the smallest and the sum of those of the
  factors. With few levels V is often too small, so the other C - 1 candidates are single factors,
  sqrt(MS_A / N) with a - 1: the interval is never narrower than Student's over the means of one
  factor's levels. Where the means of all levels are alike but values are not, as in the square
  [[1, 1, 0], [1, 0, 1], [0, 1, 1]], V is what is left, MS_AB / N (the largest of several sets, the
  fewest degrees). One factor leaves s / sqrt(n) with n - 1.

  overlap: for each factor the share n_test / n_train where its levels are splits of one data set,
  which are alike since their training sets overlap; 0.0 elsewhere. MS_A / N then counts 1 + a
  n_test / n_train times (Nadeau, Bengio 2003, eq. 13: (1/J + n_test/n_train) s^2).
  """
  num_factors = num_factors or values.ndim
  sizes = values.shape[-num_factors:]
  several = [i for i in range(num_factors) if sizes[i] > 1]
  values = values.reshape(*values.shape[:-num_factors], *(sizes[i] for i in several))
  axes = range(-len(several), 0)
  shares = [overlap[i] if len(overlap) else 0.0 for i in several]
  size = math.prod(sizes)
  alone, together, freedoms = [], [], []
  variance = spread = np.zeros(())
  for count in range(1, len(axes) + 1):
    for of_set in itertools.combinations(axes, count):
      freedom = math.prod(values.shape[i] - 1 for i in of_set)
      part = (_effects(values, axes, of_set) ** 2).sum(axis=tuple(axes)) / freedom / size
      if count == 1:
        part = part * (1 + values.shape[of_set[0]] * shares[of_set[0]])
        alone.append(part)
        freedoms.append(freedom)
      else:
        together.append((part, freedom))
      variance = variance - (-1) ** count * part
      spread = spread + part**2 / freedom
  variance = np.maximum(variance, 0.0)
  with np.errstate(divide='ignore', invalid='ignore'):
    freedom = np.where(spread > 0, variance**2 / spread, 1.0)
  freedom = np.clip(freedom, min(freedoms), sum(freedoms))
  if together:
    left = np.maximum.reduce([part for part, _ in together])
    alike = np.maximum.reduce([variance, *alone]) <= ROUNDING * left
    variance = np.where(alike, left, variance)
    fewest = float(min(degrees for _, degrees in together))
    freedom = np.where(alike, fewest, freedom)
  variances = np.stack([variance, *alone], axis=-1)
  beside = [np.full(np.shape(freedom), float(one)) for one in freedoms]
  return np.sqrt(variances), np.stack([freedom, *beside], axis=-1)


def _effects(values: np.ndarray, axes: Sequence[int], of_set: Sequence[int]) -> np.ndarray:
  """What the levels of a set of factors together add to the mean, at every value."""
  effects = np.zeros_like(values)
  for count in range(len(of_set) + 1):
    for kept in itertools.combinations(of_set, count):
      others = tuple(i for i in axes if i not in kept)
      effects = effects + (-1) ** (len(of_set) - count) * values.mean(axis=others, keepdims=True)
  return effects


def _is_plain(values: np.ndarray, overlap: Sequence[float]) -> bool:
  """Whether at most one factor has several levels, and these do not overlap."""
  several = [i for i, size in enumerate(values.shape) if size > 1]
  return not several or (len(several) == 1 and not (len(overlap) and overlap[several[0]]))


def paired(
  scores: Mapping[Level, Score],
  baseline: Mapping[Level, Score],
  level: float = 0.95,
  overlap: Sequence[float] = (),
) -> Paired:
  """The mean of scores - baseline over their common seeds, with t-interval and two-sided p-values.

  Accuracies given as fractions of counts tie exactly where the counts do; of floats, differences
  are rounded to 12 digits. Where the differences do not vary there is neither an interval nor a
  p-value (NaN): copies of one result are no evidence. The paired t-test wants two pairs. Wilcoxon's
  signed-rank test wants six (Wilcoxon 1945; below that it cannot reach p < 0.05).

  Over several factors, or splits that overlap, interval and p-value are by `errors` (the interval
  excludes 0 exactly where t_p is below 1 - level), of the part that `complete` leaves; Wilcoxon's
  test, which wants independent pairs, is none.

  Raises:
    ValueError: a value is not finite.
  """
  common = sorted(scores.keys() & baseline.keys())
  apart = np.round(_finite([float(scores[one] - baseline[one]) for one in common]), 12)
  values = complete(dict(zip(common, apart)))
  plain = _is_plain(values, overlap)
  differences = values.ravel()
  mean, low, high, n = crossed_interval(dict(zip(common, apart)), overlap, level)
  t_p = wilcoxon_p = math.nan
  if _varies(differences) and plain:
    error = float(np.std(differences, ddof=1)) / math.sqrt(n)
    t_p = float(2 * special.stdtr(n - 1, -abs(mean) / error))
    wilcoxon_p = signed_rank(differences.tolist()) if n >= 6 else math.nan
  elif _varies(differences):
    widths, freedoms = errors(values, overlap)
    with np.errstate(divide='ignore'):
      t_p = float((2 * special.stdtr(freedoms, -abs(mean) / widths)).max())
  return Paired(
    mean,
    low,
    high,
    n,
    len(scores.keys() | baseline.keys()) - n,
    int((differences > 0).sum()),
    int((differences == 0).sum()),
    int((differences < 0).sum()),
    t_p,
    wilcoxon_p,
  )


def all_at_an_end(
  scores: Mapping[Level, Score],
  ends: tuple[float, float],
  threshold: float,
  level: float = 0.95,
  overlap: Sequence[float] = (),
) -> tuple[float, float, float]:
  """(low, high, two-sided p-value of the mean `threshold`) of scores that cannot lie outside of
  `ends` and all are the same one; NaN of others, of one alone, and of splits that overlap.

  If the mean of numbers in [a, b] is t, at most (t - a) / (b - a) of them are b (Markov's
  inequality), so n independent ones are all b with at most that share to the n-th: twice that is
  p, and what p does not exclude is the interval, as of Clopper and Pearson (1934). Independent are
  results that share no level of a factor that varies: of 5 source seeds x 3 seeds three.

  >>> all_at_an_end({seed: 1.0 for seed in range(6)}, (-1.0, 1.0), 0.0)[1:]
  (1.0, 0.03125)
  """
  found, (least, most) = {round(float(score), 12) for score in scores.values()}, ends
  sizes = {axis: size for axis, size in enumerate(complete(scores).shape) if size > 1}
  splits = any(overlap[axis] for axis in sizes if axis < len(overlap))
  if len(found) != 1 or not found <= {least, most} or splits or not sizes:
    return math.nan, math.nan, math.nan
  n = min(sizes.values())
  share = min(max((threshold - least) / (most - least), 0.0), 1.0)
  reach = (most - least) * ((1 - level) / 2) ** (1 / n)
  if found == {most}:
    return least + reach, most, min(1.0, 2 * share**n)
  return least, most - reach, min(1.0, 2 * (1 - share) ** n)


def signed_rank(differences: Sequence[float]) -> float:
  """Wilcoxon's (1945) two-sided p-value, exact with ties: over every choice of the ranks' signs.

  Differences of 0 are left out and tied ones share their mean rank; NaN where all are 0. Twice the
  ranks are whole numbers, so the choices are counted by their sum instead of one by one.

  >>> round(signed_rank([6, -1, 5, 4, -4, 4, 2, 4]), 6)
  0.09375
  """
  moved = np.asarray([difference for difference in differences if difference != 0], float)
  if not len(moved):
    return math.nan
  size = np.abs(moved)
  # twice the mean rank
  doubled = np.asarray([(size < value).sum() + (size <= value).sum() + 1 for value in size])
  # of the choices of signs, by the sum of the doubled ranks that are positive
  share = np.zeros(int(doubled.sum()) + 1)
  share[0] = 1.0
  for rank in doubled:
    share[rank:], share[:rank] = (share[rank:] + share[:-rank]) / 2, share[:rank] / 2
  positive = int(doubled[moved > 0].sum())
  smaller = min(positive, int(doubled.sum()) - positive)
  return float(min(1.0, 2 * share[: smaller + 1].sum()))


def holm(p_values: Sequence[float]) -> np.ndarray:
  """Holm's (1979) step-down adjusted p-values; NaN (no test) stays NaN and does not count.

  >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
  [0.03, 0.06, 0.06]
  """
  p = np.asarray(p_values, float)
  adjusted = np.full(p.shape, np.nan)
  order = [i for i in np.argsort(p) if not np.isnan(p[i])]
  running = 0.0
  for rank, i in enumerate(order):
    running = max(running, min(1.0, (len(order) - rank) * p[i]))
    adjusted[i] = running
  return adjusted


def effective_data(
  score: float, sizes: Sequence[float], scores: Sequence[float]
) -> tuple[float, str]:
  """(the size at which the curve `scores` over `sizes` first reaches `score`, '' or '>=' or '<=').

  D_E of Hernandez et al. 2021, by interpolation linear in log size and never outside the curve:
  '>=' the last size where no point of the curve reaches the score, '<=' the first size where the
  first point is above it. NaN where no point is above the first: a curve that does not rise with
  data cannot say how much of it a score is worth.

  >>> effective_data(0.75, [1, 4], [0.5, 1.0])
  (2.0, '')

  Raises:
    ValueError: sizes do not rise from above 0, or the two differ in length.
  """
  x, y = np.asarray(sizes, float), _finite(scores)
  if len(x) != len(y) or not len(x) or x[0] <= 0 or (np.diff(x) <= 0).any():
    raise ValueError(
      f'A data curve needs as many scores as rising sizes above 0, got sizes {sizes} and scores '
      f'{scores}.'
    )
  if y.max() <= y[0]:
    return math.nan, ''
  if score <= y[0]:
    return float(x[0]), '' if score == y[0] else '<='
  above = np.flatnonzero(y >= score)
  if not len(above):
    return float(x[-1]), '>='
  i = int(above[0])
  part = (score - y[i - 1]) / (y[i] - y[i - 1])
  return float(x[i - 1] * (x[i] / x[i - 1]) ** part), ''


def effective_data_interval(
  scores: np.ndarray, sizes: Sequence[float], curves: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
  """(low, high) of `effective_data` over B draws of scores [B] and curves [B, sizes].

  A draw that the curve does not reach says no more than its last size or more, and one whose curve
  does not rise or is not finite says nothing: high is infinite where too many of them do, low 0.
  """
  x, y, score = np.log(np.asarray(sizes, float)), np.asarray(curves, float), scores[:, None]
  reached = y >= score
  first = reached.argmax(1)
  rows, before = np.arange(len(y)), np.maximum(first - 1, 0)
  with np.errstate(divide='ignore', invalid='ignore'):
    part = (scores - y[rows, before]) / (y[rows, first] - y[rows, before])
    inside = np.exp(x[before] + part * (x[first] - x[before]))
  inside = np.where(first > 0, inside, np.exp(x[0]))
  low = np.where(first > 0, inside, np.where(scores == y[:, 0], inside, 0.0))
  beyond = ~reached.any(1)
  low, high = np.where(beyond, np.exp(x[-1]), low), np.where(beyond, math.inf, inside)
  silent = ~(y.max(1) > y[:, 0]) | ~np.isfinite(y).all(1) | ~np.isfinite(scores)
  low, high = np.where(silent, 0.0, low), np.where(silent, math.inf, high)
  return (
    float(np.quantile(low, (1 - level) / 2, method='inverted_cdf')),
    float(np.quantile(high, (1 + level) / 2, method='inverted_cdf')),
  )


def first_reaching(threshold: float, steps: Sequence[float], scores: Sequence[float]) -> float:
  """Where the curve that is straight between its points first reaches `threshold`; infinity if
  nowhere, steps must rise.

  >>> first_reaching(0.5, [0, 10, 30], [0.1, 0.4, 0.6])
  20.0
  """
  for i, score in enumerate(scores):
    if score >= threshold:
      part = (score - threshold) / (score - scores[i - 1]) if i else 0.0
      return float(steps[i] - part * (steps[i] - steps[i - 1])) if i else float(steps[0])
  return math.inf


def wilson_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
  """(low, high) of a share found in `count` independent draws (Wilson 1927): never of width 0.

  >>> [round(end, 3) for end in wilson_interval(0.9, 100)]
  [0.826, 0.945]
  """
  z = float(special.ndtri((1 + level) / 2))
  middle = (share + z * z / (2 * count)) / (1 + z * z / count)
  half = (
    z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
  )
  return middle - half, middle + half


def resample_examples(values: np.ndarray, num_resamples: int = 2000, seed: int = 0) -> np.ndarray:
  """Means [B, R] of values [R, N] over B draws of N examples with replacement, the same for all R.

  The rows are runs tested on one set of examples, so what they have in common stays together and
  differences can be taken.
  """
  num = values.shape[1]
  random = np.random.default_rng(seed)
  room = max(1, 4_000_000 // num)  # draws at once, by their memory
  parts = []
  for first in range(0, num_resamples, room):
    counts = random.multinomial(num, np.full(num, 1 / num), size=min(room, num_resamples - first))
    parts.append(counts @ values.T / num)
  return np.concatenate(parts)


def two_level_interval(
  draws: np.ndarray, level: float = 0.95, num_points: int = 400
) -> tuple[float, float]:
  """(low, high) of the mean over seeds where the test examples are drawn anew as well; draws [B, S]
  by `resample_examples`, or [B, a, b, ...] of crossed factors.

  For each draw of examples the mean over the S seeds has its Student-t distribution, mean + t_{S-1}
  s / sqrt(S), taken at `num_points` equally likely places; the interval holds the middle `level` of
  all. With ever more examples it becomes `mean_interval`, or that of `errors`. It does not resample
  the seeds themselves, which makes intervals of few seeds too narrow. Seeds that are all alike, or
  one, leave the examples alone.
  """
  num_factors = draws.ndim - 1
  several = [size for size in draws.shape[1:] if size > 1]
  means = draws.reshape(len(draws), -1).mean(axis=1)
  if len(several) == 1:
    num_seeds = several[0]
    error = draws.reshape(len(draws), -1).std(axis=1, ddof=1) / math.sqrt(num_seeds)
    places = special.stdtrit(num_seeds - 1, (np.arange(num_points) + 0.5) / num_points)
    means = means[:, None] + error[:, None] * places
  elif several:
    error, freedom = errors(draws, num_factors=num_factors)
    rows, widest = np.arange(len(draws)), (special.stdtrit(freedom, 0.975) * error).argmax(axis=1)
    points = (np.arange(num_points) + 0.5) / num_points
    places = special.stdtrit(freedom[rows, widest][:, None], points)
    means = means[:, None] + error[rows, widest][:, None] * places
  low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def interquartile_mean(scores: np.ndarray) -> float:
  """The mean of the middle half of all scores [R, T] (runs x tasks), floor(n/4) cut at each end.

  Agarwal et al. 2021.
  """
  flat = np.sort(_finite(scores), axis=None)
  cut = len(flat) // 4
  return float(flat[cut : len(flat) - cut].mean())


def iqm_interval(
  scores: np.ndarray, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
  """The interquartile mean of scores [R, T] with the bootstrap interval that resamples runs within
  each task (rliable).

  No interval where the runs of no task differ.
  """
  scores = _finite(scores)
  num_runs, num_tasks = scores.shape
  mean = interquartile_mean(scores)
  if not any(_varies(task) for task in scores.T):
    return Interval(mean, math.nan, math.nan, num_runs)
  picks = np.random.default_rng(seed).integers(num_runs, size=(num_resamples, num_runs, num_tasks))
  flat = np.sort(scores[picks, np.arange(num_tasks)].reshape(num_resamples, -1), axis=1)
  cut = flat.shape[1] // 4
  low, high = np.quantile(
    flat[:, cut : flat.shape[1] - cut].mean(axis=1), [(1 - level) / 2, (1 + level) / 2]
  )
  return Interval(mean, float(low), float(high), num_runs)


def probability_of_improvement(scores: np.ndarray, baseline: np.ndarray) -> float:
  """P(score > baseline) in [0, 1], ties counted half: the mean over tasks of Mann-Whitney's U / (n
  m); inputs [R, T] (rliable).
  """
  gaps = np.sign(_finite(scores)[:, None, :] - _finite(baseline)[None, :, :])
  return float(((gaps + 1) / 2).mean())


def _varies(values: np.ndarray) -> bool:
  """Whether two of the values differ; not by their deviation, which rounding leaves at 1e-17."""
  return len(values) > 1 and bool((values != values[0]).any())


def _finite(values) -> np.ndarray:
  array = np.asarray(values, float)
  if not np.isfinite(array).all():
    raise ValueError(
      f'Statistics want finite values, got {array.tolist()}. Drop diverged runs and say so.'
    )
  return array
