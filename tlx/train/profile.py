"""Traces of chosen steps, by jax.profiler: for TensorBoard's profile page, xprof or Perfetto."""

import contextlib
import os
import re
from typing import NamedTuple

import jax
from etils import epath

BEYOND = 2**62


class Profile(NamedTuple):
  """Steps [first, stop) of a cohort, counted from its first phase on; the folder of their traces.

  >>> Profile(2, 4, epath.Path('runs')).left(1), Profile(2, 4, epath.Path('runs')).left(2)
  (1, 2)
  """

  first: int
  stop: int
  folder: epath.Path

  def left(self, at: int) -> int:
    """How many steps from `at` on are all traced or all not."""
    return next((edge - at for edge in (self.first, self.stop) if at < edge), BEYOND)

  def traced(self, at: int) -> contextlib.AbstractContextManager:
    """Within, what runs goes to a trace of its own, where `at` is one of the steps: evaluations
    divide them, and two traces of one second would be one file.
    """
    if not self.first <= at < self.stop:
      return contextlib.nullcontext()
    return jax.profiler.trace(os.fspath(self.folder / f'step_{at}'))


def steps(text: str) -> tuple[int, int] | None:
  """(first, stop) of the steps that a flag names; None of an empty one.

  >>> steps('100:110')
  (100, 110)

  Raises:
    ValueError: it names none.
  """
  if not text:
    return None
  match = re.fullmatch(r'(\d+):(\d+)', text)
  if not match or int(match[1]) >= int(match[2]):
    raise ValueError(f'--profile={text} names no steps; give FIRST:STOP, such as 100:110.')
  return int(match[1]), int(match[2])
