"""What a study does not let pass: stale features, changed or damaged files, no numbers."""

import json
import pathlib
import shutil
import threading

import numpy as np
import pytest
from etils import epath

from tests.study import tiny
from tests.study.test_run import numbers
from tlx import checkpoint, report
from tlx.backbones import cnn
from tlx.study import pair as pairs
from tlx.study import record, run, store
from tlx.study.cells import cells_of
from tlx.train import exact, feed, fit
from tlx.types import Cell, Variables


@pytest.fixture
def config(data_dir):
  """The tiny study with one method and one rate."""
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  made.methods = {'probe': {'phases': ({'tune': 'head'},)}}
  made.grid.learning_rate, made.shots, made.baseline = (1e-2,), (4,), ''
  return made


@pytest.fixture
def finished(config, tmp_path):
  return pathlib.Path(run.run(config, tmp_path / 'study'))


def with_batch_norm(config):
  config.sources.turned.backbone = {
    'name': 'cnn',
    'channels': (4, 4),
    'norm': 'batch',
  }
  config.methods = {'thaw': {'phases': ({'tune': 'head', 'norm': 'live'}, {'tune': 'head'})}}
  return config


def test_statistics_that_moved_are_not_the_sources(config, tmp_path):
  """A phase after one with live statistics reads no features of the old ones, and the stored run
  gives its predictions.
  """
  from tlx import datasets

  found = {}
  for reuse in (True, False):
    made = with_batch_norm(config)
    made.reuse = reuse
    workdir = run.run(made, tmp_path / str(reuse))
    found[reuse] = (
      report.read(workdir).sort_values('id')[['id', 'val_loss', 'test_loss']].to_numpy().tolist()
    )
  for on, off in zip(found[True], found[False], strict=True):
    assert on[0] == off[0] and on[1:] == pytest.approx(off[1:], rel=1e-4)
  name = found[True][0][0]
  params, stats = store.params(tmp_path / 'True', name)
  data = datasets.load(
    'uci_digits',
    8,
    1,
    val_fraction=0.22,
    test_fraction=0.3,
    data_dir=config.data_dir,
  )
  inputs = (data.test.inputs / np.float32(255) - np.float32(0.3)) / np.float32(0.4)
  logits, _ = cnn.build(10, channels=(4, 4), norm='batch').apply(
    Variables(params, stats), inputs, train=False
  )
  np.testing.assert_allclose(
    logits,
    np.load(tmp_path / 'True' / 'runs' / name / 'predictions.npz')['logits'],
    atol=1e-4,
  )


def test_live_statistics_of_frozen_layers_show_in_their_digest(config, tmp_path):
  table = report.read(run.run(with_batch_norm(config), tmp_path))
  first, second = json.loads((tmp_path / 'runs' / table.id[0] / 'result.json').read_text())[
    'phases'
  ]
  assert (
    second['frozen_sha256_before'] == second['frozen_sha256_after'] != first['frozen_sha256_after']
  )


def outcomes(**settings):
  """{cell: outcome} of a size; a setting is its rate's list of (accuracy, loss, status) by seed."""
  found = {}
  for rate, runs in settings.items():
    for seed, (accuracy, loss, status) in enumerate(runs):
      cell = Cell('s', 't', 'm', 1, seed, float(rate.removeprefix('lr')), 0.0)
      found[cell] = {
        'status': status,
        'val': {
          'accuracy': accuracy,
          'loss': loss,
          'count': 10,
          'correct': round(10 * accuracy),
        },
      }
  return found


def chosen_rates(found):
  return {cell.learning_rate for cell in record.choose(found, ('accuracy', +1))}


def test_a_setting_is_chosen_by_its_mean_and_never_without_finite_metrics():
  good, nan = [(0.5, 1.0, 'ok')] * 2, float('nan')
  assert chosen_rates(outcomes(lr1=good, lr2=[(0.9, 1.0, 'ok'), (0.2, 1.0, 'ok')])) == {2.0}
  assert chosen_rates(outcomes(lr1=good, lr2=[(0.95, 1.0, 'ok'), (0.0, 1.0, 'ok')])) == {
    1.0
  }  # not by the best seed
  assert chosen_rates(
    outcomes(lr1=good, lr2=[(0.9, 1.0, 'ok'), (0.9, 1.0, 'diverged at step 3')])
  ) == {1.0}
  assert chosen_rates(outcomes(lr1=good, lr2=[(0.9, None, 'not finite after step 3')] * 2)) == {1.0}
  assert chosen_rates(outcomes(lr1=[(0.9, nan, 'not finite after step 3')] * 2)) == set()
  assert chosen_rates(outcomes(lr1=[(0.5, 1.0, 'diverged at step 3')] * 2)) == {1.0}
  assert chosen_rates(outcomes(lr1=[(0.5, 2.0, 'ok')] * 2, lr2=good)) == {
    2.0
  }  # a tie goes to the lower loss


