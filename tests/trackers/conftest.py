"""A folder of one finished run, as a study leaves it."""

import json

import pytest
from etils import epath


@pytest.fixture
def workdir(tmp_path):
  folder = epath.Path(tmp_path) / 'mine'
  run = folder / 'runs' / 'full-seed0'
  run.mkdir(parents=True)
  lines = (
    {'step': 2, 'phase': 0, 'loss': 2.5, 'val_accuracy': 0.25},
    {'step': 4, 'phase': 0, 'loss': None, 'val_accuracy': 0.5},  # not finite
  )
  (run / 'metrics.jsonl').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
  test = {'accuracy': 0.75, 'recall': [0.5, 1.0]}
  (run / 'result.json').write_text(json.dumps({'cell': {'method': 'full'}, 'test': test}))
  return folder
