"""What a run says of itself and is continued from: each test was seen to fail once."""

import jax
import numpy as np
import pytest
from etils import epath

from tlx import checkpoint
from tlx.backbones import cnn
from tlx.inputs import image
from tlx.tasks import classification
from tlx.train import feed, fit, step
from tlx.train.job import Job, PhasePlan
from tlx.tree import label, named_leaves, sha256
from tlx.types import Variables

HEAD = (('^head/', 'train'), ('.*', 'frozen'))
ALL = (('.*', 'train'),)
NETWORK = cnn.build(3, channels=(4,), hidden=6, norm='batch')


@pytest.fixture
def make_norm_job():
  """(rules, fields of Phase), ... -> two runs with batch norm.

  The statistics they begin with are not those of a fresh network.
  """
  random = np.random.default_rng(0)
  images = feed.Arrays(
    random.integers(0, 255, (40, 8, 8, 1)).astype(np.uint8),
    random.integers(0, 3, 40).astype(np.int32),
  )
  drawn = jax.device_get(NETWORK.init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32)))
  stats = jax.tree.map(lambda leaf: np.stack([leaf + 0.1, leaf + 0.2]), drawn.stats)
  nothing = jax.tree.map(lambda _: None, drawn.params)
  base, own = (
    {**drawn.params, 'head': nothing['head']},
    jax.tree.map(lambda leaf: np.stack([leaf, leaf]), drawn.params['head']),
  )

  def make(*phases):
    plans = [
      step.Phase(tuple(named_leaves(label(drawn.params, rules))), (('train', 1.0),), **fields)
      for rules, fields in phases
    ]
    plans = tuple(PhasePlan(phase, classification.task(3), 6, 8, 2, 0.0) for phase in plans)
    return Job(
      NETWORK,
      image.form(8, 1),
      plans,
      Variables(base, {}),
      {**nothing, 'head': own},
      stats,
      lambda phase: images,
      lambda phase: images,
      [np.arange(40)] * 2,
      [0, 1],
      [1e-2, 1e-2],
      [0.0, 0.0],
    )

  return make


def assert_same(a, b):
  for (name, x), (_, y) in zip(named_leaves(a), named_leaves(b), strict=True):
    np.testing.assert_array_equal(x, y, err_msg=name)


def differ(a, b) -> bool:
  return all(np.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(
  'stop_after', [1, 2, 3]
)  # within the first phase, at its end, within the second
def test_interrupted_runs_go_on_with_their_batch_statistics(
  make_norm_job, tmp_path, monkeypatch, stop_after
):
  monkeypatch.setattr(fit, 'FIRST_STEPS', 3)
  job = make_norm_job((HEAD, {}), (ALL, {}))
  whole = fit.fit(job, epath.Path(tmp_path / 'whole'))
  calls: list[int] = []
  with pytest.raises(KeyboardInterrupt):
    fit.fit(
      job,
      epath.Path(tmp_path / 'parts'),
      say=lambda *_: calls.append(0),
      interrupted=lambda: len(calls) >= stop_after,
    )
  parts = fit.fit(job, epath.Path(tmp_path / 'parts'))
  assert differ(whole.stats, job.stats)
  assert_same(whole.stats, parts.stats)
  assert_same(whole.own, parts.own)
  assert whole.progress['history'] == parts.progress['history']


def test_a_read_cohort_has_its_batch_statistics(make_norm_job, tmp_path):
  job = make_norm_job((ALL, {}))
  assert_same(fit.fit(job, epath.Path(tmp_path)).stats, fit.fit(job, epath.Path(tmp_path)).stats)


def test_logged_losses_are_means_since_the_line_before(make_job, make_phase, tmp_path):
  """Two phases of 12 steps, looked at after each step and after every fourth."""

  def logged(evaluations, name):
    job = make_job([make_phase(HEAD), make_phase()], num_steps=12, evaluations=evaluations)
    history = fit.fit(job, epath.Path(tmp_path / name)).progress['history']
    return {
      name: np.array([line[name] for line in history]) for name in ('step', 'loss', 'grad_norm')
    }

  each, some = logged(12, 'each'), logged(3, 'some')
  assert some['step'][:, 0].tolist() == [4, 8, 12, 16, 20, 24]
  for name in ('loss', 'grad_norm'):
    np.testing.assert_allclose(some[name], each[name].reshape(6, 4, 2).mean(1), rtol=1e-5)


def test_compiled_programs_are_counted_where_they_are_compiled(make_job, make_phase, tmp_path):
  """Training and evaluation are a program each; equal phases share them, also of later cohorts."""
  phases = [make_phase(HEAD, clip_norm=78.0), make_phase(HEAD, clip_norm=78.0)]  # no other test's
  first, second = (
    fit.fit(make_job(phases), epath.Path(tmp_path / name)).progress for name in ('first', 'second')
  )
  assert (first['compiled_programs'], second['compiled_programs']) == (2, 0)
  assert first['compile_seconds'] > 0 == second['compile_seconds']


def test_what_is_compiled_ahead_is_what_a_run_needs(make_job, make_phase, tmp_path):
  job = make_job([make_phase(HEAD, clip_norm=79.0)])  # no other test's
  rows = fit.compile_ahead(job)
  assert [row['phase'] for row in rows] == [0, 0]
  assert all(row['seconds'] > 0 and row['bytes'] > 0 for row in rows)
  assert fit.fit(job, epath.Path(tmp_path)).progress['compiled_programs'] == 0


def test_only_the_digest_notices_other_numbers(tmp_path):
  """Arrays of the same names and shapes, whole and readable, but not those that were saved."""
  folder, tree = epath.Path(tmp_path), {'a': np.arange(3.0), 'b': np.ones((2, 2), np.float32)}
  checkpoint.save(folder, 1, tree, {})
  checkpoint.save(folder / 'other', 1, {**tree, 'a': np.array([0, 1, 2 + 1e-15])}, {})
  (folder / '1' / 'arrays').rmtree()
  (folder / 'other' / '1' / 'arrays').rename(folder / '1' / 'arrays')
  for read in (checkpoint.load, lambda folder: checkpoint.restore(folder, tree)):
    with pytest.raises(
      ValueError, match='is damaged: its digest should be [0-9a-f]{64}, got [0-9a-f]{64}'
    ):
      read(folder)


def test_an_edited_meta_is_damage(tmp_path):
  """What is chosen follows from the history there."""
  folder, tree = epath.Path(tmp_path), {'a': np.arange(3.0)}
  checkpoint.save(folder, 1, tree, {'history': [{'val_accuracy': [0.77]}]})
  meta = folder / '1' / 'meta.json'
  meta.write_text(meta.read_text().replace('0.77', '0.97'))
  for read in (checkpoint.latest, checkpoint.load):
    with pytest.raises(ValueError, match='is damaged'):
      read(folder)


def test_a_digest_tells_values_names_shapes_and_types():
  trees = [
    {'a': np.arange(4.0)},
    {'b': np.arange(4.0)},
    {'a': np.arange(4.0).reshape(2, 2)},
    {'a': np.arange(4.0).view(np.int64)},
    {'a': -np.arange(4.0)},
    {'a': np.arange(4.0), 'b': np.zeros(0)},
    {'a': np.arange(2.0), 'b': np.arange(2.0, 4.0)},
  ]
  assert len({sha256(tree) for tree in trees}) == len(trees)
