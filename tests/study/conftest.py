"""One place for prepared data, one uninterrupted tiny study."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TINY = pathlib.Path(__file__).parent / 'tiny.py'


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


@pytest.fixture(scope='session')
def command(data_dir):
  """(workdir, *flags, config=...) -> the command line of a study."""

  def make(workdir, *flags, config=TINY):
    config_flags = [] if config is None else [f'--config={config}', f'--config.data_dir={data_dir}']
    workdir_flags = [] if workdir is None else [f'--workdir={workdir}']
    return [sys.executable, '-m', 'experiments.study', *config_flags, *workdir_flags, *flags]

  return make


@pytest.fixture(scope='session')
def study(command):
  """Runs a study to its end: (workdir, *flags) -> CompletedProcess."""

  def run(workdir, *flags, config=TINY):
    return subprocess.run(
      command(workdir, *flags, config=config),
      cwd=ROOT,
      capture_output=True,
      text=True,
      env=dict(os.environ),
      timeout=600,
    )

  return run


@pytest.fixture(scope='session')
def finished(study, tmp_path_factory):
  """(folder of the tiny study, what it printed)."""
  workdir = tmp_path_factory.mktemp('studies') / 'tiny'
  done = study(workdir)
  assert done.returncode == 0, done.stderr
  return workdir, done.stdout
