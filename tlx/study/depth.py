"""How deep to freeze a source for a target, from neighbours among training examples by stage."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tlx import freezing
from tlx.plug import plug


class Depth(NamedTuple):
  """What neighbours say.

  k: how many groups of stages to freeze (freezing/after.py); None where they say nothing
  neighbours: {k: leave-one-out accuracy of the nearest neighbour on what comes out of the first k
    groups}; 0 is the input, or of tokens the first group's, which they are looked up in
  """

  k: int | None
  neighbours: Mapping[int, float]


def advised(
  labels: np.ndarray, features: Mapping[str, np.ndarray], groups: freezing.Groups
) -> Depth:
  """The sign rule: everything before the head is frozen where the nearest other example has the
  same class more often after the last stage than at the input, else nothing is.

  Args:
    labels: [N], of training examples
    features: {stage: [N, D]} in the order of the network, the input first where it is one
    groups: of the network (freezing.groups)
  """
  if np.bincount(np.unique(labels, return_inverse=True)[1]).max() < 2:
    return Depth(None, {})  # no other example has its class
  last = dict(by_depth(list(features), groups))
  score = plug('scores', 'knn').score
  found = {k: score(labels, features[stage]) for k, stage in last.items()}
  return Depth(choose(list(found.values()), list(found)), found)


def choose(neighbours: Sequence[float], depths: Sequence[int]) -> int:
  """The depth that accuracies [K] of neighbours at these depths, the first the input, speak for."""
  return depths[-1] if neighbours[-1] > neighbours[0] else 0


def by_depth(stages: Sequence[str], groups: freezing.Groups) -> list[tuple[int, str]]:
  """[(how many groups are frozen, the last stage of them)], first of nothing frozen.

  What only prepares the head's input belongs to the deepest. Of tokens, which are no numbers, the
  first group's stage stands for the input too.

  >>> by_depth(['input', 'a', 'b', 'pool'], [('a',), ('b',), ('pool', 'head')])
  [(0, 'input'), (1, 'a'), (2, 'pool')]
  >>> by_depth(['a', 'b', 'c'], [('a',), ('b', 'c'), ('head',)])
  [(0, 'a'), (1, 'a'), (2, 'c')]
  """
  found = [(0, stages[0])]
  for k, group in enumerate(groups[:-1], 1):
    own = [stage for stage in stages if stage in group]
    if own:
      found.append((k, own[-1]))
  return [*found[:-1], (found[-1][0], stages[-1])]
