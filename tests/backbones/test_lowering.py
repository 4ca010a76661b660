"""What accelerators are given: operations that their libraries know, no form made for a CPU.

Nothing runs; the programs are read.
"""

import re

import jax
import pytest

from tlx.plug import plug
from tlx.types import Variables


def operations(text):
  """{operation: how often} of a program."""
  found = {}
  for name in re.findall(r'stablehlo\.(\w+)', text):
    found[name] = found.get(name, 0) + 1
  return found


@pytest.mark.parametrize('platform, backend', [('cuda', 'gpu'), ('tpu', 'tpu')])
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
