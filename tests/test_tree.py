"""Labels, partitions and digests on hand-built trees."""

import numpy as np
import pytest

from tlx import tree

PARAMS = {
  'stem': {'kernel': np.ones((2, 3)), 'bias': np.zeros(3)},
  'head': {'kernel': np.ones((3, 2)), 'bias': np.zeros(2)},
}


def test_first_rule_wins():
  labels = tree.label(PARAMS, [('bias$', 'slow'), ('^head/', 'train'), ('.*', 'frozen')])
  assert labels == {
    'stem': {'kernel': 'frozen', 'bias': 'slow'},
    'head': {'kernel': 'train', 'bias': 'slow'},
  }


@pytest.mark.parametrize(
  'rules, words',
  [
    (
      [('^head/', 'train')],
      ("No freeze rule matches 'stem/bias'", "('.*', 'frozen')", 'stem/kernel'),
    ),
    ([('^body/', 'train'), ('.*', 'frozen')], ("'^body/'", 'decides no parameter', 'head/bias')),
    ([('.*', 'train'), ('^head/', 'frozen')], ("'^head/'", 'earlier rules take all')),
    ([('.*', 'quick')], ("Unknown group 'quick'", 'frozen, train')),
  ],
)
def test_rules_that_do_not_fit(rules, words):
  with pytest.raises(ValueError) as error:
    tree.label(PARAMS, rules, ('frozen', 'train'))
  assert all(word in str(error.value) for word in words)


def test_the_rest_may_be_nothing():
  assert tree.label({'head': PARAMS['head']}, [('^head/', 'train'), ('.*', 'frozen')]) == {
    'head': {'kernel': 'train', 'bias': 'train'}
  }


def test_partition_and_merge_are_inverse():
  labels = tree.label(PARAMS, [('^head/', 'train'), ('.*', 'frozen')])
  trainable, frozen = tree.partition(PARAMS, labels)
  assert [name for name, _ in tree.named_leaves(trainable)] == ['head/bias', 'head/kernel']
  assert [name for name, _ in tree.named_leaves(frozen)] == ['stem/bias', 'stem/kernel']
  assert tree.merge(trainable, frozen) == PARAMS


def test_digest_sees_names_shapes_dtypes_and_single_bits():
  base = {'a': np.zeros(4, np.float32)}
  flipped = {'a': base['a'].copy()}
  flipped['a'].view(np.uint8)[5] ^= 1
  others = [
    flipped,
    {'b': base['a']},
    {'a': base['a'].reshape(2, 2)},
    {'a': base['a'].view(np.int32)},
  ]
  digests = [tree.sha256(t) for t in (base, *others)]
  assert len(set(digests)) == 5
  assert tree.sha256({'a': np.zeros(4, np.float32)}) == digests[0]


def test_counts():
  assert tree.count(PARAMS) == 6 + 3 + 6 + 2
  assert tree.num_bytes(PARAMS) == 17 * 8


def test_nested_is_the_inverse_of_named_leaves():
  made = {'a': {'b': np.ones(2), 'c': {'d': np.zeros(1)}}, 'e': np.full(3, 2.0)}
  found = tree.nested(tree.named_leaves(made))
  assert list(found) == ['a', 'e'] and found['a']['c']['d'] is made['a']['c']['d']
  assert tree.sha256(found) == tree.sha256(made)
  assert tree.nested([('', made['e'])]) is made['e'] and tree.nested([]) == {}
