"""LoRA: where it reaches, how it starts, what a step costs, and the numbers of the peft library."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlx import backbones, freezing, peft, sources
from tlx.backbones import bert, cnn
from tlx.backbones._layers import Head
from tlx.parity import cases, relative_error
from tlx.peft import lora
from tlx.plug import available, plug
from tlx.tree import is_added, label, map_named, merge, named_leaves, partition, sha256
from tlx.types import Variables

SIZES, INPUTS = bert.tiny()
KEY = jax.random.key(0)
# The dense layers of a block of a transformer, and all of them in each tiny network.
ATTENTION = {f'attention/{name}' for name in ('query', 'key', 'value', 'out')}
BLOCK = ATTENTION | {'mlp/up', 'mlp/down'}
REACHED = {
  'bert': {*(f'block{i}/{name}' for i in range(2) for name in BLOCK), 'pool/dense'},
  'bit': set(),
  'cnn': {'fc/linear'},
  'convnext': {f'layer{at}/{name}' for at in ('1_0', '2_0', '2_1') for name in ('up', 'project')},
  'efficientnet_lite': set(),
  'face_resnet': {'descriptor/linear'},
  'gpt2': {f'block{i}/{name}' for i in range(2) for name in BLOCK},
  'llama': {f'block{i}/{name}' for i in range(2) for name in {*BLOCK, 'mlp/gate'}},
  'mlp': {'dense1/linear', 'dense2/linear'},
  'resnet': set(),
  'vit': {f'block{i}/{name}' for i in range(2) for name in BLOCK},
}


def noisy(variables, scale=0.3):
  """The variables with noise on the added leaves."""
  random = np.random.default_rng(0)
  move = lambda name, leaf: leaf + scale * random.normal(size=leaf.shape).astype('float32')
  return variables._replace(
    params=map_named(lambda n, leaf: move(n, leaf) if is_added(n) else leaf, variables.params)
  )


@pytest.mark.parametrize('backbone', available('backbones'))
def test_every_dense_layer_is_reached(backbone):
  """By name; and what each leaf is given arrives: the output depends on every one of them."""
  options, inputs = plug('backbones', backbone).tiny()
  network = plug('backbones', backbone).build(**options)
  wrapped = peft.wrap(network, lora.added(at='.', rank=1))
  if not REACHED[backbone]:
    with pytest.raises(ValueError, match='no dense layer matches'):
      jax.eval_shape(wrapped.init, KEY, inputs)
    return
  shapes = jax.eval_shape(wrapped.init, KEY, inputs)
  random = np.random.default_rng(0)
  drawn = jax.tree.map(lambda leaf: random.normal(0.1, 0.3, leaf.shape).astype('f'), shapes)
  variables = drawn._replace(stats=jax.tree.map(np.abs, drawn.stats))
  labels = map_named(lambda name, _: 'train' if is_added(name) else 'frozen', shapes.params)
  leaves, frozen = partition(variables.params, labels)
  modules = {name.rpartition('/')[0] for name in peft.split(shapes.params, 'lora')[1]}
  assert modules == REACHED[backbone]

  def total(leaves):
    params = merge(leaves, frozen)
    logits, _ = wrapped.apply(variables._replace(params=params), inputs, train=False)
    return jnp.sin(logits).sum()

  for name, leaf in named_leaves(jax.jit(jax.grad(total))(leaves)):
    assert np.abs(leaf).max() > 0, name


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


@functools.cache
def gradient(trained):
  """(FLOPs of the compiled gradient of a loss, its shapes, FLOPs of the kernels' own gradients)."""
  sizes = {**SIZES, 'dim': 64, 'mlp_dim': 256, 'max_positions': 16}
  network = peft.wrap(bert.build(**sizes), lora.added(rank=2))
  inputs = {name: np.ones((8, 16), np.int32) for name in ('ids', 'mask')}
  variables = jax.eval_shape(network.init, KEY, inputs)
  rules = plug('freezing', trained).rules(freezing.groups(network.stages, variables.params))
  trainable, frozen = partition(variables.params, label(variables.params, rules))

  def loss(trainable, frozen):
    logits, _ = network.apply(Variables(merge(trainable, frozen), {}), inputs, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, np.arange(8) % 3).mean()

  compiled = jax.jit(jax.grad(loss)).lower(trainable, frozen).compile()
  shapes = jax.eval_shape(jax.grad(loss), trainable, frozen)
  kernels = [
    leaf
    for name, leaf in named_leaves(variables.params)
    if name.startswith('block') and name.endswith('/kernel')
  ]
  own = sum(2 * 8 * 16 * math.prod(kernel.shape) for kernel in kernels)
  return compiled.cost_analysis()['flops'], shapes, own


def test_no_gradient_of_a_whole_kernel_is_computed():
  """A third of full fine-tuning's products are those gradients: LoRA's program is without them."""
  (full, whole, own), (thin, shapes, _) = gradient('all'), gradient('added')
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(whole)) > 100_000
  for name, leaf in named_leaves(shapes):
    assert name.startswith('head/') or 2 in leaf.shape, name
  assert full - thin > 0.85 * own
  assert thin < 0.75 * full


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
  with pytest.raises(ValueError, match='lora changes dense layers, and inner is a Inner'):
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
    ({'alpha': 0}, 'alpha above 0, such as 16, got alpha=0'),
    ({'alpha': float('nan')}, 'got alpha=nan'),
    ({'alpha': '8'}, "got alpha='8'"),
    ({'at': '(query'}, r"regular expression, got at='\(query'"),
    ({'at': 3}, 'regular expression, got at=3'),
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
      "no dense layer matches at='attn'; have block0/attention/.*mlp/up, pool/dense.",
    ),
    ({'rank': 9}, r'rank=9 is above 8, the smaller side of block0/attention/query/kernel \[8, 8\]'),
  ],
)
def test_what_does_not_fit_the_network(options, words):
  network = peft.wrap(bert.build(**SIZES), lora.added(**options))
  with pytest.raises(ValueError, match=words):
    jax.eval_shape(network.init, KEY, INPUTS)


