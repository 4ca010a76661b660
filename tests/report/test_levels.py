"""Source seeds and folds in the report: one table over all of them, and what its intervals hold."""

import itertools
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tlx import report
from tlx.report import beside, cautions, levels, numbers, statistics, tables
from tlx.report.folder import load

SOURCES = {name: {'dataset': 'mnist_5k', 'seed': i} for i, name in enumerate(('m', 'm@1', 'm@2'))}
FOLDS = tuple(f'faces@{i}of4' for i in (1, 2, 3, 4))


def make(make_study, folder, sources=tuple(SOURCES), targets=('faces',), seeds=(0, 1, 2, 3, 4)):
  """A study of a random start, run for the first source alone, and a method from the source."""
  make_study(
    folder,
    sources=sources,
    targets=targets,
    methods=('scratch', 'full'),
    seeds=seeds,
    rates=(0.003,),
    diverged=False,
  )
  for name in sources[1:]:
    for run in folder.glob(f'runs/{name}-*-scratch-*'):
      shutil.rmtree(run)
  study = json.loads((folder / 'study.json').read_text())
  study['config']['sources'] = {name: SOURCES[name] for name in sources}
  study['data'] = {
    f'{source}/{target}': {'class_names': list('abcdefghij'), 'notes': [f'Of {target}.']}
    for source, target in itertools.product(sources, targets)
  }
  (folder / 'study.json').write_text(json.dumps(study))
  return folder


@pytest.fixture(scope='module')
def seeds_of_sources(tmp_path_factory, make_study):
  return make(make_study, tmp_path_factory.mktemp('seeds'))


@pytest.fixture(scope='module')
def folds(tmp_path_factory, make_study):
  return make(make_study, tmp_path_factory.mktemp('folds'), ('m',), FOLDS)


def accuracies(folder, method, shots):
  """[source seeds, folds, seeds] by name of the folder, read without the report."""
  found = {}
  for path in folder.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    cell = result['cell']
    if (cell['method'], cell['shots']) == (method, shots):
      place = cell['source'], cell['target'], cell['seed']
      found[place] = result['test']['accuracy']
  axes = [sorted(set(axis)) for axis in zip(*found)]
  values = [found[place] for place in itertools.product(*axes)]
  return np.array(values).reshape([len(axis) for axis in axes])


@pytest.mark.parametrize('init', ['source', 'mean_var', 'random'])
def test_what_is_drawn_like_a_source_depends_on_it(init):
  """A random start alone has nothing of the source, and is one result for all its seeds."""
  runs = pd.DataFrame({'id': ['a', 'b'], 'seed': 0, 'source_seed': [0, 1], 'fold': math.nan})
  runs = runs.assign(init=init, deterministic=False)
  if init == 'random':
    with pytest.raises(ValueError, match='Two chosen runs with one seed'):
      levels.places(runs)
  else:
    assert levels.places(runs) == [(0, -1, 0), (1, -1, 0)]


def two_way(values, shares=(0.0, 0.0)):
  """The half-width of the 95% interval by the formulas of two crossed factors, written out."""
  a, b = values.shape
  rows, columns, mean = values.mean(1), values.mean(0), values.mean()
  left = values - rows[:, None] - columns + mean
  of_rows = b * ((rows - mean) ** 2).sum() / (a - 1) * (1 + a * shares[0])
  of_columns = a * ((columns - mean) ** 2).sum() / (b - 1) * (1 + b * shares[1])
  both = (left**2).sum() / (a - 1) / (b - 1)
  variance = max(of_rows + of_columns - both, 0.0) / (a * b)
  spread = of_rows**2 / (a - 1) + of_columns**2 / (b - 1) + both**2 / (a - 1) / (b - 1)
  freedom = min(max((variance * a * b) ** 2 / spread, min(a, b) - 1), a + b - 2)
  alone = ((of_rows / a / b, a - 1), (of_columns / a / b, b - 1))
  return max(stats.t.ppf(0.975, df) * math.sqrt(v) for v, df in ((variance, freedom), *alone))


def test_levels_are_columns(seeds_of_sources, folds):
  frame = report.read(seeds_of_sources)
  assert set(frame['source']) == {'m'} and set(frame['target']) == {'faces'}
  assert set(frame['source_seed']) == {0, 1, 2} and frame['fold'].isna().all()
  frame = report.read(folds)
  assert set(zip(frame['target'], frame['fold'], frame['folds'])) == {
    ('faces', fold, 4) for fold in (1, 2, 3, 4)
  }
  assert load(folds).pairs == [('m', 'faces')]


