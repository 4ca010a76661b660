"""A job of a queue, which submitit plays on this machine."""

import os
import signal
import subprocess
import threading
import time

import pytest

from tests.study.test_run import numbers
from tlx.launchers import Needs, slurm
from tlx.study import workers


def children(pid):
  listed = subprocess.run(['pgrep', '-P', str(pid)], capture_output=True, text=True)
  return [int(line) for line in listed.stdout.split()]


def test_a_job_that_reaches_its_limit_goes_on(command, finished, tmp_path, monkeypatch):
  """It saves, is queued again, and comes to the numbers of one process."""
  pytest.importorskip('submitit', reason="needs it: pip install 'tlx-jax[slurm]'")
  workdir = tmp_path / 'queued'

  def limit():
    """Tells all processes of the job that its time is nearly over, as Slurm does."""
    while not any(workdir.glob('cohorts/*/checkpoints/*/meta.json')):
      time.sleep(0.01)
    (job,) = (int(path.name.split('_')[0]) for path in workdir.glob('slurm/*_log.err'))
    (task,) = children(job)
    for pid in (*children(task), task):
      os.kill(pid, signal.SIGUSR2)

  monkeypatch.setattr(slurm, 'CLUSTER', 'local')
  monkeypatch.setattr(workers, 'command', lambda name: command(workdir, f'--worker={name}'))
  threading.Thread(target=limit, daemon=True).start()
  workers.run(1, workdir, 'slurm', Needs(minutes=9))
  assert numbers(workdir) == numbers(finished[0])
  (log,) = workdir.glob('slurm/*_log.err')
  assert 'The same command continues' in log.read_text()  # said by the one that saved
  (log,) = workdir.glob('slurm/*_log.out')
  assert log.read_text().count('Requeued job') == 1


def test_where_there_is_no_slurm_it_is_said(tmp_path, monkeypatch):
  pytest.importorskip('submitit', reason="needs it: pip install 'tlx-jax[slurm]'")
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(ValueError, match='--launcher=slurm: .*srun'):
    slurm.start([['true']], tmp_path, Needs())


def test_what_a_job_needs_reaches_the_queue(tmp_path, monkeypatch):
  """Of `sbatch`, for which a script stands in, each job's file is read."""
  pytest.importorskip('submitit', reason="needs it: pip install 'tlx-jax[slurm]'")
  for name, script in (
    ('srun', ''),
    ('sbatch', f'cat "$1" >> {tmp_path}/seen; echo Submitted batch job 7'),
  ):
    (tmp_path / name).write_text(f'#!/bin/sh\n{script}\n')
    (tmp_path / name).chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  (job,) = slurm.start([['true']], tmp_path, Needs('big', 240, gpus=2, cpus=8))
  assert 'Job 7' in job.name and str(tmp_path / 'slurm') in job.name
  asked = (tmp_path / 'seen').read_text()
  for line in ('partition=big', 'time=240', 'gpus-per-node=2', 'cpus-per-task=8', 'requeue'):
    assert f'#SBATCH --{line}\n' in asked, asked
  assert '#SBATCH --signal=USR2@300\n' in asked