@pytest.mark.parametrize('rate, status', [(1e38, 'not finite after step 1'), (1e-2, 'ok')])
def test_the_status_follows_the_final_metrics(config, tmp_path, rate, status):
  config.grid.learning_rate = (rate,)
  config.methods = {
    'full': {
      'phases': (
        {
          'tune': 'all',
          'steps': 1,
          'optimizer': 'sgd',
          'schedule': 'constant',
          'evaluations': 1,
        },
      )
    }
  }
  table = report.read(run.run(config, tmp_path))
  assert set(table.status) == {status} and set(table.chosen) == {status == 'ok'}


def test_a_probe_that_is_not_solved_is_not_ok(config, tmp_path, monkeypatch):
  monkeypatch.setattr(exact, 'TOLERANCE', 0.0)
  monkeypatch.setattr(exact, 'MAX_STEPS', 1)
  exact.solver_program.cache_clear()
  config.methods = {
    'exact': {
      'phases': ({'tune': 'head', 'solver': 'logistic'},),
      'grid': {'weight_decay': (0.1,)},
    }
  }
  try:
    assert set(report.read(run.run(config, tmp_path)).status) == {'not solved'}
  finally:
    exact.solver_program.cache_clear()


def delete(path):
  shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
  'part',
  [
    'cohorts/*',
    'cohorts/*/checkpoints/*',
    'sources/turned',
    'sources/turned/checkpoints/*',
    'sources/turned/result.json',
    'runs/*-seed0-*',
    'runs/*-seed1-*/result.json',
    'subsets/*',
    'study.json',
    'time.json',
  ],
)
def test_what_is_deleted_of_a_finished_study_is_made_again(config, finished, part):
  before, names = (
    numbers(finished),
    {str(path.relative_to(finished)) for path in finished.rglob('*.json')},
  )
  (damaged,) = finished.glob(part)
  delete(damaged)
  run.run(config, finished)
  assert numbers(finished) == before
  assert {str(path.relative_to(finished)) for path in finished.rglob('*.json')} == names
  for name in before:
    store.params(finished, name)


def test_a_damaged_checkpoint_says_what_to_delete_and_that_repairs_it(config, finished):
  for (folder,) in (
    finished.glob('cohorts/*/checkpoints/*'),
    finished.glob('sources/turned/checkpoints/*'),
  ):
    before = numbers(finished)
    meta = json.loads((folder / 'meta.json').read_text())
    meta['arrays_sha256'] = '0' * 64
    (folder / 'meta.json').write_text(json.dumps(checkpoint.sealed(meta)))
    with pytest.raises(ValueError, match='Delete .* and run the same command') as caught:
      store.params(finished, next(iter(before)))
    assert str(folder) in str(caught.value)
    shutil.rmtree(folder)
    run.run(config, finished)
    assert numbers(finished) == before
    store.params(finished, next(iter(before)))


def test_an_edited_history_is_noticed(config, finished):
  """It decides what is chosen."""
  (meta,) = finished.glob('cohorts/*/checkpoints/*/meta.json')
  text = meta.read_text()
  content = json.loads(text)
  content['history'][-1]['val_accuracy'][0] = 0.97
  meta.write_text(json.dumps(content))
  shutil.rmtree(next(finished.glob('runs/*')))
  with pytest.raises(ValueError, match='was changed after it was written'):
    run.run(config, finished)


def test_a_file_without_a_digest_is_not_taken_for_a_changed_one_alone(config, finished):
  """Folders of earlier versions have none."""
  content = json.loads((finished / 'study.json').read_text())
  content.pop('sha256')
  (finished / 'study.json').write_text(json.dumps(content))
  with pytest.raises(ValueError, match='an earlier version wrote it, or it was changed.*Delete'):
    run.run(config, finished)


def test_every_file_of_a_run_has_its_digest(finished):
  for folder in (finished / 'runs').iterdir():
    result = checkpoint.unsealed(epath.Path(folder / 'result.json'))
    assert set(result['files']) | {'result.json'} == {file.name for file in folder.iterdir()}
    predictions = np.load(folder / 'predictions.npz')
    assert predictions['class_names'].tolist() == [str(i) for i in range(10)]
    right = predictions['logits'].argmax(-1) == predictions['labels']
    assert result['test']['correct'] == right.sum() and result['test']['accuracy'] == right.mean()
    recall = [right[predictions['labels'] == c].mean() for c in range(10)]
    assert result['test']['recall'] == recall and result['test'][
      'balanced_accuracy'
    ] == pytest.approx(np.mean(recall))


