"""Hand-worked values; additivity over batches; the mask."""
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.tasks import classification
from tlx.types import Batch

LOGITS = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]]))
TARGETS = jnp.array([0, 1, 0])
ONES = jnp.ones(3)


def test_sums_are_those_of_hand():
  sums = classification.task().sums(LOGITS, Batch(None, TARGETS, ONES))
  assert float(sums['loss']) == pytest.approx(-np.log(0.5 * 0.8 * 0.25), abs=1e-6)
  assert float(sums['correct']) == 2 and float(sums['count']) == 3


def test_padding_counts_nothing():
  task = classification.task()
  padded = Batch(None, jnp.array([0, 1, 2]), jnp.array([1.0, 1.0, 0.0]))
  exact = Batch(None, TARGETS[:2], jnp.ones(2))
  assert task.sums(LOGITS, padded) == task.sums(LOGITS[:2], exact)
  assert float(task.loss(LOGITS, padded)) == pytest.approx(float(task.loss(LOGITS[:2], exact)), abs=1e-7)


def test_label_smoothing_is_of_the_loss_only():
  smooth = classification.task(0.3)
  batch = Batch(None, TARGETS[:1], jnp.ones(1))
  wanted = -(0.8 * np.log(0.5) + 0.1 * np.log(0.25) + 0.1 * np.log(0.25))
  assert float(smooth.loss(LOGITS[:1], batch)) == pytest.approx(wanted, abs=1e-6)
  assert float(smooth.sums(LOGITS[:1], batch)['loss']) == pytest.approx(-np.log(0.5), abs=1e-6)
  with pytest.raises(ValueError, match='share in'):
    classification.task(1.0)
