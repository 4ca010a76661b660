"""What people see of detection: before a study, in its report, and of new photographs."""

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tlx
from tests.datasets import boxes as written
from tlx import datasets, report
from tlx.parity import cases
from tlx.report import boxes, folder
from tlx.study import boxes as finder
from tlx.study import config as configs
from tlx.study import look, run, use

pytest.importorskip('pycocotools', reason='pip install -r requirements.txt')


def config_of(dataset):
  """The head alone, two steps of it on the smallest of the real networks."""
  case = cases.read('resnet_basic')
  config = configs.base()
  config.name = 'boxes'
  config.sources.small = {
    'backbone': {'name': 'resnet', **case.options},
    'weights': str(cases.FOLDER / f'{case.name}.safetensors'),
    'input': {'image_size': 32, 'mean': (0.4,) * 3, 'std': (0.3,) * 3},
  }
  config.targets.animals = {'dataset': dataset, 'task': 'detection'}
  config.methods = {'head': {'phases': ({'tune': 'head'},)}}
  config.train.steps = 2
  config.train.batch_size = 2
  config.train.evaluations = 1
  config.shots = (2,)
  config.seeds = (0,)
  return config


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  root = tmp_path_factory.mktemp('shown')
  return run.run(config_of(written.write_voc(root / 'data')), root / 'study')


def test_look_counts_boxes_and_draws_them(tmp_path):
  (found,) = look.look(config_of(written.write_coco(tmp_path))).values()
  assert [line.split() for line in found.text.splitlines() if line.startswith('  dog')] == [
    ['dog', '1', '1', '1', '25%']  # the sides are 10, 20 and 4 of 40
  ]
  assert 'fewer than 20 boxes to find in the test part: cat (1), dog (1)' in found.text
  sheet = np.asarray(Image.open(io.BytesIO(found.sheet)))
  assert sheet.shape[0] > 32 and sheet.shape[1] == 3 * 32 + 2 * 4
  assert (sheet == (0x56, 0xB4, 0xE9)).all(-1).sum() > 30  # the dogs' colour


def test_the_report_has_pictures_curves_and_errors(workdir):
  page = report.write(workdir).read_text()
  for words in ('Boxes it found', 'Worst images of', 'Precision over recall', 'AP by class at 2'):
    assert words in page, words
  results = folder.load(workdir)
  looked = boxes.judged(results, 'small', 'animals')
  kept = folder.read_predictions(workdir, results.runs['id'].iloc[0])
  assert kept['targets/boxes'].shape == (2, 2, 4) and kept['labels'].shape == (2, 100)
  record = folder.read_records(workdir, 'small', 'animals')['test/f.png']
  shown = boxes.drawn(looked, list(looked.ids).index('test/f.png'), record, written.NAMES)
  picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown['jpeg'])))).astype(int)
  assert picture.shape[:2] == (300 + 18 + 2, 2 * 400 + 4)  # 40 x 30 without padding, twice
  # the cat reaches from the corner to the middle of the left panel, where it ends in orange
  orange = (np.abs(picture[20:130] - (0xE6, 0x9F, 0x00)).sum(-1) < 100).sum(0)
  assert orange[195:203].max() > 25 > orange[100:190].max()
  shots, counts = boxes.counted(results, 'small', 'animals')
  assert shots == 2 and counts['method'].tolist() == ['head'] and (counts['objects'] == 2).all()


def test_new_photographs(workdir, tmp_path):
  """Boxes are in the pixels of the photograph, whatever its shape, and those of the study's test
  images are what it kept of them.
  """
  tall = tmp_path / 'new' / 'tall.png'
  written.save_images(tmp_path / 'new', ('f',))
  Image.new('RGB', (30, 90)).save(tall)
  (tmp_path / 'new' / 'broken.png').write_bytes(b'none')
  model = use.load_run(workdir)
  new = datasets.unlabelled(tmp_path / 'new')
  found = finder.find(model, new, least=0.0)
  assert found.names == written.NAMES and found.bad.keys() == {0}
  assert found.sizes == [(0, 0), (40, 30), (30, 90)]
  name = use.best_run(workdir)[0]
  kept = folder.read_predictions(workdir, name)
  row = list(kept['ids']).index('test/f.png')
  frame = kept['targets/frame'][row]
  wanted = np.clip((kept['boxes'][row] - np.tile(frame[1:3], 2)) / frame[0], 0, [40, 30, 40, 30])
  mine = found.images == 1
  assert mine.sum() == (kept['scores'][row] > 0).sum()
  np.testing.assert_allclose(found.boxes[mine], wanted[: mine.sum()], atol=1e-2)
  np.testing.assert_allclose(found.scores[mine], kept['scores'][row][: mine.sum()], atol=1e-5)
  assert (found.boxes[found.images == 2].max(0) <= (30, 90, 30, 90)).all()
  frame = pd.DataFrame(tlx.predict(model, tmp_path / 'new', least=0.0))
  assert frame['id'].tolist() == [new.ids[image] for image in (0, *found.images)]
  assert frame['error'].iloc[0] and (frame['error'].iloc[1:] == '').all()
  np.testing.assert_array_equal(frame[['x0', 'y0', 'x1', 'y1']].iloc[1:], found.boxes)
  assert set(frame['class'].iloc[1:]) <= set(written.NAMES) and frame['score'].isna().sum() == 1
  half = finder.find(model, new, least=float(np.median(found.scores)))
  assert 0 < len(half.scores) < len(found.scores)
  said = finder.write(model, new, tmp_path / 'out', least=0.0)
  assert 'in 2 images, 1 could not be read' in said and 'broken.png' in said
  with pytest.raises(ValueError, match='nothing could be read. The first, broken.png: '):
    finder.write(model, datasets.unlabelled(tmp_path / 'new' / 'broken.png'), tmp_path / 'none')
  with Image.open(tmp_path / 'out' / 'drawn' / 'tall.png.png') as picture:
    assert picture.size[0] == 9 * 30 and picture.size[1] > 9 * 90  # enlarged, and colours below
  content = json.loads((tmp_path / 'out' / 'boxes.json').read_text())
  assert [image['file_name'] for image in content['images']] == ['f.png', 'tall.png']
  one = content['annotations'][0]
  x, y, width, height = one['bbox']
  np.testing.assert_allclose([x, y, x + width, y + height], found.boxes[0], atol=0.01)
  assert content['categories'] == [
    {'id': 1, 'name': 'cat'},
    {'id': 2, 'name': 'dog'},
  ]
