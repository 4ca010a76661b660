"""Text from a causal language model: `generate(network, variables, inputs, num_tokens)`.

It speaks to a network only through its stages (the activation that backbones/_text.py describes),
so a model wrapped by a peft method generates as well.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tlx.backbones._text import scores
from tlx.types import Array, Network, PyTree, Variables


class Sampling(NamedTuple):
  """How the next token is drawn: by temperature, then `top_k`, then the nucleus of `top_p`.

  top_k: None for all
  top_p: the most probable tokens that together reach this probability (arXiv:1904.09751); None for
  all
  """

  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None


class _Writing(NamedTuple):
  """What changes from token to token."""

  step: Array  # [] tokens written so far
  tokens: Array  # [B, num_tokens]
  done: Array  # [B] rows that have ended
  cache: PyTree  # a (key, value) [B, heads, T + num_tokens, depth] a block


def generate(
  network: Network,
  variables: Variables,
  inputs: PyTree,
  num_tokens: int,
  *,
  sampling: Sampling | None = None,
  key: Array | None = None,
  eos: tuple[int, ...] = (),
) -> Array:
  """The tokens [B, num_tokens] that follow the prompts: the most probable ones, or with `sampling`
  and a key, drawn ones.

  The prompts are `inputs['ids']` [B, T] with `inputs['mask']`, padded at the left or the right (or
  both). A row ends with the first token that is in `eos`; what follows in it is filled with
  `eos[0]`. The loop stops when every row has ended. Compiled once per network, prompt shape and
  `num_tokens`; other numbers in `sampling` and `eos` use the same program.

  A row's tokens do not depend on its batch mates. Row i draws with `fold_in(key, i)`; an array of
  keys [B] gives each row its own, and so the same text wherever it stands.

  Raises:
    ValueError: only one of `sampling` and `key`, an impossible sampling, no token asked for, or a
      network that is not a causal language model.
  """
  if (sampling is None) != (key is None):
    raise ValueError(
      'Sampling needs both `sampling` and `key`; the most probable tokens need neither.'
    )
  if num_tokens < 1:
    raise ValueError(f'num_tokens is {num_tokens}, wanted at least 1.')
  if sampling is not None:
    temperature, top_k, top_p = sampling
    if (
      temperature <= 0
      or (top_k is not None and top_k < 1)
      or (top_p is not None and not 0 < top_p <= 1)
    ):
      raise ValueError(
        f'{sampling}: wanted temperature > 0, top_k at least 1 or None, 0 < top_p <= 1 or None.'
      )
  keys = key
  if key is not None:
    num_rows = len(inputs['ids'])
    if key.shape not in ((), (num_rows,)):
      raise ValueError(f'key has shape {key.shape}, wanted one key, or {num_rows} for the rows.')
    if key.shape == ():
      keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))
  return _generate(network, variables, inputs, num_tokens, sampling, keys, eos)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _generate(
  network: Network,
  variables: Variables,
  inputs: PyTree,
  num_tokens: int,
  sampling: Sampling | None,
  keys: Array | None,
  eos: tuple[Array, ...],
) -> Array:
  ids, mask = _pad_left(inputs['ids'], inputs.get('mask', jnp.ones(inputs['ids'].shape, jnp.int32)))
  num_rows, prompt_tokens = ids.shape

  def step(activation: PyTree) -> tuple[Array, PyTree]:
    """(logits [B, V] after the last token, the cache with the new tokens in it)."""
    x, _ = network.apply(variables, activation, train=False, stop=-1)
    if not isinstance(x, dict) or 'cache' not in x:
      raise ValueError(
        'This network keeps no cache of keys and values; generate with gpt2 or llama.'
      )
    logits, _ = network.apply(
      variables, {**x, 'hidden': x['hidden'][:, -1:]}, train=False, start=-1
    )
    if isinstance(logits, dict):
      logits = scores(**logits)
    if logits.ndim != 3:
      raise ValueError(
        f'The head gives {logits.shape}, not logits over a vocabulary; build the network without '
        'num_classes.'
      )
    return logits[:, -1], x['cache']

  def write(writing: _Writing, logits: Array) -> _Writing:
    token = _choose(logits, sampling, keys, writing.step)
    token = jnp.where(writing.done, eos[0], token) if eos else token
    done = writing.done | jnp.isin(token, jnp.array(eos, jnp.int32))
    return writing._replace(
      step=writing.step + 1, tokens=writing.tokens.at[:, writing.step].set(token), done=done
    )

  def advance(writing: _Writing) -> _Writing:
    last = jax.lax.dynamic_slice_in_dim(writing.tokens, writing.step - 1, 1, axis=1)
    logits, cache = step(
      {
        'ids': last,
        'mask': slots,
        'cache': writing.cache,
        'index': prompt_tokens + writing.step - 1,
      }
    )
    return write(writing._replace(cache=cache), logits)

  slots = jnp.concatenate([mask, jnp.ones((num_rows, num_tokens), mask.dtype)], axis=1)
  logits, cache = step({'ids': ids, 'mask': mask, 'cache': ()})
  cache = jax.tree.map(
    lambda array: jnp.pad(array, ((0, 0), (0, 0), (0, num_tokens), (0, 0))), cache
  )
  empty = _Writing(
    jnp.int32(0), jnp.zeros((num_rows, num_tokens), jnp.int32), jnp.zeros(num_rows, bool), cache
  )
  written = jax.lax.while_loop(
    lambda writing: (writing.step < num_tokens) & ~writing.done.all(), advance, write(empty, logits)
  )
  # Rows that had all ended before the last step have no more tokens written.
  late = jnp.arange(num_tokens)[None, :] >= written.step
  return jnp.where(late, eos[0], written.tokens) if eos else written.tokens


def _pad_left(ids: Array, mask: Array) -> tuple[Array, Array]:
  """Ids and mask with each row turned until its last real token stands at the end."""
  num_tokens = ids.shape[1]
  trailing = jnp.argmax(mask[:, ::-1] != 0, axis=1)
  source = (jnp.arange(num_tokens)[None, :] - trailing[:, None]) % num_tokens
  return jnp.take_along_axis(ids, source, axis=1), jnp.take_along_axis(mask, source, axis=1)


def _choose(logits: Array, sampling: Sampling | None, keys: Array | None, step: Array) -> Array:
  """The next token of each row, [B], drawn with the row's own of the keys [B]."""
  if sampling is None or keys is None:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  of_step = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
  drawn = jax.vmap(jax.random.categorical)(of_step, limit(logits, sampling))
  return drawn.astype(jnp.int32)


