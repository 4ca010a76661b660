"""Cohorts: runs are independent of their company, of the devices and of interruptions.

Damage is noticed.
"""

import gc
import json

import jax
import numpy as np
import pytest
from etils import epath

from tlx import checkpoint
from tlx.train import cohort, fit
from tlx.train.spread import Spread
from tlx.tree import named_leaves, sha256

HEAD = (('^head/', 'train'), ('.*', 'frozen'))


def assert_same(a, b):
  for (name, x), (_, y) in zip(named_leaves(a), named_leaves(b), strict=True):
    np.testing.assert_array_equal(x, y, err_msg=name)


def test_runs_differ_by_their_arrays_and_learn(make_job, make_phase, tmp_path):
  fitted = fit.fit(
    make_job([make_phase()], (1e-4, 3e-2, 3e-2), seeds=[0, 0, 1]), epath.Path(tmp_path)
  )
  last = fitted.progress['history'][-1]
  assert last['step'] == [12, 12, 12] and fitted.progress['taken'] == [[12, 12, 12]]
  assert last['val_accuracy'][1] > 0.55 > last['val_accuracy'][0]
  assert last['val_loss'][1] != last['val_loss'][2]


def test_a_run_does_not_see_its_company(make_job, make_phase, tmp_path):
  """Bit for bit among several.

  A single run splits its batches over the devices instead, and agrees to rounding.
  """
  five = fit.fit(
    make_job([make_phase()], (1e-2,) * 5, seeds=[0, 1, 2, 3, 4]), epath.Path(tmp_path / 'five')
  )
  two = fit.fit(make_job([make_phase()], (1e-2,) * 2, seeds=[4, 1]), epath.Path(tmp_path / 'two'))
  one = fit.fit(make_job([make_phase()], (1e-2,), seeds=[4]), epath.Path(tmp_path / 'one'))
  pick = lambda fitted, row: jax.tree.map(lambda leaf: leaf[row], fitted.own)
  assert_same(pick(five, 4), pick(two, 0))
  assert_same(pick(five, 1), pick(two, 1))
  for (name, a), (_, b) in zip(
    named_leaves(pick(five, 4)), named_leaves(pick(one, 0)), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)


def test_a_task_may_look_at_all_examples_together(make_job, make_phase, tmp_path):
  """Its columns on validation are of what is kept of the examples that each run looks at."""

  def scores(sums, kept=None, targets=None):
    columns = {'loss': sums['loss'][0] / sums['loss'][1]}
    if kept is None:
      return columns
    right = kept['logits'].argmax(-1) == targets
    return columns | {'accuracy': float(right.mean()), 'count': len(right), 'each': right.tolist()}

  job = make_job([make_phase()], (3e-2, 1e-2, 3e-2), seeds=[0, 1, 2])
  job = job._replace(val_rows=[np.arange(20), np.arange(3, 60), np.arange(0, 60, 7)])
  together = job.phases[0].task._replace(scores=scores, whole=True)
  other = job._replace(phases=(job.phases[0]._replace(task=together, best=2),))
  job = job._replace(phases=(job.phases[0]._replace(best=2),))
  one = fit.fit(job, epath.Path(tmp_path / 'sums')).progress
  two = fit.fit(other, epath.Path(tmp_path / 'whole')).progress
  assert [line['val_count'] for line in two['history']] == [[20, 57, 9]] * 3
  for column in ('val_accuracy', 'val_loss'):
    for line, line_too in zip(one['history'], two['history']):
      assert line[column] == pytest.approx(line_too[column])
  assert one['best']['steps'] == two['best']['steps']
  assert 'val_each' not in two['history'][0]


def test_a_diverged_run_leaves_the_others_alone(make_job, make_phase, tmp_path):
  phase = make_phase(optimizer='sgd', schedule='constant')
  alone = fit.fit(make_job([phase], (1e-2, 1e-2)), epath.Path(tmp_path / 'alone'))
  beside = fit.fit(make_job([phase], (1e-2, 1e30)), epath.Path(tmp_path / 'beside'))
  assert beside.progress['taken'][0][0] == 12 and beside.progress['taken'][0][1] < 12
  pick = lambda fitted: jax.tree.map(lambda leaf: leaf[0], fitted.own)
  assert_same(pick(alone), pick(beside))


