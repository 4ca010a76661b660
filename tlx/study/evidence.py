"""What sources make of a target's training examples, before any training: features by stage."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from tlx import backbones
from tlx.study import config as configs
from tlx.study import pair as pairs
from tlx.study import run, store
from tlx.study.batches import in_batches
from tlx.study.config import form_of
from tlx.study.phases import heads_of, network_of, task_of
from tlx.train import feed
from tlx.types import Form, Network, PyTree, Variables, num_logits

BATCH = 128  # examples that go through at a time
INPUT = 'input'  # the stage before the first
SIDE = 32  # of images as a stage of their own, which are averaged to no more
PROBS = 'probs'


class Evidence(NamedTuple):
  """One source on the training examples of one subset of a target, never its test part.

  labels: [N], the classes
  features: {stage: [N, D]} in the order of the network, averaged over places or tokens; of images
    also INPUT, their numbers as they are, averaged to at most SIDE x SIDE
  probs: [N, Z], what the source's own head gives its own classes; None where it has none
  rows: [N], which of the target's training examples these are
  """

  labels: np.ndarray
  features: Mapping[str, np.ndarray]
  probs: np.ndarray | None
  rows: np.ndarray


def gather(
  study: Mapping[str, Any],
  source: str,
  target: str,
  workdir: str | os.PathLike = '',
  shots: int = 0,
  seed: int | None = None,
  every: bool = True,
  most: int = 0,
  variables: Variables | None = None,
) -> Evidence:
  """The evidence of a source and a target, by their names in a resolved config.

  Args:
    workdir: the study's folder, where sources lie that the study trains itself.
    shots: examples a class, as the study draws them with `seed` (its first, if None); 0 is all.
    every: features of every stage, or of the last before the head alone.
    most: so many examples at most, drawn by the seed; 0 is all.
    variables: of the source, where they are at hand.

  Raises:
    ValueError: a task without classes, a source that is not trained yet, or weights that cannot be
      had.
  """
  config, task = study['targets'][target], task_of(study, study['targets'][target])
  data = pairs.load(study, config, study['sources'][source])
  labels = np.asarray(data.train.labels)
  if configs.named(config['task'])[0] != 'classification' or task.head is None:
    raise ValueError(
      f'config.targets.{target}: scores compare classes, and its task is {config["task"]!r}.'
    )
  rows, seed = np.arange(len(labels)), study['seeds'][0] if seed is None else seed
  if shots:
    drawn = pairs.subsets({**study, 'shots': (shots,), 'seeds': (seed,)}, config, data)
    rows = drawn[seed][shots]
  if most and len(rows) > most:
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
  examples = feed.take(data.train.inputs, rows)
  variables = variables or source_variables(study, source, workdir)
  found = stages_of(study, source, variables, examples, every)
  probs = found.pop(PROBS, None)
  return Evidence(labels[rows], found, probs, rows)


def stages_of(
  study: Mapping[str, Any], source: str, variables: Variables, examples: PyTree, every: bool = True
) -> dict[str, np.ndarray]:
  """{stage: [N, D]} of stored examples in the order of the network, with PROBS as the last where
  the source has a head of its own.
  """
  network, num_classes = network_of_source(study, source)
  program = _stages(network, form_of(study['sources'][source]), num_classes > 0, every)
  found = in_batches(program, variables, examples, BATCH)
  return {stage: found[stage] for stage in (INPUT, *network.stages, PROBS) if stage in found}


def network_of_source(study: Mapping[str, Any], name: str) -> tuple[Network, int]:
  """(a source's network, the number of classes that its head knows; 0 where it has none)."""
  source = study['sources'][name]
  if not source['weights'] and configs.named(source['task'])[0] == 'classification':
    task = task_of(study, source)
    return network_of(source, task.head), num_logits(task)
  return network_of(source, heads_of(source)), 0


def source_variables(
  study: Mapping[str, Any], name: str, workdir: str | os.PathLike = ''
) -> Variables:
  """The parameters and statistics of a source: as the study's folder has them, else its weights.

  Raises:
    ValueError: a source that the study trains itself and has not yet; or weights that cannot be
      had.
  """
  source = study['sources'][name]
  if workdir:
    folder = epath.Path(workdir).expanduser() / 'sources' / name
    if run.is_whole(folder):
      return Variables(*store.trained(folder / 'checkpoints', 0))
  if not source['weights']:
    raise ValueError(
      f'config.sources.{name} is trained by the study itself, and is not there yet: run '
      'experiments.study with this config, and give its --workdir here.'
    )
  return run.load_weights(name, source).variables


def _small(x: jax.Array) -> jax.Array:
  """Images [B, H, W, C] averaged to no more than SIDE a side; others as they are."""
  if x.ndim != 4 or max(x.shape[1:3]) <= SIDE:
    return x
  shape = (len(x), min(SIDE, x.shape[1]), min(SIDE, x.shape[2]), x.shape[3])
  return jax.image.resize(x, shape, 'linear', antialias=True)


@functools.cache
def _stages(network: Network, form: Form, own_head: bool, every: bool) -> Callable:
  """(variables, stored examples) -> {stage: [B, D], PROBS: [B, Z] of the source's own head}."""
  number = len(network.stages) - 1
  first = 0 if every else number - 1
  cuts = [backbones.head_after(network, stage, 1) for stage in network.stages[first:-1]]

  def through(variables: Variables, examples: PyTree) -> dict[str, jax.Array]:
    x = form.enter(examples)
    found = {}
    if every and not isinstance(x, Mapping):
      found[INPUT] = _small(x).reshape(len(x), -1)
    x, _ = network.apply(variables, x, train=False, stop=first)
    for start, cut in enumerate(cuts, first):
      pooled, _ = cut.apply(variables, x, train=False, start=start, stop=len(cut.stages) - 1)
      found[network.stages[start]] = pooled
      x, _ = network.apply(variables, x, train=False, start=start, stop=start + 1)
    if own_head:
      logits, _ = network.apply(variables, x, train=False, start=number)
      found[PROBS] = jax.nn.softmax(logits)
    return found

  return jax.jit(through)
