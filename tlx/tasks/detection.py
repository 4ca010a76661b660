"""Object detection: boxes with a class, judged by COCO's average precision."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx.tasks import _boxes, _judged
from tlx.types import Array, Batch, Head, PyTree, Task

FORM = 'boxes'
COLUMNS = (*_judged.COLUMNS, 'VOC_AP50', 'loss', 'class_loss', 'box_loss', 'centre_loss', 'count')
CANDIDATES = 1000  # the best pairs of a place and a class, of which boxes are chosen
MOST = 100  # boxes of an image


@functools.cache
def task(num_classes: int, nms: float = 0.6) -> Task:
  """FCOS (Tian et al. 2019, arXiv:1904.01355) as torchvision trains it: of each image, over the
  places that answer for an object, the focal loss of all places and classes, 1 - GIoU of the boxes
  and the cross-entropy in nats of their centreness, each 1 time.

  The sum over a batch is divided by the number of such places, of which an image without any has 1.
  Crowds are nobody's answer in training: places in them are background. Boxes are kept by
  sqrt(p(class) p(centre)), the best 100 of an image after class-wise non-maximum suppression at an
  IoU of `nms`, without a lowest score. torchvision wants a score above 0.2, takes the 1,000 best of
  each level where here they are of all levels together, and cuts boxes to the image before the
  suppression where here it is after.

  Columns: 'AP', by which settings are chosen, and COCO's eleven others by pycocotools, in [0, 1]
  and NaN where there is no such object; 'VOC_AP50', the mean over classes; 'AP_by_class',
  'AP50_by_class' and 'VOC_AP50_by_class', lists; 'loss' and its three parts; 'count' of images. All
  are of the images in their original size.

  Raises:
    ValueError: `nms` is no IoU.
  """
  if not 0 < nms <= 1:
    raise ValueError(f'nms is {nms!r}; wanted an IoU in (0, 1], such as 0.6.')

  def scores(
    sums: Mapping[str, tuple[float, float]],
    kept: Mapping[str, np.ndarray] | None = None,
    targets: Mapping[str, np.ndarray] | None = None,
  ) -> dict[str, Any]:
    parts = ('loss', 'class_loss', 'box_loss', 'centre_loss')
    columns: dict[str, Any] = {name: sums[name][0] / sums[name][1] for name in parts}
    columns['count'] = int(sums['images'][1])
    if kept is None or targets is None:
      return columns
    found, objects = _judged.found(kept, targets), _judged.objects(targets)
    columns |= _judged.coco(found, objects, targets['image_id'], num_classes)
    of_voc = np.array(_judged.voc(found, objects, num_classes))
    there = of_voc[~np.isnan(of_voc)]
    columns['VOC_AP50'] = float(there.mean()) if len(there) else np.nan
    return columns | {'VOC_AP50_by_class': of_voc.tolist()}

  return Task(
    head=Head('boxes', num_classes),
    targets=_targets,
    terms=_terms,
    keep=functools.partial(_keep, nms=nms),
    scores=scores,
    select=('AP', +1),
    whole=True,
  )


_SHAPES = {
  'boxes': ((1, 4), np.float32),
  'labels': ((1,), np.int32),
  'valid': ((1,), np.float32),
  'crowd': ((1,), np.float32),
  'area': ((1,), np.float32),
  'frame': ((5,), np.float32),
  'image_id': ((), np.int32),
}


def _targets(inputs: PyTree, published: Any) -> dict[str, np.ndarray]:
  """The boxes of each image as the form `boxes` has them; of examples that nothing is known of,
  none.
  """
  if isinstance(published, Mapping):
    return {name: published[name] for name in _SHAPES}
  number = len(published)
  return {name: np.zeros((number, *shape), dtype) for name, (shape, dtype) in _SHAPES.items()}


def _terms(outputs: Mapping[str, Array], batch: Batch) -> dict[str, tuple[Array, Array]]:
  """Values and weights [B]; a weight is how many places answer for an object, at least 1."""
  parts, places = jax.vmap(_losses)(outputs, batch.targets)
  weight = jnp.maximum(places, 1.0)
  counts = weight * batch.mask
  values = {f'{name}_loss': (value / weight, counts) for name, value in parts.items()}
  total = sum(parts.values()) / weight
  return {'loss': (total, counts), **values, 'images': (jnp.ones_like(weight), batch.mask)}


def _losses(outputs: Mapping[str, Array], targets: Mapping[str, Array]) -> tuple[Any, Array]:
  """({'class', 'box', 'centre'}: the sums over the places of an image, how many answer for an
  object).
  """
  places, logits = outputs['places'], outputs['logits']
  counts = targets['valid'] * (1 - targets['crowd'])
  chosen, sides = _boxes.assigned(places, targets['boxes'], counts)
  answers = chosen >= 0
  labels = jnp.where(answers, targets['labels'][jnp.maximum(chosen, 0)], -1)
  wanted = jax.nn.one_hot(labels, logits.shape[-1])
  sides = jnp.where(answers[:, None], sides, 1.0)  # whatever gives finite gradients
  overlap = _boxes.giou(_boxes.decoded(places, outputs['sides']), _boxes.decoded(places, sides))
  centre = _boxes.centreness(sides)
  logs = [jax.nn.log_sigmoid(sign * outputs['centre']) for sign in (1, -1)]
  entropy = -centre * logs[0] - (1 - centre) * logs[1]
  parts = {
    'class': _boxes.focal(logits, wanted).sum(),
    'box': ((1 - overlap) * answers).sum(),
    'centre': (entropy * answers).sum(),
  }
  return parts, answers.sum().astype(jnp.float32)


def _keep(outputs: Mapping[str, Array], nms: float) -> dict[str, Array]:
  """The best boxes of each image: 'boxes' [B, 100, 4] in pixels of the image as it is stored,
  'scores' in (0, 1), falling, and 'labels' [B, 100]; a score of 0 is no box.
  """

  def of_image(outputs: Mapping[str, Array]) -> dict[str, Array]:
    of_centre = jax.nn.log_sigmoid(outputs['centre'])[:, None]
    logs = (jax.nn.log_sigmoid(outputs['logits']) + of_centre) / 2  # [A, K]
    top, pairs = jax.lax.top_k(logs.reshape(-1), min(CANDIDATES, logs.size))
    places, labels = jnp.divmod(pairs, logs.shape[1])
    boxes = _boxes.decoded(outputs['places'][places], outputs['sides'][places])
    kept = _boxes.best(boxes, top, labels, nms, MOST)
    there = kept >= 0
    return {
      'boxes': jnp.where(there[:, None], boxes[kept], 0.0),
      'scores': jnp.where(there, jnp.exp(top[kept]), 0.0),
      'labels': jnp.where(there, labels[kept], 0).astype(jnp.int32),
    }

  return jax.vmap(of_image)(dict(outputs))
