"""LoRA: where it reaches, how it starts, what a step costs, and the numbers of the peft library."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.peft import official
from tlx import backbones, freezing, peft
from tlx.backbones import bert, cnn
from tlx.backbones._layers import Head
from tlx.parity import relative_error
from tlx.peft import lora
from tlx.plug import available, plug
from tlx.train import optim
from tlx.tree import is_added, label, map_named, named_leaves, partition, sha256
from tlx.types import Variables

SIZES, INPUTS = bert.tiny()
KEY = jax.random.key(0)
# The layers of a block of a transformer, and all layers of each tiny network.
ATTENTION = {f'attention/{name}' for name in ('query', 'key', 'value', 'out')}
BLOCK = ATTENTION | {'mlp/up', 'mlp/down'}
TOWER = {f'block{i}/{name}' for i in range(2) for name in BLOCK}
GROUP = {'conv1', 'conv2'}
FACE = ('conv4_1', 'conv6_down', 'conv6_1', 'conv6_down_out')
REACHED = {
  'bert': {*TOWER, 'pool/dense'},
  'bit': {
    'stem/conv',
    *(f'layer{at}/conv{i}' for at in ('1_0', '1_1', '2_0') for i in (1, 2, 3)),
    *(f'layer{at}/conv_skip' for at in ('1_0', '2_0')),
  },
  'clip': {'embed/patch', 'pool/projection', *TOWER},
  'clip_text': {'pool/projection', *TOWER},
  'cnn': {'block1/conv', 'block2/conv', 'fc/linear'},
  'convnext': {
    'stem/conv',
    'layer2_0/down',
    *(f'layer{at}/{name}' for at in ('1_0', '2_0', '2_1') for name in ('conv', 'up', 'project')),
  },
  'efficientnet_lite': {
    'stem/conv',
    'top/conv',
    *(f'block{i}/{name}' for i in range(7) for name in ('expand', 'filter', 'project')),
  }
  - {'block0/expand'},
  'face_resnet': {
    'stem/conv',
    'descriptor/linear',
    *(f'{at}/{name}' for at in FACE for name in GROUP),
  },
  'gpt2': TOWER,
  'llama': {f'block{i}/{name}' for i in range(2) for name in {*BLOCK, 'mlp/gate'}},
  'mlp': {'dense1/linear', 'dense2/linear'},
  'modernbert': {
    *(f'block{i}/{name}' for i in range(2) for name in {*BLOCK, 'mlp/gate'}),
    'pool/dense',
  },
  'resnet': {
    'stem/conv',
    *(f'layer{at}/{name}' for at in ('1_0', '1_1', '2_0') for name in GROUP),
    'layer2_0/conv_skip',
  },
  'vit': {'embed/patch', *TOWER},
}


def noisy(variables, scale=0.3):
  """The variables with noise on the added leaves."""
  random = np.random.default_rng(0)
  move = lambda name, leaf: leaf + scale * random.normal(size=leaf.shape).astype('float32')
  return variables._replace(
    params=map_named(lambda n, leaf: move(n, leaf) if is_added(n) else leaf, variables.params)
  )


@pytest.mark.parametrize('backbone', available('backbones'))
def test_every_layer_is_reached(backbone):
  options, inputs = plug('backbones', backbone).tiny()
  network = plug('backbones', backbone).build(**options)
  shapes = jax.eval_shape(network.init, KEY, inputs)
  leaves = jax.eval_shape(lora.added(at='.', rank=1).init, KEY, shapes.params)
  assert {name.rpartition('/')[0] for name in leaves} == REACHED[backbone]


@pytest.mark.parametrize('backbone', ['bert', 'bit', 'convnext', 'llama', 'vit'])
def test_what_every_leaf_is_given_arrives(backbone):
  """Moved one after another from the last, each changes the output, which merging gives too.

  Of dense, normal, depthwise and standardised kernels.
  """
  options, inputs = plug('backbones', backbone).tiny()
  options = {**options, **({'layers': (1,), 'channels': (8,)} if backbone == 'bit' else {})}
  network, method = plug('backbones', backbone).build(**options), lora.added(at='.', rank=1)
  wrapped = peft.wrap(network, method)
  shapes = jax.eval_shape(wrapped.init, KEY, inputs)
  random = np.random.default_rng(0)
  drawn = jax.tree.map(lambda leaf: random.normal(0.1, 0.3, leaf.shape).astype('f'), shapes)
  variables = drawn._replace(stats=jax.tree.map(np.abs, drawn.stats))
  flat = peft.flat_of(variables.params)
  run = lambda of, params: of.apply(variables._replace(params=params), inputs, train=False)[0]
  want = run(wrapped, peft.tree_of(flat))
  np.testing.assert_allclose(run(network, method.merge(peft.tree_of(flat))), want, 1e-4, 1e-5)
  for name in [name for name in flat if name.endswith('/a')][::3]:
    turned = peft.tree_of({**flat, name: -flat[name]})
    assert np.abs(run(wrapped, turned) - want).max() > 1e-6, name


def test_the_start():
  """a is uniform within 1 / sqrt(in), b zero; a layer's start does not depend on the others."""
  params = jax.eval_shape(bert.build(**{**SIZES, 'dim': 64}).init, KEY, INPUTS).params
  leaves = lora.added(rank=8).init(KEY, params)
  more = lora.added(at='.', rank=8).init(KEY, params)
  assert len(leaves) == 2 * 2 * 2 and len(more) == 2 * 6 * 2 + 2
  for name, leaf in leaves.items():
    assert np.array_equal(leaf, more[name])
    if name.endswith('/b'):
      assert leaf.shape == (8, 64) and not leaf.any()
    else:
      assert leaf.shape == (64, 8) and 0.97 / 8 < np.abs(leaf).max() <= 1 / 8
      assert abs(leaf.mean()) < 0.01
  assert len({sha256(leaf) for name, leaf in more.items() if name.endswith('/a')}) == 13


