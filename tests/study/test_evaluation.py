"""Evaluators in a study: what they see, one pass for all, and a study that grows by one."""

import json

import numpy as np
import pytest

from tests.study import tiny
from tlx import checkpoint, report, tree
from tlx.plug import plug
from tlx.study import dry_run, run, store
from tlx.train import fit


@pytest.fixture
def config(data_dir):
  made = tiny.get_config(steps='20')
  made.data_dir = str(data_dir)
  made.shots = (4,)
  made.grid.learning_rate = (1e-2,)
  made.methods = {
    'scratch': {'init': 'random'},
    'probe': {'phases': ({'tune': 'head'},)},
    'full': {},
    'lora': {
      'added': {'name': 'lora', 'rank': 2, 'at': '.'},
      'phases': ({'tune': 'added'},),
    },
    'views': {'phases': ({'tune': 'head', 'augment': {'shift': 1}, 'views': 2},)},
    'after': {'head_after': 'dense1'},
  }
  return made


def results(workdir):
  found = {}
  for path in workdir.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    found[result['cell']['method'], result['cell']['seed']] = result
  return found


def digests(workdir):
  return {
    path: (path.stat().st_mtime_ns, path.stat().st_size)
    for path in workdir.glob('cohorts/**/*')
    if path.is_file()
  }


EVALUATORS = ('calibration', 'f1', 'drift', 'forgetting', 'knn')


def keep(config, *methods):
  config.methods = {name: config.methods[name].to_dict() for name in methods}
  config.baseline = ''


def test_a_finished_study_grows_by_evaluators(config, tmp_path, monkeypatch):
  """The study run with them at once gives the same; nothing is trained for those added later."""
  passes = []
  real = fit.predict

  def spied(job, fitted, runs, data):
    passes.append(len(runs))
    return real(job, fitted, runs, data)

  monkeypatch.setattr(fit, 'predict', spied)
  keep(config, 'probe', 'full')
  grown, whole = tmp_path / 'grown', tmp_path / 'whole'
  run.run(config, grown)
  before, files = results(grown), digests(grown)
  assert all(result['evaluators'] == [] for result in before.values())
  config.evaluators = EVALUATORS
  passes.clear()
  run.run(config, grown)
  after = results(grown)
  assert digests(grown) == files  # no checkpoint was written
  # of both seeds together: the test set and, for the temperature, validation
  assert passes == [2] * 2 * len(config.methods)
  for place, result in after.items():
    assert result['val'] == before[place]['val'] and result['phases'] == before[place]['phases']
    assert {'ece', 'macro_f1', 'knn_accuracy'} <= result['test'].keys()
    for column, value in before[place]['test'].items():
      assert result['test'][column] == value
    assert result['evaluators'] == [{'name': name} for name in EVALUATORS]
  passes.clear()
  run.run(config, grown)
  assert not passes  # there is nothing left to do
  run.run(config, whole)
  assert {place: result['test'] for place, result in results(whole).items()} == {
    place: result['test'] for place, result in after.items()
  }


def test_columns_are_those_of_the_run(config, tmp_path):
  """What frozen stages do not change, and what is made again from parameters and predictions."""
  config.seeds, config.evaluators, workdir = (0,), EVALUATORS, tmp_path
  keep(config, 'scratch', 'probe', 'lora', 'after')
  found = results(run.run(config, workdir))
  source = json.loads((workdir / 'sources' / 'turned' / 'result.json').read_text())
  for (method, _), result in found.items():
    test = result['test']
    predictions = np.load(workdir / 'runs' / result['id'] / 'predictions.npz')
    logits, labels = predictions['logits'].astype(float), predictions['labels']
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    assert test['nll'] == pytest.approx(-logs[range(len(labels)), labels].mean())
    assert test['nll'] == pytest.approx(test['loss'], rel=1e-4)
    if method == 'scratch':
      assert not {'source_accuracy', 'l2_dense1'} & test.keys()
    elif method == 'after':
      assert 'source_accuracy' not in test and test['l2_dense1'] > 0 < test['cka_dense1'] < 1
    elif method == 'probe':
      assert test['cka_dense1'] == pytest.approx(1) and test['l2_dense2'] == 0
      assert test['source_accuracy'] == pytest.approx(source['test']['accuracy'], abs=1e-6)
      assert test['forgotten_accuracy'] == 0
    else:
      assert test['cka_dense1'] < 0.9999 and 'forgotten_accuracy' in test
      params, stats = store.params(workdir, result['id'])
      started, _ = store.trained(workdir / 'sources' / 'turned' / 'checkpoints', 0)
      moved = {
        name: np.asarray(params['dense1']['linear'][name]) - started['dense1']['linear'][name]
        for name in ('kernel', 'bias')
      }
      distance = np.sqrt(sum((leaf.astype(float) ** 2).sum() for leaf in moved.values()))
      assert test['l2_dense1'] == pytest.approx(distance, abs=1e-6)
      assert distance == 0 and stats == {}  # what is added is no distance from the source
  runs = report.read(workdir)
  assert runs['test_ece'].notna().all() and 'test_reliability' not in runs


