import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tlx import report
from tlx.report import (
  cautions,
  classes,
  findings,
  folder,
  formats,
  layers,
  numbers,
  sampling,
  statistics,
  tables,
)


@pytest.fixture(scope='module')
def results(study):
  return folder.load(study)


@pytest.fixture
def small(tmp_path, make_study, write_run):
  """Two methods, two sizes, by hand: scratch .5 .6 / .7 .8 over seeds 0 1; full .6 .7 / .9 with
  seed 0 only at the larger.
  """
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(9,),
    rates=(0.01,),
    diverged=False,
  )
  for run in (tmp_path / 'runs').iterdir():
    (run / 'result.json').unlink()
  runs = [
    ('scratch', 2, 0, 0.5),
    ('scratch', 2, 1, 0.6),
    ('scratch', 8, 0, 0.7),
    ('scratch', 8, 1, 0.8),
    ('full', 2, 0, 0.6),
    ('full', 2, 1, 0.7),
    ('full', 8, 0, 0.9),
  ]
  for method, shots, seed, score in runs:
    write_run(tmp_path, ('mnist', 'digits', method, shots, seed, 0.003), score)
  return folder.load(tmp_path)


def one(made, name):
  return next(table for table in made if table.name == name)


def test_accuracy_by_hand(small):
  # two seeds: t(.975, 1) = 12.7062, s / sqrt(2) = .05, half-width 63.5 points
  shown = one(tables.make(small), 'accuracy-mnist-digits').shown
  assert shown.to_numpy().tolist() == [
    ['scratch', '55.0 ± 63.5', '75.0 ± 63.5'],
    ['full', '65.0 ± 63.5', '90.0 (n=1)'],
  ]
  assert list(shown.columns) == ['Method', '2', '8']


def test_one_seed_is_printed_as_such(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(3,),
    rates=(0.01,),
    diverged=False,
  )
  made = one(tables.make(folder.load(tmp_path)), 'accuracy-mnist-digits')
  assert made.shown['1'].str.fullmatch(r'\d\d\.\d \(n=1\)').all()
  assert made.note == 'One seed: no interval. Guessing has 10.0%.'


def test_accuracy_is_that_of_the_chosen_runs(results):
  frame = numbers.means(results).set_index(['target', 'method', 'shots'])
  runs = results.runs
  wanted = runs[
    (runs['target'] == 'digits')
    & (runs['method'] == 'lora')
    & (runs['shots'] == 5)
    & (runs['learning_rate'] == 0.003)
  ]['test_accuracy']
  row = frame.loc['digits', 'lora', 5]
  assert row['n'] == 5 and row['mean'] == pytest.approx(wanted.mean())
  assert (row['high'] - row['low']) / 2 == pytest.approx(
    stats.t.ppf(0.975, 4) * wanted.std() / math.sqrt(5)
  )
  assert row['bootstrap_low'] > row['low'] and row['bootstrap_high'] < row['high']


def test_differences_pair_by_seed_and_say_what_is_missing(small, results):
  shown = one(tables.make(small), 'differences-mnist-digits').shown
  assert shown.iloc[0].tolist()[:6] == ['full', '2', '+10.0', '–', '2', '2/0/0']
  assert shown.iloc[1].tolist()[:6] == ['full', '8', '+20.0', '–', '1 (1 unpaired)', '1/0/0']
  assert shown.iloc[0].tolist()[6:] == shown.iloc[1].tolist()[6:] == ['–', '–', '–']
  frame = numbers.differences(results, 'scratch')
  digits = frame[frame['target'] == 'digits']
  assert len(digits) == 14 and (digits['holm_p'] >= digits['t_p']).all()
  smallest = digits['t_p'].min()
  assert digits['holm_p'].min() == pytest.approx(14 * smallest)


def test_multipliers_by_hand(small):
  frame = numbers.multipliers(small, 'scratch').set_index('shots')
  assert frame.loc[2, 'effective_shots'] == pytest.approx(4.0)
  assert frame.loc[2, 'multiplier'] == pytest.approx(2.0)
  assert frame.loc[8, 'bound'] == '>=' and frame.loc[8, 'multiplier'] == 1.0
  assert one(tables.make(small), 'data-mnist-digits').shown.iloc[0].tolist() == [
    'full',
    '2.00 [2.00, 2.00]',  # at either seed .1 more is worth 2 to 4 examples, and their mean too
    '≥ 1.00',  # of one seed
  ]


@pytest.fixture
def everything(tmp_path, make_study, write_run):
  """`small` with all examples, 8 a class, in place of the larger size, and exact probes at both
  sizes.
  """
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full', 'probe'),
    shots=(1,),
    seeds=(9,),
    rates=(0.01,),
    diverged=False,
  )
  for run in (tmp_path / 'runs').iterdir():
    (run / 'result.json').unlink()
  for method, shots, score in [
    ('scratch', 2, 0.55),
    ('scratch', 0, 0.75),
    ('full', 2, 0.65),
    ('full', 0, 0.9),
    ('probe', 2, 0.6),
    ('probe', 0, 0.7),
  ]:
    write_run(tmp_path, ('mnist', 'digits', method, shots, 0, 0.003), score, all_shots=8)
  return folder.load(tmp_path)


def test_all_examples_come_last_under_their_number(everything):
  made = tables.make(everything)
  assert list(one(made, 'accuracy-mnist-digits').shown.columns) == ['Method', '2', 'all (8)']
  assert one(made, 'differences-mnist-digits').shown['Shots'].tolist() == [
    '2',
    '2',
    'all (8)',
    'all (8)',
  ]
  assert one(made, 'cost-mnist-digits').title == 'Cost at all (8) per class, mnist → digits'
  assert numbers.per_class(everything, 0) == 8
  assert math.isnan(numbers.per_class(everything, 0, 'elsewhere'))
  unlike = everything._replace(all_shots={'digits': 8.0, 'textures': 4.0})
  assert tables.per_class(unlike, 5, 0) == '5, all per class'
  assert tables.per_class(unlike, 0) == 'all examples'
  assert tables.per_class(unlike, 0, target='textures') == 'all (4) per class'
  assert findings.sentences(everything)['mnist → digits'][1].startswith(
    'all (8) per class: of 3 methods full is best'
  )


def test_effective_data_takes_all_examples_at_their_number(everything):
  frame = numbers.multipliers(everything, 'scratch').set_index(['method', 'shots'])
  assert frame.loc[('full', 2), 'effective_shots'] == pytest.approx(4.0)
  assert frame.loc[('full', 0), 'multiplier'] == 1.0
  assert frame.loc[('probe', 0), 'effective_shots'] == pytest.approx(2 * 4**0.75)
  assert frame.loc[('probe', 0), 'multiplier'] == pytest.approx(4**0.75 / 4)
  # one known size is no curve
  assert not len(numbers.multipliers(everything._replace(all_shots={}), 'scratch'))
  # nor are two equal ones
  assert not len(numbers.multipliers(everything._replace(all_shots={'digits': 2.0}), 'scratch'))


