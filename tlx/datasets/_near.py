"""Examples that are nearly another's: the same photograph saved again, the same text with a few
words changed. Exact copies are `_copies`'.

Images: a difference hash, then thumbnails. It finds what was compressed, resized, brightened or
made grey (99% and more of photographs of 32 pixels), not what was cropped or mirrored.
Texts: the rule of PaLM (Chowdhery et al. 2022, appendix on contamination), 70% of the 8-grams of
words; GPT-3 (Brown et al. 2020, appendix C) takes any one 13-gram.
"""

import array
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tlx.datasets._lines import flat
from tlx.datasets._types import Dataset, Split, listing, noun

SIDE = 16  # pixels of the thumbnails that settle whether two images are alike
BITS = 8  # of 64 in which the hashes of two saved forms of one image may differ
LIKE = 0.99  # correlation of the thumbnails of two saved forms of one image
BLOCK = 4_000_000  # pairs of hashes, 8 bytes each, that are compared at a time
GRAM = 8  # words
SHARE = 0.7  # of a text's grams
WORDS = re.compile(r'\w+')
PARTS = {'train': 'training', 'val': 'validation', 'test': 'test'}


class Prints(NamedTuple):
  """Of N images: the difference hash uint64 [N], and grey thumbnails float32 [N, SIDE^2] of mean 0
  and length 1, 0 where an image is of one colour: 1 KB an image.
  """

  hashes: np.ndarray
  thumbnails: np.ndarray


class Grams(NamedTuple):
  """Of N texts: a number int64 [G] for each of their grams, and whose it is, int [G]: 16 bytes a
  word.
  """

  grams: np.ndarray
  rows: np.ndarray
  size: int


def prints(split: Split) -> Prints | Grams:
  """What tells near copies among the examples of a part, images or texts as written."""
  if noun(split) == 'texts':
    return grams(split.inputs)
  return hashes(_images(split.inputs))


def _images(inputs: Any) -> Iterator[np.ndarray]:
  """One after the other; what is larger than memory is decoded some at a time."""
  for first in range(0, len(inputs), 256):
    rows = np.arange(first, min(first + 256, len(inputs)))
    yield from inputs[rows] if isinstance(inputs, np.ndarray) else inputs.take(rows)


def hashes(images: Iterable[np.ndarray]) -> Prints:
  """Of images uint8 [H, W, C].

  The hash is dHash (Krawetz 2013, "Kind of like that"): whether a pixel of the image at 9 x 8 grey
  pixels is brighter than its left neighbour, row by row, as the package imagehash has it.
  """
  found, thumbnails = [], []
  for image in images:
    grey = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert('L')
    small = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS))
    found.append(np.packbits(small[:, 1:] > small[:, :-1]))
    thumbnail = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    thumbnail = thumbnail - thumbnail.mean()
    thumbnails.append(thumbnail / (np.linalg.norm(thumbnail) or 1.0))
  if not found:
    return Prints(np.zeros(0, np.uint64), np.zeros((0, SIDE * SIDE), np.float32))
  return Prints(np.stack(found).view('>u8').astype(np.uint64)[:, 0], np.stack(thumbnails))


def grams(texts: Sequence[Any]) -> Grams:
  """Of texts, or nested tuples of them: every GRAM words in a row, whatever the case and the signs
  between them; a shorter text is one gram.
  """
  found = array.array('q')
  counts = []
  for text in texts:
    words = WORDS.findall(' '.join(flat(text)).casefold())
    before = len(found)
    if words:
      last = max(1, len(words) - GRAM + 1)
      found.extend(hash(tuple(words[i : i + GRAM])) for i in range(last))
    counts.append(len(found) - before)
  return Grams(
    np.frombuffer(found, np.int64), np.repeat(np.arange(len(counts)), counts), len(counts)
  )


def taken(some: Prints | Grams, rows: np.ndarray) -> Prints | Grams:
  """Of some of the examples, in order."""
  if isinstance(some, Prints):
    return Prints(some.hashes[rows], some.thumbnails[rows])
  kept = np.isin(some.rows, rows)
  return Grams(some.grams[kept], np.searchsorted(rows, some.rows[kept]), len(rows))


