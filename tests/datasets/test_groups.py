"""Groups: no two parts have one, whatever kind of data set says what they are."""

import hashlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tlx import datasets
from tlx.datasets import _splits, subsets

RANDOM = np.random.default_rng(0)


@pytest.fixture
def subjects(tmp_path):
  """Twelve subjects, each with 2 to 4 frames of each of two expressions."""
  for name in ('happy', 'sad'):
    (tmp_path / 'faces' / name).mkdir(parents=True)
    for subject in range(12):
      for frame in range(2 + subject % 3):
        image = Image.fromarray(RANDOM.integers(0, 256, (4, 4, 3), np.uint8))
        image.save(tmp_path / 'faces' / name / f'subject_{subject}_{frame}.png')
  return tmp_path / 'faces'


def _subject(name):
  return name.split('subject_')[1].split('_')[0]


def _check(data, group_of):
  of_part = [{group_of(name) for name in split.ids} for split in data[:3]]
  assert all(split.groups == tuple(map(group_of, split.ids)) for split in data[:3])
  assert not (of_part[0] & of_part[1] or of_part[0] & of_part[2] or of_part[1] & of_part[2])
  assert all(set(split.labels) == set(range(len(data.class_names))) for split in data[:3])
  counts = np.array([len(part) for part in of_part])
  assert (
    data.notes[-1]
    == f'Groups: {counts[0]} in training, {counts[1]} in validation, {counts[2]} in test; none is '
    'in two parts.'
  )
  return of_part


def test_a_folder_by_pattern_by_table_and_a_csv_give_the_same(subjects):
  options = {'val_fraction': 0.25, 'test_fraction': 0.3}
  plain = datasets.load(f'folder:{subjects}', 4, 3, **options)
  assert {_subject(i) for i in plain.train.ids} & {
    _subject(i) for i in plain.test.ids
  } and not plain.train.groups
  data = datasets.load(f'folder:{subjects}', 4, 3, group=r'subject_(\d+)', **options)
  _check(data, _subject)
  shares = [np.bincount(split.labels) for split in data[:3]]
  np.testing.assert_allclose(shares[2] / sum(shares), 0.3, atol=0.05)
  np.testing.assert_allclose(shares[1] / (shares[0] + shares[1]), 0.25, atol=0.05)

  files = sorted(subjects.glob('*/*.png'))
  ids = [str(file.relative_to(subjects)) for file in files]
  rows = [f'{name},{file.parent.name},{_subject(name)}\n' for name, file in zip(ids, files)]
  (subjects / 'labels.csv').write_text('path,label,Patient_ID\n' + ''.join(rows))
  (subjects / 'other.csv').write_text('path,label,who\n' + ''.join(rows))
  for name, group in (
    ('labels', ''),
    ('labels', 'Patient_ID'),
    ('other', 'WHO'),
    ('other', r'(?:subject)_(\d+)'),
  ):
    table = datasets.load(f'csv:{subjects}/{name}.csv', 4, 3, group=group, **options)
    assert table.sha256 == data.sha256 and table.test.groups == data.test.groups
  (subjects / 'groups.csv').write_text(
    'subject;file\n' + ''.join(f'{_subject(name)};{name}\n' for name in ids)
  )
  assert datasets.load(f'folder:{subjects}', 4, 3, **options).sha256 == data.sha256
  assert (
    datasets.load(f'folder:{subjects}', 4, 3, group='(.*)', **options).sha256 == plain.sha256
  )  # every image is its own group


def test_groups_within_one_class_are_divided_class_by_class(tmp_path):
  """Plants: each is of one species; of every species 30% of the images are held out, as far as
  whole plants allow.
  """
  labels, groups = [], []
  for species in range(5):
    for plant in range(20):
      labels += [species] * 3
      groups += [f'{species}/{plant}'] * 3
  held = _splits.hold_out(np.array(labels), [str(i) for i in range(300)], 0.3, groups)
  np.testing.assert_array_equal(np.bincount(np.array(labels)[held]), 18)


def test_groups_of_one_are_the_split_without_groups():
  labels = RANDOM.integers(0, 7, 300)
  ids = [f'{i}.png' for i in range(300)]
  np.testing.assert_array_equal(
    _splits.hold_out(labels, ids, 0.22, ids), _splits.hold_out(labels, ids, 0.22)
  )


