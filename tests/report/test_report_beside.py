"""What evaluators add to the report: other measures, reliability, the table of confusions."""

import math

import numpy as np
import pytest

from tlx import report
from tlx.report import beside, figures, folder, metrics, tables


@pytest.fixture
def study(tmp_path, make_study, change_runs):
  """Two methods, two seeds, two sizes; full is best, and at 5 shots it was asked for everything."""
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1, 5),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )

  def ask(result):
    cell = result['cell']
    better = cell['method'] == 'full'
    result['val']['accuracy'] = 0.6 + 0.2 * better
    # 100 examples a seed: of class 0 all right, of 1 half (seed 0) or none, 2 without an example
    wrong = 25 if cell['seed'] == 0 else 50
    result['test'] |= {
      'ece': 0.1 + 0.1 * cell['seed'],
      'temperature': 1.5,
      'top_3_accuracy': 0.9,
      'reliability': [[1, 0.2, 0.0], [40, 0.5, 0.25 + 0.5 * cell['seed']], [59, 0.9, 0.8]],
      'confusion': [[50, 0, 0], [wrong, 50 - wrong, 0], [0, 0, 0]],
    }

  change_runs(tmp_path, ask)
  return folder.load(tmp_path)


def test_copies_are_apart_where_an_evaluator_saw_their_own_examples(
  tmp_path, make_study, change_runs
):
  make_study(
    tmp_path, targets=('digits',), methods=('full',), shots=(5,), seeds=(0, 1), diverged=False
  )

  def zero_shot(result):
    result['deterministic'] = True
    if result['test']:
      result['test'] |= {'accuracy': 0.5, 'ece': 0.1}
      result['test']['knn_accuracy'] = 0.9 + 0.02 * result['cell']['seed']

  change_runs(tmp_path, zero_shot)
  frame = beside.measures(folder.load(tmp_path)).set_index('column')
  assert frame.loc['knn_accuracy', 'mean'] == pytest.approx(0.91)
  assert frame.loc[['knn_accuracy', 'ece'], 'n'].tolist() == [2, 1]


def test_other_measures_are_those_of_the_test(study):
  frame = beside.measures(study)
  assert set(frame['column']) == {'ece', 'temperature', 'top_3_accuracy'}
  row = frame.query('column == "ece" and method == "full" and shots == 5').iloc[0]
  assert row['mean'] == pytest.approx(0.15) and row['n'] == 2
  table = next(table for table in tables.make(study) if table.name == 'measures-mnist-digits')
  assert table.title == 'Other measures at 5 per class, mnist → digits'
  # t(.975, 1) = 12.7062, half of the range .1: 63.5 points
  assert table.shown.to_numpy().tolist() == [
    ['Calibration error (%) ↓', '15.0 ± 63.5', '15.0 ± 63.5'],
    ['Temperature', '1.5 alike', '1.5 alike'],
    ['Top 3 accuracy (%) ↑', '90.0 alike', '90.0 alike'],
  ]
  assert len(table.numbers) == 12


def test_bins_are_summed_over_seeds(study):
  frame = beside.reliability(study).query('method == "full" and shots == 5').set_index('bin')
  assert frame.index.tolist() == [0, 1, 2] and frame['count'].tolist() == [2, 80, 118]
  assert frame.loc[1, 'share'] == pytest.approx(0.5)
  assert frame.loc[2, ['probability', 'share']].tolist() == pytest.approx([0.9, 0.8])


def test_bins_of_few_examples_are_left_out(study):
  for result in study.found.values():
    result['test']['reliability'][0][0] = 0
    result['test']['reliability'][1][0] = 400
    result['test']['reliability'][2][0] = 1
  assert beside.reliability(study).query('method == "full"')['bin'].tolist() == [1, 1]


def test_the_confusion_is_that_of_the_best_on_validation(study):
  method, size, counts = beside.confusion(study, 'mnist', 'digits')
  assert (method, size) == ('full', 5)
  shares = counts[:2] / counts[:2].sum(1, keepdims=True)
  np.testing.assert_allclose(shares, [[1, 0, 0], [0.75, 0.25, 0]])
  assert not counts[2].any()


def test_they_are_drawn_and_the_page_loads_nothing(study, monkeypatch):
  kept = []
  page = report.write(study.workdir)
  assert 'How far probabilities can be believed' in page.read_text()
  assert 'data:image' not in page.read_text()
  real = figures.render
  monkeypatch.setattr(figures, 'render', lambda figure: kept.append(figure) or real(figure))
  names = [drawing.name for drawing in figures.make(study)]
  assert names[-2:] == ['reliability', 'confusion']
  lines = {line.get_label(): line for line in kept[-2].axes[0].lines}
  assert lines['full'].get_xdata().tolist() == pytest.approx([20, 50, 90])
  assert lines['full'].get_ydata().tolist() == pytest.approx([0, 50, 80])
  written = [text.get_text() for text in kept[-1].axes[0].texts]
  assert sorted(written) == ['100', '25', '75']


def test_of_a_large_table_the_classes_that_are_confused_most_are_drawn(study):
  table = np.eye(61, dtype=int)
  table[50, 7] = 3
  for result in study.found.values():
    result['test']['confusion'] = table.tolist()
  (drawn,) = [drawing for drawing in figures.make(study) if drawing.name == 'confusion']
  assert '>50<' in drawn.svg and '>7<' in drawn.svg and '>59<' not in drawn.svg
  assert 'those 24 that take part in most errors' in drawn.caption


def test_names_of_columns():
  assert metrics.of('ood_energy_auroc').axis == 'foreign set energy AUROC (%)'
  assert metrics.of('cka_block0').words == 'CKA block0' and not metrics.of('cka_block0').share
  assert metrics.of('top_5_accuracy').direction == 1 and metrics.of('ece').direction == -1
  assert metrics.of('forgotten_accuracy').direction == -1
  assert metrics.of('words_a_minute', 1).low == -math.inf


def test_nothing_of_it_where_nobody_asked(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  results = folder.load(tmp_path)
  assert not len(beside.measures(results)) and not len(beside.reliability(results))
  assert beside.confusion(results, 'mnist', 'digits') is None
  assert not [table for table in tables.make(results) if table.name.startswith('measures')]
