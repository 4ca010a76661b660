"""A task in one file: how bright an image is, from 0 to 1. It stands for any task that is added
(docs/tasks.md).
"""

import functools

import jax.numpy as jnp
import numpy as np

from tlx.types import Task


@functools.cache
def task(num_classes: int, scale: float = 1.0) -> Task:
  """Squared error of one output; the columns are 'loss' and 'mae', the mean absolute error."""

  def targets(images, labels):
    """The mean of the pixels as they are stored, whatever the class."""
    return (images.reshape(len(images), -1).mean(1) / 255 * scale).astype(np.float32)

  def terms(outputs, batch):
    error = outputs[:, 0] - batch.targets
    return {
      'loss': (error**2, batch.mask),
      'absolute': (jnp.abs(error), batch.mask),
    }

  def keep(outputs):
    return {'brightness': outputs[:, 0]}

  def scores(sums, kept=None, targets=None):
    columns = {
      'mae': sums['absolute'][0] / sums['absolute'][1],
      'loss': sums['loss'][0] / sums['loss'][1],
    }
    if kept is not None:
      columns['worst'] = float(np.abs(kept['brightness'] - targets).max())
    return columns

  return Task(1, targets, terms, keep, scores, ('mae', -1))