def test_parts_are_those_of_the_run(config, tmp_path, monkeypatch):
  """Train is the run's own examples, from stored ones too; other inputs go through all stages."""
  seen, frozen = [], []

  def evaluate(finished):
    train, test = finished.data('train'), finished.data('test')
    assert len(train.targets) == len(train.inputs) == 40
    assert finished.features('train').shape[0] == 40
    kept = finished.predict('train')['logits']
    np.testing.assert_allclose(finished.predict(train.inputs)['logits'], kept, atol=1e-5)
    again = finished.predict(test.inputs)['logits']
    np.testing.assert_allclose(again, finished.predict('test')['logits'], atol=1e-5)
    stage = finished.stages[0]
    first = finished.by_stage('test', (stage,))[stage]
    assert first.shape == (len(test.targets), 16)
    ours, theirs = (finished.by_stage('train', (stage,), which)[stage] for which in (False, True))
    if tree.sha256(finished.params[stage]) == tree.sha256(finished.source_params[stage]):
      frozen.append(stage)
      np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)
    last = finished.by_stage('test', finished.stages)[finished.stages[-1]]
    np.testing.assert_allclose(last, finished.features('test'), rtol=1e-6)
    seen.append((np.bincount(train.targets).tolist(), train.inputs.tobytes()))
    return {'seen': 1.0}

  monkeypatch.setattr(plug('evaluators', 'f1'), 'evaluate', evaluate)
  config.evaluators = ('f1',)
  keep(config, 'probe', 'full', 'views')
  run.run(config, tmp_path)
  assert len(frozen) == 4  # of the probe and the one on views
  assert len(seen) == 6 and len({inputs for _, inputs in seen}) == 2  # by seed
  assert all(counts == [4] * 10 for counts, _ in seen)
  for result in results(tmp_path).values():
    assert result['test']['seen'] == 1.0


def change(**fields):
  return lambda config: config.update(fields)


@pytest.mark.parametrize(
  'changes, words',
  [
    (
      change(evaluators=('calibraton',)),
      r"evaluators\[0\].*Did you mean 'calibration'",
    ),
    (
      change(evaluators=('f1', {'name': 'top_k', 'kk': 5})),
      r"evaluators\[1\].*'top_k'.*kk",
    ),
    (
      change(evaluators=('f1', {'name': 'top_k', 'k': 10})),
      r'evaluators\[1\]: top_k wants',
    ),
    (change(evaluators=('ood',)), r'evaluators\[0\].*dataset'),
    (change(evaluators=(7,)), r'evaluators\[0\]: wants a name'),
  ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_runs(config, changes, words):
  changes(config)
  with pytest.raises(ValueError, match=words):
    dry_run.describe(config)
  with pytest.raises(ValueError, match='takes a sequence of names or dicts'):
    dry_run.describe({**config.to_dict(), 'evaluators': 'calibration'})


def test_two_evaluators_of_one_column_are_refused(config, tmp_path, monkeypatch):
  config.evaluators = ('f1', 'auroc')
  keep(config, 'probe')
  monkeypatch.setattr(plug('evaluators', 'auroc'), 'evaluate', lambda finished: {'macro_f1': 1.0})
  with pytest.raises(ValueError, match="'auroc' gives the column 'macro_f1'"):
    run.run(config, tmp_path / 'twice')
  monkeypatch.setattr(plug('evaluators', 'auroc'), 'evaluate', lambda finished: {'loss': 1.0})
  with pytest.raises(ValueError, match="the column 'loss' is one of the task already"):
    run.run(config, tmp_path / 'task')


def test_barriers_of_a_grown_study_are_those_of_a_fresh_one(config, tmp_path):
  """Seeds that come between two others are their neighbours from then on."""
  config.evaluators = ({'name': 'barrier', 'points': 3},)
  keep(config, 'scratch')
  config.baseline = ''

  def lines(folder, seeds):
    config.seeds = seeds
    table = report.read(run.run(config, folder)).sort_values('seed')
    table = table[table.chosen]
    written = [folder / 'runs' / name / 'result.json' for name in table.id]
    tests = [checkpoint.read_json(path)['test'] for path in written]
    times = [path.stat().st_mtime_ns for path in written]
    return [(one.get('line_seeds'), one.get('loss_barrier')) for one in tests], times

  first, _ = lines(tmp_path / 'grown', (1, 3))
  assert [seeds for seeds, _ in first] == [None, [1, 3]]
  grown, before = lines(tmp_path / 'grown', (0, 1, 2, 3))
  fresh, _ = lines(tmp_path / 'fresh', (0, 1, 2, 3))
  assert [seeds for seeds, _ in grown] == [None, [0, 1], [1, 2], [2, 3]]
  assert [seeds for seeds, _ in fresh] == [seeds for seeds, _ in grown]
  np.testing.assert_allclose([b for _, b in grown[1:]], [b for _, b in fresh[1:]], rtol=1e-5)
  assert lines(tmp_path / 'grown', (0, 1, 2, 3)) == (grown, before)  # nothing is done again


def test_the_last_step_is_scored_beside_the_best(config, tmp_path):
  """Both are in the run's result and in the table, and the report says how they differ."""
  config.train.keep = {'name': 'soup', 'top': 2}
  config.train.evaluations = 4
  config.methods = {'full': {}}
  config.baseline = ''
  folder = run.run(config, tmp_path / 'study')
  runs = report.read(folder)
  chosen = runs[runs['chosen']]
  assert (chosen['val_accuracy'] >= chosen['last_val_accuracy']).all()
  assert chosen['last_test_accuracy'].notna().all()
  others = 0
  for one in chosen.to_dict('records'):
    written = checkpoint.read_json(folder / 'runs' / one['id'] / 'result.json')
    assert set(written['kept_steps']) <= {5, 10, 15, 20}
    same = written['kept_steps'] == [20]
    assert not same or one['test_accuracy'] == one['last_test_accuracy']
    others += not same
  told = f'{others} of {len(chosen)} chosen runs ended with other weights than their last step'
  assert told in report.summary(folder)
