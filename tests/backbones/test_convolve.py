"""Convolutions as they are written for CPU equal those of lax, in value and in gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.backbones import _layers
from tlx.plug import plug

# (image size, inputs, outputs, kernel width, stride, padding); outputs 0 for a depthwise
# convolution.
CASES = [
  ((9, 8), 3, 5, 3, 1, 1),
  ((9, 8), 3, 5, 3, 2, 1),
  ((10, 7), 2, 4, 5, 2, 'SAME'),
  ((11, 13), 3, 4, 7, 2, 3),
  ((6, 5), 3, 4, 1, 1, 0),
  ((7, 6), 3, 4, 1, 2, 0),
  ((9, 11), 3, 4, 4, 4, 0),
  ((8, 8), 1, 1, 3, 1, 1),
  ((8, 8), 1, 6, 2, 2, 0),
  ((9, 8), 4, 0, 3, 1, 'SAME'),
  ((9, 8), 4, 0, 3, 2, 'SAME'),
  ((8, 7), 4, 0, 5, 2, 'SAME'),
  ((5, 6), 3, 0, 7, 1, 3),
  ((10, 9), 3, 0, 3, 2, 0),
]


@pytest.mark.parametrize('size, inputs, outputs, width, stride, padding', CASES)
def test_cpu_and_lax_agree(size, inputs, outputs, width, stride, padding, monkeypatch):
  random = np.random.RandomState(0)
  x = random.randn(2, *size, inputs).astype('float32')
  kernel = random.randn(width, width, inputs if outputs else 1, outputs or inputs).astype('float32')

  @functools.partial(jax.jit, static_argnums=0)
  def run(backend):
    output, pullback = jax.vjp(
      lambda x, kernel: _layers.convolve(x, kernel, stride, padding, backend), x, kernel
    )
    return output, *pullback(
      jnp.cos(jnp.arange(output.size, dtype=jnp.float32)).reshape(output.shape)
    )

  ways, reference = [run('cpu')], run('gpu')
  if outputs and width > stride:  # large ones are written in another way
    monkeypatch.setattr(_layers, 'PATCH_BYTES', 0)
    run.clear_cache()
    ways.append(run('cpu'))
  for mine in ways:
    for a, b in zip(mine, reference, strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_convolutions_batch_over_runs():
  random = np.random.RandomState(0)
  x = random.randn(2, 6, 6, 3).astype('float32')
  kernels = random.randn(4, 3, 3, 1, 3).astype('float32')

  @jax.jit
  def gradient(kernel):
    return jax.grad(lambda kernel: (_layers.convolve(x, kernel, 1, 1) ** 2).sum())(kernel)

  np.testing.assert_allclose(
    jax.vmap(gradient)(kernels),
    jnp.stack([gradient(kernel) for kernel in kernels]),
    rtol=1e-4,
    atol=1e-4,
  )


def test_max_pool_pads_with_zeros():
  x = np.random.RandomState(0).rand(2, 9, 8, 3).astype('float32')
  want = jax.lax.reduce_window(
    x, 0.0, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
  )
  weight = np.random.RandomState(1).rand(*want.shape).astype('float32')
  found = {}
  for backend in ('cpu', 'gpu'):
    np.testing.assert_array_equal(_layers.max_pool(x, 3, 2, 1, backend), want)
    found[backend] = jax.grad(
      lambda x, backend=backend: (weight * _layers.max_pool(x, 3, 2, 1, backend)).sum()
    )(x)
  np.testing.assert_allclose(found['cpu'], found['gpu'], rtol=1e-6)  # no two places are equal


@pytest.mark.parametrize(
  'backbone, options, message',
  [
    ('vit', {'image_size': 30, 'patch': 8}, 'no multiple of the patch size 8'),
    ('vit', {'dim': 50, 'heads': 4}, '4 heads do not divide'),
    ('vit', {'class_token': False}, "set pool='mean'"),
    ('vit', {'variant': 'b/17'}, "Unknown variant 'b/17'"),
    ('resnet', {'block': 'wide'}, "choose one of 'basic', 'bottleneck'"),
    ('resnet', {'layers': (1, 2)}, 'channels is .* give 2 positive integers'),
    ('bit', {'groups': 24}, 'does not divide all of the widths'),
    ('cnn', {'channels': (8, 0)}, 'give one or more positive integers'),
    ('efficientnet_lite', {'width': 0}, 'give positive numbers'),
  ],
)
def test_bad_values_name_the_option(backbone, options, message):
  with pytest.raises(ValueError, match=message):
    plug('backbones', backbone).build(3, **options)
