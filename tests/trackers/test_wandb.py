"""What Weights & Biases is told of a run, by a module that stands in for theirs."""

import importlib
import sys
import types

import pytest

from tlx.trackers import wandb as tracker


class There:
  """A run of theirs: it lasts, and takes no step that it has."""

  def __init__(self):
    self.step, self.history, self.summary, self.given = 0, [], {}, {}

  def log(self, values, step):
    assert step >= self.step
    self.step = step + 1
    self.history.append((step, values))

  def __enter__(self):
    return self

  def __exit__(self, *error):
    pass


def test_a_run_is_told_once(workdir, monkeypatch):
  runs = {}

  def init(**given):
    there = runs.setdefault(given['id'], There())
    there.given = given
    return there

  monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=init))
  for _ in range(2):
    tracker.write(workdir, ['full-seed0'])
  (there,) = runs.values()
  assert there.history == [
    (2, {'train/phase': 0, 'train/loss': 2.5, 'val/accuracy': 0.25}),
    (4, {'train/phase': 0, 'val/accuracy': 0.5}),
  ]
  assert there.summary == {'test/accuracy': 0.75}
  given = there.given
  assert (given['project'], given['name']) == ('mine', 'full-seed0')
  assert given['config'] == {'method': 'full'} and given['resume'] == 'allow'


@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_a_tracker_wants_its_package(monkeypatch, name):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ValueError, match=rf"--{name} wants {name}: pip install 'tlx-jax\[{name}\]'"):
    importlib.import_module(f'tlx.trackers.{name}').check()
