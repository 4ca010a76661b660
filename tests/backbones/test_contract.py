"""What every file of tlx/backbones must satisfy, on its own `tiny()` network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.plug import available, plug
from tlx.tree import named_leaves

BACKBONES = available('backbones')
pytestmark = pytest.mark.parametrize('name', BACKBONES)


@functools.lru_cache(maxsize=None)
def tiny(name):
  """(network, its variables with statistics that are not the initial ones, inputs, number of
  classes).
  """
  options, inputs = plug('backbones', name).tiny()
  network = plug('backbones', name).build(**options)
  variables = jax.jit(network.init)(jax.random.key(0), inputs)
  stats = jax.tree.map(
    lambda leaf: leaf + 0.1 + 0.05 * jnp.arange(leaf.size).reshape(leaf.shape), variables.stats
  )
  return network, variables._replace(stats=stats), inputs, options['num_classes']


@functools.lru_cache(maxsize=None)
def stage(name, start, stop, train=False, frozen_norms=frozenset()):
  """The compiled function of (variables, activation) that runs stages[start:stop]."""
  apply = functools.partial(
    tiny(name)[0].apply, train=train, start=start, stop=stop, frozen_norms=frozen_norms
  )
  return jax.jit(lambda variables, x: apply(variables, x, key=jax.random.key(1)))


def close(a, b, tolerance=1e-5):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(
      np.asarray(x, np.float32), np.asarray(y, np.float32), rtol=tolerance, atol=tolerance
    )


def test_stages_compose(name):
  network, variables, inputs, _ = tiny(name)
  whole = stage(name, None, None)(variables, inputs)[0]
  entering = [inputs]
  for k in range(len(network.stages)):
    entering.append(stage(name, k, k + 1)(variables, entering[-1])[0])
  # so [0:k] is entering[k] for every k; and [k:] of it must give the whole
  close(entering[-1], whole)
  for k in sorted({1, len(network.stages) // 2, len(network.stages) - 1}):
    close(stage(name, None, k)(variables, inputs)[0], entering[k])
    close(stage(name, k, None)(variables, entering[k])[0], whole)


def test_the_head_is_last_and_gives_float32_logits(name):
  network, variables, inputs, num_classes = tiny(name)
  assert network.stages[-1] == 'head' and len(network.stages) >= 3
  logits = stage(name, None, None)(variables, inputs)[0]
  assert logits.shape[0] == len(jax.tree.leaves(inputs)[0]) and logits.shape[-1] == num_classes
  assert logits.dtype == jnp.float32
  assert bool(jnp.isfinite(logits).all())
  assert float(logits.std()) > 0


def test_every_leaf_has_a_readable_float32_place(name):
  network, variables, _, _ = tiny(name)
  leaves = named_leaves(variables.params) + named_leaves(variables.stats)
  assert set(variables.params) == set(network.stages)
  assert set(variables.stats) <= set(network.stages)
  for path, leaf in leaves:
    assert leaf.dtype == jnp.float32, path
    assert not any(
      piece.rsplit('_', 1)[0] in ('Dense', 'Conv', 'BatchNorm', 'LayerNorm', 'GroupNorm', 'Embed')
      for piece in path.split('/')
    ), f'{path} has an automatic name'


def test_examples_ignore_their_batch_mates_in_eval(name):
  _, variables, inputs, _ = tiny(name)
  run = stage(name, None, None)
  whole, stats = run(variables, inputs)
  close(run(variables, jax.tree.map(lambda leaf: leaf[:2], inputs))[0], whole[:2])
  close(run(variables, jax.tree.map(lambda leaf: leaf[::-1], inputs))[0], whole[::-1])
  close(stats, variables.stats, 0.0)


def test_frozen_norms_keep_and_use_their_statistics(name):
  _, variables, inputs, _ = tiny(name)
  norms = frozenset(path.rsplit('/', 1)[0] for path, _ in named_leaves(variables.stats))
  trained, moved = stage(name, None, None, True)(variables, inputs)
  frozen, kept = stage(name, None, None, True, norms)(variables, inputs)
  close(kept, variables.stats, 0.0)
  close(frozen, stage(name, None, None)(variables, inputs)[0])
  distances = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), moved, variables.stats)
  for path, leaf in named_leaves(distances):
    assert leaf > 0, f'{path} did not move in training'
  if norms:
    assert float(jnp.abs(trained - frozen).max()) > 1e-3


def test_gradients_are_finite(name):
  _, variables, inputs, _ = tiny(name)

  def loss(params):
    logits, _ = stage(name, None, None, True)(variables._replace(params=params), inputs)
    weights = jnp.linspace(0.0, 1.0, logits.size).reshape(logits.shape)
    return (jax.nn.log_softmax(logits) * weights).sum()

  for path, leaf in named_leaves(jax.jit(jax.grad(loss))(variables.params)):
    assert bool(jnp.isfinite(leaf).all()), path


def test_bfloat16_is_near_float32(name):
  options, inputs = plug('backbones', name).tiny()
  _, variables, _, _ = tiny(name)
  network = plug('backbones', name).build(**options, dtype='bfloat16')
  shapes = jax.eval_shape(network.init, jax.random.key(0), inputs)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
  half, _ = jax.jit(functools.partial(network.apply, train=False))(variables, inputs)
  full, _ = stage(name, None, None)(variables, inputs)
  assert half.dtype == jnp.float32
  assert 0 < float(jnp.abs(half - full).max()) < 0.06 * float(jnp.abs(full).max())


def test_a_bad_option_is_a_clear_error(name):
  options, _ = plug('backbones', name).tiny()
  with pytest.raises(ValueError, match="Unknown option 'no_such'; have .*dtype"):
    plug('backbones', name).build(**options, no_such=1)
  with pytest.raises(ValueError, match=r"dtype is 'float64'.*bfloat16"):
    plug('backbones', name).build(**options, dtype='float64')


@pytest.mark.parametrize('size', [1, 2, 3, 7, 15, 31])
def test_images_of_any_size_pass_or_are_a_clear_error(name, size):
  options, inputs = plug('backbones', name).tiny()
  if isinstance(inputs, dict):
    return  # text has no size
  network = plug('backbones', name).build(**options)
  images = jax.ShapeDtypeStruct((1, size, size, inputs.shape[3]), np.float32)
  try:
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
  except ValueError as error:
    too_small = f'{size} x {size} are too small for this network'
    assert too_small in str(error) or f'The images are ({size}, {size})' in str(error)
    return
  for stop in range(1, len(network.stages)):
    activation, _ = jax.eval_shape(
      functools.partial(network.apply, train=False, stop=stop), variables, images
    )
    assert activation.size > 0, network.stages[stop - 1]
