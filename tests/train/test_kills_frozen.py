"""Frozen means unchanged: digests of what a phase began with and of what it ended with."""

import jax
import numpy as np
import pytest
from etils import epath

from tlx.backbones import cnn
from tlx.inputs import image
from tlx.tasks import classification
from tlx.train import cohort, feed, fit, step
from tlx.train.job import Job, PhasePlan
from tlx.tree import label, named_leaves
from tlx.types import Variables

HEAD = (('^head/', 'train'), ('.*', 'frozen'))
DENSE = (('^fc/', 'train'), ('.*', 'frozen'))
NETWORK = cnn.build(3, channels=(4,), hidden=6, norm='batch')


def job_of(rules, **fields):
  """Two runs of one phase with frozen statistics, from a source without a head."""
  random = np.random.default_rng(0)
  images = feed.Arrays(
    random.integers(0, 255, (40, 8, 8, 1)).astype(np.uint8),
    random.integers(0, 3, 40).astype(np.int32),
  )
  drawn = jax.device_get(NETWORK.init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32)))
  twice = lambda tree: jax.tree.map(lambda leaf: np.stack([leaf, leaf]), tree)
  nothing = jax.tree.map(lambda _: None, drawn.params)
  labels = tuple(named_leaves(label(drawn.params, rules)))
  phase = step.Phase(labels, (('train', 1.0),), frozenset({'block1/norm'}), **fields)
  plan = PhasePlan(
    phase, classification.task(3), num_steps=2, batch_size=8, evaluations=1, learning_rate=0.0
  )
  return Job(
    NETWORK,
    image.form(8, 1),
    (plan,),
    Variables({**drawn.params, 'head': nothing['head']}, {}),
    {**nothing, 'head': twice(drawn.params['head'])},
    twice(drawn.stats),
    lambda phase: images,
    lambda phase: images,
    [np.arange(40)] * 2,
    [0, 1],
    [1e-2, 1e-2],
    [0.0, 0.0],
  )


def digests(job, folder):
  (frozen,) = fit.fit(job, epath.Path(folder)).progress['frozen']
  return frozen['before'], frozen['after']


def all_differ(before, after):
  return all(first != second for first, second in zip(before, after, strict=True))


def test_statistics_that_move_are_found_out(tmp_path, monkeypatch):
  real = cohort.train_step

  def moving(*arguments):
    state, metrics = real(*arguments)
    return state._replace(stats=jax.tree.map(lambda leaf: leaf + 1, state.stats)), metrics

  before, after = digests(job_of(HEAD), tmp_path / 'still')
  assert before == after and '' not in before
  monkeypatch.setattr(cohort, 'train_step', moving)
  before, moved = digests(
    job_of(HEAD, clip_norm=77.0), tmp_path / 'moved'
  )  # a program that no other test has compiled
  assert before == after and all_differ(before, moved)


@pytest.mark.parametrize('rules, place', [(HEAD, 'shared'), (DENSE, 'shared'), (DENSE, 'runs')])
@pytest.mark.parametrize('leaf', [0, -1])
def test_leaves_that_change_are_found_out(tmp_path, monkeypatch, rules, place, leaf):
  """One number of a frozen leaf, the source's (`shared`) or the runs' own (`runs`), changes."""
  real = fit.prepare

  def changed(*arguments):
    begun = real(*arguments)
    frozen = begun.frozen if place == 'shared' else begun.runs.frozen
    leaves, structure = jax.tree.flatten(frozen)
    first = (
      (slice(None), *(0,) * (leaves[leaf].ndim - 1))
      if place == 'runs'
      else (0,) * leaves[leaf].ndim
    )
    leaves[leaf] = leaves[leaf].at[first].add(1)
    frozen = jax.tree.unflatten(structure, leaves)
    if place == 'shared':
      return begun._replace(frozen=frozen)
    return begun._replace(runs=begun.runs._replace(frozen=frozen))

  still, same = digests(job_of(rules), tmp_path / 'still')
  assert still == same and '' not in still
  monkeypatch.setattr(fit, 'prepare', changed)
  before, after = digests(job_of(rules), tmp_path / 'changed')
  assert before == still and all_differ(before, after)
