"""What all tests share."""

import os

# Two devices: cohorts are split over them in most tests, as they are on a laptop.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=2')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', os.path.expanduser('~/.cache/tlx/xla'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

import numpy as np
import pytest

from tlx.inputs import image
from tlx.tasks import classification
from tlx.train import feed, step
from tlx.train.job import Job, PhasePlan
from tlx.tree import label, named_leaves
from tlx.types import Variables


@pytest.fixture
def small_mlp():
  """A network of four stages for 4x4 images of 3 classes."""
  from tlx.backbones import mlp

  return mlp.build(3, widths=(8, 6, 5))


@pytest.fixture
def make_phase(small_mlp):
  """(rules, **fields of Phase) -> Phase for `small_mlp`."""
  import jax

  shapes = jax.eval_shape(
    small_mlp.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, 4, 4, 1), np.float32),
  )

  def make(rules=(('.*', 'train'),), rates=(('train', 1.0),), **fields):
    return step.Phase(tuple(named_leaves(label(shapes.params, rules))), rates, **fields)

  return make


@pytest.fixture
def examples():
  """60 images of 3 classes that a small network can tell apart: the class is where the bright row
  is.
  """
  random = np.random.default_rng(0)
  targets = np.repeat(np.arange(3), 20).astype(np.int32)
  inputs = random.integers(0, 100, (60, 4, 4, 1)).astype(np.uint8)
  inputs[np.arange(60), targets] += 120
  return feed.Arrays(inputs, targets)


@pytest.fixture
def make_job(small_mlp, examples):
  """(phases, learning rates, seeds) -> a cohort of scratch runs on `examples`."""
  import jax

  def make(
    phases,
    learning_rates=(1e-2, 3e-2),
    seeds=None,
    num_steps=12,
    evaluations=3,
    base=None,
    batch_size=8,
  ):
    seeds = seeds or [0] * len(learning_rates)
    drawn = [
      jax.device_get(
        small_mlp.init(jax.random.key(seed), np.zeros((1, 4, 4, 1), np.float32)).params
      )
      for seed in seeds
    ]
    own = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
    base = base or jax.tree.map(lambda _: None, drawn[0])
    own = {
      stage: leaves if jax.tree.leaves(base[stage]) == [] else jax.tree.map(lambda _: None, leaves)
      for stage, leaves in own.items()
    }
    plans = tuple(
      PhasePlan(phase, TASK, num_steps, batch_size, evaluations, 0.0) for phase in phases
    )
    return Job(
      small_mlp,
      FORM,
      plans,
      Variables(base, {}),
      own,
      {},
      lambda phase: examples,
      lambda phase: examples,
      [np.arange(60)] * len(seeds),
      seeds,
      list(learning_rates),
      [0.0] * len(seeds),
    )

  return make


TASK = classification.task(3)
FORM = image.form(4, 1)


@pytest.fixture(autouse=True, scope='module')
def _few_programs():
  """Of hundreds of test files in one process."""
  yield
  from tlx.train import cohort

  cohort.let_go()
