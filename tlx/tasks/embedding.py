"""Sentence embedding: vectors that lie near those of the same label, and far from all others."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx.tasks._vectors import NONE, unit
from tlx.types import Array, Batch, PyTree, Task

_ROWS = 1024  # queries at a time

COLUMNS = ('loss', 'nearest', 'queries', '*_at_*')


@functools.cache
def task(
  num_classes: int, temperature: float = 0.05, k: int = 10, objective: str = 'softmax'
) -> Task:
  """The contrast of cosines within a batch, of the vectors [B, D] that the source's own head gives.

  Examples of one label are near, all others of the batch are negatives, on whatever device they
  are: the loss of an example is the mean over those of its label of -log softmax(cosine /
  temperature) among all others (Khosla et al. 2020, arXiv:2004.11362, eq. 2), in nats; one whose
  label no other has counts nothing. With `accumulate` a part of a batch is a batch.

  objective='cosine' is that of SetFit's first stage (Tunstall et al. 2022, arXiv:2209.11055): the
  squares of cosine - 1 for pairs of one label and of cosine for others, half the loss each. Its
  pairs are all of a batch, where the paper draws as many of each kind.

  Columns: 'loss', by which settings are chosen (of batches in one random order), and
  'nearest', the share whose nearest in the batch has their label; of kept vectors, each of which
  looks for those of its label among all others: 'recall_at_1' to 'recall_at_k' (`retrieval`).

  Raises:
    ValueError: a temperature that is not above 0, or a k below 1.
  """
  del num_classes
  if temperature <= 0 or k < 1:
    raise ValueError(f'temperature and k are above 0, got {temperature} and {k}.')
  if objective not in ('softmax', 'cosine'):
    raise ValueError(f"objective is 'softmax' or 'cosine', got {objective!r}.")

  def terms(outputs: Array, batch: Batch) -> dict[str, tuple[Array, Array]]:
    vectors = unit(outputs)
    others = ~jnp.eye(len(vectors), dtype=bool) & (batch.mask[None, :] > 0)
    same = others & (batch.targets[:, None] == batch.targets[None, :])
    cosines = jnp.where(others, vectors @ vectors.T / temperature, NONE)
    logs = cosines - jax.nn.logsumexp(cosines, -1, keepdims=True)
    near = same.sum(-1)
    loss = -jnp.where(same, logs, 0.0).sum(-1) / jnp.maximum(near, 1)
    weight = batch.mask * (near > 0)
    if objective == 'cosine':
      loss, near = _of_pairs(vectors, same, others, batch.mask), jnp.ones_like(near)
    nearest = jnp.take_along_axis(same, jnp.argmax(cosines, -1)[:, None], -1)[:, 0]
    return {
      'loss': (jnp.where(near > 0, loss, 0.0), batch.mask if objective == 'cosine' else weight),
      'nearest': (nearest.astype(jnp.float32), weight),
    }

  def scores(
    sums: Mapping[str, tuple[float, float]],
    kept: Mapping[str, np.ndarray] | None = None,
    labels: np.ndarray | None = None,
  ) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in ('loss', 'nearest'):
      total, count = sums[name]
      columns[name] = total / count if count else np.nan
    if kept is None or labels is None:
      return columns
    return columns | retrieval(kept['vectors'], labels, k)

  return Task(
    head=None,
    targets=_labels,
    terms=terms,
    keep=_vectors,
    scores=scores,
    select=('loss', -1),
    contrasts=True,
  )


def _of_pairs(vectors: Array, same: Array, others: Array, mask: Array) -> Array:
  """Each example's part [B] of the loss of pairs: the mean over them is the loss."""
  cosines = vectors @ vectors.T
  first = mask[:, None] > 0
  total = jnp.maximum(mask.sum(), 1.0)
  parts = jnp.zeros(len(vectors))
  for pairs, wanted in ((same & first, 1.0), (others & ~same & first, 0.0)):
    squares = jnp.where(pairs, (cosines - wanted) ** 2, 0.0).sum(-1)
    parts += 0.5 * total * squares / jnp.maximum(pairs.sum(), 1)
  return parts


def _labels(inputs: PyTree, labels: np.ndarray) -> np.ndarray:
  return labels


def _vectors(outputs: Array) -> dict[str, Array]:
  return {'vectors': unit(outputs)}


def retrieval(vectors: np.ndarray, labels: np.ndarray, k: int) -> dict[str, float]:
  """What is found where each example looks for those of its label among all others by cosine.

  The means over the queries that have something to find, of `ranks`, with their number 'queries'.
  """
  _, number = np.unique(labels, return_inverse=True)
  counts = np.bincount(number)[number] - 1  # the others of its label
  found = []
  for begin in range(0, len(vectors), _ROWS):
    rows = np.arange(begin, min(begin + _ROWS, len(vectors)))
    cosines = vectors[rows] @ vectors.T
    cosines[np.arange(len(rows)), rows] = -np.inf
    order = np.argsort(-cosines, axis=-1, kind='stable')[:, : min(k, len(vectors) - 1)]
    found.append(number[order] == number[rows, None])
  relevant = np.concatenate(found)
  queries = counts > 0
  if not queries.any():
    return {'queries': 0}
  return ranks(relevant[queries], counts[queries], k) | {'queries': int(queries.sum())}


def ranks(relevant: np.ndarray, counts: np.ndarray, k: int) -> dict[str, float]:
  """Means over queries of what the first k of their orders hold.

  recall_at_1, recall_at_k: the share of all relevant ones that is among the first
  precision_at_1: whether the first is relevant
  mrr_at_k: 1 / the rank of the first relevant one, 0 where none is among the k
  ndcg_at_k: sum of relevance / log2(rank + 1), over that of the best order (Jarvelin and Kekalainen
    2002)

  Args:
    relevant: [Q, n] of the first k places or more, or of all where there are fewer, 1 or 0.
    counts: [Q], how many relevant ones there are in all, one at least.
  """
  relevant = np.asarray(relevant, float)[:, :k]
  places = np.arange(relevant.shape[1])
  discount = 1 / np.log2(places + 2)
  best = np.cumsum(discount)[np.minimum(counts, relevant.shape[1]) - 1]
  first = np.where(relevant.any(1), relevant.argmax(1) + 1.0, np.inf)
  columns = {
    'recall_at_1': relevant[:, 0] / counts,
    f'recall_at_{k}': relevant.sum(1) / counts,
    'precision_at_1': relevant[:, 0],
    f'mrr_at_{k}': 1 / first,
    f'ndcg_at_{k}': relevant @ discount / best,
  }
  return {name: float(np.mean(values)) for name, values in columns.items()}
