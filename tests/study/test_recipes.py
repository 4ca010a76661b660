"""Recipes resolve in a study, and their rates are those of the official code."""

import pytest

from tests.study import tiny
from tlx import report
from tlx.study import config, recipes, run
from tlx.train import optim


@pytest.mark.parametrize(
  'num_examples, falls, steps',
  [
    (19_999, (100, 200, 300, 400), 500),
    (20_000, (500, 3000, 6000, 9000), 10_000),
    (500_000, (500, 6000, 12_000, 18_000), 20_000),
  ],
)
def test_the_hyper_rule_falls_where_the_official_one_does(num_examples, falls, steps):
  (phase,) = recipes.bit(num_examples)['phases']
  name, options = config.named(phase['schedule'])
  factor = optim.schedule(name, phase['warmup'], options)
  assert phase['steps'] == steps and ('augment' in phase) == (num_examples >= 20_000)
  assert float(factor(falls[0] - 1, steps)) == pytest.approx(1.0)
  for i, fall in enumerate(falls[1:]):
    assert float(factor(fall - 1, steps)) == pytest.approx(0.1**i)
    assert float(factor(fall, steps)) == pytest.approx(0.1 ** (i + 1))


def test_recipes_run_in_a_study(tmp_path):
  made = tiny.get_config()
  made.shots, made.baseline = (4,), ''
  made.methods = {
    'autogluon': recipes.autogluon(epochs=2.0, evaluations=4),
    'ulmfit': recipes.ulmfit(depth=3, steps=4),
    'bit': recipes.bit(40, steps=5, batch_size=8),
  }
  runs = report.read(run.run(made, tmp_path / 'study'))
  assert set(runs['method']) == set(made.methods) and (runs['status'] == 'ok').all()
  assert (runs[runs['method'] == 'ulmfit']['steps'] == 12).all()
