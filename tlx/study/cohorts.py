"""From a config to the cohorts that run, in their order; what cannot run is refused here, without
touching data.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from tlx import datasets
from tlx.study import ranges
from tlx.study.cells import (
  PRETRAINING,
  Cohort,
  base,
  cell_id,
  cells_of,
  classes_of,
  counts_of,
  info_of,
  num_strata,
  num_train,
)
from tlx.study.config import form_module, located
from tlx.study.cost import run_bytes
from tlx.study.phases import phases_of
from tlx.train import memory
from tlx.train import mesh as meshes
from tlx.train.job import num_steps
from tlx.types import Cell

# Where the config does not say what runs that are trained together may take: of what devices report
# to have, beside which examples lie there (train/stream.py), or of a machine whose devices do not.
SHARE, COHORT_BYTES = 0.4, 4e9


def cohorts_of(study: Mapping[str, Any], begun: Sequence[Cohort] = ()) -> list[Cohort]:
  """The cohorts of a resolved config, in the order they run: of each group those `begun` before,
  then its other cells; groups that are made of others' runs after all others.

  Raises:
    ValueError: an unknown data set or option, rules that do not fit the network, more shots or
      steps than there can be, or runs that would share a folder.
  """
  _check_ids(study)
  cohorts: list[Cohort] = []
  for source in study['sources'].values():
    _check_source(study, source)
    for name, target in study['targets'].items():
      where = f'config.targets.{base(name)}'
      located(where, functools.partial(_check_folds, study, target))
      located(where, functools.partial(_check_data, study, target, source))
  for group, cells_of_group in itertools.groupby(cells_of(study), key=lambda cell: cell[:3]):
    _check_shots(study, group[1])
    wanted = list(cells_of_group)
    own = [cohort for cohort in begun if cohort.cells[0][:3] == group]
    there = {cell for cohort in own for cell in cohort.cells}
    cells = [cell for cell in wanted if cell not in there]
    is_merged = study['methods'][group[2]].get('merge')  # then a cohort of an earlier config rests
    cohorts += [cohort for cohort in own if not is_merged or cohort.cells[0] in wanted]
    if cells:
      _check_steps(study, cells)
    cohorts += new_cohorts(study, cells, own)
  return sorted(cohorts, key=functools.partial(_is_merged, study))


def _is_merged(study: Mapping[str, Any], cohort: Cohort) -> bool:
  return bool(study['methods'][cohort.cells[0].method].get('merge'))


def new_cohorts(
  study: Mapping[str, Any], cells: Sequence[Cell], own: Sequence[Cohort]
) -> list[Cohort]:
  """Cells of one source, target and method as cohorts that memory allows, beside their `own` that
  there are; what is made of others' runs is made one by one.
  """
  if not cells:
    return []
  size = max(1, int(_cohort_bytes(study) // run_bytes(study, cells[0])))
  if study['methods'][cells[0].method].get('merge'):
    size = 1
  free = _free_ids('-'.join(cells[0][:3]), {cohort.id for cohort in own})
  return [Cohort(next(free), tuple(cells[i : i + size])) for i in range(0, len(cells), size)]


def _cohort_bytes(study: Mapping[str, Any]) -> float:
  """What the runs of a cohort may take of all devices together."""
  if study['cohort_bytes']:
    return study['cohort_bytes']
  reported = meshes.on_first(memory.reported_bytes)
  return SHARE * reported * jax.device_count() or COHORT_BYTES


def _free_ids(name: str, taken: set[str]) -> Iterator[str]:
  """name, name-2, name-3, ..., without those that are taken."""
  numbered = itertools.chain([name], (f'{name}-{number}' for number in itertools.count(2)))
  return (one for one in numbered if one not in taken)


def _check_ids(study: Mapping[str, Any]) -> None:
  """Raises ValueError where two runs would have one folder, or a folder's name would be too long
  for a file system.
  """
  ids = [cell_id(cell) for cell in cells_of(study)]
  if len(set(ids)) < len(ids):
    raise ValueError(
      'Two runs would share the folder '
      f'{next(name for name in ids if ids.count(name) > 1)!r}; give their methods other '
      'names.'
    )
  longest = max(ids, key=len)
  if len(longest.encode()) > 200:
    raise ValueError(
      f'The run {longest!r} has a name of {len(longest.encode())} bytes, more than 200; '
      'shorten the names of sources, targets or methods.'
    )


def _check_steps(study: Mapping[str, Any], cells: Sequence[Cell]) -> None:
  """Raises ValueError where epochs come to more steps than can be counted."""
  for cell, phase in itertools.product(cells, study['methods'][cells[0].method]['phases']):
    steps = num_steps(phase['steps'], phase['epochs'], phase['batch_size'], num_train(study, cell))
    if steps > ranges.MOST_STEPS or steps * phase['batch_size'] > ranges.MOST_EXAMPLES:
      raise ValueError(
        f'config.methods.{cell.method}: {phase["epochs"]:,} epochs of '
        f'{num_train(study, cell):,} examples are {steps:,} steps of '
        f'{phase["batch_size"]:,}; there are at most {ranges.MOST_STEPS:,}, of '
        f'{ranges.MOST_EXAMPLES:,} examples.'
      )


def _check_source(study: Mapping[str, Any], source: Mapping[str, Any]) -> None:
  if source['dataset']:
    located(
      'config.sources',
      lambda: _check_data(study, {**PRETRAINING, **source}, source),
    )
    located(
      'config.sources',
      lambda: phases_of(
        {'phases': (source['train'],)},
        source,
        len(classes_of(study, source)),
        source['task'],
      ),
    )


def _check_data(
  study: Mapping[str, Any], data: Mapping[str, Any], source: Mapping[str, Any]
) -> None:
  """Raises ValueError for data of another kind than the source takes, or where its examples, as
  far as their number is known, take more than config.data_bytes and have to be in memory.
  """
  form = form_module(source)
  datasets.check_kind(data['dataset'], form.KIND, study['data_dir'] or None)
  if not getattr(form, 'STREAMS', False):
    count = sum(counts_of(study, data).values())
    form.check_memory(source['input'], count, study['data_bytes'])


def _check_folds(study: Mapping[str, Any], target: Mapping[str, Any]) -> None:
  if 'folds' in target:
    datasets.check_folds(info_of(study, target).num_examples)


def _check_shots(study: Mapping[str, Any], target: str) -> None:
  """Catches what the counts of the training part alone rule out; the exact counts of each class
  are checked with the data.
  """
  data = study['targets'][target]
  info, classes = info_of(study, data), num_strata(study, data)
  if info.num_examples.get('train') and max(study['shots']) * classes > info.num_examples['train']:
    raise ValueError(
      f'config.shots: {max(study["shots"])} shots of {classes} classes are more than the '
      f'{info.num_examples["train"]} training examples of {data["dataset"]!r}.'
    )
