"""What the layers of a stage are given, for methods that start from it (`Added.watched`)."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from tlx.types import Array, PyTree


@functools.cache
def seen_of(layers: tuple[str, ...]) -> Callable[[PyTree], Callable]:
  """`Edit.intercept` with which a stage gives (its output, {layer: (its input, which places of it
  are no padding)}).
  """

  def of_stage(leaves: PyTree) -> Callable:
    found: dict[str, Any] = {}
    padding: list[Array] = []

    def around(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
      name = '/'.join(context.module.path)
      if context.method_name != '__call__':
        return call(*args, **kwargs)
      if not name and isinstance(args[0], Mapping) and 'mask' in args[0]:
        padding.append(args[0]['mask'] != 0)
      if name in layers:
        found[name] = args[0], _counted(args[0], padding)
      given = call(*args, **kwargs)
      return given if name else (given, dict(found))

    return around

  return of_stage


def _counted(x: Array, padding: Sequence[Array]) -> Array:
  """Which places of x [..., D] are no padding; blocks may have taken tokens [B, T] as one axis."""
  places = x.shape[:-1]
  if padding and padding[0].size == math.prod(places):
    return padding[0].reshape(places).astype(jnp.float32)
  return jnp.ones(places)
