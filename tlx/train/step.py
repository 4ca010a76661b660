"""The training step: pure, and blind to what is frozen."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tlx.freezing import Watch
from tlx.penalties import Model, Seen
from tlx.train import anchor as anchors
from tlx.train import optim
from tlx.train.anchor import Anchor, Reference
from tlx.tree import map_named, merge, named_leaves, partition
from tlx.types import (
  Array,
  Batch,
  Form,
  Mixed,
  Network,
  PyTree,
  RunState,
  Task,
  Variables,
  Weighed,
  num_logits,
)


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
  # Decay of the moving average of the weights, which then are what counts; 0: none.
  ema: float = 0.0
  # Radius rho of sharpness-aware minimisation; 0: the gradient where the weights are.
  sam: float = 0.0
  watch: Watch | None = None  # what the freezing policy makes of gradients
  anchor: Anchor | None = None  # what holds the run back to its source


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
  depth: PyTree = 0.0  # groups that a run's examples speak for freezing (freezing/advised.py)


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
    given = (params, hyper.depth) if watch.by_depth else (params,)
    return Watched(tx.init(params), watch.init(*given))

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


class Held(NamedTuple):
  """What the penalty of a phase needs beside the run: what runs share, and what is the run's own.

  `known` is what `Penalty.conclude` made; both are None where nothing is needed.
  """

  reference: Reference | None = None
  known: PyTree = None


NOTHING = Held()


class Aside(NamedTuple):
  """What comes of a batch beside the loss: new statistics, and the penalty that is in the loss."""

  stats: PyTree
  penalty: Array


def gradient(
  recipe: Recipe,
  trainable: PyTree,
  frozen: PyTree,
  stats: PyTree,
  batch: Batch,
  key: Array,
  held: Held = NOTHING,
) -> tuple[tuple[Array, Aside], PyTree]:
  """((loss, what comes beside it), gradients of the trainable leaves) on a batch.

  Of examples as stored, or of activations. The loss is the weighted mean over the whole batch, plus
  the penalty. With `accumulate`, batch statistics see one part after another, and a penalty that
  looks at examples is the mean over the parts, by their weights in the loss.
  """
  phase = recipe.phase
  augment_key, dropout_key = jax.random.split(key)
  penalty_key = jax.random.fold_in(key, 2)
  if not phase.start:
    batch = recipe.form.augment(augment_key, batch, dict(phase.augment))
  batch_size = len(batch.mask)

  def total_of(
    trainable: PyTree, stats: PyTree, batch: Batch, key: Array
  ) -> tuple[Array, tuple[Array, Aside]]:
    x = enter(recipe, batch.inputs)
    used = _replaced(phase, trainable, penalty_key, held)
    variables = Variables(merge(used, frozen), stats)
    stages, outputs, new_stats = forward(recipe.network, phase, variables, x, key)
    total, weight = minimised(recipe.task, outputs, batch)
    if phase.anchor is None or phase.anchor.penalty.value is None:
      return total, (weight, Aside(new_stats, jnp.zeros(())))
    seen = see(recipe, trainable, frozen, stages, x, _unweighed(batch), held)
    penalty = weight * phase.anchor.penalty.value(seen._replace(batch_size=batch_size))
    return total + penalty, (weight, Aside(new_stats, penalty))

  def mean_of(*arguments: PyTree) -> tuple[Array, Aside]:
    total, (weight, aside) = total_of(*arguments)
    divisor = _divisor(weight)
    return total / divisor, aside._replace(penalty=aside.penalty / divisor)

  if phase.accumulate == 1:
    return jax.value_and_grad(mean_of, has_aux=True)(trainable, stats, batch, dropout_key)

  def part(carry: tuple[PyTree, ...], both: tuple[Batch, Array]) -> tuple[tuple[PyTree, ...], None]:
    stats, *sums = carry
    batch, number = both
    differentiate = jax.value_and_grad(total_of, has_aux=True)
    (total, (weight, aside)), grads = differentiate(
      trainable, stats, batch, jax.random.fold_in(dropout_key, number)
    )
    more = [total, weight, aside.penalty, grads]
    return (aside.stats, *jax.tree.map(jnp.add, sums, more)), None

  parts = jax.tree.map(lambda leaf: leaf.reshape(phase.accumulate, -1, *leaf.shape[1:]), batch)
  zero = jnp.zeros(())
  begin = stats, zero, zero, zero, jax.tree.map(jnp.zeros_like, trainable)
  (stats, total, weight, penalty, grads), _ = jax.lax.scan(
    part, begin, (parts, jnp.arange(phase.accumulate))
  )
  divisor = _divisor(weight)
  aside = Aside(stats, penalty / divisor)
  return (total / divisor, aside), jax.tree.map(lambda leaf: leaf / divisor, grads)


def _replaced(phase: Phase, trainable: PyTree, key: Array, held: Held) -> PyTree:
  """The trained leaves that the network runs with in training."""
  if not phase.anchor or not phase.anchor.penalty.replace or held.reference is None:
    return trainable
  return phase.anchor.penalty.replace(key, trainable, _source_of(trainable, held.reference))


def _source_of(trainable: PyTree, reference: Reference) -> PyTree:
  """The source's values of the trained leaves that it brings, None elsewhere."""
  return jax.tree.map(
    lambda new, old: None if new is None else old,
    trainable,
    reference.params,
    is_leaf=lambda leaf: leaf is None,
  )


