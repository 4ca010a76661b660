"""What is frozen runs once: the same numbers as if it ran at every step.

Kept on disk, computed again when damaged.
"""

import functools
import json
import os
import pathlib
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx import freezing, peft
from tlx.backbones import cnn, head_after
from tlx.inputs import image
from tlx.peft import lora
from tlx.plug import available, plug
from tlx.tasks import classification
from tlx.train import prefix, step
from tlx.tree import label, named_leaves
from tlx.types import Batch, Form

TASK = classification.task(3)
FORM = image.form(6, 1)


def form_of(inputs):
  """The form of images of any number of channels, or of tokens, which enter as they are."""
  if not isinstance(inputs, dict):
    spec = jax.ShapeDtypeStruct(inputs.shape[1:], inputs.dtype)
    return Form(f'image {spec.shape}', spec, scaled, image.augment, as_they_are)
  spec = {name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for name, leaf in inputs.items()}
  return Form('tokens', spec, as_they_are, lambda key, batch, options: batch, as_they_are)


def scaled(images):
  return images.astype(jnp.float32) / 255


def as_they_are(leaves):
  return leaves


IMAGES = np.random.default_rng(0).integers(0, 255, (70, 6, 6, 1)).astype(np.uint8)
NETWORK = cnn.build(3, channels=(4, 8), hidden=6, norm='batch')


def phase_of(network, variables, policy, norm='frozen', options=None, **fields):
  """The phase of a freezing policy and the stage it may begin at."""
  rules = plug('freezing', policy).rules([(stage,) for stage in network.stages], **(options or {}))
  labels = tuple(named_leaves(label(variables.params, rules)))
  norms = freezing.frozen_norms(variables.params, variables.stats, rules, norm)
  start = prefix.boundary(network, variables, dict(labels), norms, frozenset())
  return step.Phase(labels, (('train', 1.0),), norms, start=start, **fields)


def gradients(network, variables, phase, inputs, targets, start):
  """(loss, statistics, gradients) of the stages from `start` on."""
  batch = Batch(inputs, targets, jnp.ones(len(targets)))
  recipe = step.Recipe(
    network, form_of(inputs) if not start else FORM, TASK, phase._replace(start=start)
  )
  return step.gradient(
    recipe, *step.split(variables.params, phase), variables.stats, batch, jax.random.key(1)
  )


def close(a, b, tolerance=2e-5):
  for (name, x), (_, y) in zip(named_leaves(a), named_leaves(b), strict=True):
    np.testing.assert_allclose(
      x,
      y,
      rtol=tolerance,
      atol=tolerance * (1e-2 + np.abs(np.asarray(y)).max(initial=0)),
      err_msg=name,
    )


UNOPTIMISED = {
  'xla_backend_optimization_level': 0
}  # what runs once need not be fast, only compiled fast


def same_with_and_without(network, variables, phases, inputs, targets):
  """Loss, statistics and gradients from the kept activation are those of the whole network."""

  @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
  def both(variables, inputs):
    enough = jax.tree.map(
      lambda leaf: jnp.concatenate([leaf] * jax.local_device_count()),
      (inputs, jnp.asarray(targets)),
    )  # for every device
    kept = prefix.pass_program(
      tuple(prefix.Point(network, form_of(inputs), phase) for phase in phases), 1
    )(variables, *enough)
    kept = jax.tree.map(lambda leaf: leaf[: len(targets)], kept)
    return [
      [
        gradients(network, variables, phase, x, targets, start)
        for x, start in ((inputs, 0), (activation, phase.start))
      ]
      for phase, activation in zip(phases, kept)
    ]

  for off, on in both(variables, inputs):
    close(on, off)