def test_phases_hand_on_what_they_trained(make_job, make_phase, tmp_path):
  """Head, then the first stage under the trained head (chain-thaw).

  The head must stay as phase one left it.
  """
  first_only = (('^dense1/', 'train'), ('.*', 'frozen'))
  source = make_job([make_phase()], (1e-2,)).own
  base = jax.tree.map(lambda leaf: leaf[0], source) | {
    'head': jax.tree.map(lambda leaf: None, source['head'])
  }
  one = fit.fit(make_job([make_phase(HEAD)], base=base), epath.Path(tmp_path / 'one'))
  both = fit.fit(
    make_job([make_phase(HEAD), make_phase(first_only)], base=base), epath.Path(tmp_path / 'both')
  )
  assert_same(one.own['head'], both.own['head'])
  assert sha256(both.own['dense1']) != sha256(
    jax.tree.map(lambda leaf: np.stack([leaf, leaf]), base['dense1'])
  )
  assert both.own['dense2']['linear']['kernel'] is None
  for phase in both.progress['frozen']:
    assert phase['before'] == phase['after'] and len(set(phase['before'])) >= 1
  assert both.progress['frozen'][0]['before'] != both.progress['frozen'][1]['before']


@pytest.mark.parametrize('stop_after', [1, 2, 4, 5])
def test_interrupted_runs_end_in_the_same_numbers(
  make_job, make_phase, tmp_path, stop_after, monkeypatch
):
  monkeypatch.setattr(fit, 'FIRST_STEPS', 3)
  job = lambda: make_job([make_phase(HEAD), make_phase(clip_norm=1.0)])
  whole = fit.fit(job(), epath.Path(tmp_path / 'whole'))
  calls = []
  folder = epath.Path(tmp_path / 'parts')
  with pytest.raises(KeyboardInterrupt):
    fit.fit(
      job(), folder, say=lambda *_: calls.append(0), interrupted=lambda: len(calls) >= stop_after
    )
  parts = fit.fit(job(), folder)
  assert_same(whole.own, parts.own)
  assert whole.progress['history'] == parts.progress['history']
  assert (
    whole.progress['frozen'] == parts.progress['frozen']
    and whole.progress['taken'] == parts.progress['taken']
  )


def test_epochs_give_every_run_the_steps_of_its_own_examples(
  make_job, make_phase, tmp_path, monkeypatch
):
  """Runs of 3 and 15 steps in one cohort end as each does by itself, interrupted or not."""
  monkeypatch.setattr(fit, 'FIRST_STEPS', 4)
  sets = [np.arange(6), np.arange(40), np.arange(20, 60)]
  job = make_job(
    [make_phase(HEAD), make_phase(schedule='cosine')], (1e-2, 1e-2, 3e-2), seeds=[0, 1, 2]
  )
  job = job._replace(examples=sets, phases=tuple(plan._replace(epochs=3.0) for plan in job.phases))
  whole = fit.fit(job, epath.Path(tmp_path / 'whole'))
  assert whole.progress['taken'] == [[3, 15, 15]] * 2
  assert [line['step'] for line in whole.progress['history']][-1] == [6, 30, 30]
  calls: list[int] = []
  with pytest.raises(KeyboardInterrupt):
    fit.fit(
      job,
      epath.Path(tmp_path / 'parts'),
      say=lambda *_: calls.append(0),
      interrupted=lambda: len(calls) >= 3,
    )
  parts = fit.fit(job, epath.Path(tmp_path / 'parts'))
  assert_same(whole.own, parts.own)
  assert whole.progress['history'] == parts.progress['history']
  for run, (seed, rate, steps) in enumerate(((0, 1e-2, 3), (1, 1e-2, 15), (2, 3e-2, 15))):
    alone = make_job(
      [make_phase(HEAD), make_phase(schedule='cosine')], (rate,), seeds=[seed], num_steps=steps
    )
    alone = fit.fit(alone._replace(examples=[sets[run]]), epath.Path(tmp_path / f'alone{run}'))
    for mine, other in zip(jax.tree.leaves(whole.own), jax.tree.leaves(alone.own), strict=True):
      np.testing.assert_allclose(mine[run], other[0], rtol=1e-5, atol=1e-6)
    assert whole.progress['history'][-1]['val_loss'][run] == pytest.approx(
      alone.progress['history'][-1]['val_loss'][0], rel=1e-5
    )


def test_long_runs_are_dealt_to_the_devices_first():
  steps = np.repeat([1, 9], jax.device_count())
  spread = Spread.over(len(steps), steps=steps)
  assert set(steps[spread.rows].reshape(jax.device_count(), -1).sum(1)) == {10}
  np.testing.assert_array_equal(spread.unpad(spread.pad(steps)), steps)


