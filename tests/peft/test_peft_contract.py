"""What every file of tlx/peft satisfies, on a small BERT and its head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlx import freezing, peft
from tlx.backbones import bert
from tlx.plug import available, plug
from tlx.train import step
from tlx.tree import is_added, label, map_named, merge, named_leaves, partition, sha256
from tlx.types import Variables

METHODS = available('peft')
OPTIONS = {'lora': {'rank': 2}}
pytestmark = pytest.mark.parametrize('method', METHODS)
SIZES, INPUTS = bert.tiny()
BASE = bert.build(**SIZES)
TARGETS = np.array([0, 1, 2])


def added(method) -> peft.Added:
  return plug('peft', method).added(**OPTIONS.get(method, {}))


@functools.cache
def wrapped(method):
  """(the network with added leaves, its variables at the start)."""
  network = peft.wrap(BASE, added(method))
  return network, network.init(jax.random.key(0), INPUTS)


@functools.cache
def base() -> Variables:
  return BASE.init(jax.random.key(0), INPUTS)


def moved(method, seed=0) -> Variables:
  """The variables with noise on every added leaf."""
  random = np.random.default_rng(seed)

  def noisy(name, leaf):
    noise = 0.3 * random.normal(size=leaf.shape).astype(leaf.dtype)
    return leaf + noise if is_added(name) else leaf

  variables = wrapped(method)[1]
  return variables._replace(params=map_named(noisy, variables.params))


def outputs(network, variables, x=INPUTS, **options):
  return network.apply(variables, x, train=False, **options)[0]


def loss_of(network, variables, train=True, key=None):
  logits, _ = network.apply(variables, INPUTS, train=train, key=key)
  return optax.softmax_cross_entropy_with_integer_labels(logits, TARGETS).mean()


def trained_and_frozen(params):
  """What is trained beside the frozen source: the added leaves and the head."""
  groups = freezing.groups(BASE.stages, params)
  return partition(params, label(params, plug('freezing', 'added').rules(groups)))


def test_leaves_stand_under_the_stage_they_serve(method):
  network, variables = wrapped(method)
  assert network.stages == BASE.stages
  names = {name for name, _ in named_leaves(variables.params)}
  own = {name for name in names if is_added(name)}
  assert names - own == {name for name, _ in named_leaves(base().params)}
  assert own and all(name.split('/')[1:3] == ['added', method] for name in own)
  others, _ = peft.split(variables.params, method)
  assert sha256(peft.tree_of(others)) == sha256(base().params)


@pytest.mark.parametrize('train', [False, True])
def test_output_is_the_base_networks_at_the_start(method, train):
  network, variables = wrapped(method)
  compiled = [jax.jit(functools.partial(one.apply, train=train)) for one in (network, BASE)]
  found, want = compiled[0](variables, INPUTS)[0], compiled[1](base(), INPUTS)[0]
  np.testing.assert_array_equal(found, want)


def test_three_steps_move_what_was_added_and_nothing_else(method):
  network, variables = wrapped(method)
  trainable, frozen = trained_and_frozen(variables.params)
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01, weight_decay=0.1))

  @jax.jit
  def advance(trainable, state):
    gradient = jax.grad(lambda t: loss_of(network, Variables(merge(t, frozen), {})))(trainable)
    updates, state = tx.update(gradient, state, trainable)
    return optax.apply_updates(trainable, updates), state

  before, state = trainable, tx.init(trainable)
  for _ in range(3):
    trainable, state = advance(trainable, state)
  after = dict(named_leaves(merge(trainable, frozen)))
  for name, leaf in named_leaves(merge(before, frozen)):
    same = np.array_equal(leaf, after[name])
    assert same != (is_added(name) or name.startswith('head/')), name


def test_gradients_have_the_shapes_of_what_is_trained(method):
  network, variables = wrapped(method)
  trainable, frozen = trained_and_frozen(variables.params)
  loss = lambda t: loss_of(network, Variables(merge(t, frozen), {}))
  gradient = jax.eval_shape(jax.grad(loss), trainable)
  names = {name for name, _ in named_leaves(gradient)}
  assert names == {name for name, _ in named_leaves(trainable)}
  assert all(is_added(name) or name.startswith('head/') for name in names)


def test_merged_parameters_give_the_same_output(method):
  network, variables = wrapped(method)[0], moved(method)
  merged = variables._replace(params=added(method).merge(variables.params))
  assert jax.tree.structure(merged) == jax.tree.structure(base())
  want = outputs(network, variables)
  assert np.abs(want - outputs(BASE, base())).max() > 1e-3
  np.testing.assert_allclose(outputs(BASE, merged), want, atol=1e-6)


def test_slices_of_stages(method):
  network, variables = wrapped(method)[0], moved(method)
  whole = outputs(network, variables)
  for k in range(len(network.stages) + 1):
    between = outputs(network, variables, stop=k)
    np.testing.assert_allclose(outputs(network, variables, between, start=k), whole, atol=1e-6)


def test_vmap_and_map_over_runs(method):
  network = wrapped(method)[0]
  runs = [trained_and_frozen(moved(method, seed).params) for seed in range(3)]
  frozen = runs[0][1]
  logits = lambda trained: outputs(network, Variables(merge(trained, frozen), {}))
  one_by_one = [np.asarray(logits(trained)) for trained, _ in runs]
  assert np.abs(one_by_one[0] - one_by_one[1]).max() > 1e-3
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(trained for trained, _ in runs))
  side_by_side = jax.jit(jax.vmap(logits))(stacked)
  in_turn = jax.jit(lambda trained: jax.lax.map(logits, trained))(stacked)
  np.testing.assert_allclose(side_by_side, one_by_one, atol=1e-5)
  np.testing.assert_allclose(in_turn, one_by_one, atol=1e-5)


def test_activations_computed_again_give_the_same_gradient(method):
  network, variables = wrapped(method)[0], moved(method)
  trainable, frozen = trained_and_frozen(variables.params)

  def gradient(remat):
    phase = step.Phase(labels=(), rates=(), remat=remat)

    def loss(trainable):
      whole = Variables(merge(trainable, frozen), {})
      logits, _ = step.forward(network, phase, whole, INPUTS, jax.random.key(0))
      return optax.softmax_cross_entropy_with_integer_labels(logits, TARGETS).mean()

    return jax.jit(jax.grad(loss))(trainable)

  for kept, again in zip(*map(jax.tree.leaves, (gradient(False), gradient(True))), strict=True):
    np.testing.assert_allclose(again, kept, atol=1e-6)


def test_compiled_stages_keep_to_their_own_network(method):
  """Run before and after, the base network gives what it gives; in between the leaves count."""
  network, variables = wrapped(method)[0], moved(method)
  before = outputs(BASE, base())
  edited = outputs(network, variables)
  np.testing.assert_array_equal(outputs(BASE, base()), before)
  assert np.abs(edited - before).max() > 1e-3
  np.testing.assert_array_equal(outputs(network, variables), edited)


def test_bfloat16_stays_bfloat16(method):
  half = bert.build(**SIZES, dtype='bfloat16')
  network, variables = peft.wrap(half, added(method)), wrapped(method)[1]
  for stop in (2, None):
    found, want = (outputs(n, v, stop=stop) for n, v in ((network, variables), (half, base())))
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, want)
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_a_second_time_is_refused(method):
  twice = peft.wrap(wrapped(method)[0], added(method))
  with pytest.raises(ValueError, match=f"'{method}' were added already"):
    jax.eval_shape(twice.init, jax.random.key(0), INPUTS)


def test_the_network_alone_does_not_leave_leaves_out(method):
  with pytest.raises(ValueError, match=f'added leaves {method}, and this network has no edit'):
    outputs(BASE, wrapped(method)[1])
