"""The few types everything else speaks in: tuples of arrays and of pure functions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

PyTree = Any
Array = jax.Array


class Variables(NamedTuple):
  """What a network holds: `params` are trained, `stats` (running means and variances) are counted.

  Both are nested dicts whose first level is the stage: `params['stem']['conv']['kernel']`.
  """

  params: PyTree
  stats: PyTree


class Network(NamedTuple):
  """A list of named stages from input to output; the last one is the head.

  init(key, inputs) -> Variables
  apply(variables, x, *, train, key=None, start=None, stop=None, frozen_norms=frozenset())
    -> (activation, stats) runs `stages[start:stop]` on the activation that enters stage `start`.
    `stats` is the whole tree, updated where `train` is set. Norm layers named in `frozen_norms`
    ('block1/norm') use their stored statistics even in training. Networks of tlx/backbones take
    `edits` too, the calls that added leaves change (tlx/peft).
  """

  stages: tuple[str, ...]
  init: Callable[..., Variables]
  apply: Callable[..., tuple[PyTree, PyTree]]


class Batch(NamedTuple):
  """Inputs [B, ...], targets [B, ...] and mask [B]; the mask is 0.0 on padding."""

  inputs: PyTree
  targets: PyTree
  mask: PyTree


class Mixed(NamedTuple):
  """Targets of examples that are mixtures of two.

  `share` [B] is that of the first, the rest is of the second. The loss of a mixture is that of both
  targets in these shares, whatever the task.
  """

  first: PyTree
  second: PyTree
  share: Array


class Weighed(NamedTuple):
  """Targets, and how much each example [B] weighs in what is minimised."""

  targets: PyTree
  weight: Array


class Form(NamedTuple):
  """What an example is stored as and how it enters a network.

  Made by `tlx.inputs.<name>.form(**options)`. Equal forms share data and programs: the name holds
  every option, and the functions are made once for it (functools.cache).

  name: 'image ...', the file of tlx/inputs and its options as text
  spec: a jax.ShapeDtypeStruct for each leaf of one stored example, without batch axis; a single one
    or nested dicts
  enter(leaves [B, ...]) -> what stage 0 takes of them, on the device
  augment(key, Batch, options) -> Batch, random; targets of mixed examples are `Mixed`
  check(options) raises ValueError for augmentations that the form does not have, or not with these
    values
  moves: `augment` changes the targets too, such as boxes in an image; what it makes of the inputs
    does not depend on them
  """

  name: str
  spec: PyTree
  enter: Callable[[PyTree], PyTree]
  augment: Callable[[Array, Batch, Mapping[str, float]], Batch]
  check: Callable[[Mapping[str, float]], None]
  moves: bool = False

  def __hash__(self) -> int:
    return hash(self.name)  # a spec of several leaves is a dict, which has none


class Head(NamedTuple):
  """A head that is more than a linear map to `size` outputs.

  kind: 'boxes', which sees places of several strides (backbones/_boxes.py)
  size: the number of classes
  """

  kind: str
  size: int


class Task(NamedTuple):
  """What is asked of a network, and what its answers are worth.

  Made by `tlx.tasks.<name>.task(num_classes, **options)`.

  head: the number of outputs of a linear head, or another `Head`; None where the source's own stays
    (language models)
  targets(stored inputs, published labels) -> what `terms` and `scores` need, leaves [N, ...] on the
    host
  terms(outputs, Batch) -> {name: (value, weight)}, [B, ...] each and weight 0.0 where the mask is.
    'loss' is minimised as sum(value weight) / sum(weight), over the parts of a batch and all
    devices together
  keep(outputs) -> {name: leaf [B, ...]} of predictions, only computed where they are asked for
  scores(sums, kept, targets) -> {column: number or list}, on the host. `sums` are
    (sum(value weight), sum(weight)) of each term over all examples; `kept` and `targets` are of
    these examples, or None where nothing was kept. 'loss' and the selected column are always among
    the columns
  select: (column, +1 where more is better, -1 where less is), by which settings are chosen on
    validation
  solvers: the exact solutions of a linear head (train/exact.py) that answer the task
  each: terms of which the sum of value x weight over each example [B] is kept beside `keep`
  contrasts: `terms` compare the examples of a batch with each other, so they are never evaluated in
    the order of their files, where those of a class may stand together
  whole: the columns are no sums over examples, so that on validation too they are made of what is
    kept of each
  balanced: targets are class numbers, and classes weigh in what a run minimises by how rare they
    are among its own training examples (train/job.py `class_weights`)
  """

  head: int | Head | None
  targets: Callable[[PyTree, PyTree], PyTree]
  terms: Callable[[PyTree, Batch], dict[str, tuple[Array, Array]]]
  keep: Callable[[PyTree], dict[str, Array]]
  scores: Callable[..., dict[str, Any]]
  select: tuple[str, int]
  solvers: tuple[str, ...] = ()
  each: tuple[str, ...] = ()
  contrasts: bool = False
  whole: bool = False
  balanced: bool = False


def num_logits(task: Task) -> int:
  """The number of outputs of a task's linear head; 0 where it has another."""
  return task.head if isinstance(task.head, int) else 0


class RunState(NamedTuple):
  """All that training changes.

  Keys are `fold_in(key, step)`: nothing random is stored, so a resumed run replays exactly.
  A run whose loss is not finite stays at the step where that happened.

  average: where a phase keeps one, the moving average of `trainable` and `stats`; it is what is
    evaluated, and what the phase ends with
  """

  step: Array
  trainable: PyTree
  stats: PyTree
  opt_state: PyTree
  average: Variables | tuple[()] = ()


class Cell(NamedTuple):
  """One run of a study: one row of its table."""

  source: str
  target: str
  method: str
  shots: int
  seed: int
  learning_rate: float
  weight_decay: float
