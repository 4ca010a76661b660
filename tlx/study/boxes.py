"""What a trained detector finds in new photographs: boxes, a file of them, pictures."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from tlx import datasets, pictures
from tlx.study import use
from tlx.study.config import named
from tlx.study.phases import make_task
from tlx.tasks import _judged

LEAST = 0.5  # the score from which on a box is given
LEGIBLE = 800  # pixels of a picture's longer side, about


class Boxes(NamedTuple):
  """Boxes found [D], photograph by photograph and within one by falling score.

  images [D]: rows of photographs; boxes [D, 4]: x0, y0, x1, y1 in pixels of the photograph, as EXIF
  turns it
  sizes: (width, height) of each photograph, (0, 0) where it cannot be read; bad: {row: why}
  """

  images: np.ndarray
  boxes: np.ndarray
  scores: np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]
  sizes: list[tuple[int, int]]
  bad: dict[int, str]


def finds(model: use.Model) -> bool:
  """Whether what it answers are boxes."""
  return bool(model.task) and named(model.task)[0] == 'detection'


def find(model: use.Model, new: datasets.Unlabelled, least: float = LEAST) -> Boxes:
  """The boxes of a score of `least` or more in images.

  Raises:
    ValueError: what is new are no images, or an ensemble.
  """
  if model.others:
    raise ValueError('Boxes are not averaged over runs. Take one run.')
  task = make_task(model.task, len(model.class_names))
  kept, bad = use.apply(model, new, then=task.keep)
  sizes: list[tuple[int, int]] = []
  frames = np.ones((len(new.ids), 5), np.float32)
  for row, record in enumerate(new.records):
    size = datasets.size_of(record)
    if row in bad or isinstance(size, str):
      bad.setdefault(row, str(size))
      sizes.append((0, 0))
    else:
      sizes.append(size)
      frames[row] = datasets.frame(size, model.source['input']['image_size'])
  there = (kept['scores'] > 0) & (kept['scores'] >= least)
  there[list(bad)] = False
  images = np.nonzero(there)[0]
  boxes = _judged.original(kept['boxes'][there], frames[images])
  boxes = np.clip(boxes, 0, frames[images][:, [3, 4, 3, 4]])
  scores, labels = kept['scores'][there], kept['labels'][there]
  return Boxes(images, boxes, scores, labels, model.class_names, sizes, bad)


def as_coco(found: Boxes, ids: Sequence[str]) -> dict[str, Any]:
  """What was found as a COCO file has annotations, each with its score; ids of categories count
  from 1, images that cannot be read are left out.
  """
  annotations = []
  for i, (x0, y0, x1, y1) in enumerate(found.boxes.astype(float).round(2).tolist()):
    sides = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
    one: dict[str, Any] = {'id': i + 1, 'image_id': int(found.images[i]) + 1}
    one |= {'category_id': int(found.labels[i]) + 1, 'bbox': sides}
    one |= {'area': round(sides[2] * sides[3], 2), 'iscrowd': 0}
    annotations.append({**one, 'score': round(float(found.scores[i]), 4)})
  images = []
  for row, (name, (width, height)) in enumerate(zip(ids, found.sizes)):
    if row not in found.bad:
      images.append({'id': row + 1, 'file_name': name, 'width': width, 'height': height})
  categories = [{'id': label, 'name': name} for label, name in enumerate(found.names, 1)]
  return {'images': images, 'annotations': annotations, 'categories': categories}


def rows(found: Boxes, ids: Sequence[str]) -> dict[str, Any]:
  """{'id', 'class', 'score', 'x0', 'y0', 'x1', 'y1', 'error'}: a row a box, and one for each image
  that cannot be read; an image in which nothing was found has none.
  """
  images = [*found.images.tolist(), *found.bad]
  order = np.argsort(images, kind='stable')
  blank = np.full(len(found.bad), np.nan)
  columns = {'score': found.scores}
  columns |= dict(zip(('x0', 'y0', 'x1', 'y1'), found.boxes.T))
  classes = [*(found.names[label] for label in found.labels.tolist()), *([''] * len(blank))]
  return {
    'id': [ids[images[row]] for row in order],
    'class': [classes[row] for row in order],
    **{name: np.concatenate([column, blank])[order] for name, column in columns.items()},
    'error': [found.bad.get(images[row], '') for row in order],
  }


def drawn(found: Boxes, row: int, record: Any) -> Image.Image:
  """A photograph, as EXIF turns it, with its boxes and their scores in percent, and the classes'
  colours below; small ones are enlarged, so that scores can be read.
  """
  with Image.open(record) as opened:
    photograph = ImageOps.exif_transpose(opened).convert('RGB')
  zoom = max(1, round(LEGIBLE / max(photograph.size)))
  pixels = np.asarray(photograph.resize([zoom * side for side in photograph.size]))
  mine = found.images == row
  words = [f'{100 * score:.0f}' for score in found.scores[mine].tolist()]
  image = pictures.drawn(pixels, zoom * found.boxes[mine], found.labels[mine].tolist(), words)
  below = pictures.legend(found.names, image.size[0])
  return pictures.sheet([image], 1, below)


def write(
  model: use.Model, new: datasets.Unlabelled, folder: str | os.PathLike, least: float = LEAST
) -> str:
  """What was written into the folder, in words: boxes.json (`as_coco`), and drawn/ with a PNG of
  each image under its own path.

  Raises:
    ValueError: as `find`, or no image can be read.
  """
  found = find(model, new, least)
  if len(found.bad) == len(new.ids):
    row, why = next(iter(found.bad.items()))
    raise ValueError(f'nothing could be read. The first, {new.ids[row]}: {why}.')
  root = pathlib.Path(folder)
  root.mkdir(parents=True, exist_ok=True)
  content = as_coco(found, new.ids)
  (root / 'boxes.json').write_text(json.dumps(content))
  for row, (name, record) in enumerate(zip(new.ids, new.records)):
    if row not in found.bad:
      path = root / 'drawn' / f'{name}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      drawn(found, row, record).save(path)
  counts = np.bincount(found.labels, minlength=len(found.names))
  order = np.argsort(-counts, kind='stable').tolist()
  lines = [
    f'Wrote {root}: {len(found.scores):,} boxes of a score of {least:g} or more in '
    f'{len(content["images"]):,} images, {len(found.bad):,} could not be read.'
  ]
  lines += [f'  {found.names[label]}: {counts[label]:,}' for label in order if counts[label]]
  lines += [f'  {new.ids[row]}: {why}' for row, why in sorted(found.bad.items())]
  return '\n'.join(lines)
