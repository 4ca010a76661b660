"""Splits and folds made where a data set has none: stratified by class and decided by each
example's id, with no random state.
"""

import hashlib
import itertools
from collections.abc import Container, Mapping, Sequence

import numpy as np

from tlx.datasets._types import Examples

_WORDS = {'train': 'training', 'val': 'validation', 'test': 'test'}


def num_held(count: int, fraction: float) -> int:
  """How many of a class's examples are held out; both sides want one, which is for the caller."""
  return round(fraction * count)


def hold_out(
  labels: np.ndarray,
  ids: Sequence[str],
  fraction: float,
  groups: Sequence[str] = (),
  names: Sequence[str] = (),
) -> np.ndarray:
  """The mask [N] of the held-out examples: of each class, round(fraction * count) with the smallest
  SHA-256 of their ids.

  An id keeps its place in the order whatever the others are, so adding examples moves few across.
  With `groups`, whole groups are held out, and each class comes as near to its share as it can.
  `names` of the classes are for errors.

  Raises:
    ValueError: a class too small to leave an example on both sides, or groups too large to come
      near `fraction`.
  """
  if len(groups):
    return _hold_out_groups(labels, groups, fraction, names)
  held = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    taken = num_held(len(members), fraction)
    if not 0 < taken < len(members):
      raise ValueError(
        f'Holding out {fraction} of class {_named(label, names)} takes {taken} of its '
        f'{len(members)} examples; '
        'both sides need one. Change val_fraction or test_fraction, or give the class more '
        'examples.'
      )
    held[sorted(members.tolist(), key=lambda i: _hash(ids[i]))[:taken]] = True
  return held


def _hold_out_groups(
  labels: np.ndarray, groups: Sequence[str], fraction: float, names: Sequence[str]
) -> np.ndarray:
  """The mask [N] of whole groups: in the order of their hashes, each changes sides where that
  brings the classes nearer to their shares, until none does. Whole numbers only, so that every
  machine finds the same."""
  classes, of_class = np.unique(labels, return_inverse=True)
  group_names = sorted(set(groups))
  number = {name: i for i, name in enumerate(group_names)}
  of_group = np.array([number[name] for name in groups])
  counts = np.zeros((len(group_names), len(classes)), np.int64)  # [groups, K]
  np.add.at(counts, (of_group, of_class), 1)
  totals = counts.sum(0)
  weights = 2**32 // totals  # a class's distance from its share counts in relation to its size
  missing = np.array([num_held(int(total), fraction) for total in totals])
  held = np.zeros(len(group_names), bool)
  order = sorted(range(len(group_names)), key=lambda i: _hash(group_names[i]))
  changed = True
  while changed:
    changed = False
    for i in order:
      after = missing + counts[i] if held[i] else missing - counts[i]
      if (weights * abs(after)).sum() < (weights * abs(missing)).sum():
        missing, held[i], changed = after, not held[i], True
  taken = counts[held].sum(0)
  for k in np.flatnonzero((taken == 0) | (taken == totals)):
    raise ValueError(
      f'Holding out {fraction} by group leaves one side without class '
      f'{_named(classes[k], names)}, whose '
      f'{totals[k]} examples are in {np.count_nonzero(counts[:, k])} groups. Change val_fraction '
      'or test_fraction, give the class examples of more groups, or take coarser classes.'
    )
  share = taken.sum() / len(labels)
  if abs(share - fraction) > min(fraction, 1 - fraction) / 2:
    raise ValueError(
      f'Holding out {fraction} of {len(labels):,} examples by group cannot be met: of '
      f'{len(group_names)} groups '
      f'(the largest has {counts.sum(1).max():,}) the nearest share is {share:.3f}. '
      'Change val_fraction or test_fraction, or give examples of more groups.'
    )
  return held[of_group]


