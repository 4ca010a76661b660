"""What was found, in sentences computed from the numbers and no stronger than they are."""

import math

import pandas as pd

from tlx.report import cautions, layers, levels, numbers
from tlx.report.folder import Results, by_size, scored
from tlx.report.formats import probability
from tlx.report.metrics import Metric
from tlx.report.tables import arrow, per_class


def progress(results: Results) -> str:
  """How much of the plan is done, as a phrase."""
  runs, planned = results.runs, results.plan.get('num_runs')
  chosen, failed = len(numbers.tested(results)), int((runs['status'] != 'ok').sum())
  done = (
    f'{len(runs)} of {planned} runs done'
    if planned
    else f'{len(runs)} runs done (the plan does not say of how many)'
  )
  partial = ' (partial: numbers will change)' if planned and len(runs) < planned else ''
  return (
    f'{done}{partial}; {count(chosen, "chosen run")} tested{_looked_at(results)}; {failed} '
    'diverged or not finite.'
  )


def _looked_at(results: Results) -> str:
  """How often runs saw the test set that are no longer chosen: the study grew after they were."""
  seen = scored(results.runs)['test_score'].notna() & ~results.runs['chosen']
  merged = [results.found[name].get('merged') or {} for name in results.runs['id']]
  number = int(seen.sum()) + sum(one.get('tested_before', 0) for one in merged)
  return f' (and {number} more that were chosen before the study grew)' if number else ''


@numbers.remembered
def sentences(results: Results) -> dict[str, list[str]]:
  """{'source → target': what was found there}: the method validation prefers at each size, the
  transfer gain, how deep to freeze.
  """
  means = numbers.means(results)
  if not len(means):
    words = 'No chosen run has seen the test set yet: there is nothing to compare.'
    if (results.runs['status'] != 'ok').all():
      words = 'No run ended in numbers that can be used: lower the learning rates.'
    return {'Nothing yet': [words]}
  against = numbers.differences(results, results.baseline)
  depths = layers.depths(results)
  stages = layers.stages(results)
  reference = numbers.scratch(results)
  gains = numbers.gains(results, reference)
  useless = cautions.unusable(results)
  found = {}
  for pair in results.pairs:
    part = _of(means, *pair)
    lines = [_useless(results, row) for row in _of(useless, *pair).to_dict('records')]
    lines += [
      _preferred(results, row, len(part[part['shots'] == row['shots']]), against)
      for row in _best(results, part)
    ]
    if results.baseline and len(part) and not len(_of(against, *pair)):
      lines.append(f'No run can be paired with one of the baseline {results.baseline} yet.')
    if reference and len(_of(gains, *pair)):
      lines.append(_transfer(results, _of(gains, *pair), reference))
    if _of(depths, *pair)['best'].any():
      lines.append(_freezing(results, _of(depths, *pair)))
    lines += [
      _stages(results, family)
      for _, family in _of(stages, *pair).groupby('family', sort=False)
      if family['best'].any()
    ]
    if ended := cautions.best_steps(results, *pair):
      lines.append(ended)
    lines += cautions.merged(results, *pair)
    if lines:
      found[arrow(*pair)] = lines
  return found


def _of(frame: pd.DataFrame, source: str, target: str) -> pd.DataFrame:
  return frame[(frame['source'] == source) & (frame['target'] == target)]


def _useless(results: Results, row: dict) -> str:
  place = per_class(results, row['shots'], target=row['target'])
  if row['method'] == results.baseline:
    return (
      f'{place}: the baseline {row["method"]} cannot be used: {row["reason"]}. Differences to it '
      'and steps to match it say nothing; give it more steps, another rate or another '
      'normalisation.'
    )
  return f'{place}: {row["method"]} cannot be used: {row["reason"]}.'


def _best(results: Results, part: pd.DataFrame) -> list[dict]:
  """For each size the row with the best mean validation score: the test set must not choose."""
  ranked = part.assign(rank=-numbers.rising(results, part, 'val_mean')).sort_values(
    ['shots', 'rank'], kind='stable', key=by_size
  )
  return ranked.drop_duplicates('shots').to_dict('records')


def _preferred(results: Results, row: dict, num_methods: int, against: pd.DataFrame) -> str:
  metric = results.metrics[row['target']]
  written, half = metric.written, metric.half(row['low'], row['high'])
  baseline, place = results.baseline, per_class(results, row['shots'], target=row['target'])
  named = '' if metric.counted else f'{metric.words} of '
  score = f'{named}{written(row["mean"])}{half}{metric.unit} on the test set'
  score += f' ({_over(results, row)})'
  if num_methods == 1:
    return f'{place}: {row["method"]}, the only method tested, has {score}.'
  start = f'{place}: of {num_methods} methods {row["method"]} is best on validation, with {score}'
  if row['method'] == baseline:
    return f'{start}: no method does better there than this baseline.'
  same = (against[numbers.CELL] == [row[key] for key in numbers.CELL]).all(axis=1)
  return (
    f'{start}; {_compared(against[same].iloc[0], baseline, metric)}' if same.any() else f'{start}.'
  )


