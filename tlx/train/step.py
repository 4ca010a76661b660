"""The training step: pure, and blind to what is frozen."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tlx.freezing import Watch
from tlx.train import optim
from tlx.tree import map_named, merge, named_leaves, partition
from tlx.types import Array, Batch, Form, Mixed, Network, PyTree, RunState, Task, Variables


class Phase(NamedTuple):
  """All of a phase that shapes its program; hashable, so equal phases share one.

  What differs between runs is in Hyper.
  """

  labels: tuple[tuple[str, str], ...]  # (parameter name, group)
  rates: tuple[tuple[str, float], ...]  # (group, multiple of the learning rate)
  frozen_norms: frozenset[str] = frozenset()
  optimizer: str = 'adam'
  optimizer_options: tuple[tuple[str, float], ...] = ()
  schedule: str = 'cosine'
  schedule_options: tuple[tuple[str, Any], ...] = ()
  warmup: float = 0.0
  clip_norm: float = 0.0
  augment: tuple[tuple[str, float], ...] = ()
  # The inputs are what enters this stage: those before it ran once for every example (prefix.py).
  start: int = 0
  # Of each example there are so many augmented views among the inputs; 0: augmented at every step.
  views: int = 0
  solver: str = 'sgd'  # or an exact solution of the head (exact.py): 'logistic' | 'ridge'
  remat: bool = False  # activations inside stages are computed again for the gradient, not kept
  headless: bool = False  # outputs are what enters the head
  accumulate: int = 1  # the batch goes through in so many parts, one after another
  ema: float = (
    0.0  # decay of the moving average of the weights, which then are what counts; 0: none
  )
  sam: float = (
    0.0  # radius rho of sharpness-aware minimisation; 0: the gradient where the weights are
  )
  watch: Watch | None = None  # what the freezing policy makes of gradients


class Recipe(NamedTuple):
  """All that shapes a program: hashable, so equal recipes share one."""

  network: Network
  form: Form
  task: Task
  phase: Phase


class Hyper(NamedTuple):
  """What differs between the runs of one program: scalars, or one a run [R]; or their shapes."""

  learning_rate: PyTree
  weight_decay: PyTree
  num_steps: PyTree


def split(params: PyTree, phase: Phase) -> tuple[PyTree, PyTree]:
  """(trainable, frozen) leaves of `params` in this phase."""
  return partition(params, _labels(params, phase))


def _labels(params: PyTree, phase: Phase) -> PyTree:
  groups = dict(phase.labels)
  return map_named(lambda name, _: groups[name], params)


class Watched(NamedTuple):
  """The state of an optimizer, and that of a policy which looks at gradients."""

  inner: PyTree
  watch: PyTree


def make_optimizer(trainable: PyTree, phase: Phase, hyper: Hyper) -> optax.GradientTransformation:
  """The optimizer of a phase for its trainable leaves."""
  factor = optim.schedule(phase.schedule, phase.warmup, dict(phase.schedule_options))
  rate = lambda count: hyper.learning_rate * factor(count, hyper.num_steps)
  tx = optim.optimizer(
    phase.optimizer,
    dict(phase.optimizer_options),
    _labels(trainable, phase),
    dict(phase.rates),
    rate,
    hyper.weight_decay,
    phase.clip_norm,
  )
  return tx if phase.watch is None else _watched(tx, phase.watch, hyper)


def _watched(
  tx: optax.GradientTransformation, watch: Watch, hyper: Hyper
) -> optax.GradientTransformation:
  """The optimizer with its updates times the factors of a policy that looks at gradients."""

  def init(params: PyTree) -> Watched:
    return Watched(tx.init(params), watch.init(params))

  def update(grads: PyTree, state: Watched, params: PyTree = None) -> tuple[PyTree, Watched]:
    updates, inner = tx.update(grads, state.inner, params)
    seen = watch.update(state.watch, grads, params, hyper.num_steps)

    def scaled(update: Array, leaf: Array, factor: Array) -> Array:
      instead = -leaf if watch.clears else jnp.zeros_like(leaf)
      return jnp.where(factor > 0, factor * update, instead)

    return jax.tree.map(scaled, updates, params, seen.factors), Watched(inner, seen)

  return optax.GradientTransformation(init, update)


def watched(state: RunState) -> dict[str, tuple[Array, Array]]:
  """{leaf: (the mean of its factors, the share of them that is not 0)} of a watched phase."""
  factors = named_leaves(state.opt_state.watch.factors)
  return {name: (jnp.mean(leaf), jnp.mean(leaf > 0)) for name, leaf in factors}


def init_state(trainable: PyTree, stats: PyTree, phase: Phase, hyper: Hyper) -> RunState:
  """The state before a phase's first step."""
  return RunState(
    jnp.zeros((), jnp.int32),
    trainable,
    stats,
    make_optimizer(trainable, phase, hyper).init(trainable),
    jax.tree.map(jnp.copy, Variables(trainable, stats)) if phase.ema else (),
  )


