"""Every rule: pure, of the shapes it got, nothing where nothing was learned; and values by hand."""

import copy

import numpy as np
import pytest

from tlx import combine, ranges
from tlx.merging import Merged, mean_of, options_of
from tlx.plug import available, plug

ROOM = available('merging')


def vectors(number=3, seed=0):
  random = np.random.default_rng(seed)
  shapes = {'stem/kernel': (3, 4), 'stem/scale': (), 'block/kernel': (2, 5)}
  return [
    {name: random.normal(size=shape) for name, shape in shapes.items()} for _ in range(number)
  ]


def by(rule, given, score=lambda merged: 0.0, **options):
  return plug('merging', rule).merge(given, score, **options)


@pytest.mark.parametrize('rule', ROOM)
def test_contract(rule):
  module, given = plug('merging', rule), vectors()
  before = copy.deepcopy(given)
  made = by(rule, given)
  assert set(options_of(module)) == set(module.RANGES)
  for name, default in options_of(module).items():
    assert ranges.checked(name, default, module.RANGES[name], default) == default
  assert isinstance(made, Merged) and set(made.used) <= {0, 1, 2}
  for vector, was in zip(given, before):
    for name, leaf in was.items():
      np.testing.assert_array_equal(vector[name], leaf)
      assert made.vector[name].shape == leaf.shape
  again = by(rule, given)
  zeros = by(rule, [{name: 0 * leaf for name, leaf in vector.items()} for vector in given])
  for name in before[0]:
    np.testing.assert_array_equal(again.vector[name], made.vector[name])
    assert not zeros.vector[name].any()


@pytest.mark.parametrize('rule, options', [('sum', {}), ('ties', {'density': 1.0}), ('mean', {})])
def test_of_a_single_vector_it_is_that(rule, options):
  (given,) = vectors(1)
  made = by(rule, [given], **options)
  for name, leaf in given.items():
    np.testing.assert_allclose(made.vector[name], leaf)


def test_greedy_keeps_what_does_not_hurt():
  """Recipe 1: scores of the means decide, ties go in, and what was left out stays out."""
  given = [{'a': np.array([float(value)])} for value in (4, 0, 2, 6)]
  scores = {4.0: 0.5, 2.0: 0.4, 3.0: 0.5, 4.0 + 2.0 + 6.0: 0.0}
  seen = []

  def score(merged):
    seen.append(float(merged.vector['a'][0]))
    return scores.get(seen[-1], 0.6)

  made = by('greedy', given, score)
  assert seen == [4.0, 2.0, 3.0, 4.0]  # one; with 0; with 2; with 2 and 6
  assert made.used == (0, 2, 3)
  assert made.vector['a'] == 4.0
  assert by('greedy', given, lambda merged: -len(merged.used)).used == (0,)
  assert by('greedy', given, lambda merged: float('nan')).used == (0,)


def test_ties_by_hand():
  """Trimmed to 4 of 6 values over both leaves, signs elected, and the mean of those that agree."""
  one = {'a': np.array([3.0, -1.0, 0.1]), 'b': np.array([-2.0, 4.0, 0.2])}
  two = {'a': np.array([-1.0, -3.0, 5.0]), 'b': np.array([0.3, 2.0, 0.1])}
  made = by('ties', [one, two], density=4 / 6)
  np.testing.assert_allclose(made.vector['a'], [3.0, -2.0, 5.0])
  np.testing.assert_allclose(made.vector['b'], [-2.0, 3.0, 0.0])
  balanced = [{'a': np.array([1.0, 2.0, 5.0])}, {'a': np.array([-1.0, 2.0, 5.0])}]
  assert by('ties', balanced, density=1.0).vector['a'][0] == 1.0  # as most places
  balanced = [{'a': -vector['a']} for vector in balanced]
  assert by('ties', balanced, density=1.0).vector['a'][0] == -1.0


def test_ties_is_that_of_the_peft_library_on_one_leaf():
  """tlx/combine.py has the numbers of peft, which trims leaf by leaf."""
  given = [vector['stem/kernel'] for vector in vectors()]
  made = by('ties', [{'a': leaf} for leaf in given], density=0.5)
  np.testing.assert_allclose(made.vector['a'], combine._merged(given, [1.0] * 3, 'ties', 0.5))


def test_dare_keeps_the_mean_and_drops_a_share():
  given = [{'a': np.ones(100_000)}]
  made = by('dare', given, drop=0.75).vector['a']
  assert set(np.unique(made)) == {0.0, 4.0}
  assert made.mean() == pytest.approx(1.0, abs=0.03)  # 5 standard errors
  assert (by('dare', given, drop=0.75, seed=1).vector['a'] != made).any()
  both = by('dare', given * 2, drop=0.75).vector['a']
  assert set(np.unique(both)) == {0.0, 2.0, 4.0}  # each vector drops its own
  same = by('dare', vectors(), drop=0.0).vector
  for name, leaf in mean_of(vectors()).items():
    np.testing.assert_allclose(same[name], leaf)
