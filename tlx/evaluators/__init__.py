"""Evaluators: one a file, `evaluate(finished, **options) -> {column: number or list}`.

They look at a run that was trained and chosen, after its task's own columns are known, and change
nothing of it. Columns are flat beside the task's in `test` of its result.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tlx.types import PyTree, Task


class Part(NamedTuple):
  """Examples of a part: inputs as stored, leaves [N, ...], and what the task compares with.

  Inputs may be larger than memory, and are then read by `inputs.take(rows)`.
  """

  inputs: PyTree
  targets: PyTree


class Recalled(NamedTuple):
  """The test part of the source's own task: what the run and the source give the source's head."""

  logits: np.ndarray
  source_logits: np.ndarray
  labels: np.ndarray


class Speed(NamedTuple):
  """How fast a run answers on a device, and the FLOPs of an example."""

  examples_per_second: float
  flops: float
  device: str


class Answer(NamedTuple):
  """What a model said in a dialogue of the test part.

  prompt: the messages before, (role, content) each; reference: what was answered there
  ended: it ended by itself, and not since it had as many tokens as were asked for
  """

  id: str
  prompt: Sequence[tuple[str, str]]
  reference: str
  text: str
  ended: bool


class Line(NamedTuple):
  """What lies between two runs that differ in their seeds.

  seeds: of both; distance: of their parameters, Euclidean
  scores: the task's columns on the test set at points evenly from one to the other, both included
  """

  seeds: tuple[int, int]
  distance: float
  scores: Sequence[Mapping[str, float]]


class Finished(NamedTuple):
  """A finished run as an evaluator sees it; what is computed is computed once for all of them.

  predict(part) -> {name: leaf [N, ...]}, what the task keeps of the outputs. A part is 'train' (the
    run's own examples), 'val', 'test', or other inputs stored in the form of the run's
  features(part) -> [N, D], what comes out of the last stage before the head, averaged over places
  by_stage(part, stages, source=False) -> {stage: [N, D]}, the same of several stages; `source`
    takes the source's parameters instead of the run's
  data(part) -> Part of 'train', 'val' or 'test'
  task: what the run answers
  on_source() -> Recalled, None where the source's own task or head is not there
  on_text(name, rows) -> (what the run's task says of the first rows of the test part of another
    text, the same of what the run started from; None where it started at random)
  load(name) -> the inputs of the test part of another data set, in the form of the run's
  answers(prompts, tokens) -> [Answer], the most probable ones of up to `tokens` tokens to that many
    dialogues of the test part, the same for every run: to each its last answer whose beginning the
    run's input has room for
  stages: those before the head, in order; of a source as the run has them
  line(points) -> Line from the run of the next lower seed to this one; None where there is no other
  speed(batch_size) -> Speed of the whole network at inference
  params, source_params: of the run and of what it started from; None where it started at random
  """

  predict: Callable[[Any], Mapping[str, np.ndarray]]
  features: Callable[[str], np.ndarray]
  by_stage: Callable[..., Mapping[str, np.ndarray]]
  data: Callable[[str], Part]
  task: Task
  on_source: Callable[[], Recalled | None]
  on_text: Callable[[str, int], tuple[Mapping[str, Any], Mapping[str, Any] | None]]
  load: Callable[[str], PyTree]
  speed: Callable[[int], Speed]
  answers: Callable[[int, int], Sequence[Answer]]
  line: Callable[[int], Line | None]
  stages: tuple[str, ...]
  params: PyTree
  source_params: PyTree | None
