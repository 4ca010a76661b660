import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tlx import report
from tlx.report import findings, folder, formats, layers, numbers, tables


@pytest.fixture(scope='module')
def results(study):
  return folder.load(study)


@pytest.fixture
def small(tmp_path, make_study, write_run):
  """Two methods, two sizes, by hand: scratch .5 .6 / .7 .8 over seeds 0 1; full .6 .7 / .9 with seed 0 only at the larger."""
  make_study(tmp_path, targets=('digits',), methods=('scratch', 'full'), shots=(1,), seeds=(9,), rates=(0.01,), diverged=False)
  for run in (tmp_path / 'runs').iterdir():
    (run / 'result.json').unlink()
  for method, shots, seed, score in [('scratch', 2, 0, 0.5), ('scratch', 2, 1, 0.6), ('scratch', 8, 0, 0.7), ('scratch', 8, 1, 0.8),
                                     ('full', 2, 0, 0.6), ('full', 2, 1, 0.7), ('full', 8, 0, 0.9)]:
    write_run(tmp_path, ('mnist', 'digits', method, shots, seed, 0.003), score)
  return folder.load(tmp_path)


def one(made, name):
  return next(table for table in made if table.name == name)


def test_accuracy_by_hand(small):
  # two seeds: t(.975, 1) = 12.7062, s / sqrt(2) = .05, half-width 63.5 points
  shown = one(tables.make(small), 'accuracy-mnist-digits').shown
  assert shown.to_numpy().tolist() == [['scratch', '55.0 ± 63.5', '75.0 ± 63.5'], ['full', '65.0 ± 63.5', '90.0 (n=1)']]
  assert list(shown.columns) == ['Method', '2', '8']


def test_one_seed_is_printed_as_such(tmp_path, make_study):
  make_study(tmp_path, targets=('digits',), methods=('scratch', 'full'), shots=(1,), seeds=(3,), rates=(0.01,), diverged=False)
  made = one(tables.make(folder.load(tmp_path)), 'accuracy-mnist-digits')
  assert made.shown['1'].str.fullmatch(r'\d\d\.\d \(n=1\)').all() and made.note == 'One seed: no interval.'


def test_accuracy_is_that_of_the_chosen_runs(results):
  frame = numbers.means(results).set_index(['target', 'method', 'shots'])
  runs = results.runs
  wanted = runs[(runs['target'] == 'digits') & (runs['method'] == 'lora') & (runs['shots'] == 5) & (runs['learning_rate'] == 0.003)]['test_accuracy']
  row = frame.loc['digits', 'lora', 5]
  assert row['n'] == 5 and row['mean'] == pytest.approx(wanted.mean())
  assert (row['high'] - row['low']) / 2 == pytest.approx(stats.t.ppf(0.975, 4) * wanted.std() / math.sqrt(5))
  assert row['bootstrap_low'] > row['low'] and row['bootstrap_high'] < row['high']


def test_differences_pair_by_seed_and_say_what_is_missing(small, results):
  shown = one(tables.make(small), 'differences-mnist-digits').shown
  assert shown.iloc[0].tolist()[:6] == ['full', '2', '+10.0', '[+10.0, +10.0]', '2', '2/0/0']
  assert shown.iloc[1].tolist()[:6] == ['full', '8', '+20.0', '–', '1 (1 unpaired)', '1/0/0']
  assert shown.iloc[1].tolist()[6:] == ['–', '–']
  frame = numbers.differences(results, 'scratch')
  digits = frame[frame['target'] == 'digits']
  assert len(digits) == 14 and (digits['holm_p'] >= digits['t_p']).all()
  smallest = digits['t_p'].min()
  assert digits['holm_p'].min() == pytest.approx(14 * smallest)


def test_multipliers_by_hand(small):
  frame = numbers.multipliers(small, 'scratch').set_index('shots')
  assert frame.loc[2, 'effective_shots'] == pytest.approx(4.0) and frame.loc[2, 'multiplier'] == pytest.approx(2.0)
  assert frame.loc[8, 'bound'] == '>=' and frame.loc[8, 'multiplier'] == 1.0
  assert one(tables.make(small), 'data-mnist-digits').shown.iloc[0].tolist() == ['full', '2.00', '≥ 1.00']


