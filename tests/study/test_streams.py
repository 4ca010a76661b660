"""Studies of data larger than `data_bytes`, decoded on the way: the numbers of data in memory."""

import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.study import tiny
from tests.study.conftest import ROOT
from tests.study.test_run import numbers, wait_for
from tlx import datasets, report
from tlx.datasets import _images
from tlx.study import config, dry_run, looked, run
from tlx.train import stream

STREAMED = ('--config.data_bytes=1.0', '--config.device_bytes=20000.0')


def test_killed_within_an_epoch_it_ends_in_the_numbers_of_memory(
  finished, command, data_dir, tmp_path
):
  """ArrayRecord, a source that the study trains, a frozen prefix, phases and cohorts."""
  workdir = tmp_path / 'streamed'
  process = subprocess.Popen(
    command(workdir, *STREAMED),
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  wait_for(
    lambda: any(workdir.glob('cohorts/turned-digits-scratch/checkpoints/*/meta.json')), process
  )
  process.kill()
  process.communicate()
  made = tiny.get_config()
  made.data_dir, made.data_bytes, made.device_bytes = str(data_dir), 1.0, 20_000.0
  run.run(made, workdir)
  assert numbers(workdir) == numbers(finished[0])


@pytest.fixture
def photographs(tmp_path):
  random = np.random.default_rng(0)
  for k, label in enumerate(('ant', 'bee', 'cat')):
    (tmp_path / 'images' / label).mkdir(parents=True)
    for i in range(30):
      pixels = np.clip(random.normal(60 + 60 * k, 40, (20, 24, 3)), 0, 255).astype(np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'images' / label / f'{i:02d}.jpg')
  return tmp_path / 'images'


@pytest.fixture
def made(photographs):
  made = config.base()
  made.sources.drawn = {
    'backbone': {'name': 'cnn'},
    'input': {'image_size': 8, 'channels': 3, 'mean': (0.5,) * 3, 'std': (0.25,) * 3},
    'dataset': f'folder:{photographs}',
    'train': {'steps': 4, 'batch_size': 16, 'learning_rate': 1e-2},
  }
  made.targets.photographs = {'dataset': f'folder:{photographs}', 'shift': 'rotate_90'}
  made.methods = {
    'probe': {'phases': ({'tune': 'head', 'augment': {'flip': 0.5}, 'views': 2},)},
    'full': {'phases': ({'tune': 'all', 'epochs': 1.5, 'augment': {'shift': 1}},)},
  }
  made.shots, made.seeds, made.grid.learning_rate = (0,), (0, 1), (1e-2,)
  made.train.steps, made.train.batch_size = 6, 8
  made.evaluators = ('knn',)
  return made


def test_every_way_through_a_study_gives_the_same_table(made, tmp_path, monkeypatch):
  """Views, epochs, shifts, an evaluator; windows of a step or two."""
  tables, sizes, window_size = [], [], stream.window_size

  def noted(*arguments):
    sizes.append(window_size(*arguments))
    return sizes[-1]

  monkeypatch.setattr(stream, 'window_size', noted)
  for name, limits in (('memory', (1e9, 0.0)), ('streamed', (1.0, 10_000.0))):
    made.data_bytes, made.device_bytes = limits
    sizes.clear()
    tables.append(report.read(run.run(made, tmp_path / name)))
  assert sum(size.rows is not None for size in sizes) == 3  # the source, features, images
  first, second = tables
  columns = [name for name in first if name.startswith(('test_', 'val_'))]
  columns += ['id', 'chosen', *(name for name in first if name.startswith('knn'))]
  assert len(first) == 4 and 'test_accuracy' in columns
  assert first[columns].equals(second[columns])
  for run_id in first.id[first.chosen]:
    kept = [
      np.load(tmp_path / name / 'runs' / run_id / 'predictions.npz')['logits']
      for name in ('memory', 'streamed')
    ]
    np.testing.assert_array_equal(*kept)


def test_a_dry_run_says_what_is_streamed(made):
  """90 images of 8 x 8 x 3 are 17,280 bytes."""
  name = made.targets.photographs.dataset
  made.data_bytes = 17_280.0
  text = dry_run.describe(made)
  assert f'Examples in memory: {name} (90 of 192 bytes); a data set takes 0.0 MB' in text
  made.data_bytes = 17_279.0
  text = dry_run.describe(made)
  assert f'Streamed: {name} (90 of 192 bytes) takes 0.0 MB' in text
  assert 'Examples in memory' not in text


def test_a_start_finds_what_an_earlier_one_did(photographs, tmp_path, monkeypatch):
  """A file that changed, another size or shift and a damaged note are looked at again."""
  monkeypatch.setenv('TLX_CACHE', str(tmp_path / 'cache'))
  decode_all, looks = _images.decode_all, []

  def counted(*arguments):
    looks.append(arguments)
    return decode_all(*arguments)

  monkeypatch.setattr(_images, 'decode_all', counted)

  def load(**options):
    looks.clear()
    name, options = f'folder:{photographs}', {'shift': 'none', **options}
    return datasets.load(name, 8, 3, data_bytes=1.0, once=looked.once, **options)

  first = load()
  assert len(looks) == 3  # parts
  again = load()
  assert not looks and again.sha256 == first.sha256
  for one, other in zip(first[:3], again[:3]):
    np.testing.assert_array_equal(one.digests, other.digests)
    np.testing.assert_array_equal(one.inputs.digests, other.inputs.digests)
  load(shift='invert')
  assert len(looks) == 3
  (note, _) = sorted((tmp_path / 'cache' / looked.FOLDER).iterdir())
  for kept in note.parent.iterdir():
    kept.write_bytes(kept.read_bytes()[:-9])
  assert load().sha256 == first.sha256 and len(looks) == 3
  file = photographs / 'ant' / '03.jpg'
  Image.new('RGB', (24, 20), 'red').save(file)
  assert load().sha256 != first.sha256 and len(looks) == 3
  file.write_bytes(b'nothing')
  for _ in range(2):
    with pytest.raises(ValueError, match='ant/03.jpg: its content is no image'):
      load()
  left_out = load(skip_bad=True)
  assert len(looks) == 3  # of the others; what is bad was known
  assert sum(len(split.ids) for split in left_out[:3]) == 89


def test_a_full_disk_keeps_nothing(photographs, tmp_path, monkeypatch):
  monkeypatch.setenv('TLX_CACHE', str(tmp_path / 'cache'))

  def full(opened, **arrays):
    opened.write(b'some')
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(looked.np, 'savez', full)
  datasets.load(f'folder:{photographs}', 8, 3, data_bytes=1.0, once=looked.once)
  assert not list((tmp_path / 'cache' / looked.FOLDER).iterdir())


def test_what_may_decode_to_other_pixels_is_looked_at_again(photographs, monkeypatch):
  """A file of the same size with its old time, a reader that was installed since, changed code."""
  stamps = []

  def once(stamp, look):
    stamps.append(stamp())
    return look()

  def load():
    return datasets.load(f'folder:{photographs}', 8, 3, data_bytes=1.0, once=once)

  file = photographs / 'ant' / '03.bmp'
  Image.new('RGB', (24, 20), 'red').save(file)
  first, before = load(), file.stat()
  Image.new('RGB', (24, 20), 'blue').save(file)
  os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
  now = file.stat()
  assert (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
  assert load().sha256 != first.sha256
  monkeypatch.setattr(_images, '_version', lambda package: f'{package} of tomorrow')
  load()
  monkeypatch.setattr(_images.inspect, 'getsource', lambda module: f'{module} of tomorrow')
  load()
  assert len(set(stamps)) == len(stamps) == 4


def test_records_are_known_by_their_bytes(data_dir):
  stamps = []

  def once(stamp, look):
    stamps.append(stamp())
    return look()

  for shift in ('none', 'none', 'invert'):
    datasets.load('uci_digits', 8, 1, shift, data_dir=data_dir, data_bytes=1.0, once=once)
  assert stamps[0] == stamps[1] and len(set(stamps)) == 2 and all(stamps)


def test_a_set_without_its_copies_is_looked_at_once_more(photographs, tmp_path, monkeypatch):
  """As is a source without the examples that judge a target."""
  monkeypatch.setenv('TLX_CACHE', str(tmp_path / 'cache'))
  for i in range(12):
    name = photographs / 'ant' / f'{i + 40}.jpg'
    name.write_bytes((photographs / 'ant' / f'{i:02d}.jpg').read_bytes())
  taken, take = [], _images.Images.take

  def counted(images, rows):
    taken.append(len(rows))
    return take(images, rows)

  monkeypatch.setattr(_images.Images, 'take', counted)
  found = []
  for limit in (1e9, 1.0, 1.0):
    taken.clear()
    known = {'data_bytes': limit, 'once': looked.once}
    target = datasets.load(f'folder:{photographs}', 8, 3, duplicates='drop', **known)
    source = datasets.load(f'folder:{photographs}', 8, 3, test_fraction=0.2, **known)
    kept = datasets.keep_out(source, [target], looked.once)
    found.append((target.sha256, source.sha256, kept.sha256, sum(taken)))
  (*in_memory, _), (*first, more), (*again, none) = found
  assert in_memory == first == again and len(set(first)) == 3
  assert more > 150 and not none
