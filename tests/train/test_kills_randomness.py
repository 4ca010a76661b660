"""What a key, a seed and a step decide: each test was seen to fail with one of them left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tlx.inputs import image
from tlx.tasks import classification
from tlx.train import feed, fit, step
from tlx.types import Batch, Network


def test_mixup_mixes_targets_as_it_mixes_images():
  """Images that show their own target: whatever is done to both, they stay equal."""
  targets = jnp.arange(24) % 3
  images = jax.nn.one_hot(targets, 3)[:, None, None, :]
  batch = Batch(images, targets, jnp.ones(24))
  mixed = image.augment(jax.random.key(0), batch, {'mixup': 1.0})
  first, second = (jax.nn.one_hot(part, 3) for part in mixed.targets[:2])
  share = mixed.targets.share[:, None]
  targets = share * first + (1 - share) * second
  np.testing.assert_allclose(targets, mixed.inputs[:, 0, 0], atol=1e-6)
  assert np.any((targets > 0.05) & (targets < 0.95))


def test_cutmix_mixes_targets_by_the_pixels_it_takes():
  """Images that show their own target at each pixel: the mean over pixels is the mixture."""
  targets = jnp.arange(24) % 3
  images = jnp.broadcast_to(jax.nn.one_hot(targets, 3)[:, None, None, :], (24, 9, 7, 3))
  batch, shares = Batch(images, targets, jnp.ones(24)), []
  for seed in range(20):
    mixed = image.augment(jax.random.key(seed), batch, {'cutmix': 1.0})
    first, second = (jax.nn.one_hot(part, 3) for part in mixed.targets[:2])
    share = mixed.targets.share[:, None]
    wanted = share * first + (1 - share) * second
    np.testing.assert_allclose(mixed.inputs.mean((1, 2)), wanted, atol=1e-5)
    taken = np.asarray((mixed.inputs != images).any(-1)).any(0)
    rows, columns = taken.any(1), taken.any(0)
    np.testing.assert_array_equal(taken, rows[:, None] & columns)  # a box
    shares.append(float(share[0, 0]))
  assert min(shares) < 0.7 < max(shares)


def test_crops_come_from_everywhere():
  """A window of a ramp tells by its pixels where it begins and ends: all sides lose 0 to 3."""
  size, pixels = 16, 3
  row, column = jnp.meshgrid(jnp.arange(16.0), jnp.arange(16.0), indexing='ij')
  batch = Batch(
    jnp.repeat(jnp.stack([row, column], -1)[None], 300, 0), jnp.zeros(300, jnp.int32), jnp.ones(300)
  )
  cropped = np.asarray(image.augment(jax.random.key(0), batch, {'crop': pixels}).inputs)
  lost = []
  for line in (cropped[:, :, 8, 0], cropped[:, 8, :, 1]):  # down, then across
    pixel = (
      line[:, 12] - line[:, 4]
    ) / 8  # the size of a pixel of the window in pixels of the image
    before = line[:, 4] + 0.5 - 4.5 * pixel
    lost += [before, size - before - size * pixel]
  for side in lost:
    assert side.min() == pytest.approx(0, abs=0.1) and side.max() == pytest.approx(pixels, abs=0.1)
  assert np.abs(np.corrcoef(lost) - np.eye(4)).max() < 0.2


def test_every_step_draws_anew(small_mlp, make_phase, examples):
  """At another step a state sees other augmented images; without augmentation the same."""
  task, hyper = classification.task(3), step.Hyper(np.float32(0.1), np.float32(0), np.float32(10))
  batch = Batch(examples.inputs, examples.targets, np.ones(60, np.float32))
  params = small_mlp.init(jax.random.key(0), np.zeros((1, 4, 4, 1), np.float32)).params

  recipe = lambda phase: step.Recipe(small_mlp, image.form(4, 1), task, phase)

  def losses(phase):
    state, frozen = step.init_state(params, {}, phase, hyper), jax.tree.map(lambda _: None, params)
    states = (state, state._replace(step=state.step + 1))
    return [
      float(
        step.train_step(recipe(phase), state, frozen, batch, jax.random.key(0), hyper)[1]['loss']
      )
      for state in states
    ]

  first, second = losses(make_phase(augment=(('shift', 2),)))
  assert first != second
  first, second = losses(make_phase())
  assert first == second


def test_every_accumulated_part_draws_anew():
  """A network that answers with one of 1,000 weights: its gradient tells how many were drawn."""

  def apply(variables, x, *, train, key, **_):
    drawn = jax.random.randint(key, (), 0, 1000)
    return variables.params['head']['weight'][drawn] * jnp.asarray([1.0, -1.0]) * jnp.ones(
      (len(x), 1)
    ), variables.stats

  network = Network(('head',), lambda key, inputs: None, apply)
  params = {'head': {'weight': jnp.zeros(1000)}}
  batch = Batch(np.zeros((8, 2, 2, 1), np.uint8), np.zeros(8, np.int32), np.ones(8, np.float32))
  for parts in (1, 2, 4):
    phase = step.Phase((('head/weight', 'train'),), (('train', 1.0),), accumulate=parts)
    _, grads = step.gradient(
      step.Recipe(network, image.form(2, 1), classification.task(2), phase),
      params,
      {'head': {'weight': None}},
      {},
      batch,
      jax.random.key(0),
    )
    assert np.count_nonzero(grads['head']['weight']) == parts


def losses_of(make_job, phase, folder, seeds, data=None):
  """The training loss of each run after each of its first 4 steps; all runs begin alike."""
  job = make_job([phase], (1e-2,) * len(seeds), seeds=list(seeds), num_steps=4, evaluations=4)
  own = jax.tree.map(lambda leaf: np.broadcast_to(leaf[:1], leaf.shape), job.own)
  if data is not None:
    job = job._replace(train=lambda phase: data)
  fitted = fit.fit(job._replace(own=own), epath.Path(folder))
  return np.array([line['loss'] for line in fitted.progress['history']]).T


def test_seeds_have_their_own_order_of_examples(make_job, make_phase, tmp_path):
  first, again, other = losses_of(make_job, make_phase(), tmp_path, (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.all(first != other)


def test_seeds_have_their_own_augmentation(make_job, make_phase, examples, tmp_path):
  """All examples are one image, so that the order of examples tells no seeds apart."""
  one = feed.Arrays(np.repeat(examples.inputs[:1], 60, 0), np.repeat(examples.targets[:1], 60))
  first, other = losses_of(make_job, make_phase(), tmp_path / 'plain', (0, 1), one)
  np.testing.assert_array_equal(first, other)
  first, again, other = losses_of(
    make_job, make_phase(augment=(('shift', 2),)), tmp_path / 'shifted', (0, 0, 1), one
  )
  np.testing.assert_array_equal(first, again)
  assert np.all(first != other)


def test_phases_of_a_seed_draw_anew(make_job, make_phase, examples, tmp_path):
  """Where nothing is learned a phase is the one before it, but for order and augmentation."""
  one = feed.Arrays(np.repeat(examples.inputs[:1], 60, 0), np.repeat(examples.targets[:1], 60))
  plain, shifted = make_phase(), make_phase(augment=(('shift', 2),))
  for phase, data in ((plain, examples), (shifted, one)):
    job = make_job([phase, phase], (1e-12, 1e-12), num_steps=4, evaluations=4)._replace(
      train=lambda phase, data=data: data
    )
    history = fit.fit(job, epath.Path(tmp_path / str(phase is plain))).progress['history']
    losses = [line['loss'][0] for line in history]
    assert all(first != second for first, second in zip(losses[:4], losses[4:], strict=True))
