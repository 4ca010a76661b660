"""Losses, places, suppression and average precision of boxes against official numbers."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.tasks import _boxes, _judged

_FILE = pathlib.Path(__file__).parents[2] / 'third_party' / 'tests' / 'boxes' / 'golden.json'
GOLDEN = json.loads(_FILE.read_text())


def test_overlaps_and_their_gradients_are_the_golden_ones():
  cases = GOLDEN['iou']
  for part in (cases, cases['special']):
    boxes = [jnp.asarray(part[name], jnp.float32) for name in ('pred', 'target')]
    for name, function in {'iou': _boxes.iou, 'giou': _boxes.giou}.items():
      np.testing.assert_allclose(function(*boxes), part['values'][name], atol=2e-6)
  boxes = [jnp.asarray(cases[name], jnp.float32) for name in ('pred', 'target')]
  gradient = jax.grad(lambda pred: (1 - _boxes.giou(pred, boxes[1])).sum())(boxes[0])
  np.testing.assert_allclose(gradient, cases['gradient_of_sum_of_1_minus']['giou'], atol=2e-6)
  of_host = np.diagonal(_judged.overlaps(*(np.asarray(cases[n]) for n in ('pred', 'target'))))
  np.testing.assert_allclose(of_host, cases['values']['iou'], atol=1e-12)


def test_boxes_without_area_have_finite_gradients():
  nothing = jnp.zeros((1, 4))
  assert np.isfinite(jax.grad(lambda box: _boxes.giou(box, nothing).sum())(nothing)).all()


def test_focal_loss_and_its_gradient_are_the_golden_ones():
  logits = jnp.asarray(GOLDEN['focal']['logits'], jnp.float32)
  cases = [case for case in GOLDEN['focal']['cases'] if case['alpha'] is not None]
  assert {case['target'] for case in cases} == {0.0, 1.0}
  for case in cases:

    def loss(logits, case=case):
      wanted = jnp.full_like(logits, case['target'])
      return _boxes.focal(logits, wanted, case['alpha'], case['gamma'])

    np.testing.assert_allclose(loss(logits), case['loss'], rtol=2e-5)
    gradient = jax.grad(lambda logits: loss(logits).sum())(logits)
    np.testing.assert_allclose(gradient, case['gradient'], rtol=1e-4, atol=1e-9)


def places_of(image, strides):
  """[A, 3] of levels of an image, as the golden rule has them."""
  made = []
  for stride in strides:
    for row in range(image[0] // stride):
      for column in range(image[1] // stride):
        made.append((stride // 2 + column * stride, stride // 2 + row * stride, stride))
  return jnp.asarray(made, jnp.float32)


assign = jax.jit(_boxes.assigned, static_argnames=('reach', 'radius'))


@pytest.mark.parametrize('number', range(len(GOLDEN['fcos']['cases'])))
def test_places_answer_for_the_objects_of_the_official_rule(number):
  case = GOLDEN['fcos']['cases'][number]
  places = places_of(case['image'], case['strides'])
  boxes = jnp.asarray([*case['boxes'], [0.0, 0.0, 64.0, 64.0]])  # the last does not count
  counts = jnp.asarray([1.0] * len(case['boxes']) + [0.0])
  chosen, sides = assign(places, boxes, counts, reach=2, radius=case['radius'])
  centre, decoded = _boxes.centreness(sides), np.asarray(_boxes.decoded(places, sides))
  chosen, sides, centre, places = (np.asarray(leaf) for leaf in (chosen, sides, centre, places))
  found = {}
  for i in np.flatnonzero(np.asarray(chosen) >= 0):
    found[tuple(places[i].tolist())] = int(chosen[i]), sides[i].tolist(), float(centre[i])
    assert decoded[i].tolist() == case['boxes'][chosen[i]]
  assert len(found) == len(case['positives'])
  for wanted in case['positives']:
    chosen, of_sides, of_centre = found[wanted['x'], wanted['y'], wanted['stride']]
    assert chosen == wanted['object'] and of_sides == wanted['ltrb']
    assert of_centre == pytest.approx(wanted['centerness'], abs=1e-6)


keep_best = jax.jit(_boxes.best, static_argnames='most')


@pytest.mark.parametrize('case', GOLDEN['nms']['cases'], ids=lambda case: len(case['boxes']))
def test_suppression_keeps_the_golden_boxes(case):
  number, most = len(case['boxes']), 60
  boxes = jnp.zeros((most, 4)).at[:number].set(jnp.asarray(case['boxes'], jnp.float32))
  scores = jnp.full(most, -jnp.inf).at[:number].set(jnp.asarray(case['scores']))
  of_none = jnp.zeros(most, jnp.int32)
  for threshold in (0.3, 0.5, 0.7):
    if f'keep_{threshold}' in case:
      kept = keep_best(boxes, scores, of_none, threshold, most=most).tolist()
      wanted = case[f'keep_{threshold}']
      assert kept == wanted + [-1] * (most - len(wanted))
  if 'labels' in case:
    labels = of_none.at[:number].set(jnp.asarray(case['labels']))
    kept = keep_best(boxes, scores, labels, 0.5, most=most)
    assert kept[kept >= 0].tolist() == case['keep_per_class_0.5']


@pytest.mark.parametrize('case', GOLDEN['coco']['cases'], ids=lambda case: case['name'])
def test_coco_columns_are_those_of_pycocotools_on_files(case):
  """Crowds, ties, images and classes without boxes, gaps in numbers of images and of classes."""
  pytest.importorskip('pycocotools', reason='pip install -r requirements.txt')
  classes = {number: k for k, number in enumerate(sorted(case['categories']))}
  truth = np.asarray(case['gt'], float).reshape(-1, 8)
  answers = np.asarray(case['dt'], float).reshape(-1, 7)

  def boxes(rows):
    return np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], -1)

  def labels(rows):
    return np.array([classes[int(number)] for number in rows[:, 1]], int)

  objects = _judged.Objects(
    truth[:, 0].astype(int), boxes(truth), labels(truth), truth[:, 7], truth[:, 6]
  )
  found = _judged.Found(answers[:, 0].astype(int), boxes(answers), answers[:, 6], labels(answers))
  columns = _judged.coco(found, objects, np.array(case['images']), len(classes))
  wanted = np.array(case['stats'])
  wanted[wanted == -1] = np.nan
  np.testing.assert_allclose([columns[name] for name in _judged.COLUMNS], wanted, atol=1e-9)
  of_classes = np.array(case['per_category_ap_ap50'], float)
  of_classes[of_classes == -1] = np.nan
  np.testing.assert_allclose(columns['AP_by_class'], of_classes[:, 0], atol=1e-9)
  np.testing.assert_allclose(columns['AP50_by_class'], of_classes[:, 1], atol=1e-9)


@pytest.mark.parametrize('case', GOLDEN['voc']['cases'], ids=lambda case: case['name'])
def test_voc_ap_is_the_devkits(case):
  hits, wanted = np.array(case['tp'], bool), case['npos']
  if 'gt' in case:
    truth = [(int(image), *box) for image, boxes in case['gt'].items() for box in boxes]
    truth = np.asarray(truth, float).reshape(-1, 6)
    answers = np.asarray(case['dt'], float).reshape(-1, 6)
    zeros = np.zeros(len(truth), int)
    objects = _judged.Objects(truth[:, 0], truth[:, 1:5], zeros, truth[:, 5], zeros)
    found = _judged.Found(answers[:, 0], answers[:, 1:5], answers[:, 5], np.zeros(len(answers)))
    counted = np.array(case['tp']) + np.array(case['fp']) > 0  # of difficult objects is neither
    assert _judged.voc(found, objects, 1)[0] == pytest.approx(case['ap_all_points'], abs=1e-9)
    hits, wanted_too = _judged.voc_hits(found, objects)
    assert hits.tolist() == np.array(case['tp'], bool)[counted].tolist() and wanted_too == wanted
  assert _judged.average_precision(hits, wanted) == pytest.approx(case['ap_all_points'], abs=1e-9)
