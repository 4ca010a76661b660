"""Multi-label classification: each example has any number of the labels."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from scipy import special

from tlx.types import Array, Batch, PyTree, Task

COLUMNS = ('micro_f1', 'exact_match', 'loss', 'count', 'macro_f1', 'map')


@functools.cache
def task(num_classes: int) -> Task:
  """Sigmoid cross-entropy in nats over logits [B, K], summed over labels; targets 0 or 1 [B, K].

  The sum is that of big_vision's sigmoid_xent. Class numbers [B] serve as targets too: one label an
  example. A label is given where its probability is above one half.

  Columns: 'micro_f1', by which settings are chosen, 2 TP / (2 TP + FP + FN) over all labels
  together (0 where nothing is given and nothing is true), 'exact_match', the share of examples with
  all labels right, 'loss', 'count'. Of kept logits also 'macro_f1', the mean of the F1 of each
  label, and 'map', the mean over labels of the average precision, each over the labels that some
  example has (NaN where none has any); and 'average_precision', a list with a number a label, NaN
  where no example has it.
  """

  def targets(inputs: PyTree, labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
      return np.eye(num_classes, dtype=np.float32)[labels]
    if labels.ndim != 2 or labels.shape[1] != num_classes:
      raise ValueError(
        f'multi_label wants a 0 or 1 for each of {num_classes} labels, or class numbers, got '
        f"{labels.dtype} {labels.shape[1:]} an example. Use the task 'regression' for numbers."
      )
    return labels.astype(np.float32)

  return Task(num_classes, targets, _terms, _logits, _scores, ('micro_f1', +1))


def answers(kept: Mapping[str, np.ndarray], class_names: Sequence[str]) -> dict[str, Sequence[Any]]:
  """{'labels': the names given, as 'a|b', 'p(NAME)': the probability of each label}, one a row."""
  logits = kept['label_logits'].astype(np.float64)
  given = []
  for row in logits > 0:
    given.append('|'.join(name for name, there in zip(class_names, row) if there))
  shares = zip(class_names, special.expit(logits).T)
  return {'labels': given} | {f'p({name})': of_label for name, of_label in shares}


def averaged(kept: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """What is kept of several runs, as of one: logits of the mean of their probabilities."""
  logits = np.array([one['label_logits'] for one in kept], np.float64)
  yes, no = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
  return {'label_logits': special.logsumexp(yes, 0) - special.logsumexp(no, 0)}


def _terms(logits: Array, batch: Batch) -> dict[str, tuple[Array, Array]]:
  wanted, given = batch.targets, (logits > 0).astype(jnp.float32)
  loss = optax.sigmoid_binary_cross_entropy(logits, wanted).sum(-1)
  return {
    'loss': (loss, batch.mask),
    'right': ((given * wanted).sum(-1), batch.mask),
    'either': ((given + wanted).sum(-1), batch.mask),
    'exact': ((given == wanted).all(-1).astype(jnp.float32), batch.mask),
  }


def _logits(outputs: Array) -> dict[str, Array]:
  return {'label_logits': outputs}


def _scores(
  sums: Mapping[str, tuple[float, float]],
  kept: Mapping[str, np.ndarray] | None = None,
  targets: np.ndarray | None = None,
) -> dict[str, Any]:
  count = sums['loss'][1]
  either = sums['either'][0]
  columns = {
    'micro_f1': 2 * sums['right'][0] / either if either else 0.0,
    'exact_match': sums['exact'][0] / count,
    'loss': sums['loss'][0] / count,
    'count': int(count),
  }
  if kept is None or targets is None:
    return columns
  return columns | _by_label(kept['label_logits'], np.asarray(targets) > 0)


def _by_label(logits: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
  """What is a mean over labels, and the average precision of each."""
  given = logits > 0
  found = [average_precision(logits[:, k], wanted[:, k]) for k in range(wanted.shape[1])]
  there = wanted.any(0)
  sizes = np.maximum(given.sum(0) + wanted.sum(0), 1)
  f1 = 2 * (given & wanted).sum(0) / sizes
  return {
    'macro_f1': float(f1[there].mean()) if there.any() else np.nan,
    'map': float(np.mean(np.asarray(found)[there])) if there.any() else np.nan,
    'average_precision': found,
  }


def average_precision(scores: np.ndarray, wanted: np.ndarray) -> float:
  """The mean, over the examples that have a label, of the precision among those scored as high.

  As scikit-learn's average_precision_score: the step-wise area under precision and recall, equal
  scores together. NaN where no example has the label.

  >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))  # (1 + 2/3) / 2
  0.8333333333333333
  """
  if not wanted.any():
    return float('nan')
  order = np.argsort(-scores, kind='stable')
  ranked, right = scores[order], np.cumsum(wanted[order])
  last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of examples of one score
  precision = right[last] / (last + 1)
  gained = np.diff(right[last], prepend=0)
  return float((precision * gained).sum() / wanted.sum())
