"""Text from a causal language model: `generate(network, variables, inputs, num_tokens)`, and
`stream`, which gives it while it is written.

It speaks to a network only through its stages (the activation that backbones/_text.py describes),
so a model wrapped by a peft method generates as well.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


class _How(NamedTuple):
  """How tokens are chosen, and which end a row."""

  sampling: Sampling | None
  keys: Array | None  # [B]
  eos: tuple[int, ...]


class _Writing(NamedTuple):
  """What changes from token to token, and the mask, which does not."""

  step: Array  # [] tokens written so far
  tokens: Array  # [B, num_tokens]
  done: Array  # [B] rows that have ended
  cache: PyTree  # a (key, value) [B, heads, T + num_tokens, depth] a block
  mask: Array  # [B, T + num_tokens]


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
    ValueError: only one of `sampling` and `key`, an impossible sampling, no token asked for or to
      begin with, or a network that is not a causal language model.
  """
  how = _how(inputs, num_tokens, sampling, key, eos)
  return _generate(network, variables, inputs, num_tokens, how)


def stream(
  network: Network,
  variables: Variables,
  inputs: PyTree,
  num_tokens: int,
  *,
  every: int = 1,
  sampling: Sampling | None = None,
  key: Array | None = None,
  eos: tuple[int, ...] = (),
) -> Iterator[np.ndarray]:
  """The tokens of `generate` as they are written: arrays [B, n] of 1 to `every` of them, until all
  rows have ended.

  Raises:
    ValueError: as `generate`, or an `every` below 1.
  """
  if every < 1:
    raise ValueError(f'every is {every}, wanted at least 1 token at a time.')
  how = _how(inputs, num_tokens, sampling, key, eos)
  return _pieces(network, variables, inputs, num_tokens, how, every)


def _pieces(
  network: Network,
  variables: Variables,
  inputs: PyTree,
  num_tokens: int,
  how: _How,
  every: int,
) -> Iterator[np.ndarray]:
  writing, given = _begin(network, variables, inputs, num_tokens, how), 0
  while True:
    written = int(writing.step)
    yield np.asarray(writing.tokens[:, given:written])
    if written == num_tokens or bool(writing.done.all()):
      return
    given, until = written, min(written + every, num_tokens)
    writing = _advance(network, variables, writing, jnp.int32(until), how)


def _how(
  inputs: PyTree,
  num_tokens: int,
  sampling: Sampling | None,
  key: Array | None,
  eos: tuple[int, ...],
) -> _How:
  """What was asked for, checked, with a key a row."""
  if (sampling is None) != (key is None):
    raise ValueError(
      'Sampling needs both `sampling` and `key`; the most probable tokens need neither.'
    )
  num_rows, length = inputs['ids'].shape
  if num_tokens < 1 or length < 1:
    raise ValueError(
      f'num_tokens is {num_tokens} and the prompts are of {length} tokens, wanted at least 1 each.'
    )
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
  if key is not None:
    if key.shape not in ((), (num_rows,)):
      raise ValueError(f'key has shape {key.shape}, wanted one key, or {num_rows} for the rows.')
    if key.shape == ():
      key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))
  return _How(sampling, key, eos)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _generate(
  network: Network, variables: Variables, inputs: PyTree, num_tokens: int, how: _How
) -> Array:
  begun = _begin(network, variables, inputs, num_tokens, how)
  written = _advance(network, variables, begun, jnp.int32(num_tokens), how)
  # Rows that had all ended before the last step have no more tokens written.
  late = jnp.arange(num_tokens)[None, :] >= written.step
  return jnp.where(late, how.eos[0], written.tokens) if how.eos else written.tokens


@functools.partial(jax.jit, static_argnums=(0, 3))
def _begin(
  network: Network, variables: Variables, inputs: PyTree, num_tokens: int, how: _How
) -> _Writing:
  """The prompts read and the first token of each row written."""
  ids, mask = _pad_left(inputs['ids'], inputs.get('mask', jnp.ones(inputs['ids'].shape, jnp.int32)))
  logits, cache = _read(network, variables, {'ids': ids, 'mask': mask, 'cache': ()})
  ahead = (0, num_tokens)
  empty = _Writing(
    jnp.int32(0),
    jnp.zeros((len(ids), num_tokens), jnp.int32),
    jnp.zeros(len(ids), bool),
    jax.tree.map(lambda array: jnp.pad(array, ((0, 0), (0, 0), ahead, (0, 0))), cache),
    jnp.pad(mask, ((0, 0), ahead), constant_values=1),
  )
  return _write(empty, logits, how)


@functools.partial(jax.jit, static_argnums=0)
def _advance(
  network: Network, variables: Variables, writing: _Writing, until: Array, how: _How
) -> _Writing:
  """With `until` tokens written, or as many as it took all rows to end."""
  prompt_tokens = writing.mask.shape[1] - writing.tokens.shape[1]

  def unfinished(writing: _Writing) -> Array:
    return (writing.step < until) & ~writing.done.all()

  def advance(writing: _Writing) -> _Writing:
    newest = {
      'ids': jax.lax.dynamic_slice_in_dim(writing.tokens, writing.step - 1, 1, axis=1),
      'mask': writing.mask,
      'cache': writing.cache,
      'index': prompt_tokens + writing.step - 1,
    }
    logits, cache = _read(network, variables, newest)
    return _write(writing._replace(cache=cache), logits, how)

  return jax.lax.while_loop(unfinished, advance, writing)


def _read(network: Network, variables: Variables, activation: PyTree) -> tuple[Array, PyTree]:
  """(logits [B, V] after the last token, the cache with the new tokens in it)."""
  x, _ = network.apply(variables, activation, train=False, stop=-1)
  if not isinstance(x, dict) or 'cache' not in x:
    raise ValueError('This network keeps no cache of keys and values; generate with gpt2 or llama.')
  logits, _ = network.apply(variables, {**x, 'hidden': x['hidden'][:, -1:]}, train=False, start=-1)
  if isinstance(logits, dict):
    logits = scores(**logits)
  if logits.ndim != 3:
    raise ValueError(
      f'The head gives {logits.shape}, not logits over a vocabulary; build the network without '
      'num_classes.'
    )
  return logits[:, -1], x['cache']


def _write(writing: _Writing, logits: Array, how: _How) -> _Writing:
  """With one more token a row."""
  token = _choose(logits, how.sampling, how.keys, writing.step)
  token = jnp.where(writing.done, how.eos[0], token) if how.eos else token
  done = writing.done | jnp.isin(token, jnp.array(how.eos, jnp.int32))
  return writing._replace(
    step=writing.step + 1, tokens=writing.tokens.at[:, writing.step].set(token), done=done
  )


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
