"""What sources make of a target's training examples, before any training: features by stage."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from tlx.command import spelled
from tlx.study import config as configs
from tlx.study import pair as pairs
from tlx.study import run, stages, store
from tlx.study.phases import task_of
from tlx.train import feed
from tlx.types import PyTree, Variables


class Evidence(NamedTuple):
  """One source on the training examples of one subset of a target, never its test part.

  labels: [N], the classes
  features: {stage: [N, D]} in the order of the network, averaged over places or tokens; of images
    also stages.INPUT, their numbers as they are, averaged to at most stages.SIDE a side
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
  labels, rows, examples = examples_of_target(study, source, target, shots, seed, most)
  variables = variables or source_variables(study, source, workdir)
  found = stages.stages_of(study, source, variables, examples, every)
  probs = found.pop(stages.PROBS, None)
  return Evidence(labels, found, probs, rows)


def examples_of_target(
  study: Mapping[str, Any],
  source: str,
  target: str,
  shots: int = 0,
  seed: int | None = None,
  most: int = 0,
) -> tuple[np.ndarray, np.ndarray, PyTree]:
  """(labels [N], rows of the training part [N], examples as a source's form stores them); the
  arguments are those of `gather`.

  Raises:
    ValueError: a task without classes.
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
  return labels[rows], rows, feed.some(data.train.inputs, rows)


def of_source(
  study: Mapping[str, Any], source: str, variables: Variables, most: int, every: bool = True
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """(labels [M], {stage: features [M, D]}) of at most `most` of the examples that a source of the
  study is trained on.
  """
  labels, examples = examples_of_source(study, source, most)
  found = stages.stages_of(study, source, variables, examples, every)
  found.pop(stages.PROBS, None)
  return labels, found


def examples_of_source(
  study: Mapping[str, Any], source: str, most: int
) -> tuple[np.ndarray, PyTree]:
  """(labels [M], examples as stored) that a source of the study is trained on, at most `most`."""
  train = pairs.source_data(study, source).train
  rows = np.sort(np.random.default_rng(0).permutation(len(train.labels))[:most])
  return np.asarray(train.labels)[rows], feed.take(train.inputs, rows)


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
      f'{spelled("study")} with this config, and give its --workdir here.'
    )
  return run.load_weights(name, source).variables
