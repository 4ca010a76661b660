"""(IA)3: the numbers of the peft library, and where a vector is of inputs."""

import jax
import numpy as np
import pytest

from tests.peft import official
from tlx import peft
from tlx.backbones import convnext
from tlx.peft import ia3

OFFICIAL = {
  'ia3': ('bert', {'at': r'(key|value|attention/out|down)$', 'inputs': '(out|down)$'}),
  'ia3_llama': ('llama', {}),
  'ia3_conv': ('resnet_basic', {'at': r'layer.*_0/conv1$'}),
}


@pytest.mark.parametrize('case', OFFICIAL)
def test_numbers_of_the_peft_library(case):
  name, options = OFFICIAL[case]
  leaves = {}
  for layer, theirs in official.layers(case, name).items():
    vector = theirs['ia3_l']
    leaf = 'scale_in' if vector.shape[0] == 1 and vector.ndim == 2 else 'scale'
    leaves[f'{layer}/{leaf}'] = vector.ravel()
  official.check(case, name, ia3.added(**options), leaves)


def test_a_depthwise_convolution_has_no_inputs_to_scale():
  options, images = convnext.tiny()
  network = convnext.build(**options)
  words = r"inputs='conv\$' matches layer1_0/conv, a depthwise convolution \[7, 7, 1, 4\]"
  refused = peft.wrap(network, ia3.added(at=r'layer1_0/conv$', inputs='conv$'))
  with pytest.raises(ValueError, match=words):
    jax.eval_shape(refused.init, jax.random.key(0), images)
  method = ia3.added(at=r'layer1_0/conv$')
  variables = peft.wrap(network, method).init(jax.random.key(0), images)
  variables.params['layer1_0']['added']['ia3']['conv']['scale'] *= np.arange(4.0)
  run = lambda of, params: of.apply(variables._replace(params=params), images, train=False, stop=2)
  found = run(peft.wrap(network, method), variables.params)[0]
  np.testing.assert_allclose(found, run(network, method.merge(variables.params))[0], atol=1e-6)
