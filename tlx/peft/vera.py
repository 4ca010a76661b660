"""VeRA (Kopiczko et al. 2024, arXiv:2310.11454): two random matrices for all layers, kept as drawn.

Only the two vectors that scale them are learned, a layer each.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from tlx.peft import Added, _layers
from tlx.peft._layers import Leaves
from tlx.types import Array, PyTree

NAME = 'vera'


def added(at: str = r'attention/(query|value)$', rank: int = 256) -> Added:
  """y = x kernel + bias + ((x A) d B) b in the dense layers whose name matches a regex.

  A [in, rank] and B [rank, out] are the first rows and columns of matrices as large as the largest
  of these layers, of Kaiming's uniform distribution, equal in all stages (leaves 'fixed/a' and
  'fixed/b' of each). d [rank] starts at 0.1 and b [out] at 0, as in the peft library.

  Raises:
    ValueError: a rank that is no whole number from 1 on, a bad regex. In `init`: a regex that
      matches no dense layer, or a rank above the smaller side of a kernel.
  """
  _layers.whole(NAME, 'rank', rank)
  pattern = _layers.regex(NAME, 'at', at)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    layers = _layers.choose(NAME, pattern, params, convolutions=False)
    most = [max(sizes) for sizes in zip(*layers.values(), strict=True)]
    a = _kaiming(_layers.key_of(key, NAME, 'fixed/a'), (most[0], rank), most[0])
    b = _kaiming(_layers.key_of(key, NAME, 'fixed/b'), (rank, most[1]), rank)
    leaves: dict[str, Array] = {}
    for name, shape in layers.items():
      _layers.check_rank(NAME, rank, name, shape)
      stage = name.partition('/')[0]
      leaves |= {f'{stage}/fixed/a': a, f'{stage}/fixed/b': b}
      leaves |= {f'{name}/d': jnp.full(rank, 0.1), f'{name}/b': jnp.zeros(shape[-1])}
    return leaves

  return Added(NAME, start, _INTERCEPT, functools.partial(_layers.merge, NAME, _merged))


def _kaiming(key: Array, shape: tuple[int, int], fan_in: int) -> Array:
  """Uniform with the variance 2 / fan-in (arXiv:1502.01852)."""
  bound = (6 / fan_in) ** 0.5
  return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _parts(own: Leaves, num_inputs: int) -> tuple[Array, Array]:
  """The parts of A d and B b that are a layer's."""
  a, b = jax.lax.stop_gradient((own['fixed/a'], own['fixed/b']))
  return a[:num_inputs] * own['d'], b[:, : len(own['b'])] * own['b']


def _call(own: Leaves, module: nn.Module, x: Array, call: Callable) -> Array:
  """What a layer gives for x."""
  y = call(x)
  a, b = _parts(own, x.shape[-1])
  return y + _layers.linear(module, x, a, y.dtype) @ b.astype(y.dtype)


def _merged(own: Leaves, layer: Leaves) -> dict[str, Array]:
  """The kernel that gives the same."""
  kernel = layer['kernel']
  return {'kernel': kernel + _layers.product(*_parts(own, kernel.shape[0]))}


_INTERCEPT = _layers.intercept(NAME, _call)
