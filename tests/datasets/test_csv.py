import numpy as np
import pytest

from tlx import datasets


def _load(path, size=4, channels=1, **options):
  return datasets.load(f'csv:{path}', size, channels, **options)


@pytest.fixture
def table(tmp_path, make_images):
  """table(text) writes it beside the images i/00.png ... i/19.png, whose grey values are 10 times
  their number.
  """
  make_images(tmp_path / 'i', 20)

  def write(text, encoding='utf-8'):
    (tmp_path / 'labels.csv').write_text(text, encoding)
    return tmp_path / 'labels.csv'

  return write


def _lines(splits='', label=lambda i: 'ab'[i % 2]):
  return ''.join(
    f'i/{i:02d}.png,{label(i)}{splits and "," + splits.split()[i % len(splits.split())]}\n'
    for i in range(20)
  )


def test_without_splits(table):
  path = table('path,label\n' + _lines())
  assert datasets.info(f'csv:{path}') == (('a', 'b'), {'all': 20})
  data = _load(path, test_fraction=0.3, val_fraction=0.3)
  assert [np.bincount(split.labels).tolist() for split in data[:3]] == [[5, 5], [2, 2], [3, 3]]
  for split in data[:3]:
    for i, image, label in zip(split.ids, split.inputs, split.labels):
      assert label == int(i[2:4]) % 2
      np.testing.assert_array_equal(image, 10 * int(i[2:4]))


def test_same_data_as_a_folder_give_the_same_split(tmp_path, make_images):
  for name in ('a', 'b'):
    make_images(tmp_path / name, 10)
  (tmp_path / 'labels.csv').write_text(
    'file,class\n' + ''.join(f'{c}/{i:02d}.png,{c}\n' for c in 'ab' for i in range(10))
  )
  assert _load(tmp_path / 'labels.csv').sha256 == datasets.load(f'folder:{tmp_path}', 4, 1).sha256


def test_splits_and_their_aliases(table):
  path = table(
    'filename,emotion,Usage\n'
    + _lines('Training Training train PublicTest PrivateTest', label=lambda i: 'ab'[i % 3 == 0])
  )
  assert datasets.info(f'csv:{path}').num_examples == {'train': 12, 'val': 4, 'test': 4}
  data = _load(path)
  assert sorted(data.val.ids) == [f'i/{i:02d}.png' for i in (3, 8, 13, 18)]
  assert sorted(data.test.ids) == [f'i/{i:02d}.png' for i in (4, 9, 14, 19)]
  only_test = _load(
    table(
      'filename,emotion,split\n'
      + _lines('train train testing train train', label=lambda i: 'ab'[i % 3 == 0])
    ),
    val_fraction=0.25,
  )
  assert [len(split.ids) for split in only_test[:3]] == [12, 4, 4]


@pytest.mark.parametrize(
  'text,encoding',
  [
    (
      '\N{BYTE ORDER MARK}Label , Image\r\nb,i/00.png\r\n\r\na,"i/01.png"\r\n',
      'utf-8',
    ),  # as spreadsheets write it
    ('image;note;label\ni/00.png;"x; y\nz";b\ni/01.png;;a\n', 'utf-8'),
    (
      'extra\timage_id\tlabel\n1\ti/00\tb\n2\ti/01\ta\n',
      'utf-8',
    ),  # ids without the ending of the file
    ('image,label,class\ni/./00.png,b,x\ni/01.png,a,y\n', 'utf-8'),
  ],
)  # 'label' goes before other names
def test_ways_to_write_a_table(table, text, encoding):
  path = table(text, encoding)
  assert datasets.info(f'csv:{path}') == (('a', 'b'), {'all': 2})
  with pytest.raises(ValueError, match='of its 1 examples'):  # so the two classes were told apart
    _load(path)


@pytest.mark.parametrize(
  'labels,wanted',
  [
    (['10', '9', '-1'], ('-1', '9', '10')),
    (['2.0', '10.0'], ('2.0', '10.0')),
    (['10', '9', 'x'], ('9', '10', 'x')),
    (['b10', 'b9', 'B1'], ('B1', 'b9', 'b10')),
  ],
)
def test_numbers_are_sorted_as_numbers(table, labels, wanted):
  path = table(
    'image,label\n' + ''.join(f'i/{i:02d}.png,{label}\n' for i, label in enumerate(labels))
  )
  assert datasets.info(f'csv:{path}').class_names == wanted


