"""Claims as data: verdicts by hand and against scipy, and claims that must come out as failures."""

import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from tests.report.test_levels import SOURCES, accuracies, make, two_way
from tests.study import tiny
from tlx import report
from tlx.report import claims, levels, page, tables
from tlx.report.folder import load
from tlx.study import config, dry_run

HAVE = {
  'source': ('mnist',),
  'target': ('digits', 'textures'),
  'method': ('scratch', 'full', 'linear'),
  'shots': (1, 5),
}


def claim(have=HAVE, **fields):
  """A claim as a resolved config has it: that full is above scratch, but for `fields`."""
  given = {'name': 'It helps', 'of': {'method': 'full'}, 'minus': {'method': 'scratch'}, **fields}
  return claims.resolved('config.claims[0]', claims.CLAIM | given, have)


def verdicts(folder, *stated):
  """The rows of these claims over the results of a folder, which are not written down there."""
  results = load(folder)
  results = results._replace(config={**results.config, 'claims': json.loads(json.dumps(stated))})
  return claims.verdicts(results).to_dict('records')


@pytest.fixture(scope='module')
def plain(tmp_path_factory, make_study):
  """Two targets, of which transfer helps on the first and hurts on the second; 5 seeds."""
  folder = tmp_path_factory.mktemp('claims')
  methods = ('scratch', 'full', 'linear')
  return make_study(folder, methods=methods, rates=(0.003,), diverged=False)


@pytest.fixture(scope='module')
def scores(plain):
  """(method, shots, target) -> accuracies [seeds], read without the report."""
  found = {}
  for path in plain.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    cell = result['cell']
    place = cell['method'], cell['shots'], cell['target']
    found.setdefault(place, {})[cell['seed']] = result['test']['accuracy']
  return lambda *place: np.array([found[place][seed] for seed in range(5)])


def test_a_difference_is_the_paired_one_of_scipy(plain, scores):
  (row,) = verdicts(plain, claim(of={'method': 'full', 'target': 'digits', 'shots': 5}))
  test = stats.ttest_rel(scores('full', 5, 'digits'), scores('scratch', 5, 'digits'))
  ends = test.confidence_interval(0.95)
  assert row['estimate'] == pytest.approx(test.statistic * test._standard_error)
  assert (row['low'], row['high']) == pytest.approx((ends.low, ends.high))
  assert row['t_p'] == pytest.approx(test.pvalue) and (row['n'], row['over']) == (5, '5 seeds')


def test_a_selection_of_several_is_their_mean(plain, scores):
  (row,) = verdicts(plain, claim(of={'method': 'full', 'target': 'digits'}))
  apart = np.mean(
    [scores('full', size, 'digits') - scores('scratch', size, 'digits') for size in (1, 5)], axis=0
  )
  ends = stats.t.interval(0.95, 4, apart.mean(), stats.sem(apart))
  assert (row['low'], row['high']) == pytest.approx(ends)


def test_an_interaction_is_a_difference_of_differences(plain, scores):
  near = {'method': 'full', 'target': 'digits', 'shots': 1}
  stated = claim(kind='interaction', of=near, than={'target': 'textures'}, threshold=0.01)
  (row,) = verdicts(plain, stated)
  gains = [scores('full', 1, t) - scores('scratch', 1, t) for t in ('digits', 'textures')]
  test = stats.ttest_1samp(gains[0] - gains[1], 0.01)
  ends = test.confidence_interval(0.95)
  assert row['estimate'] == pytest.approx((gains[0] - gains[1]).mean())
  assert (row['low'], row['high'], row['t_p']) == pytest.approx((ends.low, ends.high, test.pvalue))
  assert row['verdict'] == 'holds'


def test_numbers_along_an_axis_are_those_of_scipy(plain, scores):
  """At each seed: the trend over methods, the share of targets won, a rank correlation, a ratio."""
  methods = ('scratch', 'linear', 'full')
  stated = [
    claim(kind='trend', of={'target': 'digits', 'shots': 1}, minus={}, along={'method': methods}),
    claim(kind='fraction', of={'method': 'full', 'shots': 1}, along={'target': HAVE['target']}),
    claim(
      kind='correlation',
      of={'target': 'digits', 'shots': 1},
      minus={'shots': 5},
      along={'method': methods},
    ),
    claim(kind='ratio', of={'method': 'full', 'target': 'digits', 'shots': 1}),
  ]
  at = {m: {s: scores(m, s, 'digits') for s in (1, 5)} for m in methods}
  wins = [scores('full', 1, t) > scores('scratch', 1, t) for t in HAVE['target']]
  by_seed = [
    [stats.kendalltau([0, 1, 2], [at[m][1][seed] for m in methods])[0] for seed in range(5)],
    np.mean(wins, axis=0),
    [
      stats.spearmanr([at[m][1][seed] for m in methods], [at[m][5][seed] for m in methods])[0]
      for seed in range(5)
    ],
    at['full'][1] / at['scratch'][1],
  ]
  assert len({np.mean(values) for values in by_seed}) == 4
  for row, values in zip(verdicts(plain, *stated), by_seed, strict=True):
    assert row['estimate'] == pytest.approx(np.mean(values))
    if np.ptp(values):
      ends = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
      assert (row['low'], row['high']) == pytest.approx(ends)


