import numpy as np
import pytest
from PIL import Image

from tlx import datasets


def _load(path, size=4, channels=3, **options):
  return datasets.load(f'folder:{path}', size, channels, **options)


@pytest.fixture
def undivided(tmp_path, make_images):
  make_images(tmp_path / 'dog', 10)
  make_images(tmp_path / 'cat', 20, suffix='jpg')
  return tmp_path


@pytest.fixture
def divided(tmp_path, make_images):
  for split, count in (('train', 5), ('val', 2), ('test', 3)):
    for name in ('bird', 'ant'):
      make_images(tmp_path / split / name, count)
  return tmp_path


def test_undivided(undivided):
  (undivided / 'cat' / 'notes.txt').write_text('not an image')
  assert datasets.info(f'folder:{undivided}') == (('cat', 'dog'), {'all': 30})
  data = _load(undivided, val_fraction=0.5, test_fraction=0.2)
  assert [np.bincount(split.labels).tolist() for split in data[:3]] == [[8, 4], [8, 4], [4, 2]]
  assert {i for split in data[:3] for i in split.ids} == {
    *(f'cat/{i:02d}.jpg' for i in range(20)),
    *(f'dog/{i:02d}.png' for i in range(10)),
  }
  for split in data[:3]:
    for i, image, label in zip(split.ids, split.inputs, split.labels):
      assert label == ('cat', 'dog').index(i[:3])
      np.testing.assert_allclose(image, 10 * int(i[4:6]), atol=1)  # JPEG rounds


def test_published_splits_are_kept(divided):
  assert datasets.info(f'folder:{divided}') == (('ant', 'bird'), {'train': 10, 'val': 4, 'test': 6})
  data = _load(divided)
  for name, split in zip(('train', 'val', 'test'), data):
    assert len(split.ids) == datasets.info(f'folder:{divided}').num_examples[name]
    assert all(i.startswith(name + '/') for i in split.ids)


def test_val_is_taken_from_train_where_there_is_none(divided):
  (divided / 'val').rename(divided.parent / 'elsewhere')
  data = _load(divided, val_fraction=0.4)
  assert all(i.startswith('train/') for i in data.train.ids + data.val.ids)
  assert [len(split.ids) for split in data[:3]] == [6, 4, 6]


def test_train_may_be_a_class(tmp_path, make_images):
  for name in ('train', 'ship'):
    make_images(tmp_path / name, 4)
  assert datasets.info(f'folder:{tmp_path}').class_names == ('ship', 'train')


@pytest.mark.parametrize(
  'mode,suffix',
  [
    ('RGB', 'png'),
    ('RGBA', 'png'),
    ('L', 'png'),
    ('LA', 'png'),
    ('P', 'png'),
    ('1', 'png'),
    ('CMYK', 'jpg'),
    ('RGB', 'bmp'),
    ('RGB', 'webp'),
    ('P', 'gif'),
    ('RGB', 'JPEG'),
  ],
)
def test_modes_and_formats(tmp_path, make_images, mode, suffix):
  make_images(tmp_path / 'a', 4, mode, suffix)
  make_images(tmp_path / 'b', 4, mode, suffix)
  for channels in (1, 3):
    data = _load(tmp_path, channels=channels)
    assert data.train.inputs.shape[1:] == (4, 4, channels)
    if mode != '1':
      for i, image in zip(data.train.ids, data.train.inputs):
        np.testing.assert_allclose(image, 10 * int(i[2:4]), atol=4)


def test_a_transparent_palette_stands_on_white(tmp_path, make_images):
  for name in ('a', 'b'):
    make_images(tmp_path / name, 4)
  image = Image.new('P', (4, 4), 0)
  image.putpalette([200, 100, 50] * 256)
  image.save(tmp_path / 'a' / 'see_through.png', transparency=bytes(256))
  data = _load(tmp_path)
  found = [
    image for split in data[:3] for i, image in zip(split.ids, split.inputs) if 'see_through' in i
  ]
  np.testing.assert_array_equal(found[0], 255)


