"""What accelerators are given: operations that their libraries know, no form made for a CPU.

Nothing runs; the programs are read.
"""

import re

import jax
import numpy as np
import pytest

from tlx import inputs
from tlx.backbones import _attention
from tlx.inputs import image, text
from tlx.inputs import language as language_rows
from tlx.plug import plug
from tlx.tasks import classification, language
from tlx.train import cohort, feed, step
from tlx.train import mesh as meshes
from tlx.tree import label, named_leaves
from tlx.types import Variables

PLATFORMS = {'cuda': 'gpu', 'tpu': 'tpu'}
RUNS, BATCH, TOKENS = 3, 4, 6
# The weights of attention, [runs, batch, heads, time, time].
WEIGHTS = re.compile(r'stablehlo\.exponential.* : tensor<(\d+x){5}')
# Of each: options beside those of `tiny()`, its form, its task, what cuDNN calls its attention.
CASES = {
  'vit': (
    {'dim': 16, 'depth': 1, 'image_size': 16},  # 19 tokens
    image.form(16, 3, (0.5,) * 3, (0.5,) * 3),
    classification.task(3),
    'fmhaSoftmax',
  ),
  'bert': (
    {'dim': 16, 'depth': 1},
    text.form(TOKENS, 'any'),
    classification.task(3),
    'fmhaScaleBiasSoftmax',
  ),
  'llama': (
    {'num_classes': None, 'dim': 32, 'depth': 1, 'window': 4, 'logits': False},
    language_rows.form(TOKENS, 'any'),
    language.task(),
    'fmhaScaleBiasSoftmax',
  ),
  'resnet': (
    {'layers': (1, 1)},
    image.form(16, 3, (0.5,) * 3, (0.5,) * 3),
    classification.task(3),
    '',
  ),
}


def operations(text):
  """{operation: how often} of a program."""
  found = {}
  for name in re.findall(r'stablehlo\.(\w+)', text):
    found[name] = found.get(name, 0) + 1
  return found


@pytest.mark.parametrize('platform, backend', PLATFORMS.items())
@pytest.mark.parametrize('name', ['resnet', 'efficientnet_lite'])
def test_gradients_of_convnets_are_lowered_plainly(name, platform, backend, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  options, images = plug('backbones', name).tiny()
  network = plug('backbones', name).build(**options)
  variables = jax.eval_shape(network.init, jax.random.key(0), images)

  def loss(params, stats, images):
    outputs, _ = network.apply(Variables(params, stats), images, train=True)
    return (outputs**2).mean()

  over_runs = jax.jit(jax.vmap(jax.grad(loss), in_axes=(0, 0, None)))
  runs = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype),
    (variables.params, variables.stats),
  )
  program = over_runs.trace(*runs, images).lower(lowering_platforms=(platform,)).as_text()
  found = operations(program)
  assert found['convolution'] >= 3  # of each: itself, and the gradients of images and kernels
  assert not {'while', 'dynamic_slice', 'custom_call'} & found.keys(), found
  assert found['dot_general'] <= 3  # the head's
  if name == 'resnet':
    assert found['select_and_scatter'] == 1  # the gradient of a pooling


@pytest.fixture
def steps_of(monkeypatch):
  """(name, platform, **options) -> the traced steps of a cohort of a tiny network."""
  # It is asked for where programs are traced; here is no cuDNN.
  asked = 'jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version'
  monkeypatch.setattr(asked, lambda: 91_000)

  def make(name, platform, **changes):
    monkeypatch.setattr(jax, 'default_backend', lambda: PLATFORMS[platform])
    monkeypatch.setattr(_attention, 'has_flash', lambda: platform == 'cuda')
    module = plug('backbones', name)
    options, form, task, _ = CASES[name]
    network = module.build(**{**module.tiny()[0], **options, **changes})
    shapes = cohort.variable_shapes(network, form)
    labels = tuple(named_leaves(label(shapes.params, (('.*', 'train'),))))
    phase = step.Phase(labels, (('train', 1.0),), optimizer='sgd')
    return traced(step.Recipe(network, form, task, phase), shapes)

  return make


