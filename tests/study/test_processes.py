"""A study on two processes: the table of one process, written by the first."""

import os
import socket
import subprocess

import numpy as np

from tests.study.conftest import ROOT
from tlx import report


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


def test_two_processes_write_the_table_of_one(command, study, tmp_path):
  """Also where images are decoded on their way, each process its part of them."""
  flags = (
    '--config.seeds=(0, 1)',
    '--config.shots=(1,)',
    '--config.grid.learning_rate=(1e-2,)',
    '--config.train.steps=4',
  )
  one = study(tmp_path / 'one', *flags)
  assert one.returncode == 0, one.stderr
  port, env = free_port(), os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=1'}
  processes = [
    subprocess.Popen(
      command(
        tmp_path / 'two',
        *flags,
        '--config.device_bytes=20000.0',
        '--config.data_bytes=1.0',
        f'--coordinator=localhost:{port}',
        '--num_processes=2',
        f'--process_id={i}',
      ),
      cwd=ROOT,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  printed = [process.communicate(timeout=300) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], printed
  assert 'Report:' in printed[0][0] and 'Report:' not in printed[1][0]
  a, b = report.read(tmp_path / 'one'), report.read(tmp_path / 'two')
  assert a.id.tolist() == b.id.tolist() and a.chosen.tolist() == b.chosen.tolist() and len(a) == 6
  for column in ('val_loss', 'test_loss', 'test_accuracy'):
    np.testing.assert_allclose(a[column], b[column], rtol=1e-5, err_msg=column)


def test_a_coordinator_wants_its_numbers(study, tmp_path):
  refused = study(tmp_path / 'never', '--coordinator=localhost:1', '--num_processes=2')
  assert (
    refused.returncode != 0
    and '--process_id from 0 to num_processes - 1' in refused.stderr
    and 'Traceback' not in refused.stderr
  )
