"""The training step: pure, and blind to what is frozen."""
import functools
from collections.abc import Callable, Mapping
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
  start: int = 0  # the inputs are what enters this stage: those before it ran once for every example (prefix.py)
  views: int = 0  # of each example there are so many augmented views among the inputs; 0: inputs are augmented at every step
  solver: str = 'sgd'  # or an exact solution of the head (exact.py): 'logistic' | 'ridge'
  remat: bool = False  # activations inside stages are computed again for the gradient, not kept
  accumulate: int = 1  # the batch goes through in so many parts, one after another
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
  """((loss, new stats), gradients of the trainable leaves) on a batch of images as stored (uint8), or of activations.

  With `accumulate`, batch statistics see one part after another; losses and gradients are means over the parts.
  """
  augment_key, dropout_key = jax.random.split(key)
  if not phase.start:
    batch = augment.augment(augment_key, batch, dict(phase.augment), phase.num_classes)

  def loss_of(trainable: PyTree, stats: PyTree, batch: Batch, key: Array) -> tuple[Array, PyTree]:
    variables = Variables(merge(trainable, frozen), stats)
    logits, new_stats = forward(network, phase, variables, enter(batch.inputs, phase), key)
    return task.loss(logits, batch), new_stats

  differentiate = jax.value_and_grad(loss_of, has_aux=True)
  if phase.accumulate == 1:
    return differentiate(trainable, stats, batch, dropout_key)

  def part(carry: tuple[PyTree, PyTree], both: tuple[Batch, Array]) -> tuple[tuple[PyTree, PyTree], Array]:
    stats, grads = carry
    (loss, stats), more = differentiate(trainable, stats, both[0], jax.random.fold_in(dropout_key, both[1]))
    return (stats, jax.tree.map(jnp.add, grads, more)), loss

  parts = jax.tree.map(lambda leaf: leaf.reshape(phase.accumulate, -1, *leaf.shape[1:]), batch)
  zeros = jax.tree.map(jnp.zeros_like, trainable)
  (stats, grads), losses = jax.lax.scan(part, (stats, zeros), (parts, jnp.arange(phase.accumulate)))
  return (losses.mean(), stats), jax.tree.map(lambda leaf: leaf / phase.accumulate, grads)


def enter(inputs: PyTree, phase: Phase) -> PyTree:
  """What enters stage `phase.start`: images normalised; tokens and activations as they are."""
  return inputs if phase.start or isinstance(inputs, Mapping) else normalise(inputs, phase.mean, phase.std)


def forward(network: Network, phase: Phase, variables: Variables, x: PyTree, key: Array) -> tuple[PyTree, PyTree]:
  """(outputs, new stats) in training, from stage `phase.start` on."""
  options = {'train': True, 'frozen_norms': phase.frozen_norms}
  if not phase.remat:
    return network.apply(variables, x, start=phase.start, key=key, **options)

  def one(i: int, variables: Variables, x: PyTree, key: Array) -> tuple[PyTree, PyTree]:
    return network.apply(variables, x, start=i, stop=i + 1, key=key, **options)

  for i in range(phase.start, len(network.stages)):
    x, stats = _forgetful(functools.partial(one, i))(variables, x, key)
    variables = variables._replace(stats=stats)
  return x, variables.stats


def _forgetful(stage: Callable) -> Callable:
  """`stage(variables, x, key)`, which keeps its arguments for the gradient and computes the rest again (Chen et al. 2016).

  As jax.checkpoint, whose barrier XLA drops on CPU: it then computes everything again early, and nothing is saved. Here what is
  computed again depends on the incoming gradient by a sum with 0 times an entry of it.
  """
  def backward(saved: tuple, grads: PyTree) -> tuple:
    variables, x, key = saved
    now = 0 * jnp.ravel(jax.tree.leaves(grads[0])[0])[0].astype(jnp.float32)
    x = jax.tree.map(lambda leaf: leaf + now.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, x)
    _, pull_back = jax.vjp(lambda variables, x: stage(variables, x, key), variables, x)
    return (*pull_back(grads), None)

  forgetful = jax.custom_vjp(stage)
  forgetful.defvjp(lambda *arguments: (stage(*arguments), arguments), backward)
  return forgetful


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