def test_what_is_solved_has_penalties_and_no_steps(everything):
  made = tables.make(everything)
  rates = one(made, 'rates-mnist-digits')
  assert rates.title == 'Chosen learning rates and penalties, mnist → digits'
  assert rates.shown['2'].tolist() == ['0.003', '0.003', 'penalty 0.003']
  assert one(made, 'speed-mnist-digits').shown['Method'].tolist() == ['scratch', 'full']
  cost = one(made, 'cost-mnist-digits')
  assert cost.shown.iloc[2][
    ['Train FLOPs', 'Steps', 'Reused stages', 'Features s', 'Programs']
  ].tolist() == ['–', 'exact', '4 of 5', '0.25', '2']
  assert set(numbers.curves(everything)['method']) == {'scratch', 'full'}


def test_reuse_counts_examples_of_steps_and_of_solutions(everything, write_run):
  write_run(everything.workdir, ('mnist', 'digits', 'lp_ft', 2, 0, 0.003), 0.6)
  config = {
    'methods': {
      **everything.config['methods'],
      'lp_ft': {'phases': [{'batch_size': 32}, {'batch_size': 16}]},
    }
  }
  results = folder.load(everything.workdir)._replace(config=config)
  row = numbers.reuse(results).iloc[0]
  # solutions of 20 and 80 examples; of lp_ft 75 steps of at least 16
  assert row['num_runs'] == 3
  assert row['passes'] == 20 + 80 + 75 * 16
  assert row['feature_seconds'] == 0.5
  merged = {name: {**found, 'merged': {'of': 'lp_ft'}} for name, found in results.found.items()}
  names = set(results.runs.loc[results.runs['method'] == 'lp_ft', 'id'])
  others = {name: merged[name] if name in names else results.found[name] for name in merged}
  assert numbers.reuse(results._replace(found=others)).iloc[0]['passes'] == 20 + 80
  assert (
    '3 runs of all sizes and settings read kept activations 1.3k times'
    in one(tables.make(results), 'cost-mnist-digits').note
  )


@pytest.fixture
def probes(tmp_path, make_study):
  return folder.load(
    make_study(
      tmp_path,
      targets=('digits',),
      methods=('probe_b', 'full', 'probe_a', 'probe'),
      shots=(5, 0),
      seeds=(0, 1),
      rates=(0.001, 0.003),
      diverged=False,
    )
  )


def test_stages_stand_in_the_order_of_the_network(probes):
  frame = layers.stages(probes)
  assert frame[frame['shots'] == 0][['stage', 'depth', 'method', 'family']].to_numpy().tolist() == [
    ['a', 2, 'probe_a', 'probe'],
    ['b', 3, 'probe_b', 'probe'],
    ['', 4, 'probe', 'probe'],
  ]
  assert frame.loc[frame['best'], 'stage'].tolist() == ['b', 'b']
  shown = one(tables.make(probes), 'stages-mnist-digits-probe').shown
  assert shown[['Head after', 'Stages']].to_numpy().tolist() == [
    ['a (mean)', '2'],
    ['b (mean)', '3'],
    ['last', '4'],
  ]
  assert list(shown.columns[2:]) == ['5', 'all (156)']
  assert shown['5'].str.endswith(' *').tolist() == [False, True, False]
  assert findings.sentences(probes)['mnist → digits'][-1] == (
    'The stage to put the head after, by validation accuracy of probe over 3 places: b (mean) at '
    '5, all (156) per class.'
  )


ONCE = 'What no seed changes'


def alike(result):
  """Sets what a probe of all examples finds to one value for all seeds."""
  if result['cell']['method'] not in ('probe_a', 'probe_b', 'probe') or result['cell']['shots']:
    return False
  score = 0.8 + 0.01 * len(result['cell']['method'])
  result['val'] |= {'accuracy': score}
  result['test'] = result['test'] and result['test'] | {'accuracy': score}
  return True


# folders of earlier versions do not tell; there it follows from the solver
@pytest.mark.parametrize('told', [True, False])
def test_results_that_depend_on_no_seed_count_once(tmp_path, make_study, change_runs, told):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('probe_b', 'full', 'probe_a', 'probe'),
    shots=(5, 0),
    seeds=(0, 1, 2, 3, 4),
    rates=(0.001, 0.003),
    baseline='probe_b',
    diverged=False,
  )
  change_runs(
    tmp_path,
    lambda result: alike(result) and result.update({'deterministic': True} if told else {}),
  )
  results = folder.load(tmp_path)
  means = numbers.means(results).set_index(['method', 'shots'])
  assert means.loc[('probe', 0), 'n'] == 1
  assert means.loc[('probe', 5), 'n'] == 5
  assert means.loc[('full', 0), 'n'] == 5
  assert means.loc[[('probe', 0)], ['low', 'high', 'bootstrap_low']].isna().all(axis=None)
  pairs = numbers.differences(results, 'probe_b').set_index(['method', 'shots'])
  both, mixed = pairs.loc[('probe_a', 0)], pairs.loc[('full', 0)]
  assert both['n'] == 1
  assert both['wins'] + both['ties'] + both['losses'] == 1
  assert np.isnan(both['t_p'])
  assert np.isnan(both['holm_p'])
  assert mixed['n'] == 5 and mixed['t_p'] < 1 and mixed['num_missing'] == 0
  made = tables.make(results)
  accuracy = one(made, 'accuracy-mnist-digits')
  assert ONCE in accuracy.note
  assert accuracy.shown.set_index('Method').loc['probe', 'all (156)'] == '85.0 (n=1)'
  # full at both sizes, probes at 5
  assert 'Holm over the 4 comparisons' in one(made, 'differences-mnist-digits').note


def test_validation_of_copies_is_the_mean_of_all(tmp_path, make_study, change_runs):
  """One solution for all seeds, but (validation = 'matched') chosen on others in each."""
  make_study(
    tmp_path, targets=('digits',), methods=('probe',), shots=(0,), seeds=(0, 1, 2), diverged=False
  )

  def copies(result):
    changed = alike(result)
    result['val']['accuracy'] = 0.8 + 0.05 * result['cell']['seed']
    return changed and result.update(deterministic=True)

  change_runs(tmp_path, copies)
  row = numbers.means(folder.load(tmp_path)).iloc[0]
  assert row['n'] == 1 and row['val_mean'] == pytest.approx(0.85)


@pytest.fixture
def beside_copies(tmp_path, make_study, change_runs):
  """The folder of a study of three seeds whose probes are one result."""
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'probe'),
    shots=(0,),
    seeds=(0, 1, 2),
    rates=(0.003,),
    diverged=False,
  )
  change_runs(
    tmp_path, lambda result: result.update(deterministic=True) if alike(result) else False
  )
  return tmp_path


