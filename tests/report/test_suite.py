"""The page of several studies' claims."""

import json

import pytest

from tests.report.test_claims import claim
from tlx.report import suite


def _study(make_study, folder, *stated, swapped=False):
  """A study of two methods, of which full is the better one, or the worse."""
  methods = ('scratch', 'full')
  make_study(folder, methods=methods, targets=('digits',), rates=(0.003,), diverged=False)
  if swapped:
    for path in folder.glob('runs/*/result.json'):
      result = json.loads(path.read_text())
      result['test']['accuracy'] = 1 - result['test']['accuracy']
      kept = {name: value for name, value in result.items() if name not in ('sha256', 'files')}
      path.write_text(json.dumps(kept))
  path = folder / 'study.json'
  content = json.loads(path.read_text())
  content['config']['claims'] = stated
  path.write_text(json.dumps({name: v for name, v in content.items() if name != 'sha256'}))


def test_a_page_has_what_was_confirmed_and_what_was_found_at_first(make_study, tmp_path):
  have = {'source': ('mnist',), 'target': ('digits',), 'method': ('scratch', 'full')}
  stated = claim({**have, 'shots': (1, 5)}, of={'method': 'full', 'shots': 1})
  later = {**stated, 'name': 'Stated later'}  # first in the config, and never confirmed
  _study(make_study, tmp_path / 'helps', later, stated)
  _study(make_study, tmp_path / 'helps' / 'confirm', stated, swapped=True)
  record = {'opened': '2026-01-01', 'stated': {'seeds': {'seeds': [7, 8]}}}
  (tmp_path / 'helps' / 'confirm' / 'opened.json').write_text(json.dumps(record))
  _study(make_study, tmp_path / 'other', stated)

  new, one, other = suite.table(tmp_path).shown.to_dict('records')
  assert (new['Claim'], new['Verdict']) == ('Stated later', 'holds')
  assert suite.table(tmp_path).numbers['confirmed'].tolist() == [False, True, False]
  assert (one['Finding'], one['Verdict']) == ('helps', 'fails')
  assert one['At first'].startswith('holds, +') and one['Found'].startswith('−')
  assert (other['Finding'], other['Verdict']) == ('other', 'holds')
  assert other['At first'] == f'holds, {other["Found"]}'
  path = suite.write(tmp_path)
  assert '| It helps | helps | fails |' in path.with_suffix('.md').read_text()
  assert '<td' in path.read_text() and path.with_suffix('.csv').exists()


def test_claims_of_one_name_are_told_apart_by_what_they_compare(make_study, tmp_path):
  have = {'source': ('mnist',), 'target': ('digits',), 'method': ('scratch', 'full')}
  few, many = (
    claim({**have, 'shots': (1, 5)}, of={'method': 'full', 'shots': shots}) for shots in (1, 5)
  )
  _study(make_study, tmp_path / 'helps', few, many, {**many, 'threshold': 0.001})
  _study(make_study, tmp_path / 'helps' / 'confirm', few, many, swapped=True)
  record = {'opened': '2026-01-01', 'stated': {'seeds': {'seeds': [7, 8]}}}
  (tmp_path / 'helps' / 'confirm' / 'opened.json').write_text(json.dumps(record))
  table = suite.table(tmp_path)
  one, other, newer = table.shown.to_dict('records')
  assert one['Claim'] == other['Claim'] and one['Found'] != other['Found']
  assert [row['Verdict'] for row in (one, other, newer)] == ['fails', 'fails', 'holds']
  assert table.numbers['confirmed'].tolist() == [True, True, False]


def test_a_folder_without_claims_is_an_error(make_study, tmp_path):
  with pytest.raises(ValueError, match='No study with claims'):
    suite.table(tmp_path)
