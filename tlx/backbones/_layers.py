"""Layers that several vision backbones share, written so that they are fast where they run.

XLA on CPU is slow at depthwise convolutions, at small ones, and inside a loop at the gradients it
derives of any. There, the first are shifted multiply-adds, the second patches times a matrix, and
the rest have gradients of the form it is fast at. Kernels (HWIO) and results are the same.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tlx.plug import closest
from tlx.types import Array, PyTree

Options = TypeVar('Options')
he_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'truncated_normal')
Pads = tuple[tuple[int, int], tuple[int, int]]
# up to which all patches of a batch stay in a CPU's cache: times a matrix they are faster than a
# convolution
PATCH_BYTES = 5e6


def resolve(
  defaults: Options,
  variants: Mapping[str, Mapping[str, Any]],
  variant: str | None,
  changes: Mapping[str, Any],
) -> Options:
  """The options of a backbone: its defaults (a NamedTuple), changed by a variant and by the caller.

  Raises:
    ValueError: an unknown variant, option or dtype.
  """
  fields: tuple[str, ...] = defaults._fields  # type: ignore[attr-defined]
  if variant is not None and variant not in variants:
    raise ValueError(
      f'Unknown variant {variant!r}; have {", ".join(variants)}.{closest(variant, variants)}'
    )
  unknown = [name for name in changes if name not in fields]
  if unknown:
    raise ValueError(
      f'Unknown option {unknown[0]!r}; have {", ".join(fields)}.{closest(unknown[0], fields)}'
    )
  options = defaults._replace(**{**(variants[variant] if variant else {}), **changes})  # type: ignore[attr-defined]
  compute_dtype(options.dtype)
  choose('precision', options.precision, tuple(PRECISIONS))
  return options


# Of products of float32 numbers on accelerators, and what JAX calls it: exact to float32, or faster
# and to the 10 bits of TF32 (on TPUs to three products of bfloat16). A CPU has but the first.
PRECISIONS = {'float32': 'highest', 'tf32': 'high'}


def at_precision(precision: str) -> Any:
  """A decorator of what is traced with products at one of `PRECISIONS`."""
  return jax.default_matmul_precision(PRECISIONS[precision])


def compute_dtype(dtype: str) -> jnp.dtype:
  """The dtype activations are computed in; parameters are float32 always.

  Raises:
    ValueError: neither 'float32' nor 'bfloat16'.
  """
  return jnp.dtype(choose('dtype', dtype, ('float32', 'bfloat16')))


def choose(option: str, got: str, choices: Sequence[str]) -> str:
  """`got`, which must be one of `choices`.

  Raises:
    ValueError: it is not; the message lists them.
  """
  if got not in choices:
    raise ValueError(
      f'Option {option} is {got!r}; choose one of {", ".join(repr(choice) for choice in choices)}.'
    )
  return got


def sizes(option: str, got: Sequence[int], length: int | None = None) -> tuple[int, ...]:
  """`got` as a tuple of positive integers, of the given length where one is given.

  Raises:
    ValueError: it is not.
  """
  listed = tuple(got) if isinstance(got, Sequence) and not isinstance(got, str) else ()
  if (
    not listed
    or any(not isinstance(size, int) or size < 1 for size in listed)
    or length not in (None, len(listed))
  ):
    wanted = 'one or more' if length is None else str(length)
    raise ValueError(
      f'Option {option} is {got!r}; give {wanted} positive integers, such as '
      f'{(8,) * (length or 2)}.'
    )
  return listed


def pads_of(padding: int | str, size: Sequence[int], kernel: Sequence[int], stride: int) -> Pads:
  """((top, bottom), (left, right)) zeros around an image: one number, or TensorFlow's 'SAME'.

  >>> pads_of('SAME', (224, 224), (3, 3), 2)
  ((0, 1), (0, 1))
  """
  if padding == 'SAME':
    totals = [
      max((-(-length // stride) - 1) * stride + width - length, 0)
      for length, width in zip(size, kernel)
    ]
    top, left = totals[0] // 2, totals[1] // 2
    return (top, totals[0] - top), (left, totals[1] - left)
  return (int(padding), int(padding)), (int(padding), int(padding))


class TooSmallError(ValueError):
  """An image has fewer places than a window that must see one."""


def check_window(size: Sequence[int], kernel: Sequence[int], pads: Pads = ((0, 0), (0, 0))) -> None:
  """Nothing, where a window of kernel[:2] places fits into an image with its padding.

  Raises:
    TooSmallError: it does not; nothing would be left of the image.
  """
  if any(length + sum(pad) < width for length, pad, width in zip(size, pads, kernel)):
    raise TooSmallError(
      f'{size[0]} x {size[1]} places, where a window of {kernel[0]} x {kernel[1]} must fit'
    )


def convolve(
  x: Array, kernel: Array, stride: int = 1, padding: int | str = 0, backend: str | None = None
) -> Array:
  """The convolution of images [B, H, W, C] with a kernel [h, w, C, K] (depthwise [h, w, 1, C]).

  `backend` is where it will run ('cpu' or another), by default where JAX runs.

  Raises:
    TooSmallError: the image is smaller than the kernel.
  """
  pads = pads_of(padding, x.shape[1:3], kernel.shape, stride)
  check_window(x.shape[1:3], kernel.shape, pads)
  depthwise = kernel.shape[2] == 1 and kernel.shape[3] == x.shape[3] > 1
  any_number = not isinstance(x.shape[0], int)  # of images: the program is exported
  if any_number or (backend or jax.default_backend()) != 'cpu':
    return _lax_conv(x, kernel, stride, pads, feature_group_count=x.shape[3] if depthwise else 1)
  if depthwise:
    return _depthwise(x, kernel, stride, pads)
  places = [
    (length + sum(pad) - width) // stride + 1
    for length, pad, width in zip(x.shape[1:3], pads, kernel.shape)
  ]
  overlap = stride < max(kernel.shape[:2])
  if (
    overlap
    and x.shape[0] * math.prod(places) * math.prod(kernel.shape[:3]) * x.dtype.itemsize
    > PATCH_BYTES
  ):
    return _dense(x, kernel, stride, pads)
  patches = jnp.concatenate(_taps(x, kernel.shape, stride, pads), axis=-1)  # [B, H', W', h w C]
  flat = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
  return flat.reshape(*patches.shape[:3], kernel.shape[-1])


def _lax_conv(x: Array, kernel: Array, stride: int, pads: Pads, **options: Any) -> Array:
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **options
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
  """A convolution whose gradients are fast inside a loop too."""
  return _lax_conv(x, kernel, stride, pads)


def _dense_forward(
  x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
  return _dense(x, kernel, stride, pads), (x, kernel)


def _dense_backward(
  stride: int, pads: Pads, saved: tuple[Array, Array], output: Array
) -> tuple[Array, Array]:
  """Both gradients as convolutions of NHWC images, HWIO kernels, with transpositions written out.

  Those that differentiation gives have their dimensions in another order, which XLA on CPU turns
  round outside of loops only; inside, they take 60 to 160 times as long (docs/performance.md).
  """
  x, kernel = saved
  image_pads, spans = _transposed(x.shape, kernel.shape, output.shape, stride, pads)
  image_gradient = _lax_conv(
    output, kernel[::-1, ::-1].swapaxes(2, 3), 1, image_pads, lhs_dilation=(stride, stride)
  )
  after = [
    width - 1 + span - length - pad
    for (pad, _), width, span, length in zip(pads, kernel.shape, spans, x.shape[1:3])
  ]
  kernel_pads = (pads[0][0], after[0]), (pads[1][0], after[1])
  kernel_gradient = _lax_conv(
    x.transpose(3, 1, 2, 0),
    output.transpose(1, 2, 0, 3),
    1,
    kernel_pads,
    rhs_dilation=(stride, stride),
  )
  return image_gradient, kernel_gradient.transpose(1, 2, 0, 3)


_dense.defvjp(_dense_forward, _dense_backward)


def _transposed(
  image: Sequence[int], kernel: Sequence[int], output: Sequence[int], stride: int, pads: Pads
) -> tuple[Pads, Sequence[int]]:
  """(zeros around an output, spread by the stride, for the gradient of its image; what one place of
  the kernel sees, from first to last).
  """
  spans = [(length - 1) * stride + 1 for length in output[1:3]]
  before = [width - 1 - pad for (pad, _), width in zip(pads, kernel)]
  after = [
    length + width - 1 - first - span
    for length, width, first, span in zip(image[1:3], kernel, before, spans)
  ]
  return ((before[0], after[0]), (before[1], after[1])), spans


def _taps(x: Array, kernel: Sequence[int], stride: int, pads: Pads) -> list[Array]:
  """For each place of the kernel, row by row, what it sees of the image: [B, H', W', C]."""
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  rows, columns = ((length - width) // stride + 1 for length, width in zip(x.shape[1:3], kernel))
  if stride == kernel[0] == kernel[1]:  # disjoint patches: one transpose, no strided slices
    x = x[:, : rows * stride, : columns * stride]
    x = x.reshape(x.shape[0], rows, stride, columns, stride, x.shape[3])
    return [x.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], rows, columns, -1)]
  taps = []
  for i in range(kernel[0]):
    down = slice(i, i + (rows - 1) * stride + 1, stride)
    for j in range(kernel[1]):
      taps.append(x[:, down, j : j + (columns - 1) * stride + 1 : stride])
  return taps


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
  """A depthwise convolution as a sum, in float32, of shifted images, one a place of the kernel."""
  weights = kernel.reshape(-1, x.shape[3]).astype(jnp.float32)
  shifted = (
    tap.astype(jnp.float32) * weight
    for tap, weight in zip(_taps(x, kernel.shape, stride, pads), weights)
  )
  return functools.reduce(jnp.add, shifted).astype(x.dtype)


def _depthwise_forward(
  x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
  return _depthwise(x, kernel, stride, pads), (x, kernel)


def _depthwise_backward(
  stride: int, pads: Pads, saved: tuple[Array, Array], output: Array
) -> tuple[Array, Array]:
  """The gradients of image and kernel; derived ones take twice as long to run and to compile."""
  x, kernel = saved
  height, width = kernel.shape[:2]
  (rows_around, columns_around), seen = _transposed(
    x.shape, kernel.shape, output.shape, stride, pads
  )
  spread = jax.lax.pad(
    output,
    jnp.zeros((), output.dtype),
    ((0, 0, 0), (*rows_around, stride - 1), (*columns_around, stride - 1), (0, 0, 0)),
  )
  image_gradient = _depthwise(spread, kernel[::-1, ::-1], 1, ((0, 0), (0, 0)))
  padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))

  rows = max(
    n
    for n in range(1, output.shape[1] + 1)
    if output.shape[1] % n == 0 and n * height * width <= max(50, height * width)
  )

  def add(sums: list[Array], block: Array) -> tuple[list[Array], None]:
    image, first = block // (output.shape[1] // rows), block % (output.shape[1] // rows) * rows
    for i in range(height):
      for j in range(width):
        for y in range(rows):
          seen_row = jax.lax.dynamic_slice(
            padded, (image, (first + y) * stride + i, j, 0), (1, 1, seen[1], x.shape[3])
          )[:, :, ::stride]
          row = jax.lax.dynamic_slice(output, (image, first + y, 0, 0), (1, 1, *output.shape[2:]))
          sums[i * width + j] += (seen_row * row).astype(jnp.float32)
    return sums, None

  zeros = [jnp.zeros((1, 1, *output.shape[2:]), jnp.float32)] * (height * width)
  sums, _ = jax.lax.scan(add, zeros, jnp.arange(output.shape[0] * output.shape[1] // rows))
  kernel_gradient = jnp.stack([one.sum((0, 1, 2)) for one in sums]).reshape(kernel.shape)
  return image_gradient, kernel_gradient.astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def max_pool(
  x: Array, width: int, stride: int, padding: int = 0, backend: str | None = None
) -> Array:
  """The maximum over windows of an image [B, H, W, C], padded with zeros (as good as -inf after a
  ReLU): on a CPU over rows, then over columns, elsewhere by lax. Of places that share a maximum,
  the first has all of the gradient there, and on a CPU each its share.

  `backend` is where it will run, as in `convolve`.

  Raises:
    TooSmallError: the image is smaller than a window.
  """
  check_window(x.shape[1:3], (width, width), ((padding, padding), (padding, padding)))
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  if (backend or jax.default_backend()) != 'cpu':
    window, strides = (1, width, width, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, 'VALID')
  for axis in (1, 2):
    last = (x.shape[axis] - width) // stride * stride
    x = functools.reduce(
      jnp.maximum, (jax.lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(width))
    )
  return x


class Conv(nn.Module):
  """A convolution with parameters `kernel` [h, w, C, K] (depthwise [h, w, 1, C]) and `bias` [K]."""

  features: int
  width: int = 3
  stride: int = 1
  padding: int | str = 0
  depthwise: bool = False
  use_bias: bool = False
  dtype: jnp.dtype = jnp.dtype('float32')
  kernel_init: Callable = he_normal

  @nn.compact
  def __call__(self, x: Array) -> Array:
    inputs = 1 if self.depthwise else x.shape[-1]
    kernel = self.param(
      'kernel', self.kernel_init, (self.width, self.width, inputs, self.features), jnp.float32
    )
    x = convolve(
      x.astype(self.dtype), self.used(kernel).astype(self.dtype), self.stride, self.padding
    )
    if self.use_bias:
      x = x + self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32).astype(
        self.dtype
      )
    return x

  def used(self, kernel: Array) -> Array:
    """The kernel that convolves, given the parameter; a place for subclasses to normalise it."""
    return kernel


class Head(nn.Module):
  """Logits [B, K] in float32 from features [B, D]: parameters `head/kernel` and `head/bias`."""

  num_classes: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    kernel = self.param(
      'kernel', nn.initializers.lecun_normal(), (x.shape[-1], self.num_classes), jnp.float32
    )
    bias = self.param('bias', nn.initializers.zeros, (self.num_classes,), jnp.float32)
    return x.astype(jnp.float32) @ kernel + bias


class Pool(nn.Module):
  """The mean over an image's places: [B, H, W, C] to [B, C]."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return x.mean((1, 2), dtype=jnp.float32).astype(x.dtype)


