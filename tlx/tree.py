"""Parameter trees as paths: naming, labelling, partitioning and hashing leaves."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from tlx.types import PyTree

Rules = Sequence[tuple[str, str]]  # (regex over 'a/b/c', group); the first match wins
# In a stage's parameters, where leaves stand that are not the network's own (tlx/peft).
ADDED = 'added'
FIXED = 'fixed'  # among those, the ones that stay as they start


def path_name(path) -> str:
  """'block1/conv/kernel' for a key path of jax.tree_util."""
  return '/'.join(
    str(getattr(entry, 'key', getattr(entry, 'name', getattr(entry, 'idx', entry))))
    for entry in path
  )


def is_added(name: str) -> bool:
  """Whether a leaf was added to a network: 'block0/added/lora/attention/query/a'."""
  return name.split('/')[1:2] == [ADDED]


def nested(leaves: Iterable[tuple[str, Any]]) -> PyTree:
  """The tree of [(name, leaf)]: nested dicts by the names 'a/b'; a single leaf has the name ''."""
  tree: dict = {}
  for name, leaf in leaves:
    if not name:
      return leaf
    *parents, last = name.split('/')
    place = tree
    for parent in parents:
      place = place.setdefault(parent, {})
    place[last] = leaf
  return tree


def map_named(function: Callable, tree: PyTree, *rest: PyTree) -> PyTree:
  """The tree of `function(name, leaf, ...)`; trees in `rest` have the structure of `tree`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: function(path_name(path), *leaves), tree, *rest
  )


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
  """[(name, leaf)] in tree order.

  >>> named_leaves({'stem': {'kernel': 1, 'bias': 0}})
  [('stem/bias', 0), ('stem/kernel', 1)]
  """
  return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def label(params: PyTree, rules: Rules, groups: Sequence[str] | None = None) -> PyTree:
  """The tree of group names that `rules` give the leaves of `params`; a regex matches anywhere in
  the name.

  >>> label({'stem': {'bias': 0}, 'head': {'bias': 0}}, [('^head/', 'train'), ('.*', 'frozen')])
  {'head': {'bias': 'train'}, 'stem': {'bias': 'frozen'}}

  Raises:
    ValueError: a rule decides no leaf (but a '.*' at the end), a leaf matches no rule, or a group
      is not among `groups`. The message shows both sides.
  """
  names = [name for name, _ in named_leaves(params)]
  both = f'\n  rules: {[tuple(rule) for rule in rules]}\n  parameters: {", ".join(names)}'
  for _, group in rules:
    if groups is not None and group not in groups:
      raise ValueError(f'Unknown group {group!r}; have {", ".join(groups)}.{both}')
  decided = {}
  for name in names:
    winner = next(
      (i for i, (pattern, _) in enumerate(rules) if re.search(pattern, name)),
      None,
    )
    if winner is None:
      raise ValueError(
        f"No freeze rule matches {name!r}. End the rules with ('.*', 'train') or ('.*', "
        f"'frozen').{both}"
      )
    decided[name] = winner
  for i, (pattern, group) in enumerate(rules):
    # which may have nothing left: a head may be all there is
    last_resort = i == len(rules) - 1 and pattern == '.*'
    if i not in decided.values() and not last_resort:
      raise ValueError(
        f'Freeze rule {(pattern, group)} decides no parameter: nothing matches, or earlier '
        f'rules take all it matches.{both}'
      )
  return map_named(lambda name, _: rules[decided[name]][1], params)


def partition(tree: PyTree, labels: PyTree, group: str = 'frozen') -> tuple[PyTree, PyTree]:
  """(the leaves outside `group`, the leaves inside it), each with None in the other's place.

  >>> partition({'a': 1, 'b': 2}, {'a': 'train', 'b': 'frozen'})
  ({'a': 1, 'b': None}, {'a': None, 'b': 2})
  """
  outside = jax.tree.map(lambda leaf, name: None if name == group else leaf, tree, labels)
  inside = jax.tree.map(lambda leaf, name: leaf if name == group else None, tree, labels)
  return outside, inside


def merge(*trees: PyTree) -> PyTree:
  """The inverse of `partition`: at each place the first leaf that is not None.

  >>> merge({'a': 1, 'b': None}, {'a': None, 'b': 2})
  {'a': 1, 'b': 2}
  """
  return jax.tree.map(
    lambda *leaves: next((leaf for leaf in leaves if leaf is not None), None),
    *trees,
    is_leaf=lambda leaf: leaf is None,
  )


def count(tree: PyTree) -> int:
  """The number of scalars in a tree of arrays or of their shapes."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def num_bytes(tree: PyTree) -> int:
  """The bytes of a tree of arrays or of their shapes."""
  return sum(
    int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
  )


def sha256(tree: PyTree) -> str:
  """A digest of names, shapes, dtypes and values; equal exactly for bit-identical trees."""
  digest = hashlib.sha256()
  for name, leaf in named_leaves(jax.device_get(tree)):
    array = np.ascontiguousarray(leaf)
    digest.update(f'{name} {array.dtype} {array.shape}\n'.encode())
    digest.update(array.reshape(-1).view(np.uint8).data)  # not tobytes(), which copies
  return digest.hexdigest()
