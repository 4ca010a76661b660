"""Advice on trial: what a depth that was advised before training lost against what training every
depth shows afterwards."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tlx.report import statistics
from tlx.report.folder import Results, base, scored

AT = ['source', 'target', 'shots', 'seed']
EVERY = 'all'


def accuracies(results: Results) -> pd.DataFrame:
  """Test scores by depth, higher is better: index (source, target, shots, seed) by their names in
  the folder, a column a number of frozen groups.

  Raises:
    ValueError: fewer than two methods that each freeze the first groups and tune the others.
  """
  known = {name: _depth(method) for name, method in results.config['methods'].items()}
  methods = {name: k for name, k in known.items() if k is not None}
  if len(set(methods.values())) < 2:
    raise ValueError(
      "A trial wants methods of one phase with tune = {'policy': 'after', 'k': k}, one a depth, "
      f'got {", ".join(methods) or "none"}.'
    )
  runs = scored(results.runs[results.runs['chosen'] & results.runs['method'].isin(methods)])
  cells = runs['id'].map(lambda name: results.found[name]['cell'])
  runs = runs.assign(
    source=cells.map(lambda cell: cell['source']),
    target=cells.map(lambda cell: cell['target']),
    depth=runs['method'].map(methods),
  )
  signs = runs['target'].map(lambda name: results.metrics[base(name)].direction)
  runs = runs.assign(test_score=runs['test_score'] * signs)
  return runs.pivot_table(index=AT, columns='depth', values='test_score').dropna()


def _depth(method: Mapping[str, Any]) -> int | None:
  """How many groups a method freezes from the source on; None of other methods."""
  phases = method['phases']
  if method.get('init', 'source') != 'source' or method.get('added') or len(phases) != 1:
    return None
  tune = phases[0]['tune']
  if tune in ('all', {'policy': 'all'}):
    return 0
  is_after = isinstance(tune, Mapping) and tune.get('policy') == 'after'
  return int(tune['k']) if is_after else None


def trial(scores: pd.DataFrame, advised: pd.DataFrame) -> pd.DataFrame:
  """A row a source, target and size, and one a source of all its targets and sizes (EVERY), of the
  seeds that have all of them.

  runs: how many are in the row's means
  best: the depth with the best mean over all runs of the row, which is picked on the test scores
    and so flatters itself; advised: the mean depth of the advice
  regret: the mean of its score less that of the advised depth, in points
  over tune all, over freeze all, over random: by how many points the advised depth is better than
    freezing nothing, the deepest, and the mean of all depths; paired, with 95% intervals over
    source seeds and seeds, crossed (`... low`, `... high`; NaN where nothing varies); of all
    targets and sizes together they are about these targets and sizes

  Raises:
    ValueError: no run has both; or nothing frozen, or a depth that was advised, was not tried.

  Args:
    scores: as `accuracies`; advised: as study.advise.depths_of, of which runs without a depth are
      left out.
  """
  advised = advised[advised['depth'] >= 0].set_index(AT)['depth']
  both = scores.join(advised, how='inner')
  if not len(both):
    raise ValueError('No run has both advice and results of every depth.')
  depths = list(scores.columns)
  if lacking := sorted({0, *both['depth']} - {*depths}):
    raise ValueError(
      f'The study has no method that freezes {", ".join(map(str, lacking))} groups; it '
      f'has {", ".join(map(str, depths))}.'
    )
  values = both[depths].to_numpy()
  columns = [depths.index(k) for k in both['depth']]
  taken = values[np.arange(len(values)), columns]
  place = both.reset_index()
  network = place['source'].map(base).rename('network')
  of_row = [network, place['target'], place['shots']]
  best = place.groupby(of_row)[depths].transform('mean').to_numpy().argmax(1)
  frame = place[AT].assign(
    network=network,
    best=np.asarray(depths)[best],
    advised=both['depth'].to_numpy(),
    regret=values[np.arange(len(values)), best] - taken,
    **{
      'over tune all': taken - values[:, 0],
      'over freeze all': taken - values[:, -1],
      'over random': taken - values.mean(1),
    },
  )
  rows = []
  for network, of_network in frame.groupby('network', sort=False):
    for (target, shots), part in of_network.groupby(['target', 'shots'], sort=False):
      rows.append(_row(network, target, str(shots or EVERY), part))
    whole = _whole(of_network)
    if len(whole):
      of_all = whole.groupby(['source', 'seed'], as_index=False).mean(numeric_only=True)
      row = _row(network, EVERY, EVERY, of_all.assign(best=np.nan))
      rows.append({**row, 'runs': len(whole)})
  return pd.DataFrame(rows)


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
  """The runs of those source and study seeds that have every target and size, so that all targets
  and sizes count alike in a mean.
  """
  cells = frame.groupby(['target', 'shots']).ngroups
  return frame[frame.groupby(['source', 'seed'])['regret'].transform('size') == cells]


def _row(source: str, target: str, shots: str, part: pd.DataFrame) -> dict[str, Any]:
  row: dict[str, Any] = {'source': source, 'target': target, 'shots': shots, 'runs': len(part)}
  row |= {'best': part['best'].iloc[0], 'advised': part['advised'].mean()}
  row['regret'] = 100 * part['regret'].mean()
  for name in ('over tune all', 'over freeze all', 'over random'):
    at = zip(part['source'], part['seed'])
    found = statistics.crossed_interval(dict(zip(at, part[name])))
    row |= {
      name: 100 * found.mean,
      f'{name} low': 100 * found.low,
      f'{name} high': 100 * found.high,
    }
  return row


def words(table: pd.DataFrame) -> str:
  """The trial as text: a line a target and size, intervals in brackets."""
  lines = [
    f'{"target":<32}{"a class":>8}{"best":>6}{"advised":>9}{"regret":>8}'
    f'{"better than tune all":>24}{"than freeze all":>24}{"than random":>24}'
  ]
  for row in table.to_dict('records'):
    best = '' if pd.isna(row['best']) else f'{row["best"]:.0f}'
    about = f'{row["source"]} -> {row["target"]}'
    cells = [_cell(row, name) for name in ('over tune all', 'over freeze all', 'over random')]
    lines.append(
      f'{about:<32}{row["shots"]:>8}{best:>6}{row["advised"]:>9.1f}{row["regret"]:>8.2f}'
      + ''.join(f'{cell:>24}' for cell in cells)
    )
  return '\n'.join([*lines, _NOTE])


def _cell(row: Mapping[str, Any], name: str) -> str:
  """'+1.2 [+0.4, +2.0]'; without an interval where nothing varies."""
  if pd.isna(row[f'{name} low']):
    return f'{row[name]:+.1f}'
  return f'{row[name]:+.1f} [{row[f"{name} low"]:+.1f}, {row[f"{name} high"]:+.1f}]'


_NOTE = (
  'Points of test accuracy; best and advised are frozen groups. The best depth is picked on the '
  'test scores themselves, the advised one before any training. Intervals: 95%, paired, over '
  'source seeds and seeds.'
)
