"""A form in one file: the mean of each row of an image. It stands for any form that is added
(docs/inputs.md).
"""

import functools

import jax
import numpy as np

from tlx import datasets
from tlx.ranges import Range
from tlx.types import Form

KIND = 'image'
OF_NETWORK = False
INPUT = {'rows': 8, 'scale': 1.0}
RANGES = {'rows': Range(1, 64)}
AUGMENT = {'noise': 0.0}
HOW = ('shift', 'val_fraction', 'test_fraction', 'val_examples', 'data_dir')


@functools.cache
def form(rows: int, scale: float = 1.0) -> Form:
  """Profiles uint8 [rows]; what enters is float32 from 0 to `scale`."""

  def augment(key, batch, options):
    if not options.get('noise'):
      return batch
    noise = options['noise'] * jax.random.normal(key, batch.inputs.shape)
    return batch._replace(inputs=batch.inputs + noise)

  def check(options):
    if options.keys() - AUGMENT:
      raise ValueError(f'Profiles have noise alone, got {", ".join(options)}.')

  spec = jax.ShapeDtypeStruct((rows,), np.uint8)
  name = f'profile {dict(rows=rows, scale=scale)}'
  return Form(name, spec, lambda leaf: leaf.astype(np.float32) / 255 * scale, augment, check)


def load(name, fields, how):
  data = datasets.load(name, fields['rows'], 1, **how)
  parts = [
    part._replace(inputs=_profile(part.inputs)) for part in (data.train, data.val, data.test)
  ]
  return datasets.Dataset(*parts, data.class_names, datasets.sha256(*parts), data.notes)


def store(records, fields):
  images, bad = datasets.decoded(records, fields['rows'], 1)
  return _profile(images), bad


def check_memory(fields, count, num_bytes):
  if count * fields['rows'] > num_bytes:
    raise ValueError(f'{count:,} profiles take {count * fields["rows"]:,} bytes.')


def _profile(images):
  return images.mean((2, 3)).astype(np.uint8)
