"""The same image in two parts, of one data set or of a source and its target."""

import importlib

import numpy as np
import pytest
from PIL import Image

from tlx import datasets
from tlx.study import config, pair
from tlx.study.cells import PRETRAINING, counts_of

RANDOM = np.random.default_rng(0)


@pytest.fixture
def divided(tmp_path):
  """Two classes, 6 + 4 + 5 images each in train, val and test, no two alike."""
  for split, count in (('train', 6), ('val', 4), ('test', 5)):
    for name in ('cat', 'dog'):
      folder = tmp_path / 'images' / split / name
      folder.mkdir(parents=True)
      for i in range(count):
        Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f'{i}.png')
  return tmp_path / 'images'


def _copy(folder, source, target):
  (folder / target).write_bytes((folder / source).read_bytes())


def _load(folder, **options):
  return datasets.load(f'folder:{folder}', 8, 3, **options)


def test_nothing_to_say_without_copies(divided):
  assert _load(divided).notes == ()


def test_copies_are_counted_and_named(divided):
  _copy(divided, 'test/cat/0.png', 'train/cat/copy of 0.png')
  _copy(divided, 'test/cat/0.png', 'train/cat/another.png')
  Image.open(divided / 'test/dog/1.png').save(divided / 'train/cat/in another format.bmp')
  _copy(divided, 'val/dog/2.png', 'train/dog/x.png')
  _copy(divided, 'val/dog/3.png', 'test/dog/y.png')
  data = _load(divided)
  assert data.notes == (
    '1 of 11 test images are also in validation, byte for byte, 0 of them under another label: '
    'test/dog/y.png is val/dog/3.png. '
    "duplicates = 'drop' leaves them out of validation.",
    '2 of 11 test images are also in training, byte for byte, 1 of them under another label: '
    'test/cat/0.png is train/cat/another.png, '
    "test/dog/1.png is train/cat/in another format.bmp. duplicates = 'drop' leaves them out of "
    'training.',
    '1 of 8 validation images are also in training, byte for byte, 0 of them under another label: '
    'val/dog/2.png is train/dog/x.png. '
    "duplicates = 'drop' leaves them out of training.",
  )
  assert [len(split.ids) for split in data[:3]] == [16, 8, 11]
  dropped = _load(divided, duplicates='drop')
  assert [len(split.ids) for split in dropped[:3]] == [12, 7, 11]
  assert not {
    'train/cat/copy of 0.png',
    'train/cat/another.png',
    'train/cat/in another format.bmp',
    'train/dog/x.png',
  } & set(dropped.train.ids)
  assert 'val/dog/3.png' not in dropped.val.ids and dropped.sha256 != data.sha256
  assert dropped.notes[1].endswith("duplicates = 'drop' left 3 images out of training.")


def test_copies_are_found_whatever_the_shift_and_across_classes_made_one(divided):
  _copy(divided, 'test/cat/0.png', 'train/dog/copy.png')
  plain, turned = (_load(divided, shift=shift) for shift in ('none', 'rotate_90'))
  assert plain.notes == turned.notes and '1 of 10 test images' in plain.notes[0]
  np.testing.assert_array_equal(plain.train.digests, turned.train.digests)
  assert len(set(np.concatenate([split.digests for split in plain[:3]]).tolist())) == 30


def test_a_class_of_copies_alone_cannot_be_dropped(divided):
  for i in range(6):
    _copy(divided, 'test/cat/0.png', f'train/cat/{i}.png')
  assert '1 of 10 test images' in _load(divided).notes[0]
  with pytest.raises(
    ValueError,
    match="duplicates = 'drop' leaves training without the classes cat: all their images are in "
    'test too',
  ):
    _load(divided, duplicates='drop')
  with pytest.raises(ValueError, match="Unknown duplicates 'remove'; have keep and drop"):
    _load(divided, duplicates='remove')


def test_capped_validation(divided, tmp_path):
  data, capped, more = (_load(divided, val_examples=count) for count in (0, 3, 5))
  assert (len(data.val.ids), len(capped.val.ids), len(more.val.ids)) == (8, 3, 5)
  assert set(capped.val.ids) < set(more.val.ids) < set(data.val.ids)
  assert set(capped.val.labels) == {0, 1}
  assert (
    capped.notes == ('Validation uses 3 of its 8 images (val_examples), of each class alike.',)
    and not data.notes
  )
  assert capped.train.ids == data.train.ids and capped.test.ids == data.test.ids
  assert (
    _load(divided, val_examples=8).sha256 == _load(divided, val_examples=99).sha256 == data.sha256
  )
  with pytest.raises(ValueError, match='val_examples is 1, fewer than the 2 classes'):
    _load(divided, val_examples=1)


