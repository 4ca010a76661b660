"""LoRA (Hu et al. 2021, arXiv:2106.09685): dense layers plus a product of two thin matrices."""

import functools
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from tlx.peft import Added, flat_of, split, tree_of
from tlx.tree import is_added
from tlx.types import Array, PyTree

NAME = 'lora'


def added(
  at: str = r'attention/(query|value)$', rank: int = 8, alpha: float | None = None
) -> Added:
  """y = x kernel + bias + (alpha / rank) (x a) b in the dense layers whose name matches a regex.

  a [in, rank] starts uniform within 1 / sqrt(in), as in the peft library, and b [rank, out] zero,
  so the first step changes b alone. To have rsLoRA's factor alpha / sqrt(rank) (arXiv:2312.03732),
  give alpha times sqrt(rank). Departs from the paper in drawing `a` uniformly, not from a normal
  distribution, and in having no dropout.

  Args:
    at: over names such as 'block0/attention/query'; may match anywhere in them.
    alpha: 2 rank, where it is not given.

  Raises:
    ValueError: a rank that is no whole number from 1 on, an alpha that is not above 0, a bad regex.
      In `init`: a regex that matches no dense layer, or a rank above the smaller side of a kernel.
  """
  if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
    raise ValueError(f'lora wants a rank that is a whole number from 1 on, got rank={rank!r}.')
  alpha = 2 * rank if alpha is None else alpha
  if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float('inf'):
    raise ValueError(f'lora wants an alpha above 0, such as {2 * rank}, got alpha={alpha!r}.')
  try:
    pattern = re.compile(at)
  except (re.error, TypeError) as error:
    raise ValueError(f'lora wants a regular expression, got at={at!r}: {error}.') from None
  scale = alpha / rank
  return Added(
    NAME,
    functools.partial(_init, pattern, rank),
    _intercept(scale),
    functools.partial(_merge, scale),
  )


def _init(pattern: re.Pattern, rank: int, key: Array, params: PyTree) -> dict[str, Array]:
  """The leaves a and b of every dense layer that the pattern matches; each has a key of its own."""
  shapes = _dense_layers(params)
  chosen = [name for name in shapes if pattern.search(name)]
  if not chosen:
    have = ', '.join(shapes) or 'none'
    raise ValueError(f'lora: no dense layer matches at={pattern.pattern!r}; have {have}.')
  leaves = {}
  for name in chosen:
    rows, columns = shapes[name]
    if rank > min(rows, columns):
      raise ValueError(
        f'lora: rank={rank} is above {min(rows, columns)}, the smaller side of {name}/kernel '
        f'[{rows}, {columns}]. Take a smaller rank, or a pattern that leaves it out.'
      )
    own = jax.random.fold_in(key, zlib.crc32(f'{NAME}/{name}'.encode()))
    bound = rows**-0.5
    leaves[f'{name}/a'] = jax.random.uniform(own, (rows, rank), minval=-bound, maxval=bound)
    leaves[f'{name}/b'] = jnp.zeros((rank, columns))
  return leaves


def _dense_layers(params: PyTree) -> dict[str, tuple[int, int]]:
  """{'block0/attention/query': (in, out)}: modules inside a stage whose kernel is a matrix.

  Those that a method added are left out, and a stage that is itself one: that is the head, which is
  trained anyway.
  """
  found = {}
  for path, leaf in flat_of(params).items():
    module, _, name = path.rpartition('/')
    if name == 'kernel' and '/' in module and not is_added(path) and len(leaf.shape) == 2:
      found[module] = leaf.shape
  return found


@functools.cache
def _intercept(scale: float) -> Callable[[PyTree], Callable]:
  """What adds the product to the calls of the dense layers that have leaves."""

  def of_stage(leaves: Mapping[str, Any]) -> Callable:
    flat = flatten_dict(leaves)

    def intercept(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
      y = call(*args, **kwargs)
      path = context.module.path
      if (*path, 'a') not in flat or context.method_name != '__call__':
        return y
      if not isinstance(context.module, nn.Dense):
        kind = type(context.module).__name__
        raise ValueError(f'lora changes dense layers, and {"/".join(path)} is a {kind}.')
      a, b = (flat[*path, leaf].astype(y.dtype) for leaf in ('a', 'b'))
      return y + (args[0].astype(y.dtype) @ a) @ b * scale

    return intercept

  return of_stage


def _merge(scale: float, params: PyTree) -> PyTree:
  """The parameters with kernel + (alpha / rank) a b for every kernel that has leaves."""
  merged, leaves = split(params, NAME)
  for path, a in leaves.items():
    module, _, name = path.rpartition('/')
    if name == 'a':
      product = jnp.matmul(a, leaves[f'{module}/b'], precision='highest')
      merged[f'{module}/kernel'] = merged[f'{module}/kernel'] + scale * product
  return tree_of(merged)
