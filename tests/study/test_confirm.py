"""Seeds that are kept for confirming claims: opened once, for the claims as they stood."""

import json

import pytest

from tests.study import tiny
from tlx import report
from tlx.report import claims
from tlx.report.folder import load
from tlx.study import config as configs
from tlx.study import confirm, run


def stated(data_dir=''):
  """The tiny study of one size, with a claim and seeds that are kept for it."""
  made = tiny.get_config(steps='2')
  made.data_dir = str(data_dir)
  made.shots, made.grid.learning_rate = (1,), (1e-2,)
  made.methods = {'scratch': {'init': 'random'}, 'probe': {'phases': ({'tune': 'head'},)}}
  of, minus = {'method': 'probe'}, {'method': 'scratch'}
  made.claims = ({'name': 'Probes win', 'of': of, 'minus': minus},)
  made.confirm = {'seeds': (7, 8, 9), 'source_seeds': (4, 5)}
  return made


def test_kept_seeds_are_opened_once_for_the_claims_as_they_stand(data_dir, tmp_path):
  main = run.run(stated(data_dir), tmp_path / 'study')
  config, folder = confirm.opened(stated(data_dir), tmp_path / 'study')
  run.run(config, folder)

  runs = report.read(folder)
  assert set(runs['seed']) == {7, 8, 9} and set(report.read(main)['seed']) == {0, 1}
  assert set(runs[runs['method'] == 'probe']['source_seed']) == {4, 5}
  kept, own = claims.tables(load(main))
  assert (kept.name, own.name) == ('claims-confirmed', 'claims')
  assert kept.numbers['n'].tolist() == [6] and own.numbers['n'].tolist() == [2]
  assert 'seeds 7, 8 and 9; source seeds 4 and 5 were kept' in kept.note
  assert own.title.endswith('exploratory')
  assert [table.title for table in claims.tables(load(folder))] == [kept.title]

  assert confirm.opened(stated(data_dir), tmp_path / 'study')[1] == folder  # goes on
  other = stated(data_dir)
  other.claims[0]['threshold'] = 0.1
  with pytest.raises(ValueError, match=r'for other claims:\n *claims\[0\].threshold: 0.0 -> 0.1'):
    confirm.opened(other, tmp_path / 'study')
  other = stated(data_dir)
  other.grid.learning_rate = (1e-2, 3e-2)  # one more to choose from, now that results are known
  with pytest.raises(ValueError, match=r'grids.probe.learning_rate\[1\]'):
    confirm.opened(other, tmp_path / 'study')


def test_nothing_seen_is_nothing_opened(tmp_path):
  """A start that failed before its first run leaves the claims open."""
  _, folder = confirm.opened(stated(), tmp_path)
  first = json.loads((folder / 'opened.json').read_text())
  other = stated()
  other.claims[0]['threshold'] = 0.1
  confirm.opened(other, tmp_path)
  assert json.loads((folder / 'opened.json').read_text())['stated'] != first['stated']


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'confirm': {'seeds': (1, 7), 'source_seeds': (4,)}}, r'seeds of the study already: \[1\]'),
    ({'confirm': {'seeds': (7,), 'source_seeds': (0,)}}, r'seeds of the study already: \[0\]'),
    ({'confirm': {'seeds': (7,)}}, 'source_seeds is missing: the study trains turned'),
    ({'confirm': {'seed': (7,)}}, "no field 'seed'"),
    ({'claims': ()}, 'of which there are none'),
  ],
)
def test_wrong_seeds_to_keep_are_errors(fields, message):
  made = stated()
  for name, value in fields.items():
    made[name] = value
  with pytest.raises(ValueError, match=message):
    configs.resolve(made)


def test_a_source_may_be_a_name_of_the_catalogue(tmp_path):
  made = stated()
  made.sources.lite0 = 'lite0.imagenet'
  made.confirm.source_seeds = (4, 5)
  config, _ = confirm.opened(made, tmp_path)
  assert config.sources.lite0 == 'lite0.imagenet'
  assert (config.sources.turned.seed, config.sources.turned.seeds) == (4, (4, 5))


def test_seeds_that_are_open_and_not_run_yet_leave_the_report_as_it_is(data_dir, tmp_path):
  main = run.run(stated(data_dir), tmp_path)
  confirm.opened(stated(data_dir), tmp_path)
  assert [table.name for table in claims.tables(load(main))] == ['claims']


def test_confirming_wants_kept_seeds_and_all_methods(tmp_path):
  made = stated()
  made.confirm = {}
  with pytest.raises(ValueError, match='kept for it'):
    confirm.opened(made, tmp_path)
  made = stated()
  made.only = 'probe,scratch'
  with pytest.raises(ValueError, match='leave config.only out'):
    confirm.opened(made, tmp_path)
  made.only, made.preset = '', 'quick'  # whose seeds are others
  made.confirm.seeds = (17, 18)
  with pytest.raises(ValueError, match='leave config.preset out'):
    confirm.opened(made, tmp_path)
