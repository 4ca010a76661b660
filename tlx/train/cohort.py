"""Cohorts: runs that differ only in arrays, trained and evaluated by one compiled program each.

How the run axis is executed follows from the backend: each device takes its share of the runs, one
after another on CPU (`lax.map`: a batched product of small matrices is slower there than the
products one by one), side by side on accelerators (`vmap`). Devices that runs do not fill split
their batches instead.
"""

import functools
import gc
import pathlib
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from tlx import inputs as forms
from tlx.tasks import _vocabulary
from tlx.train import memory
from tlx.train.anchor import Reference
from tlx.train.feed import Arrays
from tlx.train.prefix import activation, variable_shapes
from tlx.train.step import (
  Held,
  Hyper,
  Phase,
  Recipe,
  enter,
  forward,
  gradient,
  minimised,
  observe_one,
  split,
  train_step,
)
from tlx.tree import map_named, merge, num_bytes
from tlx.types import Array, Batch, PyTree, RunState, Variables, Weighed


class Runs(NamedTuple):
  """What each run of a cohort brings to a phase, stacked along the run axis [R, ...]."""

  frozen: PyTree  # what differs between runs: heads of earlier phases, random initialisations
  key: Array  # [R]
  hyper: Hyper  # [R] each
  known: PyTree = None  # what the phase's penalty found out before its first step
  class_weights: Array | None = None  # [R, K], where the task balances classes


class Order(NamedTuple):
  """Which examples the next steps of each run see."""

  rows: Array  # int32 [R, T, B], of the data that the runs share
  first: Array  # int32 [R], the step whose examples `rows` begins with


class Shared(NamedTuple):
  """What all runs of a cohort look at: the frozen leaves of the source, and the data."""

  frozen: PyTree
  data: Arrays
  reference: Reference | None = None  # of the source, for the phase's penalty


Carry = tuple[RunState, dict[str, Array]]  # a state, and the sums of its metrics since they were 0


def advance(recipe: Recipe) -> Callable:
  """(carry, (runs, order, num_steps), shared) of one run -> carry after num_steps more steps."""

  def run(carry: Carry, own: tuple[Runs, Order, Array], shared: Shared) -> Carry:
    runs, order, num_steps = own

    def body(_, carry: Carry) -> Carry:
      state, sums = carry
      state, metrics = _step(recipe, state, runs, order, shared)
      return state, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(0, num_steps, body, carry)

  return run


def sweep(recipe: Recipe) -> Callable:
  """((state, losses [T]), (runs, order, first, num_steps), shared) of one run -> both after
  num_steps more steps, with the loss of each batch before its step from `first` on.
  """

  def run(
    carry: tuple[RunState, Array], own: tuple[Runs, Order, Array, Array], shared: Shared
  ) -> tuple[RunState, Array]:
    runs, order, first, num_steps = own

    def body(i: Array, carry: tuple[RunState, Array]) -> tuple[RunState, Array]:
      state, losses = carry
      state, metrics = _step(recipe, state, runs, order, shared)
      return state, losses.at[first + i].set(metrics['loss'])

    return jax.lax.fori_loop(0, num_steps, body, carry)

  return run


def _step(
  recipe: Recipe, state: RunState, runs: Runs, order: Order, shared: Shared
) -> tuple[RunState, dict[str, Array]]:
  """(the next state of one run, metrics) on the examples that are next in its order."""
  rows = order.rows[state.step - order.first]
  data = jax.tree.map(lambda leaf: leaf[rows], shared.data)
  targets = data.targets
  if runs.class_weights is not None:
    targets = Weighed(targets, runs.class_weights[targets])
  batch = Batch(data.inputs, targets, jnp.ones(rows.shape))
  frozen, held = merge(runs.frozen, shared.frozen), Held(shared.reference, runs.known)
  return train_step(recipe, state, frozen, batch, runs.key, runs.hyper, held)


class Observed(NamedTuple):
  """What a run brings to the observation of examples before a phase."""

  trainable: PyTree
  frozen: PyTree
  stats: PyTree
  mask: Array  # [P, B], 0.0 where the run does not look at an example
  class_weights: Array | None = None  # [K], where the loss weighs classes by the run's examples