def limit(logits: Array, sampling: Sampling) -> Array:
  """The float32 logits [B, V] over temperature, with -inf where top_k or top_p leave a token out;
  tokens as good as the last stay.

  The last one is searched for, where sorting takes several times as long on a CPU.
  """
  temperature, top_k, top_p = sampling
  logits = logits / temperature
  order = _order(logits)
  if top_k is not None:
    last = _least(order, lambda above: above.sum(-1) < top_k)
    logits = jnp.where(order < last, -jnp.inf, logits)
  if top_p is not None:
    probability = jax.nn.softmax(logits, axis=-1)
    # those before it fall short of top_p; what the others leave is summed, as 1 - top_p may be 0
    rest = 1 - top_p
    last = _least(order, lambda above: jnp.where(above, 0, probability).sum(-1) > rest)
    logits = jnp.where(order < last, -jnp.inf, logits)
  return logits


def _order(x: Array) -> Array:
  """int32 numbers that are in the order of the float32 numbers x."""
  bits = jax.lax.bitcast_convert_type(x, jnp.int32)
  return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _least(order: Array, enough: Callable[[Array], Array]) -> Array:
  """The least number of each row, [B, 1], for which `enough` holds of the entries [B, V] of `order`
  that are above it; it must hold for all greater ones too.
  """

  def halve(_: int, between: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = between
    middle = (low >> 1) + (high >> 1) + (low & high & 1)  # their sum may have no int32
    holds = enough(order > middle)[:, None]
    return jnp.where(holds, low, middle + 1), jnp.where(holds, middle, high)

  high = order.max(-1, keepdims=True)
  low = jnp.full_like(high, jnp.iinfo(jnp.int32).min)
  return jax.lax.fori_loop(0, 32, halve, (low, high))[1]
