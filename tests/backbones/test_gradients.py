"""Gradients written by hand equal those that JAX derives from the plain formula."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.backbones import _attention, _norms

X = 2 * np.random.RandomState(0).randn(3, 4, 5, 6).astype('float32') + 1
MASK = np.random.RandomState(1).rand(3, 1, 5, 5) < 0.6
MASK[0, 0, 2] = False  # a query that may look nowhere


def agree(mine, reference, *arguments):
  """Both functions give the same of `arguments`, and the same gradients."""
  output, pullback = jax.vjp(mine, *arguments)
  wanted, wanted_pullback = jax.vjp(reference, *arguments)
  weight = jnp.cos(jnp.arange(output.size, dtype=jnp.float32)).reshape(output.shape)
  found, expected = (output, *pullback(weight)), (wanted, *wanted_pullback(weight))
  for got, want in zip(found, expected, strict=True):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def plain_attention(query, key, value, allowed):
  scores = query @ key.swapaxes(2, 3) * query.shape[-1] ** -0.5
  if allowed is not None:
    scores = jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)
  return jax.nn.softmax(scores) @ value


@pytest.mark.parametrize('allowed', [None, MASK])
def test_attention(allowed):
  arguments = (X, X[::-1] * 0.5, X[:, ::-1])
  agree(
    lambda *a: _attention.attend(*a, allowed), lambda *a: plain_attention(*a, allowed), *arguments
  )


def test_gelu():
  agree(_attention.gelu, lambda x: nn.gelu(x, approximate=False), X)


def test_layer_norm():
  plain = nn.LayerNorm(1e-5, use_fast_variance=False)
  arguments = (X, np.linspace(0.5, 2, 6, dtype=np.float32), np.linspace(-1, 1, 6, dtype=np.float32))
  agree(
    lambda x, scale, bias: _norms._layer_norm(x, scale, bias, 1e-5),
    lambda x, scale, bias: plain.apply({'params': {'scale': scale, 'bias': bias}}, x),
    *arguments,
  )


@pytest.mark.parametrize('bounds', [None, _norms.RELU, (0.0, 1.5)])
@pytest.mark.parametrize('train', [False, True])
def test_batch_norm_and_its_statistics(bounds, train):
  stats = {'mean': jnp.linspace(0, 1, 6), 'var': jnp.linspace(1, 3, 6)}
  arguments = (X, np.linspace(0.5, 2, 6, dtype=np.float32), np.linspace(-1, 1, 6, dtype=np.float32))
  found = []

  def run(module, clip, x, scale, bias):
    variables = {'params': {'scale': scale, 'bias': bias}, 'batch_stats': stats}
    y, updated = module.apply(variables, x, use_running_average=not train, mutable=['batch_stats'])
    found.append(jax.lax.stop_gradient(updated['batch_stats']))
    return y if clip is None else jnp.clip(y, *clip)

  ours = _norms.BatchNorm(momentum=0.9, epsilon=1e-3, bounds=bounds)
  theirs = nn.BatchNorm(momentum=0.9, epsilon=1e-3, use_fast_variance=False)
  agree(lambda *a: run(ours, None, *a), lambda *a: run(theirs, bounds, *a), *arguments)
  for mine, reference in (
    (run(ours, None, *arguments), run(theirs, bounds, *arguments)),
    *zip(*map(jax.tree.leaves, found[-2:])),
  ):
    np.testing.assert_allclose(mine, reference, rtol=2e-5, atol=2e-5)