def observe(recipe: Recipe) -> Callable:
  """(sums, Observed, (shared frozen, reference, batches)) of one run -> the sums and those of the
  batches.

  The sums are over examples, of what the phase's penalty observes of each.
  """

  def run(sums: PyTree, own: Observed, shared: tuple[PyTree, Reference, Batch]) -> PyTree:
    shared_frozen, reference, batches = shared
    frozen = merge(own.frozen, shared_frozen)
    masks = (batches.mask * own.mask).reshape(-1)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, 1, *leaf.shape[2:]), batches)

    def add(sums: PyTree, both: tuple[Batch, Array]) -> tuple[PyTree, None]:
      example, counts = both
      if own.class_weights is not None:
        targets = example.targets
        example = example._replace(targets=Weighed(targets, own.class_weights[targets]))
      found = observe_one(recipe, own.trainable, frozen, own.stats, example, reference)
      return jax.tree.map(lambda total, leaf: total + counts * leaf, sums, found), None

    return jax.lax.scan(add, sums, (flat, masks))[0]

  return run


class Evaluated(NamedTuple):
  """What a run brings to an evaluation."""

  trainable: PyTree
  frozen: PyTree
  stats: PyTree
  mask: Array  # [P, B], 0.0 where the run does not look at an example


# Of each term of a task, (sum of value x weight, sum of weight).
Sums = dict[str, tuple[Array, Array]]


def evaluate(recipe: Recipe) -> Callable:
  """((), Evaluated, (shared frozen, batches)) of one run -> the sums of each batch, [P]."""
  look = _look(recipe)

  def run(_: tuple[()], own: Evaluated, shared: tuple[PyTree, Batch]) -> Sums:
    return jax.lax.map(lambda both: look(own, shared[0], *both)[0], (shared[1], own.mask))

  return run


def predict(recipe: Recipe) -> Callable:
  """As `evaluate`, but (sums, what the task keeps of the outputs [P, B, ...])."""
  look = _look(recipe)

  def run(_: tuple[()], own: Evaluated, shared: tuple[PyTree, Batch]) -> tuple[Sums, PyTree]:
    def kept(both: tuple[Batch, Array]) -> tuple[Sums, PyTree]:
      sums, outputs, terms = look(own, shared[0], *both)
      kept = dict(recipe.task.keep(outputs))
      for name in recipe.task.each:
        value, weight = terms[name]
        kept[name] = jnp.sum(value * weight, axis=tuple(range(1, value.ndim)))
      return sums, kept

    return jax.lax.map(kept, (shared[1], own.mask))

  return run


def total(parts: Sequence[Sums]) -> Sums:
  """The sums [R] over all batches of all parts, each [R, P] on the host.

  Added one after another, so that the parts in which batches came change nothing.
  """

  def of_leaf(*of_parts: np.ndarray) -> np.ndarray:
    return np.cumsum(np.concatenate(of_parts, axis=1), axis=1)[:, -1]

  return jax.tree.map(of_leaf, *parts)


def _look(recipe: Recipe) -> Callable:
  """(Evaluated, shared frozen, a batch, the run's mask [B] of it) -> (sums, outputs, terms)."""

  def look(
    own: Evaluated, frozen: PyTree, batch: Batch, mask: Array
  ) -> tuple[Sums, PyTree, dict[str, tuple[Array, Array]]]:
    variables = Variables(merge(own.trainable, own.frozen, frozen), own.stats)
    batch = batch._replace(mask=batch.mask * mask)
    inputs = enter(recipe, batch.inputs)
    outputs, _ = recipe.network.apply(variables, inputs, train=False, start=recipe.phase.start)
    terms = recipe.task.terms(outputs, batch)
    sums = {}
    for name, (value, weight) in terms.items():
      sums[name] = jnp.sum(value * weight), jnp.sum(weight)
    return sums, outputs, terms

  return look


class Compiled(NamedTuple):
  """How many programs were compiled, and the seconds that took."""

  seconds: float
  programs: int

  def __sub__(self, earlier: 'Compiled') -> 'Compiled':
    return Compiled(self.seconds - earlier.seconds, self.programs - earlier.programs)


