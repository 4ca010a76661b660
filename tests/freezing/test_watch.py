"""Policies that look at gradients: their rules against numpy's, and in a study."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tests.study import tiny
from tlx import report
from tlx.freezing import Watch, advised, auto_freeze, auto_rgn, measured, random, select
from tlx.plug import plug
from tlx.study import advise, depth, run, store
from tlx.study import config as configs
from tlx.study.cohorts import cohorts_of
from tlx.train import fit, step
from tlx.tree import named_leaves

GROUPS = (('a',), ('b', 'c'), ('d',), ('pool', 'head'))
SHAPES = {
  'a': {'kernel': (3, 2), 'bias': (2,)},
  'b': {'norm': {'scale': (2,)}, 'kernel': (2, 2)},
  'c': {'kernel': (4,)},
  'd': {'kernel': (2, 5)},
  'head': {'kernel': (5, 3), 'bias': (3,)},
}
is_shape = lambda leaf: isinstance(leaf, tuple)


def drawn(seed, scale=1.0):
  random = np.random.default_rng(seed)
  draw = lambda shape: jnp.asarray(scale * random.normal(size=shape), jnp.float32)
  return jax.tree.map(draw, SHAPES, is_leaf=is_shape)


PARAMS = drawn(0)


def followed(watch, grads, num_steps=None):
  """The factors of each step."""
  state, found = watch.init(PARAMS), []
  for grad in grads:
    state = watch.update(state, grad, PARAMS, jnp.float32(num_steps or len(grads)))
    found.append({name: np.asarray(leaf) for name, leaf in named_leaves(state.factors)})
  return found


def group_of(name):
  return next(i for i, group in enumerate(GROUPS) if name.split('/')[0] in group)


def leaves_of(tree, i):
  return [np.asarray(leaf, float) for name, leaf in named_leaves(tree) if group_of(name) == i]


def test_rates_are_relative_gradient_norms():
  grads = [drawn(seed) for seed in range(1, 5)]
  first, second, third, last = followed(auto_rgn.watch(GROUPS, steps=2), grads)
  assert not any(map(np.any, first.values())) and not any(map(np.any, second.values()))
  ratios = {}
  for name, leaf in named_leaves(PARAMS):
    own = [np.linalg.norm(dict(named_leaves(grad))[name]) for grad in grads[:2]]
    ratios[name] = np.mean(own) / np.linalg.norm(leaf)
  most = max(ratio for name, ratio in ratios.items() if not name.startswith('head/'))
  for name, ratio in ratios.items():
    want = 1.0 if name.startswith('head/') else ratio / most
    assert third[name] == pytest.approx(want, rel=1e-5) == last[name]


def test_a_leaf_of_zeros_has_no_ratio():
  params = {**PARAMS, 'c': {'kernel': jnp.zeros(4)}}
  watch = auto_rgn.watch(GROUPS, steps=1)
  state = watch.init(params)
  for _ in range(2):
    state = watch.update(state, drawn(1), params, jnp.float32(2))
  factors = {name: float(leaf) for name, leaf in named_leaves(state.factors)}
  assert factors['c/kernel'] == 1 and max(factors.values()) == 1
  others = [value for name, value in factors.items() if name[0] in 'abd']
  assert sorted(others)[-1] == 1 and 0 < sorted(others)[0] < 1


@pytest.mark.parametrize('by', measured.SCORES)
@pytest.mark.parametrize('k', [0, 1, 2])
def test_the_groups_that_score_highest_move(by, k):
  grads = [drawn(seed) for seed in range(1, 5)]
  for grad in grads:  # which the sizes of the groups alone would not choose
    grad['b']['kernel'] *= 5
  *before, last = followed(measured.watch(GROUPS, k=k, by=by, steps=3), grads)
  assert not any(np.any(leaf) for factors in before for leaf in factors.values())
  scores = []
  for i in range(3):
    own = []
    for grad in grads[:3]:
      square = sum((leaf**2).sum() for leaf in leaves_of(grad, i))
      size = sum(leaf.size for leaf in leaves_of(grad, i))
      weights = sum((leaf**2).sum() for leaf in leaves_of(PARAMS, i))
      own.append((square / weights) ** 0.5 if by == 'rgn' else square / size)
    scores.append(np.mean(own))
  chosen = {*np.argsort(scores)[::-1][:k], 3}
  assert {group_of(name) for name, factor in last.items() if factor == 1} == chosen
  assert set(map(float, last.values())) <= {0.0, 1.0}


@pytest.mark.parametrize('percentile', [50, 90])
def test_freezing_follows_the_published_rule(percentile):
  intervals, num_steps = 4, 12
  settled = [drawn(seed)['a'] for seed in range(3)]  # the same in every interval
  grads = [{**drawn(step), 'a': settled[step % 3]} for step in range(num_steps)]
  found = followed(auto_freeze.watch(GROUPS, intervals, percentile), grads)
  before, first, want = None, 0, []
  for i in range(intervals):
    part = grads[3 * i : 3 * i + 3]
    total = jax.tree.map(lambda *leaves: sum(np.asarray(leaf) for leaf in leaves), *part)
    size = np.array([sum(np.abs(leaf).sum() for leaf in leaves_of(total, g)) for g in range(3)])
    want += [first] * 2
    if before is not None:
      change = np.abs(before - size) / before
      least = np.percentile(change[first:], percentile)
      first = next(g for g in range(first, 3) if change[g] >= least)
    before = size
    want.append(first)
  got = [min(group_of(name) for name, factor in factors.items() if factor) for factors in found]
  assert got == want and max(want) > 0
  for factors, start in zip(found, want):
    assert all(bool(factor) == (group_of(name) >= start) for name, factor in factors.items())


def test_the_groups_before_a_runs_depth_stay():
  watch = advised.watch(GROUPS)
  states = jax.vmap(watch.init, in_axes=(None, 0))(PARAMS, jnp.float32([0, 2]))
  for name, factors in named_leaves(states.factors):
    assert factors.tolist() == [1.0, float(group_of(name) >= 2)]


def test_as_many_weights_as_asked_for_are_drawn_each_as_likely():
  times = {}
  for seed in range(100):
    factors = followed(random.watch(GROUPS, weights=7, seed=seed), [PARAMS])[0]
    body = {name: leaf for name, leaf in factors.items() if not name.startswith('head/')}
    assert sum(leaf.sum() for leaf in body.values()) == 7
    assert all(leaf == 1 for name, leaf in factors.items() if name.startswith('head/'))
    for name, leaf in body.items():
      times[name] = times.get(name, 0) + leaf
  number = sum(leaf.size for leaf in times.values())
  flat = np.concatenate([leaf.ravel() for leaf in times.values()]) / 100
  assert number == 28 and abs(flat - 7 / 28).max() < 0.2  # deviation 0.043


def test_features_are_kept_by_the_squares_of_their_weights():
  watch = select.watch(GROUPS, share=0.4)
  state = watch.init(PARAMS)
  keep = np.asarray(dict(named_leaves(state.factors))['head/kernel'])[:, 0]
  scores = (np.asarray(PARAMS['head']['kernel'], float) ** 2).sum(1)
  assert keep.sum() == 2 and set(np.flatnonzero(keep)) == set(np.argsort(scores)[-2:])


@pytest.mark.parametrize('name', ['sgd', 'adam'])
def test_updates_are_multiplied_after_the_optimizer(name):
  """A step of a phase whose policy halves one leaf, holds one and clears a part of one."""
  factors = {'a': jnp.float32(0.5), 'b': jnp.float32(0), 'c': jnp.array([[1.0], [0.0]])}

  state = select.State(factors)
  params = {'a': jnp.ones(2), 'b': jnp.ones(2), 'c': jnp.ones((2, 2))}
  labels = tuple((leaf, 'train') for leaf in params)
  phase = step.Phase(labels, (('train', 1.0),), optimizer=name, schedule='constant')
  hyper = step.Hyper(jnp.float32(0.1), jnp.float32(0.0), jnp.float32(2))
  plain = step.make_optimizer(params, phase, hyper)
  want, _ = plain.update(params, plain.init(params), params)
  for clears in (False, True):
    watch = Watch(lambda params: state, lambda state, *_: state, clears)
    tx = step.make_optimizer(params, phase._replace(watch=watch), hyper)
    got, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(got['a'], 0.5 * want['a'])
    np.testing.assert_array_equal(got['b'], -1.0 if clears else 0.0)
    np.testing.assert_array_equal(got['c'][0], want['c'][0])
    np.testing.assert_array_equal(got['c'][1], -1.0 if clears else 0.0)


METHODS = {
  'measured': ({'tune': {'policy': 'measured', 'k': 1, 'steps': 2}},),
  'auto_rgn': ({'tune': {'policy': 'auto_rgn', 'steps': 2}},),
  'auto_freeze': ({'tune': {'policy': 'auto_freeze', 'intervals': 3}},),
  'advised': ({'tune': 'advised'},),
  'frozen': ({'tune': {'policy': 'after', 'k': 2}},),
  'full': ({'tune': 'all'},),
  'weights': ({'tune': {'policy': 'random', 'weights': 28}},),
  'features': ({'tune': 'head'}, {'tune': {'policy': 'select', 'share': 0.25}}),
}


@functools.cache
def study(folder):
  config = tiny.get_config(steps='9')
  config.data_dir, config.shots, config.baseline = str(folder / 'data'), (4,), 'features'
  config.methods = {name: {'phases': phases} for name, phases in METHODS.items()}
  config.grid.learning_rate = (1e-2,)
  return run.run(config, folder / 'study')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return study(tmp_path_factory.mktemp('watched'))


def test_what_moved_is_what_the_result_says(finished):
  table = report.read(finished)
  assert set(table.status) == {'ok'}
  source, _ = store.trained(finished / 'sources' / 'turned' / 'checkpoints', 0)
  head = 12 * 10 + 10
  for row in table.to_dict('records'):
    result = json.loads((finished / 'runs' / row['id'] / 'result.json').read_text())
    params, _ = store.params(finished, row['id'])
    last, num_moved = result['phases'][-1].get('factors', {}), 0  # of those that look
    for name, leaf in named_leaves({stage: params[stage] for stage in source if stage != 'head'}):
      num_moved += (np.asarray(dict(named_leaves(source))[name]) != leaf).sum()
    if row['method'] == 'weights':
      # a weight of a pixel that is never lit has no gradient
      assert 14 <= num_moved <= 28 and row['trainable_params'] == 28 + head
    if row['method'] == 'measured':
      moved = {name for name, factor in last.items() if factor == 1}
      sizes = {'dense1': 64 * 16 + 16, 'dense2': 16 * 12 + 12}
      (chosen,) = {name.split('/')[0] for name in moved} - {'head'}
      assert num_moved == sizes[chosen] == row['trainable_params'] - head
    if row['method'] == 'features':
      kernel = params['head']['kernel']
      assert last['head/kernel'] == 0.25 and (np.abs(kernel).sum(1) > 0).sum() == 3
      assert result['phases'][-1]['trainable_params'] == 3 * 10 + 10
    if row['method'] == 'auto_rgn':
      assert max(last[name] for name in last if not name.startswith('head/')) == 1
      assert len(set(last.values())) > 3 and row['trainable_params'] == 64 * 16 + 16 + 204 + head


def test_runs_of_a_cohort_measure_each_on_their_own(finished):
  table = report.read(finished)
  found = []
  for row in table[table.method == 'auto_rgn'].to_dict('records'):
    result = json.loads((finished / 'runs' / row['id'] / 'result.json').read_text())
    found.append(tuple(result['phases'][-1]['factors'].values()))
  assert len(found) == 2 and found[0] != found[1]


@pytest.mark.parametrize('depths', [(2, 0), (0, 0)])
def test_advised_runs_are_those_of_their_depth(tmp_path, monkeypatch, finished, depths):
  """Whatever the rule says of the examples of a seed; without it, what it says."""
  config = tiny.get_config(steps='9')
  config.data_dir, config.shots, config.baseline = str(finished.parent / 'data'), (4,), ''
  config.methods = {'advised': {'phases': METHODS['advised']}}
  config.grid.learning_rate = (1e-2,)
  said = iter(depths)
  monkeypatch.setattr(depth, 'advised', lambda *given: depth.Depth(next(said), {}))
  folder = run.run(config, tmp_path / 'study')
  for seed, k in enumerate(depths):
    name = {2: 'frozen', 0: 'full'}[k]
    ours, theirs = (
      dict(named_leaves(store.params(place, _run(place, method, seed)['id'])[0]))
      for place, method in ((folder, 'advised'), (finished, name))
    )
    for leaf, value in theirs.items():
      np.testing.assert_allclose(ours[leaf], value, atol=2e-5, err_msg=leaf)
    costs = [_run(*of) for of in ((folder, 'advised', seed), (finished, name, seed))]
    assert costs[0]['trainable_params'] == costs[1]['trainable_params']


def _run(folder, method, seed):
  table = report.read(folder)
  return table[(table.method == method) & (table.seed == seed)].iloc[0]


def test_each_run_is_advised_by_its_own_examples(finished):
  config = tiny.get_config()
  config.data_dir = str(finished.parent / 'data')
  given = advise.depths_of({**config.to_dict(), 'shots': (4,)}, finished)
  for row in given.to_dict('records'):
    found = _run(finished, 'advised', row['seed'])
    factors = json.loads((finished / 'runs' / found['id'] / 'result.json').read_text())
    factors = factors['phases'][0]['factors']
    frozen = {name.split('/')[0] for name, factor in factors.items() if not factor}
    assert frozen == set(('dense1', 'dense2')[: row['depth']])


def test_advice_is_of_classes_and_a_source():
  config = tiny.get_config()
  config.methods = {'advised': {'init': 'random', 'phases': METHODS['advised']}}
  config.baseline = ''
  with pytest.raises(ValueError, match="init = 'source', got classification and 'random'"):
    cohorts_of(configs.resolve(config))


def test_features_that_are_left_out_are_so_in_an_average_too(make_job, make_phase, tmp_path):
  """An average begins with the weights there were, those of the others among them."""
  rules = (('^head/', 'train'), ('.*', 'frozen'))
  groups = tuple((stage,) for stage in ('dense1', 'dense2', 'dense3', 'head'))
  watch = select.watch(groups, share=0.4)
  job = make_job([make_phase(rules, watch=watch, ema=0.9)], (1e-2, 3e-2), seeds=[0, 1])
  fitted = fit.fit(job, epath.Path(tmp_path))
  used = np.abs(fitted.own['head']['kernel']).sum(-1) > 0
  assert used.sum(1).tolist() == [2, 2]
  scores = np.square(job.own['head']['kernel']).sum(-1)
  best = np.argsort(-scores, axis=1, kind='stable')[:, :2]
  np.testing.assert_array_equal(np.sort(best, 1), np.nonzero(used)[1].reshape(2, 2))


WATCHES = {
  'measured': {'k': 1, 'steps': 3},
  'auto_rgn': {'steps': 3},
  'auto_freeze': {'intervals': 4},
  'random': {'weights': 40},
  'select': {'share': 0.4},
}


@pytest.mark.parametrize('name', WATCHES)
def test_interrupted_runs_end_in_the_same_numbers(
  make_job, make_phase, tmp_path, monkeypatch, name
):
  """Also where they stop while a policy still measures."""
  monkeypatch.setattr(fit, 'FIRST_STEPS', 2)
  groups = tuple((stage,) for stage in ('dense1', 'dense2', 'dense3', 'head'))
  module = plug('freezing', name)
  rules = module.rules(groups, **WATCHES[name])
  phase = make_phase(rules, watch=module.watch(groups, **WATCHES[name]))
  whole = fit.fit(make_job([phase], seeds=[0, 1]), epath.Path(tmp_path / 'whole'))
  calls, folder = [], epath.Path(tmp_path / 'parts')
  with pytest.raises(KeyboardInterrupt):
    fit.fit(
      make_job([phase], seeds=[0, 1]),
      folder,
      say=lambda *_: calls.append(0),
      interrupted=lambda: len(calls) >= 1,
    )
  parts = fit.fit(make_job([phase], seeds=[0, 1]), folder)
  for (leaf, a), (_, b) in zip(named_leaves(whole.own), named_leaves(parts.own), strict=True):
    np.testing.assert_array_equal(a, b, err_msg=leaf)
  assert whole.progress['frozen'] == parts.progress['frozen']
  assert whole.progress['frozen'][0]['factors'] != {}
