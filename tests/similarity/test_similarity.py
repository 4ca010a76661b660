"""Every measure of the room: official values, invariances, streams in constant memory."""

import tracemalloc

import numpy as np
import pytest

from tests.scores.golden import GOLDEN, drawn
from tlx.plug import available, plug
from tlx.similarity import cka

DRAWN = drawn()
X, Y = DRAWN['x'], DRAWN['y']
WANTED = GOLDEN['similarity']
NAMES = available('similarity')


def similar(name, x=X, y=Y, **options):
  return plug('similarity', name).similarity(x, y, **options)


@pytest.mark.parametrize(
  ('name', 'options', 'golden'),
  [
    ('cka', {}, 'cka'),
    ('cka', {'debiased': True}, 'cka debiased'),
    ('minibatch_cka', {'batch_size': 20}, 'minibatch_cka batch_size=20'),
    ('rbf_cka', {'threshold': 0.5}, 'rbf_cka threshold=.5'),
    ('rbf_cka', {}, 'rbf_cka'),
    ('cca', {}, 'cca'),
    ('cca', {'squared': True}, 'cca squared'),
    ('cca', {'kept': 0.99}, 'svcca'),
    ('pwcca', {}, 'pwcca of x'),
    ('rsa', {}, 'rsa'),
  ],
)
def test_official_values(name, options, golden):
  np.testing.assert_allclose(similar(name, **options), WANTED[golden], rtol=1e-8)


def test_pwcca_weighs_by_its_first_argument():
  np.testing.assert_allclose(similar('pwcca', Y, X), WANTED['pwcca of y'], rtol=1e-9)


def test_procrustes_is_the_official_distance():
  np.testing.assert_allclose(
    2 - 2 * similar('procrustes'), WANTED['procrustes distance'], rtol=1e-9
  )


@pytest.mark.parametrize('name', NAMES)
def test_invariances(name):
  rng = np.random.RandomState(4)
  order = rng.permutation(len(X))
  turn, _ = np.linalg.qr(rng.randn(10, 10))
  wanted = similar(name, X, X @ rng.randn(10, 7))
  if name != 'minibatch_cka':  # batches are in the given order
    np.testing.assert_allclose(similar(name, X[order], Y[order]), similar(name), rtol=1e-7)
  if name == 'rsa':  # of Pearson's correlations between rows: only of scale
    turn, shift = np.eye(10), 0.0
  else:
    shift = rng.randn(10)
  moved = 3.0 * X @ turn + shift
  np.testing.assert_allclose(similar(name, moved, moved @ turn), 1, rtol=1e-7)
  if name == 'pwcca':  # its weights are sums over features, not over directions
    moved = 3.0 * X + shift
  np.testing.assert_allclose(similar(name, moved), similar(name), rtol=1e-7)
  assert -1 <= wanted <= 1 + 1e-9


@pytest.mark.parametrize('name', NAMES)
def test_constants_have_no_similarity(name):
  assert np.isnan(similar(name, np.full((100, 3), 0.1), Y))


@pytest.mark.parametrize('name', NAMES)
def test_what_does_not_match_is_refused(name):
  with pytest.raises(ValueError, match=r'\[N, D\] and \[N, E\]'):
    similar(name, X[:50], Y)
  with pytest.raises(ValueError, match='not finite'):
    similar(name, np.where(np.arange(10) == 3, np.inf, X), Y)


def test_a_stream_is_the_whole_whatever_its_batches():
  far_x, far_y = X + 1e4, Y - 300.0  # a mean far from 0 costs no digits
  for sizes in ([100], [1, 2, 97], [30, 30, 40]):
    moments = cka.start()
    for last, size in zip(np.cumsum(sizes), sizes):
      moments = cka.add(moments, far_x[last - size : last], far_y[last - size : last])
    np.testing.assert_allclose(cka.finish(moments), WANTED['cka'], rtol=1e-7)
    np.testing.assert_allclose(
      cka.finish(moments, debiased=True), WANTED['cka debiased'], rtol=1e-7
    )


def test_a_stream_of_many_examples_keeps_no_example():
  rng = np.random.RandomState(0)
  moments = cka.start()
  batch = rng.randn(1000, 32)
  tracemalloc.start()
  for _ in range(100):
    moments = cka.add(moments, batch, batch[:, :16])
  _, most = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert moments.size == 100_000
  assert most < 4 * batch.nbytes


def test_debiased_is_nothing_for_what_has_nothing_in_common():
  rng = np.random.RandomState(0)
  draws = [cka.similarity(rng.randn(20, 30), rng.randn(20, 30), debiased=True) for _ in range(200)]
  assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(200)
  assert cka.similarity(rng.randn(20, 30), rng.randn(20, 30)) > 0.4


def test_debiased_wants_four_examples():
  with pytest.raises(ValueError, match='four examples'):
    cka.similarity(X[:3], Y[:3], debiased=True)
