"""OFT (Qiu et al. 2023, arXiv:2306.07280): what dense layers take is rotated, block by block."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tlx.peft import Added, _layers
from tlx.peft._layers import Leaves
from tlx.types import Array, PyTree

NAME = 'oft'


def added(at: str = r'attention/(query|value)$', block: int = 32) -> Added:
  """y = (x R) kernel + bias in the dense layers whose name matches a regex.

  R is orthogonal and consists of blocks (I - Q) (I + Q)^-1 along its diagonal, Cayley's form of the
  skew-symmetric Q whose entries above the diagonal, row by row, are the leaf 'skew'
  [in / block, block (block - 1) / 2]. It starts at 0, where R is I. Angles between the outputs'
  weights stay as they are. As in the peft library, without its constraint on the norm of Q.

  Raises:
    ValueError: a block that is no whole number from 2 on, a bad regex. In `init`: a regex that
      matches no dense layer, or a block that does not divide what a layer takes.
  """
  if _layers.whole(NAME, 'block', block) == 1:
    raise ValueError('oft: block=1 has nothing to rotate; take 2 or more.')
  pattern = _layers.regex(NAME, 'at', at)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    leaves = {}
    for name, shape in _layers.choose(NAME, pattern, params, convolutions=False).items():
      if shape[0] % block:
        raise ValueError(f'oft: block={block} does not divide {shape[0]}, what {name} takes.')
      leaves[f'{name}/skew'] = jnp.zeros((shape[0] // block, block * (block - 1) // 2))
    return leaves

  intercept, change = _intercept(block), functools.partial(_merged, block)
  return Added(NAME, start, intercept, functools.partial(_layers.merge, NAME, change))


@functools.cache
def _intercept(block: int) -> Callable[[PyTree], Callable]:
  return _layers.intercept(NAME, functools.partial(_call, block))


def _rotations(block: int, skew: Array) -> Array:
  """[blocks, block, block]: Cayley's orthogonal matrices."""
  above = np.triu_indices(block, 1)
  upper = jnp.zeros((len(skew), block, block)).at[:, *above].set(skew)
  skewed, identity = upper - upper.swapaxes(1, 2), jnp.eye(block)
  # X (I + Q) = I - Q, transposed; both sides are functions of Q and commute
  solved = jnp.linalg.solve((identity + skewed).swapaxes(1, 2), (identity - skewed).swapaxes(1, 2))
  return solved.swapaxes(1, 2)


def _call(block: int, own: Leaves, module: nn.Module, x: Array, call: Callable) -> Array:
  """What a layer gives for x."""
  rotations = _rotations(block, own['skew']).astype(x.dtype)
  parts = x.reshape(*x.shape[:-1], -1, block)
  return call(jnp.einsum('...ni,nij->...nj', parts, rotations).reshape(x.shape))


def _merged(block: int, own: Leaves, layer: Leaves) -> dict[str, Array]:
  """The kernel that gives the same."""
  kernel = layer['kernel']
  parts = kernel.reshape(-1, block, kernel.shape[-1])
  rotations = _rotations(block, own['skew'])
  rotated = jnp.einsum('nij,njo->nio', rotations, parts, precision='highest')
  return {'kernel': rotated.reshape(kernel.shape)}
