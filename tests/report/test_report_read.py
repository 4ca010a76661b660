import hashlib
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tlx import report
from tlx.report import folder, numbers


def test_read_has_a_row_a_run_and_the_fields_of_the_contract(study):
  runs = report.read(study)
  assert len(runs) == 480 and tuple(runs.columns) == folder.COLUMNS
  row = runs[runs['id'] == 'mnist-digits-lp_ft-5shot-seed1-lr0.003'].iloc[0]
  cell = row[['source', 'target', 'method', 'shots', 'seed', 'learning_rate']]
  assert cell.tolist() == ['mnist', 'digits', 'lp_ft', 5, 1, 0.003]
  assert row['chosen']
  assert row['status'] == 'ok'
  assert row['init'] == 'source'
  assert row['num_phases'] == 2
  assert row['val_accuracy'] == pytest.approx(row['test_accuracy'] + 0.01)
  assert row['trainable_params'] == 23456
  assert row['frozen_unchanged']
  assert row['frozen_sha256_before'] == row['frozen_sha256_after'] == '1a'
  assert runs.loc[~runs['chosen'], 'test_accuracy'].isna().all()
  assert (runs['status'] == 'diverged at step 7').sum() == 1


def test_read_puts_all_examples_last_and_tells_of_reuse(tmp_path, write_run):
  for size in (0, 20, 5):
    write_run(tmp_path, ('mnist', 'digits', 'lp_ft', size, 0, 0.1), 0.9)
  runs = report.read(tmp_path)
  assert runs['shots'].tolist() == [5, 20, 0]
  assert runs['num_train'].tolist() == [50, 200, 1560]
  assert runs['num_classes'].tolist() == [10] * 3
  # the first of two phases
  assert runs['reused_stages'].tolist() == [0] * 3
  assert runs['reused_steps'].tolist() == [
    150,
    525,
    25,
  ]
  assert runs['feature_seconds'].tolist() == [0] * 3
  assert runs['compiled_programs'].tolist() == [2] * 3


