"""The contrast by hand, ranks against golden values, and what padding must not do."""

import fnmatch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.metrics import ndcg_score

from tests.tasks.golden import TEXT
from tests.tasks.test_classification import sums_of
from tlx.tasks import embedding
from tlx.types import Batch

TASK = embedding.task(3, temperature=0.5)
TASK = TASK._replace(terms=jax.jit(TASK.terms))
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(7, 4)).astype(np.float32)
LABELS = np.array([0, 1, 0, 2, 1, 0, 1])


def contrast(vectors, labels, temperature):
  """(sum of the losses, how many count), example by example."""
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  total, count = 0.0, 0
  for i in range(len(unit)):
    others = [j for j in range(len(unit)) if j != i]
    near = [j for j in others if labels[j] == labels[i]]
    if near:
      bottom = logsumexp([unit[i] @ unit[j] / temperature for j in others])
      total += np.mean([bottom - unit[i] @ unit[j] / temperature for j in near])
      count += 1
  return total, count


def test_the_loss_is_that_of_hand():
  sums = sums_of(TASK, jnp.asarray(VECTORS), Batch(None, jnp.asarray(LABELS), jnp.ones(7)))
  assert sums['loss'] == pytest.approx(contrast(VECTORS, LABELS, 0.5), rel=1e-5)
  assert sums['loss'][1] == 6  # of label 2 there is one
  pair = Batch(None, jnp.array([0, 0]), jnp.ones(2))
  assert sums_of(TASK, jnp.asarray(VECTORS[:2]), pair)['loss'][0] == pytest.approx(0.0, abs=1e-6)


def test_padding_is_no_negative():
  padded = Batch(None, jnp.asarray(LABELS), jnp.array([1.0] * 5 + [0.0] * 2))
  alone = Batch(None, jnp.asarray(LABELS[:5]), jnp.ones(5))
  a = sums_of(TASK, jnp.asarray(VECTORS), padded)
  b = sums_of(TASK, jnp.asarray(VECTORS[:5]), alone)
  for name, sums in a.items():
    assert sums == pytest.approx(b[name], rel=1e-6)


BINARY = [case for case in TEXT['retrieval']['cases'] if set(case['relevance']) == {0, 1}]


@pytest.mark.parametrize('case', BINARY)
def test_ranks_are_those_of_the_golden_values(case):
  relevance = np.asarray(case['relevance'], float)
  counts = np.array([case['total_relevant']])
  relevant = relevance[np.array(case['order'])][None]
  for k in (5, 10):
    found = embedding.ranks(relevant, counts, k)
    for ours, theirs in (
      ('recall_at_1', 'recall@1'),
      (f'recall_at_{k}', f'recall@{k}'),
      (f'mrr_at_{k}', f'mrr@{k}'),
      ('precision_at_1', 'precision@1'),
      (f'ndcg_at_{k}', f'ndcg@{k}_linear'),
    ):
      assert found[ours] == pytest.approx(case[theirs], abs=1e-9), ours


def test_retrieval_is_that_of_each_query_alone():
  vectors = RANDOM.normal(size=(40, 5))
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  labels = np.array([*np.repeat(np.arange(6), 6), 7, 8, 9, 9])
  found = embedding.retrieval(vectors, labels, 10)
  want, first = [], []
  for i in range(40):
    others = np.arange(40) != i
    relevance = (labels[others] == labels[i]).astype(float)
    if relevance.any():
      cosines = vectors[others] @ vectors[i]
      want.append(ndcg_score([relevance], [cosines], k=10))
      first.append(relevance[np.argmax(cosines)])
  assert found['queries'] == 38
  assert found['ndcg_at_10'] == pytest.approx(np.mean(want))
  assert found['precision_at_1'] == pytest.approx(np.mean(first))
  assert embedding.retrieval(vectors[:3], np.arange(3), 10) == {'queries': 0}


def test_an_example_is_never_among_what_it_finds():
  """Of six examples five are left to find, and all of them are among the first ten."""
  vectors = np.eye(6)[:, :4] + 0.1
  found = embedding.retrieval(vectors, np.array([0, 0, 1, 1, 1, 2]), 10)
  assert found['queries'] == 5 and found['recall_at_10'] == 1.0
  assert 0 < found['ndcg_at_10'] <= 1.0


def test_kept_vectors_tell_the_columns():
  kept = {name: np.asarray(leaf) for name, leaf in TASK.keep(jnp.asarray(VECTORS)).items()}
  np.testing.assert_allclose(np.linalg.norm(kept['vectors'], axis=1), 1.0, rtol=1e-6)
  sums = sums_of(TASK, jnp.asarray(VECTORS), Batch(None, jnp.asarray(LABELS), jnp.ones(7)))
  columns = TASK.scores(sums, kept, LABELS)
  assert {'loss', 'nearest', 'recall_at_10', 'mrr_at_10', 'ndcg_at_10'} <= set(columns)
  known = embedding.COLUMNS
  assert all(any(fnmatch.fnmatch(name, column) for column in known) for name in columns)
  assert columns['nearest'] == pytest.approx(columns['precision_at_1'])  # the batch is all there is
  assert TASK.head is None and TASK.select == ('loss', -1)
  assert not np.isnan(TASK.keep(jnp.zeros((1, 4)))['vectors']).any()
  with pytest.raises(ValueError, match='above 0'):
    embedding.task(3, temperature=0.0)
