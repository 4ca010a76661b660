"""Targets that are no class: a number an example ('score'), or any number of labels ('labels')."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tlx.datasets._types import in_order

# The names that a column may have, whatever the case; of several the first is taken.
COLUMNS = {
  'score': ('score', 'similarity', 'similarity_score', 'rating', 'value'),
  'labels': ('labels', 'tags', 'categories'),
}
ONE = 'all'  # the class of every example: there is nothing to balance over


def read(kind: str, found: Any) -> tuple[Any, str]:
  """(a number, or the names of labels without repetition; what is wrong with them or '').

  A table has labels as 'a|b' or as a JSON list; '' is none.

  >>> read('score', '2.5'), read('labels', 'a|b'), read('labels', ['b', 'a', 'b'])
  ((2.5, ''), (('a', 'b'), ''), (('b', 'a'), ''))
  """
  return _number(found) if kind == 'score' else _names(found)


def _number(found: Any) -> tuple[float | None, str]:
  try:
    number = math.nan if isinstance(found, bool) else float(found)
  except (TypeError, ValueError):
    number = math.nan
  return (number, '') if math.isfinite(number) else (None, f'the score {found!r}, wanted a number')


def _names(found: Any) -> tuple[tuple[str, ...], str]:
  names = found
  if isinstance(found, str):
    names = [name.strip() for name in found.split('|') if name.strip()]
    if found.lstrip().startswith('['):
      try:
        names = json.loads(found)
      except ValueError:
        names = None
  usable = isinstance(names, list)
  for name in names if usable else ():
    usable &= isinstance(name, (str, int)) and name != ''
  if not usable:
    return (), f'the labels {found!r}, wanted a list such as ["a", "b"], or a|b'
  return tuple(dict.fromkeys(map(str, names))), ''


def class_names(values: Sequence[Any]) -> tuple[str, ...]:
  """The labels that some example has, in order; of numbers the one class that all are of."""
  return in_order(each(values)) if isinstance(values[0], tuple) else (ONE,)


def each(values: Iterable[Any]) -> list[str]:
  """All labels of all examples; none of numbers."""
  return [name for value in values if isinstance(value, tuple) for name in value]


def array(values: Sequence[Any], names: Sequence[str]) -> np.ndarray:
  """float32 [N] of numbers; of labels 1.0 where an example has one, [N, K]."""
  if not isinstance(values[0], tuple):
    return np.array(values, np.float32)
  number = {name: i for i, name in enumerate(names)}
  made = np.zeros((len(values), len(names)), np.float32)
  for row, value in enumerate(values):
    made[row, [number[name] for name in value]] = 1.0
  return made
