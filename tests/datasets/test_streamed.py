"""Data sets larger than `data_bytes`: what is decoded when it is taken is what lies in memory."""

import concurrent.futures
import itertools
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tests.datasets import boxes
from tlx import datasets
from tlx.datasets import _images
from tlx.train import feed


@pytest.fixture
def photographs(tmp_path):
  """Noise in files of several sizes, two of them the same image."""
  random = np.random.default_rng(0)
  for label in ('cat', 'dog'):
    (tmp_path / label).mkdir()
    for i in range(20):
      pixels = random.integers(0, 256, (20 + i, 30, 3), np.uint8)
      Image.fromarray(pixels).save(tmp_path / label / f'{i:02d}.png')
  (tmp_path / 'dog' / '20.png').write_bytes((tmp_path / 'cat' / '00.png').read_bytes())
  return tmp_path


def both(name, *arguments, **options):
  """(in memory, streamed)."""
  whole = datasets.load(name, *arguments, **options)
  streamed = datasets.load(name, *arguments, **options, data_bytes=1.0)
  assert all(isinstance(split.inputs, np.ndarray) for split in whole[:3])
  assert all(hasattr(split.inputs, 'take') for split in streamed[:3] if len(split.ids))
  assert not any(isinstance(split.inputs, np.ndarray) for split in streamed[:3])
  return whole, streamed


def assert_equal(whole, streamed):
  assert whole.sha256 == streamed.sha256
  assert (whole.class_names, whole.notes) == (streamed.class_names, streamed.notes)
  for one, other in zip(whole[:3], streamed[:3]):
    assert (one.ids, one.groups) == (other.ids, other.groups)
    assert (other.inputs.shape, other.inputs.dtype) == (one.inputs.shape, one.inputs.dtype)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.digests, other.digests)
    np.testing.assert_array_equal(one.inputs, feed.whole(other.inputs))


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'shift': 'rotate_90'},
    {'shift': 'invert', 'fit': 'crop', 'crop': 0.9, 'duplicates': 'drop'},
    {'val_examples': 4, 'group': r'(\d\d)'},
  ],
)
def test_a_folder(photographs, options):
  whole, streamed = both(f'folder:{photographs}', 12, 3, **options)
  assert_equal(whole, streamed)
  rows = np.array([5, 1, 5, 0])
  np.testing.assert_array_equal(streamed.train.inputs.take(rows), whole.train.inputs[rows])
  some = streamed.train.take(np.array([7, 3, 2])).take(np.array([2, 0]))
  np.testing.assert_array_equal(feed.whole(some.inputs), whole.train.inputs[[2, 7]])


def test_copies_dropped_change_the_digest(photographs):
  kept = datasets.load(f'folder:{photographs}', 12, 3, data_bytes=1.0, test_fraction=0.5)
  told = any('duplicates' in note for note in kept.notes)
  dropped = both(f'folder:{photographs}', 12, 3, duplicates='drop', test_fraction=0.5)
  assert_equal(*dropped)
  assert told and dropped[1].sha256 != kept.sha256


def test_a_table_of_pixels(tmp_path):
  random = np.random.default_rng(0)
  lines = ['emotion,pixels,usage']
  for i in range(30):
    pixels = ' '.join(map(str, random.integers(0, 256, 16)))
    lines.append(f'{i % 2},{pixels},{("Training", "PublicTest", "PrivateTest")[i % 3]}')
  (tmp_path / 'labels.csv').write_text('\n'.join(lines))
  assert_equal(*both(f'csv:{tmp_path}/labels.csv', 6, 1))


def test_array_records(data_dir):
  """Read and decoded in several threads, of several callers at once."""
  whole, streamed = both('uci_digits', 8, 1, data_dir=data_dir)
  assert_equal(whole, streamed)
  rows = [np.random.default_rng(i).permutation(len(whole.train.ids))[:200] for i in range(8)]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for own, taken in zip(rows, pool.map(streamed.train.inputs.take, rows)):
      np.testing.assert_array_equal(taken, whole.train.inputs[own])


def test_images_with_boxes(tmp_path):
  boxes.write_coco(tmp_path)
  options = {'fit': 'pad', 'wanted': 'annotated image'}
  whole, streamed = both(f'coco:{tmp_path}', 16, 3, **options)
  assert_equal(whole, streamed)
  for one, other in zip(whole[:3], streamed[:3]):
    for name, leaf in one.values.items():
      np.testing.assert_array_equal(leaf, other.values[name])


