"""Exact probes against scikit-learn in float64, and against themselves.

Padded, grouped, badly scaled, short of classes.
"""

import functools
import warnings

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from tlx.datasets import uci_digits
from tlx.train import exact, memory

PENALTIES = [1.0, 1e-1, 1e-2, 1e-3]


@functools.cache
def digits():
  """(pixels [300, 64], of which some are constant, targets)."""
  images, targets = uci_digits.read()
  return images[:300].reshape(300, -1).astype(np.float32), targets[:300]


@functools.cache
def gaussians():
  """Fewer examples than features, [40, 100].

  Their scales lie between 1e11 and 1e13, their means are up to 100 times that.
  """
  random = np.random.default_rng(0)
  targets = np.arange(40, dtype=np.int32) % 4
  features = (
    random.normal(size=(40, 100))
    + random.normal(size=(4, 100))[targets]
    + random.uniform(-100, 100, 100)
  )
  return (features * 10.0 ** random.uniform(11, 13, 100)).astype(np.float32), targets


def solve(solver, data, penalties, rows=None, mask=None, num_classes=10):
  rows = np.arange(len(data[1])) if rows is None else np.asarray(rows)
  rows = np.broadcast_to(rows, (len(penalties), rows.shape[-1]))
  mask = np.ones(rows.shape) if mask is None else np.broadcast_to(mask, rows.shape)
  return exact.solve(solver, *data, rows, mask, penalties, num_classes)


def outputs(probe, run, features):
  return features.astype(np.float64) @ probe.kernel[run].astype(np.float64) + probe.bias[run]


def reference(solver, data, penalty, weights=None):
  """(scikit-learn's outputs [N, K] of the data, its kernel [D, K] of the features as given)."""
  features, targets = data[0].astype(np.float64), data[1]
  scale = np.sqrt(features.var(0).mean())
  scaled = (features - features.mean(0)) / scale
  count, factor = len(targets), 1 + (len(set(targets.tolist())) == 2)
  model = (
    LogisticRegression(C=factor / (count * penalty), tol=1e-9, max_iter=10_000)
    if solver == 'logistic'
    else RidgeClassifier(alpha=count * penalty)
  )
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # its line search gives up beyond float64's last digits
    model.fit(scaled, targets)
  return model.decision_function(scaled), model.coef_.T / scale


def objective(logits, kernel, data, penalty):
  """That of logistic regression, in float64; kernel [D, K] of the features as given."""
  scale = np.sqrt(data[0].astype(np.float64).var(0).mean())
  losses = logsumexp(logits, axis=1) - logits[np.arange(len(logits)), data[1]]
  return losses.mean() + penalty / 2 * np.sum((kernel.astype(np.float64) * scale) ** 2)


def test_rounding_at_the_end_does_not_make_a_probe_unsolved():
  """Of two digits a class the gradient of the outputs computed anew is 1.001 to 1.0025 tolerances,
  on some machines; scikit-learn's objective is the same.
  """
  images, targets = uci_digits.read()
  pixels = (images.reshape(len(images), -1) / 16).astype(np.float32)
  for seed in (1, 29, 47, 72):
    random = np.random.default_rng(seed)
    of_classes = (random.permutation(np.flatnonzero(targets == k))[:2] for k in range(10))
    rows = np.concatenate([*of_classes])
    probe = solve('logistic', (pixels[rows], targets[rows]), [1e-1, 3e-2, 3e-3])
    assert probe.converged.all() and (probe.grad_norm <= exact.SLACK * exact.TOLERANCE).all()


