"""Texts and pairs of texts: stored as token ids of one length, which enter networks as they are."""

import functools
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from tokenizers import Tokenizer

from tlx.inputs import _tokenizers
from tlx.types import Array, Batch, Form, PyTree

BUCKETS = (16, 32, 64, 128, 256, 512)
Text = str | tuple[str, str]


@functools.cache
def form(length: int, types: bool = False) -> Form:
  """Texts of `length` tokens, padding included: {'ids', 'mask'} int32 [length]; `types` are those
  of pairs.

  `length` is that of stored texts (`bucket`), so data whose texts are short make a short program.
  """
  if length < 1:
    raise ValueError(f'length is {length}, wanted 1 token or more.')
  names = ('ids', 'mask', 'types') if types else ('ids', 'mask')
  spec = {name: jax.ShapeDtypeStruct((length,), np.int32) for name in names}
  options = {'length': length, 'types': types}
  return Form(f'text {options}', spec, enter, augment, check)


def enter(leaves: PyTree) -> PyTree:
  """What a backbone of texts takes: the leaves themselves."""
  return leaves


def augment(key: Array, batch: Batch, options: Mapping[str, float]) -> Batch:
  """The batch: texts are not augmented."""
  del key, options
  return batch


def check(options: Mapping[str, float]) -> None:
  """Raises ValueError for any augmentation."""
  if options:
    raise ValueError(f'Texts have no augmentations, got {", ".join(options)}. Leave them out.')


def bucket(longest: int, length: int) -> int:
  """The length to which texts are padded: the smallest of `BUCKETS` that holds the longest,
  `length` at most.

  >>> bucket(20, 256), bucket(200, 256), bucket(98, 100)
  (32, 256, 100)
  """
  return min([size for size in BUCKETS if longest <= size < length], default=length)


def store(texts: Sequence[Text], tokenizer: Tokenizer, length: int) -> dict[str, np.ndarray]:
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
  size = bucket(max(lengths, default=1), length)
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