@pytest.mark.parametrize('share, saves', [(1e9, 6), (1e-9, 2)])
def test_saving_takes_no_more_than_its_share(
  make_job, make_phase, tmp_path, monkeypatch, share, saves
):
  """After every segment where saves cost nothing, else once and at the end.

  The last one is without the optimizer's state.
  """
  monkeypatch.setattr(fit, 'SAVE_SHARE', share)
  monkeypatch.setattr(fit, 'FIRST_STEPS', 1)
  monkeypatch.setattr(fit, 'SEGMENT_SECONDS', 0.0)  # a step a segment
  done, save = [], checkpoint.save
  monkeypatch.setattr(checkpoint, 'save', lambda *arguments: done.append(save(*arguments)))
  fit.fit(
    make_job([make_phase()], num_steps=6, evaluations=1), epath.Path(tmp_path), save_seconds=1e-9
  )
  assert len(done) == saves
  names = checkpoint.load(epath.Path(tmp_path)).keys()
  assert any('trainable' in name for name in names) and not any(
    'opt_state' in name for name in names
  )


def test_a_finished_cohort_is_read_not_trained(make_job, make_phase, tmp_path):
  job = make_job([make_phase()])
  fitted = fit.fit(job, epath.Path(tmp_path))
  said = []
  assert_same(fitted.own, fit.fit(job, epath.Path(tmp_path), say=lambda *a: said.append(a)).own)
  assert not said


def test_one_program_serves_every_rate_and_seed(make_job, make_phase, tmp_path):
  phase = make_phase(schedule='linear')
  fit.fit(make_job([phase], (1e-2, 3e-2)), epath.Path(tmp_path / 'a'))
  spread = Spread.over(2)
  program = cohort.program(cohort.advance, make_job([phase]).recipe(0), spread.mesh)
  assert len(program.compiled) == 1
  fit.fit(make_job([phase], (1e-3, 5e-3), seeds=[3, 4], num_steps=20), epath.Path(tmp_path / 'b'))
  assert len(program.compiled) == 1


def test_predictions_are_in_order_and_unpadded(make_job, make_phase, tmp_path):
  job = make_job([make_phase()], (3e-2, 3e-2))
  fitted = fit.fit(job, epath.Path(tmp_path))
  (predicted,) = fit.predict(job, fitted, (1,), job.val)
  logits, correct = predicted.kept['logits'], predicted.sums['correct']
  assert logits.shape == (60, 3)
  accuracy = correct[0] / correct[1]
  assert accuracy == pytest.approx(np.mean(logits.argmax(-1) == job.val(None).targets))
  assert accuracy == pytest.approx(fitted.progress['history'][-1]['val_accuracy'][1])


@pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)  # TensorStore's, when the bit was in its own index
def test_a_flipped_bit_is_noticed(make_job, make_phase, tmp_path):
  job = make_job([make_phase()])
  fit.fit(job, epath.Path(tmp_path))
  for file in (
    f for f in tmp_path.rglob('*') if f.is_file() and f.parent.name == 'd'
  ):  # Orbax keeps copies that it does not read
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
  with pytest.raises(ValueError, match=r'is damaged.*Delete .* and run the same command'):
    fit.fit(job, epath.Path(tmp_path))
  gc.collect()


def test_a_checkpoint_without_its_meta_does_not_exist(tmp_path):
  folder = epath.Path(tmp_path)
  tree = {'a': np.arange(3.0)}
  checkpoint.save(folder, 1, tree, {'n': 1})
  (folder / '2' / 'arrays').mkdir(parents=True)  # a save that was killed
  assert checkpoint.latest(folder)['n'] == 1
  checkpoint.save(folder, 2, tree, {'n': 2})
  assert checkpoint.latest(folder)['n'] == 2 and checkpoint.steps(folder) == [2]
  assert_same(checkpoint.restore(folder, tree), tree)
  with pytest.raises(ValueError, match='other arrays'):
    checkpoint.restore(folder, {'b': tree['a']})


def test_json_has_no_nan(tmp_path):
  checkpoint.write_json(
    epath.Path(tmp_path) / 'x.json', {'a': float('nan'), 'b': (np.float32(1.5), np.int64(2))}
  )
  assert json.loads((tmp_path / 'x.json').read_text()) == {'a': None, 'b': [1.5, 2]}


def test_a_relative_folder_will_do(tmp_path, monkeypatch):
  """`--workdir=runs/x`, as the README has it; Orbax alone takes absolute paths only."""
  monkeypatch.chdir(tmp_path)
  folder, tree = epath.Path('runs/x'), {'a': np.arange(3.0)}
  checkpoint.save(folder, 1, tree, {})
  assert_same(checkpoint.restore(folder, tree), tree)


def test_what_is_booked_within_is_not_booked_twice():
  """Activations of frozen stages may be computed when training first asks for them."""
  spent = fit.Spent(float, {'feature': 5.0})
  progress = {'compile_seconds': 0.0, 'compiled_programs': 0}
  with fit._watched(progress, spent) as watch:
    spent['feature'] += 1000.0
  assert -1001 < watch.seconds < -900
