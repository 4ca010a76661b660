"""LoHa (Hyeon-Woo et al. 2022, arXiv:2108.06098): kernels plus the product, entry by entry, of two
products of thin matrices, of rank r^2 with the parameters of rank 2 r.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from tlx.peft import Added, _layers
from tlx.peft._layers import Leaves, product
from tlx.types import Array, PyTree

NAME = 'loha'


def added(
  at: str = r'attention/(query|value)$', rank: int = 8, alpha: float | None = None
) -> Added:
  """kernel + (alpha / rank) (a1 b1) * (a2 b2) in the layers whose name matches a regex.

  a1 and a2 are [in, rank], of convolutions [h, w, in, rank]; b1 and b2 [rank, out]. As in the peft
  library a1 and a2 start normal of deviation 1, b1 of 0.1, and b2 zero. The kernel's whole gradient
  is computed: unlike LoRA's this saves parameters, and no operations.

  Args:
    alpha: 2 rank, where it is not given.

  Raises:
    ValueError: a bad option. In `init`: a regex that matches no layer, or a rank above the smaller
      side of a kernel as a matrix.
  """
  _layers.whole(NAME, 'rank', rank)
  alpha = _layers.positive(NAME, 'alpha', 2 * rank if alpha is None else alpha)
  pattern = _layers.regex(NAME, 'at', at)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    leaves = {}
    for name, shape in _layers.choose(NAME, pattern, params).items():
      _layers.check_rank(NAME, rank, name, shape)
      sizes = {'a1': (*shape[:-1], rank), 'b1': (rank, shape[-1])}
      sizes |= {'a2': sizes['a1'], 'b2': sizes['b1']}
      for leaf, deviation in {'a1': 1.0, 'b1': 0.1, 'a2': 1.0, 'b2': 0.0}.items():
        own = _layers.key_of(key, NAME, f'{name}/{leaf}')
        leaves[f'{name}/{leaf}'] = deviation * jax.random.normal(own, sizes[leaf])
    return leaves

  change = _change(alpha / rank)
  merge = functools.partial(_layers.merge, NAME, change)
  return Added(NAME, start, None, merge, params=_params(alpha / rank))


@functools.cache
def _params(scale: float) -> Callable[[PyTree, PyTree], PyTree]:
  return _layers.stage_params(_change(scale))


def _change(scale: float) -> Callable[[Leaves, Leaves], Mapping[str, Array]]:
  """What a layer's kernel becomes."""

  def change(own: Leaves, layer: Leaves) -> dict[str, Array]:
    both = product(own['a1'], own['b1']) * product(own['a2'], own['b2'])
    return {'kernel': layer['kernel'] + jnp.float32(scale) * both}

  return change