def see(
  recipe: Recipe,
  trainable: PyTree,
  frozen: PyTree,
  stages: Mapping[str, PyTree],
  x: PyTree,
  batch: Batch,
  held: Held,
) -> Seen:
  """A run and its source on a batch; `x` entered stage `phase.start`, `stages` came out."""
  anchor, reference = recipe.phase.anchor, held.reference
  assert anchor is not None and reference is not None
  theirs: dict[str, PyTree] = {}
  if 'source' in anchor.penalty.reads:
    theirs = anchors.source_stages(anchor, recipe.phase.start, reference, frozen, x)
  return Seen(
    trainable,
    _source_of(trainable, reference),
    dict(stages),
    theirs,
    functools.partial(anchors.logits, reference),
    batch,
    num_classes=num_logits(recipe.task),
    batch_size=len(batch.mask),
    known=held.known,
  )


def observe_one(
  recipe: Recipe,
  trainable: PyTree,
  frozen: PyTree,
  stats: PyTree,
  example: Batch,
  reference: Reference | None,
) -> PyTree:
  """What the phase's penalty observes of one example [1, ...] before the first step.

  Networks are in evaluation there, and nothing is augmented.
  """
  network, start = recipe.network, recipe.phase.start

  def through(trainable: PyTree, x: PyTree, first: int) -> dict[str, PyTree]:
    variables = Variables(merge(trainable, frozen), stats)
    found = {}
    for i in range(first, len(network.stages)):
      x, _ = network.apply(variables, x, train=False, start=i, stop=i + 1)
      found[network.stages[i]] = x
    return found

  def loss_of(found: Mapping[str, PyTree], batch: Batch) -> Array:
    return minimised(recipe.task, found[network.stages[-1]], batch)[0]

  def loss(trainable: PyTree, batch: Batch) -> Array:
    return loss_of(through(trainable, enter(recipe, batch.inputs), start), batch)

  def rest(stage: str, x: PyTree, batch: Batch) -> Array:
    return loss_of(through(trainable, x, network.stages.index(stage) + 1), batch)

  def seen_on(batch: Batch) -> Seen:
    x = enter(recipe, batch.inputs)
    stages = through(trainable, x, start)
    stages.pop(network.stages[-1])
    return see(recipe, trainable, frozen, stages, x, _unweighed(batch), Held(reference))

  anchor = recipe.phase.anchor
  assert anchor is not None and anchor.penalty.observe is not None and reference is not None
  source = _source_of(trainable, reference)
  return anchor.penalty.observe(Model(trainable, source, loss, rest, seen_on), example)


def minimised(task: Task, outputs: PyTree, batch: Batch) -> tuple[Array, Array]:
  """(sum of value x weight, sum of weight) of the term 'loss'.

  Of mixtures, those of both targets in their shares.
  """
  if not isinstance(batch.targets, Mixed):
    value, weight = _loss(task, outputs, batch)
    return jnp.sum(value * weight), jnp.sum(weight)
  total = weights = jnp.zeros(())
  for targets, share in (
    (batch.targets.first, batch.targets.share),
    (batch.targets.second, 1 - batch.targets.share),
  ):
    value, weight = _loss(task, outputs, batch._replace(targets=targets))
    weight *= share.reshape(-1, *(1,) * (weight.ndim - 1))
    total += jnp.sum(value * weight)
    weights += jnp.sum(weight)
  return total, weights


def _loss(task: Task, outputs: PyTree, batch: Batch) -> tuple[Array, Array]:
  """(value, weight) [B] of the term 'loss', with the weights of the examples."""
  if not isinstance(batch.targets, Weighed):
    return task.terms(outputs, batch)['loss']
  value, weight = task.terms(outputs, batch._replace(targets=batch.targets.targets))['loss']
  return value, weight * batch.targets.weight


