"""Forms of images: what enters a network, and what may be done to it at random."""

import jax
import numpy as np
import pytest

from tlx import inputs
from tlx.inputs import image


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