@pytest.fixture
def everything(tmp_path, make_study, write_run):
  """`small` with all examples, 8 a class, in place of the larger size, and exact probes at both sizes."""
  make_study(tmp_path, targets=('digits',), methods=('scratch', 'full', 'probe'), shots=(1,), seeds=(9,), rates=(0.01,), diverged=False)
  for run in (tmp_path / 'runs').iterdir():
    (run / 'result.json').unlink()
  for method, shots, score in [('scratch', 2, 0.55), ('scratch', 0, 0.75), ('full', 2, 0.65), ('full', 0, 0.9), ('probe', 2, 0.6), ('probe', 0, 0.7)]:
    write_run(tmp_path, ('mnist', 'digits', method, shots, 0, 0.003), score, all_shots=8)
  return folder.load(tmp_path)


def test_all_examples_come_last_under_their_number(everything):
  made = tables.make(everything)
  assert list(one(made, 'accuracy-mnist-digits').shown.columns) == ['Method', '2', 'all (8)']
  assert one(made, 'differences-mnist-digits').shown['Shots'].tolist() == ['2', '2', 'all (8)', 'all (8)']
  assert one(made, 'cost-mnist-digits').title == 'Cost at all (8) per class, mnist → digits'
  assert numbers.per_class(everything, 0) == 8 and math.isnan(numbers.per_class(everything, 0, 'elsewhere'))
  unlike = everything._replace(all_shots={'digits': 8.0, 'textures': 4.0})
  assert [tables.per_class(unlike, 5, 0), tables.per_class(unlike, 0), tables.per_class(unlike, 0, target='textures')] == [
      '5, all per class', 'all examples', 'all (4) per class']
  assert findings.sentences(everything)['mnist → digits'][1].startswith('all (8) per class: of 3 methods full is best')


def test_effective_data_takes_all_examples_at_their_number(everything):
  frame = numbers.multipliers(everything, 'scratch').set_index(['method', 'shots'])
  assert frame.loc[('full', 2), 'effective_shots'] == pytest.approx(4.0) and frame.loc[('full', 0), 'multiplier'] == 1.0
  assert frame.loc[('probe', 0), 'effective_shots'] == pytest.approx(2 * 4**0.75) and frame.loc[('probe', 0), 'multiplier'] == pytest.approx(4**0.75 / 4)
  assert not len(numbers.multipliers(everything._replace(all_shots={}), 'scratch'))  # one known size is no curve
  assert not len(numbers.multipliers(everything._replace(all_shots={'digits': 2.0}), 'scratch'))  # nor are two equal ones


def test_what_is_solved_has_penalties_and_no_steps(everything):
  made = tables.make(everything)
  rates = one(made, 'rates-mnist-digits')
  assert rates.title == 'Chosen learning rates and penalties, mnist → digits'
  assert rates.shown['2'].tolist() == ['0.003', '0.003', 'penalty 0.003']
  assert one(made, 'speed-mnist-digits').shown['Method'].tolist() == ['scratch', 'full']
  cost = one(made, 'cost-mnist-digits')
  assert cost.shown.iloc[2][['Train FLOPs', 'Steps', 'Reused stages', 'Features s', 'Programs']].tolist() == ['–', 'exact', '4 of 5', '0.25', '2']
  assert set(numbers.curves(everything)['method']) == {'scratch', 'full'}


def test_reuse_counts_examples_of_steps_and_of_solutions(everything, write_run):
  write_run(everything.workdir, ('mnist', 'digits', 'lp_ft', 2, 0, 0.003), 0.6)
  config = {'methods': {**everything.config['methods'], 'lp_ft': {'phases': [{'batch_size': 32}, {'batch_size': 16}]}}}
  results = folder.load(everything.workdir)._replace(config=config)
  row = numbers.reuse(results).iloc[0]
  # solutions of 20 and 80 examples; of lp_ft 75 steps of at least 16
  assert row['num_runs'] == 3 and row['passes'] == 20 + 80 + 75 * 16 and row['feature_seconds'] == 0.5
  assert '3 runs of all sizes and settings read kept activations 1.3k times' in one(tables.make(results), 'cost-mnist-digits').note


@pytest.fixture
def probes(tmp_path, make_study):
  return folder.load(make_study(tmp_path, targets=('digits',), methods=('probe_b', 'full', 'probe_a', 'probe'), shots=(5, 0), seeds=(0, 1),
                                rates=(0.001, 0.003), diverged=False))


def test_stages_stand_in_the_order_of_the_network(probes):
  frame = layers.stages(probes)
  assert frame[frame['shots'] == 0][['stage', 'depth', 'method', 'family']].to_numpy().tolist() == [
      ['a', 2, 'probe_a', 'probe'], ['b', 3, 'probe_b', 'probe'], ['', 4, 'probe', 'probe']]
  assert frame.loc[frame['best'], 'stage'].tolist() == ['b', 'b']
  shown = one(tables.make(probes), 'stages-mnist-digits-probe').shown
  assert shown[['Head after', 'Stages']].to_numpy().tolist() == [['a', '2'], ['b', '3'], ['last', '4']]
  assert list(shown.columns[2:]) == ['5', 'all (156)'] and shown['5'].str.endswith(' *').tolist() == [False, True, False]
  assert findings.sentences(probes)['mnist → digits'][-1] == (
      'The stage to put the head after, by validation accuracy of probe over 3 stages: b at 5, all (156) per class.')


