"""Penalties on leaving the source: one a file, `penalty(**options) -> Penalty`.

A penalty is added to the loss of every step of a phase, or changes what the network runs with in
training. Validation and test see neither.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tlx.backbones import Edit
from tlx.tree import path_name
from tlx.types import Array, Batch, PyTree


class Seen(NamedTuple):
  """A run and its source on a batch, as a penalty sees them.

  trained: the leaves that the phase trains, None elsewhere
  source: the source's values of those that it brings, None elsewhere
  stages: {stage: what comes out of it} from the phase's first stage to the last before the head
  source_stages: the same of the source, in evaluation; no gradient flows there
  head: features [B, D] -> logits [B, S] of the source's own head, which is not trained
  batch: the examples; targets of mixtures are `Mixed`
  num_classes: the outputs of the run's own head
  batch_size: of the whole batch, of which `batch` is one part where gradients are accumulated
  known: what `Penalty.conclude` made before the first step
  """

  trained: PyTree
  source: PyTree
  stages: dict[str, Any]
  source_stages: dict[str, Any]
  head: Callable[[Array], Array]
  batch: Batch
  num_classes: int
  batch_size: int
  known: PyTree


class Model(NamedTuple):
  """A network before a phase's first step, in evaluation, for `Penalty.observe`.

  trained: the leaves that the phase will train; source: the source's values of them
  loss: (values of those leaves, batch) -> the sum of the task's loss over the batch
  rest: (stage, what comes out of it, batch) -> the same, of the stages that follow
  see: batch -> Seen
  """

  trained: PyTree
  source: PyTree
  loss: Callable[[PyTree, Batch], Array]
  rest: Callable[[str, PyTree, Batch], Array]
  see: Callable[[Batch], Seen]


class Penalty(NamedTuple):
  """What a file of this room makes; the same object for equal options, so programs are shared.

  reads: what it needs, which the study checks before anything compiles: 'features' (`Seen.stages`),
    'source' (`Seen.source_stages`), 'head' (`Seen.head`), 'vector' (one feature vector an example
    before the head), 'norms' (batch norms that see their batch), 'classes' (targets that are the
    number of a class)
  stages: those it names, which are there before the head
  holds: name of a leaf -> whether the penalty reads the source's value of it; None where it reads
    no leaf
  value: Seen -> what is added to the loss: a mean over the examples seen, or nothing of theirs, as
    the parts of a batch are averaged
  replace: (key, trained, source) -> the leaves that the network runs with in training
  edit: stages -> a change of calls in training (backbones.Edit)
  observe, conclude: before the first step, (Model, Batch of one example) -> leaves that are summed
    over examples, and (sums, number of examples) -> `Seen.known`
  of_source: the examples are those that the source was trained on, in its own network and task;
    otherwise they are the run's own
  examples: at most so many are observed; 0 is all
  """

  reads: frozenset[str] = frozenset()
  stages: tuple[str, ...] = ()
  holds: Callable[[str], bool] | None = None
  value: Callable[[Seen], Array] | None = None
  replace: Callable[[Array, PyTree, PyTree], PyTree] | None = None
  edit: Callable[[tuple[str, ...]], Edit] | None = None
  observe: Callable[[Model, Batch], PyTree] | None = None
  conclude: Callable[[PyTree, Array], PyTree] | None = None
  of_source: bool = False
  examples: int = 0


def every(name: str) -> bool:
  """Holds each leaf that the source brings."""
  return True


def half_square(tree: PyTree) -> Array:
  """Half the sum of the squares of all numbers of a tree."""
  return 0.5 * sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)), jnp.zeros(()))


def moved(trained: PyTree, source: PyTree) -> PyTree:
  """How far the leaves that the source brings are from its own; None for the others."""
  return map_both(lambda _, new, old: None if old is None else new - old, trained, source)


def fresh(trained: PyTree, source: PyTree) -> PyTree:
  """The trained leaves that the source does not bring, such as a new head."""
  return map_both(lambda _, new, old: new if old is None else None, trained, source)


def map_both(function: Callable[[str, Any, Any], Any], trained: PyTree, source: PyTree) -> PyTree:
  """The tree of `function(name, trained leaf, the source's or None)`, None where none is."""

  def of_leaf(path: Any, new: Any, old: Any) -> Any:
    return None if new is None else function(path_name(path), new, old)

  return jax.tree_util.tree_map_with_path(
    of_leaf, trained, source, is_leaf=lambda leaf: leaf is None
  )


def last(stages: dict[str, Any]) -> Any:
  """What enters the head."""
  return list(stages.values())[-1]


def check_amounts(**amounts: float) -> None:
  """Raises ValueError for a strength that is no number of at least 0."""
  for name, value in amounts.items():
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < float('inf'):
      raise ValueError(f'{name} is a number of at least 0, got {value!r}.')


def check_count(name: str, value: int, least: int) -> None:
  """Raises ValueError for what is no whole number of at least `least`."""
  if not isinstance(value, int) or isinstance(value, bool) or value < least:
    raise ValueError(f'{name} is a whole number of at least {least}, got {value!r}.')