def test_which_of_two_varies_more_is_brown_and_forsythes(plain, scores):
  """Their test is one of differences of absolute deviations from the median."""
  of = {'method': 'linear', 'target': 'digits', 'shots': 1}
  (row,) = verdicts(plain, claim(kind='spread', of=of))
  apart = [
    np.abs(score - np.median(score))
    for score in (scores('linear', 1, 'digits'), scores('scratch', 1, 'digits'))
  ]
  ends = stats.t.interval(0.95, 4, (apart[0] - apart[1]).mean(), stats.sem(apart[0] - apart[1]))
  assert (row['low'], row['high']) == pytest.approx(ends) and row['estimate'] != 0


def test_steps_to_a_score_are_read_off_the_curves(make_study, tmp_path):
  """Straight between evaluations from chance at step 0; all steps where it is not reached."""
  make_study(tmp_path, methods=('scratch', 'full', 'linear'), rates=(0.003,), diverged=False)
  curves = {'full': [0.4, 0.8, 0.9], 'scratch': [0.3, 0.4, 0.6]}
  for path in tmp_path.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    if method := curves.get(result['cell']['method']):
      score = [value + 0.01 * result['cell']['seed'] for value in method]
      lines = [{'step': 10 * (i + 1), 'val_accuracy': v} for i, v in enumerate(score)]
      (path.parent / 'metrics.jsonl').write_text(''.join(json.dumps(one) + '\n' for one in lines))
      result = {k: v for k, v in result.items() if k not in ('sha256', 'files')}
      path.write_text(json.dumps(result))
  of = {'method': 'full', 'target': 'digits', 'shots': 1}
  column = 'steps_to_0.7'
  (row,) = verdicts(tmp_path, claim(kind='ratio', of=of, column=column, expected='below'))
  steps = [10 + 10 * (0.7 - 0.4 - 0.01 * seed) / 0.4 for seed in range(5)]
  assert row['estimate'] == pytest.approx(np.mean(steps) / 30)
  with pytest.raises(ValueError, match='wants a score behind steps_to_'):
    claims.check_column('config.claims[0]', claim(column='steps_to_soon'), ['accuracy'])
  claims.check_column('config.claims[0]', claim(column=column), ['accuracy'])


@pytest.mark.parametrize(
  'over, wanted', [('3 source seeds', '; about 4 source seeds'), ('3 folds', '')]
)
def test_how_many_folds_would_decide_is_not_known(over, wanted):
  """Folds are parts of one set of examples: more of them are not so many results more."""
  row = {'estimate': 0.3, 'low': 0.05159, 'high': 0.54841, 'threshold': 0.1, 'n': 3, 'over': over}
  assert claims._needed(row)[: len(wanted) or None] == wanted


def test_an_interval_of_a_fraction_ends_where_fractions_do(write_run, tmp_path):
  """full is better on both targets at two seeds and on one at the third: 5/6 ± 4.303 / 6 to 1."""
  for seed in range(3):
    for target in ('near', 'far'):
      better = not (seed == 2 and target == 'far')
      write_run(tmp_path, ('mnist', target, 'full', 1, seed, 0.003), 0.6 if better else 0.4)
      write_run(tmp_path, ('mnist', target, 'scratch', 1, seed, 0.003), 0.5)
  (tmp_path / 'study.json').write_text('{"config": {}}')
  of = {'method': 'full', 'shots': 1}
  stated = claim(
    {'source': ('mnist',), 'target': ('near', 'far'), 'method': ('full', 'scratch'), 'shots': (1,)},
    kind='fraction', of=of, along={'target': ('near', 'far')}, threshold=0.5,
  )  # fmt: skip
  (row,) = verdicts(tmp_path, stated)
  assert row['estimate'] == pytest.approx(5 / 6) and row['high'] == 1.0
  assert row['low'] == pytest.approx(5 / 6 - 4.3027 / 6, abs=1e-4)


