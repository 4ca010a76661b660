"""How far a study is: a bar on a terminal, plain lines elsewhere."""

import datetime
import sys
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 5.0


class Part(NamedTuple):
  """One cohort: its method, how many runs, and the steps of each."""

  method: str
  runs: int
  steps: int


class Reporter:
  """Counts the runs of a study, cohort by cohort in their order, and says what is left."""

  def __init__(self, parts: Iterable[Part], aloud: bool = True):
    self.parts = deque(parts)  # what is not finished
    self.total, self.runs = sum(part.runs for part in self.parts), 0
    self.costs: dict[str, tuple[float, int]] = {}  # method -> (seconds, runs) in this process
    self.began = self.told = time.monotonic()  # the cohort; the last line
    self.console = Console(quiet=not aloud)
    self.bar = None
    if aloud and sys.stdout.isatty():
      self.bar = Progress(
        BarColumn(),
        TextColumn('{task.percentage:3.0f}%'),
        TextColumn('{task.description}'),
        console=self.console,
      )
      self.bar.start()
      self.task = self.bar.add_task('', total=self.total)

  def add(self, part: Part) -> None:
    """A cohort that nobody knew of comes next."""
    self.parts.appendleft(part)
    self.total += part.runs
    if self.bar:
      self.bar.update(self.task, total=self.total)

  def skip(self, num_parts: int) -> None:
    """Passes over cohorts that an earlier process finished."""
    self.runs += sum(self.parts.popleft().runs for _ in range(num_parts))

  def begin(self) -> None:
    """The next cohort begins."""
    self.began = time.monotonic()

  def say(self, name: str, steps: int, rate: float) -> None:
    """`steps` of each run of the cohort `name` are done, at `rate` steps a second of all its
    runs together.
    """
    now, part = time.monotonic(), self.parts[0]
    done = self.runs + part.runs * steps / part.steps
    left = self._left(now, part.runs * (part.steps - steps) / max(rate, 1e-9))
    pace = (
      '' if part.steps == 1 else f'  {rate:,.0f} steps/s' if rate >= 10 else f'  {rate:.1f} steps/s'
    )
    text = f'{name}  runs {self.runs}/{self.total}{pace}' + (
      '' if left is None else f'  {datetime.timedelta(seconds=int(left))} left'
    )
    if self.bar:
      self.bar.update(self.task, completed=done, description=text)
    elif now - self.told >= LINE_SECONDS:
      self.told = now
      self.line(f'{done / max(self.total, 1):4.0%}  {text}')

  def finish(self) -> None:
    """The cohort is trained."""
    part = self.parts.popleft()
    seconds, runs = self.costs.get(part.method, (0.0, 0))
    self.costs[part.method] = (
      seconds + time.monotonic() - self.began,
      runs + part.runs,
    )
    self.runs += part.runs

  def _left(self, now: float, here: float) -> float | None:
    """Seconds: `here` for this cohort and, for each later run, what a run of its method took,
    or else the mean run.

    None while other cohorts follow and none is done.
    """
    part, *later = self.parts
    if later and not self.costs:
      return None
    costs = {part.method: (now - self.began + here, part.runs)} | self.costs
    mean = sum(seconds for seconds, _ in costs.values()) / sum(runs for _, runs in costs.values())
    known = {method: seconds / runs for method, (seconds, runs) in costs.items()}
    return here + sum(other.runs * known.get(other.method, mean) for other in later)

  def line(self, text: str) -> None:
    """Prints a line above the bar."""
    self.console.print(text, highlight=False, markup=False, soft_wrap=True)

  def close(self) -> None:
    """Takes the bar away."""
    if self.bar:
      self.bar.stop()
