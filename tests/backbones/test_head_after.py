"""Heads after an earlier stage: over a grid of its places, or over the images themselves."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.backbones import _layers, cnn, head_after, vit

NETWORK = cnn.build(3, channels=(4, 6), hidden=5)
IMAGES = np.random.default_rng(0).normal(size=(2, 9, 14, 1)).astype('float32')


def features(stage, grid=1, network=NETWORK, images=IMAGES):
  """(the stages of the network with its head after `stage`, what enters that head, what enters the stage's average)."""
  cut = head_after(network, stage, 3, grid)
  variables = cut.init(jax.random.key(0), images)
  before = cut.apply(variables, images, train=False, stop=-2)[0]
  return cut.stages, cut.apply(variables, images, train=False, stop=-1)[0], np.asarray(before)


def test_one_cell_is_the_mean():
  stages, found, places = features('block1')
  assert stages == ('block1', 'average', 'head')
  np.testing.assert_allclose(found, places.mean((1, 2)), atol=1e-6)


def test_cells_are_means_row_by_row():
  stages, found, places = features('block1', 3)  # 5 x 7 places: neither number is a multiple of 3
  assert stages == ('block1', 'average3x3', 'head') and found.shape == (2, 9 * 4)
  rows, columns = ((0, 2), (1, 4), (3, 5)), ((0, 3), (2, 5), (4, 7))
  want = [places[:, top:bottom, left:right].mean((1, 2)) for top, bottom in rows for left, right in columns]
  np.testing.assert_allclose(found, np.concatenate(want, axis=1), atol=1e-6)


def test_as_many_cells_as_places_are_the_places():
  _, found, places = features('block1', 5, images=IMAGES[:, :, :9])
  np.testing.assert_allclose(found, places.reshape(2, -1), atol=1e-6)


def test_the_images_themselves():
  stages, found, _ = features('input')
  assert stages == ('flatten', 'head') and found.dtype == jnp.float32
  np.testing.assert_array_equal(found, IMAGES.reshape(2, -1))


def test_grids_of_one_stage_have_stages_of_other_names():
  """Kept activations go by the names of stages."""
  assert len({features('block1', grid)[0] for grid in (1, 2, 3)}) == 3


@pytest.mark.parametrize('stage, grid, words', [
    ('block1', 6, r'A grid of 6 x 6 .* gives an image of 5 x 7 places. Take a smaller grid'),
    ('fc', 2, r'A grid of 2 x 2 .* gives no image'),
    ('block1', 0, 'a whole number n from 1 on, got 0'),
    ('block1', 2.0, 'got 2.0'),
    ('block1', True, 'got True'),
    ('input', 2, 'takes every pixel and no grid, got grid=2'),
    ('blok1', 1, r"is no stage before the head; have input, block1, block2, fc. Did you mean 'block1'\?"),
])
def test_what_cannot_be_averaged(stage, grid, words):
  with pytest.raises(ValueError, match=words):
    features(stage, grid)


def test_tokens_have_no_grid():
  network = vit.build(3, dim=8, depth=1, heads=2, patch=4, image_size=16)
  assert features('block0', 1, network, np.zeros((1, 16, 16, 3), np.float32))[1].shape == (1, 8)
  with pytest.raises(ValueError, match='gives no image'):
    features('block0', 2, network, np.zeros((1, 16, 16, 3), np.float32))


def test_averages_do_not_depend_on_how_an_image_is_cut():
  x = jnp.ones((1, 7, 11, 2))
  for grid in range(1, 8):
    np.testing.assert_allclose(_layers.Average(grid).apply({}, x, False), np.ones((1, grid * grid * 2)), atol=1e-6)
