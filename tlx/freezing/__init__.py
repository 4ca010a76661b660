"""What to tune and what to freeze: one policy a file, `rules(stages, **options) -> Rules`.

`stages` are the names of the network's stages, the last is the head. Rules are (regex, group) pairs over parameter names such as
'block1/conv/kernel'; the group 'frozen' is frozen, any other is trained. A new task's head is trained by every policy.
"""
import re
from collections.abc import Sequence

from tlx.tree import Rules, label, named_leaves
from tlx.types import PyTree


def tune_stages(stages: Sequence[str], tuned: Sequence[str]) -> Rules:
  """Rules that train the stages in `tuned` and freeze the others."""
  if set(tuned) == set(stages):
    return (('.*', 'train'),)
  return (f'^({"|".join(map(re.escape, tuned))})/', 'train'), ('.*', 'frozen')


def check_depth(k: int, stages: Sequence[str]) -> None:
  """Raises ValueError unless 0 <= k < the number of stages."""
  if not isinstance(k, int) or not 0 <= k < len(stages):
    raise ValueError(f'k={k!r} stages asked for; this network takes 0 to {len(stages) - 1}: {", ".join(stages)}.')


def frozen_norms(params: PyTree, stats: PyTree, rules: Rules, norm: str) -> frozenset[str]:
  """The norm layers ('block1/norm') that keep to their stored statistics in training.

  norm='frozen': those whose own parameters are frozen; norm='live': none, statistics follow the new data everywhere.
  """
  if norm not in ('frozen', 'live'):
    raise ValueError(f"norm is 'frozen' or 'live', got {norm!r}.")
  if norm == 'live':
    return frozenset()
  trained = {name.rpartition('/')[0] for name, group in named_leaves(label(params, rules)) if group != 'frozen'}
  return frozenset(name.rpartition('/')[0] for name, _ in named_leaves(stats)) - trained