def fold_of(
  labels: np.ndarray,
  ids: Sequence[str],
  num_folds: int,
  groups: Sequence[str] = (),
  names: Sequence[str] = (),
) -> np.ndarray:
  """The fold [N] of each example, 1 to `num_folds`: every class is spread over them as evenly as
  its examples, or with `groups` whole groups, allow.

  The groups with most examples come first, those of one size by hash, each to the fold that has
  the smallest share of its classes so far, then to the smallest. Single examples so come out at
  most one apart, in each class and in all. Whole numbers only, so that every machine finds the
  same.

  Raises:
    ValueError: fewer groups than folds, or a class that a fold lacks or has alone.
  """
  units = groups if len(groups) else ids
  unit_names = sorted(set(units))
  if num_folds > len(unit_names):
    raise ValueError(
      f'{num_folds} folds of {len(unit_names)} {"groups" if len(groups) else "examples"}: some '
      'would be empty. Take fewer folds.'
    )
  classes, of_class = np.unique(labels, return_inverse=True)
  number = {name: i for i, name in enumerate(unit_names)}
  of_unit = np.array([number[name] for name in units])
  counts = np.zeros((len(unit_names), len(classes)), np.int64)  # [units, K]
  np.add.at(counts, (of_unit, of_class), 1)
  totals = counts.sum(0)
  weights = 2**40 // totals**2  # shares of classes are compared, not numbers
  sizes = counts.sum(1).tolist()
  order = sorted(range(len(unit_names)), key=lambda i: (-sizes[i], _hash(unit_names[i])))
  found = np.zeros((num_folds, len(classes)), np.int64)
  fold = np.zeros(len(unit_names), int)
  for i in order:
    own = np.flatnonzero(counts[i])
    shares = (found[:, own] * (weights * counts[i])[own]).sum(1)
    fold[i] = min(range(num_folds), key=lambda f: (shares[f], found[f].sum()))
    found[fold[i]] += counts[i]
  for k in np.flatnonzero(((found == 0) | (found == totals)).any(0)):
    raise ValueError(
      f'{num_folds} folds leave one without class {_named(classes[k], names)}, whose {totals[k]} '
      f'examples are in {np.count_nonzero(counts[:, k])} '
      f'{"groups" if len(groups) else "places"}. Take fewer folds, give the class examples of more '
      'groups, or take coarser classes.'
    )
  return 1 + fold[of_unit]


def complete(
  published: Mapping[str, Examples],
  val_fraction: float,
  test_fraction: float,
  names: Sequence[str] = (),
  fold: int = 0,
  folds: int = 0,
) -> dict[str, Examples]:
  """{'train', 'val', 'test'}: as published where there is one; else test from the whole, then val
  from the rest. With `folds` test is the one that `fold` says, from 1.

  Raises:
    ValueError: as `hold_out` and `fold_of`, or folds of a data set that has a test part.
  """
  splits = {name: split for name, split in published.items() if name != 'all'}
  if 'all' in published:
    splits['train'] = published['all']
  if folds:
    check_folds(splits)
    train = splits['train']
    held = fold_of(train.labels, train.ids, folds, train.groups, names) == fold
    splits['test'], splits['train'] = (train.take(np.flatnonzero(mask)) for mask in (held, ~held))
  for name, fraction in (('test', test_fraction), ('val', val_fraction)):
    if name not in splits:
      train = splits['train']
      held = hold_out(train.labels, train.ids, fraction, train.groups, names)
      splits[name], splits['train'] = (train.take(np.flatnonzero(mask)) for mask in (held, ~held))
  return splits


def check_folds(published: Container[str]) -> None:
  """Raises ValueError where there is a test part already, which folds would be in place of."""
  if 'test' in published:
    raise ValueError(
      'folds are test parts by turns, and this data set has a test part of its '
      'own. Leave folds out, or give the examples as a folder or table that is not divided.'
    )


def capped(examples: Examples, most: int) -> Examples:
  """At most so many of a split, of each class alike and one of each at least, those with the
  smallest SHA-256 of their ids.

  A larger `most` keeps what a smaller one does.

  Raises:
    ValueError: fewer than there are classes.
  """
  if most >= len(examples.ids):
    return examples
  classes, counts = np.unique(examples.labels, return_counts=True)
  if most < len(classes):
    raise ValueError(
      f'val_examples is {most}, fewer than the {len(classes)} classes. Take at least one of each, '
      'or 0 for all.'
    )
  places: list[tuple[float, int, int]] = []  # (how far down its class, class, row)
  for label, count in zip(classes, counts):
    members = sorted(
      np.flatnonzero(examples.labels == label).tolist(), key=lambda i: _hash(examples.ids[i])
    )
    places += [(rank / int(count), int(label), row) for rank, row in enumerate(members)]
  return examples.take(np.sort([place[-1] for place in sorted(places)[:most]]))


def group_notes(splits: Mapping[str, Examples], noun: str) -> tuple[str, ...]:
  """How groups lie over the parts; published ones may share some. `noun` is what examples are
  called.
  """
  of_part = {name: splits[name].groups for name in ('train', 'val', 'test')}
  if not any(of_part.values()):
    return ()
  counts = ', '.join(f'{len(set(groups)):,} in {_WORDS[name]}' for name, groups in of_part.items())
  notes = []
  for one, other in itertools.combinations(of_part, 2):
    if shared := set(of_part[one]) & set(of_part[other]):
      count = sum(group in shared for group in of_part[other])
      notes.append(
        f'The published parts share groups: {len(shared):,} are both in {_WORDS[one]} and in '
        f'{_WORDS[other]}, '
        f'{count:,} of {len(of_part[other]):,} {_WORDS[other]} {noun} are of such a group.'
      )
  return (f'Groups: {counts}{"" if notes else "; none is in two parts"}.', *notes)


def _hash(name: str) -> bytes:
  return hashlib.sha256(name.encode()).digest()


def _named(label: int, names: Sequence[str]) -> str:
  return repr(names[label]) if len(names) else str(label)
