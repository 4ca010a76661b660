"""Images with boxes: boxes follow their pixels through whatever is done to an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.datasets import boxes as written
from tlx import datasets, inputs
from tlx.inputs import boxes
from tlx.types import Batch

SIDE = 32


def _batch(sides):
  """One white rectangle on grey an image, in a channel of its own for each."""
  sides = np.asarray(sides, np.float32)  # [B, M, 4]
  images = np.full((len(sides), SIDE, SIDE, 3), 60, np.uint8)
  for image, of_image in zip(images, sides):
    for channel, (x0, y0, x1, y1) in enumerate(of_image.astype(int)):
      image[y0:y1, x0:x1, channel % 3] = 250
  shape = sides.shape[:2]
  targets = {
    'boxes': sides,
    'labels': np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1)),
    'valid': np.ones(shape, np.float32),
    'crowd': np.zeros(shape, np.float32),
    'area': np.ones(shape, np.float32),
    'frame': np.tile(np.float32([1, 0, 0, SIDE, SIDE]), (shape[0], 1)),
    'image_id': np.arange(shape[0], dtype=np.int32),
  }
  return Batch(images, targets, np.ones(shape[0], np.float32))


def _random(number, seed=0):
  random = np.random.default_rng(seed)
  begin = random.integers(0, 20, (number, 2, 2))
  return _batch(np.concatenate([begin, begin + random.integers(6, 12, (number, 2, 2))], -1))


def _found(image):
  """[M, 4]: the rectangle in each of two channels, at half the height of its edges."""
  found = []
  for channel in range(2):
    rows, columns = np.nonzero(np.asarray(image)[..., channel] > 155)
    found.append(
      [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0] * 4
    )
  return np.array(found, float)


def _bound(rows, columns):
  return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize('options', [{'zoom': 0.4}, {'flip': 0.5}, {'zoom': 0.4, 'flip': 0.5}])
def test_boxes_follow_their_pixels(options):
  """Rectangles are found again in the augmented images, where their boxes say."""
  batch = _random(24)
  drawn = boxes.augment(jax.random.key(1), batch, options)
  found, valid = drawn.targets['boxes'], np.asarray(drawn.targets['valid'])
  assert 30 < valid.sum() <= 48 and not np.array_equal(found, batch.targets['boxes'])
  for image, of_image, there in zip(drawn.inputs, found, valid):
    for pixels, box, is_there in zip(_found(image), of_image, there):
      if is_there:
        np.testing.assert_allclose(pixels, box, atol=1.01)


def test_mirrored_twice_is_the_same():
  batch, key = _random(6), jax.random.key(0)
  once = boxes.augment(key, batch, {'flip': 1.0})
  twice = boxes.augment(key, once, {'flip': 1.0})
  np.testing.assert_array_equal(twice.inputs, batch.inputs)
  jax.tree.map(np.testing.assert_array_equal, twice.targets, batch.targets)
  np.testing.assert_array_equal(once.inputs, batch.inputs[:, :, ::-1])
  x0, y0, x1, y1 = batch.targets['boxes'][0, 0]
  assert once.targets['boxes'][0, 0].tolist() == [SIDE - x1, y0, SIDE - x0, y1]


def test_a_box_goes_by_the_rule():
  """Its centre in the square and a fifth of its area to be seen; what stays is cut to that."""
  batch = _batch([[[10, 10, 20, 20], [0, 0, 10, 10], [0, 10, 10, 20], [0, 0, 32, 32]]])

  def moved(by):
    return boxes._targets(batch.targets, lambda sides: sides + np.tile(by, 2), (SIDE, SIDE))

  assert moved([-4.9, 0])['valid'].tolist() == [[1, 1, 1, 1]]
  assert moved([-5.1, 0])['valid'].tolist() == [[1, 0, 0, 1]]  # the centre is out
  assert moved([-4.9, -4.9])['valid'].tolist() == [[1, 1, 1, 1]]
  gone = moved([-5.1, 0])
  np.testing.assert_allclose(gone['boxes'][0, 0], [4.9, 10, 14.9, 20], atol=1e-5)
  np.testing.assert_allclose(gone['boxes'][0, 3], [0, 0, 26.9, 32], atol=1e-5)
  assert not gone['boxes'][0, 1].any()
  # a quarter of a corner is seen at worst where the centre is in, so of a box larger than the
  # square the rule counts
  large = _batch([[[-60, -60, 80, 80], [0, 0, 32, 32]]])
  kept = boxes._targets(large.targets, lambda sides: sides, (SIDE, SIDE))
  assert kept['valid'].tolist() == [[0, 1]]


def test_colour_leaves_boxes_and_greys():
  batch = _random(6)
  drawn = boxes.augment(jax.random.key(3), batch, {'colour': 0.5})
  jax.tree.map(np.testing.assert_array_equal, drawn.targets, batch.targets)
  changed = np.abs(np.asarray(drawn.inputs) - batch.inputs).mean((1, 2, 3))
  assert (changed > 1).all() and np.ptp(changed) > 1
  assert drawn.inputs.min() >= 0 and drawn.inputs.max() <= 255
  grey = batch._replace(inputs=np.full_like(batch.inputs, 100))
  drawn = np.asarray(boxes.augment(jax.random.key(3), grey, {'colour': 0.5}).inputs)
  np.testing.assert_allclose(drawn, drawn[:, :1, :1, :1] + 0 * drawn, rtol=1e-4)


def test_an_image_does_not_depend_on_what_is_asked_of_it():
  """Views are drawn without targets (train/prefix.py), and their targets with them."""
  batch, options = _random(1), {'zoom': 0.5, 'flip': 0.5, 'colour': 0.3}
  blind = batch._replace(targets=jnp.zeros(1, jnp.int32))
  for number in range(5):
    key = jax.random.fold_in(jax.random.key(0), number)
    drawn = boxes.augment(key, blind, options)
    np.testing.assert_array_equal(drawn.inputs, boxes.augment(key, batch, options).inputs)
    assert drawn.targets.shape == (1,)


def test_what_enters_and_what_is_off():
  form = boxes.form(4, 3, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
  stored = np.full((2, 4, 4, 3), 255, np.uint8)
  np.testing.assert_allclose(form.enter(stored)[0, 0, 0], [1.0, 0.75, 0.5], rtol=1e-6)
  assert inputs.stored(form, 2) == jax.ShapeDtypeStruct(stored.shape, stored.dtype)
  batch = _random(2)
  assert form.augment(jax.random.key(0), batch, boxes.AUGMENT) is batch
  options = {'image_size': 4, 'channels': 1, 'mean': (0.1,), 'std': (0.3,)}
  others = [{}, {'image_size': 5}, {'mean': (0.2,)}, {'std': (0.4,)}, {'interpolation': 'nearest'}]
  assert len({boxes.form(**{**options, **other}).name for other in others}) == len(others)


@pytest.mark.parametrize(
  'options, words',
  [({'flop': 1}, "Did you mean 'flip'"), ({'zoom': 1.0}, 'up to 0.9'), ({'mixup': 1}, 'have zoom')],
)
def test_augmentations_that_do_not_fit_are_refused(options, words):
  with pytest.raises(ValueError, match=words):
    boxes.form(8, 1, (0.0,), (1.0,)).check(options)


def test_boxes_of_files_are_where_the_pixels_are(tmp_path):
  """A dark object in images of either shape, through the letterbox and back by its frame."""
  from PIL import Image

  for size in ((61, 40), (40, 61)):
    folder = tmp_path / str(size[0])
    parts = {}
    for part in ('train', 'val', 'test'):
      (folder / part).mkdir(parents=True)
      pixels = np.full((size[1], size[0], 3), 255, np.uint8)
      pixels[20:32, 12:30] = (255, 0, 0)
      Image.fromarray(pixels).save(folder / part / 'a.png')
      parts[part] = {'a': [('cat', 12, 20, 30, 32)]}
      of_another_size = written.xml_of('a', parts[part]['a']).replace('size>', 'was>')
      (folder / part / 'a.xml').write_text(of_another_size)
    fields = {'image_size': 122, 'channels': 3, 'interpolation': 'bilinear'}
    data = boxes.load(f'voc:{folder}', fields, {})
    image, target = data.test.inputs[0].astype(int), data.test.values
    rows, columns = np.nonzero((image[..., 0] > 128) & (image[..., 1] < 128))
    scale, pad_x, pad_y, width, height = target['frame'][0]
    assert (scale, width, height) == (2.0, *size) and {pad_x, pad_y} == {0, 21}
    pixels = _bound(rows, columns)
    np.testing.assert_allclose(target['boxes'][0, 0], pixels, atol=1)
    back = (target['boxes'][0, 0] - np.array([pad_x, pad_y] * 2)) / scale
    np.testing.assert_allclose(back, [12, 20, 30, 32])
    frame = datasets.frame(datasets.size_of(folder / 'test' / 'a.png'), 122)
    np.testing.assert_array_equal(frame, target['frame'][0])
