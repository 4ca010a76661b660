"""What images are made into, and what that takes."""

import inspect
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tlx import datasets
from tlx.datasets import _images
from tlx.datasets._types import Form
from tlx.plug import available, plug

RANDOM = np.random.default_rng(0)


def _decode(image, size, channels=3, interpolation='nearest', fit='crop', crop=1.0):
  file = io.BytesIO()
  image.save(file, 'png')
  return _images.decode(file.getvalue(), Form(size, channels, interpolation, fit, crop))


def _image(width, height):
  return Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), np.uint8))


# Worked out by hand from timm (size / crop down) and torchvision (longer side down, half margins to
# even).
@pytest.mark.parametrize(
  'width,height,size,crop,resized,left,top',
  [
    (10, 7, 4, 0.8, (7, 5), 2, 0),  # margins 3 and 1: 1.5 -> 2, 0.5 -> 0
    (7, 10, 4, 0.8, (5, 7), 0, 2),
    (10, 7, 5, 0.875, (7, 5), 1, 0),  # 5.71 -> 5
    (12, 5, 5, 1.0, (12, 5), 4, 0),  # margin 7: 3.5 -> 4
    (10, 5, 5, 1.0, (10, 5), 2, 0),  # margin 5: 2.5 -> 2
    (3, 2, 8, 1.0, (12, 8), 2, 0),  # enlarged
    (500, 375, 224, 0.875, (341, 256), 58, 16),  # 341.33 -> 341; margin 117: 58.5 -> 58
    (375, 500, 224, 0.9, (248, 330), 12, 53),  # 248.9 -> 248, 330.67 -> 330
  ],
)
@pytest.mark.parametrize('interpolation', ['nearest', 'bilinear', 'bicubic', 'lanczos'])
def test_crop(width, height, size, crop, resized, left, top, interpolation):
  image = _image(width, height)
  wanted = np.asarray(image.resize(resized, Image.Resampling[interpolation.upper()]))[
    top : top + size, left : left + size
  ]
  np.testing.assert_array_equal(
    _decode(image, size, interpolation=interpolation, crop=crop), wanted
  )


def test_squeeze_takes_the_centre_of_the_whole_image():
  image = _image(9, 5)
  wanted = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC))
  np.testing.assert_array_equal(_decode(image, 8, interpolation='bicubic', fit='squeeze'), wanted)
  np.testing.assert_array_equal(
    _decode(image, 6, interpolation='bicubic', fit='squeeze', crop=0.75), wanted[1:7, 1:7]
  )


@pytest.mark.parametrize('width,height,before,after', [(8, 3, 2, 3), (8, 5, 1, 2), (16, 1, 3, 4)])
def test_pad(width, height, before, after):
  """face-api: the greater half of the padding comes after the image."""
  image = Image.new('RGB', (width, height), (200, 100, 50))
  wide = _decode(image, 8, fit='pad')
  assert not wide[:before].any() and not wide[8 - after :].any()
  np.testing.assert_array_equal(
    wide[before : 8 - after], np.broadcast_to([200, 100, 50], (8 - before - after, 8, 3))
  )
  high = _decode(image.transpose(Image.Transpose.TRANSPOSE), 8, fit='pad')
  np.testing.assert_array_equal(high, wide.transpose(1, 0, 2))


def test_pad_of_a_line_keeps_a_pixel():
  assert _decode(Image.new('L', (400, 1), 255), 8, channels=1, fit='pad').max() == 255


@pytest.mark.parametrize('fit', _images.FITS)
def test_grey_is_the_luma_of_the_colours(fit):
  image = _image(9, 5)
  grey = _decode(image, 4, channels=1, interpolation='bilinear', fit=fit)
  np.testing.assert_array_equal(
    grey, _decode(image.convert('L'), 4, channels=1, interpolation='bilinear', fit=fit)
  )
  np.testing.assert_array_equal(
    _decode(image.convert('L'), 4, 3, 'bilinear', fit), np.repeat(grey, 3, axis=-1)
  )


def test_load_passes_the_form_on(tmp_path):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    for i in range(4):
      _image(10, 7).save(tmp_path / name / f'{i}.png')
  options = {'interpolation': 'lanczos', 'fit': 'crop', 'crop': 0.8}
  data = datasets.load(f'folder:{tmp_path}', 4, 3, **options)
  for i, image in zip(data.train.ids, data.train.inputs):
    np.testing.assert_array_equal(image, _decode(Image.open(tmp_path / i), 4, **options))


@pytest.mark.parametrize(
  'wrong,message',
  [
    (
      {'interpolation': 'bicubik'},
      r"Unknown interpolation 'bicubik'; have nearest, .* Did you mean 'bicubic'",
    ),
    ({'fit': 'padd'}, r"Unknown fit 'padd'; have squeeze, crop, pad. Did you mean 'pad'"),
    ({'crop': 0.0}, r'crop 0.0; wanted .* above 0 and at most 1'),
    ({'crop': 87.5}, r'crop 87.5; wanted'),
    ({'fit': 'pad', 'crop': 0.875}, r"crop 0.875 with fit 'pad', which keeps the whole image"),
    ({'channels': 4}, r'channels 4; wanted'),
    ({'image_size': 0}, r'image_size 0'),
  ],
)
def test_wrong_forms_are_named_before_data_are_read(wrong, message):
  arguments = {'image_size': 8, 'channels': 3} | wrong
  with pytest.raises(ValueError, match=message):
    datasets.check(**arguments)
  with pytest.raises(ValueError, match=message):
    datasets.load('folder:/nowhere', **arguments)


OF_IMAGES = [
  name
  for name in available('backbones')
  if hasattr(plug('backbones', name), 'input_spec') and not hasattr(plug('backbones', name), 'FORM')
]


@pytest.mark.parametrize('name', OF_IMAGES)
def test_every_backbone_tells_the_whole_form(name):
  spec = plug('backbones', name).input_spec()
  form = {field: value for field, value in spec.items() if field not in ('mean', 'std')}
  assert set(form) == set(inspect.signature(datasets.check).parameters)
  datasets.check(**form)
  assert len(spec['mean']) == len(spec['std']) == spec['channels'] == 3
  assert type(spec['image_size']) is int
  assert spec['fit'] == {'bit': 'squeeze', 'face_resnet': 'pad'}.get(name, 'crop')


@pytest.mark.parametrize('shift', ['none', 'rotate_90'])
def test_the_decoded_array_exists_once(tmp_path, make_images, monkeypatch, shift):
  monkeypatch.setattr(_images, '_CHUNK', 4)
  monkeypatch.setattr(_images, '_TASK', 2)
  for name in ('a', 'b'):
    make_images(tmp_path / name, 20)
  image_bytes = 300 * 300 * 3
  tracemalloc.start()
  data = datasets.load(f'folder:{tmp_path}', 300, 3, shift=shift)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert sum(split.inputs.nbytes for split in data[:3]) == 40 * image_bytes
  assert all(split.inputs.base is None for split in data[:3])  # no view that keeps more alive
  assert peak < (40 + 7) * image_bytes  # a chunk, and an image in each thread
