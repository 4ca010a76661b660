"""The towers of CLIP and SigLIP together; their parity one by one is in test_beside.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx import freezing, peft
from tlx.backbones import clip, clip_text, from_weights, options_of
from tlx.parity import cases
from tlx.peft import prefix
from tlx.sources import load

FOLDER = cases.FOLDER / 'variants'


@functools.lru_cache(maxsize=None)
def tower(name):
  """(network, its variables, inputs) of a case."""
  case = cases.read(name, FOLDER)
  network, variables = cases.build(case)
  return network, variables, case.inputs


def embed(name, **inputs):
  network, variables, own = tower(name)
  vectors, _ = network.apply(variables, inputs or own, train=False, stop=len(network.stages) - 1)
  return np.asarray(vectors)


def unit(vectors):
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize('name', ['clip', 'siglip'])
def test_the_logits_of_both_towers_are_official(name):
  scale, bias = clip.similarity(load(str(FOLDER / name / 'model.safetensors')).arrays)
  cosines = unit(embed(name)) @ unit(embed(f'{name}.text')).T
  official = np.load(FOLDER / name / 'io.npz')['logits_per_image']
  np.testing.assert_allclose(scale * cosines + bias, official, atol=1e-5 * np.abs(official).max())
  assert (bias != 0) == (name == 'siglip')


def test_padding_of_clip_changes_nothing_on_either_side():
  ids = np.asarray(tower('clip.text')[2]['ids'])
  zeros = np.full((3, 4), 96)  # the greatest id of all, which is no end token where it is padding
  ones = np.ones_like(ids)
  for side in (1, -1):
    joined = np.concatenate([ids, zeros][::side], axis=1)
    mask = np.concatenate([ones, np.zeros((3, 4), int)][::side], axis=1)
    found = embed('clip.text', ids=joined, mask=mask)
    np.testing.assert_allclose(found, embed('clip.text'), atol=1e-5)


def test_siglip_reads_padding_as_it_was_trained():
  ids = np.asarray(tower('siglip.text')[2]['ids'])
  mask = np.ones_like(ids)
  mask[:, 9:] = 0
  padded = np.zeros((3, 20), int)  # pad_token_id is 0 there, and 20 positions
  padded[:, :9] = ids[:, :9]
  found = embed('siglip.text', ids=ids, mask=mask)
  np.testing.assert_allclose(found, embed('siglip.text', ids=padded), atol=1e-6)
  assert np.abs(found - embed('siglip.text', ids=ids[:, :9])).max() > 1e-2


def test_the_end_token_is_the_first_of_its_id_or_the_greatest_id():
  network = clip_text.build(**{**clip_text.tiny()[0], 'num_classes': None, 'end_id': 7})
  greatest = clip_text.build(**{**clip_text.tiny()[0], 'num_classes': None})
  ids = np.array([[3, 7, 9, 7], [16, 7, 5, 5]])
  variables = network.init(jax.random.key(0), {'ids': ids})

  def run(network, ids):
    return np.asarray(network.apply(variables, {'ids': ids}, train=False)[0])

  np.testing.assert_allclose(run(network, ids), run(network, ids[:, :2]), atol=1e-6)
  np.testing.assert_allclose(run(greatest, ids)[0], run(greatest, ids[:1, :3])[0], atol=1e-6)
  np.testing.assert_allclose(run(greatest, ids)[1], run(greatest, ids[1:, :1])[0], atol=1e-6)


def test_siglip_takes_no_prefix():
  options = {'family': 'siglip', 'num_classes': None, 'max_positions': 16}
  network = clip_text.build(**{**clip_text.tiny()[0], **options})
  network = peft.wrap(network, prefix.added(tokens=2))
  inputs = {'ids': np.ones((1, 4), int), 'mask': np.ones((1, 4), int)}
  variables = network.init(jax.random.key(0), inputs)
  with pytest.raises(ValueError, match='SigLIP takes no prefix'):
    network.apply(variables, inputs, train=False)


def test_features_before_the_projection_take_the_same_weights():
  weights = load(str(FOLDER / 'clip' / 'model.safetensors'))
  network = clip.build(None, **{**options_of(clip, weights), 'projection': None})
  images = jnp.asarray(tower('clip')[2])
  shapes = jax.eval_shape(network.init, jax.random.key(0), images)
  options = {**options_of(clip, weights), 'projection': None}
  variables, _ = from_weights(clip, options, weights, shapes, fresh=('head',))
  features = np.asarray(network.apply(variables, images, train=False)[0])
  projected = features @ weights.arrays['visual_projection.weight'].T
  np.testing.assert_allclose(projected, embed('clip'), atol=1e-5)


@pytest.mark.parametrize('name', ['clip', 'clip.text', 'siglip'])
def test_depth_is_counted_by_blocks_and_the_pooling(name):
  network, variables, _ = tower(name)
  groups = freezing.groups(network.stages, variables.params)
  assert groups == (('embed',), ('block0',), ('block1',), ('pool',), ('head',))


@pytest.mark.parametrize(
  'module, options, words',
  [
    (clip, {'family': 'blip'}, "family is 'blip'; choose one of 'clip', 'siglip'"),
    (clip, {'family': 'siglip'}, 'projection is 512, and the images of SigLIP have none'),
    (clip, {'dim': 10}, 'dim is 10, which 12 heads do not divide'),
    (clip, {'image_size': 100}, 'no multiple of the patch size 32'),
    (clip_text, {'family': 'siglip', 'projection': None}, 'the texts of SigLIP have one'),
    (clip_text, {'activation': 'tanh'}, "activation is 'tanh'"),
  ],
)
def test_a_bad_option(module, options, words):
  with pytest.raises(ValueError, match=words):
    module.build(3, **options)


def test_the_preprocessing_of_both():
  spec = clip.input_spec(variant='l/14@336')
  assert spec['image_size'] == 336 and spec['fit'] == 'crop' and spec['mean'][0] == 0.48145466
  spec = clip.input_spec(variant='siglip_b/16')
  assert spec['image_size'] == 224 and spec['fit'] == 'squeeze' and spec['std'] == (0.5,) * 3
  assert clip_text.input_spec(variant='siglip_b/16') == {'vocab_size': 32000, 'length': 64}
