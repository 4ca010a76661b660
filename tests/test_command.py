"""The console script, and what an installation puts where."""

import atexit
import gc
import pathlib
import subprocess
import sys

import pytest

from tlx import command

ROOT = pathlib.Path(__file__).parents[1]


def test_every_file_of_experiments_is_a_command():
  assert command.commands() == sorted(file.stem for file in (ROOT / 'experiments').glob('*.py'))
  assert command.spelled('study') in ('python -m experiments.study', 'tlx study')


def test_a_command_runs_as_its_module_does(monkeypatch, capsys):
  monkeypatch.delitem(sys.modules, 'experiments.list', raising=False)  # of another test
  monkeypatch.setattr(sys, 'argv', ['tlx', 'list', 'tasks'])
  spared = []
  monkeypatch.setattr(gc, 'disable', lambda: spared.append('cycles'))
  monkeypatch.setattr(atexit, 'register', spared.append)
  with pytest.raises(SystemExit):
    command.main()
  assert 'classification' in capsys.readouterr().out
  assert spared == ['cycles', gc.freeze]  # it ends soon


def test_long_commands_collect_again():
  try:
    gc.disable()
    command.collect_again()
    assert gc.isenabled() and gc.get_freeze_count()
  finally:
    gc.enable()
    gc.unfreeze()
  command.collect_again()
  assert not gc.get_freeze_count()  # where nothing was spared, nothing is kept for good


def test_help_waits_for_no_jax():
  code = 'import sys, experiments.study; sys.exit("jax" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_a_command_there_is_not_is_told(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['tlx', 'studdy'])
  with pytest.raises(SystemExit, match="Error: there is no command 'studdy'"):
    command.main()
  assert 'predict' in capsys.readouterr().out


def test_an_installation_has_no_package_but_tlx(monkeypatch):
  core = pytest.importorskip('setuptools', reason='needs setuptools')
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(sys, 'argv', ['setup.py'])
  found = {}
  monkeypatch.setattr(core, 'setup', lambda **fields: found.update(fields))
  exec((ROOT / 'setup.py').read_text(), {})
  assert {name.split('.')[0] for name in found['packages']} == {'tlx'}
  assert found['package_dir'] == {'tlx.experiments': 'experiments'}
  of_tree = {
    str(file.parent.relative_to(ROOT)).replace('/', '.') for file in (ROOT / 'tlx').rglob('*.py')
  }
  assert of_tree <= set(found['packages'])


@pytest.mark.parametrize('name', ['lr_range', 'advise'])
def test_what_trains_before_a_study_has_its_cores_and_compilation_cache(name):
  code = (
    f'import sys, types, experiments.{name} as module\n'
    'module.CONFIG = types.SimpleNamespace(value={})\n'
    "module.set_up_jax = lambda: sys.exit('set up')\n"
    f"module.main(['{name}'])"
  )
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert done.stderr.strip() == 'set up'