def test_a_matrix_that_is_no_dense_layers_is_refused_when_it_is_called():
  class Outer(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      return Inner(name='inner')(x)

  class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
      return jnp.exp(x @ self.param('kernel', nn.initializers.ones, (x.shape[-1], 3)))

  network = peft.wrap(backbones.chain([('fc', Outer())]), lora.added(at='inner', rank=1))
  variables = network.init(KEY, np.ones((2, 4), np.float32))
  with pytest.raises(ValueError, match='dense layers and convolutions, and inner is a Inner'):
    network.apply(variables, np.ones((2, 4), np.float32), train=False)


def test_equal_stages_are_traced_once_and_others_are_the_programs_they_were():
  traced = []

  def intercept(leaves):
    traced.append(leaves)
    return lambda call, args, kwargs, context: call(*args, **kwargs)

  network = bert.build(**SIZES)
  method = lora.added(rank=1)._replace(intercept=intercept)
  wrapped = peft.wrap(network, method)
  variables = wrapped.init(KEY, INPUTS)
  base, _ = peft.split(variables.params, 'lora')
  network.apply(Variables(peft.tree_of(base), {}), INPUTS, train=False)
  before = backbones._run.cache_info().misses
  for _ in range(2):
    wrapped.apply(variables, INPUTS, train=False)
  assert backbones._run.cache_info().misses == before + 1  # both blocks; the others are as before
  assert len(traced) == 1
  assert lora.added(rank=2).intercept is lora.added(rank=2, alpha=4.0).intercept


def test_a_network_without_added_leaves_compiles_what_its_modules_are():
  """Written out here, without any place for edits, the stages lower to the same text."""
  modules = {'fc': cnn.Dense(6, jnp.dtype('float32')), 'head': Head(3)}
  network = backbones.chain(list(modules.items()))
  images = np.ones((2, 4, 4, 1), np.float32)
  variables = network.init(KEY, images)

  def stage_of(module):
    def stage(collections, x, rngs):
      return module.apply(collections, x, True, mutable=['batch_stats'], rngs=rngs)

    return jax.jit(stage)

  def by_hand(variables, x):
    with jax.default_matmul_precision('highest'):
      for name, module in modules.items():
        x, _ = stage_of(module)({'params': variables.params[name]}, x, None)
    return x

  def by_network(variables, x):
    return network.apply(variables, x, train=True)[0]

  texts = [jax.jit(one).lower(variables, images).as_text() for one in (by_hand, by_network)]
  assert texts[0].replace('by_hand', 'by_network') == texts[1]


def test_frozen_norms_stay_frozen():
  options, images = cnn.tiny()
  network = cnn.build(**{**options, 'norm': 'batch'})
  wrapped = peft.wrap(network, lora.added(at='fc/', rank=1))
  variables = wrapped.init(KEY, images)
  frozen = freezing.frozen_norms(
    variables.params, variables.stats, plug('freezing', 'added').rules((('head',),)), 'frozen'
  )
  assert frozen
  logits, stats = wrapped.apply(variables, images, train=True, frozen_norms=frozen)
  assert sha256(stats) == sha256(variables.stats)
  want, _ = wrapped.apply(variables, images, train=False)
  np.testing.assert_allclose(logits, want, atol=1e-5)
  _, live = wrapped.apply(variables, images, train=True)
  assert sha256(live) != sha256(stats)


def test_a_tied_head_and_a_head_after_an_earlier_stage():
  """Transformations of a network pass the edits on, on either side."""
  sizes, text = plug('backbones', 'gpt2').tiny()
  tied = plug('backbones', 'gpt2').build(**{**sizes, 'num_classes': None})
  method = lora.added(at='block0/.*(query|up)$', rank=1)
  cut = peft.wrap(backbones.head_after(bert.build(**SIZES), 'block0', 3), method)
  around = backbones.head_after(peft.wrap(bert.build(**SIZES), method), 'block0', 3)
  for network, inputs in ((peft.wrap(tied, method), text), (cut, INPUTS), (around, INPUTS)):
    variables = noisy(network.init(KEY, inputs))
    assert len(peft.split(variables.params, 'lora')[1]) == 4
    merged = variables._replace(params=method.merge(variables.params))
    want = network.apply(variables, inputs, train=False)[0]
    np.testing.assert_allclose(network.apply(merged, inputs, train=False)[0], want, atol=1e-6)
    start = network.apply(network.init(KEY, inputs), inputs, train=False)[0]
    assert np.abs(want - start).max() > 1e-4


def test_two_methods_on_one_network():
  """The second sees what the first makes of a call; merging one leaves the other."""
  doubled = lambda leaves: (
    lambda call, args, kwargs, context: (
      call(*args, **kwargs) * (1 + leaves['gain']) if context.module.path else call(*args, **kwargs)
    )
  )
  method = lora.added(at='fc/', rank=1)
  matrix = {'fc/gain': jnp.ones(()), 'fc/unused/kernel': jnp.ones((2, 2))}
  gain = peft.Added('gain', lambda key, params: matrix, doubled, None)
  options, images = cnn.tiny()
  network = cnn.build(**options)
  both = peft.wrap(peft.wrap(network, method), gain)
  other = peft.wrap(peft.wrap(network, gain), method)  # finds no kernel but the network's own
  trees = [jax.tree.structure(jax.eval_shape(one.init, KEY, images)) for one in (both, other)]
  assert trees[0] == trees[1]
  variables = noisy(both.init(KEY, images))
  merged = variables._replace(params=method.merge(variables.params))
  assert set(merged.params['fc']['added']) == {'gain'}
  found = both.apply(variables, images, train=False, stop=-1)[0]
  np.testing.assert_allclose(both.apply(merged, images, train=False, stop=-1)[0], found, atol=1e-6)
  base = Variables(peft.tree_of(peft.split(merged.params, 'gain')[0]), variables.stats)
  factor = 1 + variables.params['fc']['added']['gain']['gain']
  alone = network.apply(base, images, train=False, stop=-1)[0]
  np.testing.assert_allclose(found, alone * factor, rtol=1e-5)


def test_leaves_that_a_file_does_not_have_are_fresh():
  network = bert.build(**SIZES)
  wrapped = peft.wrap(network, lora.added(rank=1))
  shapes = jax.eval_shape(wrapped.init, KEY, INPUTS)
  variables = jax.device_get(wrapped.init(KEY, INPUTS))
  arrays = dict(named_leaves(variables.params))
  base = {name: array for name, array in arrays.items() if not is_added(name)}
  found, record = backbones.fill(shapes, base, backbones.own_names(shapes))
  assert set(record['fresh']) == arrays.keys() - base.keys() and len(record['fresh']) == 8
  assert {name for name, _ in named_leaves(found.params)} == base.keys()
  found, record = backbones.fill(shapes, arrays, backbones.own_names(shapes))
  assert record['fresh'] == [] and sha256(found.params) == sha256(variables.params)
  plain = jax.eval_shape(network.init, KEY, INPUTS)
  with pytest.raises(ValueError, match=r'\+ block0/added/lora/attention/query/a'):
    backbones.fill(plain, arrays, backbones.own_names(plain))


@pytest.mark.parametrize(
  'options, words',
  [
    ({'rank': 0}, 'whole number from 1 on, got rank=0'),
    ({'rank': 2.0}, 'whole number from 1 on, got rank=2.0'),
    ({'rank': True}, 'got rank=True'),
    ({'alpha': 0}, 'finite alpha above 0, got alpha=0'),
    ({'alpha': float('nan')}, 'got alpha=nan'),
    ({'alpha': '8'}, "got alpha='8'"),
    ({'at': '(query'}, r"regular expression, got at='\(query'"),
    ({'at': 3}, 'regular expression, got at=3'),
    ({'init': 'normal'}, "uniform, pissa, eva, got init='normal'"),
    ({'rank_pattern': {'a': 3}}, r"pairs such as .* in rank_pattern, got \{'a': 3\}"),
    ({'rank_pattern': [('a', 0)]}, 'got rank_pattern=0'),
    ({'alpha_pattern': [('(a', 3)]}, r"got alpha_pattern='\(a'"),
  ],
)
def test_bad_options(options, words):
  with pytest.raises(ValueError, match=words):
    lora.added(**options)


@pytest.mark.parametrize(
  'options, words',
  [
    (
      {'at': 'attn'},
      "no dense layer or convolution matches at='attn'; have block0/attention/.*pool/dense.",
    ),
    ({'rank': 9}, r'rank=9 is above 8, the smaller side of block0/attention/query/kernel \[8, 8\]'),
    ({'rank_pattern': [('block1', 9)]}, 'rank=9 is above 8.*block1/attention/query'),
    (
      {'alpha_pattern': [('mlp/', 9)]},
      "alpha_pattern has 'mlp/', which matches none of block0/",
    ),
  ],
)
def test_what_does_not_fit_the_network(options, words):
  network = peft.wrap(bert.build(**SIZES), lora.added(**options))
  with pytest.raises(ValueError, match=words):
    jax.eval_shape(network.init, KEY, INPUTS)


@pytest.mark.parametrize(
  'case, name, options',
  [
    ('lora_bias', 'bert', {'rank': 4, 'bias': True}),
    ('lora_llama', 'llama', {'at': r'(query|value|down)$', 'rank': 4}),
  ],
)
def test_numbers_of_the_peft_library(case, name, options):
  """Those that test_exchange.py does not have: rsLoRA, DoRA, patterns, convolutions are there."""
  flat, leaves = peft.flat_of(official.base(name).variables.params), {}
  for layer, theirs in official.layers(case, name).items():
    leaves |= {f'{layer}/a': theirs['lora_A'].T, f'{layer}/b': theirs['lora_B'].T}
    if 'bias' in theirs:
      leaves[f'{layer}/bias'] = theirs['bias'] - flat[f'{layer}/bias']
  official.check(case, name, lora.added(**options), leaves)


def test_pissa_begins_with_the_largest_singular_values_of_the_source():
  base = official.base('bert')
  method = lora.added(rank=4, alpha=4, init='pissa')
  network = peft.wrap(base.network, method)
  params = network.init(KEY, base.inputs, source=base.variables.params).params
  flat, leaves = peft.flat_of(params), peft.split(params, 'lora')[1]
  for layer, theirs in official.layers('pissa', 'bert').items():
    product = leaves[f'{layer}/a'] @ leaves[f'{layer}/b']
    want = (theirs['lora_B'] @ theirs['lora_A']).T
    np.testing.assert_allclose(product, want, atol=2e-6)
    kernel = base.variables.params[layer.split('/')[0]]['attention'][layer.split('/')[2]]['kernel']
    np.testing.assert_allclose(kernel - product, theirs['weight'].T, atol=2e-6)
    assert flat[f'{layer}/kernel'] is not kernel  # the network's own stay as drawn
  start = official.with_leaves('bert', method, leaves)
  found = official.run('pissa', 'bert', network, start)
  assert relative_error(found, official.stored()['pissa_last']) < 1e-5
  np.testing.assert_array_equal(
    found, official.run('pissa', 'bert', base.network, base.variables.params)
  )


def test_the_rate_of_lora_plus_is_a_group_of_its_own():
  """As docs/peft.md says it: b learns 16 times as fast."""
  rules = (('/added/.*/b$', 'b'), ('/added/|^head/', 'train'), ('.*', 'frozen'))
  params = jax.eval_shape(peft.wrap(bert.build(**SIZES), lora.added(rank=1)).init, KEY, INPUTS)
  labels = label(params.params, plug('freezing', 'regex').rules((), rules))
  leaves, _ = partition(params.params, labels)
  leaves = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), leaves)
  tx = optim.optimizer(
    'sgd', {}, partition(labels, labels)[0], {'train': 1.0, 'b': 16.0}, lambda _: 0.01, 0.0, 0.0
  )
  updates, _ = tx.update(leaves, tx.init(leaves), leaves)
  for name, update in named_leaves(updates):
    np.testing.assert_allclose(update, -0.16 if name.endswith('/b') else -0.01, rtol=1e-6)
