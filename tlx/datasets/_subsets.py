"""Small training sets: class-balanced, nested, and the same for the same seed."""

from collections.abc import Sequence

import numpy as np


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
  smallest = int(counts.argmin())
  for k in shots:
    if not 0 <= k <= counts[smallest]:
      label = int(classes[smallest])
      raise ValueError(
        f'{k} shots wanted, but class {repr(names[label]) if names else label} has '
        f'{counts[smallest]} training examples. '
        f'Ask for 1 to {counts[smallest]} shots or 0 (all), lower val_fraction, or add examples '
        'of that class.'
      )
  texts = np.asarray(ids)
  rank = np.empty(len(labels), int)  # the place of each example in the order of its class
  for label in classes.tolist():
    members = np.flatnonzero(labels == label)
    members = members[np.argsort(texts[members], kind='stable')]
    drawn = np.random.default_rng([seed, label]).permutation(members)
    rank[_round_the_groups(drawn, groups) if groups else drawn] = np.arange(len(members))
  order = np.lexsort((labels, rank))
  return {k: order[rank[order] < k] if k else order for k in shots}


def _round_the_groups(rows: np.ndarray, groups: Sequence[str]) -> np.ndarray:
  """The rows with the first of each group first, then the second of each, else in their order."""
  seen: dict[str, int] = {}
  rounds = []
  for row in rows.tolist():
    rounds.append(seen.get(groups[row], 0))
    seen[groups[row]] = rounds[-1] + 1
  return rows[np.argsort(rounds, kind='stable')]