def test_one_network_of_all_seeds_is_not_tested_and_costs_once(beside_copies):
  results = folder.load(beside_copies)
  assert not np.isnan(numbers.differences(results, 'scratch').iloc[0]['t_p'])
  soup = {**results.config['methods']['probe'], 'merge': {'over': 'seeds', 'of': 'full'}}
  config = {**results.config, 'methods': {**results.config['methods'], 'probe': soup}}
  results = results._replace(config=config)
  row = numbers.differences(results, 'scratch').iloc[0]
  assert row['n'] == 3 and row['verdict'] == ''
  assert row[['low', 'high', 't_p', 'wilcoxon_p', 'holm_p']].isna().all()
  costs = numbers.costs(results).set_index('method')
  assert costs.loc['probe', 'search_seconds'] == pytest.approx(costs.loc['probe', 'train_seconds'])


def test_one_run_that_depends_on_no_seed_stands_beside_all_seeds(beside_copies):
  for path in beside_copies.glob('runs/*probe-*seed[12]*/result.json'):
    path.unlink()
  row = numbers.differences(folder.load(beside_copies), 'scratch').iloc[0]
  assert row['n'] == 3 and row['num_missing'] == 0 and not np.isnan(row['t_p'])


def test_copies_show_nothing(tmp_path, make_study, change_runs):
  """Every run of a method came out alike, as exact solutions did: no interval of width 0, no p, no
  gain, no win to speak of.
  """
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full', 'linear'),
    shots=(1, 5),
    rates=(0.01,),
    diverged=False,
  )

  def level(result):
    score = (
      0.7
      + 0.05 * (result['cell']['method'] == 'full')
      - 0.1 * (result['cell']['method'] == 'linear')
    )
    result['val'] |= {'accuracy': score}
    result['test'] |= {'accuracy': score}

  change_runs(tmp_path, level)
  for method in ('scratch', 'full', 'linear'):
    first, *others = sorted(tmp_path.glob(f'runs/*{method}-5shot*/metrics.jsonl'))
    for path in others:
      path.write_text(first.read_text())
  results = folder.load(tmp_path)
  frame = numbers.differences(results, 'scratch')
  assert frame[['low', 'high', 't_p', 'wilcoxon_p', 'holm_p']].isna().all(axis=None)
  assert (frame['n'] == 5).all()
  assert set(frame['verdict']) == {''}
  said = findings.sentences(results)['mnist → digits']
  assert (
    'in each of 5 pairs: where differences do not vary there is neither an interval nor a test, so '
    'no difference is shown' in said[0]
  )
  assert 'neither gain nor negative transfer can be told from chance' in said[2]
  made = tables.make(results)
  accuracy = one(made, 'accuracy-mnist-digits')
  assert accuracy.shown['1'].tolist() == ['70.0 alike', '75.0 alike', '60.0 alike']
  assert '“alike”' in accuracy.note
  # the baseline has 70% at both sizes
  assert one(made, 'data-mnist-digits').shown['1'].tolist() == ['–', '–']
  assert numbers.curves(results).query('shots == 5')[['low', 'high']].isna().all(axis=None)
  text = report.summary(tmp_path)
  assert '± 0.0' not in text and 'p <0.001' not in text


def test_wilcoxon_counts_answers_not_float32_quotients(
  tmp_path, write_run, make_study, change_runs
):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(5,),
    seeds=range(8),
    rates=(0.01,),
    diverged=False,
  )
  base, gains = [511, 530, 502, 547, 560, 513, 529, 541], [6, -1, 5, 4, -4, 4, 2, 4]

  def score(result):
    seed = result['cell']['seed']
    right = base[seed] + gains[seed] * (result['cell']['method'] == 'full')
    result['test'] = {
      'accuracy': float(np.float32(right) / np.float32(599)),
      'loss': 0.1,
      'count': 599,
    }

  change_runs(tmp_path, score)
  row = numbers.differences(folder.load(tmp_path), 'scratch').iloc[0]
  assert row['wilcoxon_p'] == pytest.approx(0.09375) and (row['wins'], row['losses']) == (6, 2)
  assert row['difference'] == pytest.approx(20 / 8 / 599)


def test_gains_are_counted_after_the_correction(results):
  noise = np.random.default_rng(0).normal(0, 0.05, len(results.runs))
  results = results._replace(
    runs=results.runs.assign(test_accuracy=results.runs['test_accuracy'] + noise)
  )
  gains = numbers.gains(results, 'scratch')
  digits = gains[gains['target'] == 'digits']
  alone = (digits['low'] > 0).sum()
  shown = (digits['verdict'] == 'higher').sum()
  assert 0 < shown < alone and (digits.loc[digits['verdict'] == 'higher', 'holm_p'] < 0.05).all()
  assert f'of 14 comparisons {shown} gain' in findings.sentences(results)['mnist → digits'][2]
  table = one(tables.make(results), 'differences-mnist-digits').shown
  assert (table['Shown'] == 'higher').sum() == shown
  assert (table['Shown'] == 'no').sum() == 14 - shown


def test_pairs_are_of_one_seed_whatever_the_order(tmp_path, make_study, write_run):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(9,),
    rates=(0.01,),
    diverged=False,
  )
  for run in (tmp_path / 'runs').iterdir():
    (run / 'result.json').unlink()
  scratch, full = {1: 0.3, 2: 0.5, 3: 0.8, 4: 0.2}, {2: 0.6, 3: 0.85, 4: 0.25, 7: 0.9}
  for method, scores in (('scratch', scratch), ('full', full)):
    for seed, score in scores.items():
      write_run(tmp_path, ('mnist', 'digits', method, 5, seed, 0.003), score)
  row = numbers.differences(folder.load(tmp_path), 'scratch').iloc[0]
  assert row['n'] == 3
  assert row['num_missing'] == 2
  assert row['difference'] == pytest.approx((0.1 + 0.05 + 0.05) / 3)


def test_depths_leave_out_networks_that_were_cut(probes):
  assert set(layers.depths(probes)['method']) == {'full', 'probe'}


def test_a_last_stage_that_has_a_name_goes_by_it(probes):
  runs = probes.runs.copy()
  # b is the last stage; the mean over places and the head follow
  runs.loc[runs['method'] == 'probe_b', 'num_stages'] = 6
  frame = layers.stages(probes._replace(runs=runs))
  assert frame[frame['shots'] == 5]['method'].tolist() == ['probe_a', 'probe_b']


