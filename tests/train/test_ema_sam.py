"""Averaged weights and sharpness-aware steps: hand-worked values, resumed runs, cohorts, costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tlx.study import cost
from tlx.train import fit, optim, step
from tlx.tree import named_leaves
from tlx.types import Batch, Network, Task, Variables


def assert_same(a, b):
  for (name, x), (_, y) in zip(named_leaves(a), named_leaves(b), strict=True):
    np.testing.assert_array_equal(x, y, err_msg=name)


def quadratic():
  """A recipe whose loss is w0^2 + 2 w1^2 of the weights alone, at w = (1, 1)."""

  def apply(variables, x, **_):
    w = variables.params['head']['w']
    return w[0] ** 2 + 2 * w[1] ** 2 + 0 * x, variables.stats

  def terms(outputs, batch):
    return {'loss': (outputs, batch.mask)}

  network = Network(('head',), lambda *_: None, apply)
  task = Task(1, None, terms, None, None, ('loss', -1))
  form = type('F', (), {'augment': staticmethod(lambda key, batch, options: batch)})
  form.enter = staticmethod(lambda inputs: inputs)
  return step.Recipe(network, form, task, None), {'head': {'w': jnp.ones(2)}}


def one_step(**fields):
  recipe, params = quadratic()
  labels = (('head/w', 'train'),)
  phase = step.Phase(labels, (('train', 1.0),), optimizer='sgd', schedule='constant', **fields)
  hyper = step.Hyper(jnp.array(0.1), jnp.array(0.0), jnp.array(10.0))
  state = step.init_state(params, {}, phase, hyper)
  batch = Batch(jnp.zeros(2), jnp.zeros(2), jnp.ones(2))
  frozen = {'head': {'w': None}}
  return step.train_step(
    recipe._replace(phase=phase), state, frozen, batch, jax.random.key(0), hyper
  )


def test_the_gradient_of_sam_is_taken_uphill():
  """At (1, 1) the gradient is (2, 4) of norm sqrt(20); with rho = 0.5 the weights of the second are
  1 + 0.5 (2, 4) / sqrt(20), and a rate of 0.1 takes 0.1 (2 w0, 4 w1) of these.
  """
  state, metrics = one_step(sam=0.5)
  higher = 1 + 0.5 * np.array([2.0, 4.0]) / np.sqrt(20)
  np.testing.assert_allclose(
    state.trainable['head']['w'], 1 - 0.1 * np.array([2, 4]) * higher, rtol=1e-6
  )
  assert float(metrics['loss']) == pytest.approx(3.0)  # where the weights were
  plain, _ = one_step()
  np.testing.assert_allclose(plain.trainable['head']['w'], [0.8, 0.6], rtol=1e-6)


def test_no_gradient_moves_no_weight_uphill():
  zeros = {'w': jnp.zeros(2)}
  np.testing.assert_array_equal(optim.ascended({'w': jnp.ones(2)}, zeros, 0.5)['w'], np.ones(2))


def test_the_average_is_that_of_tensorflow():
  """Decays min(0.5, (1 + n) / (10 + n)): 1/10 after the first step, 2/11 after the second, 0.5 from
  the ninth on.
  """
  average = Variables({'w': jnp.array(1.0)}, {})
  for n, weight in enumerate((2.0, 4.0)):
    average = optim.moved_average(average, Variables({'w': jnp.array(weight)}, {}), 0.5, n)
  first = 0.1 * 1.0 + 0.9 * 2.0
  assert float(average.params['w']) == pytest.approx(2 / 11 * first + 9 / 11 * 4.0)
  late = optim.moved_average(average, Variables({'w': jnp.array(0.0)}, {}), 0.5, 8)
  assert float(late.params['w']) == pytest.approx(0.5 * float(average.params['w']))


def test_one_step_leaves_the_average_between():
  state, _ = one_step(ema=0.9)
  np.testing.assert_allclose(state.average.params['head']['w'], [0.1 + 0.72, 0.1 + 0.54], rtol=1e-6)
  assert step.evaluated(state) is state.average


@pytest.mark.parametrize('stop_after', [1, 3, 5])
def test_interrupted_averages_end_in_the_same_numbers(
  make_job, make_phase, tmp_path, stop_after, monkeypatch
):
  monkeypatch.setattr(fit, 'FIRST_STEPS', 3)
  job = lambda: make_job([make_phase(ema=0.9), make_phase(ema=0.8, sam=0.05)])
  whole = fit.fit(job(), epath.Path(tmp_path / 'whole'))
  calls = []
  folder = epath.Path(tmp_path / 'parts')
  with pytest.raises(KeyboardInterrupt):
    fit.fit(
      job(), folder, interrupted=lambda: calls.append(0) or (15 if len(calls) == stop_after else 0)
    )
  parts = fit.fit(job(), folder)
  assert_same(whole.own, parts.own)
  assert whole.progress['history'] == parts.progress['history']
  assert_same(whole.own, fit.fit(job(), folder).own)  # read, not trained


def test_an_averaged_run_does_not_see_its_company(make_job, make_phase, tmp_path):
  phase = make_phase(ema=0.9, sam=0.05)
  three = fit.fit(make_job([phase], (1e-2,) * 3, seeds=[0, 1, 2]), epath.Path(tmp_path / 'three'))
  two = fit.fit(make_job([phase], (1e-2,) * 2, seeds=[2, 0]), epath.Path(tmp_path / 'two'))
  pick = lambda fitted, row: jax.tree.map(lambda leaf: leaf[row], fitted.own)
  assert_same(pick(three, 2), pick(two, 0))
  assert_same(pick(three, 0), pick(two, 1))


def test_what_is_evaluated_and_kept_is_the_average(make_job, make_phase, tmp_path):
  """The last line of history is that of the parameters a run ends with, and they are the mean of
  its way.
  """
  job = make_job([make_phase(ema=0.9)])
  fitted = fit.fit(job, epath.Path(tmp_path / 'ema'))
  plain = fit.fit(make_job([make_phase()]), epath.Path(tmp_path / 'plain'))
  (found, _) = fit.predict(job, fitted, [0, 1], job.val)
  value, weight = found.sums['loss']
  assert value / weight == pytest.approx(fitted.progress['history'][-1]['val_loss'][0], rel=1e-6)
  assert fitted.progress['history'][-1]['loss'] == plain.progress['history'][-1]['loss']
  assert fitted.progress['history'][-1]['val_loss'] != plain.progress['history'][-1]['val_loss']
  assert fitted.progress['optimizer_bytes'] > plain.progress['optimizer_bytes']


def test_a_diverged_run_keeps_the_average_of_its_last_good_step(make_job, make_phase, tmp_path):
  phase = make_phase(optimizer='sgd', schedule='constant', ema=0.9)
  fitted = fit.fit(make_job([phase], (1e-2, 1e30)), epath.Path(tmp_path))
  assert fitted.progress['taken'][0][1] < 12
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.own))


def test_both_gradients_of_sam_are_booked(make_job, make_phase):
  job = make_job([make_phase(), make_phase(sam=0.05)])
  plain, sam = (
    cost.train_flops((plan,), (3,), job.network, job.form, (60,)) for plan in job.phases
  )
  assert sam == 2 * plain > 0
