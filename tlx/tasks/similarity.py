"""Similarity: how near the texts of a pair are, as the cosine of their vectors (STS)."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx.tasks._vectors import NONE, check_pairs, correlations, unit
from tlx.types import Array, Batch, PyTree, Task

FORM = 'pair'
COLUMNS = ('pearson', 'loss', 'count', 'spearman')
# Of numbers that vary by less than so much of their mean square, float32 sums tell nothing.
ROUNDING = 1e-6


@functools.cache
def task(num_classes: int, scale: float = 20.0) -> Task:
  """CoSENT over the cosines of pairs of vectors [B, 2, D] that the source's own head gives; targets
  are scores [B] of any range, of which only the order counts.

  log(1 + sum of exp(scale x (cosine of pair i - cosine of pair j)) over all i and j of the batch
  where i has the lower score) (Huang et al. 2024, doi:10.1109/TASLP.2024.3402087), in nats. With
  `accumulate` a part of a batch is a batch. A method of no steps is the encoder as it is.

  Columns, plain numbers in [-1, 1]: 'pearson', by which settings are chosen, of cosines and scores,
  NaN where one of both does not vary; 'loss', the mean over batches in one random order; 'count'.
  Of kept cosines also 'spearman' (ties have their mean rank), which STS is compared by.

  Raises:
    ValueError: a scale that is not above 0.
  """
  del num_classes
  if scale <= 0:
    raise ValueError(f'similarity wants a scale above 0, got {scale}.')

  def terms(outputs: Array, batch: Batch) -> dict[str, tuple[Array, Array]]:
    sides, score, mask = _sides(outputs), batch.targets, batch.mask
    cosine = (sides[:, 0] * sides[:, 1]).sum(-1)
    distance = ((sides[:, 0] - sides[:, 1]) ** 2).sum(-1) / 2  # 1 - cosine, exact near 0
    real = mask[:, None] * mask[None, :] > 0
    wrong = jnp.where(
      (score[:, None] < score[None, :]) & real, scale * (cosine[:, None] - cosine[None, :]), NONE
    )
    loss = jax.nn.logsumexp(jnp.append(wrong.ravel(), 0.0))
    numbers = {
      'loss': jnp.full_like(cosine, loss),
      'distance': distance,
      'score': score,
      'distance^2': distance**2,
      'score^2': score**2,
      'product': distance * score,
    }
    return {name: (value, mask) for name, value in numbers.items()}

  return Task(None, _scores_of_pairs, terms, _keep, _columns, ('pearson', +1), contrasts=True)


def answers(kept: Mapping[str, np.ndarray], class_names: Sequence[str]) -> dict[str, Sequence[Any]]:
  """{'similarity': the cosine of each pair}."""
  cosine: Any = np.asarray(kept['values'], np.float64)
  return {'similarity': cosine}


def _scores_of_pairs(inputs: PyTree, labels: np.ndarray) -> np.ndarray:
  """The scores [N] without their mean, which no column depends on and float32 squares would."""
  del inputs
  if np.ndim(labels) != 1 or not np.isfinite(labels).all():
    raise ValueError(
      'similarity wants a score for each pair of texts, and these have none. Name its column '
      "'score', or take the task 'retrieval' for pairs that belong together."
    )
  scores = np.asarray(labels, np.float64)
  return (scores - scores.mean()).astype(np.float32)


def _sides(outputs: Array) -> Array:
  check_pairs(outputs, 'similarity')
  return unit(outputs)


def _keep(outputs: Array) -> dict[str, Array]:
  sides = _sides(outputs)
  return {'values': (sides[:, 0] * sides[:, 1]).sum(-1)}


def _columns(
  sums: Mapping[str, tuple[float, float]],
  kept: Mapping[str, np.ndarray] | None = None,
  targets: np.ndarray | None = None,
) -> dict[str, Any]:
  total, count = sums['loss']
  mean = {name: value / weight for name, (value, weight) in sums.items()}
  squares = [mean[f'{name}^2'] for name in ('distance', 'score')]
  spread = [square - mean[name] ** 2 for square, name in zip(squares, ('distance', 'score'))]
  shared = mean['distance'] * mean['score'] - mean['product']  # less distance is more similar
  varies = all(one > ROUNDING * square for one, square in zip(spread, squares))
  columns = {
    'pearson': shared / math.sqrt(spread[0] * spread[1]) if varies else math.nan,
    'loss': total / count,
    'count': int(count),
  }
  if kept is None or targets is None:
    return columns
  return columns | correlations(kept['values'], targets)
