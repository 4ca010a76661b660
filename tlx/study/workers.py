"""Processes that share one study, here or on other machines: `--workers=N`, `--launcher=NAME`."""

import os
import signal
import sys
import time
from collections.abc import Mapping

from etils import epath
from rich.console import Console

from tlx.launchers import Needs, Task
from tlx.plug import plug
from tlx.study import locks, progress, store

FLAGS = {'partition': 'partition', 'minutes': 'time', 'gpus': 'gpus', 'cpus': 'cpus'}


def run(number: int, workdir: os.PathLike | str, launcher: str, needs: Needs) -> epath.Path:
  """Runs this command in so many processes and returns the study's folder once one of them found
  all of it done. What a process that dies held, the others take over.

  Raises:
    ValueError: the launcher cannot start them or does not know what they need, the folder keeps no
      locks, or all ended before the study did.
    KeyboardInterrupt: with the signal's number, once all have ended after a signal.
  """
  folder = store.place(workdir)
  if not locks.are_kept(folder):
    raise ValueError(
      f'--workers={number}: processes share a study by locks of files, and {folder} keeps none '
      '(object stores and Windows do not). Leave --workers out, or take a folder of a disk on '
      'Linux or macOS.'
    )
  where = plug('launchers', launcher)
  for field, value in needs._asdict().items():
    if value and field not in where.TAKES:
      raise ValueError(f'--{FLAGS[field]}={value} means nothing to --launcher={launcher}.')
  names = [f'{progress.own_name()}-{i}' for i in range(number)]
  started = where.start([command(name) for name in names], folder, needs)
  before = {one: signal.signal(one, _ask) for one in (signal.SIGINT, signal.SIGTERM)}
  tasks = dict(zip(names, started))
  try:
    _watch(folder, tasks)
  except KeyboardInterrupt as stop:
    for task in started:
      task.stop(signal.SIGTERM if stop.args[0] == signal.SIGTERM else signal.SIGINT)
    while any(task.poll() is None for task in started):
      time.sleep(locks.LOOK_SECONDS)
    raise
  finally:
    for one, handler in before.items():
      signal.signal(one, handler)
  if all(task.poll() for task in started):
    ends = ', '.join(str(task.poll()) for task in started)
    raise ValueError(f'No process came to the end of the study (exit codes {ends}); see above.')
  return folder


def _ask(number: int, frame: object) -> None:
  raise KeyboardInterrupt(number)


def command(name: str) -> list[str]:
  """The command line of one process, of that which was called."""
  spec = sys.modules['__main__'].__spec__
  module = spec.name if spec else 'experiments.study'
  return [sys.executable, '-m', module, *sys.argv[1:], f'--worker={name}']


def _watch(folder: epath.Path, tasks: Mapping[str, Task]) -> None:
  """Says what they say and how far they are together, until all have ended."""
  board, console = progress.Board(folder, ''), Console()
  console.print(
    f'Started: {", ".join(task.name for task in tasks.values())}.',
    highlight=False,
    markup=False,
    soft_wrap=True,
  )
  read, told = dict.fromkeys(tasks, 0), time.monotonic()
  ended: set[str] = set()
  while True:
    codes = {name: task.poll() for name, task in tasks.items()}
    for name, code in codes.items():
      text = board.text(name)[read[name] :]
      read[name] += len(text)
      console.print(text, end='', highlight=False, markup=False, soft_wrap=True)
      if code and name not in ended:
        ended.add(name)
        said = f'{tasks[name].name} ended with {code}.'
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    if None not in codes.values():
      return
    states = board.states()
    if states and time.monotonic() - told >= progress.LINE_SECONDS:
      told, found = time.monotonic(), progress.total(states.values())
      at = ', '.join(state.cohort for state in states.values() if state.cohort)
      said = f'{progress.share_of(found):4.0%}  {progress.in_short(found)}  at {at or "no cohort"}'
      console.print(said, highlight=False, markup=False, soft_wrap=True)
    time.sleep(locks.LOOK_SECONDS)