@pytest.mark.parametrize('data, num_classes', [(digits, 10), (gaussians, 4)])
@pytest.mark.parametrize('solver', ['logistic', 'ridge'])
def test_probes_are_those_of_scikit_learn(solver, data, num_classes):
  """Outputs within 5e-3 of the largest and equal predictions.

  The objective within 1e-6, or 5e-8 where it is next to nothing.
  """
  data = data()
  probe = solve(solver, data, PENALTIES, num_classes=num_classes)
  assert probe.kernel.shape == (4, data[0].shape[1], num_classes) and probe.bias.shape == (
    4,
    num_classes,
  )
  assert probe.converged.all() and (probe.grad_norm <= exact.TOLERANCE).all()
  for run, penalty in enumerate(PENALTIES):
    wanted, kernel = reference(solver, data, penalty)
    got = outputs(probe, run, data[0])
    np.testing.assert_array_equal(got.argmax(1), wanted.argmax(1))
    if solver == 'logistic':  # outputs are known but for a constant an example
      got, wanted = (logits - logits.mean(1, keepdims=True) for logits in (got, wanted))
      lowest = objective(wanted, kernel, data, penalty)
      assert objective(got, probe.kernel[run], data, penalty) == pytest.approx(
        lowest, rel=1e-6, abs=5e-8
      )
    np.testing.assert_allclose(got, wanted, atol=5e-3 * np.abs(wanted).max())


@pytest.mark.parametrize('solver', ['logistic', 'ridge'])
def test_two_classes_are_those_of_scikit_learn(solver):
  """scikit-learn keeps one column, the difference of ours: for ridge, twice the second."""
  features, targets = digits()
  data = features[targets < 2], targets[targets < 2]
  probe = solve(solver, data, [1e-2], num_classes=2)
  got, (wanted, _) = outputs(probe, 0, data[0]), reference(solver, data, 1e-2)
  got = got[:, 1] - got[:, 0] if solver == 'logistic' else got[:, 1]
  np.testing.assert_allclose(got, wanted, atol=1e-3 * np.abs(wanted).max())


def test_the_gradient_is_that_of_the_objective():
  """By float64 and the scaled features: its norm is what is reported, to float32's rounding."""
  features, targets = digits()
  probe = solve('logistic', digits(), PENALTIES)
  scale = np.sqrt(features.var(0, dtype=np.float64).mean())
  scaled = (features - features.mean(0, dtype=np.float64)) / scale
  for run, penalty in enumerate(PENALTIES):
    logits = outputs(probe, run, features)
    errors = (
      np.exp(logits - logsumexp(logits, axis=1, keepdims=True)) - np.eye(10)[targets]
    ) / len(targets)
    grads = scaled.T @ errors + penalty * probe.kernel[run] * scale
    assert np.sqrt(np.sum(grads**2) + np.sum(errors.sum(0) ** 2)) <= exact.TOLERANCE + 2e-6


def same(a, b, features, atol=2e-3):
  """Heads that put out the same, though not bit for bit: runs end anywhere below the tolerance."""
  np.testing.assert_allclose(features @ a[0] + a[1], features @ b[0] + b[1], atol=atol)


@pytest.mark.parametrize('solver', ['logistic', 'ridge'])
def test_masked_rows_are_dropped_rows(solver):
  features, targets = digits()
  features = np.concatenate(
    [features, np.full((1, 64), np.inf, np.float32)]
  )  # what a masked row holds does not matter
  targets = np.append(targets, 0)
  rows, mask = np.full((1, 150), 300), np.zeros((1, 150))
  rows[0, 10:130], mask[0, 10:130] = np.arange(120), 1.0
  padded = exact.solve(solver, features, targets, rows, mask, [1e-2], 10)
  dropped = exact.solve(solver, features, targets, rows[:, 10:130], mask[:, 10:130], [1e-2], 10)
  assert padded.converged.all()
  same((padded.kernel[0], padded.bias[0]), (dropped.kernel[0], dropped.bias[0]), features[:300])


@pytest.mark.parametrize('solver', ['logistic', 'ridge'])
def test_runs_together_are_each_alone(solver):
  """Three sets of examples, one with two penalties, on two devices: each run gets its own probe."""
  rows = np.stack([np.arange(100), np.arange(100) + 90, np.arange(100), np.arange(100) + 200])
  mask, penalties = np.ones(rows.shape), [1e-1, 1e-2, 1e-3, 1e-2]
  together = exact.solve(solver, *digits(), rows, mask, penalties, 10)
  for run in range(4):
    alone = exact.solve(
      solver, *digits(), rows[run : run + 1], mask[:1], penalties[run : run + 1], 10
    )
    same((together.kernel[run], together.bias[run]), (alone.kernel[0], alone.bias[0]), digits()[0])


