"""A study grows: the same command trains only what is new, and ends in the numbers of the study run
whole.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
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
  """All numbers by run, but where its parameters lie and whether a run that is no longer chosen
  was tested once.
  """
  kept = {}
  for name, (result, history, logits) in numbers(workdir).items():
    for field in ('cohort', 'row', 'files'):
      result.pop(field)
    kept[name] = (
      (result, history, logits) if result['chosen'] else ({**result, 'test': None}, history, None)
    )
  return kept


def grow(config, **changes):
  for name, value in changes.items():
    if name == 'learning_rate':
      config.grid.learning_rate = value
    elif name == 'methods':
      config.methods.update(value)
    elif name == 'source_seeds':
      config.sources.turned.seeds = value
    else:
      config[name] = value


@pytest.mark.parametrize(
  'changes, new',
  [
    ({'seeds': (0, 1, 2)}, [4, 4]),
    ({'shots': (1, 2, 4)}, [4, 4]),
    ({'learning_rate': (1e-3, 3e-3, 1e-2)}, [4, 4]),
    ({'methods': {'full': {'phases': ({'tune': 'all'},)}}}, [8]),
    ({'source_seeds': (3, 0)}, [1, 8]),  # another network, and what starts from it
  ],
)
def test_what_is_new_is_trained_and_the_whole_is_as_if_run_at_once(
  config, tmp_path, trained, changes, new
):
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


def test_a_run_chosen_later_is_tested_then_and_one_no_longer_chosen_keeps_its_test(
  config, tmp_path
):
  config.grid.learning_rate = (1e-5,)
  run.run(config, tmp_path)
  first = {name for name, (result, *_) in numbers(tmp_path).items() if result['chosen']}
  config.grid.learning_rate = (1e-5, 3e-2)
  run.run(config, tmp_path)
  results = {name: result for name, (result, *_) in numbers(tmp_path).items()}
  assert all(bool(result['test']) for result in results.values() if result['chosen'])
  moved = [name for name in first if not results[name]['chosen']]
  assert moved and all(results[name]['test'] for name in moved)
  assert f'(and {len(moved)} more that were chosen before the study grew)' in report.summary(
    tmp_path
  )
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


@pytest.mark.parametrize(
  'change, words',
  [
    (
      lambda c: c.train.update({'steps': 9}),
      r'methods\.probe\.phases\[0\]\.steps: 8 -> 9',
    ),
    (
      lambda c: c.targets.digits.update({'val_fraction': 0.3}),
      r'targets\.digits\.val_fraction: 0\.22 -> 0\.3',
    ),
    (
      lambda c: c.sources.turned.train.update({'steps': 31}),
      r'sources\.turned\.train\.steps: 30 -> 31',
    ),
    (
      lambda c: c.update({'validation': 'matched'}),
      r"validation: 'all' -> 'matched'",
    ),
  ],
)
def test_what_differs_for_runs_that_are_there_is_refused(config, tmp_path, change, words):
  run.run(config, tmp_path)
  before = numbers(tmp_path)
  change(config)
  with pytest.raises(
    ValueError, match=f'(?s)(otherwise|The data changed).*{words}|The data changed'
  ):
    run.run(config, tmp_path)
  assert numbers(tmp_path) == before


def test_another_baseline_name_or_memory_is_no_other_study(config, tmp_path, trained):
  run.run(config, tmp_path)
  before = len(trained)
  config.name, config.baseline, config.cohort_bytes, config.claim = (
    'renamed',
    'scratch',
    1e5,
    'Another.',
  )
  run.run(config, tmp_path)
  assert len(trained) == before


def test_an_interrupted_study_that_grew_goes_on(config, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    save = fit._save_if_due

    def once(*arguments):
      save(*arguments)
      raise KeyboardInterrupt(15)

    patch.setattr(fit, '_save_if_due', once)
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


def folder_study(config, tmp_path):
  """The study on two folders of images, and what adds images to one."""
  from PIL import Image

  def add(name, numbers):
    random = np.random.default_rng(len(numbers))
    for kind in ('cat', 'dog'):
      (tmp_path / name / kind).mkdir(parents=True, exist_ok=True)
      for i in numbers:
        image = Image.fromarray(random.integers(0, 255, (8, 8), np.uint8))
        image.save(tmp_path / name / kind / f'{i}.png')

  for name in ('a', 'b'):
    add(name, range(20))
  config.targets = {name: {'dataset': f'folder:{tmp_path / name}'} for name in ('a', 'b')}
  config.methods = {'probe': {'phases': ({'tune': 'head'},)}}
  config.shots, config.seeds, config.grid.learning_rate = (2,), (0, 1), (1e-2,)
  return add


def test_a_target_grows_by_folds_and_each_example_is_tested_once(config, tmp_path, trained):
  folder_study(config, tmp_path)
  config.targets = {'a': config.targets.a.to_dict()}
  run.run(config, tmp_path / 'grown')
  before = len(trained)
  config.targets.a.folds = 2
  run.run(config, tmp_path / 'grown')
  assert trained[before:] == [2, 2]
  run.run(config, tmp_path / 'whole')
  grown, whole = found(tmp_path / 'grown'), found(tmp_path / 'whole')
  alone = [name for name in grown if '-a-' in name]
  assert len(alone) == 2 and {name: grown[name] for name in whole} == whole
  assert sorted(grown) == sorted([*alone, *whole])
  tested = []
  for fold in (1, 2):
    name = f'turned-a@{fold}of2-probe-2shot-seed0-lr0.01'
    with np.load(tmp_path / 'grown' / 'runs' / name / 'predictions.npz') as predictions:
      tested += predictions['ids'].tolist()
  assert len(tested) == len(set(tested)) == 40
  frame = report.read(tmp_path / 'grown')
  assert set(zip(frame['target'], frame['fold'])) == {('a', 1), ('a', 2)}
  assert 'over 2 folds and 2 seeds' in report.summary(tmp_path / 'grown')
  before = len(trained)
  del config.targets.a['folds']
  run.run(config, tmp_path / 'grown')
  assert len(trained) == before and found(tmp_path / 'grown') == grown


def test_a_run_from_another_source_seed_is_a_source_by_its_name(config, tmp_path):
  config.sources.turned.seeds = (0, 1)
  run.run(config, tmp_path / 'first')
  name = 'turned@1-digits-probe-4shot-seed0-lr0.01'
  config.sources = {'before': {'weights': f'study:{tmp_path / "first"}/{name}'}}
  run.run(config, tmp_path / 'second')
  ours = store.params(tmp_path / 'first', name)[0]
  held = store.trained(tmp_path / 'second' / 'sources' / 'before' / 'checkpoints', 0)[0]
  for stage in ours.keys() - {'head'}:
    jax.tree.map(np.testing.assert_array_equal, ours[stage], held[stage])


def test_data_that_changed_while_a_target_was_out_of_the_config_are_refused(config, tmp_path):
  add = folder_study(config, tmp_path)
  run.run(config, tmp_path / 'study')
  both = config.targets.to_dict()
  config.targets = {'a': both['a']}
  run.run(config, tmp_path / 'study')
  add('b', range(20, 30))
  config.targets = both
  with pytest.raises(ValueError, match='The data changed'):
    run.run(config, tmp_path / 'study')


@pytest.mark.parametrize('deleted', [['study.json'], ['study.json', 'cohorts']])
def test_data_that_changed_are_refused_whatever_of_the_folder_is_left(config, tmp_path, deleted):
  add = folder_study(config, tmp_path)
  workdir = tmp_path / 'study'
  run.run(config, workdir)
  for name in deleted:
    shutil.rmtree(workdir / name) if (workdir / name).is_dir() else (workdir / name).unlink()
  add('b', range(20, 30))
  with pytest.raises(ValueError, match='The data changed'):
    run.run(config, workdir)


def test_a_cohort_that_nobody_says_the_runs_of_is_trained_again(config, tmp_path):
  """Its parameters would else be taken for those of other runs."""
  run.run(config, tmp_path)
  names = [name for name, (result, *_) in numbers(tmp_path).items() if 'probe' in name]
  before = {name: store.params(tmp_path, name)[0]['head']['kernel'] for name in names}
  (tmp_path / 'cohorts' / 'turned-digits-probe' / 'cells.json').unlink()
  config.seeds = (1, 0, 2)
  run.run(config, tmp_path)
  for name in names:
    assert (store.params(tmp_path, name)[0]['head']['kernel'] == before[name]).all(), name


@pytest.mark.parametrize('name', ['predictions.npz', 'metrics.jsonl', 'config.json', 'labels.txt'])
def test_a_file_that_a_run_lost_is_written_again(config, tmp_path, name):
  run.run(config, tmp_path)
  before = numbers(tmp_path)
  lost = next(path for path in (tmp_path / 'runs').glob(f'*/{name}'))
  lost.unlink()
  run.run(config, tmp_path)
  assert lost.exists() and numbers(tmp_path) == before


@pytest.mark.parametrize('content', ['{', '[]', '3', '{}'])
@pytest.mark.parametrize(
  'file',
  [
    'study.json',
    'time.json',
    'sources/turned/result.json',
    'runs/*/result.json',
    'cohorts/*/cells.json',
  ],
)
def test_small_files_that_are_damaged_are_named_with_what_to_do(config, tmp_path, file, content):
  config.methods, config.seeds, config.shots = (
    {'probe': config.methods.probe.to_dict()},
    (0,),
    (1,),
  )
  config.grid.learning_rate = (1e-2,)
  run.run(config, tmp_path)
  before = numbers(tmp_path)
  path = next(tmp_path.glob(file))
  path.write_text(content)
  if (file, content) == ('time.json', '[]'):
    return  # that is what a time.json of no start would be
  with pytest.raises(ValueError, match=r'(?i)delete .* run the same command') as caught:
    run.run(config, tmp_path)
  assert str(path) in str(caught.value)
  whole = path if file in ('study.json', 'time.json') else path.parent
  shutil.rmtree(whole) if whole.is_dir() else whole.unlink()
  run.run(config, tmp_path)
  assert numbers(tmp_path) == before


def test_a_run_as_a_source_may_not_have_seen_what_is_held_out(config, tmp_path):
  run.run(config, tmp_path / 'first')
  name = next(name for name in numbers(tmp_path / 'first') if 'scratch' in name and '4shot' in name)
  config.sources = {
    'before': {
      'backbone': {'name': 'mlp', 'widths': (16, 12)},
      'weights': f'study:{tmp_path / "first"}/{name}',
    }
  }
  run.run(config, tmp_path / 'same')  # the same parts: nothing of it is held out
  noted = json.loads((tmp_path / 'same' / 'study.json').read_text())['data']['before/digits'][
    'notes'
  ]
  assert any('40 of the' in note for note in noted), noted
  config.targets.digits.val_fraction = 0.6
  with pytest.raises(ValueError, match=r'sources\.before on digits.*trained on \d+ of the'):
    run.run(config, tmp_path / 'other')


def test_a_study_of_before_a_field_goes_on_where_the_field_is_at_its_default(
  config, tmp_path, trained
):
  run.run(config, tmp_path)
  before, missing = found(tmp_path), ('ema', 'keep')
  for path in tmp_path.glob('cohorts/*/cells.json'):
    content = store.checkpoint.unsealed(path)
    content.pop('sha256', None)
    for method in content['depends']['methods'].values():
      method.pop('added')
      for phase in method['phases']:
        for field in missing:
          phase.pop(field)
    store.checkpoint.write_json(path, store.checkpoint.sealed(content))
  path = tmp_path / 'sources' / 'turned' / 'result.json'
  content = store.checkpoint.unsealed(path)
  for field in missing:
    content['config']['train'].pop(field)
  store.checkpoint.write_json(path, store.checkpoint.sealed(content))
  trained.clear()
  run.run(config, tmp_path)
  assert not trained and found(tmp_path) == before
  config.train.ema = 0.9
  with pytest.raises(ValueError, match=r'ema: 0\.0 -> 0\.9'):
    run.run(config, tmp_path)