@pytest.mark.parametrize('backbone', available('backbones'))
def test_reuse_changes_nothing_on_any_backbone(backbone):
  module = plug('backbones', backbone)
  options, inputs = module.tiny()
  network = module.build(**options)
  if not isinstance(inputs, dict):
    inputs = np.random.default_rng(1).integers(0, 255, inputs.shape).astype(np.uint8)
  targets = np.arange(len(jax.tree.leaves(inputs)[0])) % 3
  entering = form_of(inputs).enter(jax.tree.map(jnp.asarray, inputs))
  variables = jax.jit(network.init, compiler_options=UNOPTIMISED)(jax.random.key(0), entering)
  depth = len(network.stages)
  phases = {
    phase.start: phase
    for phase in (
      phase_of(network, variables, 'after', options={'k': k}) for k in (1, depth // 2, depth - 1)
    )
  }
  assert depth - 1 in phases and 1 in phases
  same_with_and_without(network, variables, list(phases.values()), inputs, targets)


def test_reuse_changes_nothing_under_any_policy():
  network = peft.wrap(NETWORK, lora.added(at='fc/', rank=2))
  variables = network.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32))
  options = {
    'first': {'k': 2},
    'last': {'k': 2},
    'after': {'k': 2},
    'random': {'k': 1},
    'measured': {'k': 1},
    'select': {'share': 0.5},
    'regex': {'rules': (('block1/', 'frozen'), ('.*', 'train'))},
    'surgical': {'stages': ('fc',)},
  }
  phases = [
    phase_of(network, variables, policy, options=options.get(policy, {}))
    for policy in available('freezing')
  ]
  phases = [phase for phase in phases if phase.start]
  # added, after, head, last, random, regex, select, surgical; the others train in the first stage
  assert [phase.start for phase in phases] == [2, 2, 3, 2, 2, 1, 3, 2]
  same_with_and_without(network, variables, phases, IMAGES[:8], np.arange(8) % 3)


def test_the_boundary_is_where_something_moves():
  variables = NETWORK.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32))
  stages = NETWORK.stages
  assert stages == ('block1', 'block2', 'fc', 'head')
  of = lambda *args, **kwargs: phase_of(NETWORK, variables, *args, **kwargs).start
  assert (
    of('head') == 3
    and of('last', options={'k': 2}) == 2
    and of('first', options={'k': 1}) == 0
    and of('bias') == 0
  )
  assert (
    of('head', norm='live') == 0
  )  # statistics that follow the data change what later stages see
  labels = {name: 'frozen' for name, _ in named_leaves(variables.params)}
  norms = frozenset({'block1/norm', 'block2/norm'})
  assert (
    prefix.boundary(NETWORK, variables, labels, norms, frozenset({'block2/conv/kernel'})) == 1
  )  # trained in an earlier phase
  assert prefix.boundary(NETWORK, variables, labels, norms - {'block2/norm'}, frozenset()) == 1


@pytest.fixture
def kept(tmp_path):
  """(phase, keyword arguments of Phase) -> the activations of IMAGES, through the folder."""
  variables = jax.device_get(NETWORK.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32)))
  runs = []

  def read(
    policy='head',
    variables=variables,
    images=IMAGES,
    sha='a',
    network=NETWORK,
    say=runs.append,
    form=FORM,
    **fields,
  ):
    phase = phase_of(
      network, network.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32)), policy, **fields
    )
    return prefix.activations(
      prefix.Trunk(variables, 'cnn', tmp_path),
      images,
      sha,
      [prefix.Point(network, form, phase)],
      say,
    )[0]

  read.variables, read.runs, read.folder = variables, runs, pathlib.Path(tmp_path)
  return read


def test_activations_are_the_networks_own_and_kept(kept):
  found = kept()
  want, _ = NETWORK.apply(kept.variables, FORM.enter(IMAGES), train=False, stop=3)
  assert found.shape == (70, 6)
  np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
  assert len(kept.runs) == 1 and 'before head' in kept.runs[0]
  again = kept()
  assert isinstance(again, np.memmap) and len(kept.runs) == 1
  np.testing.assert_array_equal(again, found)


