"""Runs whose weights are made of those of other runs of the study."""

import json
import shutil

import jax
import numpy as np
import pytest

import tlx
from tests.study import tiny
from tlx import report, tree
from tlx.report import beside, findings
from tlx.report import folder as folders
from tlx.study import config, dry_run, merges, recipes, run, store
from tlx.study.pair import Pair

SCALES = (0.0, 0.5, 1.0)


def get_config(data_dir, **methods):
  made = tiny.get_config(steps='20')
  made.data_dir = str(data_dir)
  made.targets.turned_digits = {'dataset': 'uci_digits', 'shift': 'rotate_90'}
  made.methods = methods or {
    'greedy': {'merge': {'name': 'greedy', 'of': 'full'}},  # before what it is made of
    'probe': {'phases': ({'tune': 'head', 'learning_rate': 1e-2},)},
    'full': {'phases': ({'tune': 'all'},)},
    'soup': {'merge': {'name': 'mean', 'of': 'full'}},
    'seeds': {'merge': {'name': 'mean', 'of': 'full', 'over': 'seeds'}},
    'wise': recipes.wise_ft('full', start='probe', points=3),
    'both': {'merge': {'name': 'sum', 'of': 'full', 'scale': (0.25, 0.5)}},
  }
  made.shots, made.seeds, made.grid.learning_rate = (0,), (0, 1), (3e-3, 1e-2)
  made.evaluators = ({'name': 'barrier', 'points': 3},)
  made.baseline = ''
  return made


def results(workdir):
  found = {}
  for file in sorted(workdir.glob('runs/*/result.json')):
    one = json.loads(file.read_text())
    found[one['id']] = one
  return found


def flat(workdir, name):
  params, _ = store.params(workdir, name)
  return dict(tree.named_leaves(params))


