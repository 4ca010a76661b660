"""Retrieval: the texts of a pair find each other among those of all pairs, such as translations."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx.tasks._vectors import NONE, check_pairs, unit
from tlx.types import Array, Batch, Task

FORM = 'pair'
COLUMNS = ('nearest', 'loss', '*recall_at_*', '*mrr', 'count')
_ROWS = 1024  # queries at a time


@functools.cache
def task(num_classes: int, temperature: float = 0.05, k: int = 10) -> Task:
  """The contrast of cosines between the two sides of a batch, of the vectors [B, 2, D] that the
  source's own head gives.

  -log softmax(cosine / temperature) of a text's own partner among the partners of all in the batch
  (Henderson et al. 2017, arXiv:1705.00652, eq. 4; there of products), the mean of both directions,
  in nats. Pairs that share a text with it are no negatives. On all devices a batch is one; with
  `accumulate` a part of it is a batch. A method of no steps is the encoder as it is.

  Columns: 'nearest', by which settings are chosen, the share of texts whose partner is the nearest
  within the batch, in both directions (of batches in one random order), and 'loss'. Of kept vectors
  `found`: of the second texts for the first, and with 'back_' before it of the first for the
  second.

  Raises:
    ValueError: a temperature that is not above 0, or a k below 1.
  """
  del num_classes
  if temperature <= 0 or k < 1:
    raise ValueError(f'temperature and k are above 0, got {temperature} and {k}.')

  def terms(outputs: Array, batch: Batch) -> dict[str, tuple[Array, Array]]:
    check_pairs(outputs, 'retrieval')
    first, second = jnp.moveaxis(unit(outputs), 1, 0)
    texts = batch.targets  # [B, 2]
    shared = (texts[:, None] == texts[None, :]).any(-1) & ~jnp.eye(len(texts), dtype=bool)
    left_out = shared | (batch.mask[None, :] == 0)
    loss = nearest = jnp.zeros(len(texts))
    for queries, partners in ((first, second), (second, first)):
      cosines = jnp.where(left_out, NONE, queries @ partners.T / temperature)
      loss += (jax.nn.logsumexp(cosines, -1) - jnp.diagonal(cosines)) / 2
      nearest += (jnp.argmax(cosines, -1) == jnp.arange(len(texts))) / 2
    return {'loss': (loss, batch.mask), 'nearest': (nearest, batch.mask)}

  def scores(
    sums: Mapping[str, tuple[float, float]],
    kept: Mapping[str, np.ndarray] | None = None,
    texts: np.ndarray | None = None,
  ) -> dict[str, Any]:
    columns = {name: sums[name][0] / sums[name][1] for name in ('nearest', 'loss')}
    if kept is None or texts is None:
      return columns
    first, second = np.moveaxis(kept['vectors'], 1, 0)
    there, back = found(first, second, texts[:, 1], k), found(second, first, texts[:, 0], k)
    back = {f'back_{name}': value for name, value in back.items()}
    return columns | there | back | {'count': len(texts)}

  return Task(None, _texts, terms, _vectors, scores, ('nearest', +1), contrasts=True)


def _texts(inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
  """int32 [N, 2]: a number for each text of a pair, equal for the same tokens on a side."""
  del labels
  ids = np.asarray(inputs['ids'])
  sides = [np.unique(ids[:, side], axis=0, return_inverse=True)[1] for side in range(2)]
  return np.stack([side.reshape(-1) for side in sides], 1).astype(np.int32)


def _vectors(outputs: Array) -> dict[str, Array]:
  return {'vectors': unit(outputs)}


def found(queries: np.ndarray, partners: np.ndarray, texts: np.ndarray, k: int) -> dict[str, float]:
  """Where the partner of each query lies in the order of their cosines.

  'recall_at_1' and 'recall_at_k', the shares of queries whose partner is among the first; 'mrr',
  the mean of 1 / its rank among all.

  Args:
    queries, partners: vectors [N, D] of length 1, of the two texts of each pair.
    texts: [N] a number for each partner; equal ones are one text, which is looked for once.
  """
  _, kept, own = np.unique(texts, return_index=True, return_inverse=True)
  candidates, own = partners[kept], own.reshape(-1)
  rank = []
  for begin in range(0, len(queries), _ROWS):
    wanted = own[begin : begin + _ROWS]
    cosines = queries[begin : begin + _ROWS] @ candidates.T
    of_own = cosines[np.arange(len(wanted)), wanted][:, None]
    ties = (cosines == of_own) & (np.arange(len(candidates)) < wanted[:, None])
    rank.append(1 + (cosines > of_own).sum(1) + ties.sum(1))
  ranks = np.concatenate(rank)
  return {
    'recall_at_1': float(np.mean(ranks == 1)),
    f'recall_at_{k}': float(np.mean(ranks <= k)),
    'mrr': float(np.mean(1 / ranks)),
  }
