"""LoRA (Hu et al. 2021, arXiv:2106.09685): kernels plus a product of two thin matrices.

With its variants rsLoRA (Kalajdzievski 2023, arXiv:2312.03732), DoRA (Liu et al. 2024,
arXiv:2402.09353), PiSSA (Meng et al. 2024, arXiv:2404.02948) and EVA's start (Paischer et al. 2024,
arXiv:2410.07170). LoRA+ (Hayou et al. 2024, arXiv:2402.12354) is a rate of its own for the leaves
b: see docs/peft.md.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tlx.peft import Added, _layers, flat_of
from tlx.peft._layers import Leaves, product
from tlx.types import Array, PyTree

NAME = 'lora'
INITS = ('uniform', 'pissa', 'eva')
Patterns = Sequence[tuple[re.Pattern, float]]


def added(
  at: str = r'attention/(query|value)$',
  rank: int = 8,
  alpha: float | None = None,
  rank_pattern: Sequence[tuple[str, int]] = (),
  alpha_pattern: Sequence[tuple[str, float]] = (),
  rslora: bool = False,
  dora: bool = False,
  bias: bool = False,
  init: str = 'uniform',
) -> Added:
  """y = x (kernel + s a b) + bias in the layers whose name matches a regex, s = alpha / rank.

  A convolution's a is a kernel [h, w, in, rank] and its b [rank, out]; a depthwise one's a has
  in = 1. a starts uniform within 1 / sqrt(fan-in), as in the peft library, and b zero, so the first
  step changes b alone. Departs from the paper in drawing a uniformly, not from a normal
  distribution, and in having no dropout.

  Args:
    at: over names such as 'block0/attention/query'; may match anywhere in them.
    alpha: 2 rank, where it is not given.
    rank_pattern, alpha_pattern: (regex, value) pairs for some of these layers; the first that
      matches counts. Layers of another rank keep to alpha as it is.
    rslora: s = alpha / sqrt(rank).
    dora: the kernel's columns (all of what makes one output) have the norms
      |kernel| + `magnitude`, a trained leaf that starts at 0, whatever a b is; no gradient flows
      through the norm of kernel + s a b (Section 4.3).
    bias: a trained difference to the layer's bias, zero at the start.
    init: 'pissa': s a b starts as the best approximation of the kernel of that rank, and what it
      starts as is subtracted (leaves 'fixed/a' and 'fixed/b'), so the source's kernel stays and
      its other directions are frozen (equations 2 to 4). Wants the kernel's values.
      'eva': the columns of a are the directions in which the layer's inputs vary most, over the
      run's own examples: principal components, of length 1, as in the peft library with rho = 1
      (each layer keeps its rank: no budget is shared out by explained variance). They are of all
      examples (at most 1,000) at once, not of batches until they settle. Dense layers alone. Where
      inputs vary in fewer directions than the rank, the others are any at right angles.

  Raises:
    ValueError: a bad option. In `init`: a regex that matches no layer, or a rank above the smaller
      side of a kernel as a matrix.
  """
  _layers.whole(NAME, 'rank', rank)
  alpha = _layers.positive(NAME, 'alpha', 2 * rank if alpha is None else alpha)
  if init not in INITS:
    raise ValueError(f'lora wants an init of {", ".join(INITS)}, got init={init!r}.')
  ranks = _patterns('rank_pattern', rank_pattern, _layers.whole)
  alphas = _patterns('alpha_pattern', alpha_pattern, _layers.positive)
  pattern = _layers.regex(NAME, 'at', at)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    layers = _layers.choose(NAME, pattern, params)
    _check_used('rank_pattern', ranks, layers)
    _check_used('alpha_pattern', alphas, layers)
    flat = flat_of(params)
    leaves: dict[str, Array] = {}
    for name, shape in layers.items():
      of_layer, size = int(_value(ranks, name, rank)), _value(alphas, name, alpha)
      _layers.check_rank(NAME, of_layer, name, shape)
      if init == 'pissa':
        own = _principal(flat[f'{name}/kernel'], of_layer, _scale(rslora, size, of_layer))
      else:
        if init == 'eva' and len(shape) > 2:
          raise ValueError(
            f"lora: init='eva' is for dense layers, and {name} is a convolution. Take a pattern "
            "that leaves it out, or init='uniform'."
          )
        own = _uniform(_layers.key_of(key, NAME, name), of_layer, shape)
      if size != alpha:
        own['fixed/alpha'] = jnp.float32(size)
      if dora:
        own['magnitude'] = jnp.zeros(shape[-1])
      if bias and f'{name}/bias' in flat:
        own['bias'] = jnp.zeros(shape[-1])
      leaves |= {f'{name}/{leaf}': array for leaf, array in own.items()}
    if bias and not any(name.endswith('/bias') for name in leaves):
      raise ValueError(f'lora: bias=True, and none of {", ".join(layers)} has one.')
    return leaves

  merge = functools.partial(_layers.merge, NAME, functools.partial(_merged, alpha, rslora))
  method = Added(NAME, start, _intercept(alpha, rslora), merge)
  if init != 'eva':
    return method

  def watched(params: PyTree) -> tuple[str, ...]:
    return tuple(_layers.choose(NAME, pattern, params))

  def informed(covariances: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
      f'{name}/a': _directions(covariance, int(_value(ranks, name, rank)))
      for name, covariance in covariances.items()
    }

  return method._replace(watched=watched, informed=informed)


def _directions(covariance: np.ndarray, rank: int) -> np.ndarray:
  """float32 [D, rank]: eigenvectors of the largest eigenvalues, their largest entry positive."""
  vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :rank]
  largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], axis=0)
  return (vectors * np.sign(largest)).astype(np.float32)


def _patterns(option: str, pairs: Any, check: Callable) -> list[tuple[re.Pattern, float]]:
  """The compiled pairs.

  Raises:
    ValueError: no pairs, or a value that the option itself would not take.
  """
  found = []
  for pair in pairs if isinstance(pairs, list | tuple) else [pairs]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
      raise ValueError(f"lora wants pairs such as ('block0/', 4) in {option}, got {pair!r}.")
    found.append((_layers.regex(NAME, option, pair[0]), check(NAME, option, pair[1])))
  return found


def _check_used(option: str, patterns: Patterns, layers: PyTree) -> None:
  """Raises ValueError for a pattern that matches none of the layers."""
  for pattern, _ in patterns:
    if not any(map(pattern.search, layers)):
      raise ValueError(
        f'lora: {option} has {pattern.pattern!r}, which matches none of {", ".join(layers)}.'
      )


def _value(patterns: Patterns, name: str, default: float) -> float:
  """That of the first pattern which matches a layer's name."""
  return next((value for pattern, value in patterns if pattern.search(name)), default)


