"""A study on two processes: the table of one process, written by the first."""

import os
import signal
import socket
import subprocess

import numpy as np

from tests.study.conftest import ROOT
from tests.study.test_run import wait_for
from tlx import report
from tlx.train import spread


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


def two(command_of, num_devices=1):
  """Two processes of one study, of so many devices each; `command_of(i)` is a command line."""
  flags = f'--xla_force_host_platform_device_count={num_devices}'
  port, env = free_port(), os.environ | {'XLA_FLAGS': flags}
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
  assert_same(tmp_path / 'one', tmp_path / 'two')


def assert_same(one, two):
  """Six runs each, with the numbers of each other but for the order of sums."""
  a, b = report.read(one), report.read(two)
  assert a.id.tolist() == b.id.tolist() and a.chosen.tolist() == b.chosen.tolist() and len(a) == 6
  for column in ('val_loss', 'test_loss', 'test_accuracy'):
    np.testing.assert_allclose(a[column], b[column], rtol=1e-5, err_msg=column)
  for path in one.glob('runs/*/predictions.npz'):
    with np.load(path) as ours, np.load(two / path.relative_to(one)) as theirs:
      for name in ours:
        if ours[name].dtype.kind != 'f':
          np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        else:
          np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_two_processes_of_four_devices_and_one_that_goes_on(command, study, tmp_path):
  """Streams, the one pass of frozen stages, cohorts, split batches and split parameters at once.

  Killed in the middle, the study is finished by one process of two devices.
  """
  flags = (
    '--config.seeds=(0, 1)',
    '--config.shots=(4,)',
    '--config.grid.learning_rate=(1e-2,)',
    '--config.sources.turned.backbone.widths=(256, 64)',
  )
  assert spread.FSDP_SIZE <= 64 * 256  # pixels by units: what is split
  one = study(tmp_path / 'one', *flags)
  assert one.returncode == 0, one.stderr
  streamed = ('--config.device_bytes=20000.0', '--config.data_bytes=1.0')
  flags += (*streamed, '--config.mesh.fsdp=True')
  processes = two(lambda i: command(tmp_path / 'two', *flags), 4)
  printed = [process.communicate(timeout=300) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], printed
  assert_same(tmp_path / 'one', tmp_path / 'two')
  killed = tmp_path / 'killed'
  processes = two(lambda i: command(killed, *flags), 4)
  wait_for(lambda: any(killed.glob('cohorts/*-lp_ft/checkpoints/*/meta.json')), processes[0])
  for process in processes:
    process.send_signal(signal.SIGKILL)
    process.communicate()
  assert not list(killed.glob('report.html'))
  rest = study(killed, *flags)
  assert rest.returncode == 0, rest.stderr
  assert_same(tmp_path / 'one', killed)


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
