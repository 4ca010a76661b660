"""A task is one file: a regression that no room knows goes through a whole study."""

import json
import sys
import types

import numpy as np
import pytest

from tests.study import tiny
from tests.tasks import brightness
from tlx import plug as plugs
from tlx.study import config as configs
from tlx.study import dry_run, run


@pytest.fixture
def config(data_dir, monkeypatch):
  """The tiny study, asked for the brightness of an image; as if the file lay in tlx/tasks."""
  real = plugs.available
  monkeypatch.setattr(
    plugs, 'available', lambda room: real(room) + ['brightness'] * (room == 'tasks')
  )
  monkeypatch.setitem(sys.modules, 'tlx.tasks.brightness', brightness)
  made = tiny.get_config(steps='40')
  made.data_dir = str(data_dir)
  made.targets.digits.task = {'name': 'brightness', 'scale': 2.0}
  made.shots = (4,)
  return made


def results(workdir):
  return [json.loads(path.read_text()) for path in workdir.glob('runs/*/result.json')]


def test_a_regression_is_trained_chosen_and_tested_by_its_own_columns(config, tmp_path):
  run.run(config, tmp_path)
  found = results(tmp_path)
  assert {tuple(result['val']) for result in found} == {('mae', 'loss')}
  for method in config.methods:
    of_method = [result for result in found if result['cell']['method'] == method]
    means = {}
    for result in of_method:
      means.setdefault(result['cell']['learning_rate'], []).append(result['val']['mae'])
    best = min(means, key=lambda rate: np.mean(means[rate]))
    chosen = {result['cell']['learning_rate'] for result in of_method if result['chosen']}
    assert chosen == {best}  # less is better
  for result in found:
    line = json.loads(
      (tmp_path / 'runs' / result['id'] / 'metrics.jsonl').read_text().splitlines()[-1]
    )
    assert line['val_mae'] == result['val']['mae'] and 'val_accuracy' not in line
    if result['chosen']:
      predictions = np.load(tmp_path / 'runs' / result['id'] / 'predictions.npz')
      assert predictions['brightness'].shape == predictions['targets'].shape
      errors = np.abs(predictions['brightness'] - predictions['targets'])
      assert result['test']['mae'] == pytest.approx(errors.mean(), rel=1e-4)
      assert result['test']['worst'] == pytest.approx(errors.max(), rel=1e-4)
  chosen = [result['test']['mae'] for result in found if result['chosen']]
  assert (
    min(chosen) < 0.3 * predictions['targets'].mean()
  )  # an output of 0 has an error of that mean


def test_a_regression_is_counted_before_it_runs(config):
  assert 'runs in' in dry_run.describe(config)


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda c: setattr(c.targets.digits, 'task', 'brigthness'), "Did you mean 'brightness'"),
    (lambda c: c.targets.digits.update(task={'name': 'brightness', 'size': 3}), 'size'),
    (lambda c: c.train.update(label_smoothing=0.1), "Task 'brightness'.*label_smoothing"),
    (
      lambda c: c.update(methods={'exact': {'phases': ({'tune': 'head', 'solver': 'ridge'},)}}),
      "solver 'ridge' solves no brightness",
    ),
  ],
)
def test_what_a_task_does_not_take_is_refused(config, change, words):
  change(config)
  with pytest.raises(ValueError, match=words):
    dry_run.describe(config)


def test_validation_keeps_nothing_per_example(config, tmp_path, monkeypatch):
  """Only chosen runs' test predictions are asked for."""
  kept = []
  task = brightness.task(10, scale=2.0)
  spied = task._replace(keep=lambda outputs: kept.append(outputs.shape) or task.keep(outputs))
  module = types.SimpleNamespace(task=lambda num_classes, **options: spied)
  monkeypatch.setitem(sys.modules, 'tlx.tasks.brightness', module)
  config.methods = {'probe': {'phases': ({'tune': 'head'},)}}
  config.baseline = ''
  stopped = []
  monkeypatch.setattr(run, '_test', lambda *arguments: stopped.append(arguments) or 1 / 0)
  with pytest.raises(ZeroDivisionError):
    run.run(config, tmp_path)
  assert stopped and not kept
  assert configs.resolve(config)['targets']['digits']['task'] == {
    'name': 'brightness',
    'scale': 2.0,
  }