@pytest.mark.parametrize('solver', ['logistic', 'ridge'])
def test_an_absent_class_is_never_predicted(solver):
  """Of an eleventh class nothing is seen; the other ten are solved as though it were not there."""
  eleven, ten = solve(solver, digits(), [1e-2], num_classes=11), solve(solver, digits(), [1e-2])
  assert (
    eleven.converged.all()
    and np.abs(eleven.kernel[0, :, 10]).max() < 1e-6 * np.abs(eleven.kernel).max()
  )
  same((eleven.kernel[0, :, :10], eleven.bias[0, :10]), (ten.kernel[0], ten.bias[0]), digits()[0])
  logits = outputs(eleven, 0, digits()[0])
  assert not np.any(logits.argmax(1) == 10)
  if solver == 'logistic':
    assert np.exp(logits[:, 10] - logsumexp(logits, axis=1)).max() <= 1.01 * exact.TOLERANCE


@pytest.mark.parametrize('solver', ['logistic', 'ridge'])
def test_one_class_and_constant_features_stay_finite(solver):
  features, _ = digits()
  for data in ((features, np.full(300, 3)), (np.full((300, 64), 7.3, np.float32), digits()[1])):
    probe = solve(solver, data, [1e-2])
    assert (
      probe.converged.all() and np.isfinite(probe.kernel).all() and np.isfinite(probe.bias).all()
    )
    assert np.abs(probe.kernel).max() < 1e-6
    assert np.argmax(probe.bias[0]) == np.bincount(data[1]).argmax()


@pytest.mark.parametrize('solver', ['logistic', 'ridge'])
def test_no_penalty_ends_and_says_how(solver, monkeypatch):
  probe = solve(solver, digits(), [0.0])
  assert (
    np.isfinite(probe.kernel).all()
    and np.mean(outputs(probe, 0, digits()[0]).argmax(1) == digits()[1]) > 0.97
  )
  assert probe.converged[0] == (probe.grad_norm[0] <= exact.TOLERANCE)


def test_what_is_not_solved_says_so(monkeypatch):
  monkeypatch.setattr(exact, 'MAX_STEPS', 3)
  exact.solver_program.cache_clear()
  probe = solve('logistic', digits(), [1e-3])
  exact.solver_program.cache_clear()
  assert (
    probe.steps.tolist() == [3] and not probe.converged[0] and probe.grad_norm[0] > exact.TOLERANCE
  )


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'solver': 'lasso'}, "Unknown solver 'lasso'; have logistic, ridge"),
    ({'features': np.zeros((4, 2, 2), np.float32)}, 'Flatten or pool'),
    ({'targets': np.array([0, 1, 2, 3])}, 'Targets from 0 to 3 for 3 classes'),
    ({'rows': np.array([[0, 4]])}, 'Rows from 0 to 4 of 4'),
    ({'mask': np.zeros((1, 2))}, 'Run 0 has no examples'),
    ({'penalties': [-1.0]}, 'at least 0'),
    ({'penalties': [1.0, 2.0]}, r'got \(1, 2\)'),
  ],
)
def test_bad_arguments(changes, words):
  fine = {
    'solver': 'ridge',
    'features': np.zeros((4, 2), np.float32),
    'targets': np.array([0, 1, 2, 0]),
    'rows': np.array([[0, 1]]),
    'mask': np.ones((1, 2)),
    'penalties': [1.0],
    'num_classes': 3,
  }
  with pytest.raises(ValueError, match=words):
    exact.solve(**fine | changes)


def test_features_that_no_device_holds_are_refused(monkeypatch):
  features, targets = digits()
  num_bytes = features.nbytes + targets.nbytes
  monkeypatch.setattr(memory, 'available_bytes', lambda: num_bytes - 1)
  with pytest.raises(ValueError, match="0.0 GB are there. Train it .solver 'sgd'"):
    solve('ridge', (features, targets), [1e-2])
