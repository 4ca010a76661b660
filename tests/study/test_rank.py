"""Ranking a study's sources: features by stage are the network's own, results are matched."""

import numpy as np
import pytest

from tests.study import tiny
from tlx.plug import plug
from tlx.report import folder, ranking
from tlx.study import config as configs
from tlx.study import evidence, rank


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


def test_a_source_that_is_not_trained_yet_is_named(written):
  with pytest.raises(ValueError, match='config.sources.turned is trained by the study itself'):
    rank.rank(written, '', ('knn',))
  with pytest.raises(ValueError, match="Unknown scores 'kn'"):
    rank.rank(written, '', ('kn',))
