"""No example dropped or counted twice; the key alone decides the order."""

import numpy as np
import pytest

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


@pytest.mark.parametrize('num_examples, batch_size', [(10, 4), (3, 8), (8, 4)])
def test_padded_batches_hold_everything_once(num_examples, batch_size):
  batches = feed.padded(np.arange(num_examples), np.arange(num_examples), batch_size)
  assert batches.mask.sum() == num_examples
  assert batches.inputs[batches.mask > 0].tolist() == list(range(num_examples))
