"""Tasks of pairs of texts: losses by hand, correlations and ranks against values from outside."""

import fnmatch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from tests.tasks.golden import TEXT
from tests.tasks.test_classification import sums_of
from tlx.tasks import _vectors, retrieval, similarity
from tlx.types import Batch

RANDOM = np.random.default_rng(0)
PAIRS = RANDOM.normal(size=(6, 2, 4)).astype(np.float32)
SCORES = np.array([3.0, 0.5, 3.0, 5.0, 1.0, 4.5], np.float32)
UNIT = PAIRS / np.linalg.norm(PAIRS, axis=-1, keepdims=True)
COSINES = (UNIT[:, 0] * UNIT[:, 1]).sum(-1)
LIKE, FIND = similarity.task(1), retrieval.task(1, temperature=0.5, k=2)
LIKE, FIND = (task._replace(terms=jax.jit(task.terms)) for task in (LIKE, FIND))


def cosent(cosines, scores):
  terms = [0.0]
  for i, low in enumerate(scores):
    terms += [20 * (cosines[i] - cosines[j]) for j, high in enumerate(scores) if low < high]
  return logsumexp(terms)


def of(task, outputs, targets, mask=None):
  batch = Batch(None, jnp.asarray(targets), jnp.ones(len(outputs)) if mask is None else mask)
  return sums_of(task, jnp.asarray(outputs), batch)


def test_similarity_by_hand():
  sums = of(LIKE, PAIRS, SCORES)
  columns = LIKE.scores(sums)
  assert columns['loss'] == pytest.approx(cosent(COSINES, SCORES), rel=1e-5)
  assert columns['pearson'] == pytest.approx(stats.pearsonr(COSINES, SCORES).statistic, abs=1e-5)
  kept = {name: np.asarray(leaf) for name, leaf in LIKE.keep(jnp.asarray(PAIRS)).items()}
  columns = LIKE.scores(sums, kept, SCORES)
  assert set(columns) == set(similarity.COLUMNS)
  assert columns['spearman'] == pytest.approx(stats.spearmanr(COSINES, SCORES).statistic)
  assert columns['count'] == 6 and LIKE.select == ('pearson', 1)


@pytest.mark.parametrize('case', TEXT['sts']['cases'])
def test_correlations_are_the_golden_ones(case):
  found = _vectors.correlations(case['score'], case['gold'])
  assert found == pytest.approx({name: case[name] for name in ('pearson', 'spearman')})


def test_cosines_are_the_golden_ones():
  case = TEXT['sts']['cosine']
  pairs = np.stack([case['u'], case['v']], 1)
  wanted = next(value for name, value in case.items() if name not in ('u', 'v'))
  np.testing.assert_allclose(LIKE.keep(jnp.asarray(pairs))['values'], wanted, atol=1e-6)


def test_similarity_where_nothing_varies_is_not_a_number():
  assert np.isnan(LIKE.scores(of(LIKE, PAIRS, np.full(6, 2.5)))['pearson'])
  same = np.broadcast_to(PAIRS[:1, :1], PAIRS.shape)
  assert np.isnan(LIKE.scores(of(LIKE, same, SCORES))['pearson'])


@pytest.mark.parametrize('offset, scale', [(2000.0, 1.0), (1e6, 1.0), (0.0, 1e-6), (3.0, 1e5)])
def test_pearson_of_sums_does_not_depend_on_where_scores_lie(offset, scale):
  targets = LIKE.targets(None, offset + scale * SCORES.astype(np.float64))
  found = LIKE.scores(of(LIKE, PAIRS, targets))['pearson']
  assert found == pytest.approx(stats.pearsonr(COSINES, SCORES).statistic, abs=1e-5)


def test_pearson_of_sums_holds_where_all_cosines_are_near_1():
  first = RANDOM.normal(size=(50, 8))
  pairs = np.stack([first, first + 1e-3 * RANDOM.normal(size=(50, 8))], 1).astype(np.float32)
  scores = RANDOM.normal(size=50).astype(np.float32)
  sides = pairs.astype(np.float64) / np.linalg.norm(pairs.astype(np.float64), axis=-1)[..., None]
  wanted = stats.pearsonr((sides[:, 0] * sides[:, 1]).sum(-1), scores).statistic
  assert LIKE.scores(of(LIKE, pairs, scores))['pearson'] == pytest.approx(wanted, abs=1e-3)


