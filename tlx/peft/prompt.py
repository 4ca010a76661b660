"""Prompt tuning: learned tokens beside those of the input.

Of texts Lester et al. 2021 (arXiv:2104.08691), of images Jia et al. 2022 (VPT, arXiv:2203.12119).
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tlx.peft import Added, _layers, flat_of
from tlx.types import Array, PyTree

NAME = 'prompt'


def added(tokens: int = 8, deep: bool = False) -> Added:
  """So many tokens more in every block of a transformer, and none of them after the last.

  Shallow prompts join at the embedding and go through all blocks; deep ones are other tokens for
  each block, which begins with its own (VPT-Deep). In GPT-2 and Llama, where a token sees those
  before it, they stand before the first token that is not padding, which the positions of the
  others count from, as in the peft library; in BERT and ViT, where order counts for nothing after
  the embedding, at the end and without a position. Outputs and pooling are of the input's tokens
  alone. Drawn as by VPT, for texts normal of deviation 0.02. They change the output at the start,
  cannot be merged, and texts are not generated with them yet.

  Raises:
    ValueError: a number of tokens that is no whole number from 1 on. In `init`: a network that is
      no bert, gpt2, llama or vit; in `apply`: inputs with a cache.
  """
  _layers.whole(NAME, 'tokens', tokens)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    flat = flat_of(params)
    blocks = [name for name in params if f'{name}/attention/query/kernel' in flat]
    text = 'embed/tokens/embedding' in flat
    if not blocks or not (text or 'embed/patch/kernel' in flat):
      raise ValueError(
        f'{NAME}: wants the blocks of a transformer (bert, gpt2, llama, vit), and this network has '
        f'the stages {", ".join(params)}.'
      )
    causal = text and 'embed/types/embedding' not in flat
    width = flat[f'{blocks[0]}/attention/query/kernel'].shape[0]
    leaves = {}
    for stage in blocks if deep else ['embed']:
      name = f'{stage}/{"before" if causal else "after"}'
      own, shape = _layers.key_of(key, NAME, name), (tokens, width)
      if text:
        leaves[name] = 0.02 * jax.random.normal(own, shape)
      else:
        bound = (6 / (_layers.rows_of(flat['embed/patch/kernel'].shape) + width)) ** 0.5
        leaves[name] = jax.random.uniform(own, shape, minval=-bound, maxval=bound)
    return leaves

  return Added(NAME, start, _intercept(tokens), None, also=_nowhere if deep else _last_block)


def _nowhere(stages: Sequence[str]) -> tuple[str, ...]:
  return ()


def _last_block(stages: Sequence[str]) -> tuple[str, ...]:
  """The stage at whose end shallow prompts leave."""
  return tuple(stage for stage in stages if re.fullmatch(r'block\d+', stage))[-1:]


@functools.cache
def _intercept(tokens: int) -> Callable[[PyTree], Callable]:
  def of_stage(leaves: Mapping[str, Array]) -> Callable:
    def around(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
      path, own = context.module.path, context.method_name == '__call__'
      if own and path == ('tokens',) and 'before' in leaves:
        return _embedded(call, args[0], leaves['before'])
      if not own or path:
        return call(*args, **kwargs)
      x, *rest = args
      if isinstance(x, Mapping) and 'cache' in x:
        raise ValueError(f'{NAME}: texts are not generated with prompts yet.')
      if not leaves:
        return _dropped(call(x, *rest), tokens)
      is_text = isinstance(x, Mapping) and 'ids' in x
      is_image = not isinstance(x, Mapping) and x.ndim == 4
      if is_text and 'before' in leaves:
        return call(_announced(x, tokens), *rest)
      if is_text or is_image:
        return _joined(call(x, *rest), leaves)
      return _dropped(call(_joined(x, leaves), *rest), tokens)

    return around

  return of_stage


PROMPT = -1  # in a mask; padding has 0, other tokens numbers above it


def _announced(x: Mapping[str, Array], tokens: int) -> dict[str, Array]:
  """Ids and mask [B, T + n] with places for prompts before the first token that is not padding."""
  ids = x['ids']
  mask = x.get('mask', jnp.ones_like(ids))
  places = jnp.full((tokens,), -1, ids.dtype)
  marks = jnp.full((tokens,), PROMPT, mask.dtype)
  return {**x, 'ids': _inserted(ids, places, mask), 'mask': _inserted(mask, marks, mask)}


def _embedded(call: Callable, ids: Array, prompts: Array) -> Array:
  """The embeddings [B, T + n, D] of announced ids."""
  y, announced = call(jnp.maximum(ids, 0)), ids < 0
  number = jnp.clip(jnp.cumsum(announced, axis=1) - 1, 0)
  return jnp.where(announced[..., None], prompts.astype(y.dtype)[number], y)


def _joined(x: PyTree, leaves: Mapping[str, Array]) -> PyTree:
  """The activation with prompts, before its first token or after its last."""
  if not isinstance(x, Mapping):
    return _appended(x, leaves['after'])
  hidden, mask = x['hidden'], x['mask']
  prompts = leaves['after' if 'after' in leaves else 'before']
  marks = jnp.full((len(prompts),), PROMPT, mask.dtype)
  if 'after' in leaves:
    return {**x, 'hidden': _appended(hidden, prompts), 'mask': _appended(mask, marks)}
  hidden = _inserted(hidden, prompts, mask)
  return {**x, 'hidden': hidden, 'mask': _inserted(mask, marks, mask)}


def _appended(array: Array, prompts: Array) -> Array:
  """[B, T + n, ...] of an array [B, T, ...] and n more for each row."""
  more = jnp.broadcast_to(prompts.astype(array.dtype), (len(array), *prompts.shape))
  return jnp.concatenate([array, more], axis=1)


def _inserted(array: Array, prompts: Array, mask: Array) -> Array:
  """As `_appended`, and then moved before the first place that the mask [B, T] has."""
  length, number = array.shape[1], len(prompts)
  place, first = jnp.arange(length + number)[None], jnp.argmax(mask != 0, axis=1)[:, None]
  source = jnp.where(place < first + number, length + place - first, place - number)
  return _taken(_appended(array, prompts), jnp.where(place < first, place, source))


def _dropped(x: PyTree, tokens: int) -> PyTree:
  """The activation without its prompts."""
  if not isinstance(x, Mapping):
    return x[:, :-tokens]
  order = jnp.argsort(x['mask'] == PROMPT, axis=1, stable=True)[:, :-tokens]
  return {**x, 'hidden': _taken(x['hidden'], order), 'mask': _taken(x['mask'], order)}


def _taken(array: Array, places: Array) -> Array:
  """Places [B, T'] of an array [B, T, ...]."""
  return jnp.take_along_axis(array, places.reshape(*places.shape, *(1,) * (array.ndim - 2)), axis=1)