def test_stages_say_their_grid_and_pixels_come_first(tmp_path, make_study, change_runs):
  made = make_study(
    tmp_path,
    targets=('digits',),
    methods=('probe_b', 'probe_a', 'linear', 'probe'),
    shots=(5,),
    seeds=(0, 1),
    rates=(0.003,),
    diverged=False,
    baseline='',
  )
  study = json.loads((made / 'study.json').read_text())
  methods = study['config']['methods']
  methods['linear'] = methods['probe'] | {'head_after': {'stage': 'a', 'grid': 4}}
  methods['probe_a']['head_after'] = {'stage': 'a', 'grid': 1}
  methods['probe_b']['head_after'] = 'input'
  (made / 'study.json').write_text(json.dumps(study))
  change_runs(
    made,
    lambda result: result.update(num_stages=4) if result['cell']['method'] == 'linear' else False,
  )
  results = folder.load(made)
  frame = layers.stages(results)
  assert frame[['label', 'depth', 'method']].to_numpy().tolist() == [
    ['input', 0, 'probe_b'],
    ['a (mean)', 2, 'probe_a'],
    ['a (4×4)', 2, 'linear'],
    ['last', 4, 'probe'],
  ]
  table = next(table for table in tables.make(results) if table.name.startswith('stages'))
  assert table.shown[['Head after', 'Stages']].to_numpy().tolist() == [
    ['input', '0'],
    ['a (mean)', '2'],
    ['a (4×4)', '2'],
    ['last', '4'],
  ]
  assert '“input” are the pixels' in table.note
  assert any(
    'over 4 places: none (the pixels) at 5 per class' in line
    for line in findings.sentences(results)['mnist → digits']
  )
  assert len(layers.depths(results)) == 0  # one whole network only


def test_a_study_where_everything_diverged(probes):
  runs = probes.runs.assign(val_accuracy=math.nan, val_loss=math.nan, status='diverged at step 1')
  assert len(tables.make(probes._replace(runs=runs))) > 3
  assert findings.sentences(probes._replace(runs=runs))


def test_speed_by_hand(small, change_runs):
  # Evaluations at 30, 60, ... of 150 steps; curves have .813 of their end at 60 and .926 at 90.
  # Scratch ends at .56 on average; full at .61, which passes that between 60 (.496) and 90 (.565),
  # and at .71, which does between 30 (.398) and 60 (.577).
  frame = numbers.speeds(small._replace(), 'scratch').set_index(['method', 'shots'])

  def shape(step):
    return (1 - math.exp(-4 * step / 150)) / (1 - math.exp(-4))

  def crossing(end, step):
    rise = end * (shape(step + 30) - shape(step))
    return step + 30 * (0.56 - end * shape(step)) / rise

  assert frame.loc[('full', 2), 'threshold'] == pytest.approx(0.56)
  assert frame.loc[('full', 2), 'median_steps'] == pytest.approx(
    (crossing(0.61, 60) + crossing(0.71, 30)) / 2
  )
  assert frame.loc[('scratch', 2), 'median_steps'] == math.inf
  assert frame.loc[('scratch', 2), 'reached'] == 1
  # An earlier folder does not tell what the steps of a phase cost
  assert frame['median_seconds'].isna().all()


def test_seconds_are_those_of_the_phases_and_of_features(small, change_runs):
  def change(result):
    result['cost']['feature_seconds'] = 2.0
    first = result['phases'][0] | {'steps': 50, 'train_seconds': 10.0}
    result['phases'] = [first, first | {'steps': 100, 'train_seconds': 4.0}]

  change_runs(small.workdir, change)
  frame = numbers.speeds(folder.load(small.workdir), 'scratch').set_index(['method', 'shots'])
  row = frame.loc[('full', 2)]
  # Both seeds cross in the second phase
  assert row['median_steps'] > 50 and math.isinf(frame.loc[('scratch', 2), 'median_seconds'])
  assert row['median_seconds'] == pytest.approx(2 + 10 + 0.04 * (row['median_steps'] - 50))


def curve(folder_, method, seed, points):
  """Writes the validation curve of a run of `small` at 2 shots."""
  lines = [
    {
      'step': step,
      'phase': 0,
      'loss': 1.0,
      'grad_norm': 1.0,
      'val_accuracy': value,
      'val_loss': 1.0,
    }
    for step, value in points
  ]
  path = folder_ / 'runs' / f'mnist-digits-{method}-2shot-seed{seed}-lr0.003' / 'metrics.jsonl'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_the_threshold_is_the_last_value_of_the_baseline_not_its_best(small):
  for seed, last in ((0, 0.4), (1, 0.6)):
    curve(small.workdir, 'scratch', seed, [(50, 0.7), (100, 0.9), (150, last)])
    curve(small.workdir, 'full', seed, [(50, 0.3), (100, 0.45), (150, 0.55)])
  row = numbers.speeds(small._replace(), 'scratch').set_index(['method', 'shots']).loc[('full', 2)]
  assert row['threshold'] == pytest.approx(0.5) and row['median_steps'] == pytest.approx(125)


def test_looking_more_often_does_not_bring_the_match_forward(small):
  """One method is evaluated at 3 steps, the other at 15 with a lucky peak between: on common steps
  both match at once.
  """
  coarse = [(50, 0.4), (100, 0.5), (150, 0.6)]
  fine = [
    (step, float(np.interp(step, [0, 50, 100, 150], [0.1, 0.4, 0.5, 0.6])))
    for step in range(10, 151, 10)
  ]
  fine[2] = (30, 0.99)
  for seed in (0, 1):
    curve(small.workdir, 'scratch', seed, coarse)
    curve(small.workdir, 'full', seed, fine)
  frame = numbers.speeds(small._replace(), 'scratch').set_index(['method', 'shots'])
  assert (
    frame.loc[('full', 2), 'median_steps']
    == frame.loc[('scratch', 2), 'median_steps']
    == pytest.approx(150)
  )
  # Passed before the first common step: on the way from chance, 10%, to 80% at 50 steps
  for seed in (0, 1):
    curve(small.workdir, 'full', seed, [(50, 0.8), (100, 0.9), (150, 0.9)])
  frame = numbers.speeds(small._replace(), 'scratch').set_index(['method', 'shots'])
  assert frame.loc[('full', 2), 'median_steps'] == pytest.approx(50 * 0.5 / 0.7)


@pytest.mark.parametrize('change', [{'merged': {'of': 'full'}}, {'cost': {'steps': 0}}])
def test_who_takes_no_steps_is_not_read_and_changes_nothing(small, change_runs, change):
  """A run made of others' weights, and one of no steps, have a single evaluation."""
  before = numbers.speeds(small._replace(), 'full').set_index(['method', 'shots'])

  def of_scratch(result):
    for name, value in change.items() if result['cell']['method'] == 'scratch' else ():
      result[name] = result.get(name, {}) | value

  change_runs(small.workdir, of_scratch)
  for seed in (0, 1):
    curve(small.workdir, 'scratch', seed, [(100, 0.9)])
  after = numbers.speeds(folder.load(small.workdir), 'full').set_index(['method', 'shots'])
  assert set(after.index) == {cell for cell in before.index if cell[0] != 'scratch'}
  for column in ('median_steps', 'reached', 'n'):
    assert after[column].tolist() == before.loc[after.index, column].tolist()


