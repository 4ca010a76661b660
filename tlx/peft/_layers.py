"""What methods that change dense layers and convolutions share."""

import functools
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tlx.backbones._layers import Conv, convolve
from tlx.peft import flat_of, split, tree_of
from tlx.tree import FIXED, is_added
from tlx.types import Array, PyTree

Leaves = Mapping[str, Array]


def regex(method: str, option: str, pattern: Any) -> re.Pattern:
  """The compiled pattern.

  Raises:
    ValueError: it is no regular expression.
  """
  try:
    return re.compile(pattern)
  except (re.error, TypeError) as error:
    raise ValueError(
      f'{method} wants a regular expression, got {option}={pattern!r}: {error}.'
    ) from None


def whole(method: str, option: str, value: Any) -> int:
  """The value.

  Raises:
    ValueError: it is no whole number from 1 on.
  """
  if not isinstance(value, int) or isinstance(value, bool) or value < 1:
    raise ValueError(
      f'{method} wants a {option} that is a whole number from 1 on, got {option}={value!r}.'
    )
  return value


def positive(method: str, option: str, value: Any) -> float:
  """The value.

  Raises:
    ValueError: it is no finite number above 0.
  """
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not 0 < value < float('inf'):
    raise ValueError(f'{method} wants a finite {option} above 0, got {option}={value!r}.')
  return value


def choose(
  method: str, at: re.Pattern, params: PyTree, convolutions: bool = True
) -> dict[str, tuple[int, ...]]:
  """{'block0/attention/query': shape of its kernel} of the layers whose name matches.

  Layers are modules inside a stage with a kernel, [in, out] or [h, w, in, out]. Left out are those
  that a method added, and a stage that is itself one: that is the head, which is trained anyway.

  Raises:
    ValueError: no layer matches.
  """
  layers = {}
  for path, leaf in flat_of(params).items():
    module, _, name = path.rpartition('/')
    dims = (2, 4) if convolutions else (2,)
    if name == 'kernel' and '/' in module and not is_added(path) and len(leaf.shape) in dims:
      layers[module] = tuple(leaf.shape)
  chosen = {name: shape for name, shape in layers.items() if at.search(name)}
  if not chosen:
    what = 'dense layer or convolution' if convolutions else 'dense layer'
    have = ', '.join(layers) or 'none'
    raise ValueError(f'{method}: no {what} matches at={at.pattern!r}; have {have}.')
  return chosen


def check_rank(method: str, rank: int, name: str, shape: Sequence[int]) -> None:
  """Nothing, where a product of that rank is thinner than the kernel.

  Raises:
    ValueError: it is not.
  """
  most = min(rows_of(shape), shape[-1])
  if rank > most:
    raise ValueError(
      f'{method}: rank={rank} is above {most}, the smaller side of {name}/kernel {list(shape)}'
      f'{f" as a matrix [{rows_of(shape)}, {shape[-1]}]" if len(shape) > 2 else ""}. Take a '
      'smaller rank, or a pattern that leaves it out.'
    )


def rows_of(shape: Sequence[int]) -> int:
  """How many numbers make one output of a kernel: its fan-in."""
  return functools.reduce(int.__mul__, shape[:-1])


def key_of(key: Array, method: str, name: str) -> Array:
  """A key of the leaf's own, whichever others there are."""
  return jax.random.fold_in(key, zlib.crc32(f'{method}/{name}'.encode()))


