"""Which stages to freeze and which stage to put the head after, as tidy frames of numbers."""

import json
from collections.abc import Mapping

import pandas as pd

from tlx.report import numbers
from tlx.report.folder import Results, by_size, method_of


def depths(results: Results) -> pd.DataFrame:
  """Per source, target, shots, frozen stages: test score of one-phase methods from the source.

  Where several methods train from the same stage on, the one that trains the most parameters stands
  for the depth, ties going to the first in the config. Methods that add weights, train parts of
  stages or some stages in between (`_PARTIAL`), take no step or are made of others' runs are no
  depth. Networks that were cut (`head_after`) have other depths and are left out. `best` marks each
  size's best mean validation score. Empty where no size has two depths.
  """
  runs = results.runs
  whole = ~runs['method'].map(lambda name: _head_after(results, name)).astype(bool)
  depth = runs['method'].map(lambda name: _is_depth(results, name)).astype(bool)
  runs = runs[(runs['init'] == 'source') & (runs['num_phases'] == 1) & whole & depth]
  kinds = (
    runs.groupby(numbers.CELL)[['frozen_stages', 'num_stages', 'trainable_params']]
    .max()
    .reset_index()
  )
  frame = numbers.means(results).merge(kinds, on=numbers.CELL)
  frame = frame.sort_values('trainable_params', ascending=False, kind='stable')
  frame = frame.drop_duplicates(['source', 'target', 'shots', 'frozen_stages'])
  curves = frame.groupby(['source', 'target', 'shots'])
  frame = frame[curves['frozen_stages'].transform('nunique') > 1]
  frame['best'] = _best(results, frame, ['source', 'target', 'shots'])
  return frame.sort_values(
    ['source', 'target', 'shots', 'frozen_stages'], ignore_index=True, key=by_size
  )


# policies of freezing that train other than all of the stages from one on
_PARTIAL = (
  'added',
  'auto_freeze',
  'auto_rgn',
  'bias',
  'first',
  'measured',
  'norm',
  'random',
  'select',
  'surgical',
)


def _is_depth(results: Results, name: str) -> bool:
  """Whether a method trains all of the stages from some one on, and nothing else."""
  method = method_of(results.config, name)
  phase = next(iter(method.get('phases') or [{}]))
  tune = phase.get('tune')
  policy = tune.get('policy') if isinstance(tune, Mapping) else tune
  trains = phase.get('steps', 1) or phase.get('epochs')
  other = method.get('added') or method.get('merge')
  return bool(not other and policy not in _PARTIAL and trains)


def stages(results: Results) -> pd.DataFrame:
  """Per source, target, family, shots and stage that the head follows: test score as in `means`,
  stages in the network's order.

  A family are methods that differ in `head_after` and in their grids alone. `stage` is '' where a
  method takes the whole network and none names its last stage, and 'input' where it takes the
  pixels; `depth` counts the network's stages up to it. `grid` is n where the stage's output is
  averaged over n x n fields, 1 where over all places, and `label` says both. `best` marks a
  family's best mean validation score at a size. Empty where no family has two stages, or one stage
  at two grids.
  """
  counts = results.runs.groupby(numbers.CELL)['num_stages'].max().reset_index()
  frame = numbers.means(results).merge(counts, on=numbers.CELL)
  frame['family'] = frame['method'].map(_families(results))
  frame['stage'] = [_head_after(results, name) for name in frame['method']]
  frame['grid'] = [_grid(results, name) for name in frame['method']]
  frame['label'] = [_label(stage, grid) for stage, grid in zip(frame['stage'], frame['grid'])]
  # without the head and the mean over places before it
  frame['depth'] = frame.pop('num_stages') - 1 - (frame['stage'] != '')
  frame.loc[frame['stage'] == 'input', 'depth'] = 0
  frame = frame.sort_values(
    ['depth', 'stage', 'grid'], ascending=[True, False, True], kind='stable'
  )
  frame = frame.drop_duplicates(['source', 'target', 'family', 'shots', 'depth', 'grid'])
  labels = frame.groupby(['source', 'target', 'family'])['label'].transform('nunique')
  frame = frame[labels > 1].reset_index(drop=True)
  frame['best'] = _best(results, frame, ['source', 'target', 'family', 'shots'])
  return frame


def _best(results: Results, frame: pd.DataFrame, by: list[str]) -> pd.Series:
  """Which rows have the best mean validation score of their group."""
  score = numbers.rising(results, frame, 'val_mean')
  return score == score.groupby([frame[name] for name in by]).transform('max')


def _families(results: Results) -> dict[str, str]:
  """{method: its family}, which is named like the first of its methods without the stage."""
  alike: dict[str, list[str]] = {}
  for name in results.methods:
    same = {
      field: value
      for field, value in method_of(results.config, name).items()
      if field not in ('head_after', 'grid')
    }
    alike.setdefault(json.dumps(same, sort_keys=True), []).append(name)
  family: dict[str, str] = {}
  for first, *others in alike.values():
    stage = _head_after(results, first)
    short = first.removesuffix(stage).removeprefix(stage).strip('_')
    family |= dict.fromkeys(
      [first, *others], first if not short or short in family.values() else short
    )
  return family


def _head_after(results: Results, name: str) -> str:
  """The stage that a method's head follows, 'conv1+conv2' of several; '' for the last."""
  found = method_of(results.config, name).get('head_after') or ''
  stage = (found.get('stage') or '') if isinstance(found, Mapping) else found
  return stage if isinstance(stage, str) else '+'.join(stage)


def _grid(results: Results, name: str) -> int:
  """n where the stage's output is averaged over n x n fields; 1 where over all places or none."""
  found = method_of(results.config, name).get('head_after')
  return int(found.get('grid') or 1) if isinstance(found, Mapping) else 1


def _label(stage: str, grid: int) -> str:
  """'conv2 (4×4)', 'conv2 (mean)', 'last', 'input'."""
  how = f' ({grid}×{grid})' if grid > 1 else ' (mean)' if stage not in ('', 'input') else ''
  return (stage or 'last') + how