def test_an_accuracy_is_over_source_seeds_and_seeds(seeds_of_sources):
  results = load(seeds_of_sources)
  for row in numbers.means(results).to_dict('records'):
    values = accuracies(seeds_of_sources, row['method'], row['shots'])[:, 0]
    assert (row['mean'], row['n']) == (pytest.approx(values.mean()), values.size)
    if row['method'] == 'full':
      assert row['high'] - row['mean'] == pytest.approx(two_way(values))
    else:
      half = stats.t.ppf(0.975, 4) * stats.sem(values[0])
      assert row['high'] - row['mean'] == pytest.approx(half)
  (table,) = tables.scores(results)
  assert 'over 3 source seeds and 5 seeds: it holds the variance of each' in table.note
  assert 'Intervals are over source seeds and seeds only.' in table.note
  assert 'run once for all its seeds' in table.note
  assert 'one source network' not in table.note
  assert '(n=5)' in table.shown.loc[table.shown['Method'] == 'scratch', '1'].item()
  text = report.summary(seeds_of_sources)
  assert 'on the test set (3 source seeds and 5 seeds)' in text


def test_a_random_start_is_compared_with_every_source_seed(seeds_of_sources):
  results = load(seeds_of_sources)
  for row in numbers.differences(results, 'scratch').to_dict('records'):
    values = accuracies(seeds_of_sources, 'full', row['shots'])[:, 0]
    apart = values - accuracies(seeds_of_sources, 'scratch', row['shots'])[0]
    assert (row['n'], row['num_missing'], row['wins']) == (15, 0, (apart > 1e-9).sum())
    half = two_way(apart)
    assert row['high'] - row['difference'] == pytest.approx(half)
    assert (row['t_p'] < 0.05) == (abs(row['difference']) > half)
    assert math.isnan(row['wilcoxon_p'])
  (table,) = tables.differences(results)
  assert 'same source seed, fold, seed and subset' in table.note
  assert 'over 3 source seeds and 5 seeds, crossed' in table.note


def test_effective_data_is_drawn_with_a_random_start_beside_every_source_seed(seeds_of_sources):
  """The random start was run under one source seed, which a third of draws and more leave out."""
  results, less = load(seeds_of_sources), 0.06  # so that the curve reaches it
  runs = results.runs.copy()
  runs.loc[runs['method'] == 'full', 'test_accuracy'] -= less
  frame = numbers.multipliers(results._replace(runs=runs), 'scratch').set_index('shots')
  of = {
    (method, size): accuracies(seeds_of_sources, method, size)[:, 0]
    for method, size in itertools.product(('scratch', 'full'), (1, 5))
  }
  random = np.random.default_rng(1)
  drawn = []
  for _ in range(2000):
    sources, seeds = random.integers(3, size=3), random.integers(5, size=5)
    curve = [of['scratch', size][0, seeds].mean() for size in (1, 5)]
    score = of['full', 1][np.ix_(sources, seeds)].mean() - less
    drawn.append(statistics.effective_data(score, (1, 5), curve)[0])
  ends = np.quantile(drawn, (0.025, 0.975))
  assert 1 < ends[0] < ends[1] < 5
  assert frame.loc[1, ['low', 'high']].tolist() == pytest.approx(ends, rel=0.1)
  of_one_seed = results._replace(runs=runs[runs['seed'] == 0])  # source seeds still vary
  frame = numbers.multipliers(of_one_seed, 'scratch').set_index('shots')
  assert frame.loc[1, 'low'] < frame.loc[1, 'high']


def test_folds_count_as_nadeau_and_bengio_correct_them(folds):
  results = load(folds)
  for row in numbers.means(results).to_dict('records'):
    values = accuracies(folds, row['method'], row['shots'])[0]  # [folds, seeds]
    assert row['high'] - row['mean'] == pytest.approx(two_way(values, (1 / 3, 0.0)))
  (table,) = tables.scores(results)
  assert 'over 4 folds and 5 seeds' in table.note and 'Nadeau and Bengio' in table.note
  assert 'one test set' not in table.note and 'one source network' in table.note
  assert not tables.sampled(results)
  assert cautions.notes(results) == [f'm → {name}: Of {name}.' for name in FOLDS]


