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


def two(command_of):
  """Two processes of one study, of one device each; `command_of(i)` is a command line."""
  port, env = free_port(), os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=1'}
  own = (f'--coordinator=localhost:{port}', '--num_processes=2')
  return [
    subprocess.Popen(
      [*command_of(i), *own, f'--process_id={i}'],
      cwd=ROOT,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]


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
  flags += ('--config.device_bytes=20000.0', '--config.data_bytes=1.0')
  processes = two(lambda i: command(tmp_path / 'two', *flags))
  printed = [process.communicate(timeout=300) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], printed
  assert 'Report:' in printed[0][0] and 'Report:' not in printed[1][0]
  a, b = report.read(tmp_path / 'one'), report.read(tmp_path / 'two')
  assert a.id.tolist() == b.id.tolist() and a.chosen.tolist() == b.chosen.tolist() and len(a) == 6
  for column in ('val_loss', 'test_loss', 'test_accuracy'):
    np.testing.assert_allclose(a[column], b[column], rtol=1e-5, err_msg=column)


def test_an_error_of_one_ends_the_other(command, tmp_path):
  """Which waits for it, and knows nothing of a file that only the one cannot read."""
  bad = f'--config.data_dir={__file__}'
  processes = two(lambda i: [*command(tmp_path / 'two'), *((bad,) if i else ())])
  _, errors = processes[1].communicate(timeout=300)
  assert processes[1].returncode == 1 and 'Error: ' in errors and __file__ in errors, errors
  processes[0].communicate(timeout=300)
  assert processes[0].returncode


def test_a_coordinator_wants_its_numbers(study, tmp_path):
  refused = study(tmp_path / 'never', '--coordinator=localhost:1', '--num_processes=2')
  assert (
    refused.returncode != 0
    and '--process_id from 0 to num_processes - 1' in refused.stderr
    and 'Traceback' not in refused.stderr
  )
