"""Examples that tell most, confused pairs, recall with its interval, answers side by side."""

import hashlib
import html
import json

import numpy as np
import pytest

from tlx import report
from tlx.report import beside, classes, examples, folder, gallery, statistics

WRONG = {'scratch': (0, 1, 2, 3), 'full': (0,)}
PIXEL = 'iVBORw0KGgo='  # the first bytes of a PNG


def right(result):
  """20 test examples: full is wrong on one in all seeds, and on the sixth in the first alone."""
  cell, found = result['cell'], np.ones(20, bool)
  found[list(WRONG[cell['method']])] = False
  found[5] = cell['method'] != 'full' or cell['seed'] != 0
  return found


@pytest.fixture
def study(tmp_path, make_study, predict):
  options = {'targets': ('digits',), 'methods': ('scratch', 'full'), 'shots': (5,)}
  make_study(tmp_path, seeds=(0, 1, 2), rates=(0.003,), diverged=False, **options)
  predict(tmp_path, right)
  return tmp_path


def leave(workdir, records):
  """The file that a study leaves, with its digest."""
  content = {'records': records}
  text = json.dumps(content, sort_keys=True, ensure_ascii=False)
  content['sha256'] = hashlib.sha256(text.encode()).hexdigest()
  path = workdir / 'examples' / 'mnist-digits.json'
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(content))
  return path


def test_what_is_shown_is_what_most_runs_agree_on(study):
  results = folder.load(study)
  looked = examples.judged(results, 'mnist', 'digits')
  assert (looked.best.method, looked.other.method) == ('full', 'scratch')
  assert looked.sure == ([0], 1)  # the sixth is right in the mean of the seeds
  assert looked.gained == ([1, 2, 3], 3) and looked.lost == ([], 0)
  assert looked.best.wrong[[0, 1, 5]].tolist() == [3, 0, 1]
  # logits are 1 for one of ten classes and 0 for the others
  assert looked.best.sure[0] == pytest.approx(np.e / (np.e + 9))
  assert examples.wanted(results) == {('mnist', 'digits'): [f'test/{i}' for i in range(4)]}


def test_confused_pairs_count_all_runs(study):
  results = folder.load(study)
  frame = beside.confused(results, 'mnist', 'digits')
  assert frame.to_numpy().tolist() == [[0, 1, 3, 6, 0], [5, 6, 1, 6, 0]]
  recalls = classes.recalls(results).set_index(['method', 'index'])
  row = recalls.loc['full', 5]
  assert (row['mean'], row['count']) == (pytest.approx(5 / 6), 2)
  assert (row['low'], row['high']) == pytest.approx(statistics.wilson_interval(5 / 6, 2))


def test_the_page_shows_what_the_study_left(study):
  page = report.write(study).read_text()
  assert 'Right by full, wrong by scratch' in page and 'test/1' in page
  leave(study, {'test/0': '<b>a text', 'test/1': {'png': PIXEL}, 'test/2': ['one', 'other']})
  page = report.write(study).read_text()
  assert html.escape('<b>a text') in page and '<b>a text' not in page
  assert f'src="data:image/png;base64,{PIXEL}" alt="image test/1"' in page
  assert 'one<br>other' in page
  leave(study, {'test/1': {'png': '"><script>'}})
  with pytest.raises(ValueError, match='[bB]ase64'):
    report.write(study)
  path = leave(study, {'test/0': 'a'})
  path.write_text(path.read_text().replace('"a"', '"b"'))
  with pytest.raises(ValueError, match='has changed since it was written'):
    report.write(study)


def test_answers_stand_side_by_side(study, change_runs):
  def ask(result):
    text = f'by {result["cell"]["method"]} {result["cell"]["seed"]}'
    result['test']['answers'] = [['d/1', 'user: <Why?>', 'Because.', text, 0.5]]

  change_runs(study, ask)
  shown = gallery.answers(folder.load(study))
  assert 'user: &lt;Why?&gt;' in shown and 'Because.' in shown and '50.0' in shown
  assert 'by scratch 0' in shown and 'by full 0' in shown and 'by full 1' not in shown
  assert 'a–z and 0–9' in shown


@pytest.mark.parametrize('policy', ['auto_rgn', 'auto_freeze', {'policy': 'measured', 'k': 1}])
def test_what_moves_by_its_gradients_is_no_depth_to_freeze(tmp_path, make_study, policy):
  from tlx.report import layers

  make_study(tmp_path, targets=('digits',), methods=('scratch', 'full', 'freeze2', 'linear'))
  study = json.loads((tmp_path / 'study.json').read_text())
  study['config']['methods']['full']['phases'] = [{'tune': policy}]
  (tmp_path / 'study.json').write_text(json.dumps(study))
  assert set(layers.depths(folder.load(tmp_path))['method']) == {'freeze2', 'linear'}


def test_added_weights_are_no_depth_to_freeze(tmp_path, make_study):
  from tlx.report import layers

  make_study(tmp_path, targets=('digits',), methods=('scratch', 'lora', 'freeze2', 'linear'))
  study = json.loads((tmp_path / 'study.json').read_text())
  depths = set(layers.depths(folder.load(tmp_path))['method'])
  assert depths == {'lora', 'freeze2', 'linear'}  # its config names nothing that is added
  study['config']['methods']['lora']['added'] = {'name': 'lora', 'rank': 2}
  (tmp_path / 'study.json').write_text(json.dumps(study))
  assert set(layers.depths(folder.load(tmp_path))['method']) == {'freeze2', 'linear'}