def test_the_whole_image_is_squeezed(tmp_path, make_images):
  for name in ('a', 'b'):
    make_images(tmp_path / name, 4)
  wide = np.zeros((2, 8), np.uint8)
  wide[:, 4:] = 200
  Image.fromarray(wide).save(tmp_path / 'a' / 'wide.png')
  data = _load(tmp_path, size=2, channels=1)
  found = [image for split in data[:3] for i, image in zip(split.ids, split.inputs) if 'wide' in i]
  assert np.all(found[0][:, 0] < 20) and np.all(found[0][:, 1] > 180)


def test_resizing_is_antialiased(tmp_path, make_images):
  for name in ('a', 'b'):
    make_images(tmp_path / name, 4)
  stripes = np.zeros((16, 16), np.uint8)
  stripes[:, ::2] = 200
  Image.fromarray(stripes).save(tmp_path / 'a' / 'stripes.png')
  data = _load(tmp_path, size=4, channels=1)
  found = [
    image for split in data[:3] for i, image in zip(split.ids, split.inputs) if 'stripes' in i
  ]
  np.testing.assert_allclose(found[0], 100, atol=15)


@pytest.mark.parametrize(
  'damage', [lambda data: data[: len(data) // 2], lambda data: b'', lambda data: b'hello']
)
def test_damaged_image(undivided, damage):
  file = undivided / 'cat' / '07.jpg'
  file.write_bytes(damage(file.read_bytes()))
  with pytest.raises(
    ValueError,
    match=r'Cannot read 1 of the 30 images of folder:.*:\n  cat/07.jpg: .*\nRepair or remove',
  ):
    _load(undivided)


def test_wrong_folders(tmp_path, undivided):
  with pytest.raises(ValueError, match=r'nowhere is not one. Check the path'):
    datasets.info(f'folder:{tmp_path}/nowhere')
  (undivided / 'empty').mkdir()
  with pytest.raises(ValueError, match=r'Class folder .*empty holds no image'):
    datasets.info(f'folder:{undivided}')
  with pytest.raises(ValueError, match=r'empty holds no class folder'):
    datasets.info(f'folder:{undivided}/empty')


def test_wrong_splits(divided, make_images):
  make_images(divided / 'train' / 'cow', 2)
  with pytest.raises(ValueError, match=r'Split (val|test)/ of .* lacks the classes cow'):
    datasets.info(f'folder:{divided}')
  make_images(divided / 'more' / 'cow', 2)
  with pytest.raises(ValueError, match=r'holds test/, train/, val/ and also more'):
    datasets.info(f'folder:{divided}')


def test_names_of_parts(divided):
  wanted = _load(divided)
  for name, other in (('train', 'Training'), ('val', 'VALID'), ('test', 'Test')):
    (divided / name).rename(divided / other)
  data = _load(divided)
  assert data.class_names == ('ant', 'bird')
  for split, before in zip(data[:3], wanted[:3]):
    np.testing.assert_array_equal(split.inputs, before.inputs)
  (divided / 'Training').rename(divided / 'dev')
  with pytest.raises(ValueError, match=r'holds the parts Test, VALID, dev. Want train/'):
    _load(divided)
  (divided / 'dev').rename(divided / 'val')
  (divided / 'VALID').rename(divided / 'train')
  (divided / 'testing').mkdir()
  with pytest.raises(
    ValueError, match=r'holds the parts Test, testing, train, val. Want train/.* one test/'
  ):
    _load(divided)


def test_parts_below_classes_are_refused(undivided):
  (undivided / 'cat' / 'Test').mkdir()
  (undivided / 'cat' / '00.jpg').rename(undivided / 'cat' / 'Test' / '00.jpg')
  with pytest.raises(
    ValueError,
    match=r'Class folder .*cat holds Test. Parts go above classes: PATH/\{train,val,test\}/<class>',
  ):
    _load(undivided)


def test_classes_too_small_to_divide(tmp_path, make_images):
  make_images(tmp_path / 'a', 9)
  make_images(tmp_path / 'b', 1)
  with pytest.raises(ValueError, match=r"Holding out 0.3 of class 'b' takes 0 of its 1 examples"):
    _load(tmp_path)