def test_pixels_in_the_table(table):
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (24, 6, 6))
  parts = ('Training', 'PublicTest', 'PrivateTest')
  lines = [
    f'{i % 3},{" ".join(map(str, image.ravel()))},{parts[i // 8]}\n'
    for i, image in enumerate(images)
  ]
  path = table('emotion,pixels,Usage\n' + ''.join(lines))
  assert datasets.info(f'csv:{path}') == (('0', '1', '2'), {'train': 8, 'val': 8, 'test': 8})
  data = _load(path, size=6)
  for split in data[:3]:
    for i, image, label in zip(split.ids, split.inputs, split.labels):
      assert label == int(i) % 3
      np.testing.assert_array_equal(image[..., 0], images[int(i)])
  assert data.val.ids[0] == '000008'


@pytest.mark.parametrize(
  'text,message',
  [
    (
      'image,label\ni/00.png,a\ni/99.png,b\n',
      r"line 3 of .*labels.csv names the image 'i/99.png', and .*i/99.png is no file",
    ),
    ('image,label\n\ni/00.png,a\n"i/0\n9.png",b\n', r'line 5 of'),
    ('image,label\ni/00.png,a\ni/01.png, \n', r'line 3 of .* has an empty label'),
    ('image,label,split\ni/00.png,a,\n', r'line 2 of .* has an empty split'),
    ('image,label\n../labels.csv,a\n', r"'../labels.csv', which is outside"),
    ('image,label\ni/../../x.png,a\n', r'which is outside'),
    ('image,label\n/etc/passwd,a\n', r"'/etc/passwd', which is outside"),
    (
      'image,label\ni/00.png,a\ni/01.png,b\ni/./00.png,a\n',
      r"line 4 of .* names the image 'i/00.png', as does line 2 of",
    ),
    (
      'image,label,split\ni/00.png,a,holdout\n',
      r"line 2 of .* has the split 'holdout'; have train, training, val",
    ),
    ('image,label,split\ni/00.png,a,train\ni/01.png,b,test\n', r'no training example of b'),
    ('image,label\ni/00.png,a,b\n', r'line 2 of .* has 3 fields, wanted 2'),
    (
      'photo,label\ni/00.png,a\n',
      r'has the columns photo, label; wanted one for the image, named image, path, .*\(or pixels\)',
    ),
    (
      'image,breed\ni/00.png,a\n',
      r'has the columns image, breed; wanted one for the label, named label, class',
    ),
    (
      'image,class,emotion\ni/00.png,a,b\n',
      r"has the columns class and emotion. Rename the one that is meant to 'label'",
    ),
    ('image,label\n', r'lists no image'),
    ('', r'has the columns ; wanted one for the image'),
  ],
)
def test_wrong_tables(table, text, message):
  path = table(text)
  for function in (datasets.info, lambda name: datasets.load(name, 4, 1)):
    with pytest.raises(ValueError, match=message):
      function(f'csv:{path}')


@pytest.mark.parametrize(
  'pixels,message',
  [
    ('0 0 0 256', r'\n  000001: its pixels are no whole numbers from 0 to 255: .*256'),
    ('0 0 zero 0', r'\n  000001: its pixels are no whole numbers'),
    ('0 0 0', r'1 of the 9 images of csv:.*:\n  000001: its 3 pixels are no square\n'),
  ],
)
def test_wrong_pixels(table, pixels, message):
  path = table(f'label,pixels\na,0 0 0 0\na,{pixels}\n' + 'a,1 1 1 1\n' * 3 + 'b,1 1 1 1\n' * 4)
  with pytest.raises(ValueError, match=message):
    _load(path)


def test_wrong_files(table, tmp_path):
  with pytest.raises(ValueError, match=r'nowhere.csv is none. Check the path'):
    datasets.info(f'csv:{tmp_path}/nowhere.csv')
  with pytest.raises(ValueError, match=r'holds labels.csv. Want train.csv'):
    table('image,label\ni/00.png,a\n')
    datasets.info(f'csv:{tmp_path}')
  path = table('image,label\ni/00.png,caf\u00e9\n', 'latin-1')
  with pytest.raises(ValueError, match=r'Cannot read .*labels.csv: .*utf-8.*Want CSV in UTF-8'):
    datasets.info(f'csv:{path}')


def test_a_line_of_blanks_is_none(table):
  """As spreadsheets leave them at the end."""
  text = 'path,label\n' + _lines()
  assert _load(table(text + '\n   \n\n')).sha256 == _load(table(text)).sha256
