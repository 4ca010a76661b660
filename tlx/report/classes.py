"""Accuracy class by class, and its mean over classes, as tidy frames of numbers."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tlx.report import numbers, statistics
from tlx.report.folder import Results, read_predictions


def recalls(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots and class: the share of its test examples that was found,
  mean over the chosen runs.

  From result.json, or from predictions.npz in folders of earlier versions; runs that have neither
  are left out, and so are classes without a test example. `class` is the name, or the number where
  names are not known.
  """
  rows = []
  for run in _each(results):
    names = class_names(results, run['source'], run['target'])
    rows += [
      (*(run[key] for key in numbers.CELL), i, names[i] if i < len(names) else str(i), value)
      for i, value in enumerate(_recall(results, run['id']))
      if math.isfinite(value)
    ]
  frame = pd.DataFrame(rows, columns=[*numbers.CELL, 'index', 'class', 'recall'])
  return (
    frame.groupby([*numbers.CELL, 'index', 'class'], sort=False)['recall']
    .agg(['mean', 'min', 'max', 'size'])
    .reset_index()
    .rename(columns={'size': 'n'})
  )


def balanced(results: Results) -> pd.DataFrame:
  """Per source, target, method and shots: balanced accuracy, the mean recall over classes, with its
  interval over seeds.
  """
  rows = []
  for run in _each(results):
    found = run['test_balanced_accuracy']
    recall = (
      [value for value in _recall(results, run['id']) if math.isfinite(value)]
      if math.isnan(found)
      else []
    )
    rows.append((*(run[key] for key in numbers.CELL), float(np.mean(recall)) if recall else found))
  frame = pd.DataFrame(rows, columns=[*numbers.CELL, 'value']).dropna(subset=['value'])
  cells = [
    (*cell, *statistics.mean_interval(values))
    for cell, values in frame.groupby(numbers.CELL, sort=False)['value']
  ]
  return pd.DataFrame(cells, columns=[*numbers.CELL, 'mean', 'low', 'high', 'n'])


def class_names(results: Results, source: str, target: str) -> list[str]:
  """The names of a target's classes in the order of their numbers; empty where the folder does not
  say.
  """
  return [str(name) for name in results.data.get(f'{source}/{target}', {}).get('class_names') or ()]


def _each(results: Results) -> list[Mapping[str, Any]]:
  """The chosen runs, those of a cell that depend on no seed once."""
  cells = numbers.tested(results).groupby(numbers.CELL, sort=False)
  return [run for _, group in cells for run in numbers.once(group).to_dict('records')]


def _recall(results: Results, name: str) -> list[float]:
  """Recall of every class of a run, NaN without test examples; empty where it is not known."""
  found = (results.found[name]['test'] or {}).get('recall')
  if found is not None:
    return [math.nan if value is None else float(value) for value in found]
  predictions = read_predictions(results.workdir, name)
  if predictions is None:
    return []
  labels, right = (
    predictions['labels'],
    predictions['logits'].argmax(axis=1) == predictions['labels'],
  )
  return [
    float(right[labels == k].mean()) if (labels == k).any() else math.nan
    for k in range(predictions['logits'].shape[1])
  ]
