"""What added weights are told of a run's own examples before its first step (`Added.informed`)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tlx import tree
from tlx.backbones import Edit
from tlx.peft import Added
from tlx.peft._inputs import seen_of
from tlx.train import feed
from tlx.train.job import Job
from tlx.types import Array, Form, Network, PyTree, Variables

EXAMPLES = 1000  # of each run, at most
BATCH = 32


class Moments(NamedTuple):
  """Of the inputs of a layer: their number, their sum [D] and the sum of x x' [D, D]."""

  number: Array
  total: Array
  square: Array


def informed(job: Job, added: Added | None) -> Job:
  """The job, with the leaves that its runs begin with as the inputs of their layers decide them.

  Examples are the run's own, as the source sees them: not augmented. Runs of one seed and the same
  examples share what is found.
  """
  if added is None or added.watched is None or added.informed is None:
    return job
  layers = added.watched(_variables(job, 0).params)
  examples = job.train(job.phases[0].phase._replace(start=0, views=0)).inputs
  program = _program(job.network, job.form, layers)
  found: dict[tuple[int, bytes], Mapping[str, np.ndarray]] = {}
  of_runs = []
  for run, (seed, rows) in enumerate(zip(job.seeds, job.examples)):
    key = seed, np.asarray(rows).tobytes()
    if key not in found:
      variables = _variables(job, run)
      found[key] = added.informed(_covariances(program, variables, examples, _some(rows, seed)))
    of_runs.append(found[key])

  def of_leaf(name: str, leaf: np.ndarray) -> np.ndarray:
    stage, *rest = name.split('/')
    if not tree.is_added(name) or rest[1] != added.name:
      return leaf
    place = '/'.join([stage, *rest[2:]])
    return np.stack([told.get(place, own) for told, own in zip(of_runs, leaf)])

  own = tree.map_named(of_leaf, job.own)
  return job._replace(own=own, informed=_num_stages(job.network, layers))


def num_stages(network: Network, added: Added | None, shapes: Variables) -> int:
  """How many stages are run on each run's examples before its first step."""
  if added is None or added.watched is None:
    return 0
  return _num_stages(network, added.watched(shapes.params))


def _num_stages(network: Network, layers: Sequence[str]) -> int:
  """The stages that lead to the last of some layers, its own counted."""
  return 1 + max(network.stages.index(layer.split('/')[0]) for layer in layers)


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
  """At most EXAMPLES of the rows, drawn at random."""
  if len(rows) <= EXAMPLES:
    return np.asarray(rows)
  return np.sort(np.random.default_rng(seed).choice(rows, EXAMPLES, replace=False))


def _of_run(stacked: PyTree, run: int) -> PyTree:
  return jax.tree.map(lambda leaf: leaf[run], stacked)


def _variables(job: Job, run: int) -> Variables:
  """Those that a run begins with."""
  params = tree.merge(_of_run(job.own, run), job.base.params)
  return Variables(params, _of_run(job.stats, run))


def _covariances(
  program: Callable, variables: Variables, examples: PyTree, rows: np.ndarray
) -> dict[str, np.ndarray]:
  """{layer: float64 [D, D]} of the inputs of layers over some examples and all their places."""
  sums = None
  for first in range(0, len(rows), BATCH):
    own = rows[first : first + BATCH]
    counts = (np.arange(BATCH) < len(own)).astype(np.float32)
    found = program(variables, feed.take(examples, feed.filled(own, BATCH)), counts)
    sums = found if sums is None else jax.tree.map(jnp.add, sums, found)
  assert sums is not None
  return {layer: _covariance(of_layer) for layer, of_layer in jax.device_get(sums).items()}


def _covariance(moments: Moments) -> np.ndarray:
  number, total, square = (np.asarray(leaf, np.float64) for leaf in moments)
  return square / number - np.outer(total, total) / number**2


@functools.cache
def _program(network: Network, form: Form, layers: tuple[str, ...]) -> Callable:
  """(variables, examples [B, ...] as stored, which count [B]) -> {layer: Moments}."""

  @jax.jit
  def moments(variables: Variables, inputs: PyTree, counts: Array) -> dict[str, Moments]:
    x = form.enter(inputs)
    found: dict[str, Moments] = {}
    for i, stage in enumerate(network.stages[: _num_stages(network, layers)]):
      inside = tuple(layer.removeprefix(f'{stage}/') for layer in layers if _is_in(layer, stage))
      edits = (Edit('inputs', seen_of(inside), also=(stage,)),) if inside else ()
      x, _ = network.apply(variables, x, train=False, start=i, stop=i + 1, edits=edits)
      if inside:
        x, seen = x
        for layer in inside:
          places, counted = seen[layer]
          found[f'{stage}/{layer}'] = _moments(places, counted, counts)
    return found

  return moments


def _is_in(layer: str, stage: str) -> bool:
  return layer.startswith(f'{stage}/')


def _moments(x: Array, mask: Array, counts: Array) -> Moments:
  """Of the places of x [B or a multiple, ..., D] that count."""
  of_places = jnp.repeat(counts, len(x) // len(counts)).reshape(-1, *(1,) * (mask.ndim - 1))
  weight = (mask * of_places).reshape(-1)
  x = x.astype(jnp.float32).reshape(-1, x.shape[-1])
  weighted = x * weight[:, None]
  return Moments(weight.sum(), weighted.sum(0), jnp.matmul(weighted.T, x, precision='highest'))
