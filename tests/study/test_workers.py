"""Several processes on one workdir: the numbers of one, whoever dies."""

import os
import signal
import subprocess

import pytest

from tests.study.conftest import ROOT
from tests.study.test_run import numbers, wait_for
from tlx.study import locks, workers


def start(command, workdir, *flags):
  return subprocess.Popen(
    command(workdir, *flags),
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_processes_share_a_study_and_one_that_is_killed_loses_nothing(command, finished, tmp_path):
  """Started by hand; what the dead one held is gone on with by the other."""
  workdir = tmp_path / 'shared'
  first, second = start(command, workdir), start(command, workdir)
  wait_for(lambda: any(workdir.glob('cohorts/*/checkpoints/*/meta.json')), first)
  first.send_signal(signal.SIGKILL)
  first.communicate()
  said, errors = second.communicate(timeout=300)
  assert second.returncode == 0 and 'Report:' in said, errors
  assert numbers(workdir) == numbers(finished[0])


@pytest.mark.skipif(
  not hasattr(os, 'sched_getaffinity') or len(os.sched_getaffinity(0)) < 2, reason='one core'
)
def test_workers_give_the_numbers_of_one_process_and_steal_no_work(command, finished, tmp_path):
  done = start(command, tmp_path / 'two', '--workers=2')
  said, errors = done.communicate(timeout=300)
  assert done.returncode == 0 and said.count('Report:') == 1, errors
  assert numbers(tmp_path / 'two') == numbers(finished[0])
  for method in ('scratch', 'probe', 'lp_ft'):  # each was trained once, by one of them
    assert said.count(f'{method} from turned on digits: validation accuracy') == 1, said
  assert said.count('Training the source turned') == 1
  again = start(command, tmp_path / 'two', '--workers=2')
  said, _ = again.communicate(timeout=300)
  assert again.returncode == 0 and 'on digits: validation accuracy' not in said


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


def test_cores_and_gpus_are_dealt(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0, 1, 2, 5}, raising=False)
  monkeypatch.setenv('JAX_PLATFORMS', '')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,4,7')
  found = workers.shares_of(2)
  assert found == [
    ({0, 2}, {'CUDA_VISIBLE_DEVICES': '3,7'}),
    ({1, 5}, {'CUDA_VISIBLE_DEVICES': '4'}),
  ]
  with pytest.raises(ValueError, match='--workers=4 on 3 GPUs: take at most 3'):
    workers.shares_of(4)


def test_a_lock_goes_with_the_process_that_holds_it(tmp_path):
  hold = (
    'import pathlib, time; from tlx.study import locks\n'
    f'with locks.held(pathlib.Path({str(tmp_path)!r}), "x") as mine:\n'
    '  print(mine, flush=True); time.sleep(600)'
  )
  process = subprocess.Popen(
    [workers.sys.executable, '-c', hold], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == 'True\n'
  with locks.held(tmp_path, 'x') as mine:
    assert not mine
  process.kill()
  process.communicate()
  with locks.held(tmp_path, 'x', wait=True) as mine:
    assert mine