@pytest.mark.parametrize('name, alpha', [('lora', 8), ('rslora', 8 * math.sqrt(4))])
def test_numbers_of_the_peft_library(name, alpha):
  stored = np.load(cases.FOLDER / 'peft.npz')
  weights = sources.load(str(cases.FOLDER / 'peft_base.safetensors'))
  options = {
    'vocab_size': 97,
    'dim': 48,
    'depth': 2,
    'heads': 4,
    'mlp_dim': 80,
    'max_positions': 32,
  }
  network = bert.build(**options)
  method = lora.added(rank=4, alpha=alpha)
  wrapped = peft.wrap(network, method)
  inputs = {'ids': stored['ids'].astype(np.int32)}
  shapes = jax.eval_shape(wrapped.init, KEY, inputs)
  variables, _ = backbones.from_weights(bert, options, weights, shapes)
  flat, last = peft.flat_of(variables.params), len(network.stages) - 2
  tokens = lambda network, params: network.apply(
    Variables(params, {}), inputs, train=False, stop=last
  )[0]['hidden']
  base = tokens(network, peft.tree_of({k: v for k, v in flat.items() if not is_added(k)}))
  assert relative_error(base, stored['base_last']) < 1e-5
  for i in range(2):
    for part in ('query', 'value'):
      theirs = f'{name}:base_model.model.encoder.layer.{i}.attention.self.{part}.lora'
      ours = f'block{i}/added/lora/attention/{part}'
      flat[f'{ours}/a'] = stored[f'{theirs}_A.default.weight'].T
      flat[f'{ours}/b'] = stored[f'{theirs}_B.default.weight'].T
  params = peft.tree_of(flat)
  assert relative_error(tokens(wrapped, params), base) > 1e-2
  assert relative_error(tokens(wrapped, params), stored[f'{name}_last']) < 1e-5
  assert relative_error(tokens(network, method.merge(params)), stored[f'{name}_last']) < 1e-5
