"""What detectors found on test images: errors by kind, precision over recall, pictures."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from tlx import pictures
from tlx.report import classes, numbers
from tlx.report.folder import Results, in_order, read_predictions
from tlx.tasks import _judged

IOU = 0.5  # with an object of its class at which a box is right
NEAR = 0.1  # below it a box is on the background
KINDS = ('localisation', 'class', 'both', 'duplicate', 'background', 'missed')
BEST, WORST = 3, 6  # images that a page shows
PIXELS = 400  # of the longer side of a picture
_NONE = np.zeros(0, int)


class Matched(NamedTuple):
  """Boxes against objects at an IoU of 0.5, as COCO does it.

  hits [D]: 1 right, 0 wrong, -1 neither: of a crowd
  takes [D]: the row of the object that a box is right of, or -1
  """

  found: _judged.Found
  objects: _judged.Objects
  hits: np.ndarray
  takes: np.ndarray

  @property
  def seen(self) -> np.ndarray:
    """Which objects were found [G]; crowds count as found."""
    seen = self.objects.crowd > 0
    seen[self.takes[self.takes >= 0]] = True
    return seen

  @property
  def num_objects(self) -> int:
    """Objects that are to be found."""
    return int((self.objects.crowd == 0).sum())


def matched(found: _judged.Found, objects: _judged.Objects) -> Matched:
  """Each box, by falling score, takes the object of its class and image that it overlaps most and
  that is not taken; where none is at 0.5, a crowd that it lies in by half or more.
  """
  hits = np.zeros(len(found.scores), int)
  takes = np.full(len(found.scores), -1)
  taken = objects.crowd > 0
  of_image = _judged.by_image(objects.images)
  for image, rows in _judged.by_image(found.images).items():
    own = of_image.get(image, _NONE)
    rows = rows[np.argsort(-found.scores[rows], kind='stable')]
    shares = _judged.overlaps(found.boxes[rows], objects.boxes[own])
    for row, share in zip(rows, shares):
      mine = objects.labels[own] == found.labels[row]
      free = np.where(mine & ~taken[own], share, 0.0)
      if len(own) and free.max() >= IOU:
        hits[row], takes[row] = 1, own[free.argmax()]
        taken[takes[row]] = True
      elif _in_crowd(found.boxes[row], objects.boxes[own[mine & (objects.crowd[own] > 0)]]):
        hits[row] = -1
  return Matched(found, objects, hits, takes)


def _in_crowd(box: np.ndarray, crowds: np.ndarray) -> bool:
  """Whether half of the box or more is in one of the crowds."""
  begin, end = np.maximum(box[:2], crowds[:, :2]), np.minimum(box[2:], crowds[:, 2:])
  shared = np.maximum(end - begin, 0).prod(-1)
  return bool(len(crowds)) and shared.max() >= IOU * (box[2:] - box[:2]).prod()


def above(all_boxes: Matched, score: float) -> Matched:
  """The boxes of at least that score: those below it took nothing from them."""
  rows = all_boxes.found.scores >= score
  found = _judged.Found(*(field[rows] for field in all_boxes.found))
  return Matched(found, all_boxes.objects, all_boxes.hits[rows], all_boxes.takes[rows])


def errors(boxes: Matched) -> dict[str, int]:
  """How many errors of each of `KINDS` there are, after TIDE (Bolya et al. 2020, arXiv:2008.08115,
  section 2.2), with thresholds 0.5 and 0.1.

  A wrong box is of the first of these kinds that fits: near an object of its class, on one of
  another, near one of another, on an object of its class that is found already, or on none. An
  object is missed where neither a right box nor one of the first two kinds is its own. TIDE weighs
  each kind by the AP that it costs; these are counts of boxes.
  """
  found, objects = boxes.found, boxes.objects
  counts = dict.fromkeys(KINDS, 0)
  nearly = np.zeros(len(objects.images), bool)
  of_image = _judged.by_image(np.where(objects.crowd > 0, -1, objects.images))
  for row in np.flatnonzero(boxes.hits == 0).tolist():
    own = of_image.get(int(found.images[row]), _NONE)
    shares = _judged.overlaps(found.boxes[row : row + 1], objects.boxes[own])[0]
    same = objects.labels[own] == found.labels[row]
    mine, others = (np.where(of, shares, 0.0).max(initial=0.0) for of in (same, ~same))
    if NEAR <= mine < IOU:
      kind = 'localisation'
    elif others >= IOU:
      kind = 'class'
    elif mine >= IOU:
      kind = 'duplicate'
    else:
      kind = 'both' if others >= NEAR else 'background'
    counts[kind] += 1
    if kind in ('localisation', 'class'):
      of_kind = np.where(same == (kind == 'localisation'), shares, 0.0)
      nearly[own[of_kind.argmax()]] = True
  counts['missed'] = int((~boxes.seen & ~nearly).sum())
  return counts


def curve(boxes: Matched, label: int) -> np.ndarray:
  """[n, 2]: recall and precision of a class after each of its boxes, by falling score; crowds and
  what is in them left out.
  """
  mine = (boxes.found.labels == label) & (boxes.hits >= 0)
  order = np.argsort(-boxes.found.scores[mine], kind='stable')
  right = np.cumsum(boxes.hits[mine][order])
  objects = ((boxes.objects.labels == label) & (boxes.objects.crowd == 0)).sum()
  return np.stack([right / max(objects, 1), right / np.arange(1, len(right) + 1)], -1)


def threshold(boxes: Matched) -> float:
  """The score from which on boxes have the best F1 of all classes together; 1 without a box."""
  counted = boxes.hits >= 0
  order = np.argsort(-boxes.found.scores[counted], kind='stable')
  right = np.cumsum(boxes.hits[counted][order])
  f1 = 2 * right / (np.arange(1, len(right) + 1) + boxes.num_objects)
  return float(boxes.found.scores[counted][order][f1.argmax()]) if len(right) else 1.0


class Judged(NamedTuple):
  """The run of the best method on validation at the largest size, of its first seed.

  score: from which on boxes are drawn and errors are counted (`threshold`); boxes: those boxes
  f1 [N]: of each test image; 1 where there is nothing to find and nothing was found
  worst, best: rows of images, the worst and the best of them first
  """

  shots: int
  method: str
  ids: np.ndarray
  frames: np.ndarray
  images: np.ndarray
  everything: Matched
  boxes: Matched
  score: float
  f1: np.ndarray
  worst: list[int]
  best: list[int]


def judged(results: Results, source: str, target: str) -> Judged | None:
  """What was found in a pair's test images; None where boxes are not what was asked for.

  Raises:
    ValueError: a predictions.npz cannot be read.
  """
  shots, ranked = _ranked(results, source, target)
  read = _read(results, ranked[0][1]) if ranked else None
  if read is None:
    return None
  ids, targets, everything = read
  score = threshold(everything)
  boxes = above(everything, score)
  f1, counts = _of_images(boxes, targets['image_id'])
  worst = np.lexsort((-counts, f1)).tolist()[:WORST]
  best = [row for row in np.lexsort((-counts, -f1)).tolist() if counts[row] and row not in worst]
  return Judged(
    shots,
    ranked[0][0],
    ids,
    targets['frame'],
    targets['image_id'],
    everything,
    boxes,
    score,
    f1,
    worst,
    best[:BEST],
  )


def _ranked(results: Results, source: str, target: str) -> tuple[int, list[tuple[str, str]]]:
  """(the largest size, [(method, its run of the first seed)], those best on validation first);
  nothing of folds, whose runs are tested on other images each.
  """
  runs = numbers.tested(results)
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  if not len(runs) or results.metrics[target].column != 'AP' or runs['fold'].notna().any():
    return 0, []
  largest = in_order(runs['shots'])[-1]
  ranked = numbers.by_validation(results, runs[runs['shots'] == largest])
  return largest, [
    (method, group.sort_values('seed', kind='stable')['id'].iloc[0]) for method, group in ranked
  ]


def _read(results: Results, run: str) -> tuple[Any, ...] | None:
  """(ids, targets, `Matched`) of a run's test images; None where none are kept."""
  kept = read_predictions(results.workdir, run)
  if kept is None or 'boxes' not in kept:
    return None
  of_targets = [name for name in kept if name.startswith('targets/')]
  targets = {name.removeprefix('targets/'): kept[name] for name in of_targets}
  return kept['ids'], targets, matched(_judged.found(kept, targets), _judged.objects(targets))


