"""What every data set of this room must satisfy."""

import numpy as np
import pytest

from tlx import datasets
from tlx.plug import available, plug


@pytest.fixture(params=available('datasets'))
def name(request):
  return request.param


def _all(data):
  return [
    *zip(
      (i for split in data[:3] for i in split.ids),
      np.concatenate([s.inputs for s in data[:3]]),
      np.concatenate([s.labels for s in data[:3]]),
    )
  ]


def test_counts_classes_and_ranges(name, data_dir):
  info = datasets.info(name)
  height = plug('datasets', name).IMAGE_SHAPE[0]
  data = datasets.load(name, height, 1, val_fraction=0.25, data_dir=data_dir)
  assert data.class_names == info.class_names
  assert len(data.train.ids) + len(data.val.ids) == info.num_examples['train']
  assert len(data.test.ids) == info.num_examples['test']
  for split in data[:3]:
    assert (
      split.inputs.shape == (len(split.ids), height, height, 1) and split.inputs.dtype == np.uint8
    )
    assert split.labels.shape == (len(split.ids),) and split.labels.dtype == np.int32
    assert set(split.labels) == set(range(len(info.class_names)))
    assert split.inputs.min() == 0 and split.inputs.max() == 255


def test_splits_are_disjoint_and_stratified(name, data_dir):
  data = datasets.load(name, 8, 1, val_fraction=0.25, data_dir=data_dir)
  ids = [i for split in data[:3] for i in split.ids]
  assert len(set(ids)) == len(ids) == sum(datasets.info(name).num_examples.values())
  train, val, test = (np.bincount(split.labels) for split in data[:3])
  np.testing.assert_allclose(val, (train + val) * 0.25, atol=0.51)
  np.testing.assert_allclose(
    test, (train + val + test) * plug('datasets', name).TEST_FRACTION, atol=0.51
  )


def test_images_are_those_of_the_package(name, data_dir):
  images, labels = plug('datasets', name).read()
  for i, image, label in _all(datasets.load(name, images.shape[1], 1, data_dir=data_dir)):
    row = int(i.split('/')[1])
    assert label == labels[row]
    np.testing.assert_array_equal(image, images[row])


def test_same_bytes_when_prepared_anew(name, data_dir, tmp_path):
  first, again = (datasets.load(name, 8, 3, data_dir=folder) for folder in (data_dir, tmp_path))
  assert again.sha256 == first.sha256
  for a, b in zip(first[:3], again[:3]):
    np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.ids == b.ids


def test_sha256_tells_data_apart(data_dir):
  options = [{}, {}, {'val_fraction': 0.3}, {'shift': 'relabel_mod5'}, {'shift': 'invert'}]
  digests = [datasets.load('uci_digits', 8, 1, data_dir=data_dir, **o).sha256 for o in options]
  assert digests[0] == digests[1] and len(set(digests)) == 4


def test_two_processes_preparing_at_once(tmp_path, monkeypatch):
  """The other process is done just when this one has read the file: the copy that is there is used,
  and no rest is left.
  """
  name, digests = 'uci_digits', []
  module = plug('datasets', name)
  read = module.read

  def read_while_another_prepares():
    monkeypatch.setattr(module, 'read', read)
    digests.append(datasets.load(name, 8, 1, data_dir=tmp_path).sha256)
    return read()

  monkeypatch.setattr(module, 'read', read_while_another_prepares)
  assert datasets.load(name, 8, 1, data_dir=tmp_path).sha256 == digests[0]
  assert [file.name for file in (tmp_path / name).iterdir()] == [module.VERSION]


def test_enough_digits_for_80_shots(data_dir):
  data = datasets.load('uci_digits', 8, 1, val_fraction=0.22, data_dir=data_dir)
  assert np.bincount(data.train.labels).min() >= 87
  assert np.bincount(data.test.labels).min() >= 55


def test_uci_digits_against_the_published_file():
  images, labels = plug('datasets', 'uci_digits').read()
  # First row of the first image in optdigits.tes: 0 0 5 13 9 1 0 0, of 16. Class counts as the UCI
  # repository states them.
  np.testing.assert_array_equal(images[0, 0, :, 0], [0, 0, 80, 207, 143, 16, 0, 0])
  np.testing.assert_array_equal(
    np.bincount(labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
  )