def contrast(queries, partners, left_out):
  total = 0.0
  for i in range(len(queries)):
    others = [j for j in range(len(queries)) if (i, j) not in left_out]
    cosines = {j: queries[i] @ partners[j] / 0.5 for j in others}
    total += logsumexp(list(cosines.values())) - cosines[i]
  return total


def test_retrieval_by_hand():
  texts = np.stack([np.arange(6)] * 2, 1)
  sums = of(FIND, PAIRS, texts)
  first, second = UNIT[:, 0], UNIT[:, 1]
  wanted = (contrast(first, second, ()) + contrast(second, first, ())) / 2
  assert sums['loss'] == pytest.approx((wanted, 6.0), rel=1e-5)
  texts[1, 1] = texts[4, 1]  # one translation of two texts: neither is a wrong answer
  apart = {(1, 4), (4, 1)}
  wanted = (contrast(first, second, apart) + contrast(second, first, apart)) / 2
  assert of(FIND, PAIRS, texts)['loss'][0] == pytest.approx(wanted, rel=1e-5)


def test_columns_of_retrieval_are_known():
  kept = {name: np.asarray(leaf) for name, leaf in FIND.keep(jnp.asarray(PAIRS)).items()}
  texts = np.stack([np.arange(6)] * 2, 1)
  for column in FIND.scores(of(FIND, PAIRS, texts), kept, texts):
    assert any(fnmatch.fnmatch(column, known) for known in retrieval.COLUMNS), column


def test_found_by_hand():
  """Ranks 1, 2, 3 of three partners, then of two of them that are one text: 1, 2, 1."""
  partners = np.eye(3)
  queries = np.array([[1.0, 0.5, 0.0], [0.9, 0.4, 0.0], [0.5, 0.4, 0.1]])
  found = retrieval.found(queries, partners, np.arange(3), 2)
  assert found == pytest.approx({'recall_at_1': 1 / 3, 'recall_at_2': 2 / 3, 'mrr': 11 / 18})
  found = retrieval.found(queries, partners[[0, 1, 0]], np.array([7, 5, 7]), 2)
  assert found == pytest.approx({'recall_at_1': 2 / 3, 'recall_at_2': 1.0, 'mrr': 5 / 6})


def test_vectors_that_are_all_alike_find_nothing():
  same = np.ones((20, 4))
  assert retrieval.found(same, same, np.arange(20), 10)['recall_at_1'] == 0.05


@pytest.mark.parametrize(
  'task, targets', [(LIKE, SCORES), (FIND, np.stack([np.arange(6)] * 2, 1))], ids=('like', 'find')
)
def test_padding_counts_nothing(task, targets):
  padded = of(task, PAIRS, targets, jnp.array([1.0] * 4 + [0.0] * 2))
  alone = of(task, PAIRS[:4], targets[:4])
  for name, sums in alone.items():
    assert padded[name] == pytest.approx(sums, rel=1e-5), name


@pytest.mark.parametrize('task', [LIKE, FIND], ids=('like', 'find'))
def test_what_is_no_pair_of_vectors_is_refused(task):
  with pytest.raises(ValueError, match=r'a vector of each text of a pair \[B, 2, D\]'):
    of(task, np.ones((3, 4)), np.ones((3, 2)))


def test_pairs_without_a_score_are_no_matter_of_similarity():
  with pytest.raises(ValueError, match="take the task 'retrieval'"):
    LIKE.targets(None, np.full(3, np.nan))


def test_texts_are_numbered_by_their_tokens():
  ids = np.array([[[1, 2], [5, 0]], [[1, 2], [6, 0]], [[3, 4], [5, 0]]])
  texts = FIND.targets({'ids': ids}, np.zeros(3))
  assert texts[:, 0].tolist() == [0, 0, 1] and texts[:, 1].tolist() == [0, 1, 0]
