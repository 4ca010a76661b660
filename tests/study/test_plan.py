"""Cells, cohorts and programs; what is planned is what happens."""
import pandas as pd
import pytest

from tests.study import tiny
from tlx.study import config, plan, run
from tlx.train import cohort, fit


def resolved(**changes):
  made = tiny.get_config()
  for name, value in changes.items():
    made[name] = value
  return config.resolve(made)


def test_every_method_gets_every_setting_size_and_seed():
  cells = plan.cells_of(resolved())
  assert len(cells) == len(set(cells)) == 3 * 2 * 2 * 2
  for method in ('scratch', 'probe', 'lp_ft'):
    assert {(c.shots, c.seed, c.learning_rate) for c in cells if c.method == method} == {
        (shots, seed, rate) for shots in (1, 4) for seed in (0, 1) for rate in (1e-3, 1e-2)}


def test_cohorts_split_where_memory_ends_and_keep_every_cell():
  whole, parts = plan.make(resolved()), plan.make(resolved(cohort_bytes=100_000.0))
  assert len(whole) == 3 < len(parts)
  assert [cell for c in whole for cell in c.cells] == [cell for c in parts for cell in c.cells]
  assert len({c.id for c in parts}) == len(parts)


def test_split_cohorts_choose_together_and_find_the_same(data_dir, tmp_path):
  """Six runs at a time instead of eight: the same numbers, and still one learning rate a size."""
  from tlx import report
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  made.methods = {'scratch': made.methods['scratch'].to_dict()}
  whole = report.read(run.run(made, tmp_path / 'whole'))
  made.cohort_bytes = 160_000.0
  parts = report.read(run.run(made, tmp_path / 'parts'))
  assert parts.cohort.nunique() > 1
  columns = ['id', 'chosen', 'val_accuracy', 'val_loss', 'test_accuracy']
  pd.testing.assert_frame_equal(*(table[columns].sort_values('id', ignore_index=True) for table in (whole, parts)))


def test_planned_programs_are_those_compiled(data_dir, tmp_path, monkeypatch):
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  made.train.clip_norm = 0.77  # so that no other test has compiled them
  study = config.resolve(made)
  rows = plan.table(study, plan.make(study))
  compiled = []
  original = cohort.Program.__call__

  def count(self, *args):
    before = len(self.compiled)
    outputs = original(self, *args)
    if len(self.compiled) > before and isinstance(outputs[1], dict) and 'grad_norm' in outputs[1]:
      compiled.append(self)
    return outputs

  monkeypatch.setattr(cohort.Program, '__call__', count)
  run.run(made, tmp_path)
  assert len(compiled) == sum(row['new programs'] for row in rows)


def test_layer_decay_gives_each_stage_its_rate():
  study = resolved()
  source = study['sources']['turned']
  phase = plan.phases_of(study['methods']['lp_ft'], source, 10)[1].phase
  assert dict(phase.rates) == {'train@dense1': 0.25, 'train@dense2': 0.5, 'train@head': 1.0}
  assert dict(phase.labels)['dense1/linear/bias'] == 'train@dense1'


def test_stops_end_with_the_last_step():
  for num_steps, evaluations in ((10, 4), (3, 5), (1, 1), (100, 3)):
    stops = fit.PhasePlan(None, None, num_steps, 1, evaluations, 0.0).stops
    assert stops[-1] == num_steps and stops == sorted(set(stops)) and len(stops) == min(evaluations, num_steps)


@pytest.mark.parametrize('change, words', [
    (lambda c: c.methods.probe.phases[0].update({'tune': {'policy': 'after', 'k': 7}}), 'config.methods.probe: k=7 stages asked for'),
    (lambda c: c.methods.probe.phases[0].update({'tune': {'policy': 'regex', 'rules': (('^stem/', 'train'), ('.*', 'frozen'))}}),
     "'\\^stem/'.*decides no parameter"),
    (lambda c: c.methods.probe.phases[0].update({'tune': {'policy': 'regex', 'rules': (('^head/', 'quick'), ('.*', 'frozen'))}}),
     "Unknown group 'quick'"),
    (lambda c: c.methods.probe.phases[0].update({'tun': 'head'}), "phases\\[0\\] has no field 'tun'.*Did you mean 'tune'"),
    (lambda c: c.methods.probe.update({'grid': {'learning_rate': (1e-3,)}}), 'same budget'),
    (lambda c: c.sources.turned.backbone.update({'withds': (3,)}), 'withds'),
    (lambda c: c.train.update({'batch_size': 0}), 'batch_size is at least 1'),
    (lambda c: c.grid.update({'learning_rate': ()}), 'learning_rate'),
    (lambda c: c.grid.update({'weight_decay': (0.1,)}), 'has no weight decay'),
    (lambda c: c.update({'seeds': (0, 0)}), 'different whole numbers'),
])
def test_wrong_configs_are_named(change, words):
  made = tiny.get_config()
  made.unlock()
  change(made)
  with pytest.raises(ValueError, match=f'(?s){words}'):
    plan.make(config.resolve(made))
