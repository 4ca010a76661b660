"""What holds a phase back to its source: its penalty, and whether there is all that it reads."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tlx import tree
from tlx.penalties import Penalty
from tlx.plug import closest, plug
from tlx.study.config import named
from tlx.train import cohort, step
from tlx.train.anchor import Anchor
from tlx.train.prefix import activation
from tlx.types import Form, Network, Task, Variables


class About(NamedTuple):
  """A phase as far as its penalty depends on it.

  network, form, task, shapes: of the run; alone: the network without added leaves
  labels: the group of each leaf; live: the norms that see their batch
  brought: whether the run starts from a source; with_head: with that source's head too
  changed: the leaves that are another's than the source's, or may be after the phase
  source: its config; num_classes: of its own head, 0 where that is not to be had
  own_place: whether the head follows the source's last stage
  """

  network: Network
  form: Form
  task: Task
  shapes: Variables
  alone: Network
  labels: Mapping[str, str]
  live: frozenset[str]
  brought: bool
  with_head: bool
  changed: frozenset[str]
  source: Mapping[str, Any]
  num_classes: int
  own_place: bool

  def is_brought(self, name: str) -> bool:
    """Whether the source brings a leaf."""
    is_head = name.split('/')[0] == self.network.stages[-1]
    return self.brought and not tree.is_added(name) and (self.with_head or not is_head)


def anchor_of(given: str | Mapping[str, Any], solver: str, about: About) -> Anchor | None:
  """The penalty of a phase as the config has it, and what it needs of the source; None for ''.

  Raises:
    ValueError: an unknown penalty or option, or one that has nothing to hold back, or that reads
      what is not there.
  """
  if not given:
    return None
  name, penalty = made(given)
  if solver != 'sgd':
    raise ValueError(
      f"penalty {name!r} is for training step by step, and solver = {solver!r}. Set penalty = ''."
    )
  for problem in (_no_source, _not_reached, _no_vector, _no_head, _not_there):
    if said := problem(penalty, about):
      raise ValueError(f'penalty {name!r} {said}')
  leaves = frozenset(leaf for leaf in about.changed if about.is_brought(leaf))
  num_classes = about.num_classes if 'head' in penalty.reads else 0
  return Anchor(penalty, about.alone, leaves, num_classes)


def made(given: str | Mapping[str, Any]) -> tuple[str, Penalty]:
  """(the name of a penalty, what its file makes of the options).

  Raises:
    ValueError: no such penalty, or an option that it does not take.
  """
  name, options = named(given)
  options = {
    option: tuple(value) if isinstance(value, list) else value for option, value in options.items()
  }
  try:
    return name, plug('penalties', name).penalty(**options)
  except TypeError as error:
    raise ValueError(f'Penalty {name!r}: {str(error).replace("penalty()", "it")}.') from None


def _no_source(penalty: Penalty, about: About) -> str:
  if about.brought or not (penalty.holds or penalty.reads & {'source', 'head'}):
    return ''
  return "holds a run to its source; it wants init = 'source', or penalty = ''."


def _not_reached(penalty: Penalty, about: About) -> str:
  trained = [leaf for leaf, group in about.labels.items() if group != 'frozen']
  before = [leaf for leaf in trained if leaf.split('/')[0] != about.network.stages[-1]]
  if penalty.holds:
    held = [leaf for leaf in trained if about.is_brought(leaf) and penalty.holds(leaf)]
    if not held and 'source' not in penalty.reads:
      return (
        'is about weights that the source brings, and the phase trains none that it reaches: '
        f'{", ".join(trained[:5])}{" ..." if len(trained) > 5 else ""}. Train more, or set penalty '
        "= ''."
      )
  if 'features' in penalty.reads and not before:
    return "is about features, and the phase trains the head alone. Set penalty = ''."
  if 'norms' in penalty.reads and not about.live:
    return (
      'is about batch norms that are trained, and the phase has none: take a backbone with batch '
      "norms, and train them (or norm = 'live')."
    )
  return ''


def _no_vector(penalty: Penalty, about: About) -> str:
  head = len(about.network.stages) - 1
  feature = activation(about.network, about.form, head)
  if 'vector' in penalty.reads and getattr(feature, 'ndim', 0) != 2:
    return f'wants one feature vector an example before the head, got {feature}.'
  return ''


def _no_head(penalty: Penalty, about: About) -> str:
  if 'head' in penalty.reads and not (about.num_classes and about.own_place):
    where = 'follows another stage here' if not about.own_place else 'is not to be had'
    return (
      f"wants the source's own head of classes, which {where}. It is there of a source that the "
      'study trains (dataset), on a task of classes and without head_after.'
    )
  if penalty.of_source and not about.source['dataset']:
    return (
      'wants the data that the source was trained on, and weights bring none. Let the study train '
      "the source (dataset), or say {'data': 'target'}."
    )
  return ''


def _not_there(penalty: Penalty, about: About) -> str:
  stages = about.network.stages[:-1]
  for stage in penalty.stages:
    if stage not in stages:
      near = closest(stage, stages)
      return f'names {stage!r}, which is no stage before the head; have {", ".join(stages)}.{near}'
  if 'classes' in penalty.reads and not _has_classes(about):
    return 'wants the number of a class for each example, as classification has it.'
  if {'features', 'source'} <= penalty.reads:
    for i, stage in enumerate(stages, 1):
      ours, theirs = (activation(one, about.form, i) for one in (about.network, about.alone))
      if jax.tree.map(np.shape, ours) != jax.tree.map(np.shape, theirs):
        return (
          f'compares with what the source gives, and what is added changes its shape at {stage!r}.'
        )
  return ''


def _has_classes(about: About) -> bool:
  """Whether a task's targets are one whole number an example, of a class of its head."""
  recipe = step.Recipe(about.network, about.form, about.task, step.Phase((), ()))
  targets = cohort.target_shapes(recipe, 1)
  is_number = getattr(targets, 'shape', ()) == (1,) and np.issubdtype(targets.dtype, np.integer)
  return is_number and bool(about.task.head)