def alike(ours: Prints | Grams, theirs: Prints | Grams) -> np.ndarray:
  """[N] of N examples, the row of the other that each nearly is, -1 where there is none.

  Images: the most alike of those whose hashes differ in at most BITS bits and whose thumbnails
  correlate by LIKE or more; the hash alone takes many drawings on an empty ground for one. All
  pairs of hashes are compared, BLOCK at a time.
  Texts: SHARE of its grams are in the other part, wherever; the first text with one is named.
  """
  if isinstance(ours, Grams) and isinstance(theirs, Grams):
    return _texts_alike(ours, theirs)
  assert isinstance(ours, Prints) and isinstance(theirs, Prints)
  found = np.full(len(ours.hashes), -1)
  if not len(theirs.hashes):
    return found
  size = max(1, BLOCK // len(theirs.hashes))
  for first in range(0, len(found), size):
    far = np.bitwise_count(ours.hashes[first : first + size, None] ^ theirs.hashes)
    for row, others in _candidates(far <= BITS):
      like = theirs.thumbnails[others] @ ours.thumbnails[first + row]
      if like.max() >= LIKE:
        found[first + row] = others[like.argmax()]
  return found


def _candidates(near: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  """(row, columns) of the rows [R, M] with any."""
  for row in np.flatnonzero(near.any(1)).tolist():
    yield row, np.flatnonzero(near[row])


def _texts_alike(ours: Grams, theirs: Grams) -> np.ndarray:
  known, first = np.unique(theirs.grams, return_index=True)
  at = np.searchsorted(known, ours.grams).clip(max=max(0, len(known) - 1))
  seen = known[at] == ours.grams if len(known) else np.zeros(len(ours.grams), bool)
  every = np.bincount(ours.rows, minlength=ours.size)
  share = np.bincount(ours.rows, seen, minlength=ours.size) / np.maximum(every, 1)
  found = np.full(ours.size, -1)
  of_seen = ours.rows[seen]
  rows, places = np.unique(of_seen, return_index=True)
  found[rows] = theirs.rows[first[at[seen][places]]]
  return np.where(share >= SHARE, found, -1)


def across(data: Dataset, of: Mapping[str, Prints | Grams]) -> tuple[str, ...]:
  """What to say of examples of one part that nearly are in another, exact copies apart.

  Args:
    of: the `prints` of each part.
  """
  notes = []
  for name, other in (('train', 'test'), ('train', 'val'), ('val', 'test')):
    ours, theirs = getattr(data, other), getattr(data, name)
    pairs = _pairs(ours, theirs, of[other], of[name])
    if pairs:
      notes.append(
        f'{len(pairs):,} of {len(ours.ids):,} {PARTS[other]} {noun(ours)} are nearly in '
        f'{PARTS[name]} too ({_how(ours)}): {listing(pairs)}. Look at them: what is the same '
        'belongs in one part.'
      )
  return tuple(notes)


def seen(
  source: Split, own: Prints | Grams, target: Dataset, of: Mapping[str, Prints | Grams]
) -> tuple[str, ...]:
  """What to say of a target's test and validation examples that nearly are what a source was
  trained on.

  Args:
    source, own: what it was trained on, and its `prints`; of: those of the target's parts.
  """
  notes = []
  for name in ('test', 'val'):
    part = getattr(target, name)
    pairs = _pairs(part, source, of[name], own)
    if pairs:
      notes.append(
        f'{len(pairs):,} of the {len(part.ids):,} {PARTS[name]} {noun(part)} of the target are '
        f'nearly among those that the source was trained on ({_how(part)}): {listing(pairs)}. '
        'Scores on them may flatter it.'
      )
  return tuple(notes)


def _pairs(
  ours: Split, theirs: Split, of_ours: Prints | Grams, of_theirs: Prints | Grams
) -> list[str]:
  """'this is like that' of all that are near and no exact copies."""
  found = alike(of_ours, of_theirs)
  exact = np.isin(ours.digests, theirs.digests).reshape(len(ours.ids), -1).any(1)
  return [
    f'{ours.ids[row]} is like {theirs.ids[found[row]]}'
    for row in np.flatnonzero((found >= 0) & ~exact).tolist()
  ]


def _how(split: Split) -> str:
  """By what examples are near."""
  if noun(split) == 'images':
    return 'the same but for compression, size or brightness'
  return f'{SHARE:.0%} or more of their sequences of {GRAM} words'
