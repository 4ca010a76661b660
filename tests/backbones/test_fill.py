"""Weights that do not fit a network: every difference in one message, and no variables."""

import jax
import numpy as np
import pytest

from tlx import backbones
from tlx.backbones import fill
from tlx.parity import cases
from tlx.plug import plug
from tlx.tree import named_leaves

TINY = [
  'vit',
  'vit_augreg',
  'vit_transformers',
  'resnet_basic',
  'resnetv2_bit',
  'bit_official',
  'convnext',
  'bert',
  'gpt2',
  'llama_untied',
]


def built(name, arrays, fresh=()):
  """`fill` of a case's network with other arrays."""
  case = cases.read(name)
  module = plug('backbones', case.backbone)
  classes = None if isinstance(case.inputs, dict) else case.outputs['logits'].shape[1]
  shapes = jax.eval_shape(
    module.build(classes, **case.options).init, jax.random.key(0), case.inputs
  )
  return fill(shapes, arrays, module.names(arrays, **case.options), fresh, module.IGNORE)


@pytest.mark.parametrize('name', TINY)
def test_missing_unexpected_and_misshapen_tensors_are_listed_together(name):
  arrays = dict(cases.read(name).arrays)
  needed = [theirs for theirs in dict.fromkeys(built(name, arrays)[1]['names'].values())]
  lost, grown, flat, packed = needed[1], needed[-2], needed[-1], needed[len(needed) // 2]
  assert len({lost, grown, flat, packed}) == 4
  del arrays[lost]
  arrays['stray.weight'] = np.zeros(3, np.float32)
  arrays[grown] = np.zeros((*arrays[grown].shape[:-1], arrays[grown].shape[-1] + 6), np.float32)
  arrays[flat] = np.zeros((1, 1, 1, 1, 7), np.float32)
  arrays[packed] = arrays[packed].astype(np.int8)
  with pytest.raises(ValueError, match='The weights do not fit the network') as error:
    built(name, arrays)
  lines = str(error.value).splitlines()
  assert f'  - {lost}' in lines and '  + stray.weight' in lines
  for theirs, words in (
    (grown, '; '),
    (flat, '; '),
    (packed, 'has int8 instead of floating-point numbers'),
  ):
    assert any(line.startswith(f'  ! {theirs} ') and words in line for line in lines), (
      theirs,
      lines,
    )
  assert len(lines) >= 7 and lines[-1] == 'Check the backbone and its options against the file.'


@pytest.mark.parametrize(
  'name, file',
  [
    ('vit', 'resnet_basic'),
    ('resnet_basic', 'convnext'),
    ('bert', 'gpt2'),
    ('llama', 'bert'),
    ('bit_official', 'resnetv2_bit'),
    ('convnext', 'vit_augreg'),
    ('gpt2', 'qwen2'),
  ],
)
def test_the_file_of_another_architecture(name, file):
  with pytest.raises(ValueError, match=r'(?s)The weights do not fit the network.*  - .*  \+ '):
    built(name, cases.read(file).arrays)


def test_a_fresh_head_takes_nothing_from_the_file_and_is_said_to_be_fresh():
  arrays = cases.read('resnet_basic').arrays
  variables, record = built('resnet_basic', arrays, fresh=('head',))
  assert jax.tree.leaves(variables.params['head']) == []
  assert record['fresh'] == ['head/bias', 'head/kernel']
  assert {'fc.weight', 'fc.bias'} < set(record['ignored'])
  assert record['names']['stem/conv/kernel'] == 'conv1.weight'
  assert 'head/kernel' not in record['names']


def test_half_precision_files_become_float32():
  arrays = dict(cases.read('vit').arrays)
  for name, array in arrays.items():
    if array.dtype == np.float32:
      arrays[name] = array.astype(np.float16)
  assert {leaf.dtype for leaf in jax.tree.leaves(built('vit', arrays)[0])} == {np.dtype('float32')}


def test_our_own_names_fill_a_network():
  case = cases.read('resnet_basic')
  network, variables = cases.build(case)
  arrays = dict(named_leaves(variables.params) + named_leaves(variables.stats))
  shapes = jax.eval_shape(network.init, jax.random.key(0), case.inputs)
  found, _ = fill(shapes, arrays, backbones.own_names(shapes))
  assert jax.tree.all(jax.tree.map(np.array_equal, found, variables))
  found, record = fill(shapes, arrays, backbones.own_names(shapes), fresh=('head',))
  assert record['ignored'] == ['head/bias', 'head/kernel']
  with pytest.raises(ValueError, match=r'(?s)- stem/conv/kernel.*\+ stem/conv/weight'):
    arrays['stem/conv/weight'] = arrays.pop('stem/conv/kernel')
    fill(shapes, arrays, backbones.own_names(shapes))


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('name', ['resnet_basic', 'gpt2'])
def test_weights_that_are_not_finite_are_named(name, bad):
  arrays = dict(cases.read(name).arrays)
  broken = [theirs for theirs in dict.fromkeys(built(name, arrays)[1]['names'].values())][3::40]
  for theirs in broken:
    arrays[theirs] = arrays[theirs].copy()
    arrays[theirs].flat[0] = bad
  with pytest.raises(ValueError, match='1 of .* values that are not finite') as error:
    built(name, arrays)
  assert all(f'  ! {theirs} ' in str(error.value) for theirs in broken)


def test_numbers_beyond_float32_are_not_finite():
  arrays = dict(cases.read('resnet_basic').arrays)
  arrays['bn1.running_var'] = np.full_like(arrays['bn1.running_var'], 1e300, np.float64)
  with pytest.raises(
    ValueError,
    match='! bn1.running_var .* 64 of 64 values that are not finite in float32; stem/norm/var '
    'wants',
  ):
    built('resnet_basic', arrays)


def test_what_is_not_used_may_be_anything():
  arrays = dict(cases.read('resnet_basic').arrays)
  arrays['fc.bias'] = np.full_like(arrays['fc.bias'], np.nan)
  built('resnet_basic', arrays, fresh=('head',))
