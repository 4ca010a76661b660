"""SSF (Lian et al. 2022, arXiv:2210.08823): what layers and norms give is scaled and shifted."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from tlx.peft import Added, _layers, flat_of
from tlx.peft._layers import Leaves
from tlx.tree import is_added
from tlx.types import Array, PyTree

NAME = 'ssf'


def added(at: str = '.') -> Added:
  """gamma y + beta, channel by channel, of the layers and norms whose name matches a regex.

  gamma starts at 1 and beta at 0, where the official code draws them near that. Departs from it in
  giving a beta to those that have a bias only, so that all of it can be merged: the others are
  followed by one that has.

  Args:
    at: over names such as 'block0/attention/query', 'block0/norm1'; may match anywhere in them.

  Raises:
    ValueError: a bad regex. In `init`: a regex that matches nothing.
  """
  pattern = _layers.regex(NAME, 'at', at)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    flat, leaves, have = flat_of(params), {}, []
    for path, leaf in flat.items():
      module, _, name = path.rpartition('/')
      if '/' not in module or name not in ('kernel', 'scale') or is_added(path):
        continue
      have.append(module)
      if pattern.search(module):
        leaves[f'{module}/gamma'] = jnp.ones(leaf.shape[-1])
        if f'{module}/bias' in flat:
          leaves[f'{module}/beta'] = jnp.zeros(leaf.shape[-1])
    if not leaves:
      raise ValueError(f'ssf: nothing matches at={at!r}; have {", ".join(have) or "none"}.')
    return leaves

  merge = functools.partial(_layers.merge, NAME, _scaled)
  return Added(NAME, start, _INTERCEPT, merge, params=_PARAMS)


def _call(own: Leaves, module: nn.Module, x: Array, call: Callable) -> Array:
  """What a dense layer or a convolution gives for x; norms get other parameters."""
  y = call(x)
  if not isinstance(module, _layers.LAYERS):
    return y
  _layers.refuse_standardised(NAME, module)
  y = y * own['gamma'].astype(y.dtype)
  return y + own['beta'].astype(y.dtype) if 'beta' in own else y


def _scaled(own: Leaves, layer: Leaves) -> dict[str, Array]:
  """The parameters that give the same."""
  scaled = {name: leaf * own['gamma'] for name, leaf in layer.items()}
  if 'beta' in own:
    scaled['bias'] += own['beta']
  return scaled


def _norms_scaled(own: Leaves, layer: Leaves) -> dict[str, Array]:
  """What a norm runs with: its scale stands before a ReLU that is part of it."""
  return {} if 'kernel' in layer else _scaled(own, layer)


_INTERCEPT = _layers.intercept(NAME, _call, (nn.Module,))
_PARAMS = _layers.stage_params(_norms_scaled)