class Average(nn.Module):
  """The mean over the places of an image [B, H, W, C] or over tokens ([B, T, D], or a dict with
  their mask); vectors as they are.

  With `grid` = n, an image's means over n x n cells, row by row, as one vector [B, n n C]. A cell
  goes from the place that its first edge falls into to the one that its last edge falls into, so
  that cells share places where n does not divide the image.
  """

  grid: int = 1

  @nn.compact
  def __call__(self, x: PyTree, train: bool) -> Array:
    if self.grid > 1:
      return self._cells(x)
    if isinstance(x, Mapping) and 'mask' not in x:  # kept for a head over several stages
      seen = x['seen']
      return (
        self(x['through'], train)
        if 'through' in x
        else jnp.concatenate([self(seen[stage], train) for stage in sorted(seen)], axis=-1)
      )
    if isinstance(x, Mapping):
      weight = (x['mask'] != 0).astype(jnp.float32)[..., None]
      return (x['hidden'] * weight).sum(1, dtype=jnp.float32) / jnp.maximum(weight.sum(1), 1.0)
    return x.mean(tuple(range(1, x.ndim - 1)), dtype=jnp.float32)

  def _cells(self, x: PyTree) -> Array:
    shape = jnp.shape(x) if not isinstance(x, Mapping) else ()
    if len(shape) != 4 or min(shape[1:3]) < self.grid:
      got = (
        f'an image of {shape[1]} x {shape[2]} places'
        if len(shape) == 4
        else 'no image [B, H, W, C]'
      )
      raise ValueError(
        f'A grid of {self.grid} x {self.grid} is an average over the places of an image with at '
        f'least as many, and the stage gives {got}. Take a smaller grid, another stage or larger '
        'images.'
      )
    rows, columns = (shares(length, self.grid) for length in shape[1:3])
    means = jnp.einsum(
      'ih,jw,bhwc->bijc', rows, columns, x.astype(jnp.float32), precision='highest'
    )
    return means.reshape(shape[0], -1)


def shares(length: int, cells: int) -> np.ndarray:
  """[cells, length]: how much each place counts in the mean of each cell.

  >>> shares(3, 2)
  array([[0.5, 0.5, 0. ],
         [0. , 0.5, 0.5]], dtype=float32)
  """
  shares = np.zeros((cells, length), np.float32)
  for cell in range(cells):
    first, last = cell * length // cells, -(-(cell + 1) * length // cells)
    shares[cell, first:last] = 1 / (last - first)
  return shares


class Flatten(nn.Module):
  """All numbers of an example as one float32 vector [B, D]."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return x.reshape(x.shape[0], -1).astype(jnp.float32)
