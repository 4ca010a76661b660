"""Images with boxes: the same data in every format, and all that may be broken in each."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.datasets import boxes
from tlx import datasets
from tlx.datasets import _voc


def load(name, **options):
  options = {'image_size': 20, 'channels': 3, 'fit': 'pad', **options}
  return datasets.load(name, wanted='annotated image', **options)


@pytest.fixture(params=boxes.WRITERS)
def written(request, tmp_path):
  return boxes.WRITERS[request.param](tmp_path)


def test_every_format_says_the_same(written):
  data = load(written)
  assert data.class_names == boxes.NAMES
  assert datasets.info(written) == datasets.Info(boxes.NAMES, {'train': 3, 'val': 2, 'test': 2})
  assert datasets.kind(written) == 'annotated image' and datasets.is_valued(written)
  stems = [name.split('/')[-1] for name in data.train.ids]
  row = stems.index('a.png')
  found = data.train.values
  # 40 x 30 in a square of 20: half its size, and 2 of the 5 rows that are left over are above it
  np.testing.assert_allclose(found['frame'][row], [0.5, 0, 2, 40, 30])
  order = np.argsort(found['labels'][row][:2])
  wanted = [[10, 8, 20, 17], [2, 3.5, 7, 6.5]]
  np.testing.assert_allclose(found['boxes'][row][order], wanted, atol=1e-4)
  np.testing.assert_allclose(found['area'][row][order], [360, 60], rtol=1e-5)
  assert found['valid'].sum(1).tolist() == [2, 1, 0] and not found['crowd'].any()
  assert found['boxes'].shape == (3, 2, 4)  # as many as any image of any part has
  assert data.test.values['boxes'].shape == (2, 2, 4)
  assert not data.train.labels.any() and data.train.labels.dtype == np.int32
  assert [note.split(' have')[0] for note in data.notes if 'no box' in note] == [
    '1 of 3 images of train',
    '1 of 2 images of val',
    '1 of 2 images of test',
  ]


def test_formats_have_the_same_pixels_and_boxes(tmp_path):
  made = {}
  for name, write in boxes.WRITERS.items():
    made[name] = load(write(tmp_path / name)).test
  for other in ('voc', 'yolo'):
    np.testing.assert_array_equal(made[other].inputs, made['coco'].inputs)
    np.testing.assert_allclose(made[other].values['boxes'], made['coco'].values['boxes'], atol=1e-4)
    assert made[other].ids == made['coco'].ids  # which draw the subsets


def test_a_part_without_an_object_is_refused(tmp_path):
  """By which nothing could be chosen; crowds are nothing to find."""
  parts = {**boxes.BOXES, 'val': {'d': [], 'e': []}}
  with pytest.raises(ValueError, match='None of the 2 images of val has an object to find'):
    load(boxes.write_voc(tmp_path / 'voc', parts))
  name = boxes.write_coco(tmp_path / 'coco')
  file = tmp_path / 'coco' / 'test.json'
  file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
  with pytest.raises(ValueError, match='images of test has an object'):
    load(name)


def test_the_order_of_a_file_changes_nothing(tmp_path):
  """By which batches would draw other images; the numbers of images are the file's own."""
  one = load(boxes.write_coco(tmp_path)).train
  file = tmp_path / 'train.json'
  found = json.loads(file.read_text())
  for part in found.values():
    part.reverse()
  file.write_text(json.dumps(found))
  other = load(f'coco:{tmp_path}').train
  assert one.ids == other.ids
  np.testing.assert_array_equal(one.inputs, other.inputs)
  for name in ('frame', 'image_id', 'valid'):
    np.testing.assert_array_equal(one.values[name], other.values[name])


def test_a_file_that_is_divided(tmp_path):
  images = {chr(ord('a') + i): [('cat', 1.0, 1.0, 9.0, 9.0)] for i in range(10)}
  boxes.save_images(tmp_path / 'images', images)
  file = tmp_path / 'labels.json'
  file.write_text(json.dumps(boxes.annotations(images, first=100)))
  data = load(f'coco:{file}', val_fraction=0.2, test_fraction=0.3, group='^(.)')
  assert [len(part.ids) for part in data[:3]] == [6, 1, 3]
  assert data.train.groups == tuple(name[0] for name in data.train.ids)
  assert set(data.train.values['image_id'].tolist()) < set(range(100, 110))
  assert any('No box is of the classes dog' in note for note in data.notes)
  assert datasets.subsets(data.train.labels, data.train.ids, (5,), 0)[5].shape == (5,)


