"""Adapters and SSF: where they stand, and their formulas by hand."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from tlx import peft
from tlx.backbones import bert, convnext, resnet
from tlx.peft import adapter, ssf
from tlx.plug import plug
from tlx.tree import is_added, map_named

SIZES, INPUTS = bert.tiny()
KEY = jax.random.key(0)


def moved(network, inputs, seed=0):
  """The variables with added leaves anywhere and kernels that are not small."""
  variables, random = network.init(KEY, inputs), np.random.default_rng(seed)
  move = lambda name, leaf: (
    leaf + 0.5 * random.normal(size=leaf.shape).astype('f') if is_added(name) else 5 * leaf
  )
  return variables._replace(params=map_named(move, variables.params))


@pytest.mark.parametrize(
  'kind, places',
  [
    ('houlsby', ['block0/attention/out', 'block0/mlp/down']),
    ('pfeiffer', ['block0/mlp/down']),
    ('parallel', ['block0/mlp']),
  ],
)
def test_where_adapters_stand(kind, places):
  params = jax.eval_shape(bert.build(**{**SIZES, 'depth': 1}).init, KEY, INPUTS).params
  leaves = adapter.added(kind, size=3).init(KEY, params)
  shapes = {'down': (8, 3), 'down_bias': (3,), 'up': (3, 8), 'up_bias': (8,)}
  wanted = {f'{place}/{leaf}': shape for place in places for leaf, shape in shapes.items()}
  assert {name: leaf.shape for name, leaf in leaves.items()} == wanted


@pytest.mark.parametrize('kind', ['pfeiffer', 'parallel'])
def test_an_adapter_by_hand(kind):
  """The block, step by step, with numpy."""
  network = peft.wrap(bert.build(**{**SIZES, 'depth': 1}), adapter.added(kind, size=3))
  variables = moved(network, INPUTS)
  x = network.apply(variables, INPUTS, train=False, stop=1)[0]
  seen = {}

  def record(call, args, kwargs, context):
    y = call(*args, **kwargs)
    seen.setdefault('/'.join(context.module.path), (args[0], y))
    return y

  with nn.intercept_methods(record), jax.disable_jit():
    network.apply(variables, x, train=False, start=1, stop=2)
  own = peft.split(variables.params, 'adapter')[1]
  place = {'pfeiffer': 'mlp/down', 'parallel': 'mlp'}[kind]
  down, down_bias, up, up_bias = (
    np.asarray(own[f'block0/{place}/{leaf}']) for leaf in ('down', 'down_bias', 'up', 'up_bias')
  )
  layer = variables.params['block0']['mlp']['down']
  inside = np.asarray(seen['mlp/down'][0])
  y = inside @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])
  h, scale = (y, 1) if kind == 'pfeiffer' else (np.asarray(seen['mlp'][0]), 4)
  want = y + scale * (np.maximum(h @ down + down_bias, 0) @ up + up_bias)
  np.testing.assert_allclose(seen['mlp'][1], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  'options, words',
  [
    ({'kind': 'serial'}, "a kind of houlsby, pfeiffer, parallel, got kind='serial'"),
    ({'size': 0}, 'got size=0'),
    ({'at': '('}, r"got at='\('"),
    ({'kind': 'parallel', 'at': 'attention'}, 'no MLP with up and down matches.*have block0/mlp'),
    ({'at': 'nowhere'}, 'no dense layer or convolution matches'),
  ],
)
def test_what_is_refused(options, words):
  with pytest.raises(ValueError, match=f'^adapter.*{words}'):
    network = peft.wrap(bert.build(**SIZES), adapter.added(**options))
    jax.eval_shape(network.init, KEY, INPUTS)


@pytest.mark.parametrize('module', [resnet, convnext])
def test_ssf_merges_where_a_relu_is_part_of_a_norm(module):
  """And where convolutions are depthwise or have no bias."""
  sizes, images = module.tiny()
  base = module.build(**{**sizes, 'layers': (1,), 'channels': (4,)})
  method = ssf.added()
  network = peft.wrap(base, method)
  variables = moved(network, images)
  found = network.apply(variables, images, train=False)[0]
  merged = variables._replace(params=method.merge(variables.params))
  want = base.apply(merged, images, train=False)[0]
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
  leaves = peft.split(variables.params, 'ssf')[1]
  norms = [name for name in leaves if 'norm' in name]
  assert norms and {f'{name.rpartition("/")[0]}/beta' for name in norms} <= leaves.keys()


def test_ssf_of_standardised_kernels_is_refused_and_of_their_norms_is_not():
  module = plug('backbones', 'bit')
  sizes, images = module.tiny()
  base = module.build(**{**sizes, 'layers': (1,), 'channels': (8,)})
  network = peft.wrap(base, ssf.added())
  with pytest.raises(ValueError, match='ssf.*stem|ssf.*conv standardises its kernel'):
    network.apply(network.init(KEY, images), images, train=False, stop=1)
  network = peft.wrap(base, ssf.added(at='norm'))
  network.apply(network.init(KEY, images), images, train=False)


def test_ssf_says_what_there_is():
  network = peft.wrap(bert.build(**SIZES), ssf.added(at='nowhere'))
  with pytest.raises(ValueError, match="nothing matches at='nowhere'; have embed/norm, block0/"):
    jax.eval_shape(network.init, KEY, INPUTS)
