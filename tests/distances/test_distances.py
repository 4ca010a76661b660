"""Distances of two sets of examples, against scipy, scikit-learn and values worked by hand."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.metrics.pairwise import rbf_kernel

from tlx.distances import covariance, frechet, mmd, proxy_a
from tlx.plug import available, plug

ROOM = available('distances')


def drawn(seed, rows, size=4, shift=0.0):
  return np.random.default_rng(seed).normal(shift, 1.0, (rows, size))


@pytest.mark.parametrize('name', ROOM)
def test_what_every_distance_keeps(name):
  distance = plug('distances', name).distance
  x, y = drawn(0, 40), drawn(1, 30) * (1, 2, 1, 0.5) + (1, 0, 0, 0)
  found = distance(x, y)
  assert distance(x + 5, y + 5) == pytest.approx(found, abs=1e-8)
  assert distance(x[::-1], y) == pytest.approx(found, abs=0.3 if name == 'proxy_a' else 1e-8)
  if name != 'proxy_a':  # features of another scale are another matter to it
    turn = np.linalg.qr(drawn(2, 4))[0]
    assert distance(x @ turn, y @ turn) == pytest.approx(found, abs=1e-8)
    assert distance(y, x) == pytest.approx(found, abs=1e-8)
  assert distance(x, drawn(3, 30)) < found < distance(x, y * (1, 3, 1, 0.1) + 3)
  assert np.isfinite(distance(drawn(0, 5, 60), drawn(1, 4, 60)))  # fewer examples than features
  constant = distance(np.ones((5, 3)), np.ones((4, 3)))
  assert np.isnan(constant) if name == 'covariance' else constant == pytest.approx(0, abs=1e-12)
  with pytest.raises(ValueError, match='not finite'):
    distance(x, y * np.nan)
  for other in (drawn(1, 30, 5), drawn(1, 1)):
    with pytest.raises(ValueError, match=r'\[M, D\]'):
      distance(x, other)


@pytest.mark.parametrize('rows', [(50, 40), (6, 5)])
def test_frechet_is_scipys(rows):
  x, y = drawn(0, rows[0], 8), drawn(1, rows[1], 8) * np.linspace(0.5, 2, 8) + 1
  covariances = np.cov(x.T), np.cov(y.T)
  root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
  between = ((x.mean(0) - y.mean(0)) ** 2).sum()
  wanted = between + np.trace(covariances[0] + covariances[1] - 2 * root)
  assert frechet.distance(x, y) == pytest.approx(wanted, rel=1e-5)


def test_frechet_of_two_lines_by_hand():
  # means 0 and 3, variances 1 and 4: 9 + (1 - 2)^2
  assert frechet.distance([[-1.0], [0], [1]], [[1.0], [3], [5]]) == pytest.approx(10.0)


def test_mmd_is_by_scikit_learns_kernel():
  x, y = drawn(0, 20), drawn(1, 15, shift=0.5)
  both = np.concatenate([x, y])
  far = np.sqrt(((both[:, None] - both) ** 2).sum(-1))
  width = np.median(far[np.triu_indices(35, 1)])
  # the median of squares is the square of the median where their number is odd: 595
  parts = [rbf_kernel(*pair, gamma=1 / (2 * width**2)) for pair in ((x, x), (y, y), (x, y))]
  within = sum((part.sum() - len(part)) / (len(part) * (len(part) - 1)) for part in parts[:2])
  assert mmd.distance(x, y) == pytest.approx(within - 2 * parts[2].mean())
  assert mmd.distance([[0.0], [1.0]], [[0.0], [1.0]], width=1.0) == pytest.approx(np.exp(-0.5) - 1)


def test_mmd_of_one_distribution_is_zero_on_average():
  found = [mmd.distance(drawn(2 * i, 20), drawn(2 * i + 1, 20)) for i in range(200)]
  assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200) and min(found) < 0


def test_proxy_a_is_of_sets_that_are_told_apart_or_are_not():
  assert proxy_a.distance(drawn(0, 40), drawn(1, 30, shift=20.0)) == 2.0
  assert proxy_a.distance(drawn(0, 300), drawn(1, 300)) < 0.3
  # one axis, means 2 apart: the best classifier errs on 16%, whatever the numbers on each side
  found = proxy_a.distance(drawn(0, 4000, 1), drawn(1, 400, 1, shift=2.0))
  assert found == pytest.approx(2 * (1 - 2 * 0.1587), abs=0.1)


def test_covariances_by_hand():
  x, y = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), np.array([[3.0, 0], [-3, 0]])
  assert covariance.distance(x, y) == pytest.approx(1 - 1 / np.sqrt(2))
  assert covariance.distance(y, y[:, ::-1]) == 1.0 and covariance.distance(x, 7 * x) < 1e-12
