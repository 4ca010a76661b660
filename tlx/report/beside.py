"""What evaluators and tasks give beside the main score, as tidy frames and arrays."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tlx.report import levels, metrics, numbers
from tlx.report.folder import Results, in_order, read_predictions


def measures(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots and `column`: the mean over the chosen runs of every other
  number of their tests, with its interval over seeds (`levels.interval`).
  """
  runs, rows = numbers.tested(results), []
  found = [name.removeprefix('test_') for name in runs if name.startswith('test_')]
  found.remove('score')
  for cell, group in numbers.groups(runs, results):
    for metric in metrics.others(found, results.metrics[cell[1]]):
      column = f'test_{metric.column}'
      asked = levels.telling_apart(group[np.isfinite(group[column])], column)
      if len(asked):
        rows.append((*cell, metric.column, *levels.interval(asked, column)))
  return pd.DataFrame(rows, columns=[*numbers.CELL, 'column', 'mean', 'low', 'high', 'n'])


def reliability(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots and bin of the largest probability: test examples of all
  seeds, the mean probability, and the `share` that is right; of runs that were asked. Bins of less
  than 1% of the examples are left out.
  """
  rows = []
  for cell, group in numbers.groups(numbers.tested(results), results):
    tables = _tables(results, group, 'reliability')
    total = sum(one[0] for table in tables for one in table)
    for number, bins in enumerate(zip(*tables)):
      filled = [one for one in bins if one[0]]
      count = sum(one[0] for one in filled)
      if count and count >= 0.01 * total:
        sure, right = (sum(one[0] * one[i] for one in filled) / count for i in (1, 2))
        rows.append((*cell, number, count, sure, right))
  return pd.DataFrame(rows, columns=[*numbers.CELL, 'bin', 'count', 'probability', 'share'])


def lines(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots and `place`, from the run of one seed (0) to that of another
  (1) on a straight line: the mean test score of the weights there, with its interval over seeds; of
  runs that were asked.
  """
  found = {}
  for name, result in results.found.items():
    scores = (result['test'] or {}).get(f'line_{metrics.selected(result)[0]}') or []
    found[name] = [(i / (len(scores) - 1), score) for i, score in enumerate(scores)]
  return _along(results, found)


def scales(results: Results) -> pd.DataFrame:
  """As `lines`: validation scores of merged runs of which three scales or more were tried, by
  these.
  """
  found = {}
  for name, result in results.found.items():
    column, tried = metrics.selected(result)[0], (result.get('merged') or {}).get('tried', [])
    found[name] = [(one['scale'], one[column]) for one in tried] if len(tried) > 2 else []
  return _along(results, found)


def _along(results: Results, found: Mapping[str, list[tuple[float, float | None]]]) -> pd.DataFrame:
  """The means over seeds of scores at places, of the chosen runs that have some."""
  rows = []
  for cell, group in numbers.groups(numbers.tested(results), results):
    group = numbers.once(group)
    places = [dict(found[name]) for name in group['id']]
    for place in sorted({place for of_run in places for place in of_run}):
      scores = [np.nan if (value := one.get(place)) is None else value for one in places]
      asked = group.assign(score=scores)
      asked = asked[np.isfinite(asked['score'])]
      if len(asked):
        rows.append((*cell, place, *levels.interval(asked, 'score')))
  return pd.DataFrame(rows, columns=[*numbers.CELL, 'place', 'mean', 'low', 'high', 'n'])


def confusion(results: Results, source: str, target: str) -> tuple[str, int, np.ndarray] | None:
  """(the method that is best on validation at the largest size, that size, int [K, K] how many test
  examples of each class, a row, were taken for each, all runs together); None where nobody counted
  and no predictions are kept.
  """
  runs = numbers.tested(results)
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  if not len(runs) or not results.metrics[target].counted:
    return None
  largest = in_order(runs['shots'])[-1]
  for method, group in numbers.by_validation(results, runs[runs['shots'] == largest]):
    tables = _tables(results, group, 'confusion') or _counted(results, group)
    if tables:
      return method, largest, np.sum(np.asarray(tables, int), axis=0)
  return None


def _counted(results: Results, group: pd.DataFrame) -> list[np.ndarray]:
  """The tables of confusion of the runs of a cell, from their predictions; empty where one run has
  none.
  """
  found = []
  for name in numbers.once(group)['id']:
    kept = read_predictions(results.workdir, name)
    if kept is None or 'logits' not in kept or kept['logits'].ndim != 2:
      return []
    table = np.zeros((kept['logits'].shape[1],) * 2, int)
    np.add.at(table, (kept['labels'], kept['logits'].argmax(axis=1)), 1)
    found.append(table)
  return found


def confused(results: Results, source: str, target: str) -> pd.DataFrame:
  """The pairs of classes that `confusion`'s method takes for each other, the most common first:
  numbers of classes as `class` and `taken_for`, `count` of the `total` of the class, all runs
  together, and `back`, how many of the other were taken for it.
  """
  columns = ['class', 'taken_for', 'count', 'total', 'back']
  found = confusion(results, source, target)
  if found is None:
    return pd.DataFrame(columns=columns)
  counts = found[2]
  wrong = counts * (1 - np.eye(len(counts), dtype=int))
  rows = [
    (row, column, wrong[row, column], counts[row].sum(), wrong[column, row])
    for row, column in np.argwhere(wrong)
  ]
  frame = pd.DataFrame(rows, columns=columns)
  return frame.sort_values('count', ascending=False, kind='stable', ignore_index=True)


def _tables(results: Results, group: pd.DataFrame, column: str) -> list:
  """A column of lists of the runs of a cell that have it."""
  found = []
  for name in numbers.once(group)['id']:
    table = (results.found[name]['test'] or {}).get(column)
    if table:
      found.append(table)
  return found
