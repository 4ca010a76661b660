"""Imports point downwards only, and no plug-in imports another."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LEVEL = {
  'types': 0,
  'plug': 0,
  'tree': 1,
  'checkpoint': 1.3,
  'backbones': 2,
  'sources': 1.6,
  'datasets': 2,
  'tasks': 2,
  'evaluators': 3,
  'ranges': 1,
  'pictures': 1,
  'inputs': 4,
  'freezing': 2,
  'generate': 3,
  'peft': 3,
  'penalties': 3,
  'merging': 2,
  'train': 5,
  'study': 6,
  'report': 4,
  'parity': 5,
  'adapters': 4,
  'command': 0,
  'combine': 5,
  'scores': 1,
  'similarity': 1,
  'launchers': 1,
  'trackers': 1,
  'distances': 1,
}
PLUGS = (
  'backbones',
  'peft',
  'sources',
  'datasets',
  'inputs',
  'tasks',
  'freezing',
  'evaluators',
  'scores',
  'similarity',
  'distances',
  'penalties',
  'merging',
  'launchers',
  'trackers',
)
FILES = sorted((ROOT / 'tlx').rglob('*.py'))


def imports(path: pathlib.Path) -> list[str]:
  """Full names of what a file imports from tlx: 'tlx.train.fit'."""
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
      found += [f'{node.module}.{alias.name}' for alias in node.names]
  return [name for name in found if name.split('.')[0] == 'tlx']


def room(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / 'tlx').parts[0].removesuffix('.py')


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
  if room(path) == '__init__':
    return
  for name in imports(path):
    other = name.split('.')[1]
    assert other in LEVEL, f'{name}: give the room a level'
    assert LEVEL[other] < LEVEL[room(path)] or other == room(path), (
      f'{path} imports {name}, which is not below it'
    )


@pytest.mark.parametrize(
  'path',
  [p for p in FILES if room(p) in PLUGS and not p.name.startswith('_')],
  ids=lambda p: p.stem,
)
def test_no_plug_in_imports_another(path):
  for name in imports(path):
    parts = name.split('.')
    if len(parts) > 2 and parts[1] == room(path):
      file = ROOT / 'tlx' / parts[1] / f'{parts[2]}.py'
      assert parts[2].startswith('_') or not file.exists(), f'{path} imports the plug-in {name}'


def test_linen_stays_in_its_rooms():
  for path in FILES:
    if 'flax' in path.read_text() and room(path) not in ('backbones', 'peft'):
      tree = ast.parse(path.read_text())
      names = [n.module or '' for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
      names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
      assert not any(name.split('.')[0] == 'flax' for name in names), path


def test_report_imports_no_jax():
  """Nor what does: of other rooms only what is of numpy and Pillow alone."""
  numpy_only = ('pictures', 'tasks/_judged')
  for name in numpy_only:
    text = (ROOT / 'tlx' / f'{name}.py').read_text()
    assert 'jax' not in text and not imports(ROOT / 'tlx' / f'{name}.py'), name
  for path in (ROOT / 'tlx' / 'report').glob('*.py'):
    others = {name for name in imports(path) if not name.startswith('tlx.tasks._judged')}
    assert not {name.split('.')[1] for name in others} - {'report', 'plug', 'ranges', 'pictures'}, (
      path
    )