def test_from_a_single_evaluation_no_steps_are_read(small):
  for method in ('full', 'scratch'):
    for seed in (0, 1):
      curve(small.workdir, method, seed, [(100, 0.9)])
  frame = numbers.speeds(small._replace(), 'scratch')
  assert not len(frame[frame['shots'] == 2])


def test_a_score_without_chance_is_read_from_its_first_evaluation_on(small, monkeypatch):
  """0.5 is passed by then: at 50, not at 0, whoever was evaluated at 20 too."""
  monkeypatch.setattr(numbers, 'chance', lambda results, target: math.nan)
  for seed in (0, 1):
    curve(small.workdir, 'scratch', seed, [(50, 0.3), (100, 0.4), (150, 0.5)])
    curve(small.workdir, 'full', seed, [(20, 0.6), (40, 0.7), (60, 0.8), (80, 0.9), (100, 0.9)])
  frame = numbers.speeds(small._replace(), 'scratch').set_index(['method', 'shots'])
  assert frame.loc[('full', 2), 'median_steps'] == 50
  assert frame.loc[('scratch', 2), 'median_steps'] == 150
  runs = numbers.tested(small)
  runs = runs[(runs['method'] == 'full') & (runs['shots'] == 2)]
  assert numbers.steps_to(small._replace(), runs, 0.55).tolist() == [20, 20]


def test_a_random_reference_of_one_source_serves_all(tmp_path, make_study):
  make_study(
    tmp_path,
    sources=('a', 'b'),
    targets=('digits',),
    methods=('scratch', 'full', 'linear'),
    shots=(1, 5),
  )
  for run in (tmp_path / 'runs').iterdir():
    if run.name.startswith(('b-digits-scratch', 'b-digits-full')):
      (run / 'result.json').unlink()
  frame = numbers.differences(folder.load(tmp_path), 'scratch')
  assert frame.groupby('source').size().to_dict() == {'a': 4, 'b': 2}
  frame = numbers.differences(folder.load(tmp_path), 'full')  # which holds something of its source
  assert frame.groupby('source').size().to_dict() == {'a': 4}


def test_rates_say_when_the_choice_is_at_the_edge(tmp_path, results, make_study):
  assert set(numbers.rates(results)['edge']) == {''}
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    rates=(0.0001, 0.001, 0.003),
    diverged=False,
  )
  made = one(tables.make(folder.load(tmp_path)), 'rates-mnist-digits')
  assert made.shown.iloc[0].tolist() == ['scratch', '3', '0.003 ↑']
  assert made.note.startswith('2 of 2 choices')


def in_config(results, **phases):
  """`results` with other phases of some methods in its config."""
  methods = results.config['methods'] | {name: {'phases': own} for name, own in phases.items()}
  return results._replace(config={**results.config, 'methods': methods})


def test_a_rate_that_the_phases_fix_was_not_chosen(tmp_path, make_study):
  results = folder.load(
    make_study(
      tmp_path,
      targets=('digits',),
      methods=('scratch', 'full', 'lp_ft'),
      shots=(1,),
      rates=(0.001, 0.003, 0.01),
      diverged=False,
    )
  )
  results = in_config(
    results,
    full=[{'learning_rate': 0.05}, {'learning_rate': 0.02}],
    lp_ft=[{'learning_rate': 0.01}, {'learning_rate': 0.0}],
  )
  made = one(tables.make(results), 'rates-mnist-digits')
  assert made.shown.to_numpy().tolist() == [
    ['scratch', '3', '0.003'],
    ['full', '1', '0.05 then 0.02'],
    ['lp_ft', '3', '0.003'],
  ]
  assert 'full has its rates fixed by its phases: 0.05, 0.02.' in made.note
  assert 'Rates of the phases of lp_ft: 0.01, the chosen one.' in made.note
  assert numbers.rates(results).set_index('method').loc[
    'full', ['learning_rate', 'settings', 'edge']
  ].tolist() == [0.05, 1, 'only one tried']


def decays(change_runs, study, of):
  """Gives every run the weight decay of(its learning rate), and one learning rate."""

  def change(result):
    result['cell'] |= {'weight_decay': of[result['cell']['learning_rate']], 'learning_rate': 0.001}

  change_runs(study, change)
  return folder.load(study)


def test_a_weight_decay_at_the_edge_is_said_with_the_way_to_extend(
  tmp_path, make_study, change_runs
):
  study = make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    rates=(0.001, 0.01, 0.003),
    diverged=False,
  )
  results = decays(change_runs, study, {0.001: 0.0, 0.01: 0.01, 0.003: 0.1})
  made = one(tables.make(results), 'rates-mnist-digits')
  assert made.shown.iloc[0].tolist() == ['scratch', '3', '0.001 (wd 0.1 ↑)']
  assert made.note.startswith('2 of 2 choices')
  assert 'Extend the grid: weight decays above 0.1 for scratch (at 1), full (at 1).' in made.note


def test_no_weight_decay_is_not_an_edge(tmp_path, make_study, change_runs):
  study = make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    rates=(0.001, 0.01, 0.003),
    diverged=False,
  )
  results = decays(change_runs, study, {0.003: 0.0, 0.01: 0.01, 0.001: 0.1})
  assert one(tables.make(results), 'rates-mnist-digits').note.startswith(
    'No choice lies at the edge'
  )


def test_penalties_have_edges_too(probes, tmp_path_factory, make_study):
  made = make_study(
    tmp_path_factory.mktemp('penalties'),
    targets=('digits',),
    methods=('probe', 'probe_a'),
    shots=(5,),
    rates=(0.0001, 0.001, 0.003),
    diverged=False,
  )
  table = one(tables.make(folder.load(made)), 'rates-mnist-digits')
  assert table.shown['5'].tolist() == ['penalty 0.003 ↑'] * 2
  assert 'Extend the grid: penalties above 0.003 for probe (at 5), probe_a (at 5).' in table.note


def test_a_grid_of_two_is_too_short_to_tell(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    rates=(0.001, 0.003),
    diverged=False,
  )
  made = one(tables.make(folder.load(tmp_path)), 'rates-mnist-digits')
  assert made.shown['1'].tolist() == ['0.003', '0.003']
  assert made.note.startswith(
    'scratch, full: of two values each is at an edge, so the grid is too short to tell'
  )


