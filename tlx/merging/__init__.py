"""Rules that make one set of weights of several, one a file: `merge(vectors, score, **options)`.

A vector holds what the weights of a run are beyond those that it started from (the task vector of
Ilharco et al. 2023, arXiv:2212.04089): {leaf: float64 array}. The study adds `scale` times what a
rule gives to the start, so that the mean of vectors at scale 1 is the mean of the weights.

Beside `merge`, whose options have defaults, a file has RANGES (what each option may be), OVER
(which runs it is of where the config does not say) and FROM_START: whether it looks at where the
runs started; else the start cancels at scale 1.
"""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Vector = Mapping[str, np.ndarray]


class Merged(NamedTuple):
  """One vector of several, and which of them are in it, by their place."""

  vector: Vector
  used: tuple[int, ...]


Score = Callable[[Merged], float]  # on validation, more is better


def mean_of(vectors: Sequence[Vector]) -> Vector:
  """The mean, leaf by leaf.

  >>> mean_of([{'a': np.array([1.0])}, {'a': np.array([3.0])}])
  {'a': array([2.])}
  """
  return {name: np.mean([vector[name] for vector in vectors], axis=0) for name in vectors[0]}


def options_of(rule: types.ModuleType) -> dict[str, Any]:
  """The options of a rule, at their defaults."""
  _, _, *options = inspect.signature(rule.merge).parameters.values()
  return {option.name: option.default for option in options}


def everyone(vectors: Sequence[Vector]) -> tuple[int, ...]:
  """The places of all vectors."""
  return tuple(range(len(vectors)))
