"""How far probabilities can be believed, before and after a temperature (Guo et al. 2017)."""

import math

import numpy as np
from scipy import optimize, special

from tlx.evaluators import Finished, _scores
from tlx.types import Task

KEPT = 'logits'
COLUMNS = ('ece', 'nll', 'temperature', 'ece_scaled', 'nll_scaled')
COLDEST, HOTTEST = 0.01, 100.0  # a temperature is not fitted beyond


def check(task: Task, bins: int = 15) -> None:
  """Raises ValueError where there is no such number of bins."""
  if not isinstance(bins, int) or bins < 1:
    raise ValueError(f'calibration wants a whole number of bins from 1 on, got {bins!r}.')


def evaluate(finished: Finished, bins: int = 15) -> dict[str, object]:
  """Columns of the test set, with logits as they are and divided by a temperature.

  'ece', 'ece_scaled': expected calibration error, sum over bins of n_b / N |right_b - sure_b|, in
    equal-width bins of the largest probability, ((b - 1) / bins, b / bins] (Guo et al. 2017, eq. 3)
  'nll', 'nll_scaled': mean negative log-likelihood in nats
  'temperature': what minimises the negative log-likelihood of the validation part, between 0.01 and
    100; 1 where all its answers are right, since nothing does then
  'reliability': [examples, mean largest probability, share right] of each bin, NaN without examples
  """
  logits, labels = finished.predict('test')['logits'], finished.data('test').targets
  fitted = temperature(finished.predict('val')['logits'], finished.data('val').targets)
  table = reliability(logits, labels, bins)
  return {
    'ece': error(table),
    'nll': log_loss(logits, labels),
    'temperature': fitted,
    'ece_scaled': error(reliability(logits / fitted, labels, bins)),
    'nll_scaled': log_loss(logits / fitted, labels),
    'reliability': table.tolist(),
  }


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
  """[bins, (examples, mean largest probability, share right)]."""
  found = _scores.probabilities(logits)
  sure, right = found.max(-1), found.argmax(-1) == labels
  place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
  table = np.full((bins, 3), math.nan)
  for b in range(bins):
    inside = place == b
    table[b, 0] = inside.sum()
    if inside.any():
      table[b, 1:] = sure[inside].mean(), right[inside].mean()
  return table


def error(table: np.ndarray) -> float:
  """The expected calibration error of a table of bins, in [0, 1]."""
  counts, gaps = table[:, 0], np.abs(table[:, 2] - table[:, 1])
  return float(np.nansum(counts * gaps) / counts.sum())


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
  """Mean negative log-likelihood in nats."""
  logs = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
  return float(-logs[np.arange(len(labels)), labels].mean())


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
  """What minimises the negative log-likelihood of logits / temperature.

  That is convex in 1 / temperature, so a bounded search over its logarithm finds the only minimum.
  Where every answer is right there is none (the colder the better), and logits stay as they are.
  """
  if (logits.argmax(-1) == labels).all():
    return 1.0
  limits = (math.log(COLDEST), math.log(HOTTEST))
  found = optimize.minimize_scalar(
    lambda log: log_loss(logits * math.exp(-log), labels),
    bounds=limits,
    method='bounded',
    options={'xatol': 1e-7},
  )
  return math.exp(found.x)
