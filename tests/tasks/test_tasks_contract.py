"""Every task: padding counts nothing, sums of halves are those of the whole; values by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk_metrics

from tests.tasks import brightness
from tests.tasks.test_classification import sums_of
from tlx.plug import available
from tlx.tasks import classification, multi_label, regression
from tlx.train import step
from tlx.types import Batch

RANDOM = np.random.default_rng(0)
# name: (module, outputs [8, ...], what `targets` makes of labels)
CASES = {
  'classification': (classification, (8, 3), RANDOM.integers(0, 3, 8)),
  'regression': (regression, (8, 1), RANDOM.normal(size=8).astype(np.float32)),
  'multi_label': (multi_label, (8, 3), RANDOM.integers(0, 2, (8, 3))),
  'brightness': (brightness, (8, 1), np.zeros(8, int)),
}


def case(name):
  """(the task, outputs of 8 examples, their targets)."""
  module, shape, labels = CASES[name]
  task = module.task(3)
  images = np.random.default_rng(1).integers(0, 256, (8, 4, 4, 1)).astype(np.uint8)
  outputs = np.random.default_rng(2).normal(size=shape).astype(np.float32)
  return task, jnp.asarray(outputs), task.targets(images, labels)


def columns_of(task, outputs, targets):
  sums = sums_of(task, outputs, Batch(None, jnp.asarray(targets), jnp.ones(len(outputs))))
  kept = {name: np.asarray(leaf) for name, leaf in task.keep(outputs).items()}
  return task.scores(sums), task.scores(sums, kept, targets)


def test_the_room_is_covered():
  assert {'classification', 'regression', 'multi_label'} <= set(available('tasks')) & set(CASES)


@pytest.mark.parametrize('name', CASES)
def test_padding_counts_nothing(name):
  task, outputs, targets = case(name)
  mask = jnp.ones(8).at[5:].set(0.0)
  padded = sums_of(task, outputs, Batch(None, jnp.asarray(targets), mask))
  exact = sums_of(task, outputs[:5], Batch(None, jnp.asarray(targets[:5]), jnp.ones(5)))
  for term, sums in exact.items():
    assert padded[term] == pytest.approx(sums, abs=1e-5)


@pytest.mark.parametrize('name', CASES)
def test_sums_of_two_halves_are_those_of_the_whole(name):
  task, outputs, targets = case(name)
  parts = []
  for part in (slice(0, 3), slice(3, 8), slice(0, 8)):
    batch = Batch(None, jnp.asarray(targets[part]), jnp.ones(len(targets[part])))
    parts.append(sums_of(task, outputs[part], batch))
  for term, (total, weight) in parts[2].items():
    assert total == pytest.approx(parts[0][term][0] + parts[1][term][0], abs=1e-5)
    assert weight == parts[0][term][1] + parts[1][term][1]


@pytest.mark.parametrize('name', CASES)
def test_columns_hold_the_selected_one_and_the_loss(name):
  task, outputs, targets = case(name)
  of_sums, of_all = columns_of(task, outputs, targets)
  assert {'loss', task.select[0]} <= of_sums.keys() <= of_all.keys()
  if name in available('tasks'):
    numbers = {column for column, value in of_all.items() if not isinstance(value, list)}
    assert numbers == set(CASES[name][0].COLUMNS)
  assert task.select[1] in (1, -1) and task.head == outputs.shape[1]
  batch = Batch(None, jnp.asarray(targets), jnp.ones(8))
  total, weight = step.minimised(task, outputs, batch)
  assert float(total / weight) == pytest.approx(of_sums['loss'], abs=1e-5)
  assert all(len(leaf) == 8 for leaf in task.keep(outputs).values())
  assert CASES[name][0].task(3) is task


def test_regression_by_hand():
  """Errors 1, -1, 2: of outputs 1.5, 0, 1 in scale 2 around 1 -> 4, 1, 3 for 3, 2, 1."""
  task = regression.task(1, center=1.0, scale=2.0)
  outputs, targets = jnp.array([[1.5], [0.0], [1.0]]), np.array([3.0, 2.0, 1.0], np.float32)
  of_sums, columns = columns_of(task, outputs, targets)
  assert of_sums == pytest.approx({'mse': 2.0, 'mae': 4 / 3, 'loss': 0.5, 'count': 3})
  assert columns['r2'] == pytest.approx(1 - 6 / 2)
  assert columns['spearman'] == pytest.approx(0.5)  # ranks 3, 1, 2 against 3, 2, 1
  # deviations 4/3, -5/3, 1/3 against 1, 0, -1: 1 / sqrt(42/9 * 2)
  assert columns['pearson'] == pytest.approx(1 / math.sqrt(28 / 3))
  np.testing.assert_allclose(task.keep(outputs)['values'], [4.0, 1.0, 3.0])


@pytest.mark.parametrize('seed', range(5))
def test_regression_is_scipys_and_scikit_learns(seed):
  random = np.random.default_rng(seed)
  targets = random.integers(0, 5, 60).astype(np.float32)  # with ties
  outputs = jnp.asarray(np.round(targets[:, None] + random.normal(size=(60, 1)) * 2, 1))
  columns = columns_of(regression.task(1), outputs, targets)[1]
  values = np.asarray(outputs)[:, 0]
  wanted = {
    'mse': sk_metrics.mean_squared_error(targets, values),
    'mae': sk_metrics.mean_absolute_error(targets, values),
    'r2': sk_metrics.r2_score(targets, values),
    'pearson': stats.pearsonr(values, targets).statistic,
    'spearman': stats.spearmanr(values, targets).statistic,
  }
  for name, value in wanted.items():
    assert columns[name] == pytest.approx(value, rel=1e-4), name


def test_regression_without_variance_has_a_stated_answer():
  outputs, flat = jnp.array([[1.0], [2.0]]), np.array([3.0, 3.0], np.float32)
  columns = columns_of(regression.task(1), outputs, flat)[1]
  assert columns['mse'] == 2.5
  assert all(math.isnan(columns[name]) for name in ('r2', 'pearson', 'spearman'))
  columns = columns_of(regression.task(1), jnp.ones((2, 1)), np.array([0.0, 2.0], np.float32))[1]
  assert columns['r2'] == 0.0
  assert math.isnan(columns['pearson']) and math.isnan(columns['spearman'])


def test_multi_label_by_hand():
  """Labels 0 and 1 of three; the third is of no example."""
  task = multi_label.task(3)
  outputs = jnp.array([[2.0, 1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, 3.0, -2.0], [-2.0, 2.0, 1.0]])
  targets = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], np.float32)
  of_sums, columns = columns_of(task, outputs, targets)
  # given 2, 1, 1, 2; right 2, 0, 0, 1; true 2, 1, 1, 1
  assert of_sums['micro_f1'] == pytest.approx(2 * 3 / (6 + 5))
  assert of_sums['exact_match'] == 0.25 and of_sums['count'] == 4
  losses = np.log1p(np.exp(np.where(targets > 0, -1, 1) * np.asarray(outputs)))
  assert of_sums['loss'] == pytest.approx(losses.sum() / 4, rel=1e-6)
  # of 0: given 0 1, true 0 2 -> 2/4; of 1: given 0 2 3, true 0 1 3 -> 4/6; 2 is left out
  assert columns['macro_f1'] == pytest.approx((1 / 2 + 2 / 3) / 2)
  # of 0 in order 0 1 2 3: 1, 2/3; of 1 in order 2 3 0 1: 1/2, 2/3, 3/4
  wanted = [(1 + 2 / 3) / 2, (1 / 2 + 2 / 3 + 3 / 4) / 3]
  assert columns['average_precision'][:2] == pytest.approx(wanted)
  assert math.isnan(columns['average_precision'][2])
  assert columns['map'] == pytest.approx(np.mean(wanted))


@pytest.mark.parametrize('seed', range(5))
def test_multi_label_is_scikit_learns(seed):
  random = np.random.default_rng(seed)
  targets = (random.random((50, 4)) < 0.3).astype(np.float32)
  outputs = jnp.asarray(np.round(random.normal(size=(50, 4)), 1) + 0.01)  # with ties
  columns = columns_of(multi_label.task(4), outputs, targets)[1]
  given = np.asarray(outputs) > 0
  wanted = {
    'micro_f1': sk_metrics.f1_score(targets, given, average='micro'),
    'macro_f1': sk_metrics.f1_score(targets, given, average='macro'),
    'exact_match': sk_metrics.accuracy_score(targets, given),
    'map': sk_metrics.average_precision_score(targets, np.asarray(outputs), average='macro'),
  }
  for name, value in wanted.items():
    assert columns[name] == pytest.approx(value, rel=1e-6), name


def test_multi_label_without_any_label_has_a_stated_answer():
  columns = columns_of(multi_label.task(2), -jnp.ones((3, 2)), np.zeros((3, 2), np.float32))[1]
  assert columns['micro_f1'] == 0.0 and columns['exact_match'] == 1.0
  assert math.isnan(columns['map']) and math.isnan(columns['macro_f1'])


def test_class_numbers_are_targets_too():
  labels = np.array([2, 0], np.int32)
  assert multi_label.task(3).targets(None, labels).tolist() == [[0, 0, 1], [1, 0, 0]]
  assert regression.task(3).targets(None, labels).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
  'make, words',
  [
    (lambda: regression.task(1, scale=0.0), 'scale above 0'),
    (lambda: regression.task(1, center=math.inf), 'finite center'),
    (lambda: regression.task(1).targets(None, np.zeros((4, 3))), "Use the task 'multi_label'"),
    (lambda: multi_label.task(3).targets(None, np.zeros(4)), "Use the task 'regression'"),
    (lambda: multi_label.task(3).targets(None, np.zeros((4, 2))), 'each of 3 labels'),
    (lambda: classification.task(3).targets(None, np.zeros(4)), "Use the task 'regression'"),
    (lambda: classification.task(3).targets(None, np.zeros((4, 3), int)), "'multi_label'"),
  ],
)
def test_targets_of_another_task_are_errors(make, words):
  with pytest.raises(ValueError, match=words):
    make()


def test_answers_are_for_people():
  kept = {'values': np.array([1.5, 2.0], np.float32)}
  assert regression.answers(kept, ('all',))['value'].tolist() == [1.5, 2.0]
  kept = {'label_logits': np.array([[0.0, 2.0], [1.0, 3.0], [-1.0, -1.0]], np.float32)}
  said = multi_label.answers(kept, ('a', 'b'))
  assert said['labels'] == ['b', 'a|b', ''] and said['p(a)'][0] == 0.5
