"""Forms of images: what enters a network, and what may be done to it at random."""

import jax
import numpy as np
import pytest

from tlx import inputs
from tlx.inputs import image
from tlx.types import Batch


def test_what_enters_has_the_shape_and_the_values_it_says():
  form = image.form(4, 3, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
  stored = np.full((2, 4, 4, 3), 255, np.uint8)
  found = form.enter(stored)
  np.testing.assert_allclose(found[0, 0, 0], [1.0, 0.75, 0.5], rtol=1e-6)
  assert inputs.entered(form, 2) == jax.ShapeDtypeStruct(found.shape, found.dtype)
  assert inputs.stored(form, 2) == jax.ShapeDtypeStruct(stored.shape, stored.dtype)


def test_equal_forms_are_one_and_every_option_tells_forms_apart():
  options = {'image_size': 8, 'channels': 1, 'mean': (0.1,), 'std': (0.3,), 'fit': 'squeeze'}
  form = image.form(**options)
  assert image.form(**options) == form and hash(image.form(**options)) == hash(form)
  others = [
    {'image_size': 9},
    {'channels': 3, 'mean': (0.1,) * 3, 'std': (0.3,) * 3},
    {'mean': (0.2,)},
    {'std': (0.4,)},
    {'fit': 'crop'},
    {'crop': 0.9},
    {'interpolation': 'bilinear'},
  ]
  forms = [image.form(**{**options, **other}) for other in others]
  assert len({form.name for form in (form, *forms)}) == len(others) + 1
  assert all(other != form for other in forms)


@pytest.mark.parametrize(
  'options, words',
  [({'flop': 1}, "Did you mean 'flip'"), ({'shift': 9}, 'fewer than an image of 8')],
)
def test_augmentations_that_do_not_fit_are_refused(options, words):
  with pytest.raises(ValueError, match=words):
    image.form(8, 1).check(options)


@pytest.mark.parametrize(
  'share, middles, rows, columns, left',
  [
    (0.9, (5, 0), (4, 6), (0, 1), 0.983333),
    (0.5, (5, 8), (1, 9), (5, 10), 0.666667),
    (0.3, (8, 8), (3, 12), (4, 10), 0.55),
    (0.05, (10, 8), (5, 12), (4, 10), 0.65),
    (0.64, (10, 7), (7, 12), (4, 10), 0.75),
  ],
)
def test_boxes_of_cutmix_are_those_of_timm(share, middles, rows, columns, left):
  """timm 1.0.12, cutmix_bbox_and_lam on images of 12 x 10, also where the box is cut off."""
  box = np.asarray(image._box(share, middles, (12, 10)))
  wanted = np.zeros((12, 10), bool)
  wanted[slice(*rows), slice(*columns)] = True
  np.testing.assert_array_equal(box, wanted)
  assert 1 - box.mean() == pytest.approx(left, abs=1e-6)


def test_cutmix_puts_one_box_of_another_image_into_each():
  images = np.arange(4.0)[:, None, None, None] * np.ones((4, 6, 5, 1), np.float32)
  batch = Batch(images, np.arange(4), np.ones(4))
  mixed = image._cutmix(jax.random.key(3), batch, 1.0)
  targets = mixed.targets
  inside = np.asarray(mixed.inputs)[..., 0] == np.asarray(targets.second)[:, None, None]
  outside = np.asarray(mixed.inputs)[..., 0] == np.arange(4)[:, None, None]
  assert (inside | outside).all() and set(targets.second.tolist()) == {0, 1, 2, 3}
  other = targets.second != np.arange(4)
  np.testing.assert_allclose(outside[other].mean((1, 2)), targets.share[other], rtol=1e-6)
  assert 0 < targets.share[0] < 1
