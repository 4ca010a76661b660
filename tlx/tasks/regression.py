"""Regression: one number an example."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from tlx.tasks._vectors import correlations
from tlx.types import Array, Batch, PyTree, Task

COLUMNS = ('mse', 'mae', 'loss', 'count', 'r2', 'pearson', 'spearman')


@functools.cache
def task(num_classes: int, center: float = 0.0, scale: float = 1.0) -> Task:
  """Squared error of `center + scale x output` [B, 1]; targets are numbers [B].

  Minimised is the squared error in units of `scale`: numbers far from 0 or from size 1 are learnt
  sooner with their mean and deviation. Class numbers serve as targets too.

  Columns, in the units of the targets: 'mse', the mean squared error, by which settings are chosen,
  'mae', the mean absolute error, 'loss', 'count'. Of kept values also 'r2', 1 - squared error over
  the squared deviation from the mean, and the correlations 'pearson' and 'spearman' (ties have
  their mean rank): NaN where the targets do not vary, the correlations also where the answers do
  not.

  Raises:
    ValueError: a scale that is not above 0, or a center that is not finite.
  """
  if not (0 < scale < math.inf and math.isfinite(center)):
    raise ValueError(
      f'regression wants a finite center and a scale above 0, got {center} and {scale}.'
    )

  def terms(outputs: Array, batch: Batch) -> dict[str, tuple[Array, Array]]:
    error = center + scale * outputs[:, 0] - batch.targets
    return {
      'loss': ((error / scale) ** 2, batch.mask),
      'squared': (error**2, batch.mask),
      'absolute': (jnp.abs(error), batch.mask),
    }

  def keep(outputs: Array) -> dict[str, Array]:
    return {'values': center + scale * outputs[:, 0]}

  return Task(1, _numbers, terms, keep, _scores, ('mse', -1))


def answers(kept: Mapping[str, np.ndarray], class_names: Sequence[str]) -> dict[str, Sequence[Any]]:
  """{'value': the number}, one a row."""
  value: Any = kept['values'].astype(np.float64)
  return {'value': value}


def averaged(kept: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """What is kept of several runs, as of one: the mean of their numbers."""
  return {'values': np.array([one['values'] for one in kept], np.float64).mean(0)}


def _numbers(inputs: PyTree, labels: np.ndarray) -> np.ndarray:
  if np.ndim(labels) != 1:
    raise ValueError(
      f'regression wants a number for each example, got {np.shape(labels)[1:]} of them. '
      "Use the task 'multi_label' for several labels an example."
    )
  if not np.isfinite(labels).all():
    raise ValueError(
      "regression wants a number for each example, and these have none: name it 'score'."
    )
  return np.asarray(labels, np.float32)


def _scores(
  sums: Mapping[str, tuple[float, float]],
  kept: Mapping[str, np.ndarray] | None = None,
  targets: np.ndarray | None = None,
) -> dict[str, Any]:
  columns = {
    name: sums[term][0] / sums[term][1]
    for name, term in (('mse', 'squared'), ('mae', 'absolute'), ('loss', 'loss'))
  }
  columns['count'] = int(sums['loss'][1])
  if kept is None or targets is None:
    return columns
  return columns | _of_all(np.asarray(kept['values'], np.float64), np.asarray(targets, np.float64))


def _of_all(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
  """What needs every example: 'r2' and the correlations."""
  r2 = math.nan
  if np.isfinite(values).all() and (targets != targets[0]).any():
    spread = ((targets - targets.mean()) ** 2).sum()
    r2 = float(1 - ((values - targets) ** 2).sum() / spread)
  return {'r2': r2, **correlations(values, targets)}
