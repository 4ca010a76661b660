"""VeRA, LoHa, LoKr and OFT: the numbers of the peft library, and what is refused."""

import jax
import numpy as np
import pytest

from tests.peft import official
from tlx import peft
from tlx.backbones import bert, bit
from tlx.peft import lokr, oft
from tlx.plug import plug
from tlx.tree import map_named

SIZES, INPUTS = bert.tiny()


def test_numbers_of_vera():
  of, leaves = official.stored(), {}
  for layer, theirs in official.layers('vera', 'bert').items():
    stage = layer.split('/')[0]
    one = f'vera:{official.PREFIX}encoder.layer.0.attention.self.query.vera'
    leaves |= {f'{stage}/fixed/a': of[f'{one}_A.default'].T}
    leaves |= {f'{stage}/fixed/b': of[f'{one}_B.default'].T}
    leaves[f'{layer}/d'] = theirs['vera_lambda_d']
    leaves[f'{layer}/b'] = theirs['vera_lambda_b']
  official.check('vera', 'bert', plug('peft', 'vera').added(rank=8), leaves)


@pytest.mark.parametrize(
  'case, name, options',
  [('loha', 'bert', {}), ('loha_conv', 'resnet_basic', {'at': r'layer.*_0/conv1$'})],
)
def test_numbers_of_loha(case, name, options):
  flat, leaves = peft.flat_of(official.base(name).variables.params), {}
  for layer, theirs in official.layers(case, name).items():
    kernel = flat[f'{layer}/kernel']
    for i in (1, 2):
      a = theirs[f'hada_w{i}_b']  # [rank, in h w]
      if kernel.ndim == 4:
        a = a.reshape(3, kernel.shape[2], *kernel.shape[:2]).transpose(2, 3, 1, 0)
      leaves[f'{layer}/a{i}'] = a if kernel.ndim == 4 else a.T
      leaves[f'{layer}/b{i}'] = theirs[f'hada_w{i}_a'].T
  official.check(case, name, plug('peft', 'loha').added(rank=3, alpha=6, **options), leaves)


def test_numbers_of_lokr():
  leaves = {}
  for layer, theirs in official.layers('lokr', 'bert').items():
    leaves[f'{layer}/w1'] = theirs['lokr_w1'].T
    leaves[f'{layer}/a'], leaves[f'{layer}/b'] = theirs['lokr_w2_b'].T, theirs['lokr_w2_a'].T
  official.check('lokr', 'bert', lokr.added(rank=3, alpha=6), leaves)


def test_numbers_of_oft():
  leaves = {
    f'{layer}/skew': theirs['oft_R'] for layer, theirs in official.layers('oft', 'bert').items()
  }
  official.check('oft', 'bert', oft.added(block=8), leaves)


def test_rotations_are_orthogonal():
  rotations = oft._rotations(5, jax.random.normal(jax.random.key(0), (3, 10)))
  identities = rotations @ rotations.swapaxes(1, 2)
  np.testing.assert_allclose(identities, np.broadcast_to(np.eye(5), (3, 5, 5)), atol=1e-5)
  np.testing.assert_allclose(np.linalg.det(rotations), 1, rtol=1e-5)


def test_a_kronecker_product_of_whole_factors_and_of_a_convolution():
  """rank is no less than half of w2's sides: w2 is one leaf. The kernel by numpy."""
  random = np.random.default_rng(0)
  for shape, factor in (((6, 4), 2), ((3, 3, 6, 4), -1)):
    params = {'fc': {'layer': {'kernel': random.normal(size=shape).astype('f')}}}
    method = lokr.added(at='layer', rank=2, alpha=3, factor=factor)
    leaves = method.init(jax.random.key(0), params)
    assert {name: leaf.shape for name, leaf in leaves.items()} == {
      'fc/layer/w1': (2, 2),
      'fc/layer/w2': (*shape[:-2], 3, 2),
    }
    flat = peft.flat_of(peft.add(params, method, jax.random.key(0)))
    flat['fc/added/lokr/layer/w1'] = w1 = random.normal(size=(2, 2)).astype('f')
    w2 = np.asarray(leaves['fc/layer/w2']).reshape(-1, 3, 2)
    want = np.stack([np.kron(w1, one) for one in w2]).reshape(shape)
    found = method.merge(peft.tree_of(flat))['fc']['layer']['kernel']
    np.testing.assert_allclose(found, params['fc']['layer']['kernel'] + 1.5 * want, rtol=1e-5)


@pytest.mark.parametrize(
  'method, options, words',
  [
    ('vera', {'rank': 9}, 'rank=9 is above 8'),
    ('loha', {'rank': 9}, 'rank=9 is above 8'),
    ('lokr', {'rank': 9}, 'rank=9 is above 8'),
    ('oft', {'block': 3}, 'block=3 does not divide 8, what block0/attention/query takes'),
    ('oft', {'block': 1}, 'nothing to rotate'),
    ('lokr', {'factor': 0}, 'got factor=0'),
    ('vera', {'rank': 0}, 'got rank=0'),
    ('loha', {'alpha': -1}, 'got alpha=-1'),
  ],
)
def test_what_does_not_fit(method, options, words):
  with pytest.raises(ValueError, match=f'^{method}.*{words}'):
    network = peft.wrap(bert.build(**SIZES), plug('peft', method).added(**options))
    jax.eval_shape(network.init, jax.random.key(0), INPUTS)


@pytest.mark.parametrize(
  'method, options',
  [('loha', {'rank': 1}), ('lokr', {'rank': 1}), ('ia3', {}), ('lora', {'rank': 1, 'dora': True})],
)
def test_standardised_kernels(method, options):
  """Those that add to a kernel merge into it; a scale would be undone and is refused."""
  build, images = bit.tiny()
  network = bit.build(**{**build, 'layers': (1,), 'channels': (8,)})
  added = plug('peft', method).added(at='layer1_0/conv1', **options)
  wrapped = peft.wrap(network, added)
  variables = wrapped.init(jax.random.key(0), images)
  if method in ('ia3', 'lora'):
    with pytest.raises(ValueError, match=f'^{method}.*conv1 standardises its kernel'):
      wrapped.apply(variables, images, train=False, stop=2)
    return
  moved = lambda name, leaf: leaf + 0.3 if f'/{method}/' in name else leaf
  params = map_named(moved, variables.params)
  run = lambda of, params: of.apply(variables._replace(params=params), images, train=False, stop=2)
  found = run(wrapped, params)[0]
  assert np.abs(found - run(wrapped, variables.params)[0]).max() > 1e-3
  np.testing.assert_allclose(found, run(network, added.merge(params))[0], atol=1e-5)
