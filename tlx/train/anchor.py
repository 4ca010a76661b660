"""What a phase's penalty (tlx/penalties) is told of the source, and what it finds out before the
first step.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tlx.penalties import Penalty
from tlx.tree import ADDED, merge
from tlx.types import Array, Network, PyTree, Task, Variables


class Anchor(NamedTuple):
  """A phase's penalty as far as it shapes the program; hashable.

  network: the source's, without added leaves, its head not looked at
  leaves: the names of those that the source brings and a run may have changed
  num_classes: of the source's own head; 0 where the penalty does not read it
  """

  penalty: Penalty
  network: Network
  leaves: frozenset[str]
  num_classes: int = 0


class Reference(NamedTuple):
  """What all runs of a cohort share of the source.

  params: its leaves named in `Anchor.leaves`, None elsewhere
  stats: its batch statistics
  head: the 'kernel' and 'bias' of its own head, {} where the penalty does not read it
  """

  params: PyTree
  stats: PyTree
  head: Mapping[str, Any]


class Origin(NamedTuple):
  """A source that the study trained, on the host, as penalties may read it.

  network, task: its own, with the head of its own task
  variables: its own, the head among them
  train: () -> the examples it was trained on, inputs and targets [N, ...]
  """

  network: Network
  task: Task
  variables: Variables
  train: Callable[[], Any]


def logits(reference: Reference, features: Array) -> Array:
  """[B, S]: the source's own head on features [B, D]."""
  return features.astype(jnp.float32) @ reference.head['kernel'] + reference.head['bias']


def source_stages(
  anchor: Anchor, start: int, reference: Reference, frozen: PyTree, x: PyTree
) -> dict[str, Any]:
  """{stage: what comes out of it in the source} from stage `start` to the last before the head."""
  params = merge(reference.params, frozen)
  own = {
    stage: {name: leaf for name, leaf in leaves.items() if name != ADDED}
    for stage, leaves in params.items()
  }
  variables = Variables(own, reference.stats)
  found = {}
  for i in range(start, len(anchor.network.stages) - 1):
    x, _ = anchor.network.apply(variables, x, train=False, start=i, stop=i + 1)
    found[anchor.network.stages[i]] = x
  return jax.lax.stop_gradient(found)
