"""Schedules against published values; groups, decay and clipping against plain optax."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlx.plug import available, plug
from tlx.train import optim
from tlx.tree import map_named, named_leaves

PARAMS = {'a': jnp.ones((2, 2)), 'b': jnp.ones((2, 2)), 'v': jnp.ones(2)}
GRADS = {'a': jnp.full((2, 2), 3.0), 'b': jnp.full((2, 2), 4.0), 'v': jnp.ones(2)}


def test_slanted_triangular_is_that_of_the_paper():
  """Peak 0.01 over 100 steps, cut_frac 0.1, ratio 32 (Howard and Ruder 2018, equation 3)."""
  factor = optim.schedule('slanted_triangular')
  wanted = {
    0: 0.0003125,
    5: 0.00515625,
    9: 0.00903125,
    10: 0.01,
    11: 0.00989236,
    55: 0.00515625,
    99: 0.00042014,
  }
  for step, rate in wanted.items():
    assert float(0.01 * factor(step, 100)) == pytest.approx(rate, abs=5e-9)


@pytest.mark.parametrize(
  'name, warmup, wanted',
  [
    ('constant', 0.0, [1, 1, 1, 1]),
    ('linear', 0.0, [1, 0.75, 0.5, 0.25]),
    ('cosine', 0.0, [1, 0.853553, 0.5, 0.146447]),
    ('linear', 0.5, [0.5, 1, 1, 0.5]),
    ('constant', 0.5, [0.5, 1, 1, 1]),
  ],
)
def test_schedules(name, warmup, wanted):
  factor = optim.schedule(name, warmup)
  np.testing.assert_allclose([float(factor(step, 4)) for step in range(4)], wanted, atol=1e-6)


@pytest.mark.parametrize(
  'share', [*(k / 100 for k in range(100)), 0.001, 0.123, 0.0625, 1 / 3, 2 / 3, 1 / 7]
)
def test_warm_up_counts_whole_steps(share):
  """As exact fractions do: 0.29 of 100 steps are 29."""
  num_steps = np.r_[np.arange(1, 1200), 12_345, 100_000, 999_999, 2**24 - 1]
  got = jax.jit(lambda steps: optim.whole_steps(share, steps))(num_steps.astype(np.float32))
  exact = Fraction(repr(share)).limit_denominator(1000)
  np.testing.assert_array_equal(got, [math.floor(exact * int(steps)) for steps in num_steps])


def test_the_last_step_of_warm_up_has_the_peak_rate():
  factor = optim.schedule('constant', 0.29)
  assert [float(factor(step, 100)) for step in (27, 28, 29)] == [pytest.approx(28 / 29), 1.0, 1.0]
  slanted = optim.schedule('slanted_triangular')
  assert float(slanted(3, 30)) == 1.0


def update(labels, rates, name='sgd', options=None, decay=0.0, clip_norm=0.0):
  tx = optim.optimizer(name, options or {}, labels, rates, lambda count: 0.1, decay, clip_norm)
  return tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]


def test_groups_have_their_rates_and_frozen_none():
  got = update({'a': 'slow', 'b': 'train', 'v': 'frozen'}, {'slow': 0.5, 'train': 1.0})
  assert float(got['a'][0, 0]) == pytest.approx(-0.15) and float(got['b'][0, 0]) == pytest.approx(
    -0.4
  )
  assert not np.any(got['v'])


def test_clipping_looks_at_the_trainable_group_only():
  got = update({'a': 'train', 'b': 'frozen', 'v': 'frozen'}, {'train': 1.0}, clip_norm=1.0)
  np.testing.assert_allclose(
    got['a'], -0.1 * 3.0 / 6.0 * np.ones((2, 2)), rtol=1e-6
  )  # the norm of a's gradient alone is 6


DECAYED = (
  'adadelta',
  'adamaxw',
  'adamw',
  'adan',
  'lamb',
  'lars',
  'lion',
  'nadamw',
  'novograd',
  'sgd',
)


def test_every_optimizer_of_optax_that_decays_is_known():
  assert [
    name
    for name in optim._optimizers()
    if 'weight_decay' in optim._arguments(name) or name == 'sgd'
  ] == list(DECAYED)


@pytest.mark.parametrize('name', optim._optimizers())
def test_every_optimizer_takes_steps_of_many_runs(name):
  """Traced rates and decay, a schedule, two groups, frozen leaves: what a cohort asks for."""
  labels = {'a': 'slow', 'b': 'frozen', 'v': 'train'}

  def run(rate, decay):
    tx = optim.optimizer(
      name, {}, labels, {'slow': 0.5, 'train': 1.0}, lambda count: rate * 0.5**count, decay
    )
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
      updates, state = tx.update(GRADS, state, params)
      params = optax.apply_updates(params, updates)
    return params

  optim.check(name, {}, 0.1 if name in DECAYED else 0.0)
  params = jax.vmap(run)(jnp.array([0.1, 0.01]), jnp.array([0.0, 0.1]))
  moved = jax.tree.map(
    lambda leaf, start: np.abs(leaf - start).reshape(2, -1).max(1), params, PARAMS
  )
  assert (moved['b'] == 0).all() and all(
    (moved[leaf] > 0).all() and np.isfinite(moved[leaf]).all() for leaf in 'av'
  )
  assert (moved['v'][0] > moved['v'][1]).all()


@pytest.mark.parametrize('name', optim.FIXED_RATE)
def test_optimizers_without_schedules_are_scaled(name):
  tx = getattr(optax, name)(0.1)
  wanted, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
  got = update({'a': 'train', 'b': 'train', 'v': 'train'}, {'train': 1.0}, name)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, wanted)


@pytest.mark.parametrize('backbone', available('backbones'))
def test_decay_reaches_matrices_by_their_role(backbone):
  module = plug('backbones', backbone)
  options, inputs = module.tiny()
  if backbone == 'vit':
    options |= {'registers': 2, 'layer_scale': 0.1}
  params = jax.eval_shape(module.build(**options).init, jax.random.key(0), inputs).params
  spared = {name for name, decayed in named_leaves(optim.decays(params)) if not decayed}
  beyond_vectors = {name for name, leaf in named_leaves(params) if leaf.ndim > 1 and name in spared}
  assert beyond_vectors == {
    'vit': {'embed/class', 'embed/position', 'embed/registers'},
    'gpt2': {'embed/positions/embedding'},
    'bert': {'embed/positions/embedding'},
    'clip': {'embed/class', 'embed/position'},
    'clip_text': {'embed/positions/embedding'},
  }.get(backbone, set())
  assert all(name in spared for name, leaf in named_leaves(params) if leaf.ndim < 2)
  assert not any(name.endswith('kernel') for name in spared)


@pytest.mark.parametrize('name', ['adamw', 'sgd', 'novograd', 'lars', 'adadelta'])
def test_spared_leaves_do_not_feel_the_decay(name):
  params = {
    'embed': {
      'class': jnp.ones((1, 1, 2)),
      'position': jnp.ones((1, 4, 2)),
      'kernel': jnp.ones((2, 2)),
    },
    'block': {'relative_table': jnp.ones((3, 2)), 'norm': {'scale': jnp.ones(2)}},
  }
  grads = map_named(
    lambda name, leaf: jnp.linspace(-1.0, 0.5, leaf.size).reshape(leaf.shape), params
  )  # not along the parameters: lars

  def after(decay):
    tx = optim.optimizer(
      name, {}, jax.tree.map(lambda _: 'train', params), {'train': 1.0}, lambda count: 0.1, decay
    )
    return dict(named_leaves(tx.update(grads, tx.init(params), params)[0]))

  plain, decayed = after(0.0), after(0.5)
  assert {leaf for leaf in plain if np.any(plain[leaf] != decayed[leaf])} == {'embed/kernel'}


@pytest.mark.parametrize('name', ['sgd', 'adamw', 'lion'])
def test_decay_spares_vectors(name):
  everything = {'a': 'train', 'b': 'train', 'v': 'train'}
  plain, decayed = (update(everything, {'train': 1.0}, name, decay=decay) for decay in (0.0, 0.5))
  np.testing.assert_allclose(decayed['a'] - plain['a'], -0.1 * 0.5 * np.ones((2, 2)), atol=1e-6)
  np.testing.assert_array_equal(decayed['v'], plain['v'])


def test_adamw_is_that_of_optax():
  everything = {'a': 'train', 'b': 'train', 'v': 'train'}
  tx = optax.adamw(
    0.1,
    weight_decay=0.5,
    b1=0.8,
    mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
  )
  wanted, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
  got = update(everything, {'train': 1.0}, 'adamw', {'b1': 0.8}, 0.5)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), wanted, got))


@pytest.mark.parametrize(
  'name, options, decay, words',
  [
    ('adamm', {}, 0.0, "Did you mean 'adam'"),
    ('adam', {}, 0.1, 'has no weight decay'),
    ('sgd', {'momentun': 0.9}, 0.0, "Did you mean 'momentum'"),
    ('apply_updates', {}, 0.0, 'Unknown optimizer'),
    ('lbfgs', {}, 0.0, "solver = 'logistic'"),
    ('noisy_sgd', {}, 0.0, 'noise'),
    ('optimistic_adam', {}, 0.0, '_v2'),
    ('scale_by_rprop', {}, 0.0, 'Unknown optimizer'),
    ('scale_by_learning_rate', {}, 0.0, 'Unknown optimizer'),
    ('adam', {'b1': -3}, 0.0, r"'b1' is a number in \[0, 1\), got -3"),
    ('adam', {'b2': 1.0}, 0.0, 'b2'),
    ('adam', {'eps': -1.0}, 0.0, 'eps'),
    ('adam', {'eps': math.nan}, 0.0, 'eps'),
    ('adam', {'eps': None}, 0.0, 'eps'),
    ('sgd', {'momentum': 'x'}, 0.0, "'momentum': 'x'"),
    ('sgd', {'momentum': math.inf}, 0.0, 'momentum'),
    ('sgd', {'nesterov': 1}, 0.0, 'True or False'),
    ('sgd', {'momentum': [0.9]}, 0.0, 'momentum'),
    ('adam', {'mu_dtype': 'float3'}, 0.0, 'float3'),
    ('lamb', {'mask': None}, 0.0, 'takes no option'),
    ('adafactor', {'weight_decay_rate': 0.1}, 0.0, 'takes no option'),
    ('rmsprop', {'decay': 2}, 0.0, 'decay'),
  ],
)
def test_bad_optimizers(name, options, decay, words):
  with pytest.raises(ValueError, match=words):
    optim.check(name, options, decay)


def test_bad_schedules():
  with pytest.raises(ValueError, match="Did you mean 'cosine'"):
    optim.schedule('cosin')
  with pytest.raises(ValueError, match='warmup'):
    optim.schedule('cosine', 1.0)


def test_the_staircase_is_that_of_bit():
  """Steps of the official hyper-rule: 500 steps fall at 200, 300, 400 after 100 of warm-up; 10,000
  at 3,000, 6,000 and 9,000 after 500.
  """
  short = optim.schedule('staircase', 0.2, {'at': (0.25, 0.5, 0.75)})
  wanted = {0: 0.01, 99: 1.0, 199: 1.0, 200: 0.1, 299: 0.1, 300: 0.01, 400: 0.001, 499: 0.001}
  for step, factor in wanted.items():
    assert float(short(step, 500)) == pytest.approx(factor)
  middle = optim.schedule('staircase', 0.05, {'at': (5 / 19, 11 / 19, 17 / 19)})
  for step, factor in {499: 1.0, 2999: 1.0, 3000: 0.1, 6000: 0.01, 8999: 0.01, 9000: 1e-3}.items():
    assert float(middle(step, 10_000)) == pytest.approx(factor)


def test_the_exponential_schedule_rises_in_equal_ratios():
  factor = optim.schedule('exponential', 0.0, {'least': 1e-4})
  np.testing.assert_allclose(
    [float(factor(step, 5)) for step in range(5)], [1e-4, 1e-3, 1e-2, 1e-1, 1.0], rtol=1e-5
  )


@pytest.mark.parametrize(
  'name, options, words',
  [
    ('staircase', {'steps': (0.3,)}, 'it takes at, factor'),
    ('staircase', {'at': (0.6, 0.3)}, 'rising shares'),
    ('staircase', {'at': (0.0, 0.3)}, 'rising shares'),
    ('staircase', {'at': 0.3}, 'rising shares'),
    ('staircase', {'factor': 1.0}, 'below 1'),
    ('slanted_triangular', {'ratio': 0.5}, 'from 1 on'),
    ('cosine', {'at': (0.3,)}, 'it takes none'),
  ],
)
def test_bad_options_of_schedules(name, options, words):
  with pytest.raises(ValueError, match=words):
    optim.schedule(name, 0.0, options)
