"""The report of a task with a score of its own: less may be better, and numbers are plain."""

import json
import math

import pytest

from tlx import report
from tlx.report import cautions, figures, findings, folder, layers, metrics, numbers, tables


def of_error(folder_, target=''):
  """Makes every run of a target one of a task that is scored by `error`, 1 - its accuracy."""

  def turned(scores):
    return scores and {'error': 1 - scores['accuracy'], 'loss': scores['loss']}

  for path in folder_.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    if target in result['cell']['target']:
      change = {'val': turned(result['val']), 'test': turned(result['test'])}
      path.write_text(json.dumps(result | change | {'select': ['error', -1]}))
      lines = [json.loads(line) for line in (path.parent / 'metrics.jsonl').open()]
      for line in lines:
        line['val_error'] = 1 - line.pop('val_accuracy')
      text = ''.join(json.dumps(line) + '\n' for line in lines)
      (path.parent / 'metrics.jsonl').write_text(text)


OPTIONS = dict(
  targets=('near', 'far'),
  methods=('scratch', 'full', 'freeze2', 'linear', 'lp_ft'),
  shots=(1, 5, 20),
  rates=(0.003,),
  diverged=False,
)


@pytest.fixture(scope='module')
def both(tmp_path_factory, make_study):
  """(a study of accuracies, the same study as one of errors); classes are not known."""
  found = []
  for name in ('accuracy', 'error'):
    place = make_study(tmp_path_factory.mktemp(name), **OPTIONS)
    for path in place.glob('runs/*/result.json'):
      path.write_text(json.dumps(json.loads(path.read_text()) | {'num_classes': None}))
    if name == 'error':
      of_error(place)
    found.append(folder.load(place))
  return found


def test_an_error_finds_what_the_accuracy_finds(both):
  """All that is compared is the same, but for the sign of differences."""
  _, less = both
  assert less.metrics['near'] == metrics.of('error', -1) and not less.metrics['near'].share
  ours, theirs = (numbers.means(results) for results in both)
  assert (ours['mean'] + theirs['mean']).tolist() == pytest.approx([1.0] * len(ours))
  ours, theirs = (numbers.differences(results, 'scratch') for results in both)
  assert ours['difference'].tolist() == pytest.approx(
    (-theirs['difference']).tolist(), abs=1e-5
  )  # the other is a count
  assert ours['low'].tolist() == pytest.approx(
    (-theirs['high']).tolist(), abs=1e-5
  )  # the other is a count
  for column in ('wins', 'ties', 'losses', 'n'):
    assert ours[column].tolist() == theirs[column].tolist()
  turned = {'higher': 'lower', 'lower': 'higher', 'not shown': 'not shown', '': ''}
  assert ours['verdict'].tolist() == [turned[verdict] for verdict in theirs['verdict']]
  assert {'higher', 'lower'} <= set(ours['verdict'])
  for made, column in (
    (numbers.multipliers, 'multiplier'),
    (numbers.speeds, 'median_steps'),
  ):
    ours, theirs = (made(results, 'scratch')[column].tolist() for results in both)
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert any(math.isfinite(value) and value != 1 for value in ours)
  ours, theirs = (layers.depths(results) for results in both)
  assert ours['best'].tolist() == theirs['best'].tolist() and ours['best'].any()
  ours, theirs = (numbers.across_targets(results, 'scratch') for results in both)
  improvement = 'probability_of_improvement'
  assert ours[improvement].tolist() == pytest.approx(theirs[improvement].tolist(), nan_ok=True)
  assert ours['iqm'].tolist() == pytest.approx((1 - theirs['iqm']).tolist())


def test_the_same_methods_are_named_best_and_the_same_gains_counted(both):
  ours, theirs = (findings.sentences(results) for results in both)
  for place in ours:
    for one, other in zip(ours[place], theirs[place]):
      if 'best on validation' in one:
        assert one.split(' is best')[0] == other.split(' is best')[0]
        assert 'with error of 0.' in other and '%' not in other.split(';')[0]
      if 'comparisons' in one:
        assert one.split(' gain')[0] == other.split(' gain')[0]
        assert '95% interval below 0' in other
        assert other.count('(+') == one.count('(−') and 'points' not in other
  assert any('Negative transfer' in line for line in theirs['mnist → far'])


def test_tables_say_the_unit_and_the_direction(both):
  made = {table.name: table for table in tables.make(both[1])}
  scores = made['error-mnist-near']
  assert scores.title == 'Test error, less is better, mnist → near, by examples per class'
  assert 'Guessing' not in scores.note and scores.shown['1'].str.match(r'0\.\d+ ± 0\.\d+').all()
  note = made['differences-mnist-near'].note
  assert note.startswith('Test error (less is better: below 0 is an improvement), same seed')
  assert 'validation error of scratch' in made['speed-mnist-near'].note
  assert 'from the first of these on' in made['speed-mnist-near'].note
  assert not {'recall-mnist-near', 'balanced-mnist-near', 'chance'} & made.keys()


def test_no_word_of_accuracy_is_left(both):
  path = report.write(both[1].workdir, test_sampling=True)
  page = path.read_text()
  assert 'ccurac' not in page and 'Guessing' not in page
  assert '<h2>Error</h2>' in page and 'Error is a plain number: less is better.' in page
  names = {drawing.stem for drawing in (path.parent / 'figures').iterdir()}
  assert names == {'error', 'targets', 'freezing', 'parameters', 'seconds', 'time', 'learning'}


def test_two_tasks_in_one_study(tmp_path, make_study, monkeypatch):
  kept = []
  monkeypatch.setattr(figures, 'render', lambda figure: kept.append(figure) or ('', b''))
  of_error(make_study(tmp_path, **OPTIONS), 'far')
  results = folder.load(tmp_path)
  assert results.words == 'score'
  assert [drawing.name for drawing in figures.make(results)][:2] == ['scores', 'freezing']
  left, right = kept[0].axes
  assert (left.get_ylabel(), right.get_ylabel()) == (
    'Test accuracy (%)',
    'Test error\nless is better',
  )
  assert left.get_ylim()[1] > 50 and right.get_ylim()[1] < 1
  assert 'guessing' in left.get_legend_handles_labels()[1]
  assert 'guessing' not in right.get_legend_handles_labels()[1]
  names = [table.name for table in tables.make(results)]
  assert {'accuracy-mnist-near', 'error-mnist-far'} <= set(names)
  assert not [name for name in names if name.startswith('across')]
  assert set(cautions.unusable(results)['target']) <= {'near'}


def test_runs_of_one_target_are_of_one_task(tmp_path, make_study):
  make_study(tmp_path, **OPTIONS)
  path = next(tmp_path.glob('runs/*far*/result.json'))
  path.write_text(json.dumps(json.loads(path.read_text()) | {'select': ['loss', -1]}))
  with pytest.raises(ValueError, match='The runs of far are chosen by'):
    folder.load(tmp_path)


def test_read_shows_whatever_is_there(tmp_path, write_run, change_runs):
  write_run(tmp_path, ('mnist', 'digits', 'full', 5, 0, 0.1), 0.9)
  change_runs(tmp_path, lambda result: result['test'].update(top_5=0.97, by_class=[0.5], ece=None))
  runs = report.read(tmp_path)
  assert runs['test_top_5'].tolist() == [0.97] and runs['test_ece'].isna().all()
  assert 'test_by_class' not in runs and runs['select'].tolist() == ['accuracy']
  assert [name for name in runs if name not in folder.COLUMNS] == ['test_top_5', 'test_ece']
