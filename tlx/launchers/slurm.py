"""Jobs of a Slurm cluster, by submitit (https://github.com/facebookincubator/submitit).

A job that reaches its time limit, or is preempted, saves, goes back into the queue and then on.
Jobs go on when who submitted them ends; logs are in WORKDIR/slurm.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from tlx.launchers import Needs

TAKES = ('partition', 'minutes', 'gpus', 'cpus')
CLUSTER = 'slurm'  # 'local' plays the queue on this machine
DEFAULT_MINUTES = 60
TIMES_REQUEUED = 10_000  # a study ends, however often its jobs do not
SAVE_SECONDS = 300  # before its time is over a job is told; a program that compiles is not left
LOOK_SECONDS = 0.5


class Command:
  """What a job does: its command, to its end; called and checkpointed by submitit."""

  def __init__(self, command: Sequence[str]):
    self.command = command
    self.pid = 0

  def __call__(self) -> int:
    """The exit code."""
    process = subprocess.Popen(self.command, preexec_fn=_deaf)
    self.pid = process.pid
    while process.poll() is None:  # not wait(): `checkpoint` interrupts, and would wait for ever
      time.sleep(LOOK_SECONDS)
    return process.returncode

  def checkpoint(self) -> Any:
    """Has the process save and end, shortly before the time is over; returns what to do next."""
    from submitit.helpers import DelayedSubmission

    if self.pid:
      os.kill(self.pid, signal.SIGTERM)
      os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
    return DelayedSubmission(Command(self.command))


def _deaf() -> None:
  """Slurm signals all processes of a job; that its time is nearly over is for `Command` alone."""
  signal.signal(signal.SIGUSR2, signal.SIG_IGN)


class Job:
  """A job of the queue."""

  def __init__(self, job: Any):
    self.job = job
    self.name = f'Job {job.job_id} (log: {job.paths.stderr})'

  def poll(self) -> int | None:
    if not self.job.done():
      return None
    # how a job failed that never came to return is for its log
    return self.job.result() if self.job.exception() is None else 1

  def stop(self, number: int) -> None:
    self.job.cancel(check=False)  # SIGTERM, of which a study saves


def start(commands: Sequence[Sequence[str]], folder: os.PathLike, needs: Needs) -> list[Job]:
  """A job for each command.

  Raises:
    ValueError: submitit or Slurm is missing, or the queue refuses.
  """
  try:
    import submitit
  except ImportError:
    raise ValueError("--launcher=slurm wants submitit: pip install 'tlx-jax[slurm]'.") from None
  logging.getLogger('submitit').setLevel(logging.ERROR)
  minutes = needs.minutes or DEFAULT_MINUTES
  try:
    executor = submitit.AutoExecutor(
      os.path.join(folder, 'slurm'), cluster=CLUSTER, slurm_max_num_timeout=TIMES_REQUEUED
    )
    executor.update_parameters(
      name='tlx',
      timeout_min=minutes,
      cpus_per_task=needs.cpus or 1,
      slurm_signal_delay_s=min(SAVE_SECONDS, 15 * minutes),
      slurm_additional_parameters={'requeue': True},
      **({'gpus_per_node': needs.gpus} if needs.gpus else {}),
      **({'slurm_partition': needs.partition} if needs.partition else {}),
    )
    return [Job(executor.submit(Command(command))) for command in commands]
  except (RuntimeError, submitit.core.utils.FailedJobError) as error:
    raise ValueError(f'--launcher=slurm: {str(error).strip()}') from None
