"""The training step: pure, and blind to what is frozen."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from tlx.train import augment, optim
from tlx.tree import map_named, merge, partition
from tlx.types import Array, Batch, Network, PyTree, RunState, Task, Variables


class Phase(NamedTuple):
  """All of a phase that shapes its program; hashable, so equal phases share one. What differs between runs is in Hyper."""
  labels: tuple[tuple[str, str], ...]  # (parameter name, group)
  rates: tuple[tuple[str, float], ...]  # (group, multiple of the learning rate)
  frozen_norms: frozenset[str] = frozenset()
  optimizer: str = 'adam'
  optimizer_options: tuple[tuple[str, float], ...] = ()
  schedule: str = 'cosine'
  warmup: float = 0.0
  clip_norm: float = 0.0
  augment: tuple[tuple[str, float], ...] = ()
  mean: tuple[float, ...] = (0.0,)  # of the inputs scaled to [0, 1], per channel
  std: tuple[float, ...] = (1.0,)
  num_classes: int = 0


class Hyper(NamedTuple):
  """What differs between the runs of one program: scalars, or one a run [R]; arrays or their shapes."""
  learning_rate: PyTree
  weight_decay: PyTree
  num_steps: PyTree


def normalise(inputs: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
  """Images [B, H, W, C] with values from 0 to 255 as float32, (x / 255 - mean) / std."""
  return (inputs.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


def split(params: PyTree, phase: Phase) -> tuple[PyTree, PyTree]:
  """(trainable, frozen) leaves of `params` in this phase."""
  return partition(params, _labels(params, phase))


def _labels(params: PyTree, phase: Phase) -> PyTree:
  groups = dict(phase.labels)
  return map_named(lambda name, _: groups[name], params)


def make_optimizer(trainable: PyTree, phase: Phase, hyper: Hyper) -> optax.GradientTransformation:
  """The optimizer of a phase for its trainable leaves."""
  factor = optim.schedule(phase.schedule, phase.warmup)
  rate = lambda count: hyper.learning_rate * factor(count, hyper.num_steps)
  return optim.optimizer(phase.optimizer, dict(phase.optimizer_options), _labels(trainable, phase), dict(phase.rates),
                         rate, hyper.weight_decay, phase.clip_norm)


def start(trainable: PyTree, stats: PyTree, phase: Phase, hyper: Hyper) -> RunState:
  """The state before a phase's first step."""
  return RunState(jnp.zeros((), jnp.int32), trainable, stats, make_optimizer(trainable, phase, hyper).init(trainable))


def gradient(network: Network, task: Task, phase: Phase, trainable: PyTree, frozen: PyTree, stats: PyTree, batch: Batch,
             key: Array) -> tuple[tuple[Array, PyTree], PyTree]:
  """((loss, new stats), gradients of the trainable leaves) on a batch of images as stored (uint8)."""
  augment_key, dropout_key = jax.random.split(key)
  batch = augment.augment(augment_key, batch, dict(phase.augment), phase.num_classes)
  batch = batch._replace(inputs=normalise(batch.inputs, phase.mean, phase.std))

  def loss_of(trainable: PyTree) -> tuple[Array, PyTree]:
    variables = Variables(merge(trainable, frozen), stats)
    logits, new_stats = network.apply(variables, batch.inputs, train=True, key=dropout_key, frozen_norms=phase.frozen_norms)
    return task.loss(logits, batch), new_stats

  return jax.value_and_grad(loss_of, has_aux=True)(trainable)


def train_step(network: Network, task: Task, phase: Phase, state: RunState, frozen: PyTree, batch: Batch, key: Array,
               hyper: Hyper) -> tuple[RunState, dict[str, Array]]:
  """(next state, {'loss', 'grad_norm'}); gradients, norms and optimizer state exist for the trainable leaves only.

  Where the loss or the gradient is not finite the state stays as it is, its step too.
  """
  key = jax.random.fold_in(key, state.step)
  (loss, stats), grads = gradient(network, task, phase, state.trainable, frozen, state.stats, batch, key)
  grad_norm = optax.tree.norm(grads)
  updates, opt_state = make_optimizer(state.trainable, phase, hyper).update(grads, state.opt_state, state.trainable)
  proposed = RunState(state.step + 1, optax.apply_updates(state.trainable, updates), stats, opt_state)
  finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposed, state)
  return state, {'loss': loss, 'grad_norm': grad_norm}