@pytest.fixture(scope='module')
def study(data_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('merges') / 'work'
  made = get_config(data_dir)
  run.run(made, workdir)
  return made, workdir


def of(workdir, method, target='digits', seed=0):
  """The chosen run of a method."""
  (one,) = (
    one
    for one in results(workdir).values()
    if one['chosen']
    and (one['cell']['method'], one['cell']['target'], one['cell']['seed'])
    == (method, target, seed)
  )
  return one


def mean(*runs):
  return {name: np.mean([one[name] for one in runs], axis=0) for name in runs[0]}


def assert_same(found, wanted, tolerance=1e-6):
  assert found.keys() == wanted.keys()
  for name, leaf in wanted.items():
    np.testing.assert_allclose(found[name], leaf, rtol=tolerance, atol=tolerance, err_msg=name)


def test_soups_are_means_of_the_runs_they_name(study):
  _, workdir = study
  rates = ('0.003', '0.01')
  for seed in (0, 1):
    settings = [f'turned-digits-full-full-seed{seed}-lr{rate}' for rate in rates]
    soup, greedy = (of(workdir, method, seed=seed) for method in ('soup', 'greedy'))
    assert set(soup['merged']['runs']) == set(soup['merged']['used']) == set(settings)
    assert_same(flat(workdir, soup['id']), mean(*(flat(workdir, name) for name in settings)))
    used = greedy['merged']['used']
    assert_same(flat(workdir, greedy['id']), mean(*(flat(workdir, name) for name in used)))
    best = max(results(workdir)[name]['val']['accuracy'] for name in settings)
    assert greedy['val']['accuracy'] >= best - 1e-9
  chosen = [flat(workdir, of(workdir, 'full', seed=seed)['id']) for seed in (0, 1)]
  both = [of(workdir, 'seeds', seed=seed) for seed in (0, 1)]
  for one in both:
    assert one['deterministic'] and one['test'] == both[0]['test']
    assert_same(flat(workdir, one['id']), mean(*chosen))


def test_between_two_methods_validation_chooses_how_far(study):
  _, workdir = study
  wise, full, probe = (of(workdir, method) for method in ('wise', 'full', 'probe'))
  tried = {one['scale']: one for one in wise['merged']['tried']}
  assert tuple(tried) == SCALES
  for scale, end in ((0.0, probe), (1.0, full)):
    for column in ('accuracy', 'loss'):
      assert tried[scale][column] == pytest.approx(end['val'][column], abs=1e-6)
  best = max(tried, key=lambda scale: (tried[scale]['accuracy'], -tried[scale]['loss']))
  assert wise['merged']['scale'] == best and wise['val'] == {
    name: value for name, value in tried[best].items() if name != 'scale'
  }
  ends = [flat(workdir, one['id']) for one in (probe, full)]
  between = {name: (1 - best) * ends[0][name] + best * ends[1][name] for name in ends[0]}
  assert_same(flat(workdir, wise['id']), between)


def test_task_vectors_add_up_under_each_targets_head(study):
  _, workdir = study
  source, _ = store.trained(workdir / 'sources' / 'turned' / 'checkpoints', 0)
  source = dict(tree.named_leaves(source))
  for target in ('digits', 'turned_digits'):
    both, own = of(workdir, 'both', target), flat(workdir, of(workdir, 'full', target)['id'])
    parts = [flat(workdir, of(workdir, 'full', name)['id']) for name in ('digits', 'turned_digits')]
    wanted = {
      name: leaf + both['merged']['scale'] * sum(part[name] - leaf for part in parts)
      for name, leaf in source.items()
      if not name.startswith('head')
    }
    wanted |= {name: leaf for name, leaf in own.items() if name.startswith('head')}
    assert_same(flat(workdir, both['id']), wanted)


def test_the_line_between_seeds_goes_through_their_mean(study):
  _, workdir = study
  first, last, mean_of_both = of(workdir, 'full'), of(workdir, 'full', seed=1), of(workdir, 'seeds')
  ends = [flat(workdir, one['id']) for one in (first, last)]
  found = last['test']
  assert 'loss_barrier' not in first['test'] and found['line_seeds'] == [0, 1]
  for column in ('loss', 'accuracy'):
    wanted = [one['test'][column] for one in (first, mean_of_both, last)]
    np.testing.assert_allclose(found[f'line_{column}'], wanted, rtol=1e-5)
  squares = [((ends[0][name] - ends[1][name]) ** 2).sum() for name in ends[0]]
  assert found['line_distance'] == pytest.approx(np.sqrt(sum(squares)), rel=1e-5)


def test_they_cost_what_they_are_made_of_and_are_used_like_any_run(study):
  made, workdir = study
  found, soup = results(workdir), of(workdir, 'soup')
  parts = [found[name] for name in soup['merged']['runs']]
  for column in ('steps', 'train_flops', 'train_seconds'):
    assert soup['cost'][column] == pytest.approx(sum(part['cost'][column] for part in parts))
  assert soup['cost']['steps'] == 40 and len(soup['phases']) == 2
  assert of(workdir, 'wise')['cost']['steps'] == 40 and of(workdir, 'both')['cost']['steps'] == 40
  table = report.read(workdir).set_index('id')
  assert table.loc[soup['id'], 'steps'] == 40 and table['frozen_unchanged'].all()
  model = tlx.load_run(workdir, soup['id'])
  test = Pair(config.resolve(made), 'turned', 'digits', workdir).data.test
  images = config.form_of(model.source).enter(test.inputs)
  logits, _ = model.network.apply(model.variables, images, train=False)
  kept = np.load(workdir / 'runs' / soup['id'] / 'predictions.npz')
  np.testing.assert_allclose(kept['logits'], logits, rtol=1e-4, atol=1e-4)
  assert soup['test']['accuracy'] == np.mean(np.argmax(logits, -1) == test.labels)


def stamps(workdir):
  return {file.parent.name: file.stat().st_mtime_ns for file in workdir.glob('runs/*/result.json')}


def test_they_come_back_and_grow_with_what_they_are_made_of(study, tmp_path):
  made, workdir = study
  work = tmp_path / 'work'
  shutil.copytree(workdir, work)
  before, stamp = results(work), stamps(work)
  run.run(made, work)
  assert stamps(work) == stamp
  shutil.rmtree(work / 'cohorts' / 'turned-digits-soup-2')
  shutil.rmtree(work / 'runs' / of(work, 'greedy')['id'])
  run.run(made, work)
  after = results(work)
  assert after.keys() == before.keys()
  for name, one in after.items():
    assert (one['val'], one['test'], one.get('merged')) == (
      (before[name]['val'], before[name]['test'], before[name].get('merged'))
    )
  grown = get_config(made.data_dir)
  grown.grid.learning_rate = (3e-3, 1e-2, 3e-2)
  run.run(grown, work)
  soup, parts = of(work, 'soup'), results(work)
  assert len(soup['merged']['runs']) == 3 and soup['cost']['steps'] == 60
  assert_same(flat(work, soup['id']), mean(*(flat(work, name) for name in soup['merged']['runs'])))
  assert soup['merged']['tested_before'] == 1
  assert 'more that were chosen before the study grew' in findings.progress(folders.load(work))
  for name, one in parts.items():
    if name in before and 'merged' not in one:
      assert one['val'] == before[name]['val']
  grown.seeds = (0,)  # what is there of the other seed stays
  run.run(grown, work)
  after = results(work)
  assert after.keys() == parts.keys()
  for name, one in after.items():
    if one['cell']['seed'] == 1:
      assert (one['val'], one['test']) == (parts[name]['val'], parts[name]['test'])


@pytest.mark.parametrize(
  'merge, words',
  [
    ({'name': 'meen', 'of': 'full'}, "Unknown merging 'meen'.*Did you mean 'mean'"),
    ({'name': 'mean'}, r"merge.of names '', and the methods that train here are probe, full"),
    ({'name': 'mean', 'of': 'ful'}, "Did you mean 'full'"),
    ({'name': 'mean', 'of': 'soup'}, "of names 'soup'"),
    ({'name': 'mean', 'of': 'lora'}, 'lora adds weights'),
    ({'name': 'mean', 'of': 'named'}, 'named takes no step'),
    ({'name': 'mean', 'of': 'full', 'over': 'grid'}, "over is run, .*got 'grid'"),
    ({'name': 'mean', 'of': 'full', 'over': 'seeds'}, 'each seed has examples of its own'),
    ({'name': 'mean', 'of': 'full', 'scale': ()}, 'scale takes different numbers'),
    ({'name': 'ties', 'of': 'full', 'density': 0.0}, 'density is more than 0'),
    ({'name': 'mean', 'of': 'full', 'density': 0.5}, "has no field 'density'"),
    ({'name': 'sum', 'of': 'full', 'targets': {'digit': 1.0}}, "'digit' is no target"),
    ({'name': 'mean', 'of': 'full', 'targets': {'digits': 1.0}}, "is for over = 'targets'"),
    ({'name': 'ties', 'of': 'scratch', 'over': 'settings'}, 'scratch start at random'),
    ({'name': 'mean', 'of': 'full', 'start': 'scratch'}, 'scratch has another network'),
    ({'name': 'mean', 'of': 'probe', 'start': 'full'}, "start = 'full' trains what probe leaves"),
    ({'name': 'sum', 'of': 'probe', 'over': 'run'}, 'probe trains its head alone'),
  ],
)
def test_what_cannot_be_merged_is_refused_before_anything_runs(merge, words, data_dir):
  methods = {
    'probe': {'phases': ({'tune': 'head', 'learning_rate': 1e-2},)},
    'full': {'phases': ({'tune': 'all'},)},
    'scratch': {'init': 'random'},
    'lora': {'added': {'name': 'lora', 'at': 'dense'}, 'phases': ({'tune': 'added'},)},
    'named': {'phases': ({'tune': 'bias', 'steps': 0},)},
    'soup': {'merge': {'name': 'mean', 'of': 'full'}},
    'bad': {'merge': merge},
  }
  made = get_config(data_dir, **methods)
  made.shots = (1,)
  with pytest.raises(ValueError, match=words) as error:
    dry_run.describe(made)
  assert 'config.methods.bad.merge' in str(error.value)


def test_fields_of_a_merge_may_be_set_by_flags(data_dir):
  made = get_config(data_dir)
  made.methods.soup.merge.name = 'ties'
  config.add_defaults(made, ['config.methods.soup.merge.density'])
  assert made.methods.soup.merge.density == 0.2
  said = config.missing_field(made, 'config.methods.soup.merge.sclae')
  assert said.startswith('config.methods.soup.merge has no field') and "mean 'scale'" in said


def test_the_dry_run_says_what_is_made_of_what(study):
  made, _ = study
  said = dry_run.describe(made)
  assert 'soup takes no step: it is made (mean) of the runs with every setting of full.' in said
  assert 'of the chosen run of full and of probe, where they start.' in said
  made = made.copy_and_resolve_references()
  made.only = 'probe,soup'
  with pytest.raises(ValueError, match=r"names 'full'.*are probe\. config.only says which run"):
    config.resolve(made)


def test_statistics_of_a_mean_that_follow_the_data_are_computed_anew(data_dir, tmp_path):
  made = get_config(
    data_dir,
    full={'init': 'random', 'phases': ({'tune': 'all', 'norm': 'live'},)},
    soup={'merge': {'name': 'mean', 'of': 'full'}},
  )
  made.sources.turned.backbone = {'name': 'cnn', 'channels': (4,), 'hidden': 8, 'norm': 'batch'}
  made.sources.turned.train.steps = 2
  made.targets = {'digits': made.targets.digits}
  made.train.steps, made.train.evaluations = 4, 1
  made.shots, made.seeds = (1,), (0,)
  workdir = run.run(made, tmp_path / 'work')
  soup = of(workdir, 'soup')
  found = tree.named_leaves(store.params(workdir, soup['id'])[1])
  parts = [
    dict(tree.named_leaves(store.params(workdir, name)[1])) for name in soup['merged']['runs']
  ]
  assert found
  for name, leaf in found:
    assert np.abs(leaf - np.mean([part[name] for part in parts], axis=0)).max() > 1e-4, name
    assert np.isfinite(leaf).all()


def test_the_report_draws_lines_and_scales(study):
  _, workdir = study
  results = folders.load(workdir)
  line = beside.lines(results).query('method == "full" and target == "digits"')
  assert line['place'].tolist() == [0.0, 0.5, 1.0] and line['n'].tolist() == [1, 1, 1]
  assert line['mean'].tolist() == of(workdir, 'full', seed=1)['test']['line_accuracy']
  tried = [of(workdir, 'wise', seed=seed)['merged']['tried'] for seed in (0, 1)]
  scales = beside.scales(results).query('method == "wise" and target == "digits"')
  assert scales['place'].tolist() == list(SCALES)
  wanted = [np.mean([of_run[i]['accuracy'] for of_run in tried]) for i in range(3)]
  np.testing.assert_allclose(scales['mean'], wanted)
  assert set(beside.scales(results)['method']) == {'wise'}  # of others fewer were tried
  assert 'Between weights' in report.write(workdir).read_text()
  said = findings.sentences(results)['turned → digits']
  number = np.mean([len(of(workdir, 'greedy', seed=seed)['merged']['used']) for seed in (0, 1)])
  assert any(f'greedy is made (greedy) of {number:.1f} of 2 runs of full (' in one for one in said)
  assert any('wise is made (mean) of the run of full, at a scale of' in one for one in said)


def test_tasks_that_look_at_all_examples_together_are_scored(make_job, make_phase, examples):
  """As training does on validation; lists, such as of classes, are no columns there."""
  job = make_job([make_phase()], (1e-2,))
  params = jax.tree.map(lambda leaf: leaf[0], job.own)
  plain = merges._scored(job, params, {}, examples)

  def scores(sums, kept=None, targets=None):
    right = kept['logits'].argmax(-1) == targets
    return {'accuracy': float(right.mean()), 'each': right.tolist()}

  task = job.phases[0].task._replace(scores=scores, whole=True)
  whole = job._replace(phases=(job.phases[0]._replace(task=task),))
  found = merges._scored(whole, params, {}, examples)
  assert found == {'accuracy': pytest.approx(plain['accuracy'])}