def test_another_weight_image_or_form_is_another_entry(kept):
  kept()
  other = jax.tree.map(np.copy, kept.variables)
  other.params['block1']['conv']['kernel'][0, 0, 0, 0] += 1e-6
  kept(variables=other)
  kept(sha='b')
  kept(form=image.form(6, 1, mean=(0.1,)))
  assert len(kept.runs) == 4
  head = jax.tree.map(np.copy, kept.variables)
  head.params['head']['kernel'][0, 0] += 1  # not before the boundary
  kept(variables=head)
  assert len(kept.runs) == 4


@pytest.mark.parametrize('damage', ['flip', 'truncate', 'no meta', 'meta', 'gone'])
def test_a_damaged_entry_is_computed_again(kept, damage):
  found = np.array(kept())
  (file,), (meta,) = kept.folder.rglob('0.npy'), kept.folder.rglob('meta.json')
  data = bytearray(file.read_bytes())
  data[-5] ^= 1
  {
    'flip': lambda: file.write_bytes(data),
    'truncate': lambda: file.write_bytes(data[:200]),
    'no meta': meta.unlink,
    'meta': lambda: meta.write_text('{"leaves": 3}'),
    'gone': file.unlink,
  }[damage]()
  np.testing.assert_array_equal(kept(), found)
  assert len(kept.runs) == 2
  np.testing.assert_array_equal(kept(), found)
  assert len(kept.runs) == 2


def test_points_of_one_trunk_take_one_pass(tmp_path):
  """Also those of networks cut at other stages; each equals its own network's activation."""
  variables = jax.device_get(NETWORK.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32)))
  cut = head_after(NETWORK, 'block1', 3)
  points = [
    prefix.Point(
      network,
      FORM,
      phase_of(
        network,
        network.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32)),
        policy,
        options=given,
      ),
    )
    for network, policy, given in (
      (NETWORK, 'head', {}),
      (NETWORK, 'after', {'k': 1}),
      (cut, 'head', {}),
    )
  ]
  said = []
  head, block1, average = prefix.activations(
    prefix.Trunk(variables, 'cnn', tmp_path), IMAGES, 'a', points, said.append
  )
  assert said == ['Running 70 examples once through the frozen stages before head, block2.']
  assert head.shape == (70, 6) and block1.shape == (70, 3, 3, 4) and average.shape == (70, 4)
  np.testing.assert_allclose(average, block1.mean((1, 2)), rtol=1e-5, atol=1e-6)
  metas = [json.loads(path.read_text()) for path in pathlib.Path(tmp_path).rglob('meta.json')]
  assert sorted(meta['bytes'] for meta in metas) == sorted(
    array.nbytes for array in (head, block1, average)
  )


def test_views_are_augmentations_one_after_another(kept):
  plain = np.array(kept())
  views = kept(augment=(('flip', 1.0),), views=2)
  flipped = kept(images=np.ascontiguousarray(IMAGES[:, :, ::-1]), sha='flipped')
  assert views.shape == (140, 6)
  np.testing.assert_allclose(views[:70], flipped, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(views[70:], flipped, rtol=1e-5, atol=1e-6)
  assert np.abs(plain - flipped).max() > 1e-3
  shifted = kept(augment=(('shift', 2),), views=2)
  assert np.abs(shifted[:70] - shifted[70:]).max() > 1e-3


def test_targets_move_with_the_views_of_a_form_that_moves_them():
  """Here an augmentation adds a number to the images, and the same to targets that are numbers."""

  def augment(key, batch, options):
    drawn = jax.random.uniform(key, (len(batch.mask),))
    inputs = batch.inputs + drawn[:, None, None, None]
    return batch._replace(inputs=inputs, targets=batch.targets + drawn)

  form = FORM._replace(name='moving', augment=augment, moves=True)
  phase = step.Phase((), (), augment=(('add', 1.0),), views=2)
  images, targets = IMAGES.astype(np.float32), np.arange(len(IMAGES), dtype=np.float32)
  found = prefix.targets_of_views(form, phase, images, targets)
  point = prefix.Point(NETWORK, form._replace(enter=lambda x: x), phase)
  assert found.shape == (140,) and len(set((found % 1).tolist())) > 130
  run = prefix.pass_program((point,), 1)
  (drawn,) = run({}, jnp.zeros((140, *IMAGES.shape[1:])), np.arange(140, dtype=np.int32))
  np.testing.assert_allclose(found % 1, drawn[:, 0, 0, 0] % 1, atol=1e-5)
  still = prefix.targets_of_views(FORM, phase, images, targets)
  np.testing.assert_array_equal(still, np.tile(targets, 2))


def test_a_view_depends_on_its_example_alone(tmp_path, monkeypatch):
  """Not on how many examples a device takes at a time."""
  variables = jax.device_get(NETWORK.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32)))
  point = prefix.Point(
    NETWORK, FORM, phase_of(NETWORK, variables, 'head', augment=(('shift', 2),), views=2)
  )
  made = []
  for batch, cpu_bytes in ((32, 1e9), (8, 1.0)):
    monkeypatch.setattr(prefix, 'BATCH', batch)
    monkeypatch.setattr(prefix, 'CPU_BYTES', cpu_bytes)
    made += prefix.activations(
      prefix.Trunk(variables, 'cnn', tmp_path / str(batch)), IMAGES, 'a', [point]
    )
  np.testing.assert_allclose(*made, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='devices take fewer on CPU alone')
