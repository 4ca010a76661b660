"""Boxes that were found against those that are there, on the host: AP of COCO and of VOC."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

# pycocotools' `stats`, in its order: AP over IoU 0.5 to 0.95, at 0.5 and 0.75, of objects below
# 32^2, below 96^2 and beyond square pixels; recall with 1, 10 and 100 boxes an image and class, and
# of these sizes.
COLUMNS = (
  *('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large'),
  *('AR_1', 'AR_10', 'AR_100', 'AR_small', 'AR_medium', 'AR_large'),
)
VOC_IOU = 0.5


class Found(NamedTuple):
  """Boxes found [D], by rising number of the image and within one by falling score: where scores
  are equal the first counts as the surer, as pycocotools has it.
  """

  images: np.ndarray  # numbers of images
  boxes: np.ndarray  # [D, 4] x0, y0, x1, y1 in pixels of the original images
  scores: np.ndarray
  labels: np.ndarray


class Objects(NamedTuple):
  """The objects that are there [G].

  crowd: a region of many, or an object that is too difficult to be asked for: neither to be found
    nor wrong to be found
  area: in square pixels; it says how large an object is
  """

  images: np.ndarray
  boxes: np.ndarray  # as of Found
  labels: np.ndarray
  crowd: np.ndarray
  area: np.ndarray


def found(kept: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> Found:
  """What a task kept of N examples, in the pixels of their original images and cut off there."""
  order = np.argsort(targets['image_id'], kind='stable')
  frames, numbers = targets['frame'][order], targets['image_id'][order]
  of_all = {name: kept[name][order] for name in ('boxes', 'scores', 'labels')}
  there = of_all['scores'] > 0
  rows = np.nonzero(there)[0]
  boxes = original(of_all['boxes'][there], frames[rows])
  boxes = np.clip(boxes, 0, frames[rows][:, [3, 4, 3, 4]].astype(np.float64))
  scores = of_all['scores'][there].astype(np.float64)
  return Found(numbers[rows], boxes, scores, of_all['labels'][there])


def objects(targets: Mapping[str, np.ndarray]) -> Objects:
  """The objects of N examples, in the pixels of their original images."""
  there = targets['valid'] > 0
  rows = np.nonzero(there)[0]
  boxes = original(targets['boxes'][there], targets['frame'][rows])
  of_all = [targets[name][there] for name in ('labels', 'crowd', 'area')]
  return Objects(targets['image_id'][rows], boxes, *of_all)


def by_image(images: np.ndarray) -> dict[int, np.ndarray]:
  """{number of an image: the rows that are of it, in their order}.

  >>> by_image(np.array([7, 3, 7]))
  {3: array([1]), 7: array([0, 2])}
  """
  order = np.argsort(images, kind='stable')
  numbers, starts = np.unique(images[order], return_index=True)
  return dict(zip(numbers.tolist(), np.split(order, starts[1:])))


def original(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
  """Boxes [D, 4] of letterboxed images in pixels of the original ones: frames [D, 5] have the
  scale, the padding at the left and above, and the original's width and height.

  >>> original(np.array([[10., 20., 30., 40.]]), np.array([[0.5, 0., 10., 100., 80.]]))
  array([[20., 20., 60., 60.]])
  """
  frames = frames.astype(np.float64)
  return (boxes.astype(np.float64) - frames[:, [1, 2, 1, 2]]) / frames[:, :1]


def coco(found: Found, objects: Objects, images: np.ndarray, num_classes: int) -> dict[str, Any]:
  """COCO's twelve numbers, and AP and AP50 of each class, computed by pycocotools.

  NaN where there is nothing to average over: a size or a class without an object. Ties of scores
  go by the number of the image. `images` are the numbers of all, those without boxes among them.
  """
  from pycocotools.cocoeval import COCOeval

  truth = _dataset(images, num_classes, _annotations(objects))
  answers = _dataset(images, num_classes, _annotations(found))
  with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
    judge = COCOeval(truth, answers, 'bbox')
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  columns: dict[str, Any] = {}
  for column, value in zip(COLUMNS, judge.stats):
    columns[column] = _or_nan(value)
  precision = judge.eval['precision'][..., 0, -1]  # [IoU, recall, class] of all sizes
  columns['AP_by_class'] = [_mean(precision[:, :, k]) for k in range(num_classes)]
  columns['AP50_by_class'] = [_mean(precision[0, :, k]) for k in range(num_classes)]
  return columns


def _dataset(images: np.ndarray, num_classes: int, annotations: list[dict[str, Any]]) -> Any:
  """pycocotools' data set of these annotations."""
  from pycocotools.coco import COCO

  with contextlib.redirect_stdout(io.StringIO()):
    made = COCO()
    made.dataset = {
      'images': [{'id': int(number)} for number in images],
      'categories': [{'id': k} for k in range(num_classes)],
      'annotations': annotations,
    }
    made.createIndex()
  return made


