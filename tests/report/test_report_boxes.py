"""Boxes against objects, worked out by hand."""

import numpy as np
import pytest

from tlx.report import boxes
from tlx.tasks import _judged


def _found(*rows):
  """(image, label, score, x0, y0, x1, y1) each."""
  table = np.array(rows, float).reshape(-1, 7)
  return _judged.Found(table[:, 0].astype(int), table[:, 3:], table[:, 2], table[:, 1].astype(int))


def _objects(*rows, crowd=()):
  """(image, label, x0, y0, x1, y1) each; numbers of those that are crowds."""
  table = np.array(rows, float).reshape(-1, 6)
  crowds = np.isin(np.arange(len(table)), crowd).astype(float)
  area = (table[:, 4:] - table[:, 2:4]).prod(1)
  return _judged.Objects(
    table[:, 0].astype(int), table[:, 2:], table[:, 1].astype(int), crowd=crowds, area=area
  )


WHOLE = (0, 0, 10, 10)
HALF = (0, 0, 10, 6)  # IoU 0.6 with the whole
THIRD = (0, 0, 10, 3)  # 0.3
AWAY = (50, 50, 60, 60)


def test_a_box_takes_one_object_and_the_surest_box_is_first():
  objects = _objects((1, 0, *WHOLE), (2, 0, *WHOLE))
  found = _found((1, 0, 0.5, *WHOLE), (1, 0, 0.9, *HALF), (1, 1, 0.8, *WHOLE), (2, 0, 0.3, *THIRD))
  made = boxes.matched(found, objects)
  assert made.hits.tolist() == [0, 1, 0, 0] and made.seen.tolist() == [True, False]
  assert made.takes.tolist() == [-1, 0, -1, -1]


def test_crowds_take_any_number_of_boxes():
  objects = _objects((1, 0, 0, 0, 100, 100), (1, 0, *WHOLE), crowd=(0,))
  found = _found((1, 0, 0.9, *WHOLE), (1, 0, 0.8, *AWAY), (1, 0, 0.7, *AWAY), (1, 1, 0.6, *AWAY))
  made = boxes.matched(found, objects)
  assert made.hits.tolist() == [1, -1, -1, 0] and made.seen.all()


@pytest.mark.parametrize(
  'more, kinds',
  [
    ((1, 0, 0.5, *THIRD), {'localisation': 1}),
    ((1, 1, 0.5, *WHOLE), {'class': 1}),
    ((1, 1, 0.5, *THIRD), {'both': 1, 'missed': 1}),
    ((1, 0, 0.5, *AWAY), {'background': 1, 'missed': 1}),
    ((3, 0, 0.5, *WHOLE), {'background': 1, 'missed': 1}),
  ],
)
def test_errors_have_the_kinds_of_tide(more, kinds):
  """Of two images with an object each, of which the second is found."""
  objects = _objects((1, 0, *WHOLE), (2, 0, *WHOLE))
  right = (2, 0, 0.9, *WHOLE)
  made = boxes.errors(boxes.matched(_found(right, more), objects))
  assert made == {**dict.fromkeys(boxes.KINDS, 0), **kinds}


def test_a_second_box_is_a_duplicate_and_an_empty_image_is_missed():
  objects = _objects((1, 0, *WHOLE), (2, 1, *WHOLE))
  found = _found((1, 0, 0.9, *WHOLE), (1, 0, 0.8, *HALF))
  assert boxes.errors(boxes.matched(found, objects)) == {
    **dict.fromkeys(boxes.KINDS, 0),
    'duplicate': 1,
    'missed': 1,
  }
  nothing = boxes.errors(boxes.matched(_found(), _objects()))
  assert set(nothing.values()) == {0}


def test_curve_and_threshold():
  """Right, wrong, right of three objects: recall 1/3, 1/3, 2/3; F1 2/4, 2/5, 4/6, then 4/7."""
  objects = _objects((1, 0, *WHOLE), (2, 0, *WHOLE), (3, 0, *WHOLE))
  found = _found((3, 0, 0.2, *AWAY), (1, 0, 0.9, *WHOLE), (2, 0, 0.5, *WHOLE), (1, 0, 0.7, *AWAY))
  made = boxes.matched(found, objects)
  line = boxes.curve(made, 0)
  np.testing.assert_allclose(line[:3], [[1 / 3, 1], [1 / 3, 1 / 2], [2 / 3, 2 / 3]])
  assert boxes.threshold(made) == 0.5
  assert boxes.above(made, 0.5).hits.tolist() == [1, 1, 0]
  nothing = boxes.matched(_found(), objects)
  assert boxes.threshold(nothing) == 1.0 and boxes.curve(nothing, 0).shape == (0, 2)


def test_what_is_cut_off_by_its_score_is_matched_as_if_it_had_not_been_there():
  """The surer of two boxes has the object, whether or not the other is asked."""
  objects = _objects((1, 0, *WHOLE), (1, 0, *AWAY), (2, 0, *WHOLE))
  found = _found((1, 0, 0.2, *WHOLE), (1, 0, 0.9, *HALF), (1, 0, 0.8, *WHOLE), (1, 0, 0.3, *AWAY))
  for score in (0.1, 0.3, 0.5, 0.85):
    cut = boxes.above(boxes.matched(found, objects), score)
    anew = boxes.matched(cut.found, objects)
    assert cut.hits.tolist() == anew.hits.tolist() and cut.seen.tolist() == anew.seen.tolist()
    assert boxes.errors(cut) == boxes.errors(anew)
  f1, counts = boxes._of_images(cut, np.array([2, 1, 5]))
  assert f1.tolist() == [0, 2 / 3, 1] and counts.tolist() == [1, 2, 0]


def test_hits_agree_with_pycocotools():
  """AP50 of random boxes is the area that COCO has under the curve of the same hits."""
  pytest.importorskip('pycocotools', reason='pip install -r requirements.txt')
  random = np.random.default_rng(0)

  def drawn(number):
    begin = random.integers(0, 30, (number, 2))
    return np.concatenate([begin, begin + random.integers(8, 16, (number, 2))], 1)

  objects = _objects(*(np.r_[i % 6, i % 2, sides] for i, sides in enumerate(drawn(30))))
  moved = objects.boxes + random.integers(-3, 4, (30, 4))
  found = _found(
    *(np.r_[i % 6, i % 2, random.random(), sides] for i, sides in enumerate(moved)),
    *(np.r_[i % 6, i % 2, random.random(), sides] for i, sides in enumerate(drawn(20))),
  )
  judged = _judged.coco(found, objects, np.arange(6), 2)
  points, made = np.linspace(0, 1, 101), boxes.matched(found, objects)
  for label in range(2):
    recall, precision = boxes.curve(made, label).T
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    ap = envelope[np.searchsorted(recall, points, side='left')].mean()
    np.testing.assert_allclose(ap, judged['AP50_by_class'][label], atol=1e-9)
