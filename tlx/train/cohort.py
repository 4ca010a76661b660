"""Cohorts: runs that differ only in arrays, trained and evaluated by one compiled program each.

How the run axis is executed follows from the backend: each device takes its share of the runs, one after another on CPU
(`lax.map`: a batched product of small matrices is slower there than the products one by one), side by side on accelerators (`vmap`).
A single run has its batches split over the devices instead.
"""
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from tlx.train.feed import Arrays
from tlx.train.step import Hyper, Phase, gradient, normalise, split, train_step
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
  """((state, sums, runs, num_steps), shared) of one run -> (state, sums of its metrics) after num_steps more steps."""
  def run(run: tuple[RunState, dict[str, Array], Runs, Array], shared: Shared) -> tuple[RunState, dict[str, Array]]:
    state, sums, own, num_steps = run
    frozen = merge(own.frozen, shared.frozen)

    def body(_, carry):
      state, sums = carry
      rows = own.order[state.step]
      batch = Batch(jax.tree.map(lambda a: a[rows], shared.data.inputs), shared.data.targets[rows], jnp.ones(rows.shape))
      state, metrics = train_step(network, task, phase, state, frozen, batch, own.key, own.hyper)
      return state, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(0, num_steps, body, (state, sums))

  return run


def evaluate(network: Network, task: Task, phase: Phase) -> Callable:
  """((trainable, frozen, stats), (shared frozen, batches)) of one run -> (sums over all batches, logits [N / B, B, K])."""
  def run(run: tuple[PyTree, PyTree, PyTree], shared: tuple[PyTree, Batch]) -> tuple[dict[str, Array], PyTree]:
    trainable, frozen, stats = run
    variables = Variables(merge(trainable, frozen, shared[0]), stats)

    def batch_sums(batch: Batch) -> tuple[dict[str, Array], PyTree]:
      logits, _ = network.apply(variables, normalise(batch.inputs, phase.mean, phase.std), train=False)
      return task.sums(logits, batch), logits

    sums, logits = jax.lax.map(batch_sums, shared[1])
    return jax.tree.map(lambda a: jnp.sum(a, 0), sums), logits

  return run


class Program:
  """A function of (one run, shared) as a compiled program over [R] runs; compiles once a shape and keeps account of it."""

  def __init__(self, function: Callable, mesh: jax.sharding.Mesh):
    self.mesh, self.compile_seconds = mesh, 0.0
    self.compiled: dict[tuple, Any] = {}

    def over_runs(runs: PyTree, shared: PyTree) -> PyTree:
      if jax.default_backend() == 'cpu':
        return jax.lax.map(lambda run: function(run, shared), runs)
      return jax.vmap(function, in_axes=(0, None))(runs, shared)

    if mesh.axis_names == ('run',) and mesh.size > 1:
      along, whole = PartitionSpec('run'), PartitionSpec()
      over_runs = jax.shard_map(over_runs, mesh=mesh, in_specs=(along, whole), out_specs=along, check_vma=False)
    self.jitted = jax.jit(over_runs)

  def __call__(self, runs: PyTree, shared: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten((runs, shared))
    shapes = structure, tuple((leaf.shape, str(leaf.dtype), leaf.sharding) for leaf in leaves)
    if shapes not in self.compiled:
      begin_time = time.perf_counter()
      self.compiled[shapes] = self.jitted.lower(runs, shared).compile()
      self.compile_seconds += time.perf_counter() - begin_time
    return self.compiled[shapes](runs, shared)


@functools.cache
def program(function: Callable, network: Network, task: Task, phase: Phase, mesh: jax.sharding.Mesh) -> Program:
  """The program of `advance` or `evaluate`; equal arguments give the same one, compiled once."""
  return Program(function(network, task, phase), mesh)


@functools.cache
def gradient_flops(network: Network, task: Task, trained: frozenset[str], frozen_norms: frozenset[str],
                   inputs: jax.ShapeDtypeStruct) -> float:
  """FLOPs of the loss and the gradients of the leaves `trained` on `inputs` [B, ...], as XLA counts them; computes nothing.

  The optimizer's few operations a parameter and augmentation are left out.
  """
  shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *inputs.shape[1:]), np.float32))
  labels = map_named(lambda name, _: 'train' if name in trained else 'frozen', shapes.params)
  phase = Phase(tuple(named_leaves(labels)), (), frozen_norms)
  batch = Batch(inputs, jax.ShapeDtypeStruct(inputs.shape[:1], np.int32), jax.ShapeDtypeStruct(inputs.shape[:1], np.float32))
  run = lambda trainable, frozen, stats, batch: gradient(network, task, phase, trainable, frozen, stats, batch, jax.random.key(0))
  cost = jax.jit(run).lower(*split(shapes.params, phase), shapes.stats, batch).cost_analysis()
  return float((cost or {}).get('flops', float('nan')))