def by_layer(leaves: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """The leaves of each module.

  >>> by_layer({'query/a': 1, 'query/fixed/a': 2, 'fixed/b': 3})
  {'query': {'a': 1, 'fixed/a': 2}, '': {'fixed/b': 3}}
  """
  found: dict[str, dict[str, Any]] = {}
  for path, leaf in leaves.items():
    names = path.split('/')
    length = 2 if names[-2:-1] == [FIXED] else 1
    found.setdefault('/'.join(names[:-length]), {})['/'.join(names[-length:])] = leaf
  return found


LAYERS = (nn.Dense, Conv)


def intercept(
  method: str, change: Callable, kinds: tuple[type, ...] = LAYERS
) -> Callable[[PyTree], Callable]:
  """`Added.intercept` where `change(leaves, module, x, call)` gives what a layer gives for x.

  `leaves` are those of the layer and those of its whole stage; `call(x)` is what it gives without
  them. `kinds` are what modules with leaves may be.
  """

  def of_stage(leaves: PyTree) -> Callable:
    layers = by_layer(flat_of(leaves))
    shared = layers.pop('', {})

    def around(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
      own = layers.get('/'.join(context.module.path))
      if own is None or context.method_name != '__call__':
        return call(*args, **kwargs)
      if not isinstance(context.module, kinds):
        kind, name = type(context.module).__name__, '/'.join(context.module.path)
        raise ValueError(f'{method} changes dense layers and convolutions, and {name} is a {kind}.')
      x, *rest = args
      own_call = functools.partial(_call, call, rest, kwargs)
      return change({**shared, **own}, context.module, x, own_call)

    return around

  return of_stage


def _call(call: Callable, rest: Sequence[Any], options: Mapping[str, Any], x: Array) -> Any:
  """What `call` gives for x and the arguments that come with it."""
  return call(x, *rest, **options)


def standardises(module: nn.Module) -> bool:
  """Whether a convolution makes another kernel of its parameter before it convolves, as BiT's."""
  return isinstance(module, Conv) and type(module).used is not Conv.used


def refuse_standardised(method: str, module: nn.Module) -> None:
  """Nothing, where a kernel is used as it is.

  Raises:
    ValueError: it is standardised first, which would undo a scale.
  """
  if standardises(module):
    raise ValueError(
      f'{method} scales what a kernel gives, and {"/".join(module.path)} standardises its kernel. '
      'Take a pattern that leaves it out, or another method.'
    )


def linear(module: nn.Module, x: Array, kernel: Array, dtype: Any) -> Array:
  """What a layer without bias makes of x by another kernel than its own."""
  if isinstance(module, nn.Dense):
    return x.astype(dtype) @ kernel.astype(dtype)
  return convolve(x.astype(dtype), module.used(kernel).astype(dtype), module.stride, module.padding)


def factors(module: nn.Module) -> bool:
  """Whether a layer by the kernel a b is the layer by a, and then b: no gradient of a whole kernel.

  Not where it is depthwise, and not where it is no linear function of its kernel.
  """
  return not standardises(module) and not getattr(module, 'depthwise', False)


def more(module: nn.Module, x: Array, delta: Array, dtype: Any) -> Array:
  """What a layer gives more of x where its kernel is more by delta."""
  if not standardises(module):
    return linear(module, x, delta, dtype)
  kernel = own_kernel(module)
  return linear(module, x, kernel + delta, dtype) - linear(module, x, kernel, dtype)


def product(a: Array, b: Array) -> Array:
  """a [.., r] times b [r, out], a kernel."""
  return jnp.matmul(a, b, precision='highest')


def own_kernel(module: nn.Module) -> Array:
  """The kernel that a layer would use."""
  return module.get_variable('params', 'kernel')


def bias_of(module: nn.Module, like: Array) -> Array:
  """The bias of a layer, or 0, in the type of its output."""
  if not module.use_bias:
    return jnp.zeros((), like.dtype)
  return module.get_variable('params', 'bias').astype(like.dtype)


def merge(method: str, change: Callable, params: PyTree) -> PyTree:
  """`Added.merge` where `change(leaves, {'kernel': ..})` gives what a layer's own leaves become."""
  merged, leaves = split(params, method)
  layers = by_layer(leaves)
  for module, own in layers.items():
    stage, _, inside = module.partition('/')
    if inside:
      merged |= _changed(change, {**layers.get(stage, {}), **own}, module, merged)
  return tree_of(merged)


def stage_params(change: Callable) -> Callable[[PyTree, PyTree], PyTree]:
  """`Added.params` where `change` is as for `merge`."""

  def of_stage(leaves: PyTree, params: PyTree) -> PyTree:
    flat, layers = flat_of(params), by_layer(flat_of(leaves))
    for module, own in layers.items():
      flat |= _changed(change, own, module, flat)
    return tree_of(flat)

  return of_stage


def _changed(change: Callable, own: Leaves, module: str, flat: Mapping[str, Any]) -> dict[str, Any]:
  names = ('kernel', 'bias', 'scale')
  layer = {name: flat[f'{module}/{name}'] for name in names if f'{module}/{name}' in flat}
  return {f'{module}/{name}': leaf for name, leaf in change(own, layer).items()}
