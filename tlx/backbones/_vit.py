"""Vision transformers, as vit.py and clip.py build them: of an image's patches, tokens; of tokens,
blocks.

`o` are the options of a backbone: dim, heads, patch, image_size, mlp_ratio, class_token,
class_position, registers, layer_scale, qkv_bias, pool, gelu, norm_eps, dtype.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tlx.backbones._attention import ACTIVATIONS, attend
from tlx.backbones._layers import Conv, compute_dtype, sizes
from tlx.backbones._norms import LayerNorm
from tlx.types import Array

GELUS = {'exact': 'gelu', 'tanh': 'gelu_tanh', 'quick': 'quick_gelu'}
dense_init = nn.initializers.truncated_normal(0.02)


def whole_patches(option: str, size: int | Sequence[int], patch: int) -> tuple[int, ...]:
  """(height, width) of an image of whole patches."""
  height, width = sizes(option, (size,) * 2 if isinstance(size, int) else size, 2)
  if height % patch or width % patch:
    raise ValueError(
      f'Option {option} is {(height, width)}, no multiple of the patch size {patch}; choose other '
      'sizes.'
    )
  return height, width


def side_of_square(image_size: Any) -> int:
  """The side of a square image (height, width).

  Raises:
    ValueError: it is none.
  """
  height, width = image_size
  if height != width:
    raise ValueError(
      f'Option image_size is {(height, width)}; data sets give square images. Choose a square size.'
    )
  return height


def grid(size: Any, patch: int) -> tuple[int, int]:
  """The number of patches down and across an image (height, width)."""
  return size[0] // patch, size[1] // patch


class Embed(nn.Module):
  """Tokens [B, T, D] of images [B, H, W, C]; with `pre_norm` normalised before the first block."""

  o: Any
  patch_bias: bool = True
  pre_norm: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    o, dtype = self.o, compute_dtype(self.o.dtype)
    if x.shape[1:3] != o.image_size:
      raise ValueError(
        f'The images are {x.shape[1:3]} and this ViT was built for {o.image_size}; set its option '
        'image_size.'
      )
    x = Conv(
      o.dim,
      o.patch,
      o.patch,
      use_bias=self.patch_bias,
      dtype=dtype,
      kernel_init=nn.initializers.lecun_normal(),
      name='patch',
    )(x)
    x = x.reshape(x.shape[0], -1, o.dim)
    with_class = int(o.class_token and o.class_position)
    shape = (1, x.shape[1] + with_class, o.dim)
    position = self.param('position', dense_init, shape, jnp.float32).astype(dtype)
    tokens = [x + position[:, with_class:]]
    if o.registers:
      tokens.insert(0, self._token('registers', o.registers, x))
    if o.class_token:
      tokens.insert(0, self._token('class', 1, x) + (position[:, :1] if with_class else 0))
    x = jnp.concatenate(tokens, axis=1)
    return layer_norm(o, 'norm')(x) if self.pre_norm else x

  def _token(self, name: str, number: int, x: Array) -> Array:
    token = self.param(name, dense_init, (1, number, x.shape[2]), jnp.float32)
    return jnp.broadcast_to(token, (x.shape[0], number, x.shape[2])).astype(x.dtype)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)): tokens [B, T, D] to [B, T, D]."""

  o: Any

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    shape, x = x.shape, x.reshape(-1, x.shape[-1])  # rows: see _attention.py
    x = x + self._scaled(
      Attention(self.o, name='attention')(layer_norm(self.o, 'norm1')(x), shape), 'layer_scale1'
    )
    x = x + self._scaled(Mlp(self.o, name='mlp')(layer_norm(self.o, 'norm2')(x)), 'layer_scale2')
    return x.reshape(shape)

  def _scaled(self, x: Array, name: str) -> Array:
    if self.o.layer_scale is None:
      return x
    scale = self.param(
      name, nn.initializers.constant(self.o.layer_scale), (self.o.dim,), jnp.float32
    )
    return x * scale.astype(x.dtype)


class Attention(nn.Module):
  """Multi-head self-attention of rows [B T, D], which are tokens of the given shape [B, T, D]; the
  softmax is in float32.
  """

  o: Any

  @nn.compact
  def __call__(self, x: Array, shape: tuple[int, ...]) -> Array:
    parts = []
    for name in ('query', 'key', 'value'):
      part = dense(self.o, self.o.dim, name, self.o.qkv_bias)(x)
      part = part.reshape(*shape[:2], self.o.heads, -1)
      parts.append(part.transpose(0, 2, 1, 3))  # [B, heads, T, d]
    query, key, value = parts
    attended = attend(query, key, value, None).transpose(0, 2, 1, 3)
    return dense(self.o, self.o.dim, 'out')(attended.reshape(x.shape))


class Mlp(nn.Module):
  """Two dense layers with a GELU between them."""

  o: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    y = dense(self.o, int(self.o.dim * self.o.mlp_ratio), 'up')(x)
    return dense(self.o, self.o.dim, 'down')(ACTIVATIONS[GELUS[self.o.gelu]](y))


class Norm(nn.Module):
  """The final layer norm of all tokens."""

  o: Any

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return layer_norm(self.o, 'norm')(x)


class Pool(nn.Module):
  """The class token, or the mean over the patches: [B, T, D] to [B, D]."""

  o: Any

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    if self.o.pool == 'token':
      return x[:, 0]
    return x[:, self.o.class_token + self.o.registers :].mean(1, dtype=jnp.float32).astype(x.dtype)


def dense(o: Any, width: int, name: str, bias: bool = True) -> nn.Module:
  """A dense layer."""
  return nn.Dense(width, bias, compute_dtype(o.dtype), kernel_init=dense_init, name=name)


def layer_norm(o: Any, name: str) -> nn.Module:
  """A layer norm whose statistics are float32."""
  return LayerNorm(o.norm_eps, compute_dtype(o.dtype), name=name)


def resize_positions(
  array: np.ndarray,
  grid: tuple[int, int],
  class_position: bool,
  file_grid: tuple[int, int] | None = None,
) -> np.ndarray:
  """Position embeddings [1, (1 +) h w, D] for a grid of patches, from those of `file_grid`.

  Where that is None they are taken to be of a square grid, or, where their number is no square, of
  `grid` itself.

  Raises:
    ValueError: their number is that of neither.
  """
  array = np.asarray(array, np.float32)
  first, patches = array[:, : int(class_position)], array[:, int(class_position) :]
  side = round(patches.shape[1] ** 0.5)
  before = file_grid or ((side, side) if side * side == patches.shape[1] else grid)
  if before[0] * before[1] != patches.shape[1]:
    raise ValueError(
      f'The file has {patches.shape[1]} patch positions, which are no square grid to resize to '
      f'{grid} from and not the {before} that are wanted; set position_size (and class_position) '
      'to what the weights were trained with.'
    )
  if before == grid:
    return array
  image = patches.reshape(1, *before, -1)
  resized = jax.image.resize(image, (1, *grid, image.shape[-1]), 'bicubic', antialias=True)
  return np.concatenate([first, np.asarray(resized).reshape(1, -1, image.shape[-1])], axis=1)
