"""Frozen costs nothing: FLOPs and optimizer bytes of the compiled step.

It changes nothing but the cost.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlx.backbones import mlp
from tlx.inputs import image
from tlx.tasks import classification
from tlx.train import optim, step
from tlx.tree import count, label, merge, named_leaves, num_bytes
from tlx.types import Batch, Mixed, Variables

NETWORK = mlp.build(3, widths=(64, 64, 64))
TASK = classification.task(3)
FORM = image.form(4, 1)
HEAD = (('^head/', 'train'), ('.*', 'frozen'))
ALL = (('.*', 'train'),)
HYPER = step.Hyper(np.float32(0.1), np.float32(0.0), np.float32(10))
BATCH = Batch(
  np.random.default_rng(0).integers(0, 255, (32, 4, 4, 1)).astype(np.uint8),
  np.arange(32) % 3,
  np.ones(32, np.float32),
)


def phase_of(rules, **fields):
  return step.Phase(tuple(named_leaves(label(params(), rules))), (('train', 1.0),), **fields)


def params(seed=0):
  return NETWORK.init(jax.random.key(seed), np.zeros((1, 4, 4, 1), np.float32)).params


def one_step(phase, values):
  trainable, frozen = step.split(values, phase)
  state = step.init_state(trainable, {}, phase, HYPER)
  recipe = step.Recipe(NETWORK, FORM, TASK, phase)
  return (
    jax.jit(
      lambda state, frozen: step.train_step(recipe, state, frozen, BATCH, jax.random.key(0), HYPER)
    ),
    state,
    frozen,
  )


def flops(rules, **fields):
  function, state, frozen = one_step(phase_of(rules, **fields), params())
  return function.lower(state, frozen).compile().cost_analysis()['flops']


def test_head_only_step_costs_a_forward_pass_and_the_head():
  """Clipping and the logged norm are on: neither may bring the frozen gradients back."""
  forward = jax.jit(
    lambda values: NETWORK.apply(Variables(values, {}), BATCH.inputs / 255.0, train=False)[0]
  )
  forward_flops = forward.lower(params()).compile().cost_analysis()['flops']
  assert flops(HEAD, clip_norm=1.0) < 1.25 * forward_flops
  assert flops(ALL, clip_norm=1.0) > 2.4 * forward_flops


def test_head_only_optimizer_state_is_of_the_head():
  values = params()
  for rules, part in ((HEAD, values['head']), (ALL, values)):
    state = step.init_state(step.split(values, phase_of(rules))[0], {}, phase_of(rules), HYPER)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert num_bytes(moments) == 2 * 4 * count(part)
    assert num_bytes(state.opt_state) <= 2 * 4 * count(part) + 16  # and the counters


def test_partition_trains_as_set_to_zero_does():
  """The same head as `optax.multi_transform` with `set_to_zero` over the whole tree."""
  phase, values = phase_of(HEAD, clip_norm=1.0), params()
  function, state, frozen = one_step(phase, values)
  labels = label(values, HEAD)
  tx = optim.optimizer(
    'adam', {}, labels, {'train': 1.0}, lambda c: 0.1 * optim.schedule('cosine')(c, 10), 0.0, 1.0
  )

  def loss(values):
    logits, _ = NETWORK.apply(Variables(values, {}), FORM.enter(BATCH.inputs), train=True)
    total, weight = step.minimised(TASK, logits, BATCH)
    return total / weight

  whole, opt_state = values, tx.init(values)
  for _ in range(3):
    state, _ = function(state, frozen)
    updates, opt_state = tx.update(jax.grad(loss)(whole), opt_state, whole)
    whole = optax.apply_updates(whole, updates)
  for (name, a), (_, b) in zip(named_leaves(merge(state.trainable, frozen)), named_leaves(whole)):
    np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)


def test_a_run_that_is_not_finite_stays_where_it_was():
  phase, values = phase_of(ALL), params()
  function, state, frozen = one_step(phase, values)
  state, _ = function(state, frozen)
  broken = state._replace(
    trainable=jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(jnp.nan), state.trainable)
  )
  after, metrics = function(broken, frozen)
  assert not np.isfinite(metrics['loss']) and int(after.step) == 1
  for (name, a), (_, b) in zip(named_leaves(after), named_leaves(broken)):
    np.testing.assert_array_equal(a, b, err_msg=name)


def test_augmentation_depends_on_key_and_step_alone():
  batch = Batch(BATCH.inputs, jnp.asarray(BATCH.targets), BATCH.mask)
  options = {'crop': 1, 'shift': 1, 'flip': 0.5, 'mixup': 0.2}
  draw = lambda seed: image.augment(jax.random.key(seed), batch, options)
  same, again, other = draw(0), draw(0), draw(1)
  np.testing.assert_array_equal(same.inputs, again.inputs)
  assert np.any(same.inputs != other.inputs)
  assert same.inputs.shape == batch.inputs.shape
  assert isinstance(same.targets, Mixed) and np.all(
    (same.targets.share >= 0) & (same.targets.share <= 1)
  )


def test_augmentations_do_what_they_say():
  picture = jnp.arange(1, 17, dtype=jnp.float32).reshape(1, 4, 4, 1)
  batch = Batch(jnp.repeat(picture, 200, 0), jnp.zeros(200, jnp.int32), jnp.ones(200))
  flipped = image.augment(jax.random.key(0), batch, {'flip': 1.0}).inputs
  np.testing.assert_array_equal(flipped, batch.inputs[:, :, ::-1])
  shifted = np.asarray(image.augment(jax.random.key(0), batch, {'shift': 1}).inputs)
  padded = np.pad(picture[0, :, :, 0], 1)
  windows = {padded[i : i + 4, j : j + 4].tobytes() for i in range(3) for j in range(3)}
  assert {np.ascontiguousarray(i[:, :, 0]).tobytes() for i in shifted} == windows
  cropped = np.asarray(image.augment(jax.random.key(0), batch, {'crop': 1}).inputs)
  assert (
    cropped.min() >= 1 - 1e-4
    and cropped.max() <= 16 + 1e-4
    and len(np.unique(cropped.round(3), axis=0)) > 100
  )
  assert image.augment(jax.random.key(0), batch, {'flip': 0.0}) is batch


@pytest.mark.parametrize(
  'options, words', [({'flop': 1}, "Did you mean 'flip'"), ({'shift': -1}, 'at least 0')]
)
def test_bad_augmentations(options, words):
  with pytest.raises(ValueError, match=words):
    image.form(16, 1).check(options)


def test_accumulated_parts_and_remat_take_the_same_step():
  """Of SGD, which is as exact as the gradients.

  Adam's first step is of the learning rate's size however small a gradient is.
  """
  values, plain = params(), {'optimizer': 'sgd', 'schedule': 'constant'}
  whole, frozen = one_step(phase_of(ALL, **plain), values), step.split(values, phase_of(ALL))[1]
  want, metrics = whole[0](whole[1], frozen)
  for fields in ({'accumulate': 4}, {'remat': True}, {'accumulate': 2, 'remat': True}):
    function, state, _ = one_step(phase_of(ALL, **plain, **fields), values)
    got, found = function(state, frozen)
    np.testing.assert_allclose(found['loss'], metrics['loss'], rtol=1e-6)
    np.testing.assert_allclose(found['grad_norm'], metrics['grad_norm'], rtol=1e-5)
    for (name, a), (_, b) in zip(named_leaves(got.trainable), named_leaves(want.trainable)):
      np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7, err_msg=f'{fields} {name}')


def test_parts_of_a_batch_weigh_as_much_as_they_count():
  """Of 32 examples 9 are real, one in the last of four parts: the gradient is that of the 9."""
  values = params()
  real = np.r_[np.arange(8), 24]
  mask = np.zeros(32, np.float32)
  mask[real] = 1.0

  def loss_and_gradient(batch, **fields):
    recipe = step.Recipe(NETWORK, FORM, TASK, phase_of(ALL, **fields))
    nothing = jax.tree.map(lambda _: None, values)
    (loss, _), grads = step.gradient(recipe, values, nothing, {}, batch, jax.random.key(0))
    return loss, grads

  alone = Batch(BATCH.inputs[real], BATCH.targets[real], np.ones(9, np.float32))
  want, grads = loss_and_gradient(alone)
  for parts in (1, 4):
    got, others = loss_and_gradient(BATCH._replace(mask=mask), accumulate=parts)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    for (name, a), (_, b) in zip(named_leaves(others), named_leaves(grads)):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=name)


def test_mixtures_are_paid_for_in_their_shares():
  outputs = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
  mixed = Mixed(jnp.array([0, 1]), jnp.array([1, 0]), jnp.array([0.75, 0.5]))
  total, weight = step.minimised(TASK, outputs, Batch(None, mixed, jnp.array([1.0, 0.0])))
  assert float(total) == pytest.approx(-0.75 * np.log(0.5) - 0.25 * np.log(0.25), rel=1e-6)
  assert float(weight) == 1.0  # the second is padding


def test_remat_and_accumulation_need_less_memory():
  """Of the compiled step of a transformer, whose activations outweigh its parameters."""
  from tlx.backbones import vit

  network = vit.build(3, dim=16, depth=6, heads=2, patch=4, image_size=32)
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  )
  images = jax.ShapeDtypeStruct((64, 32, 32, 3), np.uint8)
  batch = Batch(
    images, jax.ShapeDtypeStruct((64,), np.int32), jax.ShapeDtypeStruct((64,), np.float32)
  )

  def temporary_bytes(**fields):
    phase = step.Phase(tuple(named_leaves(label(shapes.params, ALL))), (('train', 1.0),), **fields)
    recipe = step.Recipe(network, image.form(32, 3, (0.0,) * 3, (1.0,) * 3), TASK, phase)
    run = lambda params, batch: step.gradient(
      recipe, params, jax.tree.map(lambda _: None, params), {}, batch, jax.random.key(0)
    )
    return jax.jit(run).lower(shapes.params, batch).compile().memory_analysis().temp_size_in_bytes

  whole = temporary_bytes()
  assert temporary_bytes(remat=True) < 0.5 * whole
  assert temporary_bytes(accumulate=8) < 0.3 * whole
