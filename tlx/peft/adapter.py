"""Bottleneck adapters: two thin dense layers and an activation, after or beside what is there.

Houlsby et al. 2019 (arXiv:1902.00751), Pfeiffer et al. 2021 (arXiv:2005.00247) and, in parallel,
He et al. 2022 (arXiv:2110.04366).
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tlx.peft import Added, _layers, flat_of
from tlx.peft._layers import Leaves
from tlx.tree import is_added
from tlx.types import Array, PyTree

NAME = 'adapter'


class Kind(NamedTuple):
  """Where adapters stand by default, their activation and what their output is multiplied by."""

  at: str
  activation: Callable[[Array], Array]
  scale: float = 1.0


KINDS = {
  'houlsby': Kind(r'(attention/out|mlp/down)$', functools.partial(nn.gelu, approximate=False)),
  'pfeiffer': Kind(r'mlp/down$', nn.relu),
  'parallel': Kind(r'mlp$', nn.relu, 4.0),
}


def added(kind: str = 'houlsby', size: int = 64, at: str | None = None) -> Added:
  """y + adapter(y) of what layers give; for kind 'parallel' mlp(x) + 4 adapter(x).

  adapter(h) = activation(h down + down_bias) up + up_bias, of `size` numbers between. 'houlsby'
  stands after the last layer of attention and of the MLP of each block, 'pfeiffer' after the MLP
  alone, both before the residual sum; with `at` after any dense layer or convolution (there a place
  at a time, as 1x1 convolutions). `down` starts uniform within 1 / sqrt(fan-in) and the rest at 0,
  so nothing changes at the start; the papers' own starts are near that. Departs from them in
  training no norms (a freezing policy may), and Pfeiffer's in standing before the residual sum.
  Not to be merged.

  Args:
    at: a regex over names of layers, 'block0/mlp/down'; for 'parallel' of modules that hold layers
      `up` and `down`, 'block0/mlp'. The kind's own where it is None.

  Raises:
    ValueError: a bad option. In `init`: a regex that matches nothing.
  """
  if kind not in KINDS:
    raise ValueError(f'adapter wants a kind of {", ".join(KINDS)}, got kind={kind!r}.')
  _layers.whole(NAME, 'size', size)
  pattern = _layers.regex(NAME, 'at', KINDS[kind].at if at is None else at)
  find = _mlps if kind == 'parallel' else _layers.choose

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    leaves: dict[str, Array] = {}
    for name, shape in find(NAME, pattern, params).items():
      width, bound = shape[-1], shape[-1] ** -0.5
      own = _layers.key_of(key, NAME, name)
      down = jax.random.uniform(own, (width, size), minval=-bound, maxval=bound)
      leaves |= {f'{name}/down': down, f'{name}/down_bias': jnp.zeros(size)}
      leaves |= {f'{name}/up': jnp.zeros((size, width)), f'{name}/up_bias': jnp.zeros(width)}
    return leaves

  return Added(NAME, start, _intercept(kind), None)


def _mlps(method: str, at: re.Pattern, params: PyTree) -> dict[str, tuple[int, ...]]:
  """{'block0/mlp': shape of its last kernel} of the MLPs whose name matches.

  Raises:
    ValueError: none does.
  """
  kernels = {}
  for path, leaf in flat_of(params).items():
    if path.endswith('/kernel') and not is_added(path):
      kernels[path.removesuffix('/kernel')] = tuple(leaf.shape)
  mlps = {}
  for name, shape in kernels.items():
    module, _, layer = name.rpartition('/')
    if layer == 'down' and f'{module}/up' in kernels:
      mlps[module] = shape
  chosen = {name: shape for name, shape in mlps.items() if at.search(name)}
  if not chosen:
    have = ', '.join(mlps) or 'none'
    raise ValueError(f'{method}: no MLP with up and down matches at={at.pattern!r}; have {have}.')
  return chosen


@functools.cache
def _intercept(kind: str) -> Callable[[PyTree], Callable]:
  return _layers.intercept(NAME, functools.partial(_call, kind), (nn.Module,))


def _call(kind: str, own: Leaves, module: nn.Module, x: Array, call: Callable) -> Array:
  """What a layer or an MLP gives for x."""
  y = call(x)
  h = x if kind == 'parallel' else y
  down, down_bias, up, up_bias = (
    own[leaf].astype(y.dtype) for leaf in ('down', 'down_bias', 'up', 'up_bias')
  )
  between = KINDS[kind].activation(h.astype(y.dtype) @ down + down_bias)
  return y + jnp.asarray(KINDS[kind].scale, y.dtype) * (between @ up + up_bias)
