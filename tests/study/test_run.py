"""Whole studies through the command line: what they leave, what they refuse, and that nothing
interrupts them for good.
"""

import collections
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.study import tiny
from tests.study.conftest import ROOT
from tlx import checkpoint, report
from tlx.backbones import mlp
from tlx.study import config as configs
from tlx.study import pair as pairs
from tlx.study import run, store
from tlx.train import cohort
from tlx.types import Variables


def numbers(workdir) -> dict:
  """Everything a study found, without what it cost in time."""
  found = {}
  for folder in sorted((pathlib.Path(workdir) / 'runs').iterdir()):
    result = json.loads((folder / 'result.json').read_text())
    for name in (
      'train_seconds',
      'eval_seconds',
      'feature_seconds',
      'features',
      'compile_seconds',
      'compiled_programs',
      'peak_memory_bytes',
    ):
      result['cost'].pop(name)
    for phase in result['phases']:
      phase.pop('train_seconds')
    result.pop('sha256')
    predictions = folder / 'predictions.npz'
    logits = np.load(predictions)['logits'].tobytes() if predictions.exists() else None
    found[folder.name] = result, (folder / 'metrics.jsonl').read_text(), logits
  return found


def test_a_study_leaves_its_folder(finished):
  workdir, printed = finished
  table = report.read(workdir)
  assert len(table) == 3 * 2 * 2 * 2 and set(table.status) == {'ok'}
  assert table.chosen.sum() == 3 * 2 * 2  # one learning rate for each method, size and seed
  assert table.test_accuracy.notna().equals(table.chosen)
  assert table.frozen_unchanged.all()
  assert f'Report: {workdir / "report.html"}' in printed and (workdir / 'report.html').exists()
  probe = table[table.method == 'probe'].iloc[0]
  assert (probe.trainable_params, probe.total_params, probe.frozen_stages) == (
    130,
    64 * 16 + 16 + 16 * 12 + 12 + 130,
    2,
  )
  assert probe.frozen_sha256_before == probe.frozen_sha256_after != ''
  scratch = table[table.method == 'scratch']
  assert set(scratch.init) == {'random'} and set(scratch.source_sha256) == {''}


def test_chosen_rates_are_best_on_validation(finished):
  table = report.read(finished[0])
  for _, group in table.groupby(['method', 'shots']):
    means = group.groupby('learning_rate').val_accuracy.mean()
    assert means[group[group.chosen].learning_rate.unique()].tolist() == [means.max()]


def test_subsets_are_saved_balanced_and_nested(finished):
  subsets = json.loads((finished[0] / 'subsets' / 'digits.json').read_text())
  for seed in ('0', '1'):
    assert len(subsets[seed]['1']) == 10 and len(subsets[seed]['4']) == 40
    assert set(subsets[seed]['1']) < set(subsets[seed]['4'])
  assert subsets['0'] != subsets['1']


def test_parameters_of_one_run_come_back(finished):
  """The stored parameters, put into the network, give the stored predictions."""
  workdir, _ = finished
  table = report.read(workdir)
  from tlx import datasets

  config = json.loads((workdir / 'study.json').read_text())['config']
  data = datasets.load(
    'uci_digits',
    8,
    1,
    val_fraction=0.22,
    test_fraction=0.3,
    data_dir=config['data_dir'],
  )
  inputs = (data.test.inputs / np.float32(255) - np.float32(0.3)) / np.float32(0.4)
  network = mlp.build(10, widths=(16, 12))
  for method in ('probe', 'lp_ft', 'scratch'):
    run = table[(table.method == method) & table.chosen].id.iloc[-1]
    params, stats = store.params(workdir, run)
    logits, _ = network.apply(Variables(params, stats), inputs, train=False)
    np.testing.assert_allclose(
      logits,
      np.load(workdir / 'runs' / run / 'predictions.npz')['logits'],
      atol=2e-5,
    )
  with pytest.raises(ValueError, match='No finished run'):
    store.params(workdir, 'nothing')


def test_a_finished_study_is_not_run_again(finished, study):
  workdir, _ = finished
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob('result.json')}
  assert study(workdir).returncode == 0
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob('result.json')} == before


def test_notes_of_a_sources_own_data_are_not_told_as_the_targets(data_dir, monkeypatch):
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  source_data = pairs.source_data

  def noted(*arguments):
    return source_data(*arguments)._replace(notes=('Three images are gone.',))

  monkeypatch.setattr(pairs, 'source_data', noted)
  about, _ = run.data_of(configs.resolve(made))
  (of_pair,) = about.values()
  assert "The source's own data: Three images are gone." in of_pair['notes']
  assert 'Three images are gone.' not in of_pair['notes']


def test_a_start_reads_results_twice_at_most_and_repeats_no_note(
  data_dir, finished, monkeypatch, capsys
):
  """To compare their data, and to go on with them."""
  workdir, said = finished
  notes = store.told(workdir)
  assert notes and all(note in said for note in notes)
  read = collections.Counter()
  unsealed = checkpoint.unsealed

  def counted(path):
    read[str(path)] += path.name == 'result.json'
    return unsealed(path)

  monkeypatch.setattr(checkpoint, 'unsealed', counted)
  config = tiny.get_config()
  config.data_dir = str(data_dir)
  run.run(config, workdir)
  results = [path for path in read if '/runs/' in path]
  assert len(results) == 24 and max(read[path] for path in results) == 2
  out = capsys.readouterr().out
  assert not any(note in out for note in notes)


def wait_for(condition, process, seconds=120):
  end = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < end
    time.sleep(0.005)


