"""What to tune and what to freeze: one policy a file, `rules(groups, **options) -> Rules`.

`groups` are the network's stages in order, each group a tuple of names (see `groups`); the last
name of the last group is the head. Rules are (regex, group) pairs over parameter names such as
'block1/conv/kernel'; the group 'frozen' is frozen, any other is trained. A new task's head is
trained by every policy.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from tlx.tree import ADDED, Rules, label, named_leaves
from tlx.types import Array, PyTree

Groups = Sequence[tuple[str, ...]]
NORM = r'norm[^/]*/(scale|bias)$'  # the parameters of normalisation layers


class Watch(NamedTuple):
  """What a policy that looks at gradients does in training, run by run: `watch(groups, **options)`.

  Its state is part of the optimizer's and has `factors`, for each trained leaf what its update is
  multiplied by: a number, or an array that fits the leaf. Where that is 0 it stays as it is.

  init(params) -> the state before a phase's first step; with by_depth init(params, depth), the
    number of first groups that a run's own examples speak for freezing
  update(state, grads, params, num_steps) -> the state whose factors this step has
  clears: where a factor is 0 the leaf becomes 0 instead
  moved_before: where a factor is 0 at the end the leaf may have moved before
  """

  init: Callable[..., Any]
  update: Callable[[Any, PyTree, PyTree, Array], Any]
  clears: bool = False
  moved_before: bool = False
  by_depth: bool = False


def groups(stages: Sequence[str], params: PyTree) -> tuple[tuple[str, ...], ...]:
  """The stages as depth is counted: every group holds parameters, and the last begins with what
  only prepares the head's input.

  That are stages before the head that hold nothing (pooling), or norms alone, as in the layer-wise
  rates of MAE, where the final norm belongs with the head (timm's ViT has it with the last block).
  Elsewhere such a stage goes with the next that holds more: ModernBERT's final norm with the dense
  layer of its pool.

  >>> linear, norm = {'kernel': 0}, {'norm': {'scale': 0}}
  >>> groups(['stem', 'pool', 'fc', 'norm', 'average', 'head'],
  ...        {'stem': linear, 'fc': linear, 'norm': norm, 'head': linear})
  (('stem',), ('pool', 'fc'), ('norm', 'average', 'head'))
  """
  first = len(stages) - 1  # of the last group
  while first and not _beyond_norms(params.get(stages[first - 1], {})):
    first -= 1
  found: list[tuple[str, ...]] = []
  waiting: tuple[str, ...] = ()
  for stage in stages[:first]:
    waiting = (*waiting, stage)
    if _beyond_norms(params.get(stage, {})):
      found.append(waiting)
      waiting = ()
  return (*found, (*waiting, *stages[first:]))


def _beyond_norms(params: PyTree) -> bool:
  """Whether a stage of a source holds parameters of anything but norms."""
  own = [name for name, _ in named_leaves(params) if not name.startswith(f'{ADDED}/')]
  return any(not re.search(NORM, name) for name in own)


def leading(groups: Groups, stages: Collection[str]) -> int:
  """How many groups come before the first that holds one of `stages`: all of them where none does.

  Of the stages with a trained parameter it gives the depth of freezing; of those that run in every
  step, the groups that are reused.
  """
  touched = [i for i, group in enumerate(groups) if not set(group).isdisjoint(stages)]
  return touched[0] if touched else len(groups)


def tune_groups(groups: Groups, tuned: Iterable[tuple[str, ...]]) -> Rules:
  """Rules that train the stages of the groups in `tuned` and freeze the others."""
  stages = list(itertools.chain.from_iterable(tuned))
  if len(stages) == sum(map(len, groups)):
    return (('.*', 'train'),)
  return (f'^({"|".join(map(re.escape, stages))})/', 'train'), ('.*', 'frozen')


def check_depth(k: int, groups: Groups, least: int = 0) -> None:
  """Raises ValueError unless k is a whole number from `least` to `least` + len(groups) - 1."""
  most = least + len(groups) - 1
  if not isinstance(k, int) or isinstance(k, bool) or not least <= k <= most:
    raise ValueError(
      f'k={k!r} stages asked for; this network takes {least} to {most}: '
      f'{", ".join(map("+".join, groups))}.'
    )


def check_steps(policy: str, steps: int) -> None:
  """Raises ValueError unless there is a whole number of steps to measure in, from 1 on."""
  if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
    raise ValueError(f'{policy} measures in a whole number of steps from 1 on, got {steps!r}.')


def of_groups(
  groups: Groups,
  grads: PyTree,
  params: PyTree,
  score: Callable[[Mapping[str, Array], Mapping[str, Array]], Array],
) -> Array:
  """[groups - 1]: score({name: gradient}, {name: leaf}) of each group but the last."""
  ours, theirs = dict(named_leaves(grads)), dict(named_leaves(params))
  found = []
  for group in groups[:-1]:
    names = [name for name in ours if name.split('/')[0] in group]
    own = [{name: tree[name] for name in names} for tree in (ours, theirs)]
    found.append(score(*own))
  return jnp.asarray(found, jnp.float32)


def frozen_norms(params: PyTree, stats: PyTree, rules: Rules, norm: str) -> frozenset[str]:
  """The norm layers ('block1/norm') that keep to their stored statistics in training.

  norm='frozen': those whose own parameters are frozen; norm='live': none, statistics follow the new
  data everywhere.
  """
  if norm not in ('frozen', 'live'):
    raise ValueError(f"norm is 'frozen' or 'live', got {norm!r}.")
  if norm == 'live':
    return frozenset()
  trained = {
    name.rpartition('/')[0]
    for name, group in named_leaves(label(params, rules))
    if group != 'frozen'
  }
  return frozenset(name.rpartition('/')[0] for name, _ in named_leaves(stats)) - trained
