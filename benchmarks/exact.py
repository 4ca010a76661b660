"""Exact linear probes against scikit-learn in float32: time ratios from one interleaved run.

  python -m benchmarks.exact            # a few minutes on 2 cores
  python -m benchmarks.exact --quick    # one repetition, 4 penalties

For 16 penalties from 1 to 1e-4 on features of ten classes, at N=2000 and at N=50, D=1280.
scikit-learn runs, on the same scaled features, LogisticRegression (its default tolerance, 1e-4 on
the largest entry of the gradient, and one ten times tighter) or RidgeClassifier, a fit a penalty.
tlx ends at a gradient whose norm is 1e-5. Compilation is counted apart. `objective` says by how
much, at worst over the penalties, tlx's objective lies above (+) or below (-) scikit-learn's.
"""

import argparse
import functools
import operator
import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from tlx.train import exact

NUM_FEATURES, NUM_CLASSES = 1280, 10
Heads = list[tuple[np.ndarray, np.ndarray]]  # kernel and bias of each penalty


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true')
  quick = parser.parse_args().quick
  penalties = np.logspace(0, -4, 4 if quick else 16)
  print('| solver | N | peer | tlx compile s | tlx s | peer s | peer / tlx | objective |')
  print('|---|---|---|---|---|---|---|---|')
  for num_examples in (2000, 50):
    data = make_data(num_examples)
    for solver, tolerances in (('logistic', (1e-4, 1e-5)), ('ridge', (0.0,))):
      ours = functools.partial(by_tlx, solver, data, penalties)
      first, _ = timed(ours)
      for tolerance in tolerances:
        theirs = functools.partial(by_peer, solver, data, penalties, tolerance)
        times = [(timed(ours), timed(theirs)) for _ in range(1 if quick else 3)]
        of_ours, of_theirs = zip(*times)
        own, heads = min(of_ours, key=operator.itemgetter(0))
        peer, others = min(of_theirs, key=operator.itemgetter(0))
        gaps = []
        for head, other, penalty in zip(heads, others, penalties):
          gap = objective(solver, head, data, penalty) / objective(solver, other, data, penalty)
          gaps.append(gap - 1)
        name = f'tol={tolerance:g}' if tolerance else 'RidgeClassifier'
        print(
          f'| {solver} | {num_examples} | {name} | {first - own:.1f} | {own:.3f} | {peer:.3f} | '
          f'{peer / own:.1f} | {max(gaps, key=abs):+.0e} |',
          flush=True,
        )


def make_data(num_examples: int) -> tuple[np.ndarray, np.ndarray]:
  """Features as networks give them: correlated, rectified, most variance along few axes."""
  random = np.random.default_rng(0)
  targets = np.arange(num_examples, dtype=np.int32) % NUM_CLASSES
  centres = random.normal(size=(NUM_CLASSES, NUM_FEATURES))
  mixing = random.normal(size=(NUM_FEATURES, NUM_FEATURES)) / np.sqrt(NUM_FEATURES)
  spectrum = np.arange(1, NUM_FEATURES + 1) ** -0.7
  features = random.normal(size=(num_examples, NUM_FEATURES)) + 0.5 * centres[targets]
  features = (features * spectrum) @ mixing
  return np.maximum(features + 0.1 * features.std(), 0).astype(np.float32), targets


def timed(function: Callable[[], Heads]) -> tuple[float, Heads]:
  """(seconds, result)."""
  begin_time = time.perf_counter()
  result = function()
  return time.perf_counter() - begin_time, result


def by_tlx(solver: str, data: tuple[np.ndarray, np.ndarray], penalties: np.ndarray) -> Heads:
  """All penalties in one call."""
  rows = np.tile(np.arange(len(data[1])), (len(penalties), 1))
  probe = exact.solve(solver, *data, rows, np.ones(rows.shape), penalties, NUM_CLASSES)
  if not probe.converged.all():
    raise ValueError(f'Gradients of {probe.grad_norm.tolist()} are left.')
  return list(zip(probe.kernel, probe.bias))


def by_peer(
  solver: str, data: tuple[np.ndarray, np.ndarray], penalties: np.ndarray, tolerance: float
) -> Heads:
  """The features scaled once, then a fit a penalty; kernels folded back."""
  mean, scale, heads = data[0].mean(0), np.sqrt(data[0].var(0).mean()), []
  scaled = (data[0] - mean) / scale
  for penalty in penalties:
    strength = len(scaled) * penalty
    model = (
      RidgeClassifier(alpha=strength)
      if solver == 'ridge'
      else LogisticRegression(C=1 / strength, tol=tolerance, max_iter=5000)
    )
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      model.fit(scaled, data[1])
    kernel = model.coef_.T / scale
    heads.append((kernel, model.intercept_ - mean @ kernel))
  return heads


def objective(
  solver: str,
  head: tuple[np.ndarray, np.ndarray],
  data: tuple[np.ndarray, np.ndarray],
  penalty: float,
) -> float:
  """What both minimise, in float64."""
  features, targets = data[0].astype(np.float64), data[1]
  outputs = features @ head[0].astype(np.float64) + head[1]
  labels = np.eye(NUM_CLASSES)[targets]
  losses = (
    logsumexp(outputs, axis=1) - np.sum(labels * outputs, 1)
    if solver == 'logistic'
    else np.sum((outputs - 2 * labels + 1) ** 2, 1) / 2
  )
  return float(
    losses.mean() + penalty / 2 * np.sum((head[0] * np.sqrt(features.var(0).mean())) ** 2)
  )


if __name__ == '__main__':
  main()
