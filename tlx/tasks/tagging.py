"""Tagging: a tag for every word, judged by the entities that tags spell."""

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx.types import Array, Batch, Task

FORM = 'tagged'
COLUMNS = ('f1', 'precision', 'recall', 'loss', 'accuracy', 'entities', 'macro_f1')


@functools.cache
def task(num_classes: int) -> Task:
  """Softmax cross-entropy in nats over logits [B, T, K] of the words' first tokens.

  A word without a token, as one that was cut off, is answered O and has no loss.
  Tags are numbers as datasets have them: 0 is O, 2 i + 1 begins an entity of type i and 2 i + 2
  goes on with it. Entities are those of conlleval and of seqeval's default: one that goes on after
  O or another type begins there. Columns: 'f1', by which settings are chosen, 'precision' and
  'recall' of entities that are right from end to end and in type (0 where there is none), 'loss',
  'accuracy' of words, 'entities'; of kept tags also 'f1_by_type', a list, and its mean 'macro_f1'
  over the types that are in the truth or were found.
  """

  def terms(logits: Array, batch: Batch) -> dict[str, tuple[Array, Array]]:
    if logits.ndim != 3:
      raise ValueError(
        f'tagging wants scores of every token [B, T, {num_classes}], got {list(logits.shape)}. '
        "Give the backbone pool = 'tokens', and leave head_after out."
      )
    tags, places = batch.targets['tags'], batch.targets['places']
    of_words = jnp.take_along_axis(logits, jnp.maximum(places, 0)[..., None], 1)  # [B, W, K]
    chosen = jnp.where(places < 0, 0, jnp.argmax(of_words, -1))
    logs = jax.nn.log_softmax(of_words.astype(jnp.float32))
    loss = -jnp.take_along_axis(logs, jnp.maximum(tags, 0)[..., None], -1)[..., 0]
    correct = (chosen == tags).astype(jnp.float32)
    mask = batch.mask[:, None]
    counts = {
      name: (count.astype(jnp.float32), batch.mask) for name, count in _counts(chosen, tags).items()
    }
    return {
      'loss': (loss, (places >= 0) * mask),
      'correct': (correct, (tags >= 0) * mask),
      **counts,
    }

  def scores(
    sums: Mapping[str, tuple[float, float]],
    kept: Mapping[str, np.ndarray] | None = None,
    targets: Mapping[str, np.ndarray] | None = None,
  ) -> dict[str, Any]:
    right, chosen, true = (sums[name][0] for name in ('right', 'chosen', 'true'))
    columns = {
      'f1': _ratio(2 * right, chosen + true),
      'precision': _ratio(right, chosen),
      'recall': _ratio(right, true),
      'loss': sums['loss'][0] / sums['loss'][1],
      'accuracy': sums['correct'][0] / sums['correct'][1],
      'entities': int(true),
    }
    if kept is None or targets is None:
      return columns
    return columns | _by_type(kept['tags'], targets, (num_classes - 1) // 2)

  return Task(
    head=num_classes,
    targets=_words,
    terms=terms,
    keep=_keep,
    scores=scores,
    select=('f1', +1),
  )


def _words(inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
  """The tags of words and the places of their tokens [N, W], as the form stores them."""
  del labels
  return {name: inputs[name] for name in ('tags', 'places')}


def _keep(outputs: Array) -> dict[str, Array]:
  return {'tags': jnp.argmax(outputs, -1).astype(jnp.int32)}


def _ratio(part: float, whole: float) -> float:
  """part / whole, 0 where there is nothing."""
  return part / whole if whole else 0.0


def _counts(chosen: Array, tags: Array) -> dict[str, Array]:
  """Entities of each row [B]: those that are 'right', all that were 'chosen', all 'true' ones."""
  begins, ends, types = _entities(jnp.where(tags < 0, 0, chosen))
  true_begins, true_ends, true_types = _entities(jnp.maximum(tags, 0))
  right = begins & true_begins & (ends == true_ends) & (types == true_types)
  return {'right': right.sum(-1), 'chosen': begins.sum(-1), 'true': true_begins.sum(-1)}


def _entities(tags: Array) -> tuple[Array, Array, Array]:
  """(where an entity begins, where the one of each place ends, its type or 0), [B, W] each."""
  types = (tags + 1) // 2
  before = jnp.pad(types[..., :-1], ((0, 0), (1, 0)))
  begins = (types > 0) & ((tags % 2 == 1) | (types != before))
  behind = jnp.pad(types[..., 1:], ((0, 0), (0, 1)))
  last = (types > 0) & ((types != behind) | jnp.pad(begins[..., 1:], ((0, 0), (0, 1))))
  place = jnp.arange(tags.shape[-1])
  ends = jax.lax.cummin(jnp.where(last, place, tags.shape[-1]), axis=tags.ndim - 1, reverse=True)
  return begins, ends, types


def entities(tags: np.ndarray) -> set[tuple[int, int, int]]:
  """{(type from 1, first word, last word)} of the tags of one text.

  >>> sorted(entities(np.array([1, 2, 0, 4, 4, 3])))
  [(1, 0, 1), (2, 3, 4), (2, 5, 5)]
  """
  found = set()
  begin, current = 0, 0
  for place, tag in enumerate([*tags.tolist(), 0]):
    kind = (tag + 1) // 2
    if current and (kind != current or tag % 2 == 1):
      found.add((current, begin, place - 1))
      current = 0
    if kind and not current:
      begin, current = place, kind
  return found


def _by_type(
  of_tokens: np.ndarray, targets: Mapping[str, np.ndarray], num_types: int
) -> dict[str, Any]:
  """F1 of each type, NaN where it is neither in the truth nor found, and their mean."""
  tags, places = targets['tags'], targets['places']
  of_words = np.take_along_axis(of_tokens, np.maximum(places, 0), 1)
  chosen = np.where(places < 0, 0, of_words)
  right: Counter[int] = Counter()
  both: Counter[int] = Counter()
  for row, truth in zip(chosen, tags):
    words = truth >= 0
    found, true = entities(row[words]), entities(truth[words])
    right.update(kind for kind, _, _ in found & true)
    both.update(kind for kind, _, _ in found)
    both.update(kind for kind, _, _ in true)
  f1 = [2 * right[kind] / both[kind] if both[kind] else np.nan for kind in range(1, num_types + 1)]
  return {'f1_by_type': f1, 'macro_f1': float(np.nanmean(f1)) if both else np.nan}