def test_few_examples_are_not_filled_up_to_a_full_batch(tmp_path, monkeypatch):
  """And what is computed of an example does not depend on how many there are."""
  variables = jax.device_get(NETWORK.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32)))
  point = prefix.Point(NETWORK, FORM, phase_of(NETWORK, variables, 'head'))
  monkeypatch.setattr(prefix, 'CPU_BYTES', 1.0)  # parts of one example
  made, taken = [], []

  def program(points, part):
    run = prefix_program(points, part)
    return lambda variables, inputs, numbers: (
      taken.append(len(inputs)) or run(variables, inputs, numbers)
    )

  prefix_program = prefix.pass_program
  monkeypatch.setattr(prefix, 'pass_program', program)
  devices = jax.device_count()
  for number in (1, devices + 1, len(IMAGES)):
    trunk = prefix.Trunk(variables, 'cnn', tmp_path / str(number))
    made += prefix.activations(trunk, IMAGES[:number], 'a', [point])
  assert taken[:2] == [devices, 2 * devices]
  assert set(taken[2:]) == {min(prefix.BATCH * devices, 128)}
  np.testing.assert_array_equal(made[0], made[2][:1])
  np.testing.assert_array_equal(made[1], made[2][: devices + 1])


def test_tokens_with_their_mask_are_kept(tmp_path):
  module = plug('backbones', 'bert')
  options, inputs = module.tiny()
  network = module.build(**options)
  variables = jax.device_get(network.init(jax.random.key(0), inputs))
  phase = phase_of(network, variables, 'last', options={'k': 3})
  read = lambda: prefix.activations(
    prefix.Trunk(variables, 'bert', tmp_path),
    {k: np.asarray(v) for k, v in inputs.items()},
    'a',
    [prefix.Point(network, form_of(inputs), phase)],
  )[0]
  first = jax.tree.map(np.array, read())
  want, _ = network.apply(variables, inputs, train=False, stop=phase.start)
  assert set(first) == {'hidden', 'mask'}
  close(first, want)
  close(read(), first, 0.0)


def test_what_dead_processes_left_half_written_is_removed(tmp_path):
  """A living process's draft is left alone, and so are another key's and another machine's."""
  place, node = tmp_path / 'key', platform.node()
  dead = subprocess.Popen([sys.executable, '-c', ''])
  dead.wait()
  abandoned = tmp_path / f'.key.{node}.{dead.pid}'
  kept = [
    tmp_path / name
    for name in (
      f'.key.{node}.{os.getpid()}',
      f'.other.{node}.{dead.pid}',
      f'.key.no{node}.{dead.pid}',
    )
  ]
  for folder in (abandoned, *kept):
    folder.mkdir()
  prefix._remove_abandoned(place)
  assert not abandoned.exists() and all(folder.exists() for folder in kept)
