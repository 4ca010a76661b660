"""What a number, a text or a sequence of them may be, and the error for what it may not."""

import math
import numbers
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from tlx.plug import closest


class Range(NamedTuple):
  """Finite numbers from `low` to `high`; `above` and `below` leave the ends themselves out."""

  low: float
  high: float
  above: bool = False
  below: bool = False

  def holds(self, value: float) -> bool:
    """False for NaN too."""
    return (self.low < value if self.above else self.low <= value) and (
      value < self.high if self.below else value <= self.high
    )

  def __str__(self) -> str:
    low, high = (
      f'{end:,}' if isinstance(end, int) else f'{end:g}' for end in (self.low, self.high)
    )
    least = 'more than' if self.above else 'at least'
    most = 'less than' if self.below else 'at most'
    return f'{least} {low} and {most} {high}'


class Each(NamedTuple):
  """One or more numbers of a range; `different`: none of them twice."""

  range: Range
  different: bool = True


TEXT = 'a text'
PLUGIN = "a name, or a dict of a name and options such as {'name': 'sgd', 'momentum': 0.9}"
STAGE = "a stage, or a dict of a stage and a grid such as {'stage': 'conv2', 'grid': 4}"
SWITCH = 'True or False'
FIELDS = 'a dict'
TEXTS = "a dict of texts such as {'3': 'three'}"
PHASES = 'a sequence of dicts, one a phase'
CLAIMS = 'a sequence of dicts, one a claim'
PLUGINS = "a sequence of names or dicts such as ('calibration', {'name': 'top_k', 'k': 5})"
Kind = Range | Each | tuple[str, ...] | str


LARGEST = 3e38  # of float32
SMALLEST = 1.2e-38  # of float32 that is not rounded to 0
POSITIVE = Range(SMALLEST, LARGEST)
NOT_NEGATIVE = Range(0.0, LARGEST)


def checked(where: str, value: Any, kind: Kind, default: Any) -> Any:
  """`value` as a field of this kind takes it: whole numbers as int, others as float, sequences as
  tuples.

  Raises:
    ValueError: it is none of these; the message says what `where` takes.
  """
  if isinstance(kind, Range):
    return _number(where, value, kind, whole=isinstance(default, int))
  if isinstance(kind, Each):
    return _numbers(where, value, kind, whole=isinstance(default[0], int))
  if isinstance(kind, tuple):
    if value not in kind:
      raise ValueError(
        f'{where} is {" or ".join(map(repr, kind))}, got {value!r}.{closest(value, kind)}'
      )
    return value
  types: Mapping[str, tuple[type, ...]] = {
    TEXT: (str,),
    PLUGIN: (str, Mapping),
    STAGE: (str, Mapping),
    SWITCH: (bool,),
    FIELDS: (Mapping,),
    TEXTS: (Mapping,),
    PHASES: (tuple, list),
    CLAIMS: (tuple, list),
    PLUGINS: (tuple, list),
  }
  fits = isinstance(value, types[kind])
  if kind == TEXTS and fits:
    fits = all(isinstance(text, str) for text in value.values())
  if not fits:
    raise ValueError(
      f'{where} takes {kind}{f" such as {default!r}" if default else ""}, got {value!r}.'
    )
  return tuple(value) if kind in (PHASES, CLAIMS, PLUGINS) else value


def kind_of(default: Any) -> Kind:
  """What a field takes of which only the default is known."""
  if isinstance(default, bool):
    return SWITCH
  if isinstance(default, (int, float)):
    return NOT_NEGATIVE
  if isinstance(default, tuple):
    return Each(Range(-LARGEST, LARGEST), different=False)
  return TEXT if isinstance(default, str) else FIELDS


def _number(where: str, value: Any, kind: Range, whole: bool) -> float:
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    raise ValueError(f'{where} takes a {"whole " if whole else ""}number, got {value!r}.')
  number = float(value)
  if not math.isfinite(number) or not kind.holds(number):
    raise ValueError(f'{where} is {kind}, got {value!r}.')
  if whole and not number.is_integer():
    raise ValueError(f'{where} takes a whole number, got {value!r}.')
  return int(number) if whole else number


def _numbers(where: str, value: Any, kind: Each, whole: bool) -> tuple[float, ...]:
  different = 'different ' if kind.different else ''
  takes = f'{where} takes {different}{"whole " if whole else ""}numbers, {kind.range}'
  if not isinstance(value, (tuple, list)) or not value:
    raise ValueError(f'{takes}, such as (1,), got {value!r}.')
  try:
    found = tuple(_number(where, one, kind.range, whole) for one in value)
  except ValueError:
    raise ValueError(f'{takes}, got {value!r}.') from None
  if kind.different and len({struct.pack('f', one) for one in found}) < len(found):
    raise ValueError(f'{takes}, got {value!r}; training computes with float32.')
  return found