def _annotations(of_all: Found | Objects) -> list[dict[str, Any]]:
  """Boxes as COCO writes them; numbers begin at 1, since 0 is read as not matched."""
  starts, sides = of_all.boxes[:, :2], of_all.boxes[:, 2:] - of_all.boxes[:, :2]
  boxes = np.concatenate([starts, sides], -1).tolist()
  made = []
  for i, (image, label, box) in enumerate(zip(of_all.images, of_all.labels, boxes)):
    one: dict[str, Any] = {'id': i + 1, 'image_id': int(image), 'category_id': int(label)}
    one |= {'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0}
    if isinstance(of_all, Found):
      one['score'] = float(of_all.scores[i])
    else:
      one |= {'area': float(of_all.area[i]), 'iscrowd': int(of_all.crowd[i])}
    made.append(one)
  return made


def _or_nan(value: float) -> float:
  """A number of pycocotools, which has -1 where there is none."""
  return float(value) if value > -1 else np.nan


def _mean(values: np.ndarray) -> float:
  there = values[values > -1]
  return float(there.mean()) if len(there) else np.nan


def voc(found: Found, objects: Objects, num_classes: int) -> list[float]:
  """The AP of each class at an IoU of 0.5 as VOC 2010 to 2012 have it: the area under the
  precision's envelope (Everingham et al. 2010); NaN of a class without an object.

  As the devkit, a box is held against the object that it overlaps most, taken or not; it is wrong
  where that is taken already, and nothing where that is difficult. Departs from it in continuous
  boxes, without the + 1 of inclusive pixels.
  """
  aps = []
  for label in range(num_classes):
    hits, wanted = voc_hits(
      Found(*(field[found.labels == label] for field in found)),
      Objects(*(field[objects.labels == label] for field in objects)),
    )
    aps.append(average_precision(hits, wanted))
  return aps


def voc_hits(found: Found, objects: Objects) -> tuple[np.ndarray, int]:
  """(of the boxes of one class by falling score, which are right; those of difficult objects are
  left out; how many objects there are to find).
  """
  order = np.argsort(-found.scores, kind='stable')
  places = by_image(objects.images)
  nothing = np.zeros(0, int)
  taken, hits = np.zeros(len(objects.images), bool), []
  for i in order:
    own = places.get(int(found.images[i]), nothing)
    shares = overlaps(found.boxes[i : i + 1], objects.boxes[own])[0]
    best = own[shares.argmax()] if len(own) else -1
    hit = len(own) > 0 and shares.max() >= VOC_IOU
    if hit and objects.crowd[best]:
      continue
    hits.append(hit and not taken[best])
    if hit:
      taken[best] = True
  return np.array(hits, bool), int((objects.crowd == 0).sum())


def average_precision(hits: np.ndarray, wanted: int) -> float:
  """The area under the envelope of precision over recall, of answers by falling score.

  >>> average_precision(np.array([True, False, True, True, False]), 4)  # 1/4 + 1/2 x 3/4
  0.625
  """
  if not wanted:
    return float('nan')
  right = np.cumsum(hits)
  precision = right / np.arange(1, len(hits) + 1)
  envelope = np.maximum.accumulate(precision[::-1])[::-1]
  return float(envelope[hits].sum() / wanted)


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """[D, G]: overlap over union of boxes [D, 4] and [G, 4]; 0 where neither has an area."""
  begin = np.maximum(one[:, None, :2], other[None, :, :2])
  end = np.minimum(one[:, None, 2:], other[None, :, 2:])
  shared = np.maximum(end - begin, 0).prod(-1)
  areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, other)]
  union = areas[0][:, None] + areas[1][None] - shared
  return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
