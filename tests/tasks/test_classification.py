"""Hand-worked values; additivity over batches; the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.tasks import classification
from tlx.train import step
from tlx.types import Batch, Weighed

LOGITS = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]]))
TARGETS = jnp.array([0, 1, 0])
ONES = jnp.ones(3)
TASK = classification.task(3)


def sums_of(task, logits, batch):
  """{term: (sum of value x weight, sum of weight)} as evaluation adds them up."""
  terms = task.terms(logits, batch)
  return {
    name: (float((value * weight).sum()), float(weight.sum()))
    for name, (value, weight) in terms.items()
  }


def test_columns_are_those_of_hand():
  columns = TASK.scores(sums_of(TASK, LOGITS, Batch(None, TARGETS, ONES)))
  assert columns['loss'] == pytest.approx(-np.log(0.5 * 0.8 * 0.25) / 3, abs=1e-6)
  assert columns['accuracy'] == pytest.approx(2 / 3)
  assert (columns['count'], columns['correct']) == (3, 2)
  assert set(columns) == {'accuracy', 'loss', 'count', 'correct'}
  assert TASK.select == ('accuracy', +1) and TASK.head == 3


def test_kept_logits_tell_the_recall_of_each_class():
  """Class 0: one of two; class 1: the one; class 2 has no example."""
  sums = sums_of(TASK, LOGITS, Batch(None, TARGETS, ONES))
  kept = {name: np.asarray(leaf) for name, leaf in TASK.keep(LOGITS).items()}
  columns = TASK.scores(sums, kept, np.asarray(TARGETS))
  np.testing.assert_array_equal(columns['recall'], [0.5, 1.0, np.nan])
  assert columns['balanced_accuracy'] == 0.75


def test_padding_counts_nothing():
  padded = Batch(None, jnp.array([0, 1, 2]), jnp.array([1.0, 1.0, 0.0]))
  exact = Batch(None, TARGETS[:2], jnp.ones(2))
  assert sums_of(TASK, LOGITS, padded) == sums_of(TASK, LOGITS[:2], exact)


def test_sums_of_two_halves_are_those_of_the_whole():
  whole = sums_of(TASK, LOGITS, Batch(None, TARGETS, ONES))
  halves = [
    sums_of(TASK, LOGITS[part], Batch(None, TARGETS[part], ONES[part]))
    for part in (slice(0, 1), slice(1, 3))
  ]
  for name, (total, weight) in whole.items():
    assert total == pytest.approx(halves[0][name][0] + halves[1][name][0], abs=1e-6)
    assert weight == halves[0][name][1] + halves[1][name][1]


def test_label_smoothing_is_of_training_only():
  smooth = classification.task(3, 0.3)
  batch = Batch(None, TARGETS[:1], jnp.ones(1))
  wanted = -(0.8 * np.log(0.5) + 0.1 * np.log(0.25) + 0.1 * np.log(0.25))
  total, weight = step.minimised(smooth, LOGITS[:1], batch)
  assert float(total / weight) == pytest.approx(wanted, abs=1e-6)
  columns = smooth.scores(sums_of(smooth, LOGITS[:1], batch))
  assert columns['loss'] == pytest.approx(-np.log(0.5), abs=1e-6)
  with pytest.raises(ValueError, match='share in'):
    classification.task(3, 1.0)


def test_equal_tasks_are_one():
  """Programs are shared by it."""
  assert classification.task(3, 0.1) is classification.task(3, 0.1)


def test_unequal_classes_weigh_as_in_torch_and_columns_do_not():
  """torch 2.13: CrossEntropyLoss(weight=(1, 2, 4)) and (1 - p)^2 times -log p, on LOGITS."""
  task = classification.task(3, class_weights=(1.0, 2.0, 4.0))
  total, weight = sums_of(task, LOGITS, Batch(None, TARGETS, ONES))['loss']
  assert total / weight == pytest.approx((np.log(2) - 2 * np.log(0.8) + np.log(4)) / 4, abs=1e-6)
  assert total / weight == pytest.approx(0.63143218, abs=1e-6)
  assert task.scores(sums_of(task, LOGITS, Batch(None, TARGETS, ONES)))['loss'] == pytest.approx(
    -np.log(0.5 * 0.8 * 0.25) / 3, abs=1e-6
  )
  balanced = classification.task(3, class_weights='balanced')
  of_run = Weighed(TARGETS, jnp.array([1.0, 2.0, 4.0])[TARGETS])
  total, weight = step.minimised(balanced, LOGITS, Batch(None, of_run, ONES))
  assert float(total / weight) == pytest.approx(0.63143218, abs=1e-6)
  focal = classification.task(3, focal=2.0)
  total, weight = sums_of(focal, LOGITS, Batch(None, TARGETS, ONES))['loss']
  by_hand = np.array([0.25 * np.log(2), -0.04 * np.log(0.8), 0.5625 * np.log(4)])
  assert total / weight == pytest.approx(by_hand.mean(), abs=1e-6)
  sure = sums_of(focal, jnp.array([[200.0, 0.0, 0.0]]), Batch(None, TARGETS[:1], ONES[:1]))
  assert sure['loss'][0] == 0.0
  root = classification.task(3, focal=0.5)

  def summed(logits):
    return root.terms(logits, Batch(None, TARGETS[:1], ONES[:1]))['loss'][0].sum()

  assert np.isfinite(jax.grad(summed)(jnp.array([[200.0, 0.0, 0.0]]))).all()


@pytest.mark.parametrize(
  'options, words',
  [
    ({'class_weights': (1.0, 2.0)}, '3 numbers above 0'),
    ({'class_weights': (1.0, 2.0, 0.0)}, '3 numbers above 0'),
    ({'class_weights': 'balance'}, "'balanced' or 3 numbers above 0.*got 'balance'"),
    ({'focal': -1.0}, 'focal'),
    ({'focal': 2.0, 'label_smoothing': 0.1}, 'focal goes by the right class alone'),
  ],
)
def test_losses_of_unequal_classes_that_there_are_not(options, words):
  with pytest.raises(ValueError, match=words):
    classification.task(3, **options)
