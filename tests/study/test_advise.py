"""Advice: from neighbours among training examples, in words, with a config that tests it."""

import importlib.util

import numpy as np
import pytest

from configs import advice_on_trial
from tests.study import tiny
from tlx import command
from tlx.plug import plug
from tlx.report import advice as reported
from tlx.report import folder, trial
from tlx.study import advise, cohorts, depth, evidence, lr_range
from tlx.study import config as configs

GROUPS = (('a',), ('b',), ('pool', 'head'))


@pytest.fixture(scope='module')
def written(data_dir):
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  return made


@pytest.fixture(scope='module')
def found(written, finished):
  return advise.advise(written, finished[0], shots=4)


def test_the_sign_rule():
  """Classes lie 10 apart in one space and are mixed in the other."""
  labels = np.repeat([0, 1], 20)
  random = np.random.default_rng(0)
  apart, mixed = labels[:, None] * 10 + random.normal(size=(40, 2)), random.normal(size=(40, 2))
  helps = {'input': mixed, 'a': mixed, 'b': mixed, 'pool': apart}
  harms = {'input': apart, 'a': apart, 'b': apart, 'pool': mixed}
  assert depth.advised(labels, helps, GROUPS).k == 2
  assert depth.advised(labels, harms, GROUPS).k == 0
  assert list(depth.advised(labels, helps, GROUPS).neighbours) == [0, 1, 2]
  same = dict.fromkeys(helps, apart)
  assert depth.advised(labels, same, GROUPS).k == 0  # no more than the input has


def test_one_example_a_class_says_nothing():
  features = dict.fromkeys(('input', 'a', 'b'), np.eye(3))
  assert depth.advised(np.arange(3), features, GROUPS) == (None, {})


def test_the_table_is_of_the_target_s_training_examples(written, finished, found):
  (advice,) = found
  seen = evidence.gather(configs.resolve(written), 'turned', 'digits', finished[0], shots=4)
  knn = plug('scores', 'knn').score
  wanted = [knn(seen.labels, values) for values in seen.features.values()]
  assert advice.table['neighbours'].tolist() == wanted
  assert advice.table['stage'].tolist() == ['input', 'dense1', 'dense2']
  first, last = (
    plug('scores', 'knn').hits(seen.labels, seen.features[stage]) for stage in ('input', 'dense2')
  )
  assert advice.only == ((first > last).sum(), (last > first).sum())
  assert advice.examples == 40 and advice.classes == 10
  assert advice.depth == (2 if wanted[-1] > wanted[0] else 0)
  assert (
    advice.table['told apart'].between(0, 2).all() and advice.table['alike'].between(0, 1).all()
  )


def test_examples_of_every_class_are_told_apart_from_the_source_s(written, finished, monkeypatch):
  """Folders hold one class after the other, and no more than FROM_SOURCE examples are taken."""
  resolved = configs.resolve(written)
  seen = evidence.gather(resolved, 'turned', 'digits', finished[0], shots=4)
  order = np.argsort(seen.labels, kind='stable')
  labels = seen.labels[order, None].astype(float)
  taken = []
  monkeypatch.setattr(advise, 'FROM_SOURCE', 20)
  monkeypatch.setattr(plug('distances', 'proxy_a'), 'distance', lambda x, y: taken.append(y) or 0.0)
  monkeypatch.setattr(plug('distances', 'covariance'), 'distance', lambda x, y: 0.0)
  variables = evidence.source_variables(resolved, 'turned', finished[0])
  advise._apart(resolved, 'turned', seen._replace(features={'input': labels}), variables)
  assert len(taken[0]) == 20 and len(np.unique(taken[0])) > 6  # the first 20 are of 5 classes


def test_gradients_are_those_of_the_nearest_class_mean(written, finished, found):
  """Against finite differences of the loss, along the gradient's own direction for one weight."""
  resolved = configs.resolve(written)
  seen = evidence.gather(resolved, 'turned', 'digits', finished[0], shots=4)
  params = evidence.source_variables(resolved, 'turned', finished[0]).params
  kernels = [np.asarray(params[stage]['linear']['kernel'], float) for stage in ('dense1', 'dense2')]
  biases = [np.asarray(params[stage]['linear']['bias'], float) for stage in ('dense1', 'dense2')]
  x, labels = seen.features['input'].astype(float), np.unique(seen.labels, return_inverse=True)[1]

  def outputs(leaves):
    hidden = x
    for kernel, bias in zip(leaves[::2], leaves[1::2]):
      hidden = np.maximum(hidden @ kernel + bias, 0)
    return hidden

  leaves = [kernels[0], biases[0], kernels[1], biases[1]]
  features = outputs(leaves)
  means = np.stack([features[labels == k].mean(0) for k in range(10)])
  scale = ((features - means[labels]) ** 2).sum(1).mean()

  def loss(leaves):
    far = -((outputs(leaves)[:, None] - means) ** 2).sum(-1) / scale
    return (np.log(np.exp(far).sum(1)) - far[np.arange(len(labels)), labels]).sum()

  ratios = []
  for group in (slice(0, 2), slice(2, 4)):
    squares, sizes = 0.0, 0.0
    for place in range(4)[group]:
      leaf = leaves[place]
      for index in np.ndindex(leaf.shape):
        moved = [one.copy() for one in leaves]
        moved[place][index] += 1e-6
        squares += ((loss(moved) - loss(leaves)) / 1e-6) ** 2
        sizes += leaf[index] ** 2
    ratios.append(np.sqrt(squares / sizes))
  (advice,) = found
  assert advice.table['gradient'].iloc[1:].tolist() == pytest.approx(ratios, rel=1e-2)


