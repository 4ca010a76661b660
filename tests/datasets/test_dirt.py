"""Folders and tables as people have them: photographs from phones, other formats, damaged files,
files that are no images.
"""

import io
import os
import sys
import types

import numpy as np
import pytest
from etils import epath
from PIL import Image

from tlx import datasets
from tlx.datasets import _images
from tlx.datasets._types import Form

RANDOM = np.random.default_rng(0)
CORNERS = np.array(
  [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8
)  # red green / blue white


@pytest.fixture
def folder(tmp_path):
  """Two classes of ten images each, no two alike."""
  root = tmp_path / 'images'
  for name in ('cat', 'dog'):
    (root / name).mkdir(parents=True)
    for i in range(10):
      _noise().save(root / name / f'{i}.png')
  return root


def _noise(size=(6, 4), mode='RGB'):
  return Image.fromarray(RANDOM.integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)


def _load(root, size=4, channels=3, **options):
  return datasets.load(f'folder:{root}', size, channels, **options)


def _of(data, name):
  """The image with this id."""
  for split in data[:3]:
    if name in split.ids:
      return split.inputs[split.ids.index(name)]
  raise KeyError(name)


def _ids(data):
  return sorted(name for split in data[:3] for name in split.ids)


@pytest.mark.parametrize(
  'suffix,kind',
  [
    ('tif', 'TIFF'),
    ('TIFF', 'TIFF'),
    ('jfif', 'JPEG'),
    ('jpe', 'JPEG'),
    ('JPG', 'JPEG'),
    ('ppm', 'PPM'),
    ('pgm', 'PPM'),
    ('pnm', 'PPM'),
    ('pbm', 'PPM'),
    ('jp2', 'JPEG2000'),
    ('avif', 'AVIF'),
    ('webp', 'WEBP'),
  ],
)
def test_formats_are_read(folder, suffix, kind):
  mode = {'pgm': 'L', 'pbm': '1'}.get(suffix, 'RGB')
  Image.new('L', (40, 40), 255).convert(mode).save(folder / 'cat' / f'new.{suffix}', kind)
  data = _load(folder)
  assert len(_ids(data)) == datasets.info(f'folder:{folder}').num_examples['all'] == 21
  np.testing.assert_allclose(_of(data, f'cat/new.{suffix}'), 255, atol=3)
  assert not data.notes


def test_nested_folders_are_read(folder):
  for path in ('cat/2019/rome/a.png', 'cat/2019/b.png', 'dog/new pictures/a.png'):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    _noise().save(folder / path)
  data = _load(folder)
  assert {'cat/2019/rome/a.png', 'cat/2019/b.png', 'dog/new pictures/a.png'} < set(_ids(data))
  assert data.class_names == ('cat', 'dog')
  labels = {name: label for split in data[:3] for name, label in zip(split.ids, split.labels)}
  assert all(data.class_names[label] == name[:3] for name, label in labels.items())


def test_nested_folders_within_splits(tmp_path):
  for split in ('train', 'val', 'test'):
    for name in ('cat', 'dog'):
      (tmp_path / split / name / 'inner').mkdir(parents=True)
      for i in range(3):
        _noise().save(tmp_path / split / name / 'inner' / f'{i}.png')
  assert datasets.info(f'folder:{tmp_path}') == (('cat', 'dog'), {'test': 6, 'train': 6, 'val': 6})
  assert all(name.startswith('val/') for name in _load(tmp_path).val.ids)


def test_what_is_no_image_is_named(folder):
  before = _load(folder)
  for path in (
    'cat/Thumbs.db',
    'cat/notes.txt',
    'dog/.DS_Store',
    'dog/._1.jpg',
    'README.md',
    'cat/.thumbnails/0.png',
    'stray.png',
    '.git/config',
  ):
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(b'?')
  data = _load(folder)
  assert data.sha256 == before.sha256
  (note,) = data.notes
  assert note == (
    "8 of the folder's files are not read as images: .git, README.md, cat/.thumbnails, "
    'cat/Thumbs.db, cat/notes.txt '
    'and 3 more.'
  )


def test_links_to_folders_are_named_and_not_entered(folder):
  os.symlink(folder, folder / 'cat' / 'loop')
  (note,) = _load(folder).notes
  assert 'cat/loop' in note


def _damage(folder):
  """Eight images that cannot be read, and what each error should say."""
  photograph = io.BytesIO()
  _noise((640, 480)).save(photograph, 'JPEG')
  Image.fromarray(np.ones((3, 3), np.float32)).save(folder / 'dog' / 'float.tif')
  Image.fromarray(np.ones((3, 3), np.int32)).save(folder / 'dog' / 'whole.tif')
  os.mkfifo(folder / 'dog' / 'pipe.png')
  os.symlink('nowhere.png', folder / 'dog' / 'link.png')
  files = {
    'cat/empty.jpg': (b'', 'it is empty'),
    'cat/half.jpg': (photograph.getvalue()[:3000], 'truncated'),
    'cat/text.png': (b'hello', 'no image of a known kind'),
    'cat/IMG_1.HEIC': (b'\0' * 99, 'convert it to JPEG'),
    'cat/renamed.jpg': (b'\0\0\0\x18ftypheic' + b'\0' * 99, 'it is HEIC'),
    'cat/raw.dng': ((folder / 'dog' / '0.png').read_bytes(), '.dng files are not read'),
  }
  for name, (data, _) in files.items():
    (folder / name).write_bytes(data)
  return {name: words for name, (_, words) in files.items()} | {
    'dog/float.tif': 'pixels of mode F',
    'dog/whole.tif': 'pixels of mode I,',
    'dog/pipe.png': 'it is no file',
    'dog/link.png': 'it is no file',
  }


def test_heic_is_read_where_its_reader_is(monkeypatch, tmp_path):
  """pillow-heif makes Pillow read it; here a stand-in, and what Pillow reads anyway."""
  told = []
  reader = types.SimpleNamespace(register_heif_opener=lambda: told.append(1))
  monkeypatch.setitem(sys.modules, 'pillow_heif', reader)
  _images._reads_heif.cache_clear()
  Image.new('RGB', (4, 4), (1, 2, 3)).save(tmp_path / 'x.png')
  file = epath.Path((tmp_path / 'x.png').rename(tmp_path / 'IMG_1.HEIC'))
  image = _images.decode(file, Form(4, 3, 'bicubic', 'squeeze', 1.0))
  assert told == [1] and (image == [1, 2, 3]).all()
  _images._reads_heif.cache_clear()


def test_of_a_pdf_the_first_page_is_read(tmp_path):
  pytest.importorskip('pypdfium2', reason="pip install 'tlx-jax[pdf]'")
  pages = [Image.new('L', (85, 110), grey) for grey in (100, 200)]
  pages[0].save(tmp_path / 'x.PDF', save_all=True, append_images=pages[1:], resolution=100)
  file = epath.Path(tmp_path / 'x.PDF')
  assert _images.raw(file) == _images.Raw((128, 165), 'RGB', 'PDF', 2)
  image = _images.decode(file, Form(4, 1, 'bicubic', 'squeeze', 1.0))
  assert abs(image.astype(int) - 100).max() <= 2
  for data in (file.read_bytes()[:300], b'%PDF-'):
    file.write_bytes(data)
    with pytest.raises(ValueError, match='a PDF that cannot be read'):
      _images.decode(file, Form(4, 1, 'bicubic', 'squeeze', 1.0))
    assert _images.raw(file) is None


def test_without_its_reader_a_pdf_says_how_it_is_read(monkeypatch, tmp_path):
  monkeypatch.setattr(_images, '_reads_pdf', lambda: False)
  (tmp_path / 'x.pdf').write_bytes(b'%PDF-1.4')
  for file in (epath.Path(tmp_path / 'x.pdf'), b'%PDF-1.4'):
    with pytest.raises(ValueError, match=r'not read; pip install .tlx-jax\[pdf\]'):
      _images.decode(file, Form(4, 1, 'bicubic', 'squeeze', 1.0))


def test_all_bad_images_are_in_one_error(folder):
  wanted = _damage(folder)
  with pytest.raises(ValueError, match=r'Cannot read 10 of the 30 images of folder:') as caught:
    _load(folder)
  lines = str(caught.value).splitlines()
  assert lines[-1] == 'Repair or remove them, or leave them out: skip_bad = True in the target.'
  found = dict(line.strip().split(': ', 1) for line in lines[1:-1])
  assert found.keys() == wanted.keys()
  for name, words in wanted.items():
    assert words in found[name]


def test_skipped_images_are_as_if_they_were_not_there(folder):
  before = _load(folder)
  _damage(folder)
  data = _load(folder, skip_bad=True)
  assert data.sha256 == before.sha256 and not before.notes
  (note,) = data.notes
  assert note.startswith('10 of 30 images cannot be read and are left out: ') and note.endswith(
    ' and 5 more.'
  )
  assert 'cat/empty.jpg: it is empty' in _load(folder, skip_bad=True, val_examples=2).notes[0]


def test_a_class_of_bad_images_is_not_skipped(folder):
  for file in (folder / 'cat').iterdir():
    file.write_bytes(b'')
  with pytest.raises(
    ValueError, match=r'No image of the classes cat in all of folder:.* can be read'
  ):
    _load(folder, skip_bad=True)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP', 'AVIF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation(folder, kind, orientation):
  """The letter F as EXIF's orientations store it, against the standard's table (row 0 is the visual
  ..., column 0 the visual ...).
  """
  image = np.kron(CORNERS, np.ones((16, 24, 1), np.uint8))
  stored = {
    1: image,
    2: image[:, ::-1],
    3: image[::-1, ::-1],
    4: image[::-1],
    5: image.swapaxes(0, 1),
    6: np.rot90(image, 1),
    7: image.swapaxes(0, 1)[::-1, ::-1],
    8: np.rot90(image, -1),
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  file = folder / 'cat' / f'turned.{kind.lower()}'
  Image.fromarray(stored).save(file, kind, exif=exif.tobytes(), quality=100)
  np.testing.assert_allclose(
    _of(_load(folder, size=2), f'cat/{file.name}').astype(int), CORNERS, atol=60
  )


def test_damaged_exif_is_no_reason(folder):
  _noise().save(folder / 'cat' / 'odd.jpg', exif=b'Exif\0\0MM\0*\0\0\0\x08\0\xff' + b'\xff' * 40)
  assert 'cat/odd.jpg' in _ids(_load(folder))


@pytest.mark.parametrize('suffix', ['png', 'tif', 'pgm'])
def test_sixteen_bits_are_scaled(folder, suffix):
  values = np.array([[0, 257, 128 * 257, 65535], [256, 300, 40000, 65278]], np.uint16)
  file = folder / 'cat' / f'deep.{suffix}'
  if suffix == 'pgm':
    file.write_bytes(b'P5 4 2 65535\n' + values.astype('>u2').tobytes())
  else:
    Image.fromarray(values).save(file)
  found = datasets.load(f'folder:{folder}', 2, 1, fit='crop')  # the middle columns
  np.testing.assert_array_equal(_of(found, f'cat/deep.{suffix}')[..., 0], [[1, 128], [1, 156]])


def test_transparency_stands_on_white(folder):
  seen = {
    'rgba.png': Image.new('RGBA', (4, 4), (0, 0, 0, 0)),
    'half.png': Image.new('RGBA', (4, 4), (200, 100, 0, 51)),
    'grey.png': Image.new('LA', (4, 4), (10, 0)),
    'palette.png': Image.new('RGBA', (4, 4), (0, 0, 0, 0)).quantize(),
    'solid.png': Image.new('RGBA', (4, 4), (200, 100, 50, 255)),
  }
  for name, image in seen.items():
    image.save(folder / 'cat' / name)
  Image.new('RGB', (4, 4), (1, 2, 3)).save(folder / 'cat' / 'key.png', transparency=(1, 2, 3))
  Image.new('L', (4, 4), 7).save(folder / 'cat' / 'greykey.png', transparency=7)
  Image.fromarray(np.full((4, 4), 700, np.uint16)).save(
    folder / 'cat' / 'deepkey.png', transparency=700
  )
  Image.new('RGBA', (4, 4), (9, 9, 9, 0)).save(
    folder / 'cat' / 'clear.webp', lossless=True, exact=True
  )
  data = _load(folder)
  for name in (
    'rgba.png',
    'grey.png',
    'palette.png',
    'key.png',
    'greykey.png',
    'deepkey.png',
    'clear.webp',
  ):
    np.testing.assert_array_equal(_of(data, f'cat/{name}'), 255, err_msg=name)
  np.testing.assert_allclose(
    _of(data, 'cat/half.png')[0, 0], [244, 224, 204], atol=1
  )  # a fifth of it, four fifths white
  np.testing.assert_array_equal(_of(data, 'cat/solid.png')[0, 0], [200, 100, 50])
  assert (_of(_load(folder, channels=1), 'cat/rgba.png') == 255).all()


def test_lab_and_cmyk_become_rgb(folder):
  """sRGB's red is L 54.3, a 80.8, b 69.9 under D50; TIFF stores L of 255 and a, b with a sign."""
  Image.new('LAB', (4, 4), (138, 209, 198)).save(folder / 'cat' / 'lab.tif')
  Image.new('CMYK', (4, 4), (0, 255, 255, 0)).save(folder / 'cat' / 'cmyk.tif')
  data = _load(folder)
  np.testing.assert_allclose(_of(data, 'cat/lab.tif')[0, 0], [255, 0, 0], atol=6)
  np.testing.assert_array_equal(_of(data, 'cat/cmyk.tif')[0, 0], [255, 0, 0])


def test_names_that_are_no_unicode(folder):
  os.rename(folder / 'cat' / '0.png', os.fsencode(folder / 'cat') + b'/caf\xe9.png')
  assert r'cat/caf\xe9.png' in _ids(_load(folder))


def test_one_class_is_refused(folder):
  (folder / 'cat').rename(folder.parent / 'elsewhere')
  for function in (datasets.info, lambda name: datasets.load(name, 4, 3)):
    with pytest.raises(
      ValueError, match=r'folder:.*images has the classes dog; there is nothing to tell apart'
    ):
      function(f'folder:{folder}')


def test_class_names_in_natural_order(folder):
  for name in ('class10', 'class9', 'Class11'):
    (folder / name).mkdir()
    _noise().save(folder / name / 'a.png')
  table = ''.join(
    f'{file.relative_to(folder)},{file.parent.name}\n' for file in sorted(folder.glob('*/*'))
  )
  (folder / 'labels.csv').write_text('image,label\n' + table)
  wanted = ('Class11', 'cat', 'class9', 'class10', 'dog')
  assert (
    datasets.info(f'folder:{folder}').class_names
    == datasets.info(f'csv:{folder}/labels.csv').class_names
    == wanted
  )


def test_numbers_as_classes_of_a_folder(tmp_path, make_images):
  for name in ('10', '9', '-1'):
    make_images(tmp_path / name, 10)
  assert datasets.info(f'folder:{tmp_path}').class_names == ('-1', '9', '10')
  data = _load(tmp_path)
  assert all(
    data.class_names[label] == name.split('/')[0]
    for name, label in zip(data.train.ids, data.train.labels)
  )


@pytest.mark.parametrize('missing', ['nan', 'NaN', '', 'null', 'NULL', '<NA>', 'N/A', '#N/A'])
def test_missing_labels_are_no_class(folder, missing):
  lines = [
    f'{file.relative_to(folder)},{file.parent.name}\n' for file in sorted(folder.glob('*/*'))
  ]
  table = folder / 'labels.csv'
  table.write_text('image,label\n' + ''.join(lines))
  before = datasets.load(f'csv:{table}', 4, 3)
  for name in ('a', 'b'):
    _noise().save(folder / f'{name}.png')
  table.write_text(
    'image,label\n' + f'a.png,{missing}\n' + ''.join(lines) + f'b.png,{missing}\nc.png,cat\n'
  )
  for function in (datasets.info, lambda name: datasets.load(name, 4, 3)):
    with pytest.raises(
      ValueError,
      match=r'(?s)3 lines of .* cannot be used:\n  line 2 of .* has an empty label\n  line 23 of .*'
      r"has an empty label\n  line 24 of .* names the image 'c.png', and .*c.png is no "
      r'file\n.*skip_bad = True',
    ):
      function(f'csv:{table}')
  data = datasets.load(f'csv:{table}', 4, 3, skip_bad=True)
  assert data.sha256 == before.sha256
  assert datasets.info(f'csv:{table}', skip_bad=True).num_examples == {'all': 20}
  assert data.notes[0].startswith('3 lines are left out (skip_bad): line 2 of ')


def test_a_class_may_be_called_none(folder):
  (folder / 'labels.csv').write_text(
    'image,label\n'
    + ''.join(
      f'{file.relative_to(folder)},{"None" if file.parent.name == "cat" else "NA"}\n'
      for file in sorted(folder.glob('*/*'))
    )
  )
  assert datasets.info(f'csv:{folder}/labels.csv').class_names == ('NA', 'None')


def test_ids_without_endings_whatever_the_case(folder):
  (folder / 'cat' / '0.png').rename(folder / 'cat' / 'zero.PNG')
  (folder / 'labels.csv').write_text('image_id,label\ncat/zero,a\ncat/1,b\n')
  assert datasets.info(f'csv:{folder}/labels.csv').num_examples == {'all': 2}
