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


class Matched(NamedTuple):
  """Boxes against objects at an IoU of 0.5, as COCO does it.

  hits [D]: 1 right, 0 wrong, -1 neither: of a crowd
  seen [G]: which objects were found; crowds count as found
  """

  hits: np.ndarray
  seen: np.ndarray


def matched(found: _judged.Found, objects: _judged.Objects) -> Matched:
  """Each box, by falling score, takes the object of its class and image that it overlaps most and
  that is not taken; where none is at 0.5, a crowd that it lies in by half or more.
  """
  hits = np.zeros(len(found.scores), int)
  seen = objects.crowd > 0
  taken = seen.copy()
  for image in np.unique(found.images).tolist():
    rows, own = (np.flatnonzero(of.images == image) for of in (found, objects))
    rows = rows[np.argsort(-found.scores[rows], kind='stable')]
    shares = _judged.overlaps(found.boxes[rows], objects.boxes[own])
    for row, share in zip(rows, shares):
      mine = objects.labels[own] == found.labels[row]
      free = np.where(mine & ~taken[own], share, 0.0)
      if len(own) and free.max() >= IOU:
        hits[row] = 1
        taken[own[free.argmax()]] = seen[own[free.argmax()]] = True
      elif _in_crowd(found.boxes[row], objects.boxes[own[mine & (objects.crowd[own] > 0)]]):
        hits[row] = -1
  return Matched(hits, seen)


def _in_crowd(box: np.ndarray, crowds: np.ndarray) -> bool:
  """Whether half of the box or more is in one of the crowds."""
  begin, end = np.maximum(box[:2], crowds[:, :2]), np.minimum(box[2:], crowds[:, 2:])
  shared = np.maximum(end - begin, 0).prod(-1)
  return bool(len(crowds)) and shared.max() >= IOU * (box[2:] - box[:2]).prod()


def errors(found: _judged.Found, objects: _judged.Objects) -> dict[str, int]:
  """How many errors of each of `KINDS` there are, after TIDE (Bolya et al. 2020, arXiv:2008.08115,
  section 2.2), with thresholds 0.5 and 0.1.

  A wrong box is of the first of these kinds that fits: near an object of its class, on one of
  another, near one of another, on an object of its class that is found already, or on none. An
  object is missed where neither a right box nor one of the first two kinds is its own. TIDE weighs
  each kind by the AP that it costs; these are counts of boxes.
  """
  hits, seen = matched(found, objects)
  counts = dict.fromkeys(KINDS, 0)
  nearly = np.zeros(len(seen), bool)
  for row in np.flatnonzero(hits == 0).tolist():
    own = np.flatnonzero((objects.images == found.images[row]) & (objects.crowd == 0))
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
  counts['missed'] = int((~seen & ~nearly).sum())
  return counts


def curve(found: _judged.Found, objects: _judged.Objects, label: int) -> np.ndarray:
  """[n, 2]: recall and precision of a class after each of its boxes, by falling score; crowds and
  what is in them left out.
  """
  hits = matched(found, objects).hits
  mine = (found.labels == label) & (hits >= 0)
  order = np.argsort(-found.scores[mine], kind='stable')
  right = np.cumsum(hits[mine][order])
  wanted = ((objects.labels == label) & (objects.crowd == 0)).sum()
  return np.stack([right / max(wanted, 1), right / np.arange(1, len(right) + 1)], -1)


def threshold(found: _judged.Found, objects: _judged.Objects) -> float:
  """The score from which on boxes have the best F1 of all classes together; 1 without a box."""
  hits = matched(found, objects).hits
  counted = hits >= 0
  order = np.argsort(-found.scores[counted], kind='stable')
  right = np.cumsum(hits[counted][order])
  wanted = (objects.crowd == 0).sum()
  scores = 2 * right / (np.arange(1, len(right) + 1) + wanted)
  return float(found.scores[counted][order][scores.argmax()]) if len(right) else 1.0


def above(found: _judged.Found, score: float) -> _judged.Found:
  """The boxes of at least that score."""
  return _judged.Found(*(field[found.scores >= score] for field in found))


