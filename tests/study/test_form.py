"""A form is one file: profiles of images, which no room knows, go through a whole study."""

import sys

import numpy as np
import pytest

from tests.inputs import profile
from tests.study import tiny
from tlx import datasets, report
from tlx import plug as plugs
from tlx.backbones import mlp
from tlx.study import config as configs
from tlx.study import dry_run, pair, run, use
from tlx.study.pair import Pair


@pytest.fixture
def config(data_dir, monkeypatch):
  """The tiny study, its images seen as profiles; as if the file lay in tlx/inputs."""
  real = plugs.available
  monkeypatch.setattr(
    plugs, 'available', lambda room: real(room) + ['profile'] * (room == 'inputs')
  )
  monkeypatch.setitem(sys.modules, 'tlx.inputs.profile', profile)
  monkeypatch.setattr(mlp, 'FORM', 'profile', raising=False)
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  made.sources.turned.input = {'rows': 8}
  made.train.augment = {'noise': 0.01}
  made.shots = (4,)
  return made


def test_a_form_goes_through_a_study(config, tmp_path):
  assert 'lp_ft' in dry_run.describe(config)
  runs = report.read(run.run(config, tmp_path))
  assert len(runs) == 12 and set(runs.status) == {'ok'}
  study = configs.resolve(config)
  inputs = Pair(study, 'turned', 'digits', tmp_path).data.test.inputs
  assert inputs.shape[1:] == (8,) and inputs.dtype == np.uint8
  model = use.load_run(tmp_path)
  assert model.network.apply(model.variables, inputs[:3] / 255.0, train=False)[0].shape == (3, 10)


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('input', {'rows': 65}, 'config.sources.turned.input.rows is at least 1 and at most 64'),
    ('input', {'image_size': 8}, "has no field 'image_size'; it has rows, scale"),
    ('train', {'augment': {'flip': 0.5}, 'learning_rate': 0.1}, 'Profiles have noise alone'),
  ],
)
def test_what_a_form_does_not_take_is_one_error(config, field, value, message):
  config.sources.turned[field] = value
  with pytest.raises(ValueError, match=message):
    configs.resolve(config)


def test_data_sets_are_kept_as_far_as_their_bytes_go(monkeypatch):
  """The two that were asked for last whatever they take, and more where all of them fit."""
  asked = []

  class Forms:
    @staticmethod
    def load(name, fields, how):
      asked.append(name)
      part = datasets.Split(np.zeros(10, np.uint8), np.zeros(10, np.int32), (), np.zeros(0))
      return datasets.Dataset(part, part, part, (), name, ())

  monkeypatch.setattr(pair, '_loaded', {})
  for limit, order, loaded in (  # a set has 30 bytes
    (90, 'abcabc', 'abc'),
    (89, 'abcab', 'abcab'),
    (89, 'abacab', 'abcb'),
    (0, 'abab', 'ab'),
  ):
    monkeypatch.setattr(pair, 'KEPT_BYTES', limit)
    for name in order:
      assert pair._load(Forms, name, (), ()).sha256 == name
    assert ''.join(asked) == loaded
    asked.clear()
    pair._loaded.clear()