def test_a_folder_of_an_earlier_version(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full', 'linear'),
    shots=(1, 5, 0),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  for path in tmp_path.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    new = [
      (result, 'num_train'),
      (result, 'num_classes'),
      (result['cost'], 'feature_seconds'),
      (result['cost'], 'compiled_programs'),
      (result['phases'][0], 'reused_stages'),
    ]
    for place, name in new:
      del place[name]
    path.write_text(json.dumps(result))
  runs = report.read(tmp_path)
  assert (
    runs[
      [
        'num_train',
        'num_classes',
        'feature_seconds',
        'compiled_programs',
        'reused_stages',
        'reused_steps',
      ]
    ]
    .isna()
    .all(axis=None)
  )
  results = folder.load(tmp_path)
  assert not results.all_shots
  assert not len(numbers.reuse(results))
  assert 'all examples: of 3 methods' in report.write(tmp_path).read_text()


def test_read_sees_frozen_parameters_that_changed_in_an_early_phase(tmp_path, write_run):
  write_run(tmp_path, ('mnist', 'digits', 'lp_ft', 5, 0, 0.1), 0.9)
  path = next(tmp_path.glob('runs/*/result.json'))
  result = json.loads(path.read_text())
  result['phases'][0]['frozen_sha256_after'] = 'other'
  path.write_text(json.dumps(result))
  assert not report.read(tmp_path)['frozen_unchanged'].any()


def test_read_passes_over_unfinished_runs_and_stray_files(tmp_path, write_run):
  write_run(tmp_path, ('mnist', 'digits', 'full', 5, 0, 0.1), 0.9)
  (tmp_path / 'runs' / 'unfinished').mkdir()
  (tmp_path / 'runs' / '.DS_Store').write_text('')
  assert len(report.read(tmp_path)) == 1


def test_nulls_and_nan_of_a_diverged_run(tmp_path, write_run):
  write_run(tmp_path, ('mnist', 'digits', 'full', 5, 0, 0.1), math.nan, broken=True)
  path = next(tmp_path.glob('runs/*/result.json'))
  result = json.loads(path.read_text()) | {'val': None, 'source_sha256': None}
  result['cell']['source'] = None
  path.write_text(json.dumps(result))
  runs = report.read(tmp_path)
  assert runs['source'].tolist() == ['']
  assert runs['val_accuracy'].isna().all() and runs['test_accuracy'].isna().all()


def test_a_diverged_run_that_was_chosen_is_counted_and_said(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  run = tmp_path / 'runs' / 'mnist-digits-scratch-1shot-seed0-lr0.01'
  result = json.loads((run / 'result.json').read_text()) | {
    'status': 'diverged at step 7',
    'val': {'accuracy': None, 'loss': None, 'count': 300},
  }
  (run / 'result.json').write_text(json.dumps(result))
  (run / 'metrics.jsonl').write_text(
    '{"step": 20, "phase": 0, "loss": null, "grad_norm": null, "val_accuracy": null, "val_loss": '
    'null}\n'
  )
  results = folder.load(tmp_path)
  speed = numbers.speeds(results, 'scratch').set_index('method')
  assert numbers.means(results)['n'].tolist() == [2, 2]
  assert speed.loc['scratch', 'reached'] == 1
  assert speed.loc['full', 'reached'] == 2
  assert '1 chosen run diverged' in report.write(tmp_path).read_text()


def test_read_of_a_1000_runs(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    seeds=tuple(range(25)),
    methods=('scratch', 'full'),
    shots=(1, 2, 5, 10),
    rates=(1, 2, 3, 4, 5),
  )
  assert len(report.read(tmp_path)) == 1000


@pytest.mark.parametrize(
  'break_it, message',
  [
    (lambda path: path.write_text('{'), 'Cannot read .*result.json'),
    (lambda path: path.write_text('{}'), "no field 'cell'"),
    (lambda path: path.write_text('[]'), 'Cannot read'),
    (lambda path: path.write_bytes(b'\xff\xfe'), 'Cannot read'),
    (lambda path: path.unlink(), 'No finished run'),
  ],
)
def test_what_cannot_be_read_is_named(tmp_path, break_it, message, write_run):
  write_run(tmp_path, ('mnist', 'digits', 'full', 5, 0, 0.1), 0.9)
  break_it(next(tmp_path.glob('runs/*/result.json')))
  with pytest.raises(ValueError, match=message):
    report.read(tmp_path)


def test_no_folder_and_an_empty_one(tmp_path):
  with pytest.raises(ValueError, match='no such folder'):
    report.read(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='No finished run'):
    report.read(tmp_path)


def test_load_wants_study_json_and_keeps_the_order_of_the_config(study, tmp_path, write_run):
  results = folder.load(study)
  assert results.methods[:3] == ['scratch', 'full', 'freeze2']
  assert results.pairs == [
    ('mnist', 'digits'),
    ('mnist', 'textures'),
  ]
  write_run(tmp_path, ('mnist', 'digits', 'full', 5, 0, 0.1), 0.9)
  with pytest.raises(ValueError, match=r'No .*study\.json'):
    folder.load(tmp_path)
  (tmp_path / 'study.json').write_text('{"config": ')
  with pytest.raises(ValueError, match='Cannot read'):
    folder.load(tmp_path)
  (tmp_path / 'study.json').write_text('{"config": {"methods": [{"name": "full"}, "lora"]}}')
  assert folder.load(tmp_path).methods == ['full'] and folder.load(tmp_path).name == tmp_path.name


def test_load_knows_the_sources_and_what_all_is(tmp_path, make_study):
  make_study(
    tmp_path,
    sources=('a', 'b'),
    targets=('x',),
    methods=('scratch', 'probe_a'),
    shots=(5, 0),
    seeds=(0,),
    rates=(0.1,),
    diverged=False,
  )
  (tmp_path / 'sources' / 'a').mkdir(parents=True)
  path = tmp_path / 'sources' / 'a' / 'result.json'
  path.write_text('{"provenance": {"uri": "u"}}')
  results = folder.load(tmp_path)
  assert results.sources == {'a': {'provenance': {'uri': 'u'}}, 'b': {}}
  assert results.all_shots == {'x': 156} and results.solved == {'probe_a'}
  path.write_text('{')
  with pytest.raises(ValueError, match=r'Cannot read .*sources.a.result\.json'):
    folder.load(tmp_path)


FULL = ('mnist', 'digits', 'full', 5, 0, 0.1)


def test_a_result_that_changed_is_refused(tmp_path, write_run, sign):
  write_run(tmp_path, FULL, 0.9)
  sign(tmp_path)
  assert len(report.read(tmp_path)) == 1
  path = next(tmp_path.glob('runs/*/result.json'))
  whole = path.read_text()
  for old, new in [
    ('"accuracy": 0.9,', '"accuracy": 0.8,'),
    ('"chosen": true', '"chosen": false'),
    ('"seed": 0', '"seed": 1'),
    ('"status": "ok"', '"status": "oj"'),
    ('"sha256": "', '"sha256": "0'),
    ('"sha256":', '"sha257":'),
    ('"steps": 300', '"steps": 301'),
  ]:
    assert old in whole
    path.write_text(whole.replace(old, new, 1))
    with pytest.raises(
      ValueError, match=r'result\.json has changed since it was written.*Delete that run folder'
    ):
      report.read(tmp_path)


def test_no_flipped_byte_of_a_result_goes_unnoticed(tmp_path, write_run, sign):
  write_run(tmp_path, FULL, 0.9)
  sign(tmp_path)
  path = next(tmp_path.glob('runs/*/result.json'))
  whole, wanted = path.read_bytes(), json.loads(path.read_text())
  for place in range(0, len(whole), 7):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    try:
      same = json.loads(path.read_bytes()) == wanted  # blanks between fields mean nothing
    except ValueError:
      same = False
    if not same:
      with pytest.raises(ValueError, match='Cannot read|has changed'):
        report.read(tmp_path)


def test_a_source_that_changed_is_refused(tmp_path, make_study):
  make_study(
    tmp_path, targets=('digits',), methods=('full',), shots=(1,), seeds=(0,), rates=(0.01,)
  )
  source = {'test': {'accuracy': 0.9}, 'config': {'dataset': 'größe'}}
  text = json.dumps(source, sort_keys=True, ensure_ascii=False)
  source['sha256'] = hashlib.sha256(text.encode()).hexdigest()
  path = tmp_path / 'sources' / 'mnist' / 'result.json'
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps(source))
  assert folder.load(tmp_path).sources['mnist']['test'] == {'accuracy': 0.9}
  path.write_text(json.dumps(source).replace('0.9', '0.8'))
  with pytest.raises(ValueError, match='has changed since.*Delete that source folder'):
    folder.load(tmp_path)


def test_digests_are_of_utf8_and_of_any_writer(tmp_path, write_run, sign, change_runs):
  write_run(tmp_path, FULL, 0.9)
  change_runs(tmp_path, lambda result: result.update(cohort='größe', note=math.nan))
  sign(tmp_path)
  path = next(tmp_path.glob('runs/*/result.json'))
  path.write_text(json.dumps(json.loads(path.read_text()), indent=7, sort_keys=True))
  assert report.read(tmp_path)['cohort'].tolist() == ['größe']


@pytest.mark.parametrize('name', ['metrics.jsonl', 'predictions.npz'])
def test_another_file_than_the_run_wrote_is_refused(tmp_path, make_study, sign, predict, name):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  predict(tmp_path, lambda result: np.arange(20) < 15)
  sign(tmp_path)
  assert 'with test sampling' in report.summary(tmp_path, test_sampling=True)
  path = next(tmp_path.glob(f'runs/*/{name}'))
  path.write_bytes(path.read_bytes()[:-1] + b' ')
  with pytest.raises(
    ValueError, match=rf'{name} has changed since it was written.*Delete that run folder'
  ):
    report.summary(tmp_path, test_sampling=True)


@pytest.mark.parametrize(
  'name, content',
  [
    ('study.json', '{"config": {}, "plan": 3}'),
    ('study.json', '[1]'),
    ('study.json', '{"config": "x"}'),
    ('study.json', '{}'),
    ('study.json', '{"config": {}, "data": [1]}'),
    ('time.json', '{'),
    ('time.json', '[1]'),
    ('time.json', '[{"wall_seconds": "x"}]'),
    ('sources/mnist/result.json', '[]'),
    ('sources/mnist/result.json', '{'),
    ('subsets/digits.json', '[3]'),
    ('subsets/digits.json', '{"0": 1}'),
    ('runs/mnist-digits-full-1shot-seed0-lr0.01/metrics.jsonl', '[1]'),
    ('runs/mnist-digits-full-1shot-seed0-lr0.01/metrics.jsonl', '{"step": "x"}'),
    ('runs/mnist-digits-full-1shot-seed0-lr0.01/metrics.jsonl', '{"step": 1'),
    ('runs/mnist-digits-full-1shot-seed0-lr0.01/predictions.npz', 'PK'),
    ('runs/mnist-digits-full-1shot-seed0-lr0.01/result.json', '{"id": 1}'),
    ('runs/mnist-digits-full-1shot-seed0-lr0.01/result.json', 'null'),
  ],
)
def test_a_broken_file_is_named(tmp_path, make_study, name, content):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  path = tmp_path / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(content)
  with pytest.raises(ValueError) as caught:
    report.summary(tmp_path, test_sampling=True)
  assert f'Cannot read {path}' in str(caught.value) and '. ' in str(caught.value)


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path, write_run):
  write_run(tmp_path, FULL, 0.9)
  (tmp_path / 'study.json').mkdir()
  with pytest.raises(ValueError, match=r'Cannot read .*study\.json'):
    folder.load(tmp_path)


