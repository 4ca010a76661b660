"""What every file of tlx/peft satisfies, on a small BERT and on a small convolutional network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlx import freezing, peft
from tlx.backbones import bert, cnn
from tlx.plug import available, plug
from tlx.train import step
from tlx.tree import FIXED, is_added, label, map_named, merge, named_leaves, partition, sha256
from tlx.types import Variables

MODULES = {'bert': bert, 'cnn': cnn}
SIZES = {
  'bert': {**bert.tiny()[0], 'depth': 1},
  'cnn': {**cnn.tiny()[0], 'channels': (6,)},
}
INPUTS = {name: module.tiny()[1] for name, module in MODULES.items()}
BASES = {name: module.build(**SIZES[name]) for name, module in MODULES.items()}
TARGETS = {'bert': np.array([0, 1, 2]), 'cnn': np.array([0, 1, 2, 0])}
CONV = r'conv$|linear$'
# Options for each network; None where the method is not for it (the error stands in REFUSED).
OPTIONS = {
  'lora': {
    'bert': {'rank': 2, 'dora': True, 'bias': True, 'init': 'pissa'},
    'cnn': {'at': CONV, 'rank': 2, 'alpha_pattern': (('block1/', 5.0),)},
  },
  'adapter': {'bert': {'size': 3}, 'cnn': {'at': CONV, 'size': 3}},
  'ia3': {'cnn': {'at': CONV, 'inputs': 'fc/'}},
  'loha': {'bert': {'rank': 2}, 'cnn': {'at': CONV, 'rank': 2}},
  'lokr': {'bert': {'rank': 1}, 'cnn': {'at': CONV, 'rank': 1}},
  'oft': {'bert': {'block': 4}, 'cnn': {'at': 'linear$', 'block': 8}},
  'vera': {'bert': {'rank': 4}, 'cnn': {'at': 'linear$', 'rank': 2}},
  'intrinsic': {'bert': {'size': 50}, 'cnn': {'size': 20}},
  'prefix': {'bert': {'tokens': 2}, 'cnn': None},
  'prompt': {'bert': {'tokens': 2}, 'cnn': None},
}
REFUSED = {
  'prefix': 'wants the blocks of a text backbone',
  'prompt': 'wants the blocks of a transformer',
}
# Tokens beside those of the input change what attention gives, whatever they are.
STARTS_ELSEWHERE = ('prefix', 'prompt')
CASES = [
  (method, name)
  for method in available('peft')
  for name in BASES
  if OPTIONS.get(method, {}).get(name, {}) is not None
]
# One method for each way of the seam: layers' calls, parameters, stages' calls.
WAYS = ('lora', 'loha', 'prompt')
every_case = pytest.mark.parametrize('method, name', CASES, ids=map('-'.join, CASES))


def added(method, name) -> peft.Added:
  return plug('peft', method).added(**OPTIONS.get(method, {}).get(name, {}))


@functools.cache
def wrapped(method, name):
  """(the network with added leaves, its variables at the start)."""
  method, source = added(method, name), base(name)
  params = peft.add(source.params, method, jax.random.key(0))
  return peft.wrap(BASES[name], method), source._replace(params=params)


@functools.cache
def base(name) -> Variables:
  """Kernels are large, so that what is added to one changes the output by more than rounding."""
  variables = jax.jit(BASES[name].init)(jax.random.key(0), INPUTS[name])
  if name == 'bert':
    larger = lambda path, leaf: 8 * leaf if path.endswith('kernel') else leaf
    variables = variables._replace(params=map_named(larger, variables.params))
  return variables


def moved(method, name, seed=0) -> Variables:
  """The variables with noise on every added leaf."""
  random = np.random.default_rng(seed)

  def noisy(path, leaf):
    noise = 0.3 * random.normal(size=leaf.shape).astype(leaf.dtype)
    return leaf + noise if is_added(path) else leaf

  variables = wrapped(method, name)[1]
  return variables._replace(params=map_named(noisy, variables.params))


def outputs(network, variables, x, **options):
  return network.apply(variables, x, train=False, **options)[0]


def loss_of(network, variables, name):
  logits, _ = network.apply(variables, INPUTS[name], train=True)
  return optax.softmax_cross_entropy_with_integer_labels(logits, TARGETS[name]).mean()


def is_trained(path) -> bool:
  return path.startswith('head/') or (is_added(path) and FIXED not in path.split('/'))


def trained_and_frozen(params, stages):
  """What is trained beside the frozen source: the added leaves and the head."""
  groups = freezing.groups(stages, params)
  return partition(params, label(params, plug('freezing', 'added').rules(groups)))


@every_case
def test_leaves_stand_under_the_stage_they_serve(method, name):
  network, variables = wrapped(method, name)
  assert network.stages == BASES[name].stages
  names = {path for path, _ in named_leaves(variables.params)}
  own = {path for path in names if is_added(path)}
  assert names - own == {path for path, _ in named_leaves(base(name).params)}
  assert own and all(path.split('/')[1:3] == ['added', method] for path in own)
  others, _ = peft.split(variables.params, method)
  assert sha256(peft.tree_of(others)) == sha256(base(name).params)


@every_case
@pytest.mark.parametrize('train', [False, True])
def test_output_is_the_base_networks_at_the_start(method, name, train):
  network, variables = wrapped(method, name)
  found, stats = network.apply(variables, INPUTS[name], train=train)
  want, stats_of_base = BASES[name].apply(base(name), INPUTS[name], train=train)
  if method in STARTS_ELSEWHERE:
    assert np.shape(found) == np.shape(want) and np.abs(found - want).max() > 1e-5
    return
  same = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
  jax.tree.map(same, (found, stats), (want, stats_of_base))


@every_case
def test_three_steps_move_what_is_trained_and_nothing_else(method, name):
  network, variables = wrapped(method, name)
  trainable, frozen = trained_and_frozen(variables.params, network.stages)
  assert {path for path, _ in named_leaves(trainable)} == {
    path for path, _ in named_leaves(variables.params) if is_trained(path)
  }
  loss = lambda t: loss_of(network, Variables(merge(t, frozen), variables.stats), name)
  after = trainable
  for _ in range(3):
    after = jax.tree.map(lambda leaf, grad: leaf - 0.3 * grad, after, jax.grad(loss)(after))
  for (path, leaf), (_, other) in zip(named_leaves(trainable), named_leaves(after), strict=True):
    assert not np.array_equal(leaf, other), path


@every_case
def test_merged_parameters_give_the_same_output(method, name):
  network, variables, x = wrapped(method, name)[0], moved(method, name), INPUTS[name]
  want = outputs(network, variables, x)
  assert np.abs(want - outputs(BASES[name], base(name), x)).max() > 1e-3
  if added(method, name).merge is None:
    return
  merged = variables._replace(params=added(method, name).merge(variables.params))
  assert jax.tree.structure(merged) == jax.tree.structure(base(name))
  np.testing.assert_allclose(outputs(BASES[name], merged, x), want, atol=2e-6)


@every_case
def test_slices_of_stages(method, name):
  network, variables, x = wrapped(method, name)[0], moved(method, name), INPUTS[name]
  whole = outputs(network, variables, x)
  for k in range(len(network.stages) + 1):
    between = outputs(network, variables, x, stop=k)
    np.testing.assert_allclose(outputs(network, variables, between, start=k), whole, atol=1e-6)


@every_case
def test_vmap_and_map_over_runs(method, name):
  network, x = wrapped(method, name)[0], INPUTS[name]
  stats = base(name).stats
  own = [peft.split(moved(method, name, seed).params, method) for seed in range(3)]
  rest = peft.tree_of(own[0][0])

  def logits(leaves):
    params = peft.flat_of(rest)
    for path, leaf in leaves.items():
      stage, _, place = path.partition('/')
      params[f'{stage}/added/{method}/{place}'] = leaf
    return outputs(network, Variables(peft.tree_of(params), stats), x)

  one_by_one = [np.asarray(logits(leaves)) for _, leaves in own]
  assert np.abs(one_by_one[0] - one_by_one[1]).max() > 1e-3
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(leaves for _, leaves in own))
  side_by_side = jax.vmap(logits)(stacked)
  np.testing.assert_allclose(side_by_side, one_by_one, atol=1e-5)
  if method in WAYS:
    in_turn = jax.jit(lambda leaves: jax.lax.map(logits, leaves))(stacked)
    np.testing.assert_allclose(in_turn, one_by_one, atol=1e-5)


@pytest.mark.parametrize('method', WAYS)
def test_activations_computed_again_give_the_same_gradient(method, name='bert'):
  network, variables = wrapped(method, name)[0], moved(method, name)
  trainable, frozen = trained_and_frozen(variables.params, network.stages)

  def gradient(remat):
    phase = step.Phase(labels=(), rates=(), remat=remat)

    def loss(trainable):
      whole = Variables(merge(trainable, frozen), variables.stats)
      _, logits, _ = step.forward(network, phase, whole, INPUTS[name], jax.random.key(0))
      return optax.softmax_cross_entropy_with_integer_labels(logits, TARGETS[name]).mean()

    return jax.jit(jax.grad(loss))(trainable)

  kept, again = gradient(False), gradient(True)
  assert all(is_trained(path) for path, _ in named_leaves(kept))
  for (path, one), (_, other) in zip(named_leaves(kept), named_leaves(again), strict=True):
    assert np.abs(one).max() > 0, path
    np.testing.assert_allclose(other, one, atol=2e-6)


@every_case
def test_compiled_stages_keep_to_their_own_network(method, name):
  """Run before and after, the base network gives what it gives; in between the leaves count."""
  network, variables, x = wrapped(method, name)[0], moved(method, name), INPUTS[name]
  before = outputs(BASES[name], base(name), x)
  edited = outputs(network, variables, x)
  np.testing.assert_array_equal(outputs(BASES[name], base(name), x), before)
  assert np.abs(edited - before).max() > 1e-3
  np.testing.assert_array_equal(outputs(network, variables, x), edited)


@every_case
def test_bfloat16_stays_bfloat16(method, name):
  module, x = MODULES[name], INPUTS[name]
  half = module.build(**SIZES[name], dtype='bfloat16')
  network, variables = peft.wrap(half, added(method, name)), wrapped(method, name)[1]
  for stop in (2, None):
    runs = ((network, variables), (half, base(name)))
    found, want = (outputs(one, held, x, stop=stop) for one, held in runs)
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, want)
    if method not in STARTS_ELSEWHERE:
      near = functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-2)
      jax.tree.map(near, found, want)


@every_case
def test_equal_options_share_programs(method, name):
  first, second = added(method, name), added(method, name)
  assert first.intercept is second.intercept and first.params is second.params
  assert first.also == second.also


@every_case
def test_a_second_time_is_refused(method, name):
  twice = peft.wrap(wrapped(method, name)[0], added(method, name))
  with pytest.raises(ValueError, match=f"'{method}' were added already"):
    jax.eval_shape(twice.init, jax.random.key(0), INPUTS[name])


@every_case
def test_the_network_alone_does_not_leave_leaves_out(method, name):
  with pytest.raises(ValueError, match=f'added leaves {method}, and this network has no edit'):
    outputs(BASES[name], wrapped(method, name)[1], INPUTS[name])


@pytest.mark.parametrize('method', available('peft'))
def test_a_network_that_a_method_cannot_take_is_an_error_at_the_start(method):
  """A pattern that matches nothing is one too."""
  refused = [name for name in BASES if (method, name) not in CASES]
  options = {} if refused else {'at': 'nowhere'}
  words = REFUSED[method] if refused else "matches at='nowhere'; have "
  if method == 'intrinsic':
    options, words = {'size': 10**7}, 'is no number from'
  network = peft.wrap(BASES['cnn'], plug('peft', method).added(**options))
  with pytest.raises(ValueError, match=f'^{method}: .*{words}'):
    jax.eval_shape(network.init, jax.random.key(0), INPUTS['cnn'])
