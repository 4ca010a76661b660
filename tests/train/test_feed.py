"""No example dropped or counted twice; the key alone decides the order."""

import numpy as np
import pytest

from tlx.datasets import Split
from tlx.train import feed


@pytest.mark.parametrize('num_examples, batch_size', [(10, 4), (3, 8), (8, 8)])
def test_order_shows_every_example_equally_often(num_examples, batch_size):
  examples = np.arange(100, 100 + num_examples)
  order = feed.order(examples, num_examples * 2, batch_size, (0, 0))
  assert order.shape == (num_examples * 2, batch_size)
  assert np.unique(order, return_counts=True)[1].tolist() == [2 * batch_size] * num_examples
  for epoch in order.reshape(-1, num_examples):
    assert sorted(epoch) == list(examples)
  np.testing.assert_array_equal(order, feed.order(examples, num_examples * 2, batch_size, (0, 0)))
  assert np.any(order != feed.order(examples, num_examples * 2, batch_size, (0, 1)))
  np.testing.assert_array_equal(
    order[:2], feed.order(examples, 2, batch_size, (0, 0))
  )  # longer is a continuation


def test_a_digest_tells_values_names_shapes_and_types(monkeypatch):
  """Whatever the parts in which they are read."""
  examples = [
    {'a': np.arange(12)},
    {'b': np.arange(12)},
    {'a': np.arange(12).reshape(4, 3)},
    {'a': np.arange(12).view(np.float64)},
    {'a': np.arange(12)[::-1]},
    {'a': np.arange(12), 'b': np.zeros(12)},
  ]
  whole = [feed.sha256(one) for one in examples]
  assert len(set(whole)) == len(examples)
  monkeypatch.setattr(feed, 'PART_BYTES', 50)
  assert [feed.sha256(one) for one in examples] == whole


def test_rows_of_what_is_on_disk_are_read_when_they_are_taken(tmp_path):
  """A split cut down twice holds no array; the same in memory does."""
  np.save(tmp_path / 'x.npy', np.arange(20).reshape(10, 2))
  inputs = np.load(tmp_path / 'x.npy', mmap_mode='r')
  ids = tuple(map(str, range(10)))
  make = lambda inputs: Split(inputs, np.arange(10), ids, np.arange(10, dtype=np.uint64))
  rows, again = np.array([9, 3, 4, 1]), np.array([2, 0])
  on_disk = make({'x': inputs}).take(rows).take(again)
  in_memory = make({'x': np.array(inputs)}).take(rows).take(again)
  assert isinstance(in_memory.inputs['x'], np.ndarray)
  assert not isinstance(on_disk.inputs['x'], np.ndarray)
  assert feed.length(on_disk.inputs) == 2 and on_disk.ids == ('4', '9')
  for take in (feed.whole, lambda inputs: feed.take(inputs, np.arange(2))):
    np.testing.assert_array_equal(take(on_disk.inputs)['x'], [[8, 9], [18, 19]])
    np.testing.assert_array_equal(take(in_memory.inputs)['x'], [[8, 9], [18, 19]])
