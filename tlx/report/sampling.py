"""Intervals that hold the test set as a sample too, from the predictions of every chosen run."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tlx.report import levels, numbers, statistics
from tlx.report.folder import Results, read_predictions


def intervals(results: Results, reference: str) -> pd.DataFrame:
  """Per source, target, method and shots: the share of right answers and its difference to
  `reference`, with intervals over seeds and test examples.

  By `statistics.two_level_interval`; the draws of test examples are the same for all methods of a
  target, so differences are paired by seed and by example. Of one seed there is an interval only
  where the run depends on none. Left out where predictions are missing, targets whose answers are
  not counted right or wrong, and targets of folds, which test other examples each: their intervals
  hold that already.

  Raises:
    ValueError: a predictions.npz cannot be read, or two runs of a target were tested on different
    examples.
  """
  runs, rows = numbers.tested(results), []
  reference_runs = numbers.references(runs, reference)
  for target in dict.fromkeys(runs['target']):
    of_target = runs[runs['target'] == target]
    if not results.metrics[target].counted or of_target['fold'].notna().any():
      continue
    right = _right(results, of_target['id'])
    if not right:
      continue
    draws = dict(zip(right, statistics.resample_examples(np.stack(list(right.values()))).T))
    part = runs[(runs['target'] == target) & runs['id'].isin(right.keys())]
    for (source, _, method, shots), group in numbers.groups(part, results):
      other = reference_runs(source, target, shots)
      other = other[other['id'].isin(right.keys())]
      difference = (math.nan, math.nan, math.nan)
      if method != reference and len(other):
        difference = _difference(group, other, draws, right)
      one = numbers.once(group)
      mean = float(np.mean([right[name].mean() for name in one['id']]))
      found = {place: draws[name] for place, name in zip(levels.places(group), one['id'])}
      low, high = _interval(one, found)
      rows.append((source, target, method, shots, mean, low, high, *difference))
  return pd.DataFrame(
    rows,
    columns=[
      *numbers.CELL,
      'mean',
      'low',
      'high',
      'difference',
      'difference_low',
      'difference_high',
    ],
  )


def _difference(
  runs: pd.DataFrame, other: pd.DataFrame, draws, right
) -> tuple[float, float, float]:
  """(mean, low, high) of `runs` minus `other`, paired as by `levels.matched`."""
  sides = (dict(zip(levels.places(side), numbers.once(side)['id'])) for side in (runs, other))
  ours, theirs = levels.matched(*sides)
  places = sorted(ours.keys() & theirs.keys())
  if not places:
    return math.nan, math.nan, math.nan
  mean = float(np.mean([right[ours[at]].mean() - right[theirs[at]].mean() for at in places]))
  both = runs if len(places) > 1 or not runs['deterministic'].all() else other
  return mean, *_interval(both, {at: draws[ours[at]] - draws[theirs[at]] for at in places})


def _interval(runs: pd.DataFrame, draws: Mapping[tuple, np.ndarray]) -> tuple[float, float]:
  """Of draws [B] by place; NaN for a single run that depends on its seed."""
  if len(draws) < 2 and not runs['deterministic'].all():
    return math.nan, math.nan
  rows = statistics.complete(dict(zip(draws, range(len(draws))))).astype(int)
  return statistics.two_level_interval(np.moveaxis(np.stack(list(draws.values()))[rows], -1, 0))


def _right(results: Results, names) -> dict[str, np.ndarray]:
  """{run: 1.0 where it is right on a test example [N], else 0.0}, of runs with predictions."""
  found, ids = {}, None
  for name in names:
    predictions = read_predictions(results.workdir, name)
    if predictions is not None:
      ids = predictions['ids'] if ids is None else ids
      if not np.array_equal(ids, predictions['ids']):
        raise ValueError(
          f'{name} was tested on other examples than the runs before it, so no common draw can be '
          'made. Leave test_sampling out.'
        )
      found[name] = (predictions['logits'].argmax(axis=1) == predictions['labels']).astype(float)
  return found
