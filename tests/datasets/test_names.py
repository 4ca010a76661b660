"""Names of data sets, what they import, and TFDS names."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tlx import datasets
from tlx.datasets import _vtab


def _run(code, *arguments):
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', code, *map(str, arguments)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr


def test_info_imports_neither_tfds_nor_jax(tmp_path, make_images):
  for name in ('a', 'b'):
    make_images(tmp_path / name, 1)
  _run(
    """if True:
    import sys
    from tlx import datasets
    assert datasets.info('mnist_5k').num_examples == {'train': 4000, 'test': 1000}
    assert datasets.info('folder:' + sys.argv[1]).class_names == ('a', 'b')
    assert not {'tensorflow_datasets', 'jax', 'pandas', 'sklearn', 'mlxtend'} & set(sys.modules)""",
    tmp_path,
  )


def test_load_imports_neither_tensorflow_nor_the_packages(tmp_path):
  _run(
    """if True:
    import sys
    from tlx import datasets
    datasets.load('uci_digits', 8, 1, data_dir=sys.argv[1])
    assert not {'tensorflow', 'sklearn', 'mlxtend'} & set(sys.modules)""",
    tmp_path,
  )


@pytest.mark.parametrize('function', [datasets.info, lambda name: datasets.load(name, 8, 1)])
def test_unknown_names(function):
  with pytest.raises(
    ValueError,
    match=r"Unknown data set 'minst_5k'; have mnist_5k, uci_digits, .*Did you mean 'mnist_5k'",
  ):
    function('minst_5k')
  with pytest.raises(ValueError, match=r"Unknown data set 'cifar_10'.*Did you mean 'cifar10'"):
    function('cifar_10')
  with pytest.raises(
    ValueError, match=r"neither code nor prepared data for 'cifar_10'.*Did you mean 'cifar10'"
  ):
    function('tfds:cifar_10')


def test_wrong_arguments():
  with pytest.raises(ValueError, match=r'channels 4; wanted'):
    datasets.load('mnist_5k', 28, 4)
  with pytest.raises(ValueError, match=r'image_size 0'):
    datasets.load('mnist_5k', 0, 1)


def test_a_bare_name_of_tfds(tmp_path):
  assert len(datasets.info('cifar10', data_dir=tmp_path).class_names) == 10
  assert datasets.info('tfds:cifar10:3.0.2', data_dir=tmp_path) == datasets.info(
    'cifar10', data_dir=tmp_path
  )
  with pytest.raises(ValueError, match=r'Cannot open tfds:cifar10:9.9.9: .*3.0.2'):
    datasets.info('cifar10:9.9.9', data_dir=tmp_path)


class TlxTestShapes(tfds.core.GeneratorBasedBuilder):
  """A data set as TFDS has them: configs, no ids, a validation split and one nobody asked for."""

  code_path = None
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = tuple(
    tfds.core.BuilderConfig(name=name)
    for name in ('whole', 'single', 'unlabelled', 'boxes', 'offline')
  )

  def _info(self):
    is_boxes = self.builder_config.name == 'boxes'
    label = (
      tfds.features.BBoxFeature()
      if is_boxes
      else tfds.features.ClassLabel(names=['round', 'square'])
    )
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {'picture': tfds.features.Image(shape=(None, None, 3)), 'kind': label}
      ),
      supervised_keys=('picture', 'kind'),
    )

  def _split_generators(self, dl_manager):
    if self.builder_config.name == 'offline':
      raise ConnectionError('no network')
    splits = (
      {'test': 40}
      if self.builder_config.name == 'single'
      else {'train': 20, 'validation': 6, 'test': 8, 'extra': 2}
    )
    return {split: self._generate_examples(count) for split, count in splits.items()}

  def _generate_examples(self, count):
    from PIL import Image

    for i in range(count):
      label = -1 if self.builder_config.name == 'unlabelled' else i % 2
      yield i, {'picture': Image.new('RGB', (5, 3 + i % 2), (200 * (i % 2), i, 0)), 'kind': label}


def test_tfds_splits_are_kept(data_dir):
  name = 'tfds:tlx_test_shapes/whole:1.0.0'
  data = datasets.load('tfds:tlx_test_shapes/whole', 4, 3, data_dir=data_dir)
  assert datasets.info(name, data_dir) == (('round', 'square'), {'train': 20, 'val': 6, 'test': 8})
  for split, count, prefix in zip(data, (20, 6, 8), ('train', 'validation', 'test')):
    assert split.ids == tuple(f'{prefix}/{i:06d}' for i in range(count))
    np.testing.assert_array_equal(split.inputs[:, 0, 0, 0] == 200, split.labels == 1)
    assert sorted(split.inputs[:, 0, 0, 1]) == list(range(count))
  assert datasets.load(name, 4, 3, data_dir=data_dir).sha256 == data.sha256


def test_tfds_with_one_split_is_divided(data_dir):
  data = datasets.load(
    'tfds:tlx_test_shapes/single', 4, 3, test_fraction=0.5, val_fraction=0.2, data_dir=data_dir
  )
  assert [np.bincount(split.labels).tolist() for split in data[:3]] == [[8, 8], [2, 2], [10, 10]]
  assert len({i for split in data[:3] for i in split.ids}) == 40


def test_vtab_takes_the_official_slices(data_dir, monkeypatch):
  whole = datasets.load('tfds:tlx_test_shapes/whole', 4, 3, data_dir=data_dir)
  monkeypatch.setitem(_vtab._TASKS, 'shapes', ('tlx_test_shapes/whole', 'train[15:18]', 'test[5:]'))
  monkeypatch.setattr(_vtab, 'TRAIN', 'train[2:12]')
  data = datasets.load('vtab1k:shapes', 4, 3, data_dir=data_dir)
  assert datasets.info('vtab1k:shapes', data_dir).num_examples == {'train': 10, 'val': 3, 'test': 3}
  assert data.val.ids == tuple(f'train/{i:06d}' for i in (15, 16, 17))
  np.testing.assert_array_equal(data.train.inputs, whole.train.inputs[2:12])
  np.testing.assert_array_equal(data.test.labels, whole.test.labels[5:])


def test_vtab_wants_whole_data_sets_and_disjoint_slices(data_dir, monkeypatch):
  monkeypatch.setitem(_vtab._TASKS, 'small', ('tlx_test_shapes/whole', 'train[15:]', 'test'))
  with pytest.raises(
    ValueError,
    match=r'tlx_test_shapes/whole/1.0.0 has no train\[:800\]: .* 20 examples. Prepare the whole',
  ):
    datasets.load('vtab1k:small', 4, 3, data_dir=data_dir)
  monkeypatch.setattr(_vtab, 'TRAIN', 'train')
  monkeypatch.setitem(_vtab._TASKS, 'twice', ('tlx_test_shapes/whole', 'train[15:]', 'test'))
  with pytest.raises(ValueError, match='has 5 examples whose id another has too'):
    datasets.load('vtab1k:twice', 4, 3, data_dir=data_dir)
  with pytest.raises(
    ValueError, match="Unknown VTAB-1k task 'cifar10'; have .* Did you mean 'cifar100'"
  ):
    datasets.info('vtab1k:cifar10')


@pytest.mark.parametrize('task', _vtab.TASKS)
def test_vtab_tasks_are_data_sets_of_tfds(task, tmp_path):
  assert len(datasets.info(f'vtab1k:{task}', tmp_path).class_names) > 1


@pytest.mark.parametrize(
  'config,message',
  [
    ('unlabelled', r'train/000000 of tfds:tlx_test_shapes has no label'),
    ('boxes', r'features picture, kind, .*wanted an Image and a ClassLabel'),
    ('offline', r'Cannot prepare tfds:tlx_test_shapes/offline: ConnectionError: no network'),
    ('nothing', r'Cannot open tfds:tlx_test_shapes/nothing: ValueError'),
  ],
)
def test_unusable_tfds_data(config, message, data_dir):
  with pytest.raises(ValueError, match=message):
    datasets.load(f'tfds:tlx_test_shapes/{config}', 4, 3, data_dir=data_dir)
