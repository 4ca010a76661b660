"""How far the processes of a study are: a bar on a terminal, plain lines elsewhere."""

import contextlib
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tlx import checkpoint
from tlx.study import locks

LINE_SECONDS = 5.0
BOARD = '.workers'  # of a study's folder: what its processes say of themselves


class Part(NamedTuple):
  """One cohort: its name, its method, how many runs, and the steps of each."""

  id: str
  method: str
  runs: int
  steps: int


class State(NamedTuple):
  """What one process knows of a study.

  parts: all of it; done: the cohorts that it trained or found there
  costs: {method: (seconds, runs) that it trained}
  cohort: at which it works; '' while it waits
  share: of the cohort's steps that are done; seconds: it took so far; left: it will take
  """

  parts: Mapping[str, Part]
  done: tuple[str, ...] = ()
  costs: Mapping[str, tuple[float, int]] = {}
  cohort: str = ''
  share: float = 0.0
  seconds: float = 0.0
  left: float = 0.0


class Total(NamedTuple):
  """Of a study: the runs there are, those that are done, these with parts of runs, the seconds
  that are left (None: not known yet).
  """

  runs: int
  done: int
  with_parts: float
  left: float | None


def total(states: Iterable[State]) -> Total:
  """How far the processes of a study are together. What waits is shared by all, at what runs of its
  method took or else the mean run.
  """
  states = list(states)
  parts = {name: part for state in states for name, part in state.parts.items()}
  done = {name for state in states for name in state.done}
  working = {state.cohort: state for state in states if state.cohort and state.cohort not in done}
  runs_done = sum(parts[name].runs for name in done)
  with_parts = runs_done + sum(parts[name].runs * at.share for name, at in working.items())
  waiting = [part for name, part in parts.items() if name not in done and name not in working]
  costs: dict[str, tuple[float, int]] = {}
  for name, at in working.items():
    costs[parts[name].method] = at.seconds + at.left, parts[name].runs
  known: dict[str, tuple[float, int]] = {}
  for state in states:
    for method, (seconds, runs) in state.costs.items():
      before = known.get(method, (0.0, 0))
      known[method] = before[0] + seconds, before[1] + runs
  left = None
  if working and (known or not waiting):
    costs |= known
    mean = sum(seconds for seconds, _ in costs.values()) / sum(runs for _, runs in costs.values())
    of_run = {method: seconds / runs for method, (seconds, runs) in costs.items()}
    later = sum(part.runs * of_run.get(part.method, mean) for part in waiting)
    left = max(at.left for at in working.values()) + later / len(working)
  return Total(sum(part.runs for part in parts.values()), runs_done, with_parts, left)


class Board:
  """Where the processes of a study say how far they are."""

  def __init__(self, workdir: epath.Path, name: str):
    self.workdir, self.name = workdir, name
    self.kept = locks.are_kept(workdir)

  @contextlib.contextmanager
  def shown(self) -> Iterator[None]:
    """Within, the others see this process; it is gone however it ends."""
    with locks.held(self.workdir, f'worker-{self.name}', wait=True):
      yield

  def say(self, state: State) -> None:
    """Shows the others how far this process is. A disk that is full is said where it matters."""
    if self.kept:
      with contextlib.suppress(OSError):
        (self.workdir / BOARD).mkdir(exist_ok=True)
        checkpoint.write_json(self.workdir / BOARD / f'{self.name}.state', state._asdict())

  def line(self, text: str) -> None:
    """Keeps a line for the process that started this one."""
    with contextlib.suppress(OSError):
      (self.workdir / BOARD).mkdir(exist_ok=True)
      with (self.workdir / BOARD / f'{self.name}.txt').open('a') as file:
        file.write(f'{text}\n')

  def text(self, name: str) -> str:
    """The lines that a process kept so far."""
    try:
      return (self.workdir / BOARD / f'{name}.txt').read_text()
    except FileNotFoundError:
      return ''

  def states(self) -> dict[str, State]:
    """By process what it said last; of those that are gone what they finished."""
    found = {}
    for path in sorted((self.workdir / BOARD).glob('*.state')) if self.kept else ():
      with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # it is being written
        found[path.stem] = _state(json.loads(path.read_text()), self.is_gone(path.stem))
    return found

  def is_gone(self, name: str) -> bool:
    return name != self.name and locks.is_free(self.workdir, f'worker-{name}')

  def clear(self) -> None:
    """Takes away what the processes of earlier starts said."""
    if self.kept and (self.workdir / BOARD).exists():
      (self.workdir / BOARD).rmtree()


def _state(content: Mapping[str, Any], is_gone: bool) -> State:
  state = State(**content)
  parts = {name: Part(*part) for name, part in state.parts.items()}
  return state._replace(parts=parts, cohort='' if is_gone else state.cohort)


