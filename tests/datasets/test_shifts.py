import numpy as np
import pytest

from tlx import datasets
from tlx.datasets import _shifts

INPUTS = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
LABELS = np.array([3, 9], np.int32)


def _shift(name):
  return [change(array) for change, array in zip(_shifts.SHIFTS[name], (INPUTS, LABELS))]


@pytest.mark.parametrize('name', _shifts.SHIFTS)
def test_shape_and_type_stay(name):
  before = INPUTS.copy()
  inputs, labels = _shift(name)
  assert inputs.shape == INPUTS.shape and inputs.dtype == np.uint8 and inputs.flags.c_contiguous
  assert labels.shape == LABELS.shape and labels.dtype == np.int32
  np.testing.assert_array_equal(INPUTS, before)  # not changed in place
  np.testing.assert_array_equal(labels, LABELS % 5 if name == 'relabel_mod5' else LABELS)
  assert np.array_equal(inputs, INPUTS) == (name in ('none', 'relabel_mod5'))


def test_translate():
  moved, _ = _shift('translate_2px')
  assert not moved[:, :2].any() and not moved[:, :, :2].any()
  np.testing.assert_array_equal(moved[:, 3, 2], INPUTS[:, 1, 0])


def test_rotate():
  turned, _ = _shift('rotate_90')
  np.testing.assert_array_equal(
    turned[:, 0, 0], INPUTS[:, 0, 3]
  )  # the top right corner comes to the top left


def test_invert():
  np.testing.assert_array_equal(_shift('invert')[0].astype(int) + INPUTS, 255)


def test_permute_moves_whole_pixels_alike_in_every_image():
  mixed, _ = _shift('permute_pixels')
  first, second = (image.reshape(16, 3).astype(int) for image in mixed)
  np.testing.assert_array_equal(first + 48, second)
  assert sorted(map(tuple, first)) == sorted(map(tuple, INPUTS[0].reshape(16, 3).astype(int)))
  np.testing.assert_array_equal(mixed, _shift('permute_pixels')[0])


def test_load_shifts_every_split_and_the_class_names(data_dir):
  plain, merged, inverted = (
    datasets.load('uci_digits', 8, 1, shift=shift, data_dir=data_dir)
    for shift in ('none', 'relabel_mod5', 'invert')
  )
  assert merged.class_names == ('0/5', '1/6', '2/7', '3/8', '4/9')
  assert merged.class_names == datasets.info('uci_digits', shift='relabel_mod5').class_names
  for a, b, c in zip(plain[:3], merged[:3], inverted[:3]):
    assert a.ids == b.ids == c.ids
    np.testing.assert_array_equal(b.labels, a.labels % 5)
    np.testing.assert_array_equal(c.inputs, 255 - a.inputs)


def test_wrong_shifts(data_dir):
  with pytest.raises(
    ValueError, match=r"Unknown shift 'inverted'; have none, .*Did you mean 'invert'"
  ):
    datasets.load('uci_digits', 8, 1, shift='inverted', data_dir=data_dir)
  with pytest.raises(ValueError, match=r"Unknown shift 'rotate'"):
    datasets.info('uci_digits', shift='rotate')
  with pytest.raises(ValueError, match=r'changes nothing with 2 classes'):
    _shifts.class_names('relabel_mod5', ('cat', 'dog'))
