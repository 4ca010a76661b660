"""The other names that public vision weights go by: the same variables under each of them. Their
parity is in test_parity_cases.py.
"""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tlx import parity
from tlx.backbones import _vit, face_resnet, fill, vit
from tlx.parity import cases
from tlx.plug import plug
from tlx.tree import named_leaves

PARITY = cases.FOLDER


def renamed(case, changes, prefix=''):
  arrays = load_file(PARITY / f'{case}.safetensors')
  for old, new in changes:
    arrays = {name.replace(old, new): array for name, array in arrays.items()}
  return {prefix + name: array for name, array in arrays.items()}


HF5 = [
  ('encoder.layer.', 'layers.'),
  ('attention.attention.query', 'attention.q_proj'),
  ('attention.attention.key', 'attention.k_proj'),
  ('attention.attention.value', 'attention.v_proj'),
  ('attention.output.dense', 'attention.o_proj'),
  ('intermediate.dense', 'mlp.fc1'),
  ('output.dense', 'mlp.fc2'),
]


@pytest.mark.parametrize(
  'case, arrays',
  [
    # without the classifier's prefix
    ('vit_transformers', renamed('vit_transformers', [('vit.', '')])),
    # as transformers 5 names them in memory
    ('vit_transformers', renamed('vit_transformers', HF5)),
    ('dinov2_transformers', renamed('dinov2_transformers', HF5[1:])),
    (
      'vit_augreg',
      renamed(
        'vit_augreg',
        [
          ('Transformer/posembed_input/', ''),
          ('LayerNorm_2', 'LayerNorm_1'),
          ('MlpBlock_3', 'MlpBlock_0'),
          # as big_vision names them
          ('Attention_1', 'Attention_0'),
        ],
        'params/',
      ),
    ),
    ('bit_official', renamed('bit_official', [('resnet/', '')])),
  ],
  ids=['no prefix', 'transformers 5', 'transformers 5, dinov2', 'big_vision', 'bit without prefix'],
)
def test_variations_of_names_give_the_same_variables(case, arrays):
  stored = cases.read(case)
  want, found = cases.build(stored)[1], cases.build(stored._replace(arrays=arrays))[1]
  for (name, a), (_, b) in zip(named_leaves(want), named_leaves(found), strict=True):
    np.testing.assert_array_equal(a, b, name)


def test_dinov2_and_convnext_names_of_their_authors():
  timm = load_file(PARITY / 'vit_registers.safetensors')
  found = vit.names(
    {name.replace('reg_token', 'register_tokens'): array for name, array in timm.items()},
    dim=48,
    depth=2,
    heads=4,
    patch=8,
    image_size=32,
    registers=4,
    layer_scale=1.0,
    class_position=False,
  )
  assert found['embed/registers'][0] == 'register_tokens'
  assert found['block1/layer_scale2'][0] == 'blocks.1.ls2.gamma'
  sizes = {'layers': (1, 2), 'channels': (4, 6)}
  for layout, name, theirs in (
    ('official', 'layer2_1/up/kernel', 'stages.1.1.pwconv1.weight'),
    ('official', 'layer2_0/down/kernel', 'downsample_layers.1.1.weight'),
    ('torchvision', 'layer2_1/up/kernel', 'features.3.1.block.3.weight'),
    ('torchvision', 'layer2_0/down/kernel', 'features.2.1.weight'),
  ):
    stem = {'official': 'downsample_layers.0.0.weight', 'torchvision': 'features.0.0.weight'}[
      layout
    ]
    assert plug('backbones', 'convnext').names({stem: 0, theirs: 0}, **sizes)[name][0] == theirs


def ramp(height, width):
  """Position embeddings [1, 1 + h w, 2] that say where a patch is: 0 at the left and top, 1 at the
  right and below.
  """
  rows, columns = np.meshgrid(
    (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing='ij'
  )
  places = np.stack([rows, columns], -1).reshape(1, -1, 2)
  return np.concatenate([np.full((1, 1, 2), 9.0), places], 1).astype('float32')


@pytest.mark.parametrize(
  'before, after, given',
  [
    ((4, 4), (2, 8), None),  # as many patches in another order
    ((2, 8), (4, 4), (2, 8)),
    ((2, 8), (8, 2), (2, 8)),
    ((4, 6), (6, 6), (4, 6)),
    ((4, 4), (6, 3), None),
    ((2, 4), (2, 4), None),
  ],
)
def test_positions_of_another_grid(before, after, given):
  found = _vit.resize_positions(ramp(*before), after, True, given)
  want = ramp(*after)
  assert found.shape == want.shape
  np.testing.assert_array_equal(found[:, 0], want[:, 0])
  inner = np.abs(want - 0.5).max(-1) < 0.3  # a resized ramp is a ramp but for its ends
  assert inner.any()
  np.testing.assert_allclose(found[inner], want[inner], atol=0.03)


def test_the_size_of_the_positions_is_an_option():
  options = {'dim': 2, 'depth': 1, 'heads': 1, 'patch': 4}
  names = vit.names({'pos_embed': 0}, **options, image_size=16, position_size=(8, 32))
  np.testing.assert_array_equal(
    names['embed/position'][1](ramp(2, 8)), _vit.resize_positions(ramp(2, 8), (4, 4), True, (2, 8))
  )
  with pytest.raises(ValueError, match=r'position_size is \(8, 30\), no multiple'):
    vit.names({}, **options, image_size=16, position_size=(8, 30))


@pytest.mark.parametrize(
  'grid, given, words',
  [
    ((4, 4), None, '15 patch positions, which are no square grid'),
    ((4, 4), (2, 7), r'not the \(2, 7\) that are wanted'),
  ],
)
def test_positions_of_no_known_grid_are_not_resized(grid, given, words):
  with pytest.raises(ValueError, match=words):
    _vit.resize_positions(np.zeros((1, 16, 8), np.float32), grid, True, given)


@pytest.mark.parametrize('dtype', parity.LIMITS)
def test_face_descriptors_of_face_api(dtype):
  """Random weights of the published sizes; too large to store, they are made here as they were for
  the official outputs.
  """
  random, found = np.random.RandomState(0), {}
  network = face_resnet.build(2, dtype=dtype)
  x = face_input(np.random.RandomState(1).randint(0, 256, (2, 150, 150, 3)))
  shapes = jax.eval_shape(network.init, jax.random.key(0), x)
  leaves = dict(named_leaves(shapes.params))
  # in the order of the published file, so that the numbers repeat
  for ours, (theirs, _) in face_resnet.names({}).items():
    found[theirs] = face_weights(random, theirs, leaves[ours].shape).astype('float32')
  variables, _ = fill(shapes, found, face_resnet.names(found), fresh=('head',))
  run = jax.jit(
    lambda v, x: network.apply(v, x, train=False, stop=-1)[0],
    compiler_options={'xla_backend_optimization_level': 0},
  )
  official = np.load(PARITY / 'face_api.npz')['descriptors']
  assert parity.relative_error(run(variables, x), official) <= parity.LIMITS[dtype]


def face_input(images):
  spec = face_resnet.input_spec()
  return ((images / 255 - np.array(spec['mean'])) / np.array(spec['std'])).astype('float32')


def face_weights(random, name, shape):
  """What the stored descriptors were computed from."""
  if name.endswith('filters'):
    return random.randn(*shape) * np.sqrt(2 / np.prod(shape[:3]))
  if name == 'fc':
    return random.randn(*shape) / 16
  return (
    random.uniform(0.2, 0.8, shape)
    if name.endswith('scale/weights')
    else random.randn(*shape) * 0.1
  )
