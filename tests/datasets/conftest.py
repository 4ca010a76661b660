"""A data_dir shared by the tests of this folder, so that each data set is prepared once."""

import pytest
from PIL import Image


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


@pytest.fixture
def make_images():
  """make_images(folder, count, mode='RGB', suffix='png', size=(6, 4)) writes plain grey images,
  lighter one by one.
  """

  def make(folder, count, mode='RGB', suffix='png', size=(6, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
      Image.new('L', size, 10 * i).convert(mode).save(folder / f'{i:02d}.{suffix}')

  return make