def test_accuracies_are_those_of_the_counts(tmp_path, write_run, change_runs):
  write_run(tmp_path, FULL, float(np.float32(541 / 599)))
  test = {'accuracy': float(np.float32(541 / 599)), 'loss': 0.3, 'count': 599}
  change_runs(tmp_path, lambda result: result.update(test=test))
  row = report.read(tmp_path).iloc[0]
  assert row['test_correct'] == 541 and row['test_accuracy'] == 541 / 599
  told = {'accuracy': 0.903, 'correct': 540, 'balanced_accuracy': 0.8}
  change_runs(tmp_path, lambda result: result.update(test=test | told))
  row = report.read(tmp_path).iloc[0]
  assert row['test_correct'] == 540
  assert row['test_accuracy'] == 540 / 599
  assert row['test_balanced_accuracy'] == 0.8
  # no share of 599
  change_runs(tmp_path, lambda result: result.update(test=test | {'accuracy': 0.5}))
  assert math.isnan(report.read(tmp_path)['test_correct'].iloc[0])


def test_new_fields_are_read(tmp_path, write_run, change_runs):
  write_run(tmp_path, FULL, 0.9)
  assert report.read(tmp_path)[['eval_seconds', 'test_balanced_accuracy']].isna().all(axis=None)

  def fill(result):
    result['cost'] |= {'eval_seconds': 0.5, 'features': 'read'}
    result['deterministic'] = True

  change_runs(tmp_path, fill)
  row = report.read(tmp_path).iloc[0]
  assert row['eval_seconds'] == 0.5 and row['features'] == 'read' and row['deterministic']