def counted(results: Results, source: str, target: str) -> tuple[int, pd.DataFrame]:
  """(the largest size, a row a method: of the boxes of its first seed from its own `score` on, how
  many are right, and its errors by kind).
  """
  shots, ranked = _ranked(results, source, target)
  rows = []
  for method, run in ranked:
    if read := _read(results, run):
      score = threshold(read[2])
      boxes = above(read[2], score)
      of_method = {'method': method, 'score': score, 'objects': boxes.num_objects}
      rows.append({**of_method, 'right': int((boxes.hits == 1).sum()), **errors(boxes)})
  return shots, pd.DataFrame(rows)


def _of_images(boxes: Matched, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(F1 of each image, how many objects it has)."""
  order = np.argsort(images)

  def count(of: np.ndarray) -> np.ndarray:
    return np.bincount(order[np.searchsorted(images, of, sorter=order)], minlength=len(images))

  objects = count(boxes.objects.images[boxes.objects.crowd == 0])
  right, answers = (count(boxes.found.images[of]) for of in (boxes.hits == 1, boxes.hits >= 0))
  total = answers + objects
  return np.divide(2 * right, total, out=np.ones(len(images)), where=total > 0), objects


def wanted(results: Results, source: str, target: str) -> list[str]:
  """The ids of the test images that the report shows of a pair."""
  looked = judged(results, source, target)
  return [str(looked.ids[row]) for row in (*looked.worst, *looked.best)] if looked else []


def drawn(
  looked: Judged, row: int, content: Mapping[str, str], names: Sequence[str]
) -> dict[str, str]:
  """{'jpeg': base64} of a test image twice, without its padding: at the left the objects, at the
  right the boxes that were found, with their scores in percent. Objects that were missed and boxes
  that are wrong are dashed.

  Raises:
    ValueError: the picture of the image cannot be read.
  """
  (data,) = content.values()
  try:
    stored = Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert('RGB')
  except OSError as error:
    raise ValueError(f'The picture of {looked.ids[row]} cannot be read: {error}') from error
  stored = stored.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
  scale, pad_x, pad_y, width, height = looked.frames[row].tolist()
  zoom = PIXELS / max(width, height)  # pixels of the picture in one of the original
  left, top = round(pad_x * zoom / scale), round(pad_y * zoom / scale)
  cut = (left, top, left + round(width * zoom), top + round(height * zoom))
  pixels = np.asarray(stored.crop(cut))
  boxes, image = looked.boxes, looked.images[row]
  mine, own = boxes.found.images == image, boxes.objects.images == image
  found = _judged.Found(*(field[mine] for field in boxes.found))
  objects = _judged.Objects(*(field[own] for field in boxes.objects))
  missed, wrong = (~boxes.seen[own]).tolist(), (boxes.hits[mine] == 0).tolist()
  scores = [f'{100 * score:.0f}' for score in found.scores]
  sides = (
    pictures.drawn(pixels, objects.boxes * zoom, objects.labels.tolist(), dashed=missed),
    pictures.drawn(pixels, found.boxes * zoom, found.labels.tolist(), scores, wrong),
  )
  whole = pictures.sheet(sides, 2, pictures.legend(names, 2 * sides[0].size[0]))
  file = io.BytesIO()
  whole.save(file, 'jpeg', quality=85, subsampling=0)  # thin lines keep their colour
  return {'jpeg': base64.b64encode(file.getvalue()).decode()}


def by_class(results: Results) -> pd.DataFrame:
  """AP of every class: a row a class, method and size, means over the `runs` that tested the class;
  NaN where none did. Folds need not all have an image of it.
  """
  runs, rows = numbers.tested(results), []
  for source, target in results.pairs:
    if results.metrics[target].column != 'AP':
      continue
    names = classes.class_names(results, source, target)
    part = runs[(runs['source'] == source) & (runs['target'] == target)]
    for (_, _, method, shots), group in numbers.groups(part, results):
      tests = [results.found[name]['test'] or {} for name in group['id']]
      values = {}
      for column in ('AP_by_class', 'AP50_by_class'):
        of_runs = [test[column] for test in tests if test.get(column)]
        values[column] = np.array(of_runs, float).reshape(-1, len(names)) if of_runs else None
      if values['AP_by_class'] is None or values['AP50_by_class'] is None:
        continue
      for label, name in enumerate(names):
        rows.append(
          {
            'source': source,
            'target': target,
            'method': method,
            'shots': shots,
            'class': name,
            'AP': _mean(values['AP_by_class'][:, label]),
            'AP50': _mean(values['AP50_by_class'][:, label]),
            'runs': int((~np.isnan(values['AP_by_class'][:, label])).sum()),
          }
        )
  return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
  """The mean of those that are numbers; NaN without one."""
  there = values[~np.isnan(values)]
  return float(there.mean()) if len(there) else np.nan