def test_a_trend_turned_around_changes_its_sign(plain):
  methods = ('scratch', 'linear', 'full')
  of = {'target': 'digits', 'shots': 1}
  there, back = (
    claim(kind='trend', of=of, minus={}, along={'method': order})
    for order in (methods, methods[::-1])
  )
  one, other = verdicts(plain, there, back)
  assert one['estimate'] == -other['estimate'] > 0


def test_a_trend_that_all_results_have_whole_is_tested_by_their_number(make_study, tmp_path):
  """Every size is better than the one before it at every seed: six of them decide, five do not."""
  make_study(tmp_path, methods=('full',), rates=(0.003,), seeds=range(6), diverged=False)
  of = {'target': 'digits', 'method': 'full'}
  stated = claim(kind='trend', of=of, minus={}, along={'shots': (1, 5)})
  results = load(tmp_path)
  results = results._replace(config={**results.config, 'claims': [stated]})
  for count, p, verdict in ((6, 2 / 2**6, 'holds'), (5, 2 / 2**5, 'undecided')):
    few = results._replace(runs=results.runs[results.runs['seed'] < count])
    (row,) = claims.verdicts(few).to_dict('records')
    assert (row['estimate'], row['n'], row['high']) == (1.0, count, 1.0)
    assert row['t_p'] == pytest.approx(p) and row['verdict'] == verdict
  assert row['why'] == 'the interval includes the threshold'


def test_what_the_source_scored_is_a_column(make_study, tmp_path):
  """Sources that are better on their own data transfer better here, in every seed."""
  names = ('a', 'b', 'c')
  make_study(tmp_path, sources=names, targets=('near',), methods=('full',), shots=(1,),
             seeds=(0, 1, 2), rates=(0.003,), diverged=False)  # fmt: skip
  for path in tmp_path.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    cell = result['cell']
    result['test']['accuracy'] = 0.5 + 0.1 * names.index(cell['source']) + 0.01 * cell['seed']
    path.write_text(json.dumps({k: v for k, v in result.items() if k not in ('sha256', 'files')}))
  for name in names:
    (tmp_path / 'sources' / name).mkdir(parents=True, exist_ok=True)
    own = {'test': {'accuracy': 0.9 + 0.01 * names.index(name)}, 'select': ['accuracy', 1]}
    (tmp_path / 'sources' / name / 'result.json').write_text(json.dumps(own))
  have = {'source': names, 'target': ('near',), 'method': ('full',), 'shots': (1,)}
  of = {'method': 'full'}
  stated = claim(have, kind='correlation', of=of, minus={}, minus_column='source_score',
                 along={'source': names})  # fmt: skip
  (row,) = verdicts(tmp_path, stated)
  assert row['estimate'] == pytest.approx(1.0)
  assert 'with source_score, along source a, b, c' in row['rule']


def test_verdicts_by_hand(write_run, tmp_path):
  """full minus scratch is 0.2, 0.3, 0.4 in three seeds: 0.3 with 4.303 * 0.1 / sqrt(3) = 0.248."""
  for seed, (full, scratch) in enumerate(((0.5, 0.3), (0.7, 0.4), (0.8, 0.4))):
    write_run(tmp_path, ('mnist', 'digits', 'full', 1, seed, 0.003), full)
    write_run(tmp_path, ('mnist', 'digits', 'scratch', 1, seed, 0.003), scratch)
  (tmp_path / 'study.json').write_text('{"config": {}}')
  of = {'method': 'full', 'target': 'digits', 'shots': 1}
  expected = [(0.0, 'above', 'holds'), (0.1, 'above', 'undecided'), (0.6, 'above', 'fails'),
              (0.6, 'below', 'holds'), (0.0, 'below', 'fails')]  # fmt: skip
  for threshold, side, verdict in expected:
    (row,) = verdicts(tmp_path, claim(of=of, threshold=threshold, expected=side))
    if verdict == 'undecided':  # 3.182 * 0.1 / sqrt(4) = 0.159 is less than 0.3 - 0.1
      assert 'about 4 seeds would decide it' in row['why']
    assert (row['estimate'], row['low'], row['high']) == pytest.approx(
      (0.3, 0.05159, 0.54841), abs=1e-4
    )
    assert row['verdict'] == verdict, (threshold, side)
  assert row['t_p'] == pytest.approx(0.03509, abs=1e-4)  # t = 0.3 / 0.057735 = 5.196, 2 df


def test_swapped_sides_fail(plain):
  for target, swapped in (('digits', 'fails'), ('textures', 'holds')):
    of = {'method': 'scratch', 'target': target, 'shots': 1}
    (row,) = verdicts(plain, claim(of=of, minus={'method': 'full'}))
    assert row['verdict'] == swapped


