"""Words with tags: tokens, and beside them the words with their tags.

Leaves of a sentence, int32:
  ids, mask  [T] its tokens
  tags       [W] the tag of each word, -1 behind the last one
  places     [W] the first token of each word, -1 where it has none or is cut off
"""

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
LEAVES = ('ids', 'mask', 'tags', 'places')
settled = _tokenizers.settled
Tagged = tuple[Sequence[str], Sequence[str]]


@functools.cache
def form(length: int, tokenizer: str, vocab_size: int = 0) -> Form:
  """Sentences of `length` tokens, padding included; stored ones have as many tokens and words as
  the longest of the data.
  """
  options = {'length': length, 'tokenizer': tokenizer, 'vocab_size': vocab_size}
  made = _targets.form('tagged', options)
  spec = {name: jax.ShapeDtypeStruct((length,), np.int32) for name in LEAVES}
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
  """({part: its rows}, what to say of words that are lost and of padding).

  Words that are cut off, or of which the tokenizer makes no token, are counted and said. They stay
  among the words: to a task they are answered 'O'.
  """
  number = {name: i for i, name in enumerate(class_names)}
  sentences = {part: [list(words) for words, _ in of_part] for part, of_part in parts.items()}
  tokens = {
    part: _tokenizers.encodings(tokenizer, words, length) for part, words in sentences.items()
  }
  lengths = [len(row) for of_part in tokens.values() for row in of_part]
  size = _tokenizers.bucket(max(lengths, default=1), length)
  most = max([len(words) for of_part in sentences.values() for words in of_part], default=1)
  rows, notes = {}, []
  for part, of_part in parts.items():
    leaves = _tokenizers.stacked(tokenizer, tokens[part], size)
    leaves['tags'], leaves['places'] = np.full((2, len(of_part), most), -1, np.int32)
    for i, (encoding, (_, tags)) in enumerate(zip(tokens[part], of_part)):
      leaves['tags'][i, : len(tags)] = [number[tag] for tag in tags]
      for place, word in reversed(list(enumerate(encoding.word_ids))):
        if word is not None:
          leaves['places'][i, word] = place
    rows[part] = _targets.Rows(leaves, np.arange(len(of_part)))
    there = leaves['tags'] >= 0
    if lost := int((there & (leaves['places'] < 0)).sum()):
      notes.append(
        f'{lost:,} of {int(there.sum()):,} words of {part} are behind {length} tokens (length) or '
        'without a token. They count as answered O, so entities among them are missed.'
      )
  known = _types(parts.get('train', ()))
  if unknown := sorted(set().union(*map(_types, parts.values())) - known) if known else []:
    notes.append(f'No training sentence has {", ".join(unknown)}, which the test may ask for.')
  padding = 1 - sum(lengths) / (size * max(len(lengths), 1))
  notes.append(f'Sentences are stored as {size} tokens, {padding:.0%} of them padding.')
  return rows, tuple(notes)


def _types(sentences: Sequence[Tagged]) -> set[str]:
  """The types of entities that some sentence has."""
  return {tag[2:] for _, tags in sentences for tag in tags if tag != 'O'}
