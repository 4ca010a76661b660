"""Processes of this machine, each with its share of the cores or GPUs."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from tlx.launchers import Needs

TAKES: tuple[str, ...] = ()


class Process:
  """A process on its cores, in a session of its own: who started it passes signals on."""

  def __init__(self, command: Sequence[str], cores: set[int], env: Mapping[str, str]):
    self.process = subprocess.Popen(
      command, env=os.environ | env, stdout=subprocess.DEVNULL, start_new_session=True
    )
    if cores:
      os.sched_setaffinity(self.process.pid, cores)  # before it has threads
    self.name = f'Process {self.process.pid}'

  def poll(self) -> int | None:
    return self.process.poll()

  def stop(self, number: int) -> None:
    self.process.send_signal(number)


def start(commands: Sequence[Sequence[str]], folder: os.PathLike, needs: Needs) -> list[Process]:
  """A process for each command.

  Raises:
    ValueError: there are fewer cores or GPUs than processes.
  """
  shares = shares_of(len(commands))
  return [Process(command, *share) for command, share in zip(commands, shares)]


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