def _scale(rslora: bool, alpha: Any, rank: int) -> Any:
  return alpha / (rank**0.5 if rslora else rank)


def _uniform(key: Array, rank: int, shape: tuple[int, ...]) -> dict[str, Array]:
  bound = _layers.rows_of(shape) ** -0.5
  a = jax.random.uniform(key, (*shape[:-1], rank), minval=-bound, maxval=bound)
  return {'a': a, 'b': jnp.zeros((rank, shape[-1]))}


def _principal(kernel: Array, rank: int, scale: float) -> dict[str, Array]:
  """a and b whose scaled product is the part of a kernel with the largest singular values."""
  matrix = jnp.asarray(kernel).reshape(-1, kernel.shape[-1])
  left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
  root = jnp.sqrt(values[:rank] / scale)
  a = (left[:, :rank] * root).reshape(*kernel.shape[:-1], rank)
  b = root[:, None] * right[:rank]
  return {'a': a, 'b': b, 'fixed/a': a, 'fixed/b': b}


def _scale_of(alpha: float, rslora: bool, own: Leaves) -> Any:
  """The factor of a layer's product, whose alpha may be its own."""
  size = jax.lax.stop_gradient(own['fixed/alpha']) if 'fixed/alpha' in own else alpha
  return _scale(rslora, size, own['a'].shape[-1])


def _delta(scale: Any, own: Leaves) -> Array:
  """What is added to a kernel."""
  delta = product(own['a'], own['b'])
  if 'fixed/a' in own:
    delta -= product(*_fixed(own))
  return scale * delta


def _fixed(own: Leaves) -> tuple[Array, Array]:
  """The product that is subtracted, which is never trained."""
  return jax.lax.stop_gradient((own['fixed/a'], own['fixed/b']))


def _ratio(delta: Array, own: Leaves, kernel: Array) -> Array:
  """[out]: what the columns of kernel + delta are multiplied by in DoRA."""
  axes = tuple(range(kernel.ndim - 1))
  norm = lambda array: jnp.sqrt(jnp.square(array).sum(axes))
  return (norm(kernel) + own['magnitude']) / jax.lax.stop_gradient(norm(kernel + delta))


@functools.cache
def _intercept(alpha: float, rslora: bool) -> Callable[[PyTree], Callable]:
  return _layers.intercept(NAME, functools.partial(_call, alpha, rslora))


def _call(
  alpha: float, rslora: bool, own: Leaves, module: nn.Module, x: Array, call: Callable
) -> Array:
  """What a layer gives for x."""
  y = call(x)
  scale = _scale_of(alpha, rslora, own)
  if _layers.factors(module):
    more = _thin(own['a'], own['b'], module, x, y.dtype)
    if 'fixed/a' in own:
      more -= _thin(*_fixed(own), module, x, y.dtype)
    more *= jnp.asarray(scale, y.dtype)
  else:
    more = _layers.more(module, x, _delta(scale, own), y.dtype)
  if 'magnitude' in own:
    _layers.refuse_standardised('lora with dora=True', module)
    ratio = _ratio(_delta(scale, own), own, _layers.own_kernel(module)).astype(y.dtype)
    more = (ratio - 1) * (y - _layers.bias_of(module, y)) + ratio * more
  if 'bias' in own:
    more += own['bias'].astype(y.dtype)
  return y + more


def _thin(a: Array, b: Array, module: nn.Module, x: Array, dtype: Any) -> Array:
  """The layer by the kernel a b, by way of as many numbers a place as the rank is."""
  return _layers.linear(module, x, a, dtype) @ b.astype(dtype)


def _merged(alpha: float, rslora: bool, own: Leaves, layer: Leaves) -> dict[str, Array]:
  """The kernel, and the bias where that is trained, which give the same."""
  delta = _delta(_scale_of(alpha, rslora, own), own)
  kernel = layer['kernel'] + delta
  if 'magnitude' in own:
    kernel *= _ratio(delta, own, layer['kernel'])
  changed = {'kernel': kernel}
  if 'bias' in own:
    changed['bias'] = layer['bias'] + own['bias']
  return changed
