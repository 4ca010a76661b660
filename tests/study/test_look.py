"""What is said of data before a study runs on it is what is there."""

import io

import numpy as np
import pytest
from PIL import Image

from configs import imagenet_to_folder
from tests.study import test_texts
from tlx.study import look, pair


@pytest.fixture
def folder(tmp_path):
  """Two classes, 30 and 8 images of 6 x 9 pixels, one of them in training and test."""
  random = np.random.default_rng(0)
  for part, sizes in {'train': (30, 8), 'test': (25, 4)}.items():
    for name, size in zip(('cat', 'dog'), sizes):
      place = tmp_path / part / name
      place.mkdir(parents=True)
      for number in range(size):
        pixels = random.integers(0, 255, (9, 6), np.uint8)
        Image.fromarray(pixels).save(place / f'{number:02d}.png')
  copied = (tmp_path / 'train' / 'cat' / '00.png').read_bytes()
  (tmp_path / 'test' / 'cat' / '00.png').write_bytes(copied)
  return tmp_path


def config_of(folder):
  made = imagenet_to_folder.get_config(f'folder:{folder}')
  made.sources.imagenet = {
    'backbone': {'name': 'mlp', 'widths': (4,)},
    'dataset': f'folder:{folder}',
    'input': {'image_size': 8, 'channels': 3, 'mean': (0.5,) * 3, 'std': (0.2,) * 3},
    'train': {'learning_rate': 1e-3},
  }
  made.methods = {'full': {'init': 'random'}}
  made.baseline = ''
  made.shots = (5,)
  made.train.augment = {}
  return made


def _again(folder, source, target, times):
  """An image of the folder once more, brighter or darker."""
  pixels = np.asarray(Image.open(folder / source)) * times
  Image.fromarray(pixels.astype(np.uint8)).save(folder / target)


def test_near_copies_are_named_across_parts_and_of_the_source(folder):
  _again(folder, 'train/dog/07.png', 'test/dog/darker.png', 0.7)
  made = config_of(folder)
  # a source that is trained on the test images, each a little darker
  other = folder.parent / 'source'
  for name in ('cat', 'dog'):
    place = other / name
    place.mkdir(parents=True)
    for number in range(20):
      pixels = np.random.default_rng(number).integers(0, 255, (9, 6), np.uint8)
      Image.fromarray(pixels).save(place / f'{name}{number}.png')
  for number in range(1, 4):
    _again(folder, f'test/dog/0{number}.png', f'../source/dog/dog{number}.png', 0.8)
  made.sources.imagenet.dataset = f'folder:{other}'
  said = look.look(made)['imagenet/images'].text
  assert 'test/dog/darker.png is like train/dog/07.png' in said
  assert 'test images of the target are nearly among those that the source was trained on' in said


def test_an_image_replaced_since_an_earlier_study_is_looked_at_anew(folder):
  made = config_of(folder)
  assert 'is like' not in look.look(made)['imagenet/images'].text
  _again(folder, 'train/dog/07.png', 'test/dog/00.png', 0.7)
  pair.forget()
  said = look.look(made)['imagenet/images'].text
  assert 'test/dog/00.png is like train/dog/07.png' in said


def test_what_is_said_of_images(folder):
  found = look.look(config_of(folder))['imagenet/images']
  lines = found.text.splitlines()
  assert lines[2].split() == ['train', '29', '2', '6', '14', '23']  # 22% of each class validate
  assert lines[4].split() == ['test', '29', '2', '4', '14', '25']
  assert 'files: PNG; modes L; shorter sides 6 to 6 pixels, median 6 (of 67 files)' in found.text
  for said in (
    'Half of the files are smaller than image_size = 8',
    'All files are grey',
    '1 of 29 test images are also in',
    'cat has 23 training examples, dog 6',
    '1 of 2 classes have fewer than 20 test examples, as dog',
    'dog has 6 training examples: the subsets of 5',
    'known to 10.9 points either way',  # 1.96 sqrt(.9 x .1 / 29)
    'targets.images.group',
  ):
    assert said in found.text, said
  with Image.open(io.BytesIO(found.sheet)) as sheet:
    assert sheet.width > 400


def test_what_is_said_of_texts(tmp_path):
  found = look.look(test_texts.get_config(tmp_path))['topics/new']
  assert 'Texts are stored as 32 tokens' in found.text and found.sheet == b''
  assert 'files:' not in found.text


def test_near_copies_are_looked_for_once(folder, tmp_path_factory, monkeypatch):
  cache = tmp_path_factory.mktemp('cache')
  monkeypatch.setenv('TLX_CACHE', str(cache))
  _again(folder, 'train/dog/07.png', 'test/dog/darker.png', 0.7)
  made, looks, prints_of = config_of(folder), [], pair.prints_of

  def counted(*arguments):
    looks.append(arguments)
    return prints_of(*arguments)

  monkeypatch.setattr(pair, 'prints_of', counted)
  first = look.look(made)['imagenet/images'].text
  assert 'test/dog/darker.png is like train/dog/07.png' in first and looks
  looks.clear()
  assert look.look(made)['imagenet/images'].text == first and not looks
  for note in (cache / 'looked').iterdir():
    note.write_text('damaged')
  assert look.look(made)['imagenet/images'].text == first and looks