def test_what_evaluators_add_is_over_the_same_levels(tmp_path, make_study, change_runs):
  folder = make(make_study, tmp_path / 'study')
  change_runs(folder, lambda result: result['test'].update(other=result['test']['accuracy'] / 2))
  results = load(folder)
  means = numbers.means(results).set_index(['method', 'shots'])
  frame = beside.measures(results)
  rows = frame[frame['column'] == 'other'].to_dict('records')
  assert len(rows) == len(means)
  for row in rows:
    main = means.loc[(row['method'], row['shots'])]
    assert (2 * row['low'], 2 * row['high']) == pytest.approx((main['low'], main['high']))


def test_each_level_chooses_for_itself_and_the_table_says_all(tmp_path, make_study, change_runs):
  folder = make(make_study, tmp_path / 'study')

  def move(result):
    if result['cell']['source'] == 'm@2':
      result['cell']['learning_rate'] = 0.01

  change_runs(folder, move)
  results = load(folder)
  rates = numbers.rates(results)
  of_full = rates[(rates['method'] == 'full') & (rates['shots'] == 1)]
  assert dict(zip(of_full['source_seed'], of_full['learning_rate'])) == {
    0: 0.003,
    1: 0.003,
    2: 0.01,
  }
  (table,) = tables.rates(results)
  assert table.shown.set_index('Method').loc['full', '1'] == '0.003, 0.01'
  assert 'Each source seed and fold chooses for itself.' in table.note


def test_runs_that_are_not_there_yet_cost_the_source_seed_that_lacks_them(tmp_path, make_study):
  folder = make(make_study, tmp_path / 'study')
  for run in folder.glob('runs/m@2-faces-full-1shot-seed[34]-*'):
    shutil.rmtree(run)
  results = load(folder)
  (row,) = (
    row
    for row in numbers.means(results).to_dict('records')
    if (row['method'], row['shots']) == ('full', 1)
  )
  kept = np.array(
    [
      [results.found[f'{m}-faces-full-1shot-seed{s}-lr0.003']['test']['accuracy'] for s in range(5)]
      for m in ('m', 'm@1')
    ]
  )
  assert row['n'] == 10 and row['mean'] == pytest.approx(kept.mean(), abs=1e-3)
  (difference, _) = numbers.differences(results, 'scratch').to_dict('records')
  assert (difference['n'], difference['num_missing']) == (10, 3)


def test_places_match_in_what_both_depend_on():
  """A random start has no source seed, an exact solution no seed: they meet at all of both."""
  start = {(-1, 1, 0): 'a', (-1, 1, 5): 'b', (-1, 2, 0): 'c'}
  exact = {(7, 1, -1): 'x', (8, 1, -1): 'y', (7, 3, -1): 'z'}
  ours, theirs = levels.matched(start, exact)
  met = {(7, 1, 0): 'ax', (8, 1, 0): 'ay', (7, 1, 5): 'bx', (8, 1, 5): 'by'}
  assert {place: ours[place] + theirs[place] for place in ours.keys() & theirs.keys()} == met
  assert ours.keys() - met.keys() == {(-1, 2, 0)} and theirs.keys() - met.keys() == {(7, 3, -1)}


def test_test_examples_are_drawn_for_source_seeds_too(tmp_path, make_study, predict):
  folder = make(make_study, tmp_path / 'study')
  random = np.random.default_rng(0)
  predict(folder, lambda result: random.random(200) < result['test']['accuracy'])
  results = load(folder)
  alone = numbers.means(results).set_index(['method', 'shots'])
  (table,) = tables.sampled(results)
  for row in table.numbers.to_dict('records'):
    seeds = alone.loc[(row['method'], row['shots'])]
    assert row['low'] < seeds['low'] + 5e-3 and row['high'] > seeds['high'] - 5e-3


def test_names_without_levels_are_as_they_are(study):
  frame = report.read(study)
  assert set(frame['source']) == {'mnist'} and frame['source_seed'].isna().all()
  assert not levels.are_crossed(frame)
  rates = tables.rates(load(study))
  assert not {'source_seed', 'fold'} & set(rates[0].numbers.columns)
