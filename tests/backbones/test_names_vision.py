"""The other names that public vision weights go by (third_party/parity/make_vision.py): the same numbers under each of them."""
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tlx.backbones import face_resnet, fill, vit
from tlx.plug import plug
from tlx.tree import named_leaves

PARITY = Path(__file__).parents[2] / 'third_party' / 'parity'
VIT = {'dim': 24, 'depth': 2, 'heads': 3, 'patch': 4, 'image_size': 16}
# Per case: backbone, options, and for every stored activation the stage whose output it is.
CASES = {
    'vit_transformers': ('vit', {**VIT, 'mlp_ratio': 40 / 24, 'norm_eps': 1e-12}, {'logits': 'head'}),
    'dinov2_transformers': ('vit', {**VIT, 'registers': 2, 'layer_scale': 1.0}, {'tokens': 'norm'}),
    'vit_augreg': ('vit', VIT, {'logits': 'head'}),
    'bit_official': ('bit', {'layers': (2, 1), 'channels': (16, 32), 'stem_channels': 8, 'groups': 4},
                     {'features': 'norm', 'logits': 'head'}),
}


def relative_error(got, want):
  want = want.transpose(0, 2, 3, 1) if want.ndim == 4 else want
  assert got.shape == want.shape
  return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def filled(module, options, arrays, x, num_classes=5, fresh=()):
  """(the network, its variables from the arrays)."""
  network = module.build(num_classes, **options)
  shapes = jax.eval_shape(network.init, jax.random.key(0), x)
  return network, fill(shapes, arrays, module.names(arrays, **options), fresh=fresh, ignore=module.IGNORE)[0]


@pytest.mark.parametrize('case', CASES)
def test_official_names(case):
  backbone, options, stages = CASES[case]
  outputs = dict(np.load(PARITY / f'{case}.npz'))
  x = outputs['x'].transpose(0, 2, 3, 1)
  fresh = () if 'logits' in outputs else ('head',)
  network, variables = filled(plug('backbones', backbone), options, load_file(PARITY / f'{case}.safetensors'), x, fresh=fresh)
  for output, stage in stages.items():
    stop = network.stages.index(stage) + 1
    found, _ = jax.jit(lambda v, x, stop=stop: network.apply(v, x, train=False, stop=stop))(variables, x)
    assert relative_error(found, outputs[output]) <= 1e-5


def renamed(case, changes, prefix=''):
  arrays = load_file(PARITY / f'{case}.safetensors')
  for old, new in changes:
    arrays = {name.replace(old, new): array for name, array in arrays.items()}
  return {prefix + name: array for name, array in arrays.items()}


HF5 = [('encoder.layer.', 'layers.'), ('attention.attention.query', 'attention.q_proj'), ('attention.attention.key', 'attention.k_proj'),
       ('attention.attention.value', 'attention.v_proj'), ('attention.output.dense', 'attention.o_proj'),
       ('intermediate.dense', 'mlp.fc1'), ('output.dense', 'mlp.fc2')]


@pytest.mark.parametrize('case, arrays', [
    ('vit_transformers', renamed('vit_transformers', [('vit.', '')])),  # without the classifier's prefix
    ('vit_transformers', renamed('vit_transformers', HF5)),  # as transformers 5 names them in memory
    ('dinov2_transformers', renamed('dinov2_transformers', HF5[1:])),
    ('vit_augreg', renamed('vit_augreg', [('Transformer/posembed_input/', ''), ('LayerNorm_2', 'LayerNorm_1'), ('MlpBlock_3', 'MlpBlock_0'),
                                          ('Attention_1', 'Attention_0')], 'params/')),  # as big_vision names them
    ('bit_official', renamed('bit_official', [('resnet/', '')])),
], ids=['no prefix', 'transformers 5', 'transformers 5, dinov2', 'big_vision', 'bit without prefix'])
def test_variations_of_names_give_the_same_variables(case, arrays):
  backbone, options, _ = CASES[case]
  module, x = plug('backbones', backbone), np.load(PARITY / f'{case}.npz')['x'].transpose(0, 2, 3, 1)
  fresh = ('head',) if case.startswith('dino') else ()
  want = filled(module, options, load_file(PARITY / f'{case}.safetensors'), x, fresh=fresh)[1]
  found = filled(module, options, arrays, x, fresh=fresh)[1]
  for (name, a), (_, b) in zip(named_leaves(want), named_leaves(found), strict=True):
    np.testing.assert_array_equal(a, b, name)


def test_dinov2_and_convnext_names_of_their_authors():
  timm = load_file(PARITY / 'vit_registers.safetensors')
  found = vit.names({name.replace('reg_token', 'register_tokens'): array for name, array in timm.items()},
                    dim=48, depth=2, heads=4, patch=8, image_size=32, registers=4, layer_scale=1.0, class_position=False)
  assert found['embed/registers'][0] == 'register_tokens' and found['block1/layer_scale2'][0] == 'blocks.1.ls2.gamma'
  sizes = {'layers': (1, 2), 'channels': (4, 6)}
  for layout, name, theirs in (('official', 'layer2_1/up/kernel', 'stages.1.1.pwconv1.weight'),
                               ('official', 'layer2_0/down/kernel', 'downsample_layers.1.1.weight'),
                               ('torchvision', 'layer2_1/up/kernel', 'features.3.1.block.3.weight'),
                               ('torchvision', 'layer2_0/down/kernel', 'features.2.1.weight')):
    stem = {'official': 'downsample_layers.0.0.weight', 'torchvision': 'features.0.0.weight'}[layout]
    assert plug('backbones', 'convnext').names({stem: 0, theirs: 0}, **sizes)[name][0] == theirs


@pytest.mark.parametrize('grid', [(3, 5), (7, 6)])
def test_position_embeddings_resize_as_timm_does(grid):
  position = load_file(PARITY / 'vit_augreg.safetensors')['Transformer/posembed_input/pos_embedding']
  want = np.load(PARITY / 'vit_augreg.npz')[f'position_{grid[0]}x{grid[1]}']
  assert relative_error(vit.resize_positions(position, grid, True), want) <= 1e-5
  with pytest.raises(ValueError, match='15 patch positions, which are no square grid'):
    vit.resize_positions(position[:, :16], (4, 4), True)


def test_face_descriptors_of_face_api():
  random, found = np.random.RandomState(0), {}
  network = face_resnet.build(2)
  x = face_input(np.random.RandomState(1).randint(0, 256, (2, 150, 150, 3)))
  shapes = dict(named_leaves(jax.eval_shape(network.init, jax.random.key(0), x).params))
  for ours, (theirs, _) in face_resnet.names({}).items():  # in the order of the published file, so that the numbers repeat
    found[theirs] = face_weights(random, theirs, shapes[ours].shape).astype('float32')
  _, variables = filled(face_resnet, {}, found, x, 2, ('head',))
  descriptors, _ = jax.jit(lambda v, x: network.apply(v, x, train=False, stop=-1))(variables, x)
  assert relative_error(descriptors, np.load(PARITY / 'face_api.npz')['descriptors']) <= 1e-5


def face_input(images):
  spec = face_resnet.input_spec()
  return ((images / 255 - np.array(spec['mean'])) / np.array(spec['std'])).astype('float32')


def face_weights(random, name, shape):
  """What the stored descriptors were computed from."""
  if name.endswith('filters'):
    return random.randn(*shape) * np.sqrt(2 / np.prod(shape[:3]))
  if name == 'fc':
    return random.randn(*shape) / 16
  return random.uniform(0.2, 0.8, shape) if name.endswith('scale/weights') else random.randn(*shape) * 0.1