def test_bad_images_are_found_at_once(photographs):
  (photographs / 'cat' / '07.png').write_bytes(b'\x89PNG\r\n\x1a\n')
  for limit in (1e9, 1.0):
    with pytest.raises(ValueError, match=r'Cannot read 1 of the 41 images(.|\n)*cat/07.png: '):
      datasets.load(f'folder:{photographs}', 8, 3, data_bytes=limit)
  assert_equal(*both(f'folder:{photographs}', 8, 3, skip_bad=True))


def test_a_file_that_is_gone_later(photographs):
  streamed = datasets.load(f'folder:{photographs}', 8, 3, data_bytes=1.0)
  (photographs / streamed.train.ids[4]).unlink()
  with pytest.raises(ValueError, match=f'{streamed.train.ids[4]} can no longer be read: it is no'):
    streamed.train.inputs.take(np.arange(9))
  assert len(streamed.train.inputs.take(np.arange(4))) == 4


def test_a_file_that_is_replaced_later(photographs):
  streamed = datasets.load(f'folder:{photographs}', 8, 3, data_bytes=1.0, shift='rotate_90')
  ids = streamed.train.ids
  (photographs / ids[4]).write_bytes((photographs / ids[5]).read_bytes())
  with pytest.raises(ValueError, match=f'{ids[4]} is another image than it was at first'):
    streamed.train.inputs.take(np.arange(9))
  assert len(streamed.train.inputs.take(np.arange(4))) == 4


def test_a_digest_of_rows_is_known_without_decoding(photographs, monkeypatch):
  """It tells rows, their order and shifts apart, and is that of the same rows at any time."""
  name = f'folder:{photographs}'
  splits = [
    datasets.load(name, 8, 3, data_bytes=1.0, shift=shift).train for shift in ('none', 'invert')
  ]
  monkeypatch.setattr(_images, 'decode', None)
  rows = np.array([2, 5, 3]), np.array([5, 2, 3]), np.arange(len(splits[0].ids))
  found = [feed.sha256(split.take(some).inputs) for split in splits for some in rows]
  assert len(set(found)) == 6
  assert feed.sha256(splits[0].inputs) == found[2]
  assert feed.sha256(splits[0].take(rows[1]).take(np.array([1, 0, 2])).inputs) == found[0]


def test_memory_does_not_grow_with_the_images(tmp_path, make_images, monkeypatch):
  """Of 60 images of 270 KB, four at a time in two parts, and what is taken."""
  monkeypatch.setattr(_images, '_TASK', 2)
  monkeypatch.setattr(_images, 'PART_BYTES', 4 * 300 * 300 * 3)
  for name in ('a', 'b'):
    make_images(tmp_path / name, 30)
  image_bytes = 300 * 300 * 3
  tracemalloc.start()
  data = datasets.load(f'folder:{tmp_path}', 300, 3, data_bytes=1e6)
  taken = data.train.inputs.take(np.arange(3))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert taken.nbytes == 3 * image_bytes
  assert peak < 14 * image_bytes


def test_what_is_made_ahead_comes_in_its_order():
  begun = []

  def make(number):
    begun.append(number)
    return number**2

  found = feed.ahead(make, range(10), 2)
  assert next(found) == 0
  assert len(begun) <= 3
  assert [0, *found] == [number**2 for number in range(10)] and sorted(begun) == [*range(10)]

  def fails(number):
    if number == 3:
      raise ValueError('three')
    return number

  with pytest.raises(ValueError, match='three'):
    list(feed.ahead(fails, itertools.count(), 2))


def test_some_of_what_is_streamed_is_not_read_yet(photographs, monkeypatch):
  whole, streamed = both(f'folder:{photographs}', 8, 3)
  rows, decode = np.array([4, 9, 1]), _images.decode
  monkeypatch.setattr(_images, 'decode', None)
  found = feed.some(feed.Arrays(streamed.train.inputs, streamed.train.labels), rows)
  np.testing.assert_array_equal(found.targets, whole.train.labels[rows])
  monkeypatch.setattr(_images, 'decode', decode)
  np.testing.assert_array_equal(feed.whole(found.inputs), whole.train.inputs[rows])
  in_memory = feed.some(whole.train.inputs, rows)
  np.testing.assert_array_equal(in_memory, whole.train.inputs[rows])