class Program:
  """A function of (carry, one run, shared) as a compiled program over [R] runs.

  It compiles once a shape and keeps account of that. The buffers of `carry` are given up to the
  result.
  """

  so_far = Compiled(0.0, 0)  # by all programs of this process
  made: ClassVar[weakref.WeakSet['Program']] = weakref.WeakSet()

  def __init__(self, function: Callable, mesh: jax.sharding.Mesh):
    Program.made.add(self)
    self.mesh = mesh
    self.compiled: dict[tuple, Any] = {}

    @jax.default_matmul_precision('highest')  # of what no network says, as a task's products
    def over_runs(carry: PyTree, runs: PyTree, shared: PyTree) -> PyTree:
      if jax.default_backend() == 'cpu':
        return jax.lax.map(lambda run: function(*run, shared), (carry, runs))
      return jax.vmap(function, in_axes=(0, 0, None))(carry, runs, shared)

    if mesh.shape['run'] > 1:
      along, whole = PartitionSpec('run'), PartitionSpec()
      manual = {'run'} if mesh.shape['data'] > 1 else set(mesh.axis_names)
      over_runs = jax.shard_map(
        over_runs,
        mesh=mesh,
        in_specs=(along, along, whole),
        out_specs=along,
        axis_names=manual,
        check_vma=False,
      )
    self.function = over_runs

  def __call__(self, carry: PyTree, runs: PyTree, shared: PyTree) -> PyTree:
    return self.compile(carry, runs, shared)(carry, runs, shared)

  def compile(self, carry: PyTree, runs: PyTree, shared: PyTree) -> Any:
    """The executable for arguments of these shapes.

    Raises:
      ValueError: it needs more memory than a device has.
    """
    leaves, structure = jax.tree.flatten((carry, runs, shared))
    shapes = structure, tuple((leaf.shape, str(leaf.dtype), leaf.sharding) for leaf in leaves)
    if shapes not in self.compiled:
      begin_time = time.perf_counter()
      placed = (
        {'out_shardings': jax.tree.map(lambda leaf: leaf.sharding, carry)}
        if jax.tree.leaves(carry)
        else {}
      )
      lowered = jax.jit(self.function, donate_argnums=0, **placed).lower(carry, runs, shared)
      self.compiled[shapes] = memory.executable(lowered)
      seconds, programs = Program.so_far
      Program.so_far = Compiled(seconds + time.perf_counter() - begin_time, programs + 1)
    return self.compiled[shapes]


def let_go(share: float = 0.4) -> bool:
  """Lets go of all executables where they fill that share of the memory maps that Linux gives a
  process (65,530, of which each executable takes dozens); returns whether it did.

  Beyond the last map XLA ends the process. What is needed again is compiled again, or read from the
  compilation cache.
  """
  maps, most = pathlib.Path('/proc/self/maps'), pathlib.Path('/proc/sys/vm/max_map_count')
  if not maps.exists() or maps.read_bytes().count(b'\n') < share * int(most.read_text()):
    return False
  for one in Program.made:
    one.compiled.clear()
  jax.clear_caches()
  gc.collect()
  return True


@functools.cache
def program(function: Callable, recipe: Recipe, mesh: jax.sharding.Mesh) -> Program:
  """The program of `advance`, `evaluate` or `predict`; equal arguments give the same one."""
  return Program(function(recipe), mesh)


def costing(recipe: Recipe) -> Recipe:
  """A recipe with the gradients of `recipe`, and nothing else of its phase.

  Equal ones cost the same.
  """
  phase = recipe.phase
  labels = tuple((name, 'frozen' if group == 'frozen' else 'train') for name, group in phase.labels)
  plain = Phase(labels, (), phase.frozen_norms, start=phase.start, anchor=phase.anchor)
  return recipe._replace(phase=plain)


class _Shapes(NamedTuple):
  """The arguments of a program that is only counted."""

  trainable: PyTree
  frozen: PyTree
  stats: PyTree
  batch: Batch
  reference: Reference | None


def _shapes(recipe: Recipe, batch_size: int) -> _Shapes:
  shapes = variable_shapes(recipe.network, recipe.form)
  inputs = activation(recipe.network, recipe.form, recipe.phase.start, batch_size)
  mask = jax.ShapeDtypeStruct((batch_size,), np.float32)
  batch = Batch(inputs, target_shapes(recipe, batch_size), mask)
  return _Shapes(
    *split(shapes.params, recipe.phase),
    shapes.stats,
    batch,
    reference_shapes(recipe),
  )