def test_parameters_that_come_out_otherwise_are_not_put_under_old_results(
  config, finished, monkeypatch
):
  delete(next(finished.glob('cohorts/*')))
  order = feed.order

  def another(examples, num_steps, batch_size, key):
    return order(examples, num_steps, batch_size, (key[0] + 7, *key[1:]))

  monkeypatch.setattr(feed, 'order', another)
  with pytest.raises(ValueError, match='cannot be made again as it was'):
    run.run(config, finished)


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda c: c.mesh.update({'run': 3}), 'config.mesh asks for'),
    (lambda c: c.update({'shots': (500,)}), 'config.shots'),
    (
      lambda c: c.sources.turned.update({'dataset': '', 'weights': 'nowhere.npz', 'train': {}}),
      'nowhere.npz',
    ),
  ],
)
def test_nothing_is_written_before_all_is_known_to_be_good(config, tmp_path, change, words):
  change(config)
  with pytest.raises(ValueError, match=words):
    run.run(config, tmp_path / 'never')
  assert not (tmp_path / 'never').exists()


@pytest.mark.parametrize('name', ['a[1]b', 'a*', 'what?', 'back\\slash'])
def test_folders_that_checkpoints_would_be_lost_in_are_refused(config, tmp_path, name):
  with pytest.raises(ValueError, match='Take another name'):
    run.run(config, tmp_path / name)


def test_a_workdir_that_cannot_be_one_is_refused(config, tmp_path):
  (tmp_path / 'file').write_text('')
  for workdir, words in (
    (tmp_path / 'file', 'is a file'),
    (tmp_path / ('x' * 5000), 'cannot be used'),
  ):
    with pytest.raises(ValueError, match=words):
      run.run(config, workdir)


def test_data_that_changed_is_refused_with_what_changed(config, tmp_path):
  from PIL import Image

  random = np.random.default_rng(0)

  def add(numbers):
    for name in ('cat', 'dog'):
      (tmp_path / 'data' / name).mkdir(parents=True, exist_ok=True)
      for i in numbers:
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(
          tmp_path / 'data' / name / f'{i}.png'
        )

  add(range(20))
  config.targets = {
    'pets': {
      'dataset': f'folder:{tmp_path / "data"}',
      'val_fraction': 0.2,
      'test_fraction': 0.3,
    }
  }
  run.run(config, tmp_path / 'study')
  described = json.loads((tmp_path / 'study' / 'study.json').read_text())['data']['turned/pets']
  assert (
    described['class_names'] == ['cat', 'dog'] and sum(described['num_examples'].values()) == 40
  )
  add(range(20, 40))
  with pytest.raises(
    ValueError,
    match=r'(?s)The data changed.*turned/pets.num_examples.test: \d+ -> \d+',
  ):
    run.run(config, tmp_path / 'study')


def test_other_versions_are_said_once(config, finished, capsys):
  path = next(finished.glob('runs/*/result.json'))
  result = json.loads(path.read_text())
  result['versions']['jax'] = '0.1.2'
  path.write_text(json.dumps(checkpoint.sealed(result)))
  run.run(config, finished)
  assert capsys.readouterr().out.count('(1 with jax 0.1.2)') == 1


def test_broken_files_are_named(config, finished):
  for name in ('study.json', 'time.json'):
    (finished / name).write_text('{')
    with pytest.raises(ValueError, match=name):
      run.run(config, finished)
    (finished / name).unlink()


def test_a_study_runs_in_a_thread(config, tmp_path):
  errors = []

  def work():
    try:
      run.run(config, tmp_path)
    except BaseException as error:
      errors.append(error)

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert not errors and len(report.read(tmp_path)) == 2


def test_two_writers_of_one_feature_folder_do_not_mix(config, tmp_path, monkeypatch):
  """A reader sees whole activations or none; what is there stays while another process writes the
  same.
  """
  from tlx.train import prefix

  config.feature_dir = str(tmp_path / 'features')
  seen, finish = [], prefix._Draft.finish

  def look(draft, about):
    seen.append(prefix._read(draft.place))  # nothing, until it is whole
    return finish(draft, about)

  monkeypatch.setattr(prefix._Draft, 'finish', look)
  run.run(config, tmp_path / 'one')
  assert seen and all(found is None for found in seen)
  kept = {path.name: (path / '0.npy').read_bytes() for path in (tmp_path / 'features').iterdir()}
  draft = prefix._Draft(tmp_path / 'features' / next(iter(kept)), np.zeros((1, 12), np.float32), 3)
  assert prefix._read(draft.place) is not None
  finish(draft, {})
  assert {
    path.name: (path / '0.npy').read_bytes() for path in (tmp_path / 'features').iterdir()
  } == kept