def test_a_cap_takes_of_each_class_its_share():
  from tlx.datasets._splits import capped
  from tlx.datasets._types import Examples

  labels = np.repeat([0, 1, 2], [600, 300, 3]).astype(np.int32)
  examples = Examples(tuple(f'{i}' for i in range(903)), labels, lambda rows: [])
  np.testing.assert_allclose(np.bincount(capped(examples, 91).labels), [60, 30, 1], atol=1)
  np.testing.assert_array_equal(np.bincount(capped(examples, 3).labels), [1, 1, 1])


def _study(data_dir, sources, targets):
  made = config.base()
  made.data_dir = str(data_dir)
  common = {
    'backbone': {'name': 'mlp', 'widths': (8,)},
    'input': {'image_size': 8, 'channels': 3, 'mean': (0.5,) * 3, 'std': (0.25,) * 3},
    'train': {'learning_rate': 1e-3},
  }
  made.sources = {name: common | source for name, source in sources.items()}
  made.targets = targets
  made.methods = {'scratch': {'init': 'random'}}
  return config.resolve(made)


def _shared(study, source, target):
  """How many of the target's (training, validation, test) images the source is trained on."""
  seen = set(pair.source_data(study, source).train.digests.tolist())
  data = pair.load(study, study['targets'][target], study['sources'][source])
  return [len(seen & set(split.digests.tolist())) for split in data[:3]]


@pytest.fixture
def undivided(tmp_path):
  for name in ('cat', 'dog'):
    folder = tmp_path / 'whole' / name
    folder.mkdir(parents=True)
    for i in range(60):
      Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), np.uint8)).save(
        folder / f'plant{i // 4}_{i}.png'
      )
  table = ''.join(
    f'{name}/plant{i // 4}_{i}.png,{name}\n' for name in ('cat', 'dog') for i in range(60)
  )
  (tmp_path / 'whole' / 'labels.csv').write_text('image,label\n' + table)
  return tmp_path / 'whole'


@pytest.mark.parametrize(
  'fractions', [{}, {'test_fraction': 0.5}, {'test_fraction': 0.1, 'val_fraction': 0.6}]
)
@pytest.mark.parametrize(
  'changes', [{}, {'shift': 'invert'}, {'val_examples': 4}, {'group': '(plant[0-9]+)'}]
)
@pytest.mark.parametrize('kind', ['folder:{}', 'csv:{}/labels.csv'])
def test_a_source_never_sees_what_its_target_is_judged_by(
  undivided, data_dir, fractions, changes, kind
):
  source, target = (
    {'dataset': f'folder:{undivided}'},
    {'dataset': kind.format(undivided), **fractions, **changes},
  )
  study = _study(data_dir, {'same': source}, {'same': target})
  train, *held = _shared(study, 'same', 'same')
  assert train and held == [0, 0]
  data = pair.source_data(study, 'same')
  assert len(data.train.ids) + sum('left out of its training' in note for note in data.notes) > 20
  whole = pair.load(study, study['sources']['same'] | PRETRAINING, study['sources']['same'])
  assert (data.sha256 == whole.sha256) == (len(data.train.ids) == len(whole.train.ids))
  if 'group' in changes:
    target_data = pair.load(
      study, study['targets']['same'] | {'val_examples': 0}, study['sources']['same']
    )
    plants = [
      {name.split('_')[0] for name in ids}
      for ids in (data.train.ids, target_data.val.ids, target_data.test.ids)
    ]
    assert not plants[0] & (plants[1] | plants[2])


def test_validation_images_that_a_cap_leaves_aside_are_of_held_out_groups_too(undivided, data_dir):
  group = '(plant[0-9]+)'
  study = _study(
    data_dir,
    {'same': {'dataset': f'folder:{undivided}'}},
    {'same': {'dataset': f'folder:{undivided}', 'group': group, 'val_examples': 2}},
  )
  held = pair.load(
    study, study['targets']['same'] | {'val_examples': 0}, study['sources']['same']
  ).val
  data = pair.source_data(study, 'same')
  assert not {name.split('_')[0] for name in data.train.ids} & {
    name.split('_')[0] for name in held.ids
  }


