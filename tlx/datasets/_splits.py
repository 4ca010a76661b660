"""Splits made where a data set has none: stratified by class and decided by each example's id, with no random state."""
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from tlx.datasets._types import Examples


def hold_out(labels: np.ndarray, ids: Sequence[str], fraction: float) -> np.ndarray:
  """The mask [N] of the held-out examples: of each class, round(fraction * count) with the smallest SHA-256 of their ids.

  An id keeps its place in the order whatever the others are, so adding examples moves few across.

  Raises:
    ValueError: a class too small to leave an example on both sides.
  """
  held = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    num_held = round(fraction * len(members))
    if not 0 < num_held < len(members):
      raise ValueError(f'Holding out {fraction} of class {label} takes {num_held} of its {len(members)} examples; '
                       'both sides need one. Change val_fraction or test_fraction, or give the class more examples.')
    held[sorted(members.tolist(), key=lambda i: hashlib.sha256(ids[i].encode()).digest())[:num_held]] = True
  return held


def complete(published: Mapping[str, Examples], val_fraction: float, test_fraction: float) -> dict[str, Examples]:
  """{'train', 'val', 'test'}: as published where there is one; else test from the whole, then val from the rest."""
  splits = {name: split for name, split in published.items() if name != 'all'}
  if 'all' in published:
    splits['train'] = published['all']
  for name, fraction in (('test', test_fraction), ('val', val_fraction)):
    if name not in splits:
      held = hold_out(splits['train'].labels, splits['train'].ids, fraction)
      splits[name], splits['train'] = (_take(splits['train'], np.flatnonzero(mask)) for mask in (held, ~held))
  return splits


def _take(examples: Examples, rows: np.ndarray) -> Examples:
  """Some of the examples of a split, in the order of `rows`."""
  ids, labels, read = examples
  return Examples(tuple(ids[i] for i in rows), labels[rows], lambda some: read([int(rows[i]) for i in some]))