def traced(recipe, shapes):
  """`cohort.advance` of a recipe, whose variables have these shapes, over runs."""

  def of_runs(leaf):
    return jax.ShapeDtypeStruct((RUNS, *leaf.shape), leaf.dtype)

  number, whole = (jax.ShapeDtypeStruct((), dtype) for dtype in (np.float32, np.int32))
  hyper = step.Hyper(number, number, number, number)
  trainable, frozen = step.split(shapes.params, recipe.phase)

  def init(trainable, hyper):
    return step.init_state(trainable, shapes.stats, recipe.phase, hyper)

  state = jax.eval_shape(init, trainable, hyper)
  sums = dict.fromkeys(step.metrics(recipe.phase), number)
  order = cohort.Order(jax.ShapeDtypeStruct((5, BATCH), np.int32), whole)
  key = jax.eval_shape(lambda: jax.random.key(0))
  nothing = jax.tree.map(lambda _: None, frozen)
  own = cohort.Runs(nothing, key, hyper), order, whole
  stored = inputs.stored(recipe.form, 20)
  data = feed.Arrays(stored, cohort.target_shapes(recipe, 20))
  program = cohort.Program(cohort.advance(recipe), meshes.make(1, 1, jax.devices()[:1]))
  over_runs = jax.tree.map(of_runs, ((state, sums), own))
  return jax.jit(program.function).trace(*over_runs, cohort.Shared(frozen, data))


def lowered(traced, platform):
  return traced.lower(lowering_platforms=(platform,)).as_text()


def products(program):
  """The precision that each product of a program asks for."""
  found = []
  for line in program.splitlines():
    if 'stablehlo.dot_general' in line:
      found.append(set(re.findall(r'[A-Z]{4,}', line)))
    elif 'stablehlo.convolution' in line:
      found.append(set(re.findall(r'#stablehlo<precision (\w+)>', line)))
  return found


def check_forms(program, name):
  """No form of a CPU: no loop beside that over steps and, for a loss and its gradient, those over
  chunks of a vocabulary; no call of a library beside attention and random numbers.
  """
  calls = set(re.findall(r'custom_call @([\w$]+)', program))
  assert not {call for call in calls if not call.startswith(('__cudnn$fmha', 'cu_threefry'))}
  assert operations(program)['while'] == (3 if name == 'llama' else 1)


@pytest.mark.parametrize('name', ['vit', 'llama', 'resnet'])
def test_steps_in_float32_are_exact(name, steps_of):
  steps = steps_of(name, 'cuda')
  for platform in PLATFORMS:
    program = lowered(steps, platform)
    check_forms(program, name)
    assert 'cudnn' not in program  # it has no attention in float32
    asked = products(program)
    assert len(asked) > 8 and all(one == {'HIGHEST'} for one in asked), asked


@pytest.mark.parametrize('name', ['vit', 'bert', 'llama'])
def test_attention_in_bfloat16_is_fused_on_cuda(name, steps_of):
  program, fused = lowered(steps_of(name, 'cuda', dtype='bfloat16'), 'cuda'), CASES[name][-1]
  check_forms(program, name)
  assert set(re.findall(r'custom_call @__cudnn\$(\w+)', program)) == {fused, f'{fused}Backward'}
  assert not WEIGHTS.search(program)
  # To it runs are more examples: [runs x batch, time, heads, depth].
  assert re.search(rf'__cudnn.*tensor<{RUNS * BATCH}x\d+x\d+x\d+xbf16>', program)


def test_attention_in_bfloat16_is_plain_on_tpus(steps_of):
  # A stage that is traced stays as it is, whatever the backend is called later: one of its own.
  program = lowered(steps_of('vit', 'tpu', dtype='bfloat16', mlp_ratio=2.0), 'tpu')
  check_forms(program, 'vit')
  assert 'cudnn' not in program
  assert WEIGHTS.search(program)


def test_tf32_is_what_a_backbone_asks_for():
  module = plug('backbones', 'mlp')
  options, images = module.tiny()
  network = module.build(**options, precision='tf32')
  variables = jax.eval_shape(network.init, jax.random.key(0), images)

  def loss(params):
    return network.apply(Variables(params, {}), images, train=True)[0].mean()

  program = lowered(jax.jit(jax.grad(loss)).trace(variables.params), 'cuda')
  asked = products(program)
  assert len(asked) > 4 and all(one == {'HIGH'} for one in asked), asked
  with pytest.raises(ValueError, match="precision is 'tf16'; choose one of 'float32', 'tf32'"):
    module.build(**options, precision='tf16')