def own_name() -> str:
  return f'{platform.node()}-{os.getpid()}'


class Reporter:
  """Counts the runs of a study, cohort by cohort, and says what is left.

  With a `board` it counts those of the other processes too; `is_child` keeps its lines for who
  started it.
  """

  def __init__(
    self,
    parts: Iterable[Part],
    aloud: bool = True,
    board: Board | None = None,
    is_child: bool = False,
  ):
    self.state = State({part.id: part for part in parts})
    self.board, self.is_child = board if aloud else None, is_child
    self.others: dict[str, State] = {}  # as they were at the last line
    self.began = self.told = time.monotonic()  # the cohort; the last line
    self.console = Console(quiet=not aloud or is_child)
    self.bar = None
    if aloud and not is_child and sys.stdout.isatty():
      self.bar = bar(self.console)
      self.bar.start()
      self.task = self.bar.add_task('', total=self._total().runs)

  def add(self, part: Part) -> None:
    """A cohort that nobody knew of."""
    self.state = self.state._replace(parts={**self.state.parts, part.id: part})

  def skip(self, name: str) -> None:
    """Passes over a cohort that another process finished."""
    self.state = self.state._replace(done=(*self.state.done, name))

  def begin(self, name: str) -> None:
    """A cohort begins."""
    self.began = time.monotonic()
    self.state = self.state._replace(cohort=name, share=0.0, seconds=0.0, left=0.0)
    self._publish()

  def say(self, name: str, steps: int, rate: float) -> None:
    """`steps` of each run of the cohort `name` are done, at `rate` steps a second of all its
    runs together.
    """
    now, part = time.monotonic(), self.state.parts[name]
    self.state = self.state._replace(
      cohort=name,
      share=steps / part.steps,
      seconds=now - self.began,
      left=part.runs * (part.steps - steps) / max(rate, 1e-9),
    )
    pace = (
      '' if part.steps == 1 else f'  {rate:,.0f} steps/s' if rate >= 10 else f'  {rate:.1f} steps/s'
    )
    if self.bar or now - self.told >= LINE_SECONDS:
      self._tell(name, pace, now)

  def wait(self) -> None:
    """What is left is in the hands of other processes."""
    self.state = self.state._replace(cohort='')
    now = time.monotonic()
    if now - self.told >= LINE_SECONDS:
      self._tell('waiting for the others', '', now)

  def finish(self, name: str) -> None:
    """A cohort is trained."""
    part = self.state.parts[name]
    seconds, runs = self.state.costs.get(part.method, (0.0, 0))
    spent = seconds + time.monotonic() - self.began, runs + part.runs
    costs = {**self.state.costs, part.method: spent}
    done = (*self.state.done, name)
    self.state = self.state._replace(costs=costs, done=done, cohort='')
    self._publish()

  def _publish(self) -> None:
    if self.board:
      self.board.say(self.state)

  def _tell(self, name: str, pace: str, now: float) -> None:
    """Where the study stands, to who looks on."""
    if now - self.told >= LINE_SECONDS and self.board and not self.is_child:
      self.others = self.board.states()
      self.others.pop(self.board.name, None)
    if now - self.told >= LINE_SECONDS:
      self._publish()
    found = self._total()
    text = f'{name}  {in_short(found, pace)}'
    if self.bar:
      self.bar.update(self.task, completed=found.with_parts, total=found.runs, description=text)
    elif now - self.told >= LINE_SECONDS and not self.is_child:
      self.line(f'{share_of(found):4.0%}  {text}')
    if now - self.told >= LINE_SECONDS:
      self.told = now

  def _total(self) -> Total:
    return total([*self.others.values(), self.state])

  def line(self, text: str) -> None:
    """Prints a line above the bar."""
    if self.is_child and self.board:
      self.board.line(text)
    self.console.print(text, highlight=False, markup=False, soft_wrap=True)

  def close(self) -> None:
    """Takes the bar away."""
    self.state = self.state._replace(cohort='')
    self._publish()
    if self.bar:
      self.bar.stop()


def bar(console: Console) -> Progress:
  """The bar of a terminal."""
  return Progress(
    BarColumn(),
    TextColumn('{task.percentage:3.0f}%'),
    TextColumn('{task.description}'),
    console=console,
  )


def share_of(found: Total) -> float:
  """The share of a study's runs that is done."""
  return found.with_parts / max(found.runs, 1)


def in_short(found: Total, pace: str = '') -> str:
  """'runs 3/8  1.0 steps/s  0:10:00 left'."""
  left = '' if found.left is None else f'  {datetime.timedelta(seconds=int(found.left))} left'
  return f'runs {found.done}/{found.runs}{pace}{left}'
