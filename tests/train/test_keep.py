"""The best step on validation, and greedy soups of the best: by hand, resumed, beside the last."""

import jax
import numpy as np
import pytest
from etils import epath

from tlx.train import feed, fit, statistics
from tlx.tree import named_leaves


def assert_same(a, b):
  for (name, x), (_, y) in zip(named_leaves(a), named_leaves(b), strict=True):
    np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.fixture
def job(make_job, make_phase):
  """Runs at rates that are good and too high, so that the last step is not always the best."""

  def make(best, num_phases=1):
    phase = make_phase(optimizer='sgd', schedule='constant')
    made = make_job([phase] * num_phases, (0.1, 1.5, 4.0), seeds=[0, 1, 2], evaluations=6)
    return made._replace(phases=tuple(plan._replace(best=best) for plan in made.phases))

  return make


def test_the_best_step_is_what_a_shorter_run_ends_with(job, make_job, make_phase, tmp_path):
  plain = fit.fit(job(0), epath.Path(tmp_path / 'plain'))
  fitted = fit.fit(job(1), epath.Path(tmp_path / 'best'))
  accuracy = np.array([line['val_accuracy'] for line in plain.progress['history']])
  assert fitted.progress['history'] == plain.progress['history']
  steps = [2 * (int(column.argmax()) + 1) for column in accuracy.T]  # of equal ones the first
  assert fitted.progress['best']['steps'] == [[step] for step in steps] and set(steps) != {12}
  assert fitted.progress['best']['val']['accuracy'] == list(accuracy.max(0))
  assert_same(fitted.last[0], plain.own)
  for run, step in enumerate(
    steps
  ):  # the schedule is constant: a run of so many steps is its begin
    short = job(0)
    short = short._replace(phases=(short.phases[0]._replace(num_steps=step, evaluations=1),))
    ended = fit.fit(short, epath.Path(tmp_path / f'short{run}'))
    pick = lambda tree, run=run: jax.tree.map(lambda leaf: leaf[run], tree)
    assert_same(pick(fitted.own), pick(ended.own))
  for predicted, value in zip(
    fit.predict(job(1), fitted, range(3), job(1).val), fitted.progress['best']['val']['loss']
  ):
    total, weight = predicted.sums['loss']
    assert total / weight == pytest.approx(value, rel=1e-5)


def test_a_soup_is_a_mean_and_never_below_its_best_step(job, tmp_path):
  best = fit.fit(job(1), epath.Path(tmp_path / 'best'))
  soup = fit.fit(job(3), epath.Path(tmp_path / 'soup'))
  for one, several in zip(
    best.progress['best']['val']['accuracy'], soup.progress['best']['val']['accuracy']
  ):
    assert several >= one
  steps = soup.progress['best']['steps']
  assert [own[0] for own in steps] == [own[0] for own in best.progress['best']['steps']]
  run = next(run for run, own in enumerate(steps) if len(own) > 1)
  means = None
  for step in steps[run]:
    short = job(0)
    short = short._replace(phases=(short.phases[0]._replace(num_steps=step, evaluations=1),))
    ended = fit.fit(short, epath.Path(tmp_path / f'step{step}')).own
    own = jax.tree.map(lambda leaf: leaf[run] / len(steps[run]), ended)
    means = own if means is None else jax.tree.map(np.add, means, own)
  for (name, x), (_, y) in zip(named_leaves(means), named_leaves(soup.own), strict=True):
    np.testing.assert_allclose(x, y[run], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize('stop_after', [2, 7, 9])
def test_interrupted_soups_end_in_the_same_numbers(job, tmp_path, stop_after, monkeypatch):
  monkeypatch.setattr(fit, 'FIRST_STEPS', 3)
  whole = fit.fit(job(3, num_phases=2), epath.Path(tmp_path / 'whole'))
  calls = []
  folder = epath.Path(tmp_path / 'parts')
  with pytest.raises(KeyboardInterrupt):
    fit.fit(
      job(3, num_phases=2),
      folder,
      interrupted=lambda: calls.append(0) or (15 if len(calls) == stop_after else 0),
    )
  for again in (fit.fit(job(3, num_phases=2), folder) for _ in range(2)):
    assert_same((whole.own, whole.last), (again.own, again.last))
    for name in ('history', 'best', 'kept', 'taken'):
      assert whole.progress[name] == again.progress[name]


def test_a_single_look_is_the_last_step(make_job, make_phase, tmp_path):
  made = make_job([make_phase()], evaluations=1)
  made = made._replace(phases=(made.phases[0]._replace(best=3),))
  fitted = fit.fit(made, epath.Path(tmp_path))
  assert fitted.last is None and fitted.progress['best'] is None


def test_statistics_computed_anew_are_means_over_batches(make_job, make_phase):
  """A norm that keeps 0.9 of its old statistics: what comes out is of the batches alone, and those
  of frozen norms stay.
  """
  job = make_job([make_phase(frozen_norms=frozenset({'still'}))], (0.1,), seeds=[3])

  def apply(variables, x, **_):
    moved = jax.tree.map(lambda old: 0.9 * old, variables.stats)
    moved['norm']['mean'] += 0.1 * x.mean()
    moved['norm']['var'] += 0.1 * x.var()
    return x, {**moved, 'still': variables.stats['still']}

  job = job._replace(network=job.network._replace(apply=apply))
  stats = {'norm': {'mean': np.full(1, 7.0), 'var': np.full(1, 7.0)}, 'still': {'mean': np.ones(1)}}
  stats = jax.tree.map(np.float32, stats)
  found = statistics.recomputed(job, 0, job.own, stats, [0])
  entered = np.asarray(job.form.enter(job.train(None).inputs))
  batches = [entered[rows] for rows in feed.order(np.arange(60), 8, 8, (3, 0))]
  wanted = [np.mean([getattr(batch, name)() for batch in batches]) for name in ('mean', 'var')]
  np.testing.assert_allclose(found['norm']['mean'], wanted[:1], rtol=1e-4)
  np.testing.assert_allclose(found['norm']['var'], wanted[1:], rtol=1e-4)
  np.testing.assert_array_equal(found['still']['mean'], np.ones(1))
