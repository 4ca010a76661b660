"""Running text: rows of tokens, each of which is predicted from those before it."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from tlx import datasets
from tlx.inputs import _targets, _tokenizers
from tlx.ranges import SWITCH
from tlx.types import Form

KIND = 'document'  # the data sets that are made into this
INPUT = _targets.INPUT | {
  'across': False  # documents see those before them, and none is cut at the end of a row
}
OF_NETWORK = _targets.OF_NETWORK
OWN_HEAD = True  # tasks of it go on with the head that weights bring
PACKS = (
  True  # rows are of several texts: `load` takes 'apart', since a row cannot be left out later
)
RANGES = _targets.RANGES | {'across': SWITCH}
AUGMENT = _targets.AUGMENT
HOW = _targets.HOW
settled = _tokenizers.settled
check_memory = _targets.check_memory


@functools.cache
def form(length: int, tokenizer: str, vocab_size: int = 0, across: bool = False) -> Form:
  """Rows of `length` tokens and as many to predict, with what these cover of the text.

  The leaves are explained in _targets.py, which raises.
  """
  options = {'length': length, 'tokenizer': tokenizer, 'vocab_size': vocab_size, 'across': across}
  return _targets.form('language', options)


def load(name: str, fields: Mapping[str, Any], how: Mapping[str, Any]) -> datasets.Dataset:
  """The data set as rows of running text, as `_targets.load` has them, which raises."""

  def store(
    parts: Mapping[str, Sequence[str]], tokenizer: Tokenizer
  ) -> tuple[dict[str, _targets.Rows], tuple[str, ...]]:
    return store_parts(parts, tokenizer, fields['length'], fields['across'])

  return _targets.load(name, fields, how, KIND, store)


def prompt(text: str, fields: Mapping[str, Any]) -> tuple[list[int], tuple[int, ...]]:
  """(the tokens of the beginning of a text, those that end one).

  Raises:
    ValueError: no token, or characters that the tokenizer has no token for.
  """
  if not isinstance(text, str):
    raise ValueError('This model goes on from the beginning of a text, and answers no messages.')
  tokenizer = _tokenizers.of_uri(fields['tokenizer'])
  (encoding,) = _tokenizers.encodings(_tokenizers.plain(tokenizer), [text])
  _targets.check_known(tokenizer, 'the prompt', [encoding])
  if not encoding.ids:
    raise ValueError('The prompt is empty: give the beginning of a text.')
  return list(encoding.ids), _tokenizers.ends(fields['tokenizer'])


class _Piece(NamedTuple):
  """Neighbouring tokens of one document: all but the last are read, all but the first predicted."""

  record: int
  tokens: _targets.Tokens
  more: int = 0  # documents behind that one which it reaches into

  @property
  def places(self) -> int:
    return len(self.tokens.ids) - 1


def store_parts(
  parts: Mapping[str, Sequence[str]], tokenizer: Tokenizer, length: int, across: bool = False
) -> tuple[dict[str, _targets.Rows], tuple[str, ...]]:
  """({part: its rows of `length` tokens}, what to say of the rows).

  A document of more than `length` tokens fills several rows, which share no token to predict: each
  token but the document's first is predicted once. What is left of documents is packed with that
  of others, the longest first, each where the least room is left; no token sees another document,
  and positions begin anew. The first token is what the tokenizer puts before a text, if anything:
  without it the first token of the text is not predicted, and what it covers is not counted.

  Args:
    across: documents stand one after another in rows that are all full but the last, and see those
      before them; the first token of each but the first is predicted too. Where the tokenizer puts
      nothing before a text, a line feed stands between them, and counts.

  Raises:
    ValueError: a part without a token to predict, characters that the tokenizer has no token for,
      or a tokenizer that fails.
  """
  plain = _tokenizers.plain(tokenizer)
  rows, notes = {}, []
  for part, texts in parts.items():
    if across and not tokenizer.num_special_tokens_to_add(False):
      texts = [text + '\n' for text in texts]
    encodings = _tokenizers.encodings(plain, texts)
    _targets.check_known(tokenizer, part, [encoding.ids for encoding in encodings])
    documents = [
      _Piece(row, _targets.tokens(text, encoding))
      for row, (text, encoding) in enumerate(zip(texts, encodings))
    ]
    if across:
      pieces = list(_in_rows(documents, length))
      packed = [[piece] for piece in pieces]
    else:
      pieces = [piece for document in documents for piece in _cut(document, length)]
      packed = pack(pieces, length)
    if not pieces:
      raise ValueError(
        f'{part} has {len(texts):,} texts and no token to predict. Give it longer texts.'
      )
    rows[part] = _filled(packed, length)
    notes.append(_note(part, documents, rows[part].leaves['mask']))
  return rows, tuple(notes)


def _cut(document: _Piece, length: int) -> Iterator[_Piece]:
  """Its pieces of `length` places, and a last one of what is left; each begins with the token that
  the one before ends with.
  """
  for begin in range(0, document.places, length):
    yield _part(document, begin, begin + length + 1)


def _part(piece: _Piece, begin: int, end: int) -> _Piece:
  """Some of its tokens."""
  return piece._replace(tokens=_targets.Tokens(*(leaf[begin:end] for leaf in piece.tokens)))


def _in_rows(documents: Sequence[_Piece], length: int) -> Iterator[_Piece]:
  """The rows of all documents as one; a row counts to the document that its first token is of."""
  whole = _Piece(0, _targets.Tokens(*map(np.concatenate, zip(*(d.tokens for d in documents)))))
  begins = np.cumsum([0, *(len(document.tokens.ids) for document in documents)])
  for row, piece in enumerate(_cut(whole, length)):
    ends = np.array([0, piece.places]) + row * length
    first, last = (np.searchsorted(begins, ends, 'right') - 1).tolist()
    yield piece._replace(record=first, more=last - first)


def pack(pieces: Sequence[_Piece], length: int) -> list[list[_Piece]]:
  """Rows of pieces: the longest first, each in the row with the least room that holds it (best fit
  decreasing); equal ones in their order.
  """
  rows: list[list[_Piece]] = []
  of_room: list[list[int]] = [[] for _ in range(length + 1)]  # the rows that have so much left
  for piece in sorted(pieces, key=lambda piece: -piece.places):
    room = next((left for left in range(piece.places, length) if of_room[left]), length)
    row = of_room[room].pop() if of_room[room] else len(rows)
    if row == len(rows):
      rows.append([])
    rows[row].append(piece)
    of_room[room - piece.places].append(row)
  return rows


def _filled(rows: Sequence[Sequence[_Piece]], length: int) -> _targets.Rows:
  """The leaves of rows of pieces."""
  leaves = _targets.empty(len(rows), length)
  for i, row in enumerate(rows):
    begin = 0
    for number, piece in enumerate(row, 1):
      places = slice(begin, begin + piece.places)
      leaves['ids'][i, places] = piece.tokens.ids[:-1]
      leaves['mask'][i, places] = number
      leaves['next'][i, places] = piece.tokens.ids[1:]
      leaves['bytes'][i, places] = piece.tokens.bytes[1:]
      leaves['characters'][i, places] = piece.tokens.characters[1:]
      begin = places.stop
  texts = [[piece.record + i for piece in row for i in range(piece.more + 1)] for row in rows]
  return _targets.Rows(leaves, np.array([row[0].record for row in rows]), texts)


def _note(part: str, documents: Sequence[_Piece], mask: np.ndarray) -> str:
  """How many rows, how full, and the documents that have no token to predict."""
  short = sum(document.places < 1 for document in documents)
  left_out = f'; {short:,} have no token to predict' if short else ''
  return (
    f'{len(documents):,} texts of {part} are {len(mask):,} rows of {mask.shape[1]} tokens, '
    f'{np.mean(mask == 0):.0%} of them padding{left_out}.'
  )
