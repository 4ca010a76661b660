"""A contrast of examples first, then a head solved on the features that each run made of it."""

import json

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.study.test_texts import get_config as texts_config
from tlx.study import config, dry_run, pair, run, store
from tlx.study.phases import network_of
from tlx.tasks import embedding
from tlx.types import Batch, Variables

PAIRS = {'name': 'embedding', 'objective': 'cosine'}
EXACT = {'tune': 'head', 'solver': 'logistic'}
PENALTY = 1e-2


def get_config(path, phases=None):
  made = texts_config(path)
  first = {'tune': 'all', 'loss': PAIRS, 'learning_rate': 3e-3, 'steps': 6}
  made.methods = {
    'setfit': {'phases': phases or (first, EXACT)},
    'first': {'phases': ({**first, 'steps': 6}, {'tune': 'head', 'learning_rate': 1e-3})},
  }
  made.shots, made.seeds = (4,), (0, 1)
  made.grid = {'learning_rate': (1e-3,), 'weight_decay': (PENALTY,)}
  made.train.optimizer = 'adamw'
  made.sources.topics.train.steps = 5
  return made


def test_the_head_is_the_solution_on_each_runs_own_features(tmp_path):
  made = get_config(tmp_path)
  path = run.run(made, tmp_path / 'work')
  resolved = config.resolve(made)
  source, target = resolved['sources']['topics'], resolved['targets']['new']
  data, network = pair.load(resolved, target, source), network_of(source, 3)
  subsets = pair.subsets(resolved, target, data)
  brought = store.trained(path / 'sources/topics/checkpoints', 0)[0]
  kernels = []
  for seed in (0, 1):
    folder = next(path.glob(f'runs/*setfit*seed{seed}*'))
    params, _ = store.params(path, folder.name)
    result = json.loads((folder / 'result.json').read_text())
    rows = subsets[seed][4]
    inputs = {name: leaf[rows] for name, leaf in data.train.inputs.items()}
    stop = len(network.stages) - 1
    features, _ = network.apply(Variables(params, {}), inputs, train=False, stop=stop)
    x = np.asarray(features, np.float64)
    x = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    fitted = LogisticRegression(C=1 / (len(x) * PENALTY), tol=1e-8, max_iter=5000)
    wanted = fitted.fit(x, data.train.labels[rows]).decision_function(x)
    ours = np.asarray(features) @ params['head']['kernel'] + params['head']['bias']
    np.testing.assert_allclose(
      ours - ours.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=2e-3
    )
    moved = np.abs(
      params['block0']['mlp']['up']['kernel'] - brought['block0']['mlp']['up']['kernel']
    )
    assert moved.max() > 1e-4 and result['status'] == 'ok'
    assert result['cost']['train_flops'] > 0 and result['cost']['steps'] == 7
    kernels.append(params['head']['kernel'])
  assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
  assert 'setfit' in dry_run.describe(made)


def test_the_loss_of_pairs_by_hand():
  task = embedding.task(2, objective='cosine')
  vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0], [9.0, 9.0]], np.float32)
  batch = Batch(None, np.array([0, 0, 1, 1]), np.array([1.0, 1.0, 1.0, 0.0], np.float32))
  value, weight = task.terms(jax.numpy.asarray(vectors), batch)['loss']
  # one pair of a label, cosine 0.6; two of others, 0 and 0.8
  by_hand = 0.5 * (0.6 - 1) ** 2 + 0.5 * (0.0**2 + 0.8**2) / 2
  assert float((value * weight).sum() / weight.sum()) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
  'phases, words',
  [
    (({'tune': 'all', 'loss': PAIRS},), 'the last phase has loss'),
    (({'loss': 'regression'}, EXACT), 'wants a task that contrasts'),
    (({'loss': {'name': 'embedding', 'objective': 'x'}}, EXACT), "objective is 'softmax'"),
    (({'tune': 'head', 'loss': PAIRS}, EXACT), 'decides no parameter'),
  ],
)
def test_what_cannot_be_is_refused(tmp_path, phases, words):
  with pytest.raises(ValueError, match=words):
    dry_run.describe(get_config(tmp_path, phases))
