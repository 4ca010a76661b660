"""(IA)3 (Liu et al. 2022, arXiv:2205.05638): what layers give, or take, times a learned vector."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from tlx.peft import Added, _layers
from tlx.peft._layers import Leaves
from tlx.types import Array, PyTree

NAME = 'ia3'


def added(at: str = r'attention/(key|value)$|mlp/down$', inputs: str = r'mlp/down$') -> Added:
  """y = (x kernel + bias) scale in the layers whose name matches a regex; or of x scale_in.

  The vectors start at 1. `scale_in` [in] is for the layers that match `inputs` too, where the paper
  scales the activations inside of an MLP; the others have `scale` [out]. Convolutions are scaled by
  channel, as in the peft library.

  Raises:
    ValueError: a bad regex. In `init`: `at` matches no layer, or `inputs` a convolution of one
      channel or a depthwise one (take it out of `inputs`).
  """
  pattern = _layers.regex(NAME, 'at', at)
  of_inputs = _layers.regex(NAME, 'inputs', inputs)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    leaves = {}
    for name, shape in _layers.choose(NAME, pattern, params).items():
      if not of_inputs.search(name):
        leaves[f'{name}/scale'] = jnp.ones(shape[-1])
        continue
      if len(shape) == 4 and shape[2] == 1:
        raise ValueError(
          f'ia3: inputs={inputs!r} matches {name}, a depthwise convolution {list(shape)}; take it '
          'out of there: its outputs are its inputs, channel by channel.'
        )
      leaves[f'{name}/scale_in'] = jnp.ones(shape[-2])
    return leaves

  return Added(NAME, start, _INTERCEPT, functools.partial(_layers.merge, NAME, _merged))


def _call(own: Leaves, module: nn.Module, x: Array, call: Callable) -> Array:
  """What a layer gives for x."""
  if 'scale_in' in own:
    return call(x * own['scale_in'].astype(x.dtype))
  _layers.refuse_standardised(NAME, module)
  y = call(x)
  return y * own['scale'].astype(y.dtype)


def _merged(own: Leaves, layer: Leaves) -> dict[str, Array]:
  """The kernel and bias that give the same."""
  if 'scale_in' in own:
    return {'kernel': layer['kernel'] * own['scale_in'][:, None]}
  return {name: leaf * own['scale'] for name, leaf in layer.items()}


_INTERCEPT = _layers.intercept(NAME, _call)