def test_several_targets_are_all_kept_out(undivided, data_dir):
  name = f'folder:{undivided}'
  targets = {
    'a': {'dataset': name, 'test_fraction': 0.5, 'val_fraction': 0.1},
    'b': {'dataset': name, 'test_fraction': 0.1, 'val_fraction': 0.6, 'shift': 'rotate_90'},
  }
  study = _study(data_dir, {'same': {'dataset': name}}, targets)
  for target in targets:
    assert _shared(study, 'same', target)[1:] == [0, 0]


def test_a_source_that_nothing_is_left_of(divided):
  data = _load(divided)
  cats = data.train.take(np.flatnonzero(data.train.labels == 0))
  with pytest.raises(
    ValueError,
    match=r'6 of the 12 training images .*; without them 1 of its classes have no example. Lower '
    r"the targets'",
  ):
    datasets.keep_out(data, [data, data._replace(val=cats)])


def test_near_and_far(tmp_path_factory, data_dir):
  made = importlib.import_module('configs.mnist_to_near_and_far').get_config()
  made.data_dir = str(data_dir)
  study = config.resolve(made)
  data = pair.source_data(study, 'mnist')
  assert len(data.train.ids) == 3120
  for name, target in study['targets'].items():
    loaded = pair.load(study, target, study['sources']['mnist'])
    notes = datasets.overlap(data.train, loaded)
    if target['dataset'] == 'mnist_5k':
      assert notes == (
        'The source was trained, with its own labels, on 3,120 of the 3,120 training images of '
        'the target (before any shift), '
        'and on none of its validation and test images.',
      ), name
    else:
      assert notes == ()


def test_what_judges_one_target_is_counted_in_the_training_of_another(divided):
  data = _load(divided)
  assert datasets.trained_elsewhere(data.train, 'other', data) == ()
  (note,) = datasets.trained_elsewhere(data.test, 'other', data)
  assert note.startswith('Runs on other are merged with those on this target')
  assert f'0 validation and {len(data.test.ids)} test images of it, byte for byte' in note


def test_overlap_with_what_judges_is_refused(divided):
  data = _load(divided)
  seen = data.train._replace(digests=np.concatenate([data.train.digests[:9], data.val.digests[:3]]))
  with pytest.raises(
    ValueError,
    match='The source was trained on 3 of the 8 validation images of the target, byte for byte',
  ):
    datasets.overlap(seen, data)
  with pytest.raises(ValueError, match='The source was trained on 10 of the 10 test images'):
    datasets.overlap(data.test, data._replace(train=data.test))


def test_the_source_of_another_data_set_stays_what_it_was(data_dir):
  study = _study(
    data_dir, {'mnist': {'dataset': 'mnist_5k'}}, {'digits': {'dataset': 'uci_digits'}}
  )
  data = pair.source_data(study, 'mnist')
  assert (
    data.sha256 == datasets.load('mnist_5k', 8, 3, val_fraction=0.1, data_dir=data_dir).sha256
    and not data.notes
  )


def test_a_study_passes_the_fields_on(undivided, data_dir):
  name, source = f'folder:{undivided}', {'dataset': 'uci_digits'}
  fields = {'dataset': name, 'group': '(plant[0-9]+)', 'val_examples': 5, 'spread_shots': True}
  study = _study(data_dir, {'digits': source}, {'plants': fields}) | {
    'shots': (4,),
    'seeds': (0, 1, 2),
  }
  target = study['targets']['plants']
  data = pair.load(study, target, study['sources']['digits'])
  assert len(data.val.ids) == 5 and len(data.notes) == 3
  assert counts_of(study, target)['val'] == 5
  for of_seed in pair.subsets(study, target, data).values():
    for label in (0, 1):
      rows = [row for row in of_seed[4] if data.train.labels[row] == label]
      assert len({data.train.groups[row] for row in rows}) == 4
  ungrouped = target | {'group': ''}
  with pytest.raises(ValueError, match='spread_shots wants groups, and the data set has none'):
    pair.subsets(study, ungrouped, pair.load(study, ungrouped, study['sources']['digits']))
  streamed = pair.load(study | {'data_bytes': 1e4}, target, study['sources']['digits'])
  assert streamed.sha256 == data.sha256 and not isinstance(streamed.train.inputs, np.ndarray)


@pytest.mark.parametrize(
  'field,value', [('duplicates', 'dorp'), ('val_examples', -1), ('skip_bad', 'yes'), ('group', 3)]
)
def test_wrong_fields_are_named(data_dir, field, value):
  with pytest.raises(ValueError, match=f'config.targets.a.{field} (is|takes) '):
    _study(
      data_dir, {'digits': {'dataset': 'uci_digits'}}, {'a': {'dataset': 'mnist_5k', field: value}}
    )