def test_the_order_of_the_examples_does_not_matter():
  labels, groups = RANDOM.integers(0, 3, 200), [f'g{i}' for i in RANDOM.integers(0, 40, 200)]
  ids = [str(i) for i in range(200)]
  held = _splits.hold_out(labels, ids, 0.3, groups)
  order = RANDOM.permutation(200)
  again = _splits.hold_out(labels[order], [ids[i] for i in order], 0.3, [groups[i] for i in order])
  np.testing.assert_array_equal(again, held[order])
  first = min(sorted(set(groups)), key=lambda name: hashlib.sha256(name.encode()).digest())
  assert held[groups.index(first)]  # by hash, not by name or size


@pytest.mark.parametrize('seed', range(40))
def test_every_class_comes_near_its_share(seed):
  """30 subjects with 3 to 24 images each, one class of three rare (a handful of images in all)."""
  random = np.random.default_rng(seed)
  groups = [f'{seed}-{i}' for i in range(30) for _ in range(random.integers(3, 25))]
  labels = random.choice([0, 1, 2], len(groups), p=[0.55, 0.41, 0.04])
  held = _splits.hold_out(labels, groups, 0.25, groups)
  np.testing.assert_allclose(np.bincount(labels[held]) / np.bincount(labels), 0.25, atol=0.1)


@pytest.mark.parametrize(
  'sizes,fraction',
  [({'a': 50, 'b': 50}, 0.2), ({'a': 95, 'b': 1, 'c': 1, 'd': 1, 'e': 2}, 0.3), ({'a': 100}, 0.3)],
)
def test_groups_too_few(sizes, fraction):
  groups = [name for name, size in sizes.items() for _ in range(size)]
  with pytest.raises(
    ValueError, match=r'by group (cannot be met: of \d groups|leaves one side without class)'
  ):
    _splits.hold_out(np.arange(len(groups)) % 2, groups, fraction, groups)


def test_a_class_in_one_group_is_named():
  labels = np.repeat([0, 1, 2], [40, 40, 5])
  groups = [f'g{i % 8}' for i in range(80)] + ['g3'] * 5
  with pytest.raises(ValueError, match=r"without class 'rare', whose 5 examples are in 1 groups"):
    _splits.hold_out(labels, groups, 0.3, groups, ('a', 'b', 'rare'))


def test_published_parts_that_share_groups_are_said(subjects):
  lines = []
  for file in sorted(subjects.glob('*/*.png')):
    name = str(file.relative_to(subjects))
    split = 'test' if int(_subject(name)) < 3 or name.endswith('_1.png') else 'train'
    lines.append(f'{name},{file.parent.name},{_subject(name)},{split}\n')
  (subjects / 'labels.csv').write_text('path,label,subject,split\n' + ''.join(lines))
  data = datasets.load(f'csv:{subjects}/labels.csv', 4, 3)
  shared = set(data.train.groups) & set(data.test.groups)
  count = sum(group in shared for group in data.test.groups)
  assert not set(data.train.groups) & set(data.val.groups)
  assert (
    f'The published parts share groups: {len(shared)} are both in training and in test, {count} '
    f'of {len(data.test.ids)} test images '
    'are of such a group.' in data.notes
  )
  assert not any('none is in two' in note for note in data.notes)


def test_few_shots_of_different_groups(subjects):
  data = datasets.load(f'folder:{subjects}', 4, 3, group=r'subject_(\d+)', val_fraction=0.25)
  args = data.train.labels, data.train.ids, [1, 3, 6, 0], 0
  found, plain = subsets(*args, data.train.groups), subsets(*args)
  for k in (1, 3, 6):
    for label in (0, 1):
      rows = [row for row in found[k] if data.train.labels[row] == label]
      groups = {group for group, of in zip(data.train.groups, data.train.labels) if of == label}
      assert len(rows) == k and len({data.train.groups[row] for row in rows}) == min(k, len(groups))
    np.testing.assert_array_equal(found[k], found[0][: 2 * k])
  assert sorted(found[0]) == sorted(plain[0])
  assert any(len({data.train.groups[row] for row in plain[k]}) < k for k in (3, 6))
  one_each = subsets(*args, data.train.ids)
  assert all((one_each[k] == plain[k]).all() for k in args[2])


