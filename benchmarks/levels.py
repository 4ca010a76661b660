"""How often nominal 95% intervals over source seeds, folds and seeds cover the true mean.

  python -m benchmarks.levels            # two minutes on 2 cores
  python -m benchmarks.levels --quick    # a tenth of the draws

First drawn effects, whose variances are known: 3 source seeds x 5 seeds, 5 folds x 5 seeds, all
three, at many ratios of the variances to that of single runs. Then real folds: data sets drawn from
three Gaussian classes, each divided by `datasets` into 5 folds, a ridge classifier trained on 5
subsets of what is left; the truth is its mean accuracy over all data sets. `independent` takes runs
for independent of each other, `folds apart` leaves Nadeau and Bengio's (2003) correction out.
"""

import argparse
import itertools
import math

import numpy as np
from scipy import special

from tlx.datasets import _splits
from tlx.report import statistics

VARIANCES = (0.0, 0.3, 1.0, 4.0, 16.0)  # of a factor, over that of single runs
CLASSES, FEATURES = 3, 10


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--quick', action='store_true')
  scale = 10 if parser.parse_args().quick else 1
  print(f'{"drawn effects":32} {"lowest":>8} {"highest":>8} {"independent, lowest":>20}')
  for shape in ((3, 5), (5, 5), (3, 5, 5), (2, 5)):
    ours, naive = drawn(shape, num=10_000 // scale)
    name = ' x '.join(map(str, shape))
    print(f'{name:32} {min(ours):8.1%} {max(ours):8.1%} {min(naive):20.1%}', flush=True)
  print(
    f'\n{"real folds, 5 x 5 seeds":32} {"corrected":>9} {"folds apart":>12} {"independent":>12}'
  )
  for num, shots in ((90, 5), (300, 5), (300, 20), (90, 0), (300, 0)):
    found = real(num, shots, num_sets=2_000 // scale)
    name = f'{num} examples, {shots or "90%"} {"a class" if shots else "of training"}'
    print(f'{name:32} {found[0]:9.1%} {found[1]:12.1%} {found[2]:12.1%}', flush=True)


def drawn(shape: tuple[int, ...], num: int) -> tuple[list[float], list[float]]:
  """(coverage, that of independent runs) for every choice of the factors' variances."""
  random = np.random.default_rng(0)
  ours, naive = [], []
  for variances in itertools.product(VARIANCES, repeat=len(shape)):
    values = random.normal(size=(num, *shape))
    for i, variance in enumerate(variances):
      of_levels = [size if i == j else 1 for j, size in enumerate(shape)]
      values = values + math.sqrt(variance) * random.normal(size=(num, *of_levels))
    ours.append(covered(values, 0.0))
    naive.append(covered(values.reshape(num, -1), 0.0))
  return ours, naive


def covered(values: np.ndarray, truth: float, overlap: tuple[float, ...] = ()) -> float:
  """How often the interval of values [num, ...] holds the truth."""
  error, freedom = statistics.errors(values, overlap, values.ndim - 1)
  half = (special.stdtrit(freedom, 0.975) * error).max(axis=-1)
  means = values.reshape(len(values), -1).mean(axis=1)
  return float((np.abs(means - truth) <= half).mean())


def real(num: int, shots: int, num_sets: int) -> tuple[float, float, float]:
  """Coverage of 5 folds x 5 seeds: corrected, without the correction, of independent runs."""
  random = np.random.default_rng(1)
  centres = random.normal(size=(CLASSES, FEATURES)) / 2
  values = np.stack([scores(random, centres, num, shots) for _ in range(num_sets)])
  truth = float(values.mean())
  return (
    covered(values, truth, (1 / 4, 0.0)),
    covered(values, truth),
    covered(values.reshape(num_sets, -1), truth),
  )


def scores(random: np.random.Generator, centres: np.ndarray, num: int, shots: int) -> np.ndarray:
  """Test accuracies [5 folds, 5 seeds] on one data set."""
  labels = np.arange(num) % CLASSES
  inputs = centres[labels] + random.normal(size=(num, FEATURES))
  inputs = np.concatenate([inputs, np.ones((num, 1))], axis=1)
  fold = _splits.fold_of(labels, [str(i) for i in range(num)], 5)
  found = np.zeros((5, 5))
  for f, seed in itertools.product(range(5), range(5)):
    train, test = np.flatnonzero(fold != f + 1), fold == f + 1
    rows = subset(random, train, labels, shots)
    gram = inputs[rows].T @ inputs[rows] + np.eye(FEATURES + 1)
    head = np.linalg.solve(gram, inputs[rows].T @ np.eye(CLASSES)[labels[rows]])
    found[f, seed] = ((inputs[test] @ head).argmax(axis=1) == labels[test]).mean()
  return found


def subset(
  random: np.random.Generator, train: np.ndarray, labels: np.ndarray, shots: int
) -> np.ndarray:
  """`shots` training rows of each class, or nine tenths of all."""
  if not shots:
    return random.choice(train, len(train) * 9 // 10, replace=False)
  of_classes = [train[labels[train] == k] for k in range(CLASSES)]
  return np.concatenate([random.choice(rows, shots, replace=False) for rows in of_classes])


if __name__ == '__main__':
  main()