class Judged(NamedTuple):
  """The run of the best method on validation at the largest size, of its first seed.

  score: from which on boxes are drawn and errors are counted (`threshold`); found: those boxes
  f1 [N]: of each test image; 1 where there is nothing to find and nothing was found
  worst, best: rows of images, the worst and the best of them first
  """

  shots: int
  method: str
  ids: np.ndarray
  frames: np.ndarray
  images: np.ndarray
  everything: _judged.Found
  found: _judged.Found
  objects: _judged.Objects
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
  ids, targets, everything, objects = read
  score = threshold(everything, objects)
  found = above(everything, score)
  f1, wanted = _of_images(found, objects, targets['image_id'])
  worst = np.lexsort((-wanted, f1)).tolist()[:WORST]
  best = [row for row in np.lexsort((-wanted, -f1)).tolist() if wanted[row] and row not in worst]
  return Judged(
    shots,
    ranked[0][0],
    ids,
    targets['frame'],
    targets['image_id'],
    everything,
    found,
    objects,
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
  """(ids, targets, boxes found, objects) of a run's test images; None where none are kept."""
  kept = read_predictions(results.workdir, run)
  if kept is None or 'boxes' not in kept:
    return None
  of_targets = [name for name in kept if name.startswith('targets/')]
  targets = {name.removeprefix('targets/'): kept[name] for name in of_targets}
  return kept['ids'], targets, _judged.found(kept, targets), _judged.objects(targets)


def counted(results: Results, source: str, target: str) -> tuple[int, pd.DataFrame]:
  """(the largest size, a row a method: of the boxes of its first seed from its own `score` on, how
  many are right, and its errors by kind).
  """
  shots, ranked = _ranked(results, source, target)
  rows = []
  for method, run in ranked:
    if read := _read(results, run):
      everything, objects = read[2:]
      score = threshold(everything, objects)
      found = above(everything, score)
      right = int((matched(found, objects).hits == 1).sum())
      of_method = {'method': method, 'score': score, 'objects': int((objects.crowd == 0).sum())}
      rows.append({**of_method, 'right': right, **errors(found, objects)})
  return shots, pd.DataFrame(rows)


def _of_images(
  found: _judged.Found, objects: _judged.Objects, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(F1 of each image, how many objects it has)."""
  hits, _ = matched(found, objects)
  f1, wanted = np.ones(len(images)), np.zeros(len(images), int)
  for row, image in enumerate(images):
    mine = hits[found.images == image]
    wanted[row] = ((objects.images == image) & (objects.crowd == 0)).sum()
    if total := (mine >= 0).sum() + wanted[row]:
      f1[row] = 2 * (mine == 1).sum() / total
  return f1, wanted


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
  image = looked.images[row]
  found = _judged.Found(*(field[looked.found.images == image] for field in looked.found))
  objects = _judged.Objects(*(field[looked.objects.images == image] for field in looked.objects))
  hits, seen = matched(found, objects)
  scores = [f'{100 * score:.0f}' for score in found.scores]
  sides = (
    pictures.drawn(pixels, objects.boxes * zoom, objects.labels.tolist(), dashed=(~seen).tolist()),
    pictures.drawn(pixels, found.boxes * zoom, found.labels.tolist(), scores, hits == 0),
  )
  whole = pictures.sheet(sides, 2, pictures.legend(names, 2 * sides[0].size[0]))
  file = io.BytesIO()
  whole.save(file, 'jpeg', quality=85, subsampling=0)  # thin lines keep their colour
  return {'jpeg': base64.b64encode(file.getvalue()).decode()}


def by_class(results: Results) -> pd.DataFrame:
  """AP of every class: a row a class, method and size, means over the chosen runs; NaN where no
  test image has the class.
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
            'AP': values['AP_by_class'][:, label].mean(),
            'AP50': values['AP50_by_class'][:, label].mean(),
            'runs': len(values['AP_by_class']),
          }
        )
  return pd.DataFrame(rows)