def test_validation_says_how_many_images_chose_for_how_many(tmp_path, make_study, change_runs):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1, 5, 0),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  note = one(tables.make(folder.load(tmp_path)), 'rates-mnist-digits').note
  assert (
    '300 validation examples chose the settings and name the best methods, for training sets of 10 '
    'to 1,560 examples' in note
  )
  assert 'more than the 10, 50 trained on' in note
  change_runs(tmp_path, lambda result: result['val'].update(count=min(300, result['num_train'])))
  note = one(tables.make(folder.load(tmp_path)), 'rates-mnist-digits').note
  assert 'by training examples: 10 for 10, 50 for 50, 300 for 1,560.' in note
  assert 'more than' not in note


def test_costs(results):
  row = (
    numbers.costs(results).query('method == "linear" and shots == 5 and target == "digits"').iloc[0]
  )
  assert row['share'] == pytest.approx(650 / 23456)
  assert row['train_seconds'] == pytest.approx(9650 * 300e-7)
  assert row['search_seconds'] == pytest.approx(15 * 9650 * 300e-7)
  shown = one(tables.make(results), 'cost-mnist-digits').shown
  assert shown[shown['Method'] == 'linear'].iloc[0].tolist()[1:4] == ['650', '2.8%', '5.2k']


def test_costs_are_those_of_the_chosen_runs(tmp_path, make_study, change_runs):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.001, 0.003, 0.01),
    diverged=False,
  )

  def change(result):
    seed = result['cell']['seed']
    result['cost'] |= {
      name: (2.0 + seed if result['chosen'] else 50.0)
      for name in ('train_seconds', 'feature_seconds', 'compile_seconds', 'eval_seconds')
    }
    result['cost'] |= {
      'optimizer_bytes': 10 if result['chosen'] else 70,
      'features': 'read' if seed else 'computed',
    }

  change_runs(tmp_path, change)
  results = folder.load(tmp_path)
  row = numbers.costs(results).iloc[0]
  assert (row[['train_seconds', 'feature_seconds', 'compile_seconds', 'eval_seconds']] == 2.5).all()
  assert row['optimizer_bytes'] == 10
  assert row['search_seconds'] == 2 + 3 + 4 * 50
  made = one(tables.make(results), 'cost-mnist-digits')
  assert made.shown.iloc[0][['Train s', 'Eval s', 'Features s', 'Compile s']].tolist() == [
    '2.5',
    '2.5',
    '2.5 (computed and read)',
    '2.5',
  ]
  assert 'the training steps alone' in made.note


def test_an_exact_solution_has_no_optimizer(everything):
  shown = one(tables.make(everything), 'cost-mnist-digits').shown
  assert shown.iloc[2][['Optimizer bytes', 'Train FLOPs', 'Steps', 'Compile s']].tolist() == [
    '–',
    '–',
    'exact',
    '0.1',
  ]
  assert shown['Optimizer bytes'].tolist()[:2] == ['188k', '188k']
  assert numbers.costs(everything).query('method == "probe"')['optimizer_bytes'].isna().all()


def test_where_the_time_went(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch',),
    shots=(1,),
    seeds=(0,),
    rates=(0.01,),
    diverged=False,
  )
  assert not [table for table in tables.make(folder.load(tmp_path)) if table.name == 'time']
  starts = [
    {'wall_seconds': 100.0, 'data_seconds': 10.0, 'train_seconds': 60.0, 'other_seconds': 28.0},
    {'wall_seconds': 10.0, 'data_seconds': 10.0, 'train_seconds': 0.0, 'other_seconds': 0.0},
  ]
  (tmp_path / 'time.json').write_text(json.dumps(starts))
  made = one(tables.make(folder.load(tmp_path)), 'time')
  assert made.shown.to_numpy().tolist() == [
    ['1', '10', '60', '28', '100'],
    ['2', '10', '0', '0', '10'],
  ]
  assert 'make 98% of the time' in made.note


@pytest.fixture
def guessed(tmp_path, make_study, change_runs):
  """Scratch learns its examples and guesses on the rest; full is sound; linear says one class of a
  test set where that is 40%.
  """
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full', 'linear'),
    shots=(5,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )

  def change(result):
    method = result['cell']['method']
    if method == 'scratch':
      result['val'] |= {'loss': 2.6}
      result['test'] |= {'accuracy': 0.11}
    if method == 'linear':
      result['test'] |= {
        'accuracy': 0.4,
        'balanced_accuracy': 0.1,
        'recall': [1.0] + [0.0] * 8 + [None],
      }

  change_runs(tmp_path, change)
  for path in tmp_path.glob('runs/*scratch*/metrics.jsonl'):
    path.write_text(path.read_text().replace('"loss": 1.0', '"loss": 0.2'))
  return tmp_path


def test_what_cannot_be_used_is_flagged(guessed):
  results = folder.load(guessed)
  assert cautions.unusable(results).set_index('method')['reason'].to_dict() == {
    'scratch': 'at chance (11.0%, though its training loss is 0.2)',
    'linear': 'at chance (40.0%, though its training loss is 1)',
  }
  made = tables.make(results)
  accuracy = one(made, 'accuracy-mnist-digits')
  assert [cell.endswith(' †') for cell in accuracy.shown['5']] == [
    True,
    False,
    True,
  ]
  assert 'linear at 5: at chance' in accuracy.note
  assert len(one(made, 'chance').shown) == 4
  assert '10.0%' in one(made, 'chance').shown['Guessing'].tolist()
  said = findings.sentences(results)['mnist → digits']
  assert said[0].startswith('5 per class: the baseline scratch cannot be used: at chance')
  assert 'Differences to it' in said[0]


def test_a_loss_beyond_guessing_is_flagged_where_training_went_well(guessed, change_runs):
  def accuracies(scratch):
    def change(result):
      value = scratch if result['cell']['method'] == 'scratch' else 0.6
      result['test'].update(accuracy=value)
      result['val'].update(accuracy=value)

    return change

  change_runs(guessed, accuracies(0.4))  # more than half way to the best: sure, and useful
  assert 'scratch' not in set(cautions.unusable(folder.load(guessed))['method'])
  change_runs(guessed, accuracies(0.3))
  reasons = cautions.unusable(folder.load(guessed)).set_index('method')['reason']
  assert reasons['scratch'].startswith(
    'worse than guessing by its loss (validation loss 2.6, training loss 0.2; guessing has 2.3)'
  )
  assert 'full' not in reasons.index
  # it has learned nothing yet: its loss is what it is
  for path in guessed.glob('runs/*scratch*/metrics.jsonl'):
    path.write_text(path.read_text().replace('"loss": 0.2', '"loss": 2.2'))
  assert 'scratch' not in set(cautions.unusable(folder.load(guessed))['method'])


def test_a_diverged_run_spoils_its_cell(guessed, change_runs):
  def diverge(result):
    if result['cell']['method'] == 'full' and result['cell']['seed'] == 0:
      result['status'] = 'not finite'

  change_runs(guessed, diverge)
  results = folder.load(guessed)
  reasons = cautions.unusable(results).set_index('method')['reason']
  assert reasons['full'] == '1 of 2 runs diverged or are not finite'
  assert one(tables.make(results), 'accuracy-mnist-digits').shown['5'].str.endswith(' †').all()