def test_layouts_of_coco(tmp_path):
  official, roboflow = tmp_path / 'official', tmp_path / 'roboflow'
  (official / 'annotations').mkdir(parents=True)
  for part, images in boxes.BOXES.items():
    boxes.save_images(official / f'{part}2017', images)
    content = json.dumps(boxes.annotations(images))
    (official / 'annotations' / f'instances_{part}2017.json').write_text(content)
    (official / 'annotations' / f'captions_{part}2017.json').write_text('{}')
    boxes.save_images(roboflow / part, images)
    (roboflow / part / '_annotations.coco.json').write_text(content)
  first, second = load(f'coco:{official}'), load(f'coco:{roboflow}')
  assert first.sha256 == second.sha256 == load(boxes.write_coco(tmp_path / 'flat')).sha256


def test_layouts_of_voc(tmp_path):
  """As the devkit has them, lists of parts and all; an image that no list has is left out."""
  for images in boxes.BOXES.values():
    boxes.save_images(tmp_path / 'JPEGImages', images)
  (tmp_path / 'Annotations').mkdir()
  (tmp_path / 'ImageSets' / 'Main').mkdir(parents=True)
  for part, images in boxes.BOXES.items():
    listed = list(images)[: 2 if part == 'train' else None]
    (tmp_path / 'ImageSets' / 'Main' / f'{part}.txt').write_text('\n'.join(listed))
    for name, of_image in images.items():
      (tmp_path / 'Annotations' / f'{name}.xml').write_text(boxes.xml_of(name, of_image))
  data = load(f'voc:{tmp_path}')
  assert data.train.ids == ('JPEGImages/a.png', 'JPEGImages/b.png') and len(data.test.ids) == 2
  assert 'JPEGImages/c.png' in data.notes[0]


def test_crowds_ignored_and_difficult(tmp_path):
  name = boxes.write_coco(tmp_path / 'coco')
  file = tmp_path / 'coco' / 'train.json'
  found = json.loads(file.read_text())
  found['annotations'][0]['iscrowd'] = 1
  found['annotations'][1]['ignore'] = 1
  found['annotations'][1]['area'] = 5.5
  file.write_text(json.dumps(found))
  values = load(name).train.values
  assert values['crowd'].tolist() == [[1, 1], [0, 0], [0, 0]] and values['valid'].sum() == 3
  assert values['area'][0].tolist() == [60, 5.5]
  name = boxes.write_voc(tmp_path / 'voc')
  file = tmp_path / 'voc' / 'train' / 'b.xml'
  file.write_text(file.read_text().replace('<bndbox>', '<difficult>1</difficult><bndbox>'))
  assert load(name).train.values['crowd'].tolist() == [[0, 0], [1, 0], [0, 0]]


def test_all_that_is_broken_in_coco_is_one_error(tmp_path):
  name = boxes.write_coco(tmp_path)
  file = tmp_path / 'train.json'
  found = json.loads(file.read_text())
  good = found['annotations'][2]
  broken = {
    'bbox': [
      [50, 5, 10, 10],
      [30, 5, 20, 10],
      [5, 5, -3, 4],
      [5, 5, 0, 4],
      [1, 2],
      [1, 2, 3, None],
    ],
    'category_id': [8, None],
    'image_id': [77, None],
  }
  for field, values in broken.items():
    for value in values:
      number = len(found['annotations']) + 1
      found['annotations'].append({**good, 'id': number, field: value})
  found['images'].append({'id': 50, 'file_name': 'gone.png', **dict(width=4, height=4)})
  found['images'].append({'id': 51, 'file_name': '../test/f.png'})
  found['images'].append({'id': 1, 'file_name': 'again.png'})
  found['categories'].append({'id': 7, 'name': 'cow'})
  file.write_text(json.dumps(found))
  with pytest.raises(ValueError, match='skip_bad') as error:
    load(name)
  said = str(error.value)
  for words in (
    '14 annotations of',
    'annotation 4 of train.json of train/b.png has a box (50, 5, 60, 15) that reaches out',
    'annotation 5 of train.json of train/b.png has a box (30, 5, 50, 15) that reaches out',
    'annotation 6 of train.json of train/b.png has a box -3 wide and 4 high',
    'annotation 7 of train.json of train/b.png has a box 0 wide',
    'annotation 8 of train.json has the bbox [1, 2]',
    'annotation 9 of train.json has the bbox [1, 2, 3, None]',
    'annotation 10 of train.json is of the unknown category 8',
    'annotation 11 of train.json is of the unknown category None',
    'annotation 12 of train.json is of the unknown image 77',
    'annotation 13 of train.json is of the unknown image None',
    'train/gone.png: there is no file',
    'train/../test/f.png: its file_name leads out',
    'two images have the id 1 or the file again.png',
    'two categories have the id 7',
  ):
    assert words in said, words
  data = load(name, skip_bad=True)
  assert data.train.ids == ('train/a.png', 'train/b.png', 'train/c.png')
  assert data.train.values['valid'].sum() == 3 and 'broken annotations' in data.notes[0]
  assert data.sha256 == load(boxes.write_coco(tmp_path / 'whole')).sha256


