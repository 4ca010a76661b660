"""How well scores order sources: rank correlations with what transfer really gave, and the regret
of taking the first."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tlx.report.folder import Results, base, scored

RESAMPLES = 2000
LEAST_SOURCES = 6  # of which an interval is given
LEAST = 0.05  # of a score's size, by which values differ that are shown as far apart
ABOUT = ('target', 'source', 'stage', 'examples')  # columns of a table of scores that are no score


class Agreement(NamedTuple):
  """Scores against results over the same sources.

  weighted_tau: Kendall's tau that weighs the top more (scipy.stats.weightedtau, as the published
    tables have it); tau: Kendall's tau-b; rho: Spearman's; all in [-1, 1], NaN where either is
    constant
  regret: the best result less that of the source with the best score, at least 0
  low, high: of weighted_tau, the central 95% over sources drawn again and again with replacement;
    NaN of fewer than six sources, where it would be no interval
  """

  weighted_tau: float
  tau: float
  rho: float
  regret: float
  low: float
  high: float


def agreement(scores: Sequence[float], results: Sequence[float], seed: int = 0) -> Agreement:
  """How scores [M] order M sources by their results [M]; more is better in both.

  Of sources with equal scores the mean of their results counts for the regret.

  Raises:
    ValueError: fewer than two sources, or values that are not finite.
  """
  given, real = np.asarray(scores, float), np.asarray(results, float)
  if given.shape != real.shape or given.ndim != 1 or len(given) < 2:
    raise ValueError(f'Wanted scores and results [M], M > 1; got {given.shape}, {real.shape}.')
  if not (np.isfinite(given).all() and np.isfinite(real).all()):
    raise ValueError('Scores and results have to be finite.')
  from scipy import stats  # half a second, which most reports do not need

  varies = bool(np.ptp(given) and np.ptp(real))
  low = high = float('nan')
  if len(given) >= LEAST_SOURCES and varies:
    draws = np.random.default_rng(seed).integers(len(given), size=(RESAMPLES, len(given)))
    found = np.array([_weighted_tau(given[draw], real[draw]) for draw in draws])
    low, high = (float(edge) for edge in np.nanquantile(found, (0.025, 0.975)))
  return Agreement(
    _weighted_tau(given, real),
    float(stats.kendalltau(given, real).statistic) if varies else float('nan'),
    float(stats.spearmanr(given, real).statistic) if varies else float('nan'),
    float(real.max() - real[given == given.max()].mean()),
    low,
    high,
  )


def _weighted_tau(scores: np.ndarray, results: np.ndarray) -> float:
  if not np.ptp(scores) or not np.ptp(results):
    return float('nan')
  from scipy import stats

  return float(stats.weightedtau(scores, results).statistic)


def against_results(ranked: pd.DataFrame, results: Results) -> pd.DataFrame:
  """A row for each target, method, size and score: how the score's order of the sources agrees with
  the means of the study's test scores, over those sources that have both.

  Of a table of stages the last of each source is taken. Methods that start at random are left out.
  """
  chosen = scored(results.runs[results.runs['chosen'] & (results.runs['init'] == 'source')])
  cells = chosen['id'].map(lambda name: results.found[name]['cell'])
  chosen = chosen.assign(
    source=cells.map(lambda cell: cell['source']), target=cells.map(lambda cell: cell['target'])
  )
  last = ranked.groupby(['target', 'source'], sort=False).tail(1)
  names = [name for name in last.columns if name not in ABOUT]
  rows = []
  for (target, method, shots), runs in chosen.groupby(['target', 'method', 'shots'], sort=False):
    direction = results.metrics[base(target)].direction
    real = direction * runs.groupby('source')['test_score'].mean()
    of_target = last[last['target'] == target].set_index('source')
    for name in names:
      both = pd.concat([of_target[name], real], axis=1, join='inner').dropna()
      if len(both) > 1:
        found = agreement(both[name].tolist(), both['test_score'].tolist())
        about = {'target': target, 'method': method, 'shots': shots, 'score': name}
        rows.append({**about, 'sources': len(both), **found._asdict()})
  return pd.DataFrame(rows)


def note(agreement: pd.DataFrame | None) -> str:
  """What to mind where few sources are compared, or ''."""
  if agreement is None:
    return ''
  if not len(agreement):
    return (
      'No score is compared with results: that wants two sources or more with runs on a target.'
    )
  least = int(agreement['sources'].min())
  if least >= LEAST_SOURCES:
    return ''
  return (
    f'Orders of {least} sources often agree by chance, and fewer than {LEAST_SOURCES} have no '
    'interval: read the agreement as a description of these sources alone.'
  )


def shades(values: np.ndarray) -> np.ndarray:
  """[M, scores] in [0, 1]: from the least to the most of each column.

  A column whose values differ by less than LEAST of the largest in size stays pale in that share:
  what hardly differs looks so. NaN stays NaN.
  """
  least, most = np.fmin.reduce(values), np.fmax.reduce(values)  # NaN where all are
  size = np.fmax(np.abs(least), np.abs(most))
  spread = np.fmax(most - least, LEAST * size)
  return (values - least) / np.where(spread > 0, spread, 1.0)


def draw(ranked: pd.DataFrame) -> bytes:
  """A PNG: for each target the sources (or stages) in the config's order, each score as dark as
  `shades` has it, since scores have no unit in common.
  """
  names = [name for name in ranked.columns if name not in ABOUT]
  targets = list(ranked.groupby('target', sort=False))
  several = ranked['source'].nunique() > 1
  most = max(len(rows) for _, rows in targets)
  figure = Figure(figsize=(0.62 * len(names) + 2.6, len(targets) * (0.28 * most + 1.5)))
  axes = figure.subplots(len(targets), 1, squeeze=False)[:, 0]
  for ax, (target, rows) in zip(axes, targets):
    values = rows[names].to_numpy(float)
    dark = shades(values)
    ax.imshow(dark, aspect='auto', cmap='Blues', vmin=0, vmax=1.3)
    for row, column in np.ndindex(values.shape):
      if np.isfinite(values[row, column]):
        ink = 'white' if dark[row, column] > 0.7 else 'black'
        number = f'{values[row, column]:.3g}'
        ax.text(column, row, number, ha='center', va='center', fontsize=7, color=ink)
    labels = [
      f'{source} {stage}' if several else stage
      for source, stage in zip(rows['source'], rows['stage'])
    ]
    ax.set_yticks(range(len(rows)), labels, fontsize=7)
    ax.set_xticks(range(len(names)), names, rotation=40, ha='right', fontsize=7)
    ax.set_title(f'{target}: darker is better', fontsize=9)
    ax.grid(False)
  figure.tight_layout()
  picture = io.BytesIO()
  figure.savefig(picture, format='png', dpi=150)
  return picture.getvalue()