def test_sound_runs_are_not_flagged(results):
  assert not len(cautions.unusable(results))
  assert not [table for table in tables.make(results) if table.name == 'chance']


def test_classes_go_by_their_names(guessed):
  study = json.loads((guessed / 'study.json').read_text())
  names = [f'class <{letter}>' for letter in 'abcdefghij']
  (guessed / 'study.json').write_text(
    json.dumps(study | {'data': {'mnist/digits': {'class_names': names}}})
  )
  made = tables.make(folder.load(guessed))
  recall = one(made, 'recall-mnist-digits').shown
  assert recall['Class'].tolist() == names[:9]  # the last has no test example
  assert recall['linear'].tolist() == ['100.0'] + ['0.0'] * 8
  assert one(made, 'balanced-mnist-digits').shown.to_numpy().tolist() == [['linear', '10.0 alike']]


def test_recall_of_earlier_folders_comes_from_their_predictions(tmp_path, make_study, predict):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(5,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  # 40 examples, 4 of each of 10 classes in turn: of class 3 half are found, of the others all
  predict(tmp_path, lambda result: [i % 10 != 3 or i < 20 for i in range(40)])
  results = folder.load(tmp_path)
  found = classes.recalls(results).query('method == "full"').set_index('class')['mean']
  assert found['3'] == 0.5 and found.drop('3').eq(1.0).all()
  assert classes.balanced(results)['mean'].tolist() == pytest.approx([0.95, 0.95])


def test_of_many_classes_those_found_least_are_shown(tmp_path, make_study, change_runs):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('full',),
    shots=(5,),
    seeds=(0,),
    rates=(0.01,),
    diverged=False,
    baseline='',
  )
  recalls = {'recall': [i / 100 for i in range(100)], 'balanced_accuracy': 0.495}
  change_runs(tmp_path, lambda result: result['test'].update(recalls))
  made = one(tables.make(folder.load(tmp_path)), 'recall-mnist-digits')
  assert made.shown['Class'].tolist() == [str(i) for i in range(30)]
  assert 'The 30 of 100 classes' in made.note
  assert len(made.numbers) == 100


def test_words_beside_the_intervals(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(2, 0),
    seeds=(0, 1, 2),
    rates=(0.01,),
    diverged=False,
  )
  # shared: 3, 2 and 3 of 4
  subsets = {0: list('abcd'), 1: list('abce'), 2: list('abef')}
  (tmp_path / 'subsets').mkdir()
  (tmp_path / 'subsets' / 'digits.json').write_text(
    json.dumps({seed: {'2': ids, '0': list('abcdefgh')} for seed, ids in subsets.items()})
  )
  results = folder.load(tmp_path)
  assert cautions.overlap(results, 'digits') == {2: pytest.approx(2 / 3), 0: 1.0}
  note = one(tables.make(results), 'accuracy-mnist-digits').note
  assert 'Intervals are over seeds only.' in note
  assert 'share 67% at 2 per class, 100% at all of their examples' in note
  assert 'There is one source network' in note and 'one test set of 597 examples' in note
  best = numbers.means(results)['mean'].max()
  low, high = statistics.wilson_interval(best, 597)
  assert (
    f'at {formats.percent(best)}%, drawing another one alone would give {formats.percent(low)} to '
    f'{formats.percent(high)}' in note
  )


def test_intervals_with_test_sampling(tmp_path, make_study, predict):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full', 'probe'),
    shots=(0,),
    seeds=(0, 1, 2, 3),
    rates=(0.01,),
    diverged=False,
  )
  random = np.random.default_rng(0)

  def right(result):
    probe = result['cell']['method'] == 'probe'
    return np.arange(200) < 100 if probe else random.random(200) < 0.8

  predict(tmp_path, right)
  results = folder.load(tmp_path)
  assert not [table for table in tables.make(results) if table.name.startswith('sampled')]
  frame = sampling.intervals(results, 'scratch').set_index('method')
  means = numbers.means(results).set_index('method')
  assert frame.loc['full', 'mean'] == pytest.approx(means.loc['full', 'mean'])
  assert frame.loc['full', 'low'] < means.loc['full', 'low']
  assert frame.loc['full', 'high'] > means.loc['full', 'high']
  # One result of all seeds: of the examples alone, 0.5 +- 1.96 sqrt(0.25 / 200)
  assert frame.loc['probe', ['low', 'high']].tolist() == pytest.approx(
    [0.5 - 0.0693, 0.5 + 0.0693], abs=0.01
  )
  pairs = numbers.differences(results, 'scratch').set_index('method')
  assert frame.loc['full', 'difference'] == pytest.approx(pairs.loc['full', 'difference'])
  assert np.isnan(frame.loc['scratch', 'difference'])
  assert frame.loc['full', 'difference_low'] < pairs.loc['full', 'low']
  assert frame.loc['full', 'difference_high'] > pairs.loc['full', 'high']
  made = one(tables.make(results, test_sampling=True), 'sampled-mnist-digits')
  assert 'Minus scratch' in made.shown
  assert made.shown['Method'].tolist() == [
    'scratch',
    'full',
    'probe',
  ]


def test_differences_with_test_sampling_pair_seeds_and_examples(tmp_path, make_study, predict):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1, 2),
    rates=(0.01,),
    diverged=False,
  )

  # Per seed other examples are right, the same for both methods but 2 of 300 that full has beyond
  def right(result):
    number = 150 + 2 * (result['cell']['method'] == 'full')
    return (np.arange(300) * 7 + 50 * result['cell']['seed']) % 300 < number

  predict(tmp_path, right)
  row = sampling.intervals(folder.load(tmp_path), 'scratch').set_index('method').loc['full']
  assert row['difference'] == pytest.approx(2 / 300)
  assert row['difference_high'] - row['difference_low'] < 0.03
  assert row['high'] - row['low'] > 0.05


def test_test_sampling_wants_one_test_set(tmp_path, make_study, predict):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  predict(tmp_path, lambda result: np.ones(20 + result['cell']['seed'], bool))
  with pytest.raises(ValueError, match='tested on other examples'):
    tables.make(folder.load(tmp_path), test_sampling=True)


