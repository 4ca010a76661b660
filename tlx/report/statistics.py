"""Intervals, paired tests and corrections, exact about the small numbers of seeds that studies have."""
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special


class Interval(NamedTuple):
  """A mean with its interval; `low` and `high` are NaN where one value (or none) says nothing about spread."""
  mean: float
  low: float
  high: float
  n: int


class Paired(NamedTuple):
  """A method minus a baseline over the seeds both have; `num_missing` seeds have only one of the two."""
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
  """The mean and its Student-t interval, mean ± t_{(1+level)/2, n-1} s / sqrt(n); of width 0 where all values are equal.

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
  if n == 1:
    return Interval(mean, math.nan, math.nan, 1)
  half = float(special.stdtrit(n - 1, (1 + level) / 2)) * _deviation(array) / math.sqrt(n)
  return Interval(mean, mean - half, mean + half, n)


def bootstrap_interval(values: Sequence[float], level: float = 0.95, num_resamples: int = 10_000, seed: int = 0) -> Interval:
  """The mean and its percentile bootstrap interval (Efron and Tibshirani 1993, ch. 13); too narrow for few values.

  Raises:
    ValueError: a value is not finite.
  """
  array = _finite(values)
  if len(array) < 2:
    return mean_interval(array.tolist())
  picks = np.random.default_rng(seed).integers(len(array), size=(num_resamples, len(array)))
  low, high = np.quantile(array[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
  return Interval(float(np.mean(array)), float(low), float(high), len(array))


def paired(scores: Mapping[int, float], baseline: Mapping[int, float], level: float = 0.95) -> Paired:
  """The mean of scores - baseline over their common keys (seeds), with a Student-t interval and two-sided p-values.

  The paired t-test wants two pairs (NaN below); without variance its p is the limit: 1.0 if all differences are 0, else 0.0.
  Wilcoxon's signed-rank test wants six (Wilcoxon 1945; below that it cannot reach p < 0.05). Differences are rounded
  to 12 digits, since accuracies that tie as counts must tie as floats.

  Raises:
    ValueError: a value is not finite.
  """
  seeds = sorted(scores.keys() & baseline.keys())
  differences = np.round(_finite([scores[s] for s in seeds]) - _finite([baseline[s] for s in seeds]), 12)
  mean, low, high, n = mean_interval(differences.tolist(), level)
  t_p = wilcoxon_p = math.nan
  if n >= 2:
    deviation = _deviation(differences)
    if deviation > 0:
      t_p = float(2 * special.stdtr(n - 1, -abs(mean) / (deviation / math.sqrt(n))))
    else:
      t_p = float(mean == 0)
  if n >= 6:
    from scipy import stats  # here: it takes a second to import
    wilcoxon_p = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
  return Paired(mean, low, high, n, len(scores.keys() ^ baseline.keys()), int((differences > 0).sum()),
                int((differences == 0).sum()), int((differences < 0).sum()), t_p, wilcoxon_p)


def holm(p_values: Sequence[float]) -> np.ndarray:
  """Holm's (1979) step-down adjusted p-values; NaN (no test was possible) stays NaN and does not count.

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


def effective_data(score: float, sizes: Sequence[float], scores: Sequence[float]) -> tuple[float, str]:
  """(the data size at which the curve `scores` over `sizes` first reaches `score`, its bound: '', '>=' or '<=').

  D_E of Hernandez et al. 2021, by interpolation linear in log size and never outside the curve: '>=' the last size where no
  point of the curve reaches the score, '<=' the first size where the first point is above it.

  >>> effective_data(0.75, [1, 4], [0.5, 1.0])
  (2.0, '')

  Raises:
    ValueError: sizes do not rise from above 0, or the two differ in length.
  """
  x, y = np.asarray(sizes, float), _finite(scores)
  if len(x) != len(y) or not len(x) or x[0] <= 0 or (np.diff(x) <= 0).any():
    raise ValueError(f'A data curve needs as many scores as rising sizes above 0, got sizes {sizes} and scores {scores}.')
  if score <= y[0]:
    return float(x[0]), '' if score == y[0] else '<='
  above = np.flatnonzero(y >= score)
  if not len(above):
    return float(x[-1]), '>='
  i = int(above[0])
  part = (score - y[i - 1]) / (y[i] - y[i - 1])
  return float(x[i - 1] * (x[i] / x[i - 1]) ** part), ''


def first_reaching(threshold: float, steps: Sequence[float], scores: Sequence[float]) -> float:
  """The first of `steps` whose score is at least `threshold`, in the order given; infinity if none is."""
  return next((float(step) for step, score in zip(steps, scores) if score >= threshold), math.inf)


def interquartile_mean(scores: np.ndarray) -> float:
  """The mean of the middle half of all scores [R, T] (runs x tasks), floor(n/4) cut at each end (Agarwal et al. 2021)."""
  flat = np.sort(_finite(scores), axis=None)
  cut = len(flat) // 4
  return float(flat[cut:len(flat) - cut].mean())


def iqm_interval(scores: np.ndarray, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0) -> Interval:
  """The interquartile mean of scores [R, T] with the bootstrap interval that resamples runs within each task (rliable)."""
  scores = _finite(scores)
  num_runs, num_tasks = scores.shape
  mean = interquartile_mean(scores)
  if num_runs < 2:
    return Interval(mean, math.nan, math.nan, num_runs)
  picks = np.random.default_rng(seed).integers(num_runs, size=(num_resamples, num_runs, num_tasks))
  flat = np.sort(scores[picks, np.arange(num_tasks)].reshape(num_resamples, -1), axis=1)
  cut = flat.shape[1] // 4
  low, high = np.quantile(flat[:, cut:flat.shape[1] - cut].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
  return Interval(mean, float(low), float(high), num_runs)


def probability_of_improvement(scores: np.ndarray, baseline: np.ndarray) -> float:
  """P(score > baseline) in [0, 1], ties counted half: the mean over tasks of Mann-Whitney's U / (n m); inputs [R, T] (rliable)."""
  gaps = np.sign(_finite(scores)[:, None, :] - _finite(baseline)[None, :, :])
  return float(((gaps + 1) / 2).mean())


def _deviation(values: np.ndarray) -> float:
  """The sample standard deviation; exactly 0 for equal values, where rounding of the mean would leave 1e-17."""
  return 0.0 if (values == values[0]).all() else float(np.std(values, ddof=1))


def _finite(values) -> np.ndarray:
  array = np.asarray(values, float)
  if not np.isfinite(array).all():
    raise ValueError(f'Statistics want finite values, got {array.tolist()}. Drop diverged runs and say so.')
  return array
