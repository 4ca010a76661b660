"""Every penalty of the room as runs go: interrupted, in parts, on several devices, on texts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tlx.backbones import bert, cnn, mlp
from tlx.inputs import image
from tlx.penalties import ewc
from tlx.plug import available, plug
from tlx.tasks import classification
from tlx.train import feed, fit, step
from tlx.train.anchor import Anchor, Origin
from tlx.train.job import Job, PhasePlan
from tlx.train.spread import Devices
from tlx.tree import map_named, named_leaves
from tlx.types import Form, Variables

ROOM = available('penalties')
TASK, FORM = classification.task(3), image.form(4, 1)
OPTIONS = {
  'ewc': {'alpha': 50.0, 'examples': 20},
  'delta': {'alpha': 0.3, 'attention': True, 'examples': 6},
  'bss': {'alpha': 0.3},
  'l2_sp': {'alpha': 3.0},
}
# What they add is not a mean over examples: a batch in parts is another thing.
OF_THE_BATCH = ('bss', 'stochnorm')
TOKENS = Form(
  'tokens',
  {'ids': jax.ShapeDtypeStruct((5,), np.int32), 'mask': jax.ShapeDtypeStruct((5,), np.int32)},
  enter=lambda leaves: leaves,
  augment=lambda key, batch, options: batch,
  check=lambda options: None,
)


def text_examples():
  """60 texts of 2 to 5 tokens, whose first says the class."""
  random = np.random.default_rng(0)
  classes = np.repeat(np.arange(3), 20).astype(np.int32)
  ids = random.integers(4, 17, (60, 5)).astype(np.int32)
  ids[:, 0] = classes + 1
  mask = (np.arange(5) < random.integers(2, 6, (60, 1))).astype(np.int32)
  return feed.Arrays({'ids': ids * mask, 'mask': mask}, classes)


@functools.cache
def network_of(kind):
  if kind == 'text':
    options, _ = bert.tiny()
    return bert.build(**{**options, 'depth': 1})
  if kind == 'norms':
    return cnn.build(3, channels=(4,), hidden=6, norm='batch')
  return mlp.build(3, widths=(8, 6))


def job_of(name, examples, kind='', penalty=None, num_runs=2, **fields):
  """Runs that begin with a source's weights under heads of their own, held by a penalty."""
  network = network_of(kind or ('norms' if name == 'stochnorm' else 'image'))
  inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf[:2]), examples.inputs)
  if not isinstance(inputs, dict):
    inputs = FORM.enter(inputs)
  source, *own = (
    jax.device_get(jax.jit(network.init)(jax.random.key(seed), inputs)) for seed in range(3)
  )
  own = own[:num_runs]
  made = penalty or plug('penalties', name).penalty(**OPTIONS.get(name, {}))
  leaves = [leaf for leaf, _ in named_leaves(source.params)]
  brought = frozenset(leaf for leaf in leaves if not leaf.startswith('head/'))
  anchor = Anchor(made, network, brought, 3 if 'head' in made.reads else 0)
  labels = tuple((leaf, 'train') for leaf in leaves)
  phase = step.Phase(labels, (('train', 1.0),), anchor=anchor, **fields)
  heads = jax.tree.map(lambda *leaves: np.stack(leaves), *(of_run.params for of_run in own))
  return Job(
    network,
    FORM if kind != 'text' else TOKENS,
    (PhasePlan(phase, TASK, 6, 8, 2, 0.0),),
    Variables(map_named(lambda leaf, x: x if leaf in brought else None, source.params), {}),
    map_named(lambda leaf, x: None if leaf in brought else x, heads),
    jax.tree.map(lambda leaf: np.stack([leaf] * num_runs), source.stats),
    lambda phase: examples,
    lambda phase: examples,
    [np.arange(60), np.arange(10, 50)][:num_runs],
    [0, 1][:num_runs],
    [1e-2] * num_runs,
    [0.0] * num_runs,
    origin=Origin(network, TASK, source, lambda: examples),
  )


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  """name -> its two runs, as they are."""
  random = np.random.default_rng(0)
  inputs = random.integers(0, 100, (60, 4, 4, 1)).astype(np.uint8)
  examples = feed.Arrays(inputs, np.repeat(np.arange(3), 20).astype(np.int32))
  folder = tmp_path_factory.mktemp('plain')

  @functools.cache
  def of(name):
    return examples, fit.fit(job_of(name, examples), epath.Path(folder / name))

  return of


def assert_close(ours, theirs, run=None):
  for (name, a), (_, b) in zip(named_leaves(ours), named_leaves(theirs), strict=True):
    b = b if run is None else b[run : run + 1]
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5, err_msg=name)


def interrupted(job, folder):
  """The same job, stopped after its first steps and begun again."""
  calls = []
  with pytest.raises(KeyboardInterrupt):
    fit.fit(job, folder, say=lambda *_: calls.append(0), interrupted=lambda: len(calls) >= 1)
  return fit.fit(job, folder)