def test_a_box_may_be_rounded_out_of_its_image(tmp_path):
  parts = {**boxes.BOXES, 'train': {'a': [('cat', -0.6, 3.0, 40.9, 9.0), ('dog', 1, 1, 5, 5)]}}
  found = load(boxes.write_coco(tmp_path, parts)).train.values['boxes'][0, 0]
  np.testing.assert_allclose(found, [0, 3.5, 20, 6.5])


def test_broken_xml(tmp_path):
  name = boxes.write_voc(tmp_path)
  bomb = '<!DOCTYPE a [<!ENTITY x "yy">]><annotation><filename>&x;</filename></annotation>'
  train = tmp_path / 'train'
  (train / 'b.xml').write_text(bomb)
  (train / 'c.xml').write_text('<annotation>')
  (train / 'lost.xml').write_text(boxes.xml_of('lost', []))
  whole = boxes.xml_of('a', boxes.BOXES['train']['a'])
  (train / 'a.xml').write_text(whole.replace('<xmin>4.0</xmin>', '<xmin>left</xmin>'))
  with pytest.raises(ValueError) as error:
    load(name)
  for words in (
    '4 annotations of',
    'train/b.xml: it has a DOCTYPE',
    'train/c.xml: it is no XML',
    'train/lost.xml has no image lost',
    'object 1 of train/a.xml has no bndbox',
  ):
    assert words in str(error.value), words
  with pytest.raises(ValueError, match='DOCTYPE'):
    _voc.parsed(bomb.encode('utf-16'))


def test_points_of_poses_are_no_outlines(tmp_path):
  """Lines with points behind each box would else be boxes around all of these."""
  name = boxes.write_yolo(tmp_path)
  file = tmp_path / 'data.yaml'
  file.write_text(f'{file.read_text()}kpt_shape: [17, 3]\n')
  with pytest.raises(ValueError, match='kpt_shape: its lines hold points'):
    datasets.info(name)


def test_broken_lines_of_yolo(tmp_path):
  name = boxes.write_yolo(tmp_path)
  labels = tmp_path / 'labels' / 'train'
  (labels / 'a.txt').write_text('5 .5 .5 .1 .1\n0 .5 .5 .1\n0 .5 .5 .1 .1 .9\n0 .99 .5 .9 .1\nx')
  (labels / 'b.txt').write_text('0 .5 .5 .1 .1\n1 .1 .1 .3 .1 .3 .2\n')  # the last an outline
  (labels / 'lost.txt').write_text('')
  with pytest.raises(ValueError) as error:
    load(name)
  for words in (
    '6 annotations of',
    "line 1 of labels/train/a.txt of train/a.png has the unknown category 'number 5'",
    "line 2 of labels/train/a.txt is '0 .5 .5 .1'",
    "line 3 of labels/train/a.txt is '0 .5 .5 .1 .1 .9'",
    'line 4 of labels/train/a.txt of train/a.png has a box',
    "line 5 of labels/train/a.txt is 'x'",
    'labels/train/lost.txt is of no image',
  ):
    assert words in str(error.value), words
  values = load(name, skip_bad=True).train.values
  np.testing.assert_allclose(values['boxes'][1, 1], [2, 3.5, 6, 5], atol=1e-4)