@pytest.mark.parametrize(
  'group,message',
  [
    (r'subject_\d+', r'nor a regular expression with one capture group'),
    ('(a)(b)', 'has 2 capture groups, wanted one'),
    ('(a', 'is no regular expression: '),
    (r'happy/subject_(\d+)', r'finds nothing in 36 of 72 ids: sad/subject_0_0.png, .* and 31 more'),
  ],
)
def test_wrong_patterns(subjects, group, message):
  for function in (
    lambda name, **options: datasets.info(name, **options),
    lambda name, **options: datasets.load(name, 4, 3, **options),
  ):
    with pytest.raises(ValueError, match=message):
      function(f'folder:{subjects}', group=group)


@pytest.mark.parametrize(
  'text,message',
  [
    (
      'image,subject\nhappy/subject_0_0.png,1\n',
      r'groups.csv has no group for 71 images: happy/subject_0_1.png',
    ),
    (
      'image,sex\na.png,1\n',
      r'groups.csv has the columns image, sex; wanted one for the group, named group, group_id',
    ),
    ('image,group\nhappy/subject_0_0.png,nan\n', r'line 2 of .*groups.csv has an empty group'),
    ('image,group\na.png,1\na.png,1\n', r"line 3 of .*groups.csv names the image 'a.png' again"),
    (
      'image,group,patient\na.png,1,1\n',
      r"has the columns group and patient. Say which names the groups: group = 'group'",
    ),
  ],
)
def test_wrong_tables_of_groups(subjects, text, message):
  (subjects / 'groups.csv').write_text(text)
  with pytest.raises(ValueError, match=message):
    datasets.info(f'folder:{subjects}')


class TlxTestWriters(tfds.core.GeneratorBasedBuilder):
  """Examples with a writer and a session."""

  code_path = None
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'image': tfds.features.Image(shape=(4, 4, 3)),
          'label': tfds.features.ClassLabel(names=['a', 'b']),
          'writer': tfds.features.Text(),
          'session': tfds.features.Scalar(np.int64),
        }
      ),
      supervised_keys=('image', 'label'),
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(60):
      image = Image.fromarray(RANDOM.integers(0, 256, (4, 4, 3), np.uint8))
      yield (
        i,
        {
          'id': f'w{i % 12}_{i}',
          'image': image,
          'label': i % 2,
          'writer': f'w{i % 12}',
          'session': i // 3,
        },
      )


def test_tfds_features(data_dir):
  name, options = 'tfds:tlx_test_writers', {'val_fraction': 0.3, 'data_dir': data_dir}
  data = datasets.load(name, 4, 3, group='writer', **options)
  _check(data, lambda i: i.split('/')[1].split('_')[0])
  assert datasets.load(name, 4, 3, group='(w[0-9]+)_', **options).sha256 == data.sha256
  sessions = datasets.load(name, 4, 3, group='session', **options)
  _check(sessions, lambda i: str(int(i.split('_')[1]) // 3))
  for function in (
    lambda: datasets.info(name, data_dir, group='hand'),
    lambda: datasets.load(name, 4, 3, group='hand', **options),
  ):
    with pytest.raises(ValueError, match=r"group 'hand' is none of id, image, label, .*writer"):
      function()
  with pytest.raises(ValueError, match="group 'image' of tfds:tlx_test_writers is no text"):
    datasets.info(name, data_dir, group='image')


def test_data_sets_of_packages_have_no_groups(data_dir):
  with pytest.raises(ValueError, match=r"group 'writer' is none of"):
    datasets.info('uci_digits', group='writer')
  with pytest.raises(ValueError, match=r"group 'writer' is none of"):
    datasets.load('uci_digits', 8, 1, group='writer', data_dir=data_dir)


def test_folds_are_test_parts_by_turns(subjects):
  options = {'group': r'subject_(\d+)', 'val_fraction': 0.25, 'folds': 3}
  name, tested = f'folder:{subjects}', []
  for fold in (1, 2, 3):
    data = datasets.load(name, 4, 3, fold=fold, **options)
    tested += _check(data, _subject)[2:]
    held = len(data.test.ids)
    assert held == pytest.approx(72 / 3, abs=4)
  assert len(set.union(*tested)) == sum(map(len, tested)) == 12
  (subjects.parent / 'parts').mkdir()
  subjects.rename(subjects.parent / 'parts' / 'train')
  shutil.copytree(subjects.parent / 'parts' / 'train', subjects.parent / 'parts' / 'test')
  with pytest.raises(ValueError, match='has a test part of its own.*Leave folds out'):
    datasets.load(f'folder:{subjects.parent / "parts"}', 4, 3, fold=1, folds=3)
