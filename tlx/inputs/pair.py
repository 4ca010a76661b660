"""Pairs of texts side by side: each text its own tokens, which a sentence encoder reads by
themselves.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from tlx import datasets
from tlx.inputs import _targets, _tokenizers
from tlx.types import Form, PyTree

KIND = 'text'  # the data sets that are made into this, if their texts are pairs
SIDES = True  # a network reads the texts of an example one by one (backbones.side_by_side)
INPUT = _targets.INPUT
OF_NETWORK = _targets.OF_NETWORK
RANGES = _targets.RANGES
AUGMENT = _targets.AUGMENT
HOW = tuple(name for name in _targets.HOW if name != 'answers')
settled = _tokenizers.settled
_NAMES = ('ids', 'mask')


@functools.cache
def form(length: int, tokenizer: str, vocab_size: int = 0) -> Form:
  """Pairs of texts of `length` tokens, padding included: {'ids', 'mask'} int32 [2, length].

  Stored ones are shorter where the longest text of the data is (`_tokenizers.bucket`).

  Raises:
    ValueError: no room for a token, or no tokenizer.
  """
  options = {'length': length, 'tokenizer': tokenizer, 'vocab_size': vocab_size}
  made = _targets.form('pair', options)
  spec = {name: jax.ShapeDtypeStruct((2, length), np.int32) for name in _NAMES}
  return made._replace(spec=spec, enter=enter)


def enter(leaves: PyTree) -> PyTree:
  """What a network side by side takes: the leaves themselves."""
  return leaves


def load(name: str, fields: Mapping[str, Any], how: Mapping[str, Any]) -> datasets.Dataset:
  """The data set with stored pairs as inputs, as `_targets.load` has them, which raises."""

  def made(
    parts: Mapping[str, Sequence[Any]], tokenizer: Tokenizer
  ) -> tuple[dict[str, _targets.Rows], tuple[str, ...]]:
    if any(isinstance(text, str) for texts in parts.values() for text in texts):
      raise ValueError(f'{name} has single texts, wanted pairs: text and text_pair on every line.')
    leaves, notes = store_parts(parts, tokenizer, fields['length'])
    rows = {
      part: _targets.Rows(of_part, np.arange(len(parts[part]))) for part, of_part in leaves.items()
    }
    return rows, notes

  return _targets.load(name, fields, how, KIND, made)


def check_memory(fields: Mapping[str, Any], count: int, num_bytes: float) -> None:
  """Nothing: `load` checks."""


def store_parts(
  parts: Mapping[str, Sequence[tuple[str, str]]], tokenizer: Tokenizer, length: int
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
  """({part: its leaves [N, 2, T]}, what to say of texts that were cut and of padding).

  T is the bucket that holds the longest text of all parts; longer ones than `length` are cut.
  """
  rows = {}
  for part, pairs in parts.items():
    texts = [text for pair in pairs for text in pair]
    rows[part] = _tokenizers.encodings(tokenizer, texts, length)
  lengths = [len(row) for of_part in rows.values() for row in of_part]
  size = _tokenizers.bucket(max(lengths, default=1), length)
  leaves, notes = {}, []
  for part, of_part in rows.items():
    stacked = _tokenizers.stacked(tokenizer, of_part, size)
    leaves[part] = {name: leaf.reshape(-1, 2, size) for name, leaf in stacked.items()}
    if cut := sum(bool(row.overflowing) for row in of_part):
      notes.append(
        f'{cut:,} of the {len(of_part):,} texts in pairs of {part} are longer than {length} tokens '
        'and were cut (length).'
      )
  padding = 1 - sum(lengths) / (size * max(len(lengths), 1))
  notes.append(f'Texts of pairs are stored as {size} tokens, {padding:.0%} of them padding.')
  return leaves, tuple(notes)


def store(
  records: Sequence[Any], fields: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
  """(pairs as they are stored [N, 2, T], {row: why} of those that are no pairs of texts)."""
  bad = {}
  for row, record in enumerate(records):
    if isinstance(record, ValueError):
      bad[row] = str(record)
  pairs = [('.', '.') if row in bad else record for row, record in enumerate(records)]
  tokenizer = _tokenizers.of_uri(fields['tokenizer'])
  return store_parts({'': pairs}, tokenizer, fields['length'])[0][''], bad


def num_cut(records: Sequence[Any], fields: Mapping[str, Any]) -> int:
  """How many texts of pairs are longer than `length` tokens."""
  tokenizer = _tokenizers.of_uri(fields['tokenizer'])
  pairs = (record for record in records if not isinstance(record, ValueError))
  rows = _tokenizers.encodings(
    tokenizer, [text for pair in pairs for text in pair], fields['length']
  )
  return sum(bool(row.overflowing) for row in rows)
