"""What a step costs: no gradient of a whole kernel, where a method does without."""

import functools
import math

import jax
import numpy as np
import optax
import pytest

from tlx import freezing, peft
from tlx.backbones import bert, cnn
from tlx.plug import plug
from tlx.tree import label, merge, named_leaves, partition
from tlx.types import Variables

SIZES = {**bert.tiny()[0], 'dim': 64, 'mlp_dim': 256, 'max_positions': 16}
INPUTS = {name: np.ones((8, 16), np.int32) for name in ('ids', 'mask')}
METHODS = {
  'adapter': {'size': 4},
  'ia3': {},
  'lora': {'rank': 2},
  'oft': {'block': 4},
  'prefix': {'tokens': 1},
  'prompt': {'tokens': 1},
  'ssf': {},
  'vera': {'rank': 4},
}


IMAGES = np.ones((8, 16, 16, 3), np.float32)


@functools.cache
def gradient(method, policy='added', images=False):
  """(FLOPs of the compiled gradient of a loss, its shapes, FLOPs of the kernels' own gradients)."""
  network, inputs = bert.build(**SIZES), INPUTS
  if images:
    network, inputs = cnn.build(3, channels=(16, 32), hidden=8), IMAGES
  if method:
    options = {'at': 'block2/conv$'} if images else {}
    network = peft.wrap(network, plug('peft', method).added(**METHODS[method], **options))
  params = jax.eval_shape(network.init, jax.random.key(0), inputs).params
  rules = plug('freezing', policy).rules(freezing.groups(network.stages, params))
  trainable, frozen = partition(params, label(params, rules))

  def loss(trainable, frozen):
    logits, _ = network.apply(Variables(merge(trainable, frozen), {}), inputs, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, np.arange(8) % 3).mean()

  compiled = jax.jit(jax.grad(loss)).lower(trainable, frozen).compile()
  shapes = jax.eval_shape(jax.grad(loss), trainable, frozen)
  own = 0
  for name, leaf in named_leaves(params):
    if name.startswith('block') and name.endswith('/kernel'):
      places = {'block1/conv/kernel': 64, 'block2/conv/kernel': 16}.get(name, 16)
      own += 2 * 8 * places * math.prod(leaf.shape)
  return compiled.cost_analysis()['flops'], shapes, own


@pytest.mark.parametrize('method', METHODS)
def test_no_gradient_of_a_whole_kernel_is_computed(method):
  """A third of full fine-tuning's products are those gradients: these programs are without them."""
  (full, whole, own), (thin, shapes, _) = gradient('', 'all'), gradient(method)
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(whole)) > 100_000
  added = [leaf for name, leaf in named_leaves(shapes) if not name.startswith('head/')]
  assert sum(math.prod(leaf.shape) for leaf in added) < 5_000
  assert full - thin > 0.8 * own
  assert thin < 0.8 * full


@pytest.mark.parametrize('method', ['adapter', 'ia3', 'lora'])
def test_nor_of_a_convolutions(method):
  """With it, the difference would be no more than `own`: block1 needs no gradient at all."""
  (full, _, own), (thin, _, _) = gradient('', 'all', True), gradient(method, images=True)
  assert full - thin > 1.3 * own