def evaluated(state: RunState) -> Variables:
  """The trained leaves and statistics that count: their average, where there is one."""
  return state.average or Variables(state.trainable, state.stats)


def gradient(
  recipe: Recipe, trainable: PyTree, frozen: PyTree, stats: PyTree, batch: Batch, key: Array
) -> tuple[tuple[Array, PyTree], PyTree]:
  """((loss, new stats), gradients of the trainable leaves) on a batch.

  Of examples as stored, or of activations. The loss is the weighted mean over the whole batch. With
  `accumulate`, batch statistics see one part after another.
  """
  phase = recipe.phase
  augment_key, dropout_key = jax.random.split(key)
  if not phase.start:
    batch = recipe.form.augment(augment_key, batch, dict(phase.augment))

  def total_of(
    trainable: PyTree, stats: PyTree, batch: Batch, key: Array
  ) -> tuple[Array, tuple[Array, PyTree]]:
    variables = Variables(merge(trainable, frozen), stats)
    outputs, new_stats = forward(recipe.network, phase, variables, enter(recipe, batch.inputs), key)
    total, weight = minimised(recipe.task, outputs, batch)
    return total, (weight, new_stats)

  def mean_of(*arguments: PyTree) -> tuple[Array, PyTree]:
    total, (weight, new_stats) = total_of(*arguments)
    return total / _divisor(weight), new_stats

  if phase.accumulate == 1:
    return jax.value_and_grad(mean_of, has_aux=True)(trainable, stats, batch, dropout_key)

  def part(carry: tuple[PyTree, ...], both: tuple[Batch, Array]) -> tuple[tuple[PyTree, ...], None]:
    stats, *sums = carry
    batch, number = both
    differentiate = jax.value_and_grad(total_of, has_aux=True)
    (total, (weight, stats)), grads = differentiate(
      trainable, stats, batch, jax.random.fold_in(dropout_key, number)
    )
    return (stats, *jax.tree.map(jnp.add, sums, [total, weight, grads])), None

  parts = jax.tree.map(lambda leaf: leaf.reshape(phase.accumulate, -1, *leaf.shape[1:]), batch)
  zero = jnp.zeros(())
  begin = stats, zero, zero, jax.tree.map(jnp.zeros_like, trainable)
  (stats, total, weight, grads), _ = jax.lax.scan(
    part, begin, (parts, jnp.arange(phase.accumulate))
  )
  divisor = _divisor(weight)
  return (total / divisor, stats), jax.tree.map(lambda leaf: leaf / divisor, grads)


