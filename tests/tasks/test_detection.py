"""The task: its loss by hand and mirrored, its boxes, its columns, and a run that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks import rectangles
from tlx import backbones
from tlx.backbones import _boxes, cnn, convnext, efficientnet_lite, vit
from tlx.tasks import _judged, detection
from tlx.types import Batch, Head

TASK = detection.task(2)
SHAPE = jax.ShapeDtypeStruct((1, rectangles.SIDE, rectangles.SIDE, 3), np.float32)
NUMBER = 6  # of images in every case, so that one program serves all
terms_of, keep_of = jax.jit(TASK.terms), jax.jit(TASK.keep)


def outputs_of():
  """What a head might say of the images at strides 8 and 16, at random."""
  random = np.random.default_rng(0)
  places = []
  for stride in (8, 16):
    middles = (np.arange(rectangles.SIDE // stride) + 0.5) * stride
    places += [(x, y, stride) for y in middles for x in middles]
  places = np.asarray(places, np.float32)
  number = NUMBER, len(places)
  made = {
    'logits': random.normal(size=(*number, 2)),
    'sides': random.uniform(2, 20, (*number, 4)),
    'centre': random.normal(size=number),
    'places': np.tile(places, (NUMBER, 1, 1)),
  }
  return {name: leaf.astype(np.float32) for name, leaf in made.items()}


def rows_of(tree, rows):
  return {name: leaf[rows] for name, leaf in tree.items()}


def sums_of(outputs, targets, counts=(1,) * NUMBER):
  """{term: (sum of value x weight, sum of weight)} of the images that count."""
  terms = terms_of(outputs, Batch(None, targets, np.float32(counts)))
  return {
    name: (float((np.asarray(value) * weight).sum()), float(weight.sum()))
    for name, (value, weight) in terms.items()
  }


def nothing_there():
  _, targets = rectangles.drawn(NUMBER)
  return {name: np.zeros_like(leaf) for name, leaf in targets.items()}


def test_a_loss_by_hand():
  """Of the first image one place at the centre of an object says its box 2 pixels wider: IoU
  10 / 12, GIoU alike. All other places have no part in it.
  """
  outputs, targets = outputs_of(), nothing_there()
  outputs['places'][:] = 100, 100, 8
  outputs['places'][0, 3] = 5, 5, 8
  outputs['sides'][0, 3] = 6, 5, 6, 5
  outputs['logits'][:], outputs['logits'][0, :4], outputs['centre'][:] = -100, 0, np.log(3)
  targets['boxes'][0, 1], targets['valid'][0, 1] = (0, 0, 10, 10), 1
  sums = sums_of(outputs, targets, (1, 0, 0, 0, 0, 0))
  of_classes = np.log(2) / 4 * (0.25 + 7 * 0.75)  # one pair of eight is right
  assert sums['class_loss'] == pytest.approx((of_classes, 1), rel=1e-5)
  assert sums['box_loss'] == pytest.approx((1 - 10 / 12, 1), rel=1e-5)
  assert sums['centre_loss'] == pytest.approx((-np.log(3 / 4), 1), rel=1e-5)
  assert sums['loss'][0] == pytest.approx(of_classes + 1 / 6 - np.log(3 / 4), rel=1e-5)


def test_the_losses_are_torchvisions():
  """`FCOS.compute_loss` of torchvision 0.29 on these numbers, anchors as wide as their stride."""
  random = np.random.default_rng(3)
  side, number, most = 160, 6, 7
  places = []
  for stride in (8, 16, 32):
    middles = (np.arange(side // stride) + 0.5) * stride
    places += [(x, y, stride) for y in middles for x in middles]
  places = np.tile(np.asarray(places, np.float32), (number, 1, 1))
  shape = places.shape[:2]
  outputs = {
    'places': places,
    'logits': random.normal(size=(*shape, 3)).astype(np.float32),
    'centre': random.normal(size=shape).astype(np.float32),
    'sides': random.uniform(2, 60, (*shape, 4)).astype(np.float32),
  }
  begins = random.uniform(0, side - 20, (number, most, 2))
  ends = np.minimum(begins + random.uniform(10, 120, (number, most, 2)), side)
  targets = {
    'boxes': np.concatenate([begins, ends], -1).astype(np.float32),
    'labels': random.integers(0, 3, (number, most)).astype(np.int32),
    'valid': (random.random((number, most)) < 0.8).astype(np.float32),
    'crowd': np.zeros((number, most), np.float32),
  }
  sums = sums_of(outputs, targets)
  wanted = {'class': 8.532150268554688, 'box': 0.8256934881210327, 'centre': 0.7995551228523254}
  for part, value in wanted.items():
    total, weight = sums[f'{part}_loss']
    assert total / weight == pytest.approx(value, rel=1e-6), part
  assert sums['loss'][0] / sums['loss'][1] == pytest.approx(sum(wanted.values()), rel=1e-6)


def test_padding_counts_nothing_and_halves_sum_to_the_whole():
  _, targets = rectangles.drawn(NUMBER)
  outputs = outputs_of()
  whole = sums_of(outputs, targets)
  first = sums_of(outputs, targets, (1, 1, 0, 0, 0, 0))
  rest = sums_of(outputs, targets, (0, 0, 1, 1, 1, 1))
  other = sums_of(
    outputs, {**targets, 'valid': targets['valid'] * np.arange(NUMBER)[:, None]}, (1, 0, 0, 0, 0, 0)
  )
  alone = sums_of(outputs, targets, (1, 0, 0, 0, 0, 0))
  for term, (total, weight) in whole.items():
    assert total == pytest.approx(first[term][0] + rest[term][0], rel=1e-5)
    assert weight == first[term][1] + rest[term][1]
  assert whole['loss'][1] > NUMBER and whole['images'][1] == NUMBER
  assert (other['box_loss'][0], alone['box_loss'][0] > 0) == (0, targets['valid'][0].any())


def test_boxes_that_do_not_count_and_crowds_change_nothing():
  """Of padding, of crowds and of images without boxes nothing is asked but background."""
  outputs, targets = outputs_of(), nothing_there()
  nothing = sums_of(outputs, targets)
  assert nothing['box_loss'][0] == nothing['centre_loss'][0] == 0 and nothing['loss'][1] == NUMBER
  targets['boxes'][0, 0] = 10, 10, 30, 30
  assert sums_of(outputs, targets) == nothing
  targets['valid'][0, 0] = targets['crowd'][0, 0] = 1
  assert sums_of(outputs, targets) == nothing
  targets['crowd'][0, 0] = 0
  assert sums_of(outputs, targets)['box_loss'][0] > 0


def mirrored(boxes):
  across = rectangles.SIDE - boxes[..., 2::-2]
  return np.stack([across[..., 0], boxes[..., 1], across[..., 1], boxes[..., 3]], -1)


def test_mirrored_images_have_mirrored_boxes_and_the_same_loss():
  _, targets = rectangles.drawn(NUMBER)
  outputs = outputs_of()
  x, y, stride = outputs['places'][0].T
  turned = np.lexsort((rectangles.SIDE - x, y, stride))  # where the mirror of each place lies
  other = rows_of(outputs, (slice(None), turned))
  other['places'] = outputs['places']
  other['sides'] = other['sides'][..., [2, 1, 0, 3]]
  boxes = np.where(targets['valid'][..., None] > 0, mirrored(targets['boxes']), 0)
  one = terms_of(outputs, Batch(None, targets, np.ones(NUMBER, np.float32)))
  two = terms_of(other, Batch(None, {**targets, 'boxes': boxes}, np.ones(NUMBER, np.float32)))
  for term in one:
    np.testing.assert_allclose(one[term][0], two[term][0], rtol=1e-5)
  kept, kept_too = jax.device_get((keep_of(outputs), keep_of(other)))
  np.testing.assert_allclose(kept['scores'], kept_too['scores'], rtol=1e-6)
  there = kept['scores'] > 0
  np.testing.assert_allclose(mirrored(kept['boxes'][there]), kept_too['boxes'][there], atol=1e-4)


def test_what_is_kept_is_greedy_suppression_of_all_pairs():
  outputs = outputs_of()
  kept = jax.device_get(keep_of(outputs))
  assert kept['boxes'].shape == (NUMBER, 100, 4) and kept['labels'].dtype == np.int32
  for image in range(2):
    x, y = outputs['places'][image, :, :2].astype(float).T
    left, top, right, bottom = outputs['sides'][image].astype(float).T
    boxes = np.stack([x - left, y - top, x + right, y + bottom], -1)
    shares = 1 / (1 + np.exp(-outputs['logits'][image].astype(float)))
    shares *= 1 / (1 + np.exp(-outputs['centre'][image, :, None].astype(float)))
    chosen: list = []
    for pair in np.argsort(-shares, axis=None):
      place, label = divmod(int(pair), 2)
      rivals = np.array([boxes[a] for a, k in chosen if k == label]).reshape(-1, 4)
      if not (_judged.overlaps(rivals, boxes[place][None]) > 0.6).any():
        chosen.append((place, label))
    assert int((kept['scores'][image] > 0).sum()) == len(chosen) < 100
    places, labels = np.array(chosen).T
    own = rows_of({name: leaf[image] for name, leaf in kept.items()}, slice(len(chosen)))
    assert own['labels'].tolist() == labels.tolist()
    np.testing.assert_allclose(own['boxes'], boxes[places], rtol=1e-5)
    np.testing.assert_allclose(own['scores'], np.sqrt(shares[places, labels]), rtol=1e-5)


def said(targets, shift=0.0):
  """What is kept of a network that finds every box, `shift` pixels to the right."""
  number, most = targets['valid'].shape
  kept = {
    'boxes': np.zeros((number, 100, 4), np.float32),
    'scores': np.zeros((number, 100), np.float32),
    'labels': np.zeros((number, 100), np.int32),
  }
  kept['boxes'][:, :most] = targets['boxes'] + np.float32([shift, 0, shift, 0])
  kept['scores'][:, :most] = targets['valid'] * 0.5
  kept['labels'][:, :most] = targets['labels']
  return kept


SUMS = dict.fromkeys(('loss', 'class_loss', 'box_loss', 'centre_loss', 'images'), (8.0, 8.0))


def test_columns_are_of_the_original_images():
  """Half the size and 6 pixels lower: an image of 96 x 72 in 48 x 48."""
  pytest.importorskip('pycocotools', reason='pip install -r requirements.txt')
  _, targets = rectangles.drawn(8, crowds=True)
  targets['frame'][:] = 0.5, 0, 6, 96, 72
  targets['boxes'][..., 1::2] = targets['boxes'][..., 1::2].clip(6, 42)
  right = TASK.scores(SUMS, said(targets), targets)
  numbers = {name for name, value in right.items() if not isinstance(value, list)}
  assert numbers == set(detection.COLUMNS) and right['count'] == 8
  assert right['AP'] == pytest.approx(1) and right['VOC_AP50'] == pytest.approx(1)
  assert len(right['AP_by_class']) == 2 and right['AP_by_class'] == pytest.approx([1, 1])
  found = _judged.found(said(targets), targets)
  first = np.argmax(targets['valid'].any(1))
  assert found.boxes[0] == pytest.approx((targets['boxes'][first, 0] - [0, 6, 0, 6]) / 0.5)
  wrong = TASK.scores(SUMS, said(targets, shift=30.0), targets)
  assert wrong['AP'] < 0.2 and TASK.scores(SUMS)['loss'] == 1.0


def test_equal_scores_go_by_the_number_of_the_image_in_every_column():
  """Right in the image of the lower number, wrong in the other: 1 where the right one comes first,
  1/2 where it comes last, whatever the order of the rows.
  """
  pytest.importorskip('pycocotools', reason='pip install -r requirements.txt')
  _, targets = rectangles.drawn(2)
  for name in ('valid', 'labels', 'crowd'):
    targets[name][:] = 0
  targets['boxes'][0, 0], targets['valid'][0, 0], targets['area'][0, 0] = (0, 0, 20, 20), 1, 400
  targets['valid'][1, 0] = 1
  kept = said(targets)
  targets['valid'][1, 0] = 0
  kept['boxes'][1, 0] = 5, 5, 20, 20
  for numbers, wanted in (((3, 8), 1.0), ((8, 3), 0.5)):
    targets['image_id'] = np.int32(numbers)
    columns = TASK.scores(SUMS, kept, targets)
    assert (columns['AP50'], columns['VOC_AP50']) == pytest.approx((wanted, wanted))


def test_nothing_found_and_nothing_there_have_stated_answers():
  pytest.importorskip('pycocotools', reason='pip install -r requirements.txt')
  _, targets = rectangles.drawn(4)
  kept = said(targets)
  kept['scores'][:] = 0
  assert TASK.scores(SUMS, kept, targets)['AP'] == 0.0
  empty = {**targets, 'valid': np.zeros_like(targets['valid'])}
  columns = TASK.scores(SUMS, said(targets), empty)
  assert np.isnan(columns['AP']) and np.isnan(columns['VOC_AP50'])
  assert np.isnan(columns['AP_by_class']).all()


def test_places_lie_in_the_middle_of_what_they_see():
  """Of two stages at strides 8 and 16; of one at 16, a simple pyramid at 8, 16 and 32, whose last
  place reaches out of the image.
  """
  fine, coarse = (jnp.ones((1, side, side, 4)) for side in (6, 3))
  for seen, of_seen, levels in (
    ({'a': fine, 'b': coarse}, (8, 16), ((6, 8), (3, 16))),
    ({'b': coarse}, (16,), ((6, 8), (3, 16), (2, 32))),
  ):
    head = _boxes.Boxes(2, tuple(seen), of_seen, size=8)
    init = jax.jit(head.init, static_argnums=2)
    variables = init(jax.random.key(0), {'seen': seen}, False)
    odds = np.log(0.01 / 0.99)  # the focal loss's prior
    np.testing.assert_allclose(variables['params']['class_bias'], odds, rtol=1e-6)
    run = jax.jit(lambda: head.apply(variables, {'seen': seen}, False)['places'])  # noqa: B023
    wanted = []
    for number, stride in levels:
      middles = (np.arange(number) + 0.5) * stride
      wanted += [(x, y, stride) for y in middles for x in middles]
    np.testing.assert_array_equal(run()[0], wanted)


CONVOLUTIONS = cnn.build(2, channels=(2, 2, 2, 2, 2))
PATCHES = convnext.build(2, layers=(1, 1, 1, 1), channels=(2, 2, 2, 2))
TOKENS = vit.build(2, image_size=42, patch=14, dim=8, depth=1, heads=1)


@pytest.mark.parametrize(
  'network, side, levels',
  [
    (CONVOLUTIONS, 320, ((40, 8), (20, 16), (10, 32))),
    (CONVOLUTIONS, 200, ((25, 8), (13, 16), (7, 32))),
    (CONVOLUTIONS, 33, ((5, 8), (3, 16), (2, 32))),
    (efficientnet_lite.build(2, variant='lite0'), 200, ((25, 8), (13, 16), (7, 32))),
    (PATCHES, 200, ((25, 8), (12, 16), (6, 32))),
    (TOKENS, 42, ((6, 7), (3, 14), (2, 28))),
  ],
)
def test_strides_are_those_of_the_network_on_grids_that_do_not_divide_the_image(
  network, side, levels
):
  """Convolutions round grids up where they pad and down where they do not; neither moves a place
  from (i + 1/2) stride.
  """
  shape = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
  whole = backbones.with_head(network, TASK.head, shape)
  made = jax.eval_shape(whole.init, jax.random.key(0), shape)
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), made)
  run = jax.jit(lambda x: whole.apply(zeros, x, train=False)[0]['places'])
  wanted = []
  for number, stride in levels:
    middles = (np.arange(number) + 0.5) * stride
    wanted += [(x, y, stride) for y in middles for x in middles]
  np.testing.assert_array_equal(run(np.zeros(shape.shape, shape.dtype))[0], wanted)


def test_a_coarser_level_lies_over_what_it_was_made_of():
  """Place i over 2 i and 2 i + 1; where the coarser one is cut off, its last goes on."""
  level = jnp.arange(2.0)[None, :, None, None] * jnp.ones((1, 1, 3, 1))
  larger = _boxes._nearest(level, 2, (5, 5))
  np.testing.assert_array_equal(larger[0, :, 0, 0], [0, 0, 1, 1, 1])
  np.testing.assert_array_equal(_boxes._nearest(level, 2, (3, 5))[0, :, 0, 0], [0, 0, 1])


def test_stages_that_are_not_named_are_the_last_of_each_grid():
  small = cnn.build(2, channels=(2, 2, 2, 2))
  stages = backbones.with_head(small, TASK.head, SHAPE).stages
  assert [stage for stage in stages if stage.endswith('_places')] == [
    'block2_places',
    'block3_places',
    'block4_places',
  ]
  shape = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  tokens = vit.build(2, image_size=32, patch=16, dim=8, depth=1, heads=1)
  assert backbones.with_head(tokens, TASK.head, shape).stages[-2:] == ('norm_places', 'head')


def test_another_task_and_another_head_are_errors():
  with pytest.raises(
    ValueError, match="wants a head of kind 'boxes', and head_after names 'linear'"
  ):
    backbones.with_head(cnn.build(2), Head('boxes', 2), SHAPE, 'block1', kind='linear')
  with pytest.raises(ValueError, match="answers the task 'detection' alone"):
    backbones.head_after(cnn.build(2), 'block1', 2, kind='boxes')
  with pytest.raises(ValueError, match='a multiple of 8, got 12'):
    backbones.check_head(kind='boxes', size=12)
  with pytest.raises(ValueError, match='is no stage before the head'):
    backbones.with_head(cnn.build(2), Head('boxes', 2), SHAPE, 'blok1')
  with pytest.raises(ValueError, match='wanted an IoU in'):
    detection.task(2, nms=0.0)