def test_an_exact_solution_of_all_examples_has_no_chance_to_speak_of(probes, results):
  words = 'the same for every seed'
  assert words in one(tables.make(probes), 'accuracy-mnist-digits').note and words not in one(tables.make(results), 'accuracy-mnist-digits').note


def test_depths_leave_out_networks_that_were_cut(probes):
  assert set(layers.depths(probes)['method']) == {'full', 'probe'}


def test_a_last_stage_that_has_a_name_goes_by_it(probes):
  runs = probes.runs.copy()
  runs.loc[runs['method'] == 'probe_b', 'num_stages'] = 6  # b is the last stage; the mean over places and the head follow
  frame = layers.stages(probes._replace(runs=runs))
  assert frame[frame['shots'] == 5]['method'].tolist() == ['probe_a', 'probe_b']


def test_a_study_where_everything_diverged(probes):
  runs = probes.runs.assign(val_accuracy=math.nan, val_loss=math.nan, status='diverged at step 1')
  assert len(tables.make(probes._replace(runs=runs))) > 3 and findings.sentences(probes._replace(runs=runs))


def test_speed_by_hand(small):
  # Evaluations at 30, 60, ... of 150 steps; curves have .813 of their end at 60 and .926 at 90. Scratch ends at .56 on average; full at
  # .61, which passes that at 90, and at .71, which does at 60.
  frame = numbers.speeds(small, 'scratch').set_index(['method', 'shots'])
  assert frame.loc[('full', 2), 'threshold'] == pytest.approx(0.56) and frame.loc[('full', 2), 'median_steps'] == 75
  assert frame.loc[('scratch', 2), 'median_steps'] == math.inf and frame.loc[('scratch', 2), 'reached'] == 1
  assert frame.loc[('full', 2), 'median_seconds'] == pytest.approx(75 * 32456e-7)


def test_a_random_reference_of_one_source_serves_all(tmp_path, make_study):
  make_study(tmp_path, sources=('a', 'b'), targets=('digits',), methods=('scratch', 'full', 'linear'), shots=(1, 5))
  for run in (tmp_path / 'runs').iterdir():
    if run.name.startswith(('b-digits-scratch', 'b-digits-full')):
      (run / 'result.json').unlink()
  frame = numbers.differences(folder.load(tmp_path), 'scratch')
  assert frame.groupby('source').size().to_dict() == {'a': 4, 'b': 2}
  frame = numbers.differences(folder.load(tmp_path), 'full')  # which holds something of its source
  assert frame.groupby('source').size().to_dict() == {'a': 4}


def test_rates_say_when_the_choice_is_at_the_edge(tmp_path, results, make_study):
  assert set(numbers.rates(results)['edge']) == {''}
  make_study(tmp_path, targets=('digits',), methods=('scratch', 'full'), shots=(1,), rates=(0.0001, 0.001, 0.003), diverged=False)
  made = one(tables.make(folder.load(tmp_path)), 'rates-mnist-digits')
  assert made.shown.iloc[0].tolist() == ['scratch', '3', '0.003 ↑'] and made.note.startswith('2 of 2 choices')


def test_costs(results):
  row = numbers.costs(results).query('method == "linear" and shots == 5 and target == "digits"').iloc[0]
  assert row['share'] == pytest.approx(650 / 23456) and row['train_seconds'] == pytest.approx(9650 * 300e-7)
  assert row['search_seconds'] == pytest.approx(15 * 9650 * 300e-7)
  shown = one(tables.make(results), 'cost-mnist-digits').shown
  assert shown[shown['Method'] == 'linear'].iloc[0].tolist()[1:4] == ['650', '2.8%', '5.2k']


def test_diverged_runs_are_listed(results):
  assert one(tables.make(results), 'diverged').shown.to_numpy().tolist() == [
      ['mnist-digits-full-1shot-seed4-lr0.01', 'diverged at step 7', '0.01', 'no']]


def test_depths_take_the_method_that_trains_most(results):
  frame = layers.depths(results).query('target == "digits" and shots == 1')
  assert frame['method'].tolist() == ['full', 'freeze2', 'linear'] and frame['frozen_stages'].tolist() == [0, 2, 4]
  assert frame['best'].tolist() == [False, True, False]


