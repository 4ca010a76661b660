"""A study grows: the same command trains only what is new, and ends in the numbers of the study run whole."""
import json
import pathlib
import shutil

import pytest

from tests.study import tiny
from tests.study.test_run import numbers
from tlx import report
from tlx.study import run, store
from tlx.train import fit


@pytest.fixture
def config(data_dir):
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  made.methods = {name: made.methods[name].to_dict() for name in ('scratch', 'probe')}
  made.baseline = ''
  return made


@pytest.fixture
def trained(monkeypatch):
  """The cells of every cohort that steps were taken for, in order."""
  cohorts, advance = [], fit.fit

  def counted(job, folder, *rest, **more):
    before = store.checkpoint.latest(folder)
    fitted = advance(job, folder, *rest, **more)
    if not before or before['step'] != store.checkpoint.latest(folder)['step']:
      cohorts.append(len(job.seeds))
    return fitted

  monkeypatch.setattr(fit, 'fit', counted)
  return cohorts


def found(workdir):
  """All numbers by run, but where its parameters lie and whether a run that is no longer chosen was tested once."""
  kept = {}
  for name, (result, history, logits) in numbers(workdir).items():
    for field in ('cohort', 'row', 'files'):
      result.pop(field)
    kept[name] = (result, history, logits) if result['chosen'] else ({**result, 'test': None}, history, None)
  return kept


def grow(config, **changes):
  for name, value in changes.items():
    if name == 'learning_rate':
      config.grid.learning_rate = value
    elif name == 'methods':
      config.methods.update(value)
    else:
      config[name] = value


@pytest.mark.parametrize('changes, new', [
    ({'seeds': (0, 1, 2)}, [4, 4]),
    ({'shots': (1, 2, 4)}, [4, 4]),
    ({'learning_rate': (1e-3, 3e-3, 1e-2)}, [4, 4]),
    ({'methods': {'full': {'phases': ({'tune': 'all'},)}}}, [8]),
])
def test_what_is_new_is_trained_and_the_whole_is_as_if_run_at_once(config, tmp_path, trained, changes, new):
  run.run(config, tmp_path / 'grown')
  before = len(trained)
  grow(config, **changes)
  run.run(config, tmp_path / 'grown')
  assert trained[before:] == new
  run.run(config, tmp_path / 'whole')
  assert found(tmp_path / 'grown') == found(tmp_path / 'whole')
  for name in found(tmp_path / 'whole'):
    store.params(tmp_path / 'grown', name)
  before = len(trained)
  run.run(config, tmp_path / 'grown')
  assert len(trained) == before


def test_a_run_chosen_later_is_tested_then_and_one_no_longer_chosen_keeps_its_test(config, tmp_path):
  config.grid.learning_rate = (1e-5,)
  run.run(config, tmp_path)
  first = {name for name, (result, *_) in numbers(tmp_path).items() if result['chosen']}
  config.grid.learning_rate = (1e-5, 3e-2)
  run.run(config, tmp_path)
  results = {name: result for name, (result, *_) in numbers(tmp_path).items()}
  assert all(bool(result['test']) for result in results.values() if result['chosen'])
  moved = [name for name in first if not results[name]['chosen']]
  assert moved and all(results[name]['test'] for name in moved)
  assert f'(and {len(moved)} more that were chosen before the study grew)' in report.summary(tmp_path)
  assert sum(result['chosen'] for result in results.values()) == len(first)


def test_a_smaller_config_is_part_of_what_is_there(config, tmp_path, trained):
  run.run(config, tmp_path)
  whole, before = found(tmp_path), len(trained)
  config.seeds = (1,)
  run.run(config, tmp_path)
  assert len(trained) == before
  assert json.loads((tmp_path / 'study.json').read_text())['plan']['num_runs'] == len(whole) // 2
  assert len(report.read(tmp_path)) == len(whole) // 2
  config.seeds = (0, 1)
  run.run(config, tmp_path)
  assert len(trained) == before and found(tmp_path) == whole


@pytest.mark.parametrize('change, words', [
    (lambda c: c.train.update({'steps': 9}), r'methods\.probe\.phases\[0\]\.steps: 8 -> 9'),
    (lambda c: c.targets.digits.update({'val_fraction': 0.3}), r'targets\.digits\.val_fraction: 0\.22 -> 0\.3'),
    (lambda c: c.sources.turned.train.update({'steps': 31}), r'sources\.turned\.train\.steps: 30 -> 31'),
    (lambda c: c.update({'validation': 'matched'}), r"validation: 'all' -> 'matched'"),
])
def test_what_differs_for_runs_that_are_there_is_refused(config, tmp_path, change, words):
  run.run(config, tmp_path)
  before = numbers(tmp_path)
  change(config)
  with pytest.raises(ValueError, match=f'(?s)(otherwise|The data changed).*{words}|The data changed'):
    run.run(config, tmp_path)
  assert numbers(tmp_path) == before


def test_another_baseline_name_or_memory_is_no_other_study(config, tmp_path, trained):
  run.run(config, tmp_path)
  before = len(trained)
  config.name, config.baseline, config.cohort_bytes, config.claim = 'renamed', 'scratch', 1e5, 'Another.'
  run.run(config, tmp_path)
  assert len(trained) == before


def test_an_interrupted_study_that_grew_goes_on(config, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    save = fit._save

    def once(*arguments):
      save(*arguments)
      raise KeyboardInterrupt(15)

    patch.setattr(fit, '_save', once)
    for _ in range(2):  # the source's first segment, then a cohort's
      with pytest.raises(KeyboardInterrupt):
        run.run(config, tmp_path / 'grown')
  config.seeds = (0, 1, 2)
  run.run(config, tmp_path / 'grown')
  run.run(config, tmp_path / 'whole')
  assert found(tmp_path / 'grown') == found(tmp_path / 'whole')


def test_a_deleted_cohort_of_a_grown_study_is_made_again(config, tmp_path):
  workdir = pathlib.Path(tmp_path)
  run.run(config, workdir)
  config.seeds = (0, 1, 2)
  run.run(config, workdir)
  before = numbers(workdir)
  shutil.rmtree(workdir / 'cohorts' / 'turned-digits-probe')
  run.run(config, workdir)
  for name, (_, *rest) in numbers(workdir).items():
    assert rest == list(before[name][1:])
    store.params(workdir, name)
