"""Cohorts: runs that differ only in arrays, trained and evaluated by one compiled program each.

How the run axis is executed follows from the backend: each device takes its share of the runs, one after another on CPU
(`lax.map`: a batched product of small matrices is slower there than the products one by one), side by side on accelerators (`vmap`).
Devices that runs do not fill split their batches instead.
"""
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from tlx.train import memory
from tlx.train.feed import Arrays
from tlx.train.prefix import activation
from tlx.train.step import Hyper, Phase, enter, gradient, split, train_step
from tlx.tree import map_named, merge, named_leaves
from tlx.types import Array, Batch, Network, PyTree, RunState, Task, Variables


class Runs(NamedTuple):
  """What each run of a cohort brings to a phase, stacked along the run axis [R, ...]."""
  frozen: PyTree  # frozen leaves that differ between runs: heads of earlier phases, random initialisations
  order: Array  # int32 [R, T, B], the examples of each step
  key: Array  # [R]
  hyper: Hyper  # [R] each


class Shared(NamedTuple):
  """What all runs of a cohort look at: the frozen leaves of the source, and the data."""
  frozen: PyTree
  data: Arrays


def advance(network: Network, task: Task, phase: Phase) -> Callable:
  """((state, sums), (runs, num_steps), shared) of one run -> (state, sums of its metrics) after num_steps more steps."""
  def run(carry: tuple[RunState, dict[str, Array]], own: tuple[Runs, Array], shared: Shared) -> tuple[RunState, dict[str, Array]]:
    (runs, num_steps), frozen = own, merge(own[0].frozen, shared.frozen)

    def body(_, carry):
      state, sums = carry
      rows = runs.order[state.step]
      batch = Batch(jax.tree.map(lambda a: a[rows], shared.data.inputs), shared.data.targets[rows], jnp.ones(rows.shape))
      state, metrics = train_step(network, task, phase, state, frozen, batch, runs.key, runs.hyper)
      return state, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(0, num_steps, body, carry)

  return run


class Evaluated(NamedTuple):
  """What a run brings to an evaluation."""
  trainable: PyTree
  frozen: PyTree
  stats: PyTree
  mask: Array  # [N / B, B], 0.0 where the run does not look at an example


def evaluate(network: Network, task: Task, phase: Phase) -> Callable:
  """((), Evaluated, (shared frozen, batches)) of one run -> (sums over its examples, logits [N / B, B, K] of all)."""
  def run(_: tuple[()], own: Evaluated, shared: tuple[PyTree, Batch]) -> tuple[dict[str, Array], PyTree]:
    variables = Variables(merge(own.trainable, own.frozen, shared[0]), own.stats)

    def batch_sums(both: tuple[Batch, Array]) -> tuple[dict[str, Array], PyTree]:
      batch = both[0]._replace(mask=both[0].mask * both[1])
      logits, _ = network.apply(variables, enter(batch.inputs, phase), train=False, start=phase.start)
      return task.sums(logits, batch), logits

    sums, logits = jax.lax.map(batch_sums, (shared[1], own.mask))
    return jax.tree.map(lambda a: jnp.sum(a, 0), sums), logits

  return run


class Compiled(NamedTuple):
  """How many programs were compiled, and the seconds that took."""
  seconds: float
  programs: int

  def __sub__(self, earlier: 'Compiled') -> 'Compiled':
    return Compiled(self.seconds - earlier.seconds, self.programs - earlier.programs)


class Program:
  """A function of (carry, one run, shared) as a compiled program over [R] runs; compiles once a shape and keeps account of it.

  The buffers of `carry` are given up to the result.
  """
  so_far = Compiled(0.0, 0)  # by all programs of this process

  def __init__(self, function: Callable, mesh: jax.sharding.Mesh):
    self.mesh = mesh
    self.compiled: dict[tuple, Any] = {}

    def over_runs(carry: PyTree, runs: PyTree, shared: PyTree) -> PyTree:
      if jax.default_backend() == 'cpu':
        return jax.lax.map(lambda run: function(*run, shared), (carry, runs))
      return jax.vmap(function, in_axes=(0, 0, None))(carry, runs, shared)

    if mesh.shape['run'] > 1:
      along, whole = PartitionSpec('run'), PartitionSpec()
      manual = {'run'} if mesh.shape['data'] > 1 else set(mesh.axis_names)
      over_runs = jax.shard_map(over_runs, mesh=mesh, in_specs=(along, along, whole), out_specs=along, axis_names=manual, check_vma=False)
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
      placed = {'out_shardings': jax.tree.map(lambda leaf: leaf.sharding, carry)} if jax.tree.leaves(carry) else {}
      lowered = jax.jit(self.function, donate_argnums=0, **placed).lower(carry, runs, shared)
      self.compiled[shapes] = memory.compile(lowered)
      seconds, programs = Program.so_far
      Program.so_far = Compiled(seconds + time.perf_counter() - begin_time, programs + 1)
    return self.compiled[shapes]


@functools.cache
def program(function: Callable, network: Network, task: Task, phase: Phase, mesh: jax.sharding.Mesh) -> Program:
  """The program of `advance` or `evaluate`; equal arguments give the same one, compiled once."""
  return Program(function(network, task, phase), mesh)


@functools.cache
def gradient_flops(network: Network, task: Task, trained: frozenset[str], frozen_norms: frozenset[str],
                   images: jax.ShapeDtypeStruct, start: int) -> float:
  """FLOPs of the loss and the gradients of the leaves `trained` from stage `start` on, as XLA counts them; computes nothing.

  `images` is the shape [B, H, W, C]. The optimizer's few operations a parameter and augmentation are left out.
  """
  shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *images.shape[1:]), np.float32))
  labels = map_named(lambda name, _: 'train' if name in trained else 'frozen', shapes.params)
  phase = Phase(tuple(named_leaves(labels)), (), frozen_norms, start=start)
  targets, mask = (jax.ShapeDtypeStruct(images.shape[:1], dtype) for dtype in (np.int32, np.float32))
  batch = Batch(activation(network, shapes, images, start), targets, mask)
  run = lambda trainable, frozen, stats, batch: gradient(network, task, phase, trainable, frozen, stats, batch, jax.random.key(0))
  cost = jax.jit(run).lower(*split(shapes.params, phase), shapes.stats, batch).cost_analysis()
  return float((cost or {}).get('flops', float('nan')))