def test_across_targets(results):
  frame = numbers.across_targets(results, 'scratch').set_index(['method', 'shots'])
  runs = results.runs[results.runs['chosen'] & (results.runs['method'] == 'full') & (results.runs['shots'] == 1)]
  assert frame.loc[('full', 1), 'iqm'] == pytest.approx(stats.trim_mean(runs['test_accuracy'], 0.25))
  assert frame.loc[('full', 1), 'num_targets'] == 2 and 0.3 < frame.loc[('full', 1), 'probability_of_improvement'] < 0.7
  assert np.isnan(frame.loc[('scratch', 1), 'probability_of_improvement'])


def test_findings_are_honest(results, small):
  near, far = findings.sentences(results).values()
  assert 'lp_ft is best on validation' in near[0] and '5 of 5 pairs won' in near[0] and near[-2].endswith('no negative transfer is shown.')
  assert 'scratch is best on validation' in far[0] and 'Negative transfer: full at 1' in far[-2]
  assert near[-1] == 'Leading stages to freeze, by validation accuracy: 2 of 5 (freeze2) at 1, 5 per class.'
  sentences = findings.sentences(small)['mnist → digits']
  assert 'one pair, which says nothing about chance' in sentences[1]
  assert findings.progress(results).startswith('480 of 500 runs done (partial')


def test_findings_say_when_the_interval_includes_zero(small):
  runs = small.runs.copy()
  runs.loc[(runs['method'] == 'full') & (runs['seed'] == 1), 'test_accuracy'] = 0.59
  sentences = findings.sentences(small._replace(runs=runs))['mnist → digits']
  assert 'the interval includes 0, so no difference is shown' in sentences[0]


def test_findings_name_the_best_by_validation_not_by_test(small):
  runs = small.runs.copy()
  runs.loc[(runs['method'] == 'full') & (runs['shots'] == 2), 'val_accuracy'] = 0.1
  assert 'scratch is best on validation' in findings.sentences(small._replace(runs=runs))['mnist → digits'][0]


def test_two_chosen_runs_of_one_seed_are_an_error(small):
  runs = pd.concat([small.runs, small.runs.iloc[:1]])
  with pytest.raises(ValueError, match='Two chosen runs'):
    numbers.differences(small._replace(runs=runs), 'scratch')


TABLE = formats.Table('t', 'A_b | c', pd.DataFrame({'Method': ['lp_ft|x', '<b>'], '5': ['1.0 ± 0.5', '−2.0%']}), pd.DataFrame({'x': [0.125]}), 'Note & all.')


def test_markdown():
  assert formats.markdown(TABLE).splitlines() == [
      '**A_b | c**', '', '| Method | 5 |', '| :-- | --: |', '| lp_ft\\|x | 1.0 ± 0.5 |', '| &lt;b> | −2.0% |', '', 'Note & all.']


def test_latex():
  made = formats.latex(TABLE)
  assert r'lp\_ft|x & 1.0 $\pm$ 0.5 \\' in made and r'\textless{}b\textgreater{} & $-$2.0\% \\' in made
  assert r'\caption{A\_b | c}' in made and r'\begin{tabular}{lr}' in made and made.count(r'\midrule') == 1 and r'Note \& all.' in made


def test_text_lines_up():
  lines = formats.text(TABLE).splitlines()
  assert lines[1:5] == ['Method           5', '-------  ---------', 'lp_ft|x  1.0 ± 0.5', '<b>          −2.0%']


def test_saved_numbers_are_the_numbers(results, tmp_path):
  formats.save(tables.accuracy(results), tmp_path)
  back = pd.read_csv(tmp_path / 'accuracy-mnist-digits.csv')
  wanted = numbers.means(results).query('target == "digits"').reset_index(drop=True)
  pd.testing.assert_frame_equal(back, wanted)
  assert len(list(csv.reader(io.StringIO((tmp_path / 'accuracy-mnist-digits.csv').read_text())))) == 17


def test_numbers_for_people():
  assert [formats.quantity(x) for x in (999.7, 999700, 1e6, 0.00012, math.inf)] == ['1k', '1M', '1M', '0.00012', '∞']
  assert [formats.probability(x) for x in (0.0004, 0.0213, 1.0, math.nan)] == ['<0.001', '0.021', '1', '–']
  assert formats.percent(-0.00049, signed=True) == '0.0' and formats.percent(0.9996) == '100.0'


def test_summary_is_for_a_terminal(study):
  made = report.summary(study)
  assert 'Test accuracy in %, mnist → digits' in made and 'Diverged runs: 1 of 480' in made and '<' not in made.replace('<0.001', '')