def test_images_that_are_turned_or_damaged(tmp_path):
  """Boxes are of the image as it is seen: one that EXIF turns must be said in that size."""
  name = boxes.write_coco(tmp_path)
  exif = Image.Exif()
  exif[0x0112] = 6
  boxes.image('a').save(tmp_path / 'train' / 'a.png', exif=exif)
  (tmp_path / 'train' / 'b.png').write_bytes(b'none')
  with pytest.raises(ValueError) as error:
    load(name)
  assert 'train/a.png is 30 x 40 and not 40 x 30' in str(error.value)
  assert 'train/b.png: it cannot be read' in str(error.value)
  boxes.image('a').resize((80, 60)).save(tmp_path / 'train' / 'a.png')
  boxes.image('b').save(tmp_path / 'train' / 'b.png')
  assert any('train/a.png is 80 x 60 and not 40 x 30' in note for note in load(name).notes)


@pytest.mark.parametrize(
  'files, words',
  [
    ({'train.json': '[]'}, 'has a list; wanted lists of images'),
    ({'train.json': '{"images": []}'}, 'has images; wanted lists'),
    ({'train.json': '{'}, 'is no JSON'),
    ({'train.json': '{}', 'sub/train.json': '{}'}, 'both of train'),
    ({'labels.json': '{}'}, 'Want train.json'),
  ],
)
def test_folders_that_are_not_cocos(tmp_path, files, words):
  for name, content in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
  with pytest.raises(ValueError, match=words):
    load(f'coco:{tmp_path}')


def test_kinds_are_told_apart(tmp_path):
  name = boxes.write_coco(tmp_path)
  with pytest.raises(ValueError, match="has annotated images, wanted images. .*'detection'"):
    datasets.load(name, 8, 3)
  with pytest.raises(ValueError, match='shift'):
    datasets.info(name, shift='invert')
  with pytest.raises(ValueError, match='no folder|wants a folder'):
    load(f'voc:{tmp_path / "none"}')


def test_copies_across_parts(tmp_path):
  name = boxes.write_coco(tmp_path)
  boxes.image('a').save(tmp_path / 'test' / 'f.png')
  assert any('train/a.png' in note for note in load(name).notes)
  assert load(name, duplicates='drop').train.ids == ('train/b.png', 'train/c.png')


class TlxTestObjects(tfds.core.GeneratorBasedBuilder):
  """Images with objects, as TFDS has them."""

  code_path = None
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    of_object = {
      'area': tfds.features.Scalar(np.int64),
      'bbox': tfds.features.BBoxFeature(),
      'is_crowd': tfds.features.Scalar(np.bool_),
      'label': tfds.features.ClassLabel(names=list(boxes.NAMES)),
    }
    features = {
      'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
      'objects': tfds.features.Sequence(of_object),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    names = {'train': 'train', 'val': 'validation', 'test': 'test'}
    return {names[part]: self._generate_examples(images) for part, images in boxes.BOXES.items()}

  def _generate_examples(self, images):
    width, height = boxes.SIZE
    for name, of_image in images.items():
      objects = [
        {
          'area': 9,
          'bbox': tfds.features.BBox(y0 / height, x0 / width, y1 / height, x1 / width),
          'is_crowd': label == 'dog' and name == 'a',
          'label': label,
        }
        for label, x0, y0, x1, y1 in of_image
      ]
      yield name, {'image': boxes.image(name), 'objects': objects}


def test_objects_of_tfds(data_dir, tmp_path):
  name = 'tfds:tlx_test_objects'
  assert datasets.kind(name, data_dir) == 'annotated image'
  data = load(name, data_dir=data_dir)
  assert datasets.info(name, data_dir) == datasets.Info(
    boxes.NAMES, {'train': 3, 'val': 2, 'test': 2}
  )
  coco = load(boxes.write_coco(tmp_path))
  row = data.train.values['valid'].sum(1).argmax()
  np.testing.assert_array_equal(data.train.inputs[row], coco.train.inputs[0])
  for leaf in ('boxes', 'labels', 'frame'):
    np.testing.assert_allclose(data.train.values[leaf][row], coco.train.values[leaf][0], atol=1e-4)
  assert data.train.values['crowd'][row].tolist() == [1, 0]
  assert data.train.values['area'][row].tolist() == [9, 9]