def _unweighed(batch: Batch) -> Batch:
  """The batch as penalties see it, whose targets have no weights."""

  def plain(targets: PyTree) -> PyTree:
    return targets.targets if isinstance(targets, Weighed) else targets

  targets = batch.targets
  if isinstance(targets, Mixed):
    mixed = targets._replace(first=plain(targets.first), second=plain(targets.second))
    return batch._replace(targets=mixed)
  return batch._replace(targets=plain(targets))


def _divisor(weight: Array) -> Array:
  """A sum of weights to divide a sum by, which is 0 where nothing counts."""
  return jnp.maximum(weight, 1e-12)


def enter(recipe: Recipe, inputs: PyTree) -> PyTree:
  """What enters stage `phase.start`: what the form makes of examples; activations as they are."""
  return inputs if recipe.phase.start else recipe.form.enter(inputs)


def forward(
  network: Network, phase: Phase, variables: Variables, x: PyTree, key: Array
) -> tuple[dict[str, PyTree], PyTree, PyTree]:
  """({stage: what comes out of it}, outputs, new stats) in training, from stage `phase.start` on.

  The stages are those before the head, none where no penalty reads them.
  """
  options: dict[str, Any] = {'train': True, 'frozen_norms': phase.frozen_norms}
  penalty = phase.anchor.penalty if phase.anchor else None
  if penalty and penalty.edit:
    options['edits'] = (penalty.edit(network.stages),)
  reads = penalty is not None and 'features' in penalty.reads
  stop = len(network.stages) - phase.headless
  if not phase.remat and not reads:
    options |= {'start': phase.start, 'stop': stop, 'key': key}
    return {}, *network.apply(variables, x, **options)

  def one(i: int, variables: Variables, x: PyTree, key: Array) -> tuple[PyTree, PyTree]:
    return network.apply(variables, x, start=i, stop=i + 1, key=key, **options)

  found = {}
  for i in range(phase.start, stop):
    stage = functools.partial(one, i)
    x, stats = (_forgetful(stage) if phase.remat else stage)(variables, x, key)
    variables = variables._replace(stats=stats)
    if reads:
      found[network.stages[i]] = x
  found.pop(network.stages[-1], None)
  return found, x, variables.stats


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
  recipe: Recipe,
  state: RunState,
  frozen: PyTree,
  batch: Batch,
  key: Array,
  hyper: Hyper,
  held: Held = NOTHING,
) -> tuple[RunState, dict[str, Array]]:
  """(next state, metrics): 'loss', the penalty within it, 'grad_norm', and 'penalty' where there is
  one.

  Gradients, norms and optimizer state exist for the trainable leaves only. Where the loss or the
  gradient is not finite the state stays as it is, its step too.
  """
  key = jax.random.fold_in(key, state.step)
  phase = recipe.phase
  (loss, aside), grads = gradient(recipe, state.trainable, frozen, state.stats, batch, key, held)
  if phase.sam:  # the same examples, augmented alike; loss and statistics are of the weights kept
    higher = optim.ascended(state.trainable, grads, phase.sam)
    _, grads = gradient(recipe, higher, frozen, state.stats, batch, key, held)
  grad_norm = optax.tree.norm(grads)
  tx = make_optimizer(state.trainable, phase, hyper)
  updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
  trained = Variables(optax.apply_updates(state.trainable, updates), aside.stats)
  average = state.average and optim.moved_average(state.average, trained, phase.ema, state.step)
  if average and phase.watch and phase.watch.clears:  # nor is what was there in the average
    average = average._replace(params=_cleared(average.params, opt_state.watch.factors))
  proposed = RunState(state.step + 1, *trained, opt_state, average)
  finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposed, state)
  found = {'loss': loss, 'grad_norm': grad_norm, 'penalty': aside.penalty}
  return state, {name: found[name] for name in metrics(recipe.phase)}


def _cleared(params: PyTree, factors: PyTree) -> PyTree:
  """0 where the factor of a policy is."""
  return jax.tree.map(
    lambda leaf, factor: jnp.where(factor > 0, leaf, jnp.zeros_like(leaf)), params, factors
  )


def metrics(phase: Phase) -> tuple[str, ...]:
  """The names of what a step of the phase tells."""
  adds = phase.anchor is not None and phase.anchor.penalty.value is not None
  return ('loss', 'grad_norm', *(('penalty',) if adds else ()))
