"""Scores in chunks of the vocabulary against all of them at once, and against float64."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from tlx.tasks import _vocabulary
from tlx.tasks._vocabulary import nll

SIZE = {'features': (3, 5, 8), 'kernel': (23, 8)}


def arrays(seed=0, spread=1.0):
  """(features [3, 5, 8], kernel [23, 8], targets [3, 5], weights [3, 5] of which some are 0)."""
  random = np.random.default_rng(seed)
  features, kernel = (
    jnp.asarray(random.normal(size=shape) * spread, jnp.float32) for shape in SIZE.values()
  )
  targets = jnp.asarray(random.integers(0, 23, (3, 5)).astype(np.int32)).at[0, :2].set([0, 22])
  return features, kernel, targets, jnp.asarray(random.integers(0, 3, (3, 5)), jnp.float32)


def naive(features, kernel, targets):
  scores = jnp.einsum('btd,vd->btv', features, kernel)
  return -jnp.take_along_axis(jax.nn.log_softmax(scores), targets[..., None], -1)[..., 0]


@pytest.mark.parametrize('chunk', [1, 7, 22, 23, 4096])
def test_values_and_gradients_equal_those_of_all_scores_at_once(chunk):
  features, kernel, targets, weights = arrays()

  def both(loss):
    total = lambda features, kernel: (loss(features, kernel) * weights).sum()
    return jax.jit(jax.value_and_grad(total, (0, 1)))(features, kernel)

  ours = both(lambda features, kernel: nll(features, kernel, targets, chunk))
  theirs = both(lambda features, kernel: naive(features, kernel, targets))
  for got, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_values_are_those_of_scipy_in_float64_however_large_the_scores():
  features, kernel, targets, _ = arrays(spread=20.0)
  scores = np.einsum('btd,vd->btv', np.float64(features), np.float64(kernel))
  assert np.abs(scores).max() > 500  # whose exponential float32 does not have
  wanted = -np.take_along_axis(log_softmax(scores, -1), np.asarray(targets)[..., None], -1)[..., 0]
  np.testing.assert_allclose(nll(features, kernel, targets, 7), wanted, rtol=1e-5, atol=1e-3)


def test_features_in_bfloat16_lose_what_their_products_lose():
  features, kernel, targets, _ = arrays()
  half = features.astype(jnp.bfloat16)
  loss, gradient = jax.value_and_grad(lambda x: nll(x, kernel, targets, 7).sum())(half)
  whole = naive(half.astype(jnp.float32), kernel, targets).sum()
  assert loss.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
  np.testing.assert_allclose(loss, whole, rtol=5e-3)


@pytest.mark.parametrize('wanted', [(0,), (0, 1)])
def test_flops_grow_with_the_vocabulary(wanted):
  """As XLA counts them: those of all chunks, and none of a frozen kernel's gradient."""

  def flops(size, whole):
    shapes = (4, 32, 64), (size, 64)
    arrays = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    targets = jax.ShapeDtypeStruct((4, 32), np.int32)
    run = jax.jit(jax.grad(lambda *args: _vocabulary.nll(*args).sum(), wanted))
    with _vocabulary.whole() if whole else contextlib.nullcontext():
      return run.lower(*arrays, targets).cost_analysis()['flops']

  product = 2 * 4 * 32 * 64
  assert flops(8192, False) == flops(4096, False)
  found = (flops(8192, True) - flops(4096, True)) / 4096 / product
  assert found == pytest.approx(2 * len(wanted), rel=0.1)


def test_runs_side_by_side_are_what_they_are_alone():
  several = [arrays(seed)[:3] for seed in range(2)]
  together = jax.vmap(lambda *run: nll(*run, 7))(*(jnp.stack(leaf) for leaf in zip(*several)))
  alone = [nll(*run, 7) for run in several]
  np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_memory_of_a_head_of_49152_words():
  """Beside results, the scores of a chunk, their exponentials, and little else."""
  features = jax.ShapeDtypeStruct((8, 128, 16), jnp.float32)
  kernel = jax.ShapeDtypeStruct((49152, 16), jnp.float32)
  targets = jax.ShapeDtypeStruct((8, 128), jnp.int32)

  def temporary_bytes(loss):
    total = lambda features, kernel, targets: loss(features, kernel, targets).sum()
    compiled = jax.jit(jax.value_and_grad(total, (0, 1))).lower(features, kernel, targets).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  scores_bytes = 8 * 128 * 49152 * 4
  assert temporary_bytes(naive) > scores_bytes
  assert temporary_bytes(nll) < 2.5 * scores_bytes * 4096 / 49152  # 4096: the default chunk


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'kernel': (23, 7)}, r'kernel \(23, 7\)'),
    ({'features': (3, 4, 8)}, r'wanted \[B, T, D\], \[V, D\] and \[B, T\]'),
    ({'chunk': 0}, 'chunk is 0'),
  ],
)
def test_what_does_not_go_together(changes, words):
  sizes = {**SIZE, **changes}
  with pytest.raises(ValueError, match=words):
    nll(
      jnp.zeros(sizes['features']),
      jnp.zeros(sizes['kernel']),
      jnp.zeros((3, 5), jnp.int32),
      changes.get('chunk', 4),
    )
