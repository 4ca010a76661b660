"""Heads after an earlier stage: over a grid of its places, or over the images themselves."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.study import tiny
from tlx.backbones import _layers, bert, cnn, head_after, vit
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


VIT = vit.build(3, dim=8, depth=3, heads=2, patch=4, image_size=16)
BERT = bert.build(**bert.tiny()[0])
SEVERAL = {
  'linear': {'stage': ('block1', 'block0')},
  'attentive': {'stage': ('block0', 'block1'), 'kind': 'attentive', 'queries': 2},
  'ladder': {'stage': ('block0', 'block1'), 'kind': 'ladder', 'size': 4},
  'side': {'stage': ('block0', 'block1'), 'kind': 'side', 'size': 4},
}
PICTURES = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype('float32')
OVER = {'vit': (VIT, PICTURES), 'bert': (BERT, bert.tiny()[1])}


def over(kind, name):
  """(the network with a head over two stages, its variables, inputs); every parameter is moved."""
  network, inputs = OVER[name]
  cut = head_after(network, num_classes=3, **SEVERAL[kind])
  variables = cut.init(jax.random.key(0), inputs)
  random = np.random.default_rng(0)
  noisy = lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape).astype('float32')
  return cut, variables._replace(params=jax.tree.map(noisy, variables.params)), inputs


@pytest.mark.parametrize('name', OVER)
@pytest.mark.parametrize('kind', SEVERAL)
def test_slices_of_a_network_with_a_head_over_stages_are_the_whole(kind, name):
  cut, variables, inputs = over(kind, name)
  want = cut.apply(variables, inputs, train=False)[0]
  assert want.shape == (len(jax.tree.leaves(inputs)[0]), 3)
  for i in range(1, len(cut.stages)):
    x = cut.apply(variables, inputs, train=False, stop=i)[0]
    got = cut.apply(variables, x, train=False, start=i)[0]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_means_of_several_stages_stand_side_by_side_in_the_networks_order():
  cut, variables, inputs = over('linear', 'vit')
  after = ('block0', 'block0_average', 'block1', 'block1_average', 'head')
  assert cut.stages[-5:] == after and 'block2' not in variables.params
  means = []
  for stage in ('block0', 'block1'):
    stop = VIT.stages.index(stage) + 1
    mean = np.asarray(VIT.apply(variables, inputs, train=False, stop=stop)[0]).mean(1)
    means.append(mean / np.sqrt((mean**2).mean(1, keepdims=True)))
  got = cut.apply(variables, inputs, train=False, stop=-1)[0]
  np.testing.assert_allclose(got, np.concatenate(means, axis=1), atol=1e-5)


def test_an_attentive_head_begins_at_the_mean_of_standardised_places():
  cut, variables, inputs = over('attentive', 'vit')
  head = cut.init(jax.random.key(0), inputs).params['head']
  variables = variables._replace(params={**variables.params, 'head': head})
  means = []
  for stage in ('block0', 'block1'):
    stop = VIT.stages.index(stage) + 1
    places = np.asarray(VIT.apply(variables, inputs, train=False, stop=stop)[0])
    places = places - places.mean(-1, keepdims=True)
    means += [(places / places.std(-1, keepdims=True)).mean(1)] * 2
  got = cut.apply(variables, inputs, train=False)[0]
  np.testing.assert_allclose(got, np.concatenate(means, axis=1) @ head['kernel'], atol=1e-4)


def test_a_query_finds_the_place_it_looks_for():
  cut, variables, inputs = over('attentive', 'vit')
  seen = cut.apply(variables, inputs, train=False, stop=-1)[0]
  places = np.asarray(seen['seen']['block1'][0])
  places = places - places.mean(-1, keepdims=True)
  places /= places.std(-1, keepdims=True)
  zero = jax.tree.map(np.zeros_like, variables.params['head'])
  sharp = np.stack([1e4 * places[3], 0 * places[3]])
  kernel = np.zeros_like(zero['kernel'])
  kernel[16:19] = np.eye(3)  # the first numbers of what the first query finds in block1
  head = {**zero, 'query_block1': sharp, 'kernel': kernel}
  variables = variables._replace(params={**variables.params, 'head': head})
  got = cut.apply(variables, inputs, train=False)[0][0]
  np.testing.assert_allclose(got, places[3, :3], atol=1e-3)


@pytest.mark.parametrize('kind', ['attentive', 'ladder', 'side'])
def test_heads_over_tokens_do_not_see_padding(kind):
  cut, variables, inputs = over(kind, 'bert')
  want = cut.apply(variables, inputs, train=False)[0]
  grown = {name: np.pad(leaf, ((0, 0), (0, 3))) for name, leaf in inputs.items()}
  np.testing.assert_allclose(cut.apply(variables, grown, train=False)[0], want, atol=1e-5)


def test_a_ladder_by_hand():
  cut, variables, inputs = over('ladder', 'vit')
  seen = cut.apply(variables, inputs, train=False, stop=-1)[0]['seen']
  head = jax.tree.map(np.asarray, variables.params['head'])
  dense = lambda x, name: x @ head[name]['kernel'] + head[name]['bias']

  def normed(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)

  def rung(h, stage):
    return h + dense(np.asarray(nn.gelu(dense(normed(h), f'up_{stage}'))), f'out_{stage}')

  first = rung(dense(normed(np.asarray(seen['block0'])), 'down_block0'), 'block0')
  gate = 1 / (1 + np.exp(-head['gate_block1'] / 0.1))
  second = gate * dense(normed(np.asarray(seen['block1'])), 'down_block1') + (1 - gate) * first
  want = normed(rung(second, 'block1')).mean(1) @ head['kernel'] + head['bias']
  np.testing.assert_allclose(cut.apply(variables, inputs, train=False)[0], want, atol=1e-4)


def test_a_side_network_is_added_in_a_learned_share():
  cut, variables, inputs = over('side', 'vit')
  seen = cut.apply(variables, inputs, train=False, stop=-1)[0]['seen']
  head = dict(variables.params['head'])
  side = cut.apply(_with_head(variables, {**head, 'alpha': -1e3}), inputs, train=False)[0]
  base = cut.apply(_with_head(variables, {**head, 'alpha': 1e3}), inputs, train=False)[0]
  mean = np.asarray(seen['block1']).mean(1)
  np.testing.assert_allclose(base, mean @ head['kernel'] + head['bias'], atol=1e-5)
  share = 1 / (1 + np.exp(-head['alpha']))
  got = cut.apply(variables, inputs, train=False)[0]
  np.testing.assert_allclose(got, share * base + (1 - share) * side, atol=1e-5)
  assert np.abs(side - base).max() > 1e-2
  fresh = cut.init(jax.random.key(0), inputs).params['head']
  got = cut.apply(_with_head(variables, fresh), inputs, train=False)[0]
  np.testing.assert_allclose(got, mean / 2 @ fresh['kernel'], atol=1e-5)


def _with_head(variables, head):
  return variables._replace(params={**variables.params, 'head': head})


def test_a_ladder_follows_an_image_to_fewer_places():
  place = {'stage': ('block1', 'block2', 'fc'), 'kind': 'ladder', 'size': 4}
  cut = head_after(NETWORK, num_classes=3, **place)
  variables = cut.init(jax.random.key(0), IMAGES)
  assert cut.apply(variables, IMAGES, train=False)[0].shape == (2, 3)


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
    'both': {'head_after': {'stage': ('block1', 'block2')}, **solve},
    'trained': {'head_after': 'input', 'init': 'random', 'phases': ({'tune': 'all'},)},
    'attentive': {
      'head_after': {'stage': ('block1', 'block2'), 'kind': 'attentive'},
      'phases': ({'tune': 'head', 'steps': 600},),
    },
    'side': {
      'head_after': {'stage': ('block1', 'block2'), 'kind': 'side', 'size': 4},
      'phases': ({'tune': 'head'},),
    },
    'ladder': {
      'head_after': {'stage': ('block1', 'block2'), 'kind': 'ladder', 'size': 4},
      'phases': ({'tune': 'head'}, {'tune': 'all'}),
    },
  }
  config.shots, config.seeds, config.baseline = (4,), (0,), 'pixels'
  return config


def test_a_study_of_heads_on_means_cells_and_images(data_dir, tmp_path):
  config = study(data_dir)
  rows = cost_table(configs.resolve(config), cohorts_of(configs.resolve(config)))
  width = {'mean': 4, 'cells': 9 * 4, 'pixels': 64, 'both': 4 + 6, 'trained': 64}
  want = {name: (features + 1) * 10 for name, features in width.items()}
  want['attentive'] = (4 + 6 + 1) * 10 + 4 + 6
  trunk, rung = 10 * 4 + (36 + 1) * 6, 2 * (4 + 1) * 4
  want['side'] = (4 + 1) * 4 + rung + (4 + 1) * 6 + 1 + (6 + 1) * 10
  want['ladder'] = trunk + (4 + 1) * 4 + (6 + 1) * 4 + 2 * rung + 1 + (4 + 1) * 10
  trained = {row['cohort'].split('-')[-1]: row for row in rows if '-' in row['cohort']}
  assert {name: row['trained'] for name, row in trained.items()} == want
  assert trained['attentive']['reused'] == '4' and trained['both']['reused'] == '4'
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
    ({'stage': 'block1', 'gird': 2}, "kind 'linear' takes the option 'grid', got 'gird'"),
    ({'stage': 'block1', 'kind': 'atentive'}, "kind is 'atentive'; choose one of 'linear', 'att"),
    ({'stage': 'block1', 'kind': 'attentive', 'queries': 0}, 'queries .* from 1 on, got 0'),
    ({'stage': 'block1', 'kind': 'side'}, "'side' wants two stages.*got 'block1'"),
    ({'stage': 'block1', 'kind': 'ladder', 'grid': 2}, "'ladder' takes the option 'size', got 'gr"),
    ({'stage': ('block1', 'block1')}, 'none of them twice'),
    ({'stage': ('block1', 'blok2')}, "'blok2' is no stage.* Did you mean 'block2'"),
    ({'stage': 3}, 'head_after is a stage, or stages and'),
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