def test_an_exact_cohort_heeds_signals_between_its_solutions(config, tmp_path, monkeypatch):
  config.methods = {
    'exact': {
      'phases': ({'tune': 'head', 'solver': 'ridge'},),
      'grid': {'weight_decay': (0.1,)},
    }
  }
  config.seeds = tuple(range(6))
  solved = []
  original = exact.solver_program

  def counted(*arguments):
    solved.append(0)
    return original(*arguments)

  monkeypatch.setattr(exact, 'solver_program', counted)
  with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
    patch.setattr(fit, '_heed', _interrupt)
    run.run(config, tmp_path)
  assert len(solved) == 1
  table = report.read(run.run(config, tmp_path))
  assert len(table) == 6 and set(table.status) == {'ok'}


def _interrupt(interrupted):
  raise KeyboardInterrupt(15)


def test_matched_validation_looks_at_no_more_than_a_run_trains_on(config, tmp_path):
  config.validation, config.shots = 'matched', (1, 4)
  table = report.read(run.run(config, tmp_path))
  counts = {
    shots: {
      json.loads((tmp_path / 'runs' / name / 'result.json').read_text())['val']['count']
      for name in part.id
    }
    for shots, part in table.groupby('shots')
  }
  assert counts == {1: {10}, 4: {40}}


def test_matched_rows_are_balanced_and_a_runs_metrics_are_those_of_its_rows(
  config, data_dir, tmp_path
):
  from tlx.study import config as configs

  config.validation, config.shots = 'matched', (1, 4)
  study = configs.resolve(config)
  pair = pairs.Pair(study, 'turned', 'digits', None)
  cells = cells_of(study)
  for cell in cells:
    labels = pair.data.val.labels[pair.looked_at(cell)]
    assert np.bincount(labels, minlength=10).tolist() == [cell.shots] * 10
  small, large = (set(pair.looked_at(cell._replace(seed=0))) for cell in (cells[0], cells[-1]))
  assert small < large
  assert set(pair.looked_at(cells[0])) != set(pair.looked_at(cells[0]._replace(seed=1)))


def test_matched_rows_of_a_rare_class_are_all_it_has(config, data_dir):
  from tlx.study import config as configs

  config.validation, config.shots = 'matched', (4,)
  study = configs.resolve(config)
  pair = pairs.Pair(study, 'turned', 'digits', None)
  val = pair.data.val
  rare = np.flatnonzero(val.labels == 3)[1:]
  pair.data = pair.data._replace(val=val.take(np.setdiff1d(np.arange(len(val.labels)), rare)))
  labels = pair.data.val.labels[pair.looked_at(cells_of(study)[0])]
  assert np.bincount(labels, minlength=10).tolist() == [4, 4, 4, 1, 4, 4, 4, 4, 4, 4]


def test_the_kinds_of_time_sum_to_the_wall(finished):
  (times,) = json.loads((finished / 'time.json').read_text())
  kinds = {name: seconds for name, seconds in times.items() if name != 'wall_seconds'}
  assert (
    sum(kinds.values()) == pytest.approx(times['wall_seconds'], abs=0.01)
    and min(kinds.values()) >= 0
  )
  costs = [json.loads(path.read_text())['cost'] for path in finished.glob('runs/*/result.json')]
  for name in ('train', 'feature'):
    of_source = times['source_seconds'] if name == 'train' else 0.0
    assert (
      sum(cost[f'{name}_seconds'] for cost in costs) <= times[f'{name}_seconds'] + of_source + 0.01
    )
  assert {cost['features'] for cost in costs} == {'computed'}


def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path, monkeypatch):
  import errno

  import orbax.checkpoint as ocp

  folder, tree = epath.Path(tmp_path), {'a': np.arange(3.0)}
  checkpoint.save(folder, 1, tree, {})

  def full(*_):
    raise ValueError('RESOURCE_EXHAUSTED: no space')

  monkeypatch.setattr(ocp.Checkpointer, 'save', full)
  with pytest.raises(OSError, match='No space left') as caught:
    checkpoint.save(folder, 2, tree, {})
  assert caught.value.errno == errno.ENOSPC
  assert checkpoint.steps(folder) == [1] and not (folder / '2').exists()
  np.testing.assert_array_equal(checkpoint.load(folder)['a'], tree['a'])


@pytest.mark.parametrize(
  'file, change',
  [
    ('study.json', lambda c: c['config'].update(baseline='probe')),
    ('study.json', lambda c: c['plan'].update(runs=c['plan']['runs'][:1])),
    ('subsets/digits.json', lambda c: c['0'].update({'4': c['1']['4']})),
  ],
)
def test_the_report_reads_no_file_that_was_changed(finished, file, change):
  content = json.loads((finished / file).read_text())
  change(content)
  (finished / file).write_text(json.dumps(content))
  with pytest.raises(ValueError, match=f'(?s){file}.*(changed|digest|sha256).*Delete'):
    report.summary(finished)