def test_the_words_say_what_to_do_without_terms(found):
  (advice,) = found
  said = advise.said(advice)
  assert said.startswith('turned -> digits, 4 examples a class (40 training examples of 10 classes')
  for depth_, words in ((2, 'freeze everything up to dense2'), (0, 'freeze nothing and fine-tune')):
    assert words in advise.said(advice._replace(depth=depth_))
  assert 'This is no finding' in advise.said(advice._replace(depth=None))
  # 8 of 8 against nothing have p = 1/128, 5 of 5 have 1/16, 30 against 29 about 1
  for only, is_close in (((0, 8), False), ((5, 0), True), ((30, 29), True), ((0, 0), True)):
    assert ('close call' in advise.said(advice._replace(only=only))) == is_close
  assert 'Mind: It saw three.' in advise.said(advice._replace(notes=('It saw three.',)))
  turned = advise.said(advice).split('Mind: ')[1]
  assert turned.startswith('The source was trained, with its own labels, on')
  assert reported.draw(advice.table, 'a', 2).startswith(b'\x89PNG')
  assert 'nothing is known' in reported.expected(None, 'turned', 'digits')


def test_the_rate_is_that_of_a_range_test_of_what_is_advised(written, finished, found):
  (advice,) = found
  for depth_ in (0, 2):
    test = advise.starting_rates(written, advice._replace(depth=depth_), finished[0])
    asked = written.to_dict()
    tune = {'policy': 'after', 'k': depth_}
    asked |= {'methods': {'own': {'phases': ({'tune': tune},)}}, 'baseline': 'own'}
    asked |= {'shots': (4,), 'seeds': (0,)}
    wanted = lr_range.find(asked, workdir=finished[0])['own']
    assert (test.steepest, test.tenth) == (wanted.steepest, wanted.tenth)
    assert f'begin near {wanted.steepest:.1g}, and try' in advise.said_rate(test)
  assert advise.starting_rates(written, advice._replace(depth=None), finished[0]) is None
  assert advise.said_rate(None) == ''


def test_the_config_that_is_written_runs_on_the_same_data(written, found, tmp_path):
  path = tmp_path / 'test_advice.py'
  path.write_text(advise.test_of(written, found, str(path)))
  assert f'{command.spelled("study")} --config={path}' in path.read_text()
  assert "--config='my photos.py'" in advise.test_of(written, found, 'my photos.py')
  spec = importlib.util.spec_from_file_location('test_advice', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  made, given = module.get_config(), written
  assert list(made.methods) == [
    'scratch',
    'tune_all',
    'lp_ft',
    'advised',
    'freeze_half',
    'freeze_all',
    'lora',
  ]
  for field in ('sources', 'targets', 'shots', 'seeds', 'grid', 'train', 'data_dir'):
    assert made[field] == given[field], field
  study = configs.resolve(made)
  assert len(cohorts.cohorts_of(study)) == 7
  rates = {name: method['grid']['learning_rate'] for name, method in study['methods'].items()}
  assert rates['lora'] == rates['freeze_all'] == (1e-2, 1e-1)
  assert rates['advised'] == rates['tune_all'] == (1e-3, 1e-2)
  probes = [advice._replace(depth=len(advice.groups) - 1) for advice in found]
  of_probes = advise.test_of(written, probes, str(path))
  assert "({'tune': 'advised'},), 'grid': {'learning_rate': (0.01, 0.1)}}" in of_probes


def test_every_run_is_advised_by_its_own_examples(written, finished):
  found = advise.depths_of(written, finished[0])
  assert found[['shots', 'seed']].values.tolist() == [[1, 0], [4, 0], [1, 1], [4, 1]]
  assert found['depth'][found['shots'] == 1].tolist() == [-1, -1]
  for seed in (0, 1):
    seen = evidence.gather(configs.resolve(written), 'turned', 'digits', finished[0], 4, seed)
    wanted = depth.advised(seen.labels, seen.features, (('dense1',), ('dense2',), ('head',))).k
    assert found.query('shots == 4 and seed == @seed')['depth'].item() == wanted


def test_a_trial_takes_methods_that_freeze_from_the_source_on(finished):
  results = folder.load(finished[0])
  with pytest.raises(ValueError, match="'policy': 'after', 'k': k}, one a depth, got none"):
    trial.accuracies(results)
  tunes = {'probe': {'policy': 'after', 'k': 2}, 'lp_ft': 'all', 'scratch': 'all'}
  methods = {name: {'phases': [{'tune': tune}]} for name, tune in tunes.items()}
  methods['scratch']['init'] = 'random'
  scores = trial.accuracies(results._replace(config={**results.config, 'methods': methods}))
  assert list(scores.columns) == [0, 2] and len(scores) == 4
  runs = results.runs[results.runs['chosen']]
  for name, k in (('probe', 2), ('lp_ft', 0)):
    chosen = runs[runs['method'] == name].set_index(['shots', 'seed'])
    for (_, _, shots, seed), value in scores[k].items():
      assert value == chosen.loc[(shots, seed), 'test_accuracy']


def test_the_trial_on_photographs_has_the_depths_that_advice_takes():
  """Nothing and everything before the head of EfficientNet-Lite0, norms frozen at every depth."""
  made = advice_on_trial.get_config('some/folder').to_dict()
  assert made['targets']['photographs'] == {'dataset': 'folder:some/folder'}
  found = [trial._depth(method) for method in made['methods'].values()]
  network = plug('backbones', 'efficientnet_lite').build(10, variant='lite0')
  assert found == list(advice_on_trial.DEPTHS) and {0, len(network.stages) - 2} <= set(found)
  tunes = [method['phases'][0]['tune'] for method in made['methods'].values()]
  assert all(tune['norms'] == 'frozen' for tune in tunes)
