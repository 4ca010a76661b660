"""Ranking a study's sources: features by stage are the network's own, results are matched."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.study import tiny
from tlx.plug import plug
from tlx.report import folder, ranking
from tlx.study import config as configs
from tlx.study import evidence, rank
from tlx.types import Variables


@pytest.fixture(scope='module')
def written(data_dir):
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  return made


def test_features_of_every_stage_are_those_of_the_dense_layers(written, finished):
  workdir, _ = finished
  resolved = configs.resolve(written)
  found = evidence.gather(resolved, 'turned', 'digits', workdir, shots=4, seed=1)
  assert list(found.features) == ['input', 'dense1', 'dense2']
  assert np.bincount(found.labels).tolist() == [4] * 10
  params = evidence.source_variables(resolved, 'turned', workdir).params
  x = found.features['input']
  for stage in ('dense1', 'dense2'):
    layer = params[stage]['linear']
    x = np.maximum(x @ np.asarray(layer['kernel']) + np.asarray(layer['bias']), 0)
    np.testing.assert_allclose(found.features[stage], x, rtol=1e-4, atol=1e-5)
  head = params['head']
  logits = x @ np.asarray(head['kernel']) + np.asarray(head['bias'])
  odds = np.exp(logits - logits.max(1, keepdims=True))
  np.testing.assert_allclose(found.probs, odds / odds.sum(1, keepdims=True), rtol=1e-3, atol=1e-5)


def test_scores_are_of_the_last_stage_and_training_examples(written, finished):
  workdir, _ = finished
  ranked = rank.rank(written, workdir, ('knn', 'leep'), shots=4)
  found = evidence.gather(configs.resolve(written), 'turned', 'digits', workdir, shots=4)
  assert ranked.stage.tolist() == ['dense2'] and ranked.examples.tolist() == [40]
  wanted = plug('scores', 'knn').score(found.labels, found.features['dense2'])
  assert ranked.knn.tolist() == [wanted]
  assert ranked.leep.tolist() == [plug('scores', 'leep').score(found.labels, found.probs)]
  stages = rank.rank(written, workdir, ('knn', 'leep'), stages=True, shots=4)
  assert stages.stage.tolist() == ['input', 'dense1', 'dense2']
  assert np.isnan(stages.leep[:2]).all() and ranking.draw(stages).startswith(b'\x89PNG')
  both = rank.rank(written, workdir, ('otce',), stages=True, shots=4)
  resolved = configs.resolve(written)
  variables = evidence.source_variables(resolved, 'turned', workdir)
  labels, features = evidence.of_source(resolved, 'turned', variables, 1000)
  wanted = [
    plug('scores', 'otce').score(found.labels, values, features[stage], labels)
    for stage, values in evidence.gather(
      resolved, 'turned', 'digits', workdir, shots=4
    ).features.items()
  ]
  assert both['otce'].tolist() == wanted
  # one source orders nothing
  assert not len(ranking.against_results(ranked, folder.load(workdir)))


def test_task2vec_is_of_squared_gradients_by_filter_in_the_first_source(written, finished):
  workdir, _ = finished
  resolved = configs.resolve(written)
  params = evidence.source_variables(resolved, 'turned', workdir).params
  w1, b1, w2, b2 = (
    np.asarray(params[stage]['linear'][leaf], np.float64)
    for stage in ('dense1', 'dense2')
    for leaf in ('kernel', 'bias')
  )

  def by_hand(labels, x):
    """The mean squared gradient of log p(drawn class), of each column of both kernels."""
    hidden = np.maximum(x @ w1 + b1, 0)
    features = np.maximum(hidden @ w2 + b2, 0)
    scale = np.sqrt(features.var(0).mean())
    head = LogisticRegression(C=1 / (len(x) * 1e-3), max_iter=10_000, tol=1e-8)
    head.fit((features - features.mean(0)) / scale, labels)
    kernel = head.coef_.T / scale
    logits = features @ kernel + head.intercept_ - features.mean(0) @ kernel
    drawn = np.asarray(jax.random.categorical(jax.random.key(0), np.float32(logits)))
    odds = np.exp(logits - logits.max(1, keepdims=True))
    wrong = np.eye(10)[drawn] - odds / odds.sum(1, keepdims=True)
    two = (wrong @ kernel.T) * (features > 0)
    one = (two @ w2.T) * (hidden > 0)
    pairs = (x, one), (hidden, two)
    return np.concatenate([(inputs**2).mean(1) @ grads**2 / len(x) for inputs, grads in pairs])

  found = evidence.gather(resolved, 'turned', 'digits', workdir, shots=4)
  labels, features = evidence.of_source(resolved, 'turned', Variables(params, {}), 1000)
  ours, theirs = by_hand(found.labels, found.features['input']), by_hand(labels, features['input'])
  wanted = plug('scores', 'task2vec').score(found.labels, ours, theirs)
  ranked = rank.rank(written, workdir, ('task2vec',), stages=True, shots=4)
  assert np.isnan(ranked.task2vec[:2]).all()  # of the whole network, beside its last stage
  assert ranked.task2vec[2] == pytest.approx(wanted, rel=1e-3)


def test_a_source_that_is_not_trained_yet_is_named(written):
  with pytest.raises(ValueError, match='config.sources.turned is trained by the study itself'):
    rank.rank(written, '', ('knn',))
  with pytest.raises(ValueError, match="Unknown scores 'kn'"):
    rank.rank(written, '', ('kn',))


def test_sources_are_compared_on_as_many_of_their_examples():
  """With more pairs to count an entropy among, the same source would be rated lower."""
  labels = np.arange(50) % 5
  found = {
    'large': (labels, {'stage': np.stack([labels, np.arange(50)], 1)}),
    'small': (labels[:20], {'stage': np.zeros((20, 2))}),
  }
  made = rank.as_many(found)
  np.testing.assert_array_equal(made['small'][0], labels[:20])
  kept, features = made['large']
  assert len(kept) == 20 and len(set(features['stage'][:, 1])) == 20
  np.testing.assert_array_equal(features['stage'][:, 0], kept)