def test_whatever_the_locale(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
    claim='Größe → 数',
  )
  study = json.loads((tmp_path / 'study.json').read_text())
  study['data'] = {
    'mnist/digits': {
      'class_names': ['null', 'ätt'],
      'notes': ['Ein Bild fehlt: ü.png.'],
      'num_examples': {},
    }
  }
  (tmp_path / 'study.json').write_text(json.dumps(study, ensure_ascii=False), encoding='utf-8')
  env = {**os.environ, 'LC_ALL': 'C', 'LANG': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
  env.pop('PYTHONIOENCODING', None)
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.report', f'--workdir={tmp_path}'],
    cwd=pathlib.Path(__file__).parents[2],
    env=env,
    capture_output=True,
  )
  assert done.returncode == 0, done.stderr.decode()
  assert 'mnist → digits' in done.stdout.decode('utf-8') and 'ü.png' in done.stdout.decode('utf-8')
  page = (tmp_path / 'report.html').read_text(encoding='utf-8')
  assert 'Größe → 数' in page and 'ätt' in page


def test_metrics(study):
  lines = folder.read_metrics(study, ['mnist-digits-full-1shot-seed0-lr0.003', 'not-there'])
  assert lines['step'].tolist() == [20, 40, 60, 80, 100]
  assert lines['val_accuracy'].is_monotonic_increasing


def test_report_imports_no_jax(study):
  code = (
    f'import sys; from tlx import report; report.read({str(study)!r}); assert "matplotlib" not in '
    'sys.modules and "scipy" not in sys.modules, "read must stay fast"; '
    f'print(len(report.summary({str(study)!r}))); from tlx.report import page; assert not {{"jax", '
    f'"flax", "optax", "tensorflow"}} & set(sys.modules)'
  )
  root = pathlib.Path(__file__).parents[2]
  subprocess.run([sys.executable, '-c', code], check=True, cwd=root, stdout=subprocess.DEVNULL)
