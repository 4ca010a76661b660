"""Several processes on one workdir: the numbers of one, whoever dies."""

import os
import signal
import subprocess
import sys

import pytest

from tests.study.conftest import ROOT
from tests.study.test_run import numbers, wait_for
from tlx.launchers import Needs
from tlx.study import locks, workers


@pytest.mark.skipif(
  not hasattr(os, 'sched_getaffinity') or len(os.sched_getaffinity(0)) < 2, reason='one core'
)
def test_workers_give_the_numbers_of_one_process_whoever_dies(command, finished, tmp_path):
  """They steal no work, and what the dead one held is gone on with by the other."""
  workdir = tmp_path / 'two'
  process = subprocess.Popen(
    command(workdir, '--workers=2'),
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  wait_for(lambda: any(workdir.glob('cohorts/*/checkpoints/*/meta.json')), process)
  children = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True)
  killed = int(children.stdout.split()[0])
  os.kill(killed, signal.SIGKILL)
  said, errors = process.communicate(timeout=300)
  assert process.returncode == 0 and said.count('Report:') == 1, errors
  assert f'Process {killed} ended with -9.' in said
  assert numbers(workdir) == numbers(finished[0])
  of_methods = (f'{method} from turned on digits: val' for method in ('scratch', 'probe', 'lp_ft'))
  counts = [said.count(line) for line in ('Training the source turned', *of_methods)]
  assert min(counts) == 1 and sum(counts) <= 5, said  # twice is only what the dead one was at


def test_a_folder_without_locks_is_refused_to_workers(monkeypatch, tmp_path):
  monkeypatch.setattr(sys, 'platform', 'win32')
  with pytest.raises(ValueError, match='keeps none .object stores and Windows do not'):
    workers.run(2, tmp_path, 'local', Needs())


def test_what_a_launcher_does_not_heed_is_refused(tmp_path):
  with pytest.raises(ValueError, match='--time=60 means nothing to --launcher=local'):
    workers.run(2, tmp_path, 'local', Needs(minutes=60))


def test_other_processes_work_at_the_same_config_or_not_at_all(tmp_path):
  begun = []
  with locks.joined(tmp_path, lambda: begun.append(1), str):
    with locks.joined(tmp_path, lambda: begun.append(2), str), locks.last(tmp_path) as is_last:
      assert not is_last
    with (
      pytest.raises(ValueError, match=rf'Another process \(pid {os.getpid()}.*\n  steps: 8 -> 9'),
      locks.joined(tmp_path, lambda: begun.append(3), lambda: '  steps: 8 -> 9'),
    ):
      pass
  with locks.last(tmp_path) as is_last:
    assert is_last and begun == [1]


def test_a_lock_goes_with_the_process_that_holds_it(tmp_path):
  hold = (
    'import pathlib, time; from tlx.study import locks\n'
    f'with locks.held(pathlib.Path({str(tmp_path)!r}), "x") as mine:\n'
    '  print(mine, flush=True); time.sleep(600)'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', hold], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == 'True\n'
  with locks.held(tmp_path, 'x') as mine:
    assert not mine
  process.kill()
  process.communicate()
  with locks.held(tmp_path, 'x', wait=True) as mine:
    assert mine
