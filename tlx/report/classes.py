"""What is found of each class, and its mean over classes, as tidy frames of numbers."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tlx.report import levels, metrics, numbers, statistics
from tlx.report.folder import Results, data_of, read_predictions

_BALANCED = f'test_{metrics.BALANCED.column}'
_TOLD = ['id', *numbers.CELL, *levels.FACTORS, 'folds', 'init', 'deterministic', _BALANCED]


def recalls(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots and class: the share of its test examples that was found,
  mean over the chosen runs.

  From result.json, or from predictions.npz in folders of earlier versions; runs that have neither
  are left out, and so are classes without a test example. `class` is the name, or the number where
  names are not known. `count` are the test examples of a class, NaN where predictions are not kept,
  and `low` and `high` Wilson's 95% interval of the mean over drawing that many.
  """
  rows = []
  for run in _each(results):
    names = class_names(results, run['source'], run['target'])
    cell = [run[key] for key in numbers.CELL]
    for i, value in enumerate(_recall(results, run['id'])):
      if math.isfinite(value):
        rows.append((*cell, i, names[i] if i < len(names) else str(i), value))
  frame = pd.DataFrame(rows, columns=[*numbers.CELL, 'index', 'class', 'recall'])
  frame = (
    frame.groupby([*numbers.CELL, 'index', 'class'], sort=False)['recall']
    .agg(['mean', 'min', 'max', 'size'])
    .reset_index()
    .rename(columns={'size': 'n'})
  )
  counts = {pair: _counts(results, *pair) for pair in results.pairs}
  found = []
  for source, target, number, share in zip(
    frame['source'], frame['target'], frame['index'], frame['mean']
  ):
    count = counts[source, target].get(number, 0)
    interval = statistics.wilson_interval(share, count) if count else (math.nan, math.nan)
    found.append((count or math.nan, *interval))
  return frame.join(pd.DataFrame(found, columns=['count', 'low', 'high'], index=frame.index))


def _counts(results: Results, source: str, target: str) -> dict[int, int]:
  """{class: its test examples, of all folds together}; empty where no predictions are kept."""
  runs = numbers.tested(results)
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  counts: Counter[int] = Counter()
  for name in runs.drop_duplicates('fold')['id'] if results.metrics[target].counted else ():
    predictions = read_predictions(results.workdir, name)
    if predictions is not None and predictions['labels'].ndim == 1:
      counts.update(predictions['labels'].tolist())
  return counts


def balanced(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots: the mean recall of the classes, its interval over seeds."""
  rows = []
  for run in _each(results):
    value = run[_BALANCED]
    if math.isnan(value):
      recall = [found for found in _recall(results, run['id']) if math.isfinite(found)]
      value = float(np.mean(recall)) if recall else value
    rows.append({**run, 'value': value})
  frame = pd.DataFrame(rows, columns=[*_TOLD, 'value']).dropna(subset=['value'])
  cells = [
    (*cell, *levels.interval(runs, 'value'))
    for cell, runs in frame.groupby(numbers.CELL, sort=False)
  ]
  return pd.DataFrame(cells, columns=[*numbers.CELL, 'mean', 'low', 'high', 'n'])


def class_names(results: Results, source: str, target: str) -> list[str]:
  """The names of a target's classes in the order of their numbers; empty where not told."""
  return [str(name) for name in data_of(results, source, target).get('class_names') or ()]


def _each(results: Results) -> list[Mapping[str, Any]]:
  """The chosen runs whose answers are counted by class, those of a cell that depend on no seed
  once.
  """
  tested = numbers.tested(results)
  told = [column for column in _TOLD if column in tested]
  runs: list[Mapping[str, Any]] = []
  for cell, group in tested[told].groupby(numbers.CELL, sort=False):
    if not results.metrics[cell[1]].counted:
      continue
    runs += numbers.once(group).to_dict('records')
  return runs


def _recall(results: Results, name: str) -> list[float]:
  """Recall of every class of a run, NaN without test examples; empty where it is not known."""
  found = (results.found[name]['test'] or {}).get('recall')
  if found is not None:
    return [math.nan if value is None else float(value) for value in found]
  predictions = read_predictions(results.workdir, name)
  if predictions is None:
    return []
  labels, logits = predictions['labels'], predictions['logits']
  right = logits.argmax(axis=1) == labels
  recalls = []
  for k in range(logits.shape[1]):
    of_class = labels == k
    recalls.append(float(right[of_class].mean()) if of_class.any() else math.nan)
  return recalls
