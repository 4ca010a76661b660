"""What can be seen of a study while it runs, and that it heeds who wants it to end."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest

from tlx import report
from tlx.trackers import tensorboard


def test_each_method_is_told_in_a_line(finished):
  workdir, said = finished
  runs = report.read(workdir)
  runs = runs[runs.chosen & (runs.method == 'probe')]
  means = runs.groupby('shots').val_accuracy.mean()
  line = next(line for line in said.splitlines() if line.startswith('probe from turned on digits'))
  assert line == (
    f'probe from turned on digits: validation accuracy {means[1]:.3f} (1 shots, 2 runs), '
    f'{means[4]:.3f} (4 shots, 2 runs)'
  )
  assert said.splitlines()[-3:] == [
    'import tlx',
    f"model = tlx.load_run('{workdir}')",
    "tlx.predict(model, 'NEW')",
  ]


def test_event_files_hold_the_metrics_of_a_run(finished):
  pytest.importorskip('tensorboardX', reason="needs it: pip install 'tlx-jax[tensorboard]'")
  from tensorboardX.proto.event_pb2 import Event

  workdir, _ = finished
  run = report.read(workdir).query('chosen').id.iloc[0]
  for _ in range(2):  # the second time replaces the first
    tensorboard.write(workdir, [run])
  (file,) = (workdir / 'tensorboard' / run).iterdir()
  data, found = file.read_bytes(), {}
  while data:
    (length,) = struct.unpack('<Q', data[:8])  # then 4 bytes of checksum, before and after
    event = Event.FromString(data[12 : 12 + length])
    for value in event.summary.value:
      found[value.tag, event.step] = value.simple_value
    data = data[16 + length :]
  lines = [json.loads(line) for line in (workdir / 'runs' / run / 'metrics.jsonl').open()]
  for line in lines:
    for name, tag in (('val_accuracy', 'val/accuracy'), ('loss', 'train/loss')):
      np.testing.assert_allclose(found[tag, line['step']], line[name], rtol=1e-6)
  test = report.read(workdir).set_index('id').test_accuracy[run]
  np.testing.assert_allclose(found['test/accuracy', lines[-1]['step']], test, rtol=1e-6)


def test_event_files_want_their_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  with pytest.raises(ValueError, match=r"pip install 'tlx-jax\[tensorboard\]'"):
    tensorboard.check()


STUCK = """
import os, signal, time
from tlx.study import run
with run._signals({seconds}, 'the folder') as interrupted:
  os.kill(os.getpid(), signal.{name})
  time.sleep({sleep})
print('orderly', interrupted())
"""


@pytest.mark.parametrize('name, code', [('SIGINT', 130), ('SIGTERM', 0)])
def test_a_study_that_is_stuck_ends_at_ctrl_c(name, code):
  """A program that compiles heeds nobody; SIGTERM waits for an orderly end."""
  sleep = 600 if code else 1
  script = STUCK.format(seconds=0.2, name=name, sleep=sleep)
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=300)
  assert done.returncode == code
  assert ('the folder holds all that was saved' in done.stderr) == bool(code)
  assert ('orderly 15' in done.stdout) == (not code)
