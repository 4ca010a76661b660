"""Small files that would hang, kill or eat memory, in a process of bounded memory: a ValueError
each.
"""

import subprocess
import sys

import pytest

from tests.sources import hostile


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
  """{case: (kind of error, message)} of those that the process lived through."""
  pytest.importorskip(
    'h5py', reason='the package h5py (extra h5) is not installed: pip install h5py'
  )
  pytest.importorskip(
    'gguf', reason='the package gguf (extra gguf) is not installed: pip install gguf'
  )
  root = tmp_path_factory.mktemp('hostile')
  paths = {}
  for number, (name, build) in enumerate(hostile.CASES.items()):
    folder = root / str(number)
    folder.mkdir()
    paths[name] = str(build(folder))
  names = {path: name for name, path in paths.items()}
  found, left = {}, list(paths.values())
  while left:  # one that kills the process is left out, and the next one starts another
    command = [sys.executable, '-m', 'tests.sources.hostile', *left]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.split('\t') for line in done.stdout.splitlines()]
    for path, *outcome in lines:
      found[names[path]] = tuple(outcome) if len(outcome) == 2 else ('died', done.stderr[-2000:])
    assert lines, done.stderr
    left = left[len(lines) :]
  return found


@pytest.mark.parametrize('name', hostile.CASES)
def test_is_one_short_error(name, outcomes):
  kind, message = outcomes[name]
  assert kind == 'ValueError', message
  assert len(message) < 1000
