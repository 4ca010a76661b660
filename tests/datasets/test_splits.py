"""Held-out parts and k-shot subsets."""

import numpy as np
import pytest

from tlx.datasets import subsets
from tlx.datasets._splits import fold_of, hold_out

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 50, 60]))
IDS = tuple(f'train/{i:04d}' for i in range(150))


def test_hold_out_is_stratified():
  held = hold_out(LABELS, IDS, 0.2)
  np.testing.assert_array_equal(np.bincount(LABELS[held]), [8, 10, 12])


def test_hold_out_depends_on_ids_and_on_nothing_else():
  held = {IDS[i] for i in np.flatnonzero(hold_out(LABELS, IDS, 0.2))}
  order = np.random.default_rng(1).permutation(150)
  again = hold_out(LABELS[order], [IDS[i] for i in order], 0.2)
  assert held == {IDS[order[i]] for i in np.flatnonzero(again)}
  assert held < {IDS[i] for i in np.flatnonzero(hold_out(LABELS, IDS, 0.4))}
  others = hold_out(LABELS, ['x' + i for i in IDS], 0.2)
  assert held != {IDS[i] for i in np.flatnonzero(others)}


@pytest.mark.parametrize('fraction', [0.0, 1.0])
def test_hold_out_leaves_both_sides_something(fraction):
  with pytest.raises(ValueError, match='both sides need one'):
    hold_out(LABELS, IDS, fraction)


def test_subsets_are_balanced_and_nested():
  found = subsets(LABELS, IDS, [20, 1, 5, 0], seed=3)
  assert list(found) == [20, 1, 5, 0]
  for k in (1, 5, 20):
    np.testing.assert_array_equal(np.bincount(LABELS[found[k]]), [k, k, k])
    np.testing.assert_array_equal(found[k], found[0][: 3 * k])
  assert sorted(found[0]) == list(range(150))


def test_subsets_depend_on_seed_and_ids_only():
  one, same, other = (subsets(LABELS, IDS, [10], seed)[10] for seed in (0, 0, 1))
  np.testing.assert_array_equal(one, same)
  assert set(one) != set(other)
  order = np.random.default_rng(1).permutation(150)
  moved = subsets(LABELS[order], [IDS[i] for i in order], [10], 0)[10]
  assert [IDS[i] for i in one] == [IDS[order[i]] for i in moved]
  relabelled = subsets(LABELS * 2, IDS, [10], 0)[10]  # each class is drawn by its own label
  assert set(one[LABELS[one] == 0]) == set(relabelled[LABELS[relabelled] == 0])


@pytest.mark.parametrize('shots', [41, -1])
def test_too_many_shots(shots):
  with pytest.raises(
    ValueError,
    match=rf'{shots} shots wanted, but class 0 has 40.* training examples. Ask for 1 to 40 shots',
  ):
    subsets(LABELS, IDS, [1, shots], seed=0)


def test_folds_are_of_each_class_alike_and_hold_out_every_example_once():
  fold = fold_of(LABELS, IDS, 4)
  counts = np.array([np.bincount(LABELS[fold == i]) for i in (1, 2, 3, 4)])
  assert counts.sum() == 150 and np.ptp(counts, axis=0).max() <= 1
  assert np.ptp(counts.sum(1)) <= 1
  order = np.random.default_rng(1).permutation(150)
  np.testing.assert_array_equal(fold[order], fold_of(LABELS[order], [IDS[i] for i in order], 4))
  assert (fold != fold_of(LABELS, ['x' + i for i in IDS], 4)).any()
  small = fold_of(np.repeat([0, 1, 2], 5), IDS[:15], 4)
  assert sorted(np.bincount(small)[1:]) == [3, 4, 4, 4]


def test_folds_keep_groups_whole_and_classes_even():
  """Forty subjects with 2 to 11 frames each, of which each has its own share of every class."""
  random = np.random.default_rng(2)
  groups = np.repeat([f's{i}' for i in range(40)], random.integers(2, 12, 40))
  labels = random.integers(0, 3, len(groups))
  ids = [str(i) for i in range(len(groups))]
  fold = fold_of(labels, ids, 5, groups.tolist())
  assert all(len(set(fold[groups == name])) == 1 for name in groups)
  shares = np.array([np.bincount(labels[fold == i]) for i in range(1, 6)]) / np.bincount(labels)
  np.testing.assert_allclose(shares, 0.2, atol=0.04)


def test_folds_that_cannot_be_are_refused():
  with pytest.raises(ValueError, match='5 folds of 3 groups: some would be empty. Take fewer'):
    fold_of(LABELS, IDS, 5, [f'g{i % 3}' for i in range(150)])
  rare = np.array([0] * 30 + [1] * 3)
  with pytest.raises(ValueError, match="4 folds leave one without class 'rare', whose 3 examples"):
    fold_of(rare, IDS[:33], 4, names=('common', 'rare'))