def test_holm_is_over_the_claims_of_a_config(write_run, tmp_path):
  """p = 0.0351 alone is shown; with a second claim that has none it is 0.07, and undecided."""
  for seed, (full, scratch) in enumerate(((0.5, 0.3), (0.7, 0.4), (0.8, 0.4))):
    write_run(tmp_path, ('mnist', 'digits', 'full', 1, seed, 0.003), full)
    write_run(tmp_path, ('mnist', 'digits', 'scratch', 1, seed, 0.003), scratch)
    write_run(tmp_path, ('mnist', 'digits', 'linear', 1, seed, 0.003), full + 0.01 * (seed - 1))
  (tmp_path / 'study.json').write_text('{"config": {}}')
  at = {'target': 'digits', 'shots': 1}
  first = claim(of={'method': 'full', **at})
  second = claim(of={'method': 'linear', **at}, minus={'method': 'full'})
  assert verdicts(tmp_path, first)[0]['verdict'] == 'holds'
  one, other = verdicts(tmp_path, first, second)
  assert one['holm_p'] == pytest.approx(2 * one['t_p']) and one['low'] > 0
  assert one['verdict'] == other['verdict'] == 'undecided' and 'Holm' in one['why']


def test_the_interval_is_over_source_seeds_and_seeds(make_study, tmp_path):
  folder = make(make_study, tmp_path)
  have = {'source': ('m',), 'target': ('faces',), 'method': ('scratch', 'full'), 'shots': (1, 5)}
  (row,) = verdicts(folder, claim(have, of={'method': 'full', 'shots': 5}))
  apart = accuracies(folder, 'full', 5)[:, 0] - accuracies(folder, 'scratch', 5)[0]
  assert row['estimate'] == pytest.approx(apart.mean())
  assert row['high'] - row['estimate'] == pytest.approx(two_way(apart))
  assert (row['n'], row['over']) == (15, '3 source seeds and 5 seeds')


def test_two_sources_are_paired_by_their_seeds(make_study, tmp_path):
  """m and n have source seeds 0, 1, 2 each, and a random start that is run for the first alone."""
  names = [name.replace('m', source) for source in 'mn' for name in SOURCES]
  make_study(tmp_path, sources=names, targets=('near', 'far'), methods=('full',), shots=(1,),
             seeds=(0, 1), rates=(0.003,), diverged=False)  # fmt: skip
  study = json.loads((tmp_path / 'study.json').read_text())
  study['config']['sources'] = {name: SOURCES[name.replace('n', 'm')] for name in names}
  (tmp_path / 'study.json').write_text(json.dumps(study))
  have = {'source': ('m', 'n'), 'target': ('near', 'far'), 'method': ('full',), 'shots': (1,)}
  of = {'method': 'full', 'source': 'm', 'target': 'near'}
  stated = claim(have, kind='interaction', of=of, minus={'source': 'n'}, than={'target': 'far'})
  (row,) = verdicts(tmp_path, stated)
  found = {}
  for path in tmp_path.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    cell = result['cell']
    found[cell['source'], cell['target'], cell['seed']] = result['test']['accuracy']
  values = np.array(
    [
      [
        found[m, 'near', seed]
        - found[n, 'near', seed]
        - found[m, 'far', seed]
        + found[n, 'far', seed]
        for seed in (0, 1)
      ]
      for m, n in zip(names[:3], names[3:])
    ]
  )
  assert (row['estimate'], row['n']) == (pytest.approx(values.mean()), 6)
  assert row['high'] - row['estimate'] == pytest.approx(two_way(values))
  assert row['over'] == '3 source seeds and 2 seeds'


def test_one_level_of_one_side_stands_beside_every_level_of_the_other():
  one = {(0, -1, 0): 'a', (0, -1, 1): 'b'}
  other = {(4, -1, 0): 'c', (5, -1, 0): 'd', (5, -1, 1): 'e', (5, -1, 7): 'f'}
  assert levels.common([one, other]) == {
    (4, -1, 0): ['a', 'c'],
    (5, -1, 0): ['a', 'd'],
    (5, -1, 1): ['b', 'e'],
  }


def test_what_cannot_be_tested_is_undecided(plain, make_study, tmp_path):
  missing = claim({**HAVE, 'shots': (1, 5, 20)}, of={'method': 'full', 'shots': 20})
  (row,) = verdicts(plain, missing)
  assert (
    row['verdict'] == 'undecided' and 'full at 20' in row['why'] and math.isnan(row['estimate'])
  )
  (row,) = verdicts(plain, claim(column='ece'))
  assert row['verdict'] == 'undecided' and 'no test has the column ece' in row['why']
  make_study(tmp_path, methods=('scratch', 'full'), seeds=(0,), rates=(0.003,), diverged=False)
  (row,) = verdicts(tmp_path, claim())
  assert row['verdict'] == 'undecided' and 'one result says nothing' in row['why']


