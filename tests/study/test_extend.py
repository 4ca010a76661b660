"""Learning rates beyond the edge of a grid: which are added, and that the choice is as if they had
been there.
"""

import json

import pytest

from tests.study.test_growth import config, found, trained  # noqa: F401
from tlx import report
from tlx.study import config as configs
from tlx.study import run
from tlx.study.cells import beyond_edges, cells_of
from tlx.train import fit
from tlx.types import Cell


def cells(rates, shots=(1, 4), seeds=(0, 1), decays=(0.0,)):
  return {
    Cell('s', 't', 'full', size, seed, rate, decay)
    for size in shots
    for seed in seeds
    for rate in rates
    for decay in decays
  }


def study(rates, extend, decays=(0.0,)):
  grid = {'learning_rate': rates, 'weight_decay': decays, 'extend': extend}
  return {'methods': {'full': {'grid': grid}}}


@pytest.mark.parametrize(
  'chosen, added', [(3e-3, None), (1e-2, 0.0333), (1e-3, 0.000333), (0.03, None)]
)
def test_the_next_rate_keeps_the_ratio_of_the_edge(chosen, added):
  rates = (1e-3, 3e-3, 1e-2)
  tried = cells((*rates, 0.03) if chosen == 0.03 else rates, shots=(4,), decays=(0.0, 0.1))
  best = {cell for cell in tried if (cell.learning_rate, cell.weight_decay) == (chosen, 0.1)}
  wanted = cells([added], shots=(4,), decays=(0.0, 0.1)) if added else set()
  # 0.03 is one that was added, and all that may be
  assert set(beyond_edges(study(rates, 1, (0.0, 0.1)), tried, best)) == wanted
  assert not beyond_edges(study(rates, 0, (0.0, 0.1)), tried, best)


def test_sizes_are_extended_by_themselves_and_one_rate_never():
  tried = cells((1e-3, 1e-2))
  best = {c for c in tried if c.learning_rate == (1e-2 if c.shots == 1 else 1e-3)}
  assert set(beyond_edges(study((1e-3, 1e-2), 2), tried, best)) == cells([0.1], (1,)) | cells(
    [1e-4], (4,)
  )
  assert not beyond_edges(study((1e-3,), 2), cells((1e-3,)), cells((1e-3,)))


def small(config):  # noqa: F811
  config.methods = {'probe': config.methods['probe'].to_dict()}
  config.shots, config.grid.learning_rate = (4,), (1e-5, 1e-4)
  return config


def test_a_choice_at_the_edge_is_made_again_from_more(config, tmp_path, trained):  # noqa: F811
  small(config).grid.extend = 2
  run.run(config, tmp_path / 'extended')
  before = len(trained)
  plan = json.loads((tmp_path / 'extended' / 'study.json').read_text())['plan']
  assert plan['num_runs'] == len(plan['runs']) == 8  # 2 seeds x 4 rates
  frame = report.read(tmp_path / 'extended')
  assert sorted(frame['learning_rate'].unique()) == [1e-5, 1e-4, 1e-3, 1e-2]
  assert frame['test_accuracy'].notna().sum() == 2  # the last choice alone was tested
  text = report.summary(tmp_path / 'extended')
  assert 'Up to 2 rates were added where the chosen one lay at an edge' in text
  run.run(config, tmp_path / 'extended')
  assert (
    len(trained) == before
    and json.loads((tmp_path / 'extended' / 'study.json').read_text())['plan'] == plan
  )
  config.grid.extend, config.grid.learning_rate = 0, (1e-5, 1e-4, 1e-3, 1e-2)
  run.run(config, tmp_path / 'whole')
  whole = found(tmp_path / 'whole')
  assert found(tmp_path / 'extended') == whole and sum(r['chosen'] for r, *_ in whole.values()) == 2
  config.grid.learning_rate = (1e-5, 1e-4)
  run.run(config, tmp_path / 'extended')  # without, the added runs stay and count no more
  assert len(report.read(tmp_path / 'extended')) == 4


def test_an_extension_that_was_interrupted_goes_on(config, tmp_path, monkeypatch):  # noqa: F811
  small(config).grid.extend = 2
  advance, calls = fit.fit, []

  def interrupted(job, *rest, **more):
    fitted = advance(job, *rest, **more)
    calls.append(len(job.seeds))
    if len(calls) == 3:  # the source, the grid, the first rate beyond it
      raise KeyboardInterrupt(15)
    return fitted

  with monkeypatch.context() as patch:
    patch.setattr(fit, 'fit', interrupted)
    with pytest.raises(KeyboardInterrupt):
      run.run(config, tmp_path / 'cut')
  assert calls == [1, 4, 2]
  run.run(config, tmp_path / 'cut')
  run.run(config, tmp_path / 'whole')
  assert found(tmp_path / 'cut') == found(tmp_path / 'whole')


def test_every_method_is_extended_alike_and_nothing_is_by_default(config):  # noqa: F811
  resolved = configs.resolve(config)
  assert resolved['grid']['extend'] == 0 and cells_of(resolved)
  config.methods.probe.grid = {'learning_rate': (1e-2, 1e-1), 'extend': 1}
  with pytest.raises(ValueError, match=r'probe\.grid\.extend is 1 where config\.grid\.extend is 0'):
    configs.resolve(config)
