"""Processes of this machine that share one study: `--workers=N`."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from etils import epath
from rich.console import Console

from tlx.study import locks, progress, store


def run(number: int, workdir: os.PathLike | str) -> epath.Path:
  """Runs this command in so many processes and returns the study's folder once one of them found
  all of it done. What a process that dies held, the others take over.

  Raises:
    ValueError: there are fewer devices than processes, the folder keeps no locks, or all ended
      before the study did.
    KeyboardInterrupt: with the signal's number, once all have ended after a signal.
  """
  folder = store.place(workdir)
  if not locks.are_kept(folder):
    raise ValueError(
      f'--workers={number}: processes share a study by locks of files, and {folder} keeps none '
      '(object stores and Windows do not). Leave --workers out, or take a folder of a disk on '
      'Linux or macOS.'
    )
  shares = shares_of(number)
  names = [f'{progress.own_name()}-{i}' for i in range(number)]
  started = [_started(name, *share) for name, share in zip(names, shares)]
  before = {one: signal.signal(one, _ask) for one in (signal.SIGINT, signal.SIGTERM)}
  try:
    _watch(folder, dict(zip(names, started)))
  except KeyboardInterrupt as stop:
    for process in started:
      process.send_signal(signal.SIGTERM if stop.args[0] == signal.SIGTERM else signal.SIGINT)
    for process in started:
      process.wait()
    raise
  finally:
    for one, handler in before.items():
      signal.signal(one, handler)
  if all(process.returncode for process in started):
    ends = ', '.join(str(process.returncode) for process in started)
    raise ValueError(f'No process came to the end of the study (exit codes {ends}); see above.')
  return folder


def _ask(number: int, frame: object) -> None:
  raise KeyboardInterrupt(number)


def shares_of(number: int) -> list[tuple[set[int], dict[str, str]]]:
  """Of each process the cores it may use (none: not pinned) and what its environment says of GPUs.

  Raises:
    ValueError: there are fewer than processes.
  """
  gpus = _gpus()
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  for what, there in (('GPUs', gpus), ('cores', cores)):
    if there and number > len(there):
      raise ValueError(f'--workers={number} on {len(there)} {what}: take at most {len(there)}.')
  shares = []
  for i in range(number):
    env = {'CUDA_VISIBLE_DEVICES': ','.join(gpus[i::number])} if gpus else {}
    shares.append((set(cores[i::number]), env))
  return shares


def _gpus() -> list[str]:
  """The names of the GPUs that JAX would take; none where it computes on the CPU."""
  if os.environ.get('JAX_PLATFORMS', '') == 'cpu':
    return []
  if 'CUDA_VISIBLE_DEVICES' in os.environ:
    return [name for name in os.environ['CUDA_VISIBLE_DEVICES'].split(',') if name]
  if not shutil.which('nvidia-smi'):
    return []
  listed = subprocess.run(['nvidia-smi', '--list-gpus'], capture_output=True, text=True)
  return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith('GPU')]


def command(name: str, module: str, argv: Sequence[str]) -> list[str]:
  """The command line of one process, of that which was called; of flags the last one counts."""
  return [sys.executable, '-m', module, *argv, '--workers=0', f'--worker={name}']


def _started(name: str, cores: set[int], env: Mapping[str, str]) -> subprocess.Popen:
  """A process of the study on its cores, in a session of its own: this one passes signals on."""
  spec = sys.modules['__main__'].__spec__
  process = subprocess.Popen(
    command(name, spec.name if spec else 'experiments.study', sys.argv[1:]),
    env=os.environ | env,
    stdout=subprocess.DEVNULL,
    start_new_session=True,
  )
  if cores:
    os.sched_setaffinity(process.pid, cores)  # before it has threads
  return process


def _watch(folder: epath.Path, processes: Mapping[str, subprocess.Popen]) -> None:
  """Says what they say and how far they are together, until all have ended."""
  board, console = progress.Board(folder, ''), Console()
  read, told = dict.fromkeys(processes, 0), time.monotonic()
  ended: set[str] = set()
  while True:
    over = all(process.poll() is not None for process in processes.values())
    for name, process in processes.items():
      text = board.text(name)[read[name] :]
      read[name] += len(text)
      console.print(text, end='', highlight=False, markup=False, soft_wrap=True)
      if process.returncode and name not in ended:
        ended.add(name)
        console.print(f'Process {process.pid} ended with {process.returncode}.', highlight=False)
    if over:
      return
    states = board.states()
    if states and time.monotonic() - told >= progress.LINE_SECONDS:
      told, found = time.monotonic(), progress.total(states.values())
      at = ', '.join(state.cohort for state in states.values() if state.cohort)
      said = f'{progress.share_of(found):4.0%}  {progress.in_short(found)}  at {at or "no cohort"}'
      console.print(said, highlight=False, markup=False, soft_wrap=True)
    time.sleep(locks.LOOK_SECONDS)