def minimised(task: Task, outputs: PyTree, batch: Batch) -> tuple[Array, Array]:
  """(sum of value x weight, sum of weight) of the term 'loss'.

  Of mixtures, those of both targets in their shares.
  """
  if not isinstance(batch.targets, Mixed):
    value, weight = task.terms(outputs, batch)['loss']
    return jnp.sum(value * weight), jnp.sum(weight)
  total = weights = jnp.zeros(())
  for targets, share in (
    (batch.targets.first, batch.targets.share),
    (batch.targets.second, 1 - batch.targets.share),
  ):
    value, weight = task.terms(outputs, batch._replace(targets=targets))['loss']
    weight *= share.reshape(-1, *(1,) * (weight.ndim - 1))
    total += jnp.sum(value * weight)
    weights += jnp.sum(weight)
  return total, weights


def _divisor(weight: Array) -> Array:
  """A sum of weights to divide a sum by, which is 0 where nothing counts."""
  return jnp.maximum(weight, 1e-12)


def enter(recipe: Recipe, inputs: PyTree) -> PyTree:
  """What enters stage `phase.start`: what the form makes of examples; activations as they are."""
  return inputs if recipe.phase.start else recipe.form.enter(inputs)


def forward(
  network: Network, phase: Phase, variables: Variables, x: PyTree, key: Array
) -> tuple[PyTree, PyTree]:
  """(outputs, new stats) in training, from stage `phase.start` on."""
  options = {'train': True, 'frozen_norms': phase.frozen_norms}
  if not phase.remat:
    stop = len(network.stages) - phase.headless
    return network.apply(variables, x, start=phase.start, stop=stop, key=key, **options)

  def one(i: int, variables: Variables, x: PyTree, key: Array) -> tuple[PyTree, PyTree]:
    return network.apply(variables, x, start=i, stop=i + 1, key=key, **options)

  for i in range(phase.start, len(network.stages) - phase.headless):
    x, stats = _forgetful(functools.partial(one, i))(variables, x, key)
    variables = variables._replace(stats=stats)
  return x, variables.stats


def _forgetful(stage: Callable) -> Callable:
  """`stage(variables, x, key)`, which keeps its arguments for the gradient, not what it computes.

  That is computed again (Chen et al. 2016), as by jax.checkpoint, whose barrier XLA drops on CPU:
  it then computes everything again early, and nothing is saved. Here what is computed again depends
  on the incoming gradient by a sum with 0 times an entry of it.
  """

  def backward(saved: tuple, grads: PyTree) -> tuple:
    variables, x, key = saved
    now = 0 * jnp.ravel(jax.tree.leaves(grads[0])[0])[0].astype(jnp.float32)
    x = jax.tree.map(
      lambda leaf: (
        leaf + now.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
      ),
      x,
    )
    _, pull_back = jax.vjp(lambda variables, x: stage(variables, x, key), variables, x)
    return (*pull_back(grads), None)

  forgetful = jax.custom_vjp(stage)
  forgetful.defvjp(lambda *arguments: (stage(*arguments), arguments), backward)
  return forgetful


def train_step(
  recipe: Recipe, state: RunState, frozen: PyTree, batch: Batch, key: Array, hyper: Hyper
) -> tuple[RunState, dict[str, Array]]:
  """(next state, {'loss', 'grad_norm'}).

  Gradients, norms and optimizer state exist for the trainable leaves only. Where the loss or the
  gradient is not finite the state stays as it is, its step too.
  """
  key = jax.random.fold_in(key, state.step)
  phase = recipe.phase
  (loss, stats), grads = gradient(recipe, state.trainable, frozen, state.stats, batch, key)
  if phase.sam:  # the same examples, augmented alike; loss and statistics are of the weights kept
    higher = optim.ascended(state.trainable, grads, phase.sam)
    _, grads = gradient(recipe, higher, frozen, state.stats, batch, key)
  grad_norm = optax.tree.norm(grads)
  tx = make_optimizer(state.trainable, phase, hyper)
  updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
  trained = Variables(optax.apply_updates(state.trainable, updates), stats)
  average = state.average and optim.moved_average(state.average, trained, phase.ema, state.step)
  proposed = RunState(state.step + 1, *trained, opt_state, average)
  finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposed, state)
  return state, {'loss': loss, 'grad_norm': grad_norm}