@pytest.mark.parametrize('name', ROOM)
def test_interrupted_runs_end_in_the_same_numbers(name, plain, tmp_path, monkeypatch):
  monkeypatch.setattr(fit, 'FIRST_STEPS', 2)
  examples, whole = plain(name)
  parts = interrupted(job_of(name, examples), epath.Path(tmp_path))
  for (leaf, a), (_, b) in zip(named_leaves(whole.own), named_leaves(parts.own), strict=True):
    np.testing.assert_array_equal(a, b, err_msg=leaf)
  assert whole.progress['history'] == parts.progress['history']
  assert whole.progress['taken'] == [[6, 6]]


@pytest.mark.parametrize('name', ROOM)
def test_in_parts_and_with_activations_computed_again_it_is_the_same(name, plain, tmp_path):
  examples, whole = plain(name)
  fields = {'remat': True, 'accumulate': 1 if name in OF_THE_BATCH else 2}
  other = fit.fit(job_of(name, examples, **fields), epath.Path(tmp_path))
  assert_close(other.own, whole.own)
  penalties = [line.get('penalty', [0.0]) for line in whole.progress['history']]
  wanted = [line.get('penalty', [0.0]) for line in other.progress['history']]
  np.testing.assert_allclose(penalties, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('name', ROOM)
def test_a_run_whose_batches_are_split_over_devices_is_the_same(name, plain, tmp_path):
  examples, whole = plain(name)
  job = job_of(name, examples, num_runs=1)._replace(devices=Devices(run=1, data=2))
  assert job.spread().mesh.shape['data'] == 2
  assert_close(fit.fit(job, epath.Path(tmp_path)).own, whole.own, run=0)


@pytest.mark.parametrize('name', [name for name in ROOM if name != 'stochnorm'])
def test_on_texts(name, tmp_path, monkeypatch):
  """Of unequal lengths; what it adds is a number that moves the run, also once it goes on."""
  monkeypatch.setattr(fit, 'FIRST_STEPS', 2)
  held = interrupted(job_of(name, text_examples(), 'text', num_runs=1), epath.Path(tmp_path))
  assert all(np.isfinite(leaf).all() for _, leaf in named_leaves(held.own))
  assert held.progress['taken'] == [[6]]
  if 'penalty' in held.progress['history'][-1]:
    assert held.progress['history'][-1]['penalty'][0] > 0


def known_of(job):
  """What the penalty knows of the runs at their first step."""
  job = job.timed()
  spread = job.spread()
  own = fit._with_trained(spread.pad(job.own), job, 0, spread)
  phased = fit.prepare(job, 0, own, spread.pad(job.stats), spread)
  return spread.unpad(fit._informed(job, 0, phased, spread).runs.known)


def test_the_fisher_information_of_a_softmax_is_that_of_hand(plain, tmp_path):
  """A head alone: the gradient of one example is x (p - y)', so F is the mean of its squares.

  With `data` = 'target', of the run's own examples as it begins.
  """
  examples, _ = plain('l2_sp')
  penalty = ewc.penalty(data='target', examples=60)
  job = job_of('ewc', examples, penalty=penalty, num_runs=1)
  known = known_of(job)
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), job.base.params)
  head = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), job.own['head'])
  x = np.asarray(FORM.enter(jnp.asarray(examples.inputs)), np.float64).reshape(60, -1)
  first, second = (params[stage]['linear'] for stage in ('dense1', 'dense2'))
  entered = np.maximum(x @ first['kernel'] + first['bias'], 0)
  before = entered @ second['kernel'] + second['bias']
  logits = np.maximum(before, 0) @ head['kernel'] + head['bias']
  probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  errors = (probabilities - np.eye(3)[examples.targets]) @ head['kernel'].T * (before > 0)
  wanted = np.mean((entered[:, :, None] * errors[:, None, :]) ** 2, axis=0)
  found = known['dense2']['linear']
  np.testing.assert_allclose(found['kernel'][0], wanted, rtol=1e-3, atol=1e-9)
  np.testing.assert_allclose(found['bias'][0], np.mean(errors**2, axis=0), rtol=1e-3, atol=1e-9)
  assert known['head']['kernel'] is None  # the source does not bring it


@pytest.mark.parametrize('data', ['target', 'source'])
def test_what_is_observed_are_losses_in_the_weights_of_their_classes(data, plain):
  """Weights out of the examples' own classes count as the same weights do in writing."""
  rows = np.r_[0:20, 20:25, 40:42]
  few = jax.tree.map(lambda leaf: leaf[rows], plain('l2_sp')[0])
  penalty = ewc.penalty(data=data, examples=60)

  def fisher(weights):
    task = classification.task(3, class_weights=weights)
    job = job_of('ewc', few, penalty=penalty, num_runs=1)
    plan = job.phases[0]._replace(task=task)
    origin = job.origin._replace(task=task)
    examples = [np.arange(len(rows))]
    job = job._replace(phases=(plan,), origin=origin, examples=examples)
    return dict(named_leaves(known_of(job)))['dense1/linear/kernel']

  balanced = fisher('balanced')
  np.testing.assert_allclose(balanced, fisher((27 / 60, 27 / 15, 27 / 6)), rtol=1e-4)
  assert not np.allclose(balanced, fisher(()), rtol=0.1)
