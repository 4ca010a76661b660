"""Words with tags: tokens of which the first of each word has the word's tag."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from tlx import datasets
from tlx.inputs import _targets, _tokenizers
from tlx.types import Array, Form, PyTree

KIND = 'tagged sentence'  # the data sets that are made into this
INPUT = _targets.INPUT
OF_NETWORK = _targets.OF_NETWORK
RANGES = _targets.RANGES
AUGMENT = _targets.AUGMENT
HOW = _targets.HOW
settled = _tokenizers.settled
Tagged = tuple[Sequence[str], Sequence[str]]


@functools.cache
def form(length: int, tokenizer: str, vocab_size: int = 0) -> Form:
  """Texts of `length` tokens: {'ids', 'mask', 'tags'} int32 [length], tags -1 where none is."""
  options = {'length': length, 'tokenizer': tokenizer, 'vocab_size': vocab_size}
  made = _targets.form('tagged', options)
  spec = {name: jax.ShapeDtypeStruct((length,), np.int32) for name in ('ids', 'mask', 'tags')}
  return made._replace(spec=spec, enter=enter)


def enter(leaves: PyTree) -> dict[str, Array]:
  """What a backbone of texts takes: ids and mask."""
  return _targets.enter(leaves)


def load(name: str, fields: Mapping[str, Any], how: Mapping[str, Any]) -> datasets.Dataset:
  """The data set as rows of tokens with tags, as `_targets.load` has them, which raises."""

  def store(
    parts: Mapping[str, Sequence[Tagged]], tokenizer: Tokenizer
  ) -> tuple[dict[str, _targets.Rows], tuple[str, ...]]:
    return store_parts(parts, tokenizer, fields['length'], class_names)

  class_names = datasets.info(
    name, group=how.get('group', ''), skip_bad=how['skip_bad']
  ).class_names
  return _targets.load(name, fields, how, KIND, store)


def check_memory(fields: Mapping[str, Any], count: int, num_bytes: float) -> None:
  """Nothing: `load` checks."""


def store_parts(
  parts: Mapping[str, Sequence[Tagged]],
  tokenizer: Tokenizer,
  length: int,
  class_names: Sequence[str],
) -> tuple[dict[str, _targets.Rows], tuple[str, ...]]:
  """({part: its rows of `length` tokens}, what to say of words that are lost).

  Words that are cut off, or of which the tokenizer makes no token, are counted and said: they have
  no part in any score.
  """
  number = {name: i for i, name in enumerate(class_names)}
  rows, notes = {}, []
  for part, sentences in parts.items():
    words = [list(words) for words, _ in sentences]
    encodings = _tokenizers.encodings(tokenizer, words, length)
    leaves = _tokenizers.stacked(tokenizer, encodings, length)
    leaves['tags'] = np.full((len(sentences), length), -1, np.int32)
    for i, (encoding, (_, tags)) in enumerate(zip(encodings, sentences)):
      seen = set()
      for place, word in enumerate(encoding.word_ids):
        if word is not None and word not in seen:
          seen.add(word)
          leaves['tags'][i, place] = number[tags[word]]
    rows[part] = _targets.Rows(leaves, np.arange(len(sentences)))
    total = sum(map(len, words))
    if lost := total - int((leaves['tags'] >= 0).sum()):
      notes.append(
        f'{lost:,} of {total:,} words of {part} are lost: behind {length} tokens (length), or '
        'without a token.'
      )
  return rows, tuple(notes)
