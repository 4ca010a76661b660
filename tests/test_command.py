"""The console script, and what an installation puts where."""

import atexit
import gc
import os
import pathlib
import subprocess
import sys

import pytest

from tlx import command

ROOT = pathlib.Path(__file__).parents[1]


def test_every_file_of_experiments_is_a_command():
  assert command.commands() == sorted(file.stem for file in (ROOT / 'experiments').glob('*.py'))
  assert command.spelled('study') in ('python -m experiments.study', 'tlx study')


def command_of(body, **options):
  """A process that runs a command with this body."""
  code = f'from tlx.command import run_command\ndef main(argv):\n  {body}\nrun_command(main)'
  env = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
  return subprocess.Popen(
    [sys.executable, '-c', code], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, **options
  )


def test_every_command_ends_alike_when_it_is_stopped():
  for file in (ROOT / 'experiments').glob('*.py'):
    assert '\n  run_command(main' in file.read_text(), file
  process = command_of('raise KeyboardInterrupt')
  assert process.communicate()[1] == 'Interrupted.\n' and process.returncode == 130
  process = command_of('raise SystemExit("Error: x")')
  assert process.communicate()[1] == 'Error: x\n' and process.returncode == 1


@pytest.mark.parametrize('size', [1, 10**6])
def test_a_reader_that_went_is_no_traceback(size):
  read, write = os.pipe()
  os.close(read)
  process = command_of(f'print("x" * {size})', stdout=write)
  os.close(write)
  assert process.communicate()[1] == '' and process.returncode == 141


def test_where_nothing_can_be_written_is_told(tmp_path):
  assert command.new_file(str(tmp_path / 'new' / 'x.csv')) == tmp_path / 'new' / 'x.csv'
  (tmp_path / 'file').touch()
  for out in (tmp_path, tmp_path / 'file' / 'x.csv'):
    with pytest.raises(ValueError, match=f'--out={out} .*cannot be written'):
      command.new_file(str(out))


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
