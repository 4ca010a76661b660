"""Near copies: hashes are those of imagehash, what was saved again is found and others are not."""

import numpy as np
import pytest
from PIL import Image

from tlx import datasets
from tlx.datasets import _near, _types

# str(imagehash.dhash(image)) of imagehash 4.3.2, of images drawn one after the other by seed 0
PUBLISHED = {
  (32, 32, 3): '33d5496d4c625288',
  (8, 8, 1): '871b395a2619396c',
  (64, 64, 3): '4245a533ab35ad6a',
  (14, 14, 1): 'b534d51433aea9a9',
  (37, 37, 3): '8beb4c58daa6d9d9',
}


def photographs(number, seed=0):
  """Smooth images uint8 [number, 32, 32, 3]."""
  small = np.random.default_rng(seed).integers(0, 256, (number, 6, 6, 3), np.uint8)
  return np.stack([_resized(image, 32) for image in small])


def _resized(image, side):
  return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def split(inputs, name='test', digests=None):
  number = len(inputs)
  own = np.arange(number) + (1000 if name == 'train' else 0)
  ids = tuple(f'{name}/{i}' for i in range(number))
  digests = np.asarray(own if digests is None else digests, np.uint64)
  return _types.Split(inputs, np.zeros(number, np.int32), ids, digests)


def test_hashes_are_those_of_imagehash():
  random = np.random.default_rng(0)
  images = [random.integers(0, 256, shape, np.uint8) for shape in PUBLISHED]
  found = [f'{int(_near.hashes([image]).hashes[0]):016x}' for image in images]
  assert found == list(PUBLISHED.values())


@pytest.mark.parametrize('block', [_near.BLOCK, 70])
def test_what_was_saved_again_is_found_and_others_are_not(monkeypatch, block):
  monkeypatch.setattr(_near, 'BLOCK', block)
  known = photographs(30)
  again = {
    4: _resized(_resized(known[4], 64), 32),
    7: (known[7] * 0.7).astype(np.uint8),
    9: np.asarray(Image.fromarray(known[9]).convert('L').convert('RGB')),
  }
  others = [*photographs(10, seed=1), np.full((32, 32, 3), 9, np.uint8)]  # one of one colour
  ours = _near.hashes([*again.values(), *others])
  flat = np.zeros((1, 32, 32, 3), np.uint8)
  found = _near.alike(ours, _near.hashes([*known, *flat]))
  assert found.tolist() == [4, 7, 9, *[-1] * 11]
  assert _near.alike(ours, _near.hashes([])).tolist() == [-1] * 14


def test_an_image_whose_hash_alone_is_alike_is_another():
  """A drawing on an empty ground, and one of other strokes in the same places."""
  one, other = np.zeros((2, 32, 32, 1), np.uint8)
  one[8:24, 8:16], one[8:24, 16:24] = 100, 200
  other[8:24, 8:16], other[8:24, 16:24] = 20, 250
  ours, theirs = _near.hashes([one]), _near.hashes([other])
  assert np.bitwise_count(ours.hashes ^ theirs.hashes)[0] <= _near.BITS
  assert _near.alike(ours, theirs).tolist() == [-1]


def test_texts_are_near_by_seven_of_ten_grams():
  words = [f'w{i}' for i in range(17)]  # ten 8-grams
  known = ['something else', ' '.join(words), 'Short one, this.']

  def first(number):
    return ' '.join([*words[: number + 7], *(f'x{i}' for i in range(10 - number))])

  texts = [first(7), first(6), 'short ONE (this)', 'short one', '', '!']
  ours, theirs = _near.grams(texts), _near.grams(known)
  assert _near.alike(ours, theirs).tolist() == [1, -1, 2, -1, -1, -1]
  pair = _near.grams([(first(4), first(3))])  # both texts of a pair count
  assert pair.rows.tolist() == [0] * 27
  assert _near.alike(ours, _near.grams([])).tolist() == [-1] * 6
  left = _near.taken(theirs, np.array([1, 2]))
  assert _near.alike(ours, left).tolist() == [0, -1, 1, -1, -1, -1]
  assert _near.taken(_near.grams(texts), np.array([2, 4])).rows.tolist() == [0]


def test_exact_copies_are_not_counted_again():
  known = photographs(6)
  brighter = (known[:2] * 0.8).astype(np.uint8)
  test = np.concatenate([brighter, known[3:4], photographs(2, seed=1)])
  train, val = split(known, 'train'), split(photographs(3, seed=2), 'val')
  held = split(test, digests=[0, 1, 1003, 3, 4])  # the third is a copy byte for byte
  data = datasets.Dataset(train, val, held, ('a',), '')
  prints = {name: datasets.prints(getattr(data, name)) for name in ('train', 'val', 'test')}
  assert datasets.nearly_across(data, prints) == (
    '2 of 5 test images are nearly in training too (the same but for compression, size or '
    'brightness): test/0 is like train/0, test/1 is like train/1. Look at them: what is the same '
    'belongs in one part.',
  )
  rows = np.arange(1, 6)  # the source saw all but the first
  left = datasets.taken_prints(prints['train'], rows)
  assert datasets.nearly_seen(train.take(rows), left, data, prints) == (
    '1 of the 5 test images of the target are nearly among those that the source was trained on '
    '(the same but for compression, size or brightness): test/1 is like train/1. Scores on them '
    'may flatter it.',
  )


def test_images_that_are_not_in_memory_are_taken_some_at_a_time():
  images = photographs(300)
  rows = _types.Rows(images, np.arange(299, -1, -1))
  np.testing.assert_array_equal(
    datasets.prints(split(rows)).hashes, datasets.prints(split(images)).hashes[::-1]
  )