def _over(results: Results, row: dict) -> str:
  """'5 seeds', '3 source seeds and 5 seeds': what a mean and its interval are over."""
  runs = numbers.tested(results)
  runs = runs[(runs[numbers.CELL] == [row[key] for key in numbers.CELL]).all(axis=1)]
  one = levels.once(runs)
  if levels.are_crossed(one):
    return levels.over(one)
  few = ', too few to rely on the interval' if row['n'] == 2 else ''
  return count(row['n'], 'seed') + few


def _compared(pair: pd.Series, baseline: str, metric: Metric) -> str:
  written = metric.written
  change = f'{written(pair["difference"], signed=True)}{metric.points} against {baseline}'
  if pair['n'] == 1:
    return f'{change} in one pair, which says nothing about chance.'
  if math.isnan(pair['low']):
    return (
      f'{change} in each of {pair["n"]} pairs: where differences do not vary there is neither an '
      'interval nor a test, so no difference is shown.'
    )
  change += (
    f' [{written(pair["low"], True)}, {written(pair["high"], True)}], {pair["wins"]} of '
    f'{pair["n"]} pairs won, Holm p {probability(pair["holm_p"])}'
  )
  if pair['n'] <= numbers.FEW_PAIRS:
    return f'{change}: two pairs are too few to tell a difference from chance.'
  if pair['low'] <= 0 <= pair['high']:
    return f'{change}: the interval includes 0, so no difference is shown.'
  if pair['verdict'] == 'not shown':
    return (
      f'{change}: the interval excludes 0, but the test does not survive the correction for all '
      'comparisons of its table, so no difference is shown.'
    )
  return f'{change}.'


def _transfer(results: Results, gains: pd.DataFrame, reference: str) -> str:
  """How often the source helped and hurt against a random start, where chance does not explain."""
  sure = gains[gains['verdict'] != '']
  place = f'Starting from the source against {reference} (random start)'
  if not len(sure):
    return (
      f'{place}: one pair each, or pairs that do not vary, so neither gain nor negative transfer '
      'can be told from chance.'
    )
  metric = results.metrics[gains['target'].iloc[0]]
  verdicts = ('higher', 'lower') if metric.direction > 0 else ('lower', 'higher')
  above, below = (sure[sure['verdict'] == verdict] for verdict in verdicts)
  side = 'above' if metric.direction > 0 else 'below'
  text = (
    f'{place}: of {count(len(sure), "comparison")} {len(above)} gain (95% interval {side} 0 and '
    f'Holm p below 0.05), {len(sure) - len(above) - len(below)} are not shown either way, '
    f'{len(below)} lose'
  )
  if len(gains) > len(sure):
    text += f'; {len(gains) - len(sure)} more cannot be tested'
  if not len(below):
    return f'{text}; no negative transfer is shown.'
  cases = []
  for method, rows in below.groupby('method', sort=False):
    points = ', '.join(metric.written(difference, True) for difference in rows['difference'])
    cases.append(f'{method} at {_sizes(results, rows)} ({points}{metric.points})')
  return f'{text}. Negative transfer: {"; ".join(cases)}.'


def _freezing(results: Results, part: pd.DataFrame) -> str:
  best = part[part['best']].drop_duplicates('shots', keep='last')
  groups = best.groupby(['frozen_stages', 'num_stages', 'method'], sort=False)
  cases = [
    f'{frozen} of {stages} ({method}) at {_sizes(results, rows)}'
    for (frozen, stages, method), rows in groups
  ]
  words = results.metrics[part['target'].iloc[0]].words
  return f'Leading stages to freeze, by validation {words}: {"; ".join(cases)}.'


def _stages(results: Results, part: pd.DataFrame) -> str:
  """The stage whose output carries most for one family of methods."""
  best = (
    part[part['best']].drop_duplicates('shots').sort_values('shots', kind='stable', key=by_size)
  )
  cases = [
    f'{_stage(label)} at {_sizes(results, rows)}'
    for label, rows in best.groupby('label', sort=False)
  ]
  words = results.metrics[part['target'].iloc[0]].words
  return (
    f'The stage to put the head after, by validation {words} of {part["family"].iloc[0]} over '
    f'{part["label"].nunique()} places: {"; ".join(cases)}.'
  )


def _stage(label: str) -> str:
  return {'last': 'the last stage', 'input': 'none (the pixels)'}.get(label, label)


def _sizes(results: Results, rows: pd.DataFrame) -> str:
  return per_class(results, *rows['shots'], target=rows['target'].iloc[0])


def count(n: int, noun: str) -> str:
  """'1 seed', '2 seeds'."""
  return f'{n} {noun}' if n == 1 else f'{n} {noun}s'