def test_another_column_is_taken_as_it_is(plain):
  (row,) = verdicts(
    plain, claim(column='loss', of={'method': 'full', 'target': 'digits', 'shots': 1})
  )
  assert row['verdict'] == 'fails'  # the losses there are 1.1 minus the accuracies


def test_verdicts_come_first_in_the_report(plain):
  path = plain / 'study.json'
  before = path.read_text()
  study = json.loads(before)
  of = {'method': 'full', 'target': 'digits'}
  study['config']['claims'] = [claim(name='Helps <b>here</b>', paper='Some 2020', of=of)]
  path.write_text(json.dumps(study))
  try:
    text, results = report.summary(plain), load(plain)
  finally:
    path.write_text(before)
  shown = page.render(results, tables.make(results), [])
  assert text.index('Claims and verdicts') < text.index('best on validation')
  assert re.search(r'Helps <b>here</b> \(Some 2020\) +holds', text)
  assert shown.index('Claims and verdicts') < shown.index('What was found')
  assert shown.count('Claims and verdicts</caption>') == 1
  assert 'Helps &lt;b&gt;here' in shown and '<b>here' not in shown


def study(**fields):
  """The tiny study with a claim, but for `fields` of that."""
  made = tiny.get_config()
  given = {'name': 'x', 'of': {'method': 'lp_ft'}, 'minus': {'method': 'probe'}, **fields}
  made.claims = (given,)
  return made


def test_a_config_states_claims():
  (stated,) = config.resolve(study())['claims']
  assert stated['of']['target'] == ('digits',) and stated['minus'] == {'method': ('probe',)}


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'name': ''}, 'name is empty'),
    ({'kind': 'diference'}, "Did you mean 'difference'"),
    ({'of': {'method': 'lp_f'}}, "of.method: the study has no method 'lp_f'.*'lp_ft'"),
    ({'minus': {'shots': 999}}, 'has no shots 999'),
    ({'minus': {'target': 'nowhere'}}, "has no target 'nowhere'"),
    ({'minus': {}}, 'minus is empty'),
    ({'minus': {'method': 'lp_ft'}}, 'compares results with themselves'),
    ({'minus': {'metod': 'probe'}}, "no field 'metod'"),
    ({'than': {'target': 'digits'}}, "than is not for a claim of kind 'difference'"),
    ({'kind': 'interaction'}, 'than is empty'),
    ({'of': {'target': 'digits'}}, 'of names no method'),
    ({'expected': 'more'}, 'expected'),
    ({'threshold': math.nan}, 'threshold'),
    ({'column': 'acuracy'}, r"no test gives 'acuracy'.*'accuracy'"),
    ({'says': 'x'}, "no field 'says'"),
    ({'kind': 'trend', 'minus': {}, 'along': {'method': ('probe',)}}, 'one field with 2 values'),
    (
      {'kind': 'trend', 'minus': {}, 'along': {'method': ('probe', 'lp_ft')}},
      'of sets method, along which',
    ),
    ({'kind': 'fraction', 'along': {'shots': (1, 9)}}, 'has no shots 9'),
    ({'along': {'shots': (1, 4)}}, "along is not for a claim of kind 'difference'"),
    ({'minus_column': 'loss'}, "minus_column is for a claim of kind 'correlation'"),
  ],
)
def test_wrong_claims_are_errors_of_the_dry_run(fields, message):
  with pytest.raises(ValueError, match=r'config\.claims\[0\].*' + message):
    dry_run.describe(study(**fields))


def test_a_seed_that_one_side_lacks_is_no_result(write_run, tmp_path):
  """Of scratch only seed 0 is there: that run is no partner of the other seeds."""
  for seed, full in enumerate((0.5, 0.7, 0.8)):
    write_run(tmp_path, ('mnist', 'digits', 'full', 1, seed, 0.003), full)
  write_run(tmp_path, ('mnist', 'digits', 'scratch', 1, 0, 0.003), 0.3)
  (tmp_path / 'study.json').write_text('{"config": {}}')
  (row,) = verdicts(tmp_path, claim(of={'method': 'full', 'target': 'digits', 'shots': 1}))
  assert row['estimate'] == pytest.approx(0.2)
  assert row['n'] == 1 and row['verdict'] == 'undecided'
