"""LoKr (Yeh et al. 2024, arXiv:2309.14859): kernels plus a Kronecker product of small matrices."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tlx.peft import Added, _layers
from tlx.peft._layers import Leaves, product
from tlx.types import Array, PyTree

NAME = 'lokr'


def added(
  at: str = r'attention/(query|value)$',
  rank: int = 8,
  alpha: float | None = None,
  factor: int = -1,
) -> Added:
  """kernel + (alpha / rank) kron(w1, w2) in the layers whose name matches a regex.

  w1 [in1, out1] and w2 [in2, out2], with in = in1 in2 and out = out1 out2; a convolution's places
  belong to w2 [h, w, in2, out2]. w2 is a product a b of that rank where rank is below
  max(in2, out2) / 2, as in the peft library; the leaf w2 otherwise. w1 starts at 0, the others
  uniform within 1 / sqrt(fan-in).

  Args:
    alpha: 2 rank, where it is not given.
    factor: in1 and out1, where it divides in and out; else (and for -1) the largest divisors that
      do not exceed their counterparts, nor the factor where there is one.

  Raises:
    ValueError: a bad option. In `init`: a regex that matches no layer, or a rank above the smaller
      side of a kernel as a matrix.
  """
  _layers.whole(NAME, 'rank', rank)
  alpha = _layers.positive(NAME, 'alpha', 2 * rank if alpha is None else alpha)
  if factor != -1:
    _layers.whole(NAME, 'factor', factor)
  pattern = _layers.regex(NAME, 'at', at)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    leaves = {}
    for name, shape in _layers.choose(NAME, pattern, params).items():
      _layers.check_rank(NAME, rank, name, shape)
      (in1, in2), (out1, out2) = (factors(size, factor) for size in shape[-2:])
      sizes = {'w2': (*shape[:-2], in2, out2)}
      if rank < max(in2, out2) / 2:
        sizes = {'a': (*shape[:-2], in2, rank), 'b': (rank, out2)}
      leaves[f'{name}/w1'] = jnp.zeros((in1, out1))
      for leaf, size in sizes.items():
        bound = _layers.rows_of(size) ** -0.5
        own = _layers.key_of(key, NAME, f'{name}/{leaf}')
        leaves[f'{name}/{leaf}'] = jax.random.uniform(own, size, minval=-bound, maxval=bound)
    return leaves

  merge = functools.partial(_layers.merge, NAME, functools.partial(_change, alpha / rank))
  return Added(NAME, start, None, merge, params=_params(alpha / rank))


def factors(size: int, factor: int = -1) -> tuple[int, int]:
  """The two factors of a size, the smaller first, as in the peft library's `factorization`.

  >>> factors(48), factors(48, 4), factors(7)
  ((6, 8), (4, 12), (1, 7))
  """
  if factor > 0 and size % factor == 0:
    return min(factor, size // factor), max(factor, size // factor)
  most = size if factor == -1 else factor
  divisors = [low for low in range(1, most + 1) if size % low == 0 and low * low <= size]
  return divisors[-1], size // divisors[-1]


@functools.cache
def _params(scale: float) -> Callable[[PyTree, PyTree], PyTree]:
  return _layers.stage_params(functools.partial(_change, scale))


def _change(scale: float, own: Leaves, layer: Leaves) -> dict[str, Array]:
  """What a layer's kernel becomes."""
  kernel = layer['kernel']
  w2 = own['w2'] if 'w2' in own else product(own['a'], own['b'])
  delta = jnp.einsum('ij,...kl->...ikjl', own['w1'], w2).reshape(kernel.shape)
  return {'kernel': kernel + jnp.float32(scale) * delta}
