"""Every config of the project can be planned, and its docstring holds the command that runs it."""
import importlib
import pathlib

import numpy as np
import pytest
from PIL import Image

from tlx.study import config, plan

CONFIGS = sorted(path.stem for path in (pathlib.Path(__file__).parents[1] / 'configs').glob('[!_]*.py'))


@pytest.fixture
def image_folder(tmp_path):
  random = np.random.default_rng(0)
  for split, count in (('train', 30), ('test', 4)):
    for name in ('cat', 'dog'):
      (tmp_path / split / name).mkdir(parents=True)
      for i in range(count):
        Image.fromarray(random.integers(0, 255, (12, 10, 3), np.uint8)).save(tmp_path / split / name / f'{i}.png')
  return tmp_path


@pytest.mark.parametrize('name', CONFIGS)
def test_config_can_be_planned(name, image_folder):
  module = importlib.import_module(f'configs.{name}')
  made = module.get_config(str(image_folder)) if name.endswith('_to_folder') else module.get_config()
  study = config.resolve(made)
  cohorts = plan.make(study)
  rows = plan.table(study, cohorts)
  assert sum(row['runs'] for row in rows) == len(plan.cells_of(study)) + len(study['sources'])
  assert all(row['GFLOP'] > 0 and 0 < row['share'] <= 1 for row in rows)
  assert f'--config=configs/{name}.py' in module.__doc__
