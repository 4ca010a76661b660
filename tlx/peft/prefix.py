"""Prefix tuning (Li and Liang 2021, arXiv:2101.00190): learned keys and values for every block."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tlx.peft import Added, _layers, flat_of
from tlx.types import Array, PyTree

NAME = 'prefix'


def added(tokens: int = 8) -> Added:
  """So many keys and values more, before those of the tokens, in each block's attention.

  Leaves 'attention/key' and 'attention/value' [tokens, width of the block's keys], of text
  backbones. As in the peft library the positions of the input's tokens are counted from the number
  of the prefix's on in GPT-2 and Llama, padding at the left with them, and the prefix's keys are
  not rotated; those of encoders stay. Drawn normal of deviation 0.02, without the MLP that makes
  them in the paper. They change the output at the start, cannot be merged, and texts are not
  generated with them yet.

  Raises:
    ValueError: a number of tokens that is no whole number from 1 on. In `init`: a network that is
      no bert, gpt2 or llama; in `apply`: inputs with a cache.
  """
  _layers.whole(NAME, 'tokens', tokens)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    flat, leaves = flat_of(params), {}
    for stage in params if 'embed/tokens/embedding' in flat else ():
      for part in ('key', 'value'):
        if f'{stage}/attention/{part}/kernel' in flat:
          name, width = f'{stage}/attention/{part}', flat[f'{stage}/attention/{part}/kernel'].shape
          own = _layers.key_of(key, NAME, name)
          leaves[name] = 0.02 * jax.random.normal(own, (tokens, width[1]))
    if not leaves:
      raise ValueError(
        f'{NAME}: wants the blocks of a text backbone (bert, gpt2, llama), and this network has '
        f'the stages {", ".join(params)}.'
      )
    if 'embed/positions/embedding' in flat and 'embed/norm/scale' not in flat:  # in no encoder
      # Without a leaf the stage would be the source's, whose activations other methods share.
      leaves['embed/fixed/first'] = jnp.float32(tokens)
    return leaves

  return Added(NAME, start, _intercept(tokens), None)


@functools.cache
def _intercept(tokens: int) -> Callable[[PyTree], Callable]:
  def of_stage(leaves: PyTree) -> Callable:
    def around(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
      path = context.module.path
      if context.method_name != '__call__':
        return call(*args, **kwargs)
      if path == () and 'fixed' in leaves:
        return _embedded(tokens, call, *args)
      if path == ('attention',):
        return _attended(leaves['attention'], context.module, call, *args)
      return call(*args, **kwargs)

    return around

  return of_stage


def _embedded(tokens: int, call: Callable, inputs: Any, train: bool) -> PyTree:
  """The tokens with positions that begin after the prefix."""
  _refuse_cache(inputs)
  mask = inputs.get('mask', jnp.ones_like(inputs['ids']))
  x = call({**inputs, 'mask': _longer(mask, tokens), 'index': tokens}, train)
  return {name: leaf for name, leaf in x.items() if name != 'index'} | {'mask': mask}


def _attended(
  own: Mapping[str, Array],
  module: nn.Module,
  call: Callable,
  rows: Array,
  x: Mapping[str, Any],
  shape: tuple[int, ...],
) -> tuple[Array, dict[str, Any]]:
  """The mixed tokens, as with a cache that holds the prefix."""
  _refuse_cache(x)
  batch, num_tokens, _ = shape
  cache = []
  for part in ('key', 'value'):
    heads = own[part].reshape(-1, module.kv_heads, module.head_dim).transpose(1, 0, 2)
    longer = jnp.pad(heads.astype(rows.dtype), ((0, 0), (0, num_tokens), (0, 0)))
    cache.append(jnp.broadcast_to(longer, (batch, *longer.shape)))
  tokens = len(own['key'])
  prefixed = {'mask': _longer(x['mask'], tokens), 'cache': (tuple(cache),), 'index': tokens}
  return call(rows, {**x, **prefixed}, shape)[0], {}


def _longer(mask: Array, tokens: int) -> Array:
  """The mask [B, T] with the prefix before it, which every text in a row sees."""
  return jnp.pad(mask, ((0, 0), (tokens, 0)), constant_values=-1)


def _refuse_cache(x: Any) -> None:
  if isinstance(x, Mapping) and 'cache' in x:
    raise ValueError(f'{NAME}: texts are not generated with a prefix yet.')
