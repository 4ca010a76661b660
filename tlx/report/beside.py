"""What evaluators and tasks give beside the main score, as tidy frames and arrays."""

import math

import numpy as np
import pandas as pd

from tlx.report import levels, metrics, numbers
from tlx.report.folder import Results, in_order


def measures(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots and `column`: the mean over the chosen runs of every other
  number of their tests, with its interval over seeds (`levels.interval`).
  """
  runs, rows = numbers.tested(results), []
  found = [name.removeprefix('test_') for name in runs if name.startswith('test_')]
  found.remove('score')
  for cell, group in numbers.groups(runs, results):
    group = numbers.once(group)
    for metric in metrics.others(found, results.metrics[cell[1]]):
      column = f'test_{metric.column}'
      asked = group[np.isfinite(group[column])]
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


def confusion(results: Results, source: str, target: str) -> tuple[str, int, np.ndarray] | None:
  """(the method that is best on validation at the largest size, that size, [K, K] the share of each
  class, a row, that was taken for each, over all seeds); None where nobody counted.
  """
  runs = numbers.tested(results)
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  if not len(runs):
    return None
  largest = in_order(runs['shots'])[-1]
  best, found = -math.inf, None
  for cell, group in numbers.groups(runs[runs['shots'] == largest], results):
    tables = _tables(results, group, 'confusion')
    score = numbers.rising(results, group, 'val_score').mean()
    if tables and score > best:
      best, found = score, (cell[2], largest, np.sum(np.asarray(tables, float), axis=0))
  if found is None:
    return None
  method, size, counts = found
  totals = np.where(counts.sum(1) > 0, counts.sum(1), math.nan)
  return method, size, counts / totals[:, None]


def _tables(results: Results, group: pd.DataFrame, column: str) -> list:
  """A column of lists of the runs of a cell that have it."""
  found = []
  for name in numbers.once(group)['id']:
    table = (results.found[name]['test'] or {}).get(column)
    if table:
      found.append(table)
  return found
