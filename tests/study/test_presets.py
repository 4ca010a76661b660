"""A preset sets steps, grid, seeds and sizes at once, alike for every method."""

import pytest

from tests.study import tiny
from tlx.study import config, dry_run, run
from tlx.study.cells import cells_of


def written(preset, **fields):
  made = tiny.get_config()
  made.shots, made.seeds, made.preset = (1, 2, 4), (3, 4, 5), preset
  made.grid.learning_rate = (1e-3, 3e-3, 1e-2)
  made.methods.exact = {
    'phases': ({'tune': 'head', 'solver': 'ridge'},),
    'grid': {'learning_rate': (1.0,), 'weight_decay': (0.1, 1.0, 10.0)},
  }
  made.methods.long = {'phases': ({'steps': 40}, {'epochs': 2.0})}
  made.methods.times = {'phases': ({'steps': '1.5x'}, {'steps': '40'})}
  for name, value in fields.items():
    made[name] = value
  return made


def test_quick_is_two_seeds_two_sizes_the_middle_setting_and_a_quarter_of_the_steps():
  study = config.resolve(written('quick'))
  assert (study['seeds'], study['shots']) == ((3, 4), (1, 4))
  assert study['train']['steps'] == 2
  grids = {name: method['grid'] for name, method in study['methods'].items()}
  assert grids['scratch']['learning_rate'] == (3e-3,)
  assert grids['exact']['weight_decay'] == (1.0,)
  long = study['methods']['long']['phases']
  assert [phase['steps'] for phase in long] == [10, 2] and long[1]['epochs'] == 0.5
  assert [phase['steps'] for phase in study['methods']['times']['phases']] == [3, 10]
  assert len(cells_of(study)) == 6 * 2 * 2
  assert config.resolve(written('quick', shots=(0,)))['shots'] == (0,)
  assert config.resolve(written('quick', shots=(1, 5, 0)))['shots'] == (1, 0)


def test_standard_and_paper_leave_steps_and_sizes_as_written():
  plain = config.resolve(written(''))
  for preset, seeds in (('standard', range(3, 8)), ('paper', range(3, 13))):
    study = config.resolve(written(preset))
    assert study['seeds'] == tuple(seeds) and study['shots'] == (1, 2, 4)
    assert study['train'] == plain['train']
    for name, method in study['methods'].items():
      assert method['phases'] == plain['methods'][name]['phases']
      assert method['grid']['extend'] == (2 if preset == 'paper' else 0)
  assert config.resolve(written('standard'))['methods'] == plain['methods']


def test_what_a_flag_sets_is_as_it_says():
  made = written('quick', seeds=(0, 1, 2), shots=(1, 2, 0))
  flags = ('preset', 'seeds', 'methods.long.phases[0].steps', 'methods.exact.grid.weight_decay')
  config.add_defaults(made, [f'config.{name}' for name in flags])
  study = config.resolve(made)
  assert (study['seeds'], study['shots']) == ((0, 1, 2), (1, 0))
  assert study['methods']['exact']['grid']['weight_decay'] == (0.1, 1.0, 10.0)
  assert study['methods']['scratch']['grid']['learning_rate'] == (1e-3, 3e-3, 1e-2)  # one budget
  long = study['methods']['long']['phases']
  assert long[0]['steps'] == 40 and long[1]['epochs'] == 0.5


def test_a_seed_is_added_to_a_finished_quick_study(study, tmp_path):
  quick = ('--config.preset=quick', '--config.only=probe', '--config.shots=(1,)')
  first = study(tmp_path / 'quick', *quick)
  grown = study(tmp_path / 'quick', *quick, '--config.seeds=(0,1,2)')
  assert "config.preset 'quick': seeds (0, 1), shots (1,), 1 settings a method" in first.stdout
  assert "config.preset 'quick': seeds (0, 1, 2)" in grown.stdout
  assert len(list((tmp_path / 'quick').glob('runs/*seed2*/result.json'))) == 1


def test_the_dry_run_says_what_runs():
  assert (
    "config.preset 'quick': seeds (3, 4), shots (1, 4), 1 settings a method, and phases of 2 "
    'steps where they have none of their own.'
  ) in dry_run.describe(written('quick'))
  assert 'config.preset' not in dry_run.describe(written(''))
  with pytest.raises(ValueError, match="config.preset .*Did you mean 'quick'"):
    config.resolve(written('quik'))


def test_paper_goes_on_in_the_folder_of_standard(data_dir, tmp_path):
  made = written('standard', seeds=(0,), shots=(1,), data_dir=str(data_dir))
  made.grid.learning_rate = (1e-3,)
  made.methods, made.baseline = {'probe': made.methods.probe.to_dict()}, ''
  run.run(made, tmp_path)
  before = {path.name for path in (tmp_path / 'runs').iterdir()}
  times = {name: (tmp_path / 'runs' / name / 'config.json').stat().st_mtime_ns for name in before}
  made.preset = 'paper'
  run.run(made, tmp_path)
  after = {path.name for path in (tmp_path / 'runs').iterdir()}
  assert len(before) == 5 and len(after) == 10 and before < after
  for name, time in times.items():
    assert (tmp_path / 'runs' / name / 'config.json').stat().st_mtime_ns == time
