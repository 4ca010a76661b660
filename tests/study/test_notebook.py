"""The notebook runs from top to bottom on the tiny study."""

import json
import pathlib

import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[2] / 'notebooks').glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, finished, monkeypatch):
  monkeypatch.setenv('WORKDIR', str(finished[0]))
  matplotlib.use('agg')
  names: dict = {}
  for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
    if cell['cell_type'] == 'code':
      assert cell['outputs'] == [] and cell['execution_count'] is None
      exec(compile(''.join(cell['source']), f'{path.name} {cell["id"]}', 'exec'), names)
  assert len(names['axes'].lines) == 2 * 3  # a line and its points for each method
  plt.close('all')
  assert len(names['answers']) == 10 and not names['answers'].error.any()