def test_killed_at_several_points_it_ends_in_the_same_numbers(finished, command, study, tmp_path):
  workdir = tmp_path / 'killed'
  points = [
    lambda: any(workdir.glob('sources/turned/checkpoints/*/meta.json')),  # in the source's training
    lambda: any(workdir.glob('cohorts/*/checkpoints/*/arrays*')),  # in a save
    lambda: any(
      workdir.glob('cohorts/turned-digits-lp_ft/checkpoints/*/meta.json')
    ),  # between two phases
    lambda: any(workdir.glob('runs/turned-digits-lp_ft*/config.json')),  # in the writing of results
  ]
  killed = 0
  for reached in points:
    process = subprocess.Popen(
      command(workdir),
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    wait_for(
      lambda reached=reached, process=process: reached() or process.poll() == 0,
      process,
    )
    killed += process.poll() is None
    process.kill()
    process.communicate()
  assert killed >= 3  # the last point is short
  assert study(workdir).returncode == 0
  assert numbers(workdir) == numbers(finished[0])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_end_cleanly(finished, command, study, tmp_path, number):
  workdir = tmp_path / 'signalled'
  process = subprocess.Popen(
    command(workdir),
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  wait_for(lambda: any(workdir.glob('cohorts/*/checkpoints/*/meta.json')), process)
  process.send_signal(number)
  _, errors = process.communicate(timeout=120)
  assert (
    process.returncode == 128 + number
    and 'The same command continues' in errors
    and 'Traceback' not in errors
  )
  assert study(workdir).returncode == 0
  assert numbers(workdir) == numbers(finished[0])


def test_another_config_is_refused_with_the_difference(finished, study):
  refused = study(finished[0], '--config.train.steps=9')
  assert refused.returncode != 0 and 'Traceback' not in refused.stderr
  for line in (
    'made otherwise',
    'methods.scratch.phases[0].steps: 8 -> 9',
    'another --workdir, or undo the change',
  ):
    assert line in refused.stderr, refused.stderr


def test_dry_run_shows_the_plan_and_touches_no_data(study, tmp_path):
  shown = study(None, '--dry_run', f'--config.data_dir={tmp_path / "none"}')
  assert shown.returncode == 0, shown.stderr
  assert 'turned-digits-lp_ft' in shown.stdout and '25 runs in 4 cohorts' in shown.stdout
  assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize(
  'flags, words',
  [
    (('--config.targets.digits.dataset=uci_digit',), "Did you mean 'uci_digits'"),
    (('--config.targets.digits.dataset=folder:/nowhere',), '/nowhere'),
    (('--config.methods.scratch.init=sauce',), "'source', 'random'"),
    (('--config.baseline=scrtch',), "Did you mean 'scratch'"),
    (('--config.shots=(1, 500)',), '500 shots'),
    (('--config.train.schedule=cosin',), "Did you mean 'cosine'"),
    (('--config.train.tune=heads',), "Did you mean 'head'"),
    (('--config.trian.steps=3',), "Did you mean 'train'"),
    (('--config.train.steps=many',), 'many'),
    (('--config=nowhere.py',), 'nowhere.py'),
    (('--config.sources.turned.backbone.name=mpl',), "Did you mean 'mlp'"),
    (('--config.train.norm=living',), "'frozen' or 'live'"),
  ],
)
def test_misuse_is_one_clear_error_before_anything_is_written(study, tmp_path, flags, words):
  refused = study(tmp_path / 'never', *flags)
  assert refused.returncode != 0 and words in refused.stderr, refused.stderr
  assert 'Traceback' not in refused.stderr
  assert not list((tmp_path / 'never').rglob('checkpoints'))


def test_missing_flags_say_what_to_give(study, tmp_path):
  for refused in (
    study(None),
    study(tmp_path / 'x', config=None),
    study(tmp_path / 'x', 'stray'),
  ):
    assert refused.returncode != 0 and 'Traceback' not in refused.stderr
    assert '--config=configs/FILE.py --workdir=DIR' in refused.stderr or 'stray' in refused.stderr


def test_a_relative_workdir_and_report_command(study):
  """The form of every command in the README, from the folder of the checkout."""
  workdir = os.path.join('runs', f'test-{os.getpid()}')
  try:
    done = study(workdir, '--config.seeds=(0, 1)', '--config.shots=(1,)')
    assert done.returncode == 0, done.stderr
    assert f'Report: {workdir}' in done.stdout
    shown = subprocess.run(
      [sys.executable, '-m', 'experiments.report', f'--workdir={workdir}'],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    assert shown.returncode == 0 and '12 of 12 runs done' in shown.stdout, shown.stderr
  finally:
    shutil.rmtree(ROOT / workdir, ignore_errors=True)


def test_a_field_of_what_is_a_name_says_how_to_set_it(study, tmp_path):
  refused = study(tmp_path / 'never', '--config.train.optimizer.momentum=0.9')
  assert refused.returncode != 0 and 'Traceback' not in refused.stderr
  assert "config.train.optimizer is 'adam' and has no field 'momentum'" in refused.stderr


@pytest.mark.skipif(not pathlib.Path('/proc/self/maps').exists(), reason='Linux counts them')
def test_programs_that_fill_the_memory_maps_are_let_go(finished, data_dir, tmp_path, monkeypatch):
  """After each method; those that are needed again give the same numbers."""
  went = []
  monkeypatch.setattr(run, 'let_go', lambda: went.append(cohort.let_go(share=0.0)))
  config = tiny.get_config()
  config.data_dir = str(data_dir)
  run.run(config, tmp_path)
  assert went == [True] * 3 and not any(program.compiled for program in cohort.Program.made)
  assert not cohort.let_go(share=0.99)
  assert numbers(tmp_path) == numbers(finished[0])
