"""Heads after an earlier stage: over a grid of its places, or over the images themselves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.study import tiny
from tlx.backbones import _layers, cnn, head_after, vit
from tlx.study import config as configs
from tlx.study import pair as pairs
from tlx.study import run, store
from tlx.study.cohorts import cohorts_of
from tlx.study.cost import cost_table
from tlx.study.phases import network_of
from tlx.types import Variables

NETWORK = cnn.build(3, channels=(4, 6), hidden=5)
IMAGES = np.random.default_rng(0).normal(size=(2, 9, 14, 1)).astype('float32')


def features(stage, grid=1, network=NETWORK, images=IMAGES):
  """(the stages of the network with its head after `stage`, what enters that head, what enters the
  stage's average).
  """
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
  want = []
  for top, bottom in ((0, 2), (1, 4), (3, 5)):
    for left, right in ((0, 3), (2, 5), (4, 7)):
      want.append(places[:, top:bottom, left:right].mean((1, 2)))
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


@pytest.mark.parametrize(
  'stage, grid, words',
  [
    ('block1', 6, r'A grid of 6 x 6 .* gives an image of 5 x 7 places. Take a smaller grid'),
    ('fc', 2, r'A grid of 2 x 2 .* gives no image'),
    ('block1', 0, 'a whole number n from 1 on, got 0'),
    ('block1', 2.0, 'got 2.0'),
    ('block1', True, 'got True'),
    ('input', 2, 'takes every pixel and no grid, got grid=2'),
    (
      'blok1',
      1,
      r"is no stage before the head; have input, block1, block2, fc. Did you mean 'block1'\?",
    ),
  ],
)
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
    np.testing.assert_allclose(
      _layers.Average(grid).apply({}, x, False), np.ones((1, grid * grid * 2)), atol=1e-6
    )


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def study(data_dir):
  """A study of seconds whose probes are solved on means, on cells and on the images."""
  config = tiny.get_config()
  config.data_dir = str(data_dir)
  config.sources.turned.backbone = {'name': 'cnn', 'channels': (4, 6), 'hidden': 5}
  solve = {
    'phases': ({'tune': 'head', 'solver': 'ridge'},),
    'grid': {'learning_rate': (1.0,), 'weight_decay': (0.1, 1.0)},
  }
  config.methods = {
    'mean': {'head_after': 'block1', **solve},
    'cells': {'head_after': {'stage': 'block1', 'grid': 3}, **solve},
    'pixels': {'head_after': 'input', **solve},
    'trained': {'head_after': 'input', 'init': 'random', 'phases': ({'tune': 'all'},)},
  }
  config.shots, config.seeds, config.baseline = (4,), (0,), 'pixels'
  return config


def test_a_study_of_heads_on_means_cells_and_images(data_dir, tmp_path):
  config = study(data_dir)
  rows = cost_table(configs.resolve(config), cohorts_of(configs.resolve(config)))
  width = {'mean': 4, 'cells': 9 * 4, 'pixels': 64, 'trained': 64}
  assert {row['cohort'].split('-')[-1]: row['trained'] for row in rows if '-' in row['cohort']} == {
    name: (features + 1) * 10 for name, features in width.items()
  }
  run.run(config, tmp_path)
  data = pairs.load(
    configs.resolve(config),
    configs.resolve(config)['targets']['digits'],
    configs.resolve(config)['sources']['turned'],
  )
  images = (data.test.inputs / np.float32(255) - np.float32(0.3)) / np.float32(0.4)
  source = configs.resolve(config)['sources']['turned']
  for result in (json.loads(path.read_text()) for path in tmp_path.glob('runs/*/result.json')):
    if result['chosen']:
      network = network_of(source, 10, configs.resolve(config)['methods'][result['cell']['method']])
      logits, _ = network.apply(
        Variables(*store.params(tmp_path, result['id'])), images, train=False
      )
      np.testing.assert_allclose(
        logits, np.load(tmp_path / 'runs' / result['id'] / 'predictions.npz')['logits'], atol=1e-4
      )


@pytest.mark.parametrize(
  'head_after, words',
  [
    ({'stage': 'block1', 'gird': 2}, "head_after is a stage, or one with a grid such as .*'gird'"),
    ({'grid': 2}, "lacks the field 'stage'"),
    ({'stage': '', 'grid': 2}, 'head_after is a stage'),
    ({'stage': 'block1', 'grid': 9}, 'config.methods.cells: A grid of 9 x 9'),
    ({'stage': 'input', 'grid': 2}, 'config.methods.cells: .*takes every pixel'),
  ],
)
def test_a_field_that_says_no_place(data_dir, head_after, words):
  config = study(data_dir)
  config.methods = {
    **config.methods.to_dict(),
    'cells': {**config.methods.to_dict()['cells'], 'head_after': head_after},
  }
  with pytest.raises(ValueError, match=words):
    cohorts_of(configs.resolve(config))
