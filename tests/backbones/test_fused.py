"""Fused attention is the plain one: cuDNN's part is played by JAX's own, in float32."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.backbones import _attention

BATCH, HEADS, SHARED, DEPTH = 2, 4, 2, 8


@pytest.fixture(autouse=True)
def no_card(monkeypatch):
  def attention(query, *arrays, implementation, **options):
    assert implementation == 'cudnn' and query.shape[1] % 2 == arrays[0].shape[1] % 2 == 0
    return dot_product_attention(query, *arrays, **options)

  dot_product_attention = jax.nn.dot_product_attention
  monkeypatch.setattr(jax.nn, 'dot_product_attention', attention)


def arrays(num_queries, num_keys):
  """(queries, keys, values, a mask that lets everybody see something)."""
  random = np.random.default_rng(num_queries)
  shapes = (HEADS, num_queries), (SHARED, num_keys), (SHARED, num_keys)
  made = [random.normal(size=(BATCH, *shape, DEPTH)).astype(np.float32) for shape in shapes]
  allowed = random.random((BATCH, 1, num_queries, num_keys)) < 0.6
  allowed[..., 0] = True
  return *made, allowed


@functools.partial(jax.jit, static_argnums=0)
def of(causal, query, key, value, allowed):
  """(attention, the gradients of a loss of it) where it is fused, and where it is not."""

  def loss(attend, query, key, value):
    mixed = attend(query, key, value)
    return (jnp.sin(mixed) * jnp.arange(DEPTH)).sum(), mixed

  fused = functools.partial(_attention._fused, causal)
  found = []
  for attend in (fused, _attention.attend):
    run = functools.partial(loss, lambda *three, attend=attend: attend(*three, allowed))
    gradients, mixed = jax.grad(run, argnums=(0, 1, 2), has_aux=True)(query, key, value)
    found.append((mixed, gradients))
  return found


def check(fused, plain):
  for one, other in zip(jax.tree.leaves(fused), jax.tree.leaves(plain), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
  'num_queries, num_keys, masked', [(4, 4, False), (5, 5, False), (5, 5, True), (3, 6, True)]
)
def test_shared_keys_masks_and_odd_lengths(num_queries, num_keys, masked):
  *three, allowed = arrays(num_queries, num_keys)
  check(*of(False, *three, allowed if masked else None))


def test_causal_masks():
  *three, allowed = arrays(5, 5)
  check(*of(True, *three, allowed & np.tri(5, dtype=bool)))


@pytest.mark.parametrize('batched', [(0, None, None, None), (None, 0, 0, 0)])
def test_runs_side_by_side_share_what_they_share(batched):
  """As where a cohort trains queries alone, or all looks at the same texts."""
  whole = []
  for array, axis in zip(arrays(5, 5), batched):
    whole.append(array if axis is None else np.stack([array, np.roll(array, 1, -1)]))
  run = jax.vmap(functools.partial(of, False), in_axes=batched)
  check(*run(*whole))


@pytest.mark.parametrize(
  'backend, capability, has',
  [('gpu', '9.0', True), ('gpu', '7.5', False), ('gpu', 'gfx942', False), ('tpu', '', False)],
)
def test_cards_that_have_flash_attention(backend, capability, has, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  card = types.SimpleNamespace(compute_capability=capability)
  monkeypatch.setattr(jax, 'devices', lambda: [card])
  assert _attention.has_flash() is has