def test_other_versions_and_notes_are_said(tmp_path, make_study, change_runs):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )

  def made_by(result):
    jax = '0.12' if result['cell']['seed'] else '0.10.2'
    result['versions'] = {'jax': jax, 'tlx': '0.1.0', 'new': '1'}

  change_runs(tmp_path, made_by)
  study = json.loads((tmp_path / 'study.json').read_text())
  (tmp_path / 'study.json').write_text(
    json.dumps(study | {'data': {'mnist/digits': {'notes': ['3 images are copies of another.']}}})
  )
  (tmp_path / 'sources' / 'mnist').mkdir(parents=True)
  (tmp_path / 'sources' / 'mnist' / 'result.json').write_text(
    json.dumps({'assumed': ['GELU, which the file does not say.']})
  )
  said = cautions.notes(folder.load(tmp_path))
  assert said[:2] == [
    'mnist → digits: 3 images are copies of another.',
    'Source mnist: assumed: GELU, which the file does not say.',
  ]
  assert said[2].startswith(
    '2 of 4 runs were made by other versions than the last start of the study: jax 0.12 instead '
    'of 0.10.2.'
  )
  assert len(said) == 3
  assert 'mnist-digits-full-1shot-seed1-lr0.01' in said[2] and 'seed0' not in said[2]
  text = report.summary(tmp_path)
  assert all(line in text for line in said) and text.count('other versions') == 1


def test_diverged_runs_are_listed(results):
  assert one(tables.make(results), 'diverged').shown.to_numpy().tolist() == [
    ['mnist-digits-full-1shot-seed4-lr0.01', 'diverged at step 7', '0.01', 'no']
  ]


def test_depths_take_the_method_that_trains_most(results):
  frame = layers.depths(results).query('target == "digits" and shots == 1')
  assert frame['method'].tolist() == ['full', 'freeze2', 'linear']
  assert frame['frozen_stages'].tolist() == [0, 2, 4]
  assert frame['best'].tolist() == [False, True, False]


def test_across_targets(results):
  frame = numbers.across_targets(results, 'scratch').set_index(['method', 'shots'])
  runs = results.runs[
    results.runs['chosen'] & (results.runs['method'] == 'full') & (results.runs['shots'] == 1)
  ]
  assert frame.loc[('full', 1), 'iqm'] == pytest.approx(
    stats.trim_mean(runs['test_accuracy'], 0.25)
  )
  assert frame.loc[('full', 1), 'num_targets'] == 2
  assert 0.3 < frame.loc[('full', 1), 'probability_of_improvement'] < 0.7
  assert np.isnan(frame.loc[('scratch', 1), 'probability_of_improvement'])


def test_findings_are_honest(results, small):
  near, far = findings.sentences(results).values()
  assert 'lp_ft is best on validation' in near[0]
  assert '5 of 5 pairs won' in near[0]
  assert near[-2].endswith('no negative transfer is shown.')
  assert 'scratch is best on validation' in far[0] and 'Negative transfer: ' in far[-2]
  assert (
    near[-1]
    == 'Leading stages to freeze, by validation accuracy: 2 of 5 (freeze2) at 1, 5 per class.'
  )
  sentences = findings.sentences(small)['mnist → digits']
  assert 'one pair, which says nothing about chance' in sentences[1]
  assert findings.progress(results).startswith('480 of 500 runs done (partial')


def test_findings_say_when_the_interval_includes_zero(small):
  runs = small.runs.copy()
  runs.loc[(runs['method'] == 'full') & (runs['seed'] == 1), 'test_accuracy'] = 0.59
  sentences = findings.sentences(small._replace(runs=runs))['mnist → digits']
  assert 'two pairs are too few to tell a difference from chance' in sentences[0]
  runs = pd.concat([runs, runs.assign(seed=runs['seed'] + 2, id=runs['id'] + '-more')])
  more = {f'{name}-more': result for name, result in small.found.items()}
  grown = small._replace(runs=runs, found={**small.found, **more})
  sentences = findings.sentences(grown)['mnist → digits']
  assert 'the interval includes 0, so no difference is shown' in sentences[0]


def test_findings_name_the_best_by_validation_not_by_test(small):
  runs = small.runs.copy()
  runs.loc[(runs['method'] == 'full') & (runs['shots'] == 2), 'val_accuracy'] = 0.1
  assert (
    'scratch is best on validation'
    in findings.sentences(small._replace(runs=runs))['mnist → digits'][0]
  )


def test_two_chosen_runs_of_one_seed_are_an_error(small):
  runs = pd.concat([small.runs, small.runs.iloc[:1]])
  with pytest.raises(ValueError, match='Two chosen runs'):
    numbers.differences(small._replace(runs=runs), 'scratch')


TABLE = formats.Table(
  't',
  'A_b | c',
  pd.DataFrame({'Method': ['lp_ft|x', '<b>'], '5': ['1.0 ± 0.5', '−2.0%']}),
  pd.DataFrame({'x': [0.125]}),
  'Note & all.',
)


def test_markdown():
  assert formats.markdown(TABLE).splitlines() == [
    '**A_b | c**',
    '',
    '| Method | 5 |',
    '| :-- | --: |',
    '| lp_ft\\|x | 1.0 ± 0.5 |',
    '| &lt;b> | −2.0% |',
    '',
    'Note & all.',
  ]


def test_latex():
  made = formats.latex(TABLE)
  assert r'lp\_ft|x & 1.0 $\pm$ 0.5 \\' in made
  assert r'\textless{}b\textgreater{} & $-$2.0\% \\' in made
  assert r'\caption{A\_b | c}' in made
  assert r'\begin{tabular}{lr}' in made
  assert made.count(r'\midrule') == 1
  assert r'Note \& all.' in made


def test_text_lines_up():
  lines = formats.text(TABLE).splitlines()
  assert lines[1:5] == [
    'Method           5',
    '-------  ---------',
    'lp_ft|x  1.0 ± 0.5',
    '<b>          −2.0%',
  ]


def test_saved_numbers_are_the_numbers(results, tmp_path):
  formats.save(tables.scores(results), tmp_path)
  back = pd.read_csv(tmp_path / 'accuracy-mnist-digits.csv')
  wanted = numbers.means(results).query('target == "digits"').reset_index(drop=True)
  assert back.pop('unusable').isna().all()
  pd.testing.assert_frame_equal(back, wanted)
  assert (
    len(list(csv.reader(io.StringIO((tmp_path / 'accuracy-mnist-digits.csv').read_text())))) == 17
  )


def test_numbers_for_people():
  assert [formats.quantity(x) for x in (999.7, 999700, 1e6, 0.00012, math.inf)] == [
    '1k',
    '1M',
    '1M',
    '0.00012',
    '∞',
  ]
  assert [formats.probability(x) for x in (0.0004, 0.0213, 1.0, math.nan)] == [
    '<0.001',
    '0.021',
    '1',
    '–',
  ]
  assert formats.percent(-0.00049, signed=True) == '0.0' and formats.percent(0.9996) == '100.0'


def test_summary_is_for_a_terminal(study):
  made = report.summary(study)
  assert 'Test accuracy in %, mnist → digits' in made
  assert 'Runs that diverged or are not finite: 1 of 480' in made
  assert '<' not in made.replace('<0.001', '')
