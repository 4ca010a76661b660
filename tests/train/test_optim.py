"""Schedules against published values; groups, decay and clipping against plain optax."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlx.train import optim

PARAMS = {'a': jnp.ones((2, 2)), 'b': jnp.ones((2, 2)), 'v': jnp.ones(2)}
GRADS = {'a': jnp.full((2, 2), 3.0), 'b': jnp.full((2, 2), 4.0), 'v': jnp.ones(2)}


def test_slanted_triangular_is_that_of_the_paper():
  """Peak 0.01 over 100 steps, cut_frac 0.1, ratio 32 (Howard and Ruder 2018, equation 3)."""
  factor = optim.schedule('slanted_triangular')
  wanted = {0: .0003125, 5: .00515625, 9: .00903125, 10: .01, 11: .00989236, 55: .00515625, 99: .00042014}
  for step, rate in wanted.items():
    assert float(0.01 * factor(step, 100)) == pytest.approx(rate, abs=5e-9)


@pytest.mark.parametrize('name, warmup, wanted', [
    ('constant', 0.0, [1, 1, 1, 1]), ('linear', 0.0, [1, .75, .5, .25]), ('cosine', 0.0, [1, .853553, .5, .146447]),
    ('linear', 0.5, [.5, 1, 1, .5]), ('constant', 0.5, [.5, 1, 1, 1])])
def test_schedules(name, warmup, wanted):
  factor = optim.schedule(name, warmup)
  np.testing.assert_allclose([float(factor(step, 4)) for step in range(4)], wanted, atol=1e-6)


def update(labels, rates, name='sgd', options=None, decay=0.0, clip_norm=0.0):
  tx = optim.optimizer(name, options or {}, labels, rates, lambda count: 0.1, decay, clip_norm)
  return tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]


def test_groups_have_their_rates_and_frozen_none():
  got = update({'a': 'slow', 'b': 'train', 'v': 'frozen'}, {'slow': 0.5, 'train': 1.0})
  assert float(got['a'][0, 0]) == pytest.approx(-0.15) and float(got['b'][0, 0]) == pytest.approx(-0.4)
  assert not np.any(got['v'])


def test_clipping_looks_at_the_trainable_group_only():
  got = update({'a': 'train', 'b': 'frozen', 'v': 'frozen'}, {'train': 1.0}, clip_norm=1.0)
  np.testing.assert_allclose(got['a'], -0.1 * 3.0 / 6.0 * np.ones((2, 2)), rtol=1e-6)  # the norm of a's gradient alone is 6


@pytest.mark.parametrize('name', ['sgd', 'adamw', 'lion'])
def test_decay_spares_vectors(name):
  everything = {'a': 'train', 'b': 'train', 'v': 'train'}
  plain, decayed = (update(everything, {'train': 1.0}, name, decay=decay) for decay in (0.0, 0.5))
  np.testing.assert_allclose(decayed['a'] - plain['a'], -0.1 * 0.5 * np.ones((2, 2)), atol=1e-6)
  np.testing.assert_array_equal(decayed['v'], plain['v'])


def test_adamw_is_that_of_optax():
  everything = {'a': 'train', 'b': 'train', 'v': 'train'}
  tx = optax.adamw(0.1, weight_decay=0.5, b1=0.8, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params))
  wanted, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
  got = update(everything, {'train': 1.0}, 'adamw', {'b1': 0.8}, 0.5)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), wanted, got))


@pytest.mark.parametrize('name, options, decay, words', [
    ('adamm', {}, 0.0, "Did you mean 'adam'"), ('adam', {}, 0.1, 'has no weight decay'), ('sgd', {'momentun': 0.9}, 0.0, "Did you mean 'momentum'"),
    ('apply_updates', {}, 0.0, 'Unknown optimizer')])
def test_bad_optimizers(name, options, decay, words):
  with pytest.raises(ValueError, match=words):
    optim.check(name, options, decay)


def test_bad_schedules():
  with pytest.raises(ValueError, match="Did you mean 'cosine'"):
    optim.schedule('cosin')
  with pytest.raises(ValueError, match='warmup'):
    optim.schedule('cosine', 1.0)