def reference_shapes(recipe: Recipe) -> Reference | None:
  """The shapes of what a phase's penalty is told of the source; None without one."""
  anchor = recipe.phase.anchor
  if anchor is None:
    return None
  shapes = variable_shapes(recipe.network, recipe.form)
  params = map_named(lambda name, leaf: leaf if name in anchor.leaves else None, shapes.params)
  head: dict[str, Any] = {}
  if anchor.num_classes:
    features = activation(recipe.network, recipe.form, len(recipe.network.stages) - 1)
    width = (features.shape[-1], anchor.num_classes)
    head = {'kernel': jax.ShapeDtypeStruct(width, np.float32)}
    head['bias'] = jax.ShapeDtypeStruct(width[1:], np.float32)
  return Reference(params, shapes.stats, head)


@functools.cache
def sums_shapes(recipe: Recipe) -> PyTree:
  """The shapes of what a phase's penalty observes of an example."""
  found = _shapes(recipe, 1)
  return jax.eval_shape(functools.partial(observe_one, recipe), *found)


def known_shapes(recipe: Recipe) -> PyTree:
  """The shapes of what a phase's penalty knows of a run at its first step; None of nothing."""
  anchor = recipe.phase.anchor
  if anchor is None or anchor.penalty.conclude is None:
    return None
  number = jax.ShapeDtypeStruct((), np.float32)
  return jax.eval_shape(anchor.penalty.conclude, sums_shapes(recipe), number)


@functools.cache
def gradient_flops(recipe: Recipe, batch_size: int) -> float:
  """FLOPs of the loss and the gradients of the trained leaves on a batch, as XLA counts them.

  A penalty's are among them, with the source's forward pass where it reads that. Computes nothing.
  """

  def run(shapes: _Shapes, known: PyTree) -> PyTree:
    held = Held(shapes.reference, known)
    return gradient(recipe, *shapes[:4], jax.random.key(0), held)

  return _flops(run, _shapes(recipe, batch_size), known_shapes(recipe))


@functools.cache
def observe_flops(recipe: Recipe) -> float:
  """FLOPs of what a phase's penalty observes of one example before the first step."""
  return _flops(lambda shapes: observe_one(recipe, *shapes), _shapes(recipe, 1))


@functools.cache
def kept_bytes(recipe: Recipe) -> int:
  """Bytes of activations that the gradient of one example keeps from its forward pass.

  What two examples keep more than one: weights and what is made of them are not in it. Nothing is
  computed. XLA may keep less, where it fuses or computes again; penalties' are not counted.
  """
  one, two = (jax.eval_shape(functools.partial(_kept, recipe), *_shapes(recipe, n)) for n in (1, 2))
  return num_bytes(two) - num_bytes(one)


def _kept(recipe: Recipe, *shapes: PyTree) -> PyTree:
  """What the loss keeps on a batch for its gradient."""
  trainable, frozen, stats, batch, _ = shapes
  key = jax.random.key(0)

  def loss(trainable: PyTree) -> Array:
    x, variables = enter(recipe, batch.inputs), Variables(merge(trainable, frozen), stats)
    _, outputs, _ = forward(recipe.network, recipe.phase, variables, x, key)
    return minimised(recipe.task, outputs, batch)[0]

  kept = jax.tree.leaves(jax.vjp(loss, trainable)[1])
  return [leaf for leaf in kept if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]


def _flops(run: Callable, *shapes: PyTree) -> float:
  with _vocabulary.whole():
    cost = jax.jit(run).lower(*shapes).cost_analysis()
  return float((cost or {}).get('flops', float('nan')))


def target_shapes(recipe: Recipe, num_examples: int) -> PyTree:
  """The shapes [N, ...] of a task's targets where the published ones are numbers of classes."""
  nothing = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, leaf.dtype), forms.stored(recipe.form, num_examples)
  )
  targets = recipe.task.targets(nothing, np.zeros(num_examples, np.int32))
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), targets)
