"""Detection through a study: a frozen backbone runs once for every view; columns are pycocotools'
on what lies in the folder, the same after an interruption.
"""

import json

import numpy as np
import pytest
from etils import epath
from PIL import Image

from tests.tasks import rectangles
from tlx.study import config as configs
from tlx.study import run
from tlx.tasks import _judged
from tlx.train import fit

pytest.importorskip('pycocotools', reason='pip install -r requirements.txt')
SIDE = rectangles.SIDE


def write(root):
  """Coloured rectangles as COCO has them; of the test part one is a crowd."""
  number = 0
  for part, num_images in (('train', 12), ('val', 5), ('test', 6)):
    (root / part).mkdir(parents=True)
    images, targets = rectangles.drawn(num_images, seed=number)
    found = {'categories': [{'id': 4, 'name': 'red'}, {'id': 9, 'name': 'green'}]}
    found |= {'images': [], 'annotations': []}
    for row, image in enumerate(images):
      number += 1
      Image.fromarray(image[: SIDE - 8]).save(root / part / f'{number}.png')
      size = {'width': SIDE, 'height': SIDE - 8}
      found['images'].append({'id': number, 'file_name': f'{number}.png', **size})
      for i in np.flatnonzero(targets['valid'][row]):
        x0, y0, x1, y1 = targets['boxes'][row, i].tolist()
        height = min(y1, SIDE - 8) - y0
        found['annotations'].append(
          {
            'id': len(found['annotations']) + 1,
            'image_id': number,
            'category_id': (4, 9)[targets['labels'][row, i]],
            'bbox': [x0, y0, x1 - x0, height],
            'area': (x1 - x0) * height,
            'iscrowd': int(part == 'test' and row == 1 and i == 0),
          }
        )
    (root / f'{part}.json').write_text(json.dumps(found))


def config_of(root):
  config = configs.base()
  config.name = 'boxes'
  config.sources.small = {
    'backbone': {'name': 'cnn', 'channels': (4, 4)},
    'input': {'image_size': 32, 'mean': (0.4,) * 3, 'std': (0.3,) * 3},
    'dataset': f'coco:{root}',
    'task': 'detection',
    'train': {'steps': 4, 'batch_size': 4, 'learning_rate': 3e-3},
  }
  config.targets.rectangles = {'dataset': f'coco:{root}', 'task': 'detection'}
  head = {'stage': ('block1', 'block2'), 'kind': 'boxes', 'size': 8}
  views = {'tune': 'head', 'augment': {'flip': 0.5, 'zoom': 0.2}, 'views': 3}
  config.methods.views = {'head_after': head, 'phases': (views,)}
  config.shots, config.seeds = (3, 0), (0,)
  config.train.steps = 4
  config.train.batch_size = 4
  config.train.evaluations = 2
  config.grid.learning_rate = (3e-3, 1e-2)
  config.checkpoint_seconds = 0.0
  return config


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  root = tmp_path_factory.mktemp('rectangles')
  write(root / 'data')
  config = config_of(root / 'data')
  run.run(config, epath.Path(root / 'study'))
  return config, root


def test_columns_are_those_of_pycocotools_on_the_files_of_the_study(finished):
  """Of its predictions and the annotations as written: a crowd and images without boxes too."""
  from pycocotools.coco import COCO
  from pycocotools.cocoeval import COCOeval

  _, root = finished
  truth = COCO(root / 'data' / 'test.json')
  folders = sorted((root / 'study' / 'runs').rglob('predictions.npz'))
  assert len(folders) == 2  # of each size the chosen run
  for path in folders:
    kept, result = np.load(path), json.loads((path.parent / 'result.json').read_text())
    answers = []
    for row, number in enumerate(kept['targets/image_id']):
      scale, left, above, width, height = kept['targets/frame'][row]
      for box, score, label in zip(kept['boxes'][row], kept['scores'][row], kept['labels'][row]):
        if score > 0:
          x0, y0, x1, y1 = ((box - [left, above, left, above]) / scale).tolist()
          x0, x1 = np.clip([x0, x1], 0, width)
          y0, y1 = np.clip([y0, y1], 0, height)
          sides = {'bbox': [x0, y0, x1 - x0, y1 - y0], 'category_id': (4, 9)[label]}
          answers.append({'image_id': int(number), 'score': float(score), **sides})
    judge = COCOeval(truth, truth.loadRes(answers), 'bbox')
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    wanted = np.where(judge.stats > -1, judge.stats, np.nan)
    found = [result['test'][name] for name in _judged.COLUMNS]
    np.testing.assert_allclose(np.array(found, float), wanted, atol=1e-6)
    assert np.nanmax(wanted) > 0.01


def table_of(workdir):
  """{run: its test columns}."""
  found = {}
  for path in sorted((workdir / 'runs').glob('*/result.json')):
    result = json.loads(path.read_text())
    if result['test']:
      found[result['id']] = result['test']
  return found


def test_an_interrupted_study_of_boxes_ends_the_same(finished, tmp_path, monkeypatch):
  """Bit for bit, with the views of a frozen backbone made anew."""
  config, root = finished
  save, calls = fit._save_if_due, []

  def interrupted(*arguments):
    save(*arguments)
    calls.append(0)
    if len(calls) % 2 == 0:
      raise KeyboardInterrupt(15)

  with monkeypatch.context() as patch:
    patch.setattr(fit, '_save_if_due', interrupted)
    for _ in range(2):
      with pytest.raises(KeyboardInterrupt):
        run.run(config, epath.Path(tmp_path))
  run.run(config, epath.Path(tmp_path))
  assert table_of(tmp_path) == table_of(root / 'study')
  for path in sorted((root / 'study' / 'runs').glob('*/predictions.npz')):
    kept = np.load(path)
    again = np.load(tmp_path / path.relative_to(root / 'study'))
    for name in kept:
      np.testing.assert_array_equal(kept[name], again[name], err_msg=name)
