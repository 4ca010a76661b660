"""Values and gradients of the official code (third_party/tests/penalties), and by hand."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.backbones._norms import BatchNorm
from tlx.penalties import bss, co_tuning, delta, ewc, half_square, lwf, mixout, moved, stochnorm

_FILE = pathlib.Path(__file__).parents[2] / 'third_party' / 'tests' / 'penalties' / 'golden.json'
GOLDEN = json.loads(_FILE.read_text())


def drawn():
  """The arrays of the file, in its order."""
  random = np.random.RandomState(11)
  shapes = {'wide': (8, 12), 'few': (5, 8), 'w': (4, 3), 'w0': (4, 3)}
  shapes |= {'source1': (2, 3, 4, 4), 'target1': (2, 3, 4, 4)}
  shapes |= {'source2': (2, 5, 2, 2), 'target2': (2, 5, 2, 2), 'attention1': (3,)}
  shapes |= {'attention2': (5,), 'probabilities': (10, 6), 'logits': (10, 6)}
  shapes |= {'student': (7, 5), 'teacher': (7, 5), 'x': (6, 4), 'mean': (4,)}
  found = {name: random.randn(*shape) for name, shape in shapes.items()}
  found |= {'var': random.rand(4) + 0.5, 'scale': random.rand(4), 'bias': random.randn(4)}
  return {name: jnp.asarray(array, jnp.float32) for name, array in found.items()}


A = drawn()


def channels_last(name):
  return jnp.moveaxis(A[name], 1, -1)


def maps(function):
  return lambda *targets: sum(
    function(target, channels_last(f'source{i}'), jax.nn.softmax(A[f'attention{i}']))
    for i, target in enumerate(targets, 1)
  )


TARGETS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 2])
LIKELY = co_tuning.relationship(jax.nn.one_hot(TARGETS, 3).T @ jax.nn.softmax(A['probabilities']))
BOTH = channels_last('target1'), channels_last('target2')
CASES = {
  'bss k=1 (F = randn(8': [lambda x: bss.smallest(x, 1), A['wide']],
  'bss k=1 (F = randn(5': [lambda x: bss.smallest(x, 1), A['few']],
  'bss k=2': [lambda x: bss.smallest(x, 2), A['wide']],
  'l2_sp': [lambda w: half_square(moved({'w': w}, {'w': A['w0']})), A['w']],
  'delta without attention': [maps(lambda x, y, _: delta.distance(x, y)), *BOTH],
  'delta with attention': [maps(delta.distance), *BOTH],
  'co_tuning': [lambda x: co_tuning.cross_entropy(x, LIKELY[TARGETS]), A['logits']],
  'distillation T=1.0': [lambda x: lwf.divergence(x, A['teacher'], 1.0), A['student']],
  'distillation T=4.0': [lambda x: lwf.divergence(x, A['teacher'], 4.0), A['student']],
}


def golden(name):
  return next(found for key, found in GOLDEN.items() if key.startswith(name))


@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_are_official(name):
  function, *arguments = CASES[name]
  places = tuple(range(len(arguments)))
  value, grads = jax.value_and_grad(function, argnums=places)(*arguments)
  assert float(value) == pytest.approx(golden(name)['value'], rel=2e-5)
  norms = [float(jnp.linalg.norm(grad.ravel())) for grad in grads]
  assert norms == pytest.approx(golden(name)['grad_norms'], rel=1e-4)
  firsts = [float(grad.ravel()[0]) for grad in grads]
  assert firsts == pytest.approx(golden(name)['grad_first'], rel=1e-3)


def test_a_class_is_what_its_examples_are_like_and_none_says_nothing():
  np.testing.assert_allclose(LIKELY[0], golden('co_tuning')['relationship_row0'], rtol=1e-5)
  assert not co_tuning.relationship(jnp.zeros((1, 6))).any()


@pytest.mark.parametrize('p, channels', [(1.0, (0, 2)), (0.0, (1, 3))])
def test_stochnorm_takes_the_batch_or_what_ran_before_it(p, channels):
  """The official code draws 1 for channels 0 and 2 here; statistics move by every batch."""
  norm = BatchNorm(momentum=0.9, epsilon=1e-5)
  variables = {
    'params': {'scale': A['scale'], 'bias': A['bias']},
    'batch_stats': {'mean': A['mean'], 'var': A['var']},
  }
  edit = stochnorm.penalty(p).edit(('stage',))
  with jax.disable_jit(), _intercepted(edit.intercept({})):
    y, moved_on = norm.apply(
      variables,
      A['x'],
      use_running_average=False,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(0)},
    )
  want = golden('stochnorm')
  np.testing.assert_allclose(y[0, channels], np.array(want['row0'])[[*channels]], rtol=1e-4)
  np.testing.assert_allclose(
    moved_on['batch_stats']['mean'], want['running_mean_after'], rtol=1e-4, atol=1e-6
  )
  unbiased = A['x'].var(0) * 6 / 5  # the house takes the biased one in
  ours = moved_on['batch_stats']['var'] + 0.1 * (unbiased - A['x'].var(0))
  np.testing.assert_allclose(ours, want['running_var_after'], rtol=1e-4)


def _intercepted(interceptor):
  import flax.linen as nn

  return nn.intercept_methods(interceptor)


def test_mixout_keeps_the_mean_and_the_source():
  kept = jnp.array([True, False])
  found = mixout.mixed(jnp.array([3.0, 3.0]), jnp.array([1.0, 1.0]), kept, 0.75)
  np.testing.assert_allclose(found, [9.0, 1.0])  # 0.25 x 9 + 0.75 x 1 is 3
  still = mixout.mixed(A['w'], A['w'], A['w'] > 0, 0.9)
  np.testing.assert_allclose(still, A['w'], rtol=1e-4, atol=1e-6)


def test_ewc_weighs_by_the_fisher_information():
  distance, fisher = (
    {'a': jnp.array([1.0, 2.0]), 'b': None},
    {'a': jnp.array([3.0, 0.5]), 'b': None},
  )
  assert float(ewc.weighted(distance, fisher)) == pytest.approx(0.5 * (3.0 + 2.0))
