"""Small training sets: class-balanced, nested, and the same for the same seed."""

from collections.abc import Sequence

import numpy as np

from tlx.datasets._types import listing


def subsets(
  labels: np.ndarray,
  ids: Sequence[str],
  shots: Sequence[int],
  seed: int,
  groups: Sequence[str] = (),
  names: Sequence[str] = (),
) -> dict[int, np.ndarray]:
  """{k: indices of k examples per class} for each k of `shots`; 0 stands for all examples, balanced
  or not.

  Every array is a prefix of each larger one: one example of every class, then a second of every
  class, and so on. The order within class c is drawn by `default_rng([seed, c])` over its ids, so
  it does not depend on the order of the arrays. With `groups` it goes round them: no second example
  of a group before every group of the class gave one.

  >>> subsets(np.array([0, 1, 0, 1]), ['a', 'b', 'c', 'd'], [1, 0], seed=0)
  {1: array([0, 1]), 0: array([0, 1, 2, 3])}

  Args:
    names: of the classes, for errors.

  Raises:
    ValueError: more shots than the smallest class has, or fewer than none.
  """
  labels = np.asarray(labels)
  classes, counts = np.unique(labels, return_counts=True)
  for k in shots:
    if not 0 <= k <= counts.min():
      raise ValueError(_too_few(k, classes, counts, names))
  texts = np.asarray(ids)
  rank = np.empty(len(labels), int)  # the place of each example in the order of its class
  for label in classes.tolist():
    members = np.flatnonzero(labels == label)
    members = members[np.argsort(texts[members], kind='stable')]
    drawn = np.random.default_rng([seed, label]).permutation(members)
    rank[_round_the_groups(drawn, groups) if groups else drawn] = np.arange(len(members))
  order = np.lexsort((labels, rank))
  return {k: order[rank[order] < k] if k else order for k in shots}


def _too_few(k: int, classes: np.ndarray, counts: np.ndarray, names: Sequence[str]) -> str:
  """Which classes have fewer than k examples, the smallest first, and what to do."""
  smaller = []
  for i in np.argsort(counts, kind='stable').tolist():
    label = int(classes[i])
    if counts[i] < max(k, 1 + counts.min()):
      smaller.append(f'class {repr(names[label]) if names else label} has {counts[i]}')
  return (
    f'{k} shots wanted, but {listing(smaller)} training examples. Ask for 1 to {counts.min()} '
    'shots or 0 (all), lower val_fraction, or add examples of these classes or leave them out.'
  )


def _round_the_groups(rows: np.ndarray, groups: Sequence[str]) -> np.ndarray:
  """The rows with the first of each group first, then the second of each, else in their order."""
  seen: dict[str, int] = {}
  rounds = []
  for row in rows.tolist():
    rounds.append(seen.get(groups[row], 0))
    seen[groups[row]] = rounds[-1] + 1
  return rows[np.argsort(rounds, kind='stable')]
