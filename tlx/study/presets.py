"""Presets: how much of a config is run, in a word. Fields of the written config are made smaller or
larger; what a method is stays.

quick     a first table: two seeds, the smallest and the largest size, the middle setting of every
          grid, a quarter of the steps
standard  five seeds; sizes, grids and steps as written
paper     ten seeds, and up to two more learning rates where the best lies at the edge of a grid;
          the rest as written, so that it goes on in the folder of standard

A field that a flag sets (--config.seeds=...) is as the flag says, whatever the preset; where it is
one of a grid, quick leaves all grids as written, since every method gets the same budget.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections.config_flags import config_path

_SEEDS = {'quick': 2, 'standard': 5, 'paper': 10}
_EXTEND = 2  # of paper


def applied(study: Mapping[str, Any], kept: Iterable[str] = ()) -> dict[str, Any]:
  """The study with the fields that its preset sets, methods not resolved yet.

  Args:
    kept: the fields 'config.train.steps' that stay as they are.
  """
  preset = study['preset']
  if not preset:
    return dict(study)
  made = {**study, 'seeds': _seeds(study['seeds'], _SEEDS[preset])}
  if preset == 'quick':
    made = _quick(made)
  elif preset == 'paper':
    made = _paper(made)
  paths = [config_path.split(path)[1:] for path in kept]
  if preset == 'quick' and any('grid' in names for names in paths):
    paths += [['grid'], *(['methods', name, 'grid'] for name in study['methods'])]
  for names in paths:
    made = _restored(made, study, names)
  return made


def _restored(made: Any, before: Any, names: Sequence[Any]) -> Any:
  """`made` with the field of these names as it was."""
  if not names:
    return before
  name, *rest = names
  if isinstance(made, Mapping) and name in made and name in before:
    return {**made, name: _restored(made[name], before[name], rest)}
  if isinstance(made, (list, tuple)) and name in range(len(made)):
    of_name = _restored(made[name], before[name], rest)
    return tuple(of_name if place == name else one for place, one in enumerate(made))
  return made


def described(study: Mapping[str, Any]) -> str:
  """What there is to run under the preset of a resolved study, in a sentence; '' without one."""
  if not study['preset']:
    return ''
  grid, train = study['grid'], study['train']
  settings = len(grid['learning_rate']) * len(grid['weight_decay'])
  more = f' (and up to {grid["extend"]} beyond its edge)' if grid['extend'] else ''
  length = f'{train["epochs"]:g} epochs' if train['epochs'] else f'{train["steps"]:,} steps'
  return (
    f'config.preset {study["preset"]!r}: seeds {study["seeds"]}, shots {study["shots"]}, '
    f'{settings} settings a method{more}, and phases of {length} where they have none of their own.'
  )


def _seeds(written: Sequence[int], count: int) -> tuple[int, ...]:
  """So many seeds: the written ones first, then those that follow the largest.

  >>> _seeds((3, 1), 4), _seeds((0, 1, 2), 2)
  ((3, 1, 4, 5), (0, 1))
  """
  after = max(written, default=-1) + 1
  return (*written, *range(after, after + count))[:count]


def _quick(study: Mapping[str, Any]) -> dict[str, Any]:
  sizes = sorted(study['shots'], key=lambda size: size or math.inf)  # 0 is all
  methods = {}
  for name, method in study['methods'].items():
    methods[name] = _shorter_method(method) if isinstance(method, Mapping) else method
  return {
    **study,
    'shots': tuple(dict.fromkeys((sizes[0], sizes[-1]))),
    'grid': _middle(study['grid']),
    'train': _shorter(study['train']),
    'methods': methods,
  }


def _shorter_method(method: Mapping[str, Any]) -> dict[str, Any]:
  made = dict(method)
  if isinstance(method.get('grid'), Mapping):
    made['grid'] = _middle(method['grid'])
  if isinstance(method.get('phases'), (list, tuple)):
    made['phases'] = tuple(
      _shorter(phase) if isinstance(phase, Mapping) else phase for phase in method['phases']
    )
  return made


def _middle(grid: Mapping[str, Any]) -> dict[str, Any]:
  """A grid of one setting, and no rate beyond its edge."""
  made = dict(grid)
  for axis in ('learning_rate', 'weight_decay'):
    if values := grid.get(axis):
      made[axis] = (values[len(values) // 2],)
  if 'extend' in grid:
    made['extend'] = 0
  return made


def _shorter(phase: Mapping[str, Any]) -> dict[str, Any]:
  """A phase, or what all have in common, of a quarter of its length; times what all have in common
  stay as many.

  >>> [_shorter({'steps': steps})['steps'] for steps in (40, '250', '2.5x')]
  [10, '62', '2.5x']
  """
  made = dict(phase)
  steps = phase.get('steps')
  if isinstance(steps, str) and steps.isdecimal():
    made['steps'] = str(max(1, int(steps) // 4)) if int(steps) else steps
  elif steps and not isinstance(steps, str):
    made['steps'] = max(1, steps // 4)
  if phase.get('epochs'):
    made['epochs'] = phase['epochs'] / 4
  return made


def _paper(study: Mapping[str, Any]) -> dict[str, Any]:
  most = max(_EXTEND, study['grid']['extend'])
  methods = {}
  for name, method in study['methods'].items():
    methods[name] = method
    if isinstance(method, Mapping) and isinstance(method.get('grid'), Mapping):
      methods[name] = {**method, 'grid': {**method['grid'], 'extend': most}}
  return {**study, 'grid': {**study['grid'], 'extend': most}, 'methods': methods}
