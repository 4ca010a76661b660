"""Which runs a study has: cells, cohorts of them, and what the numbers of each depend on. Touches
no data.
"""

import functools
import itertools
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from tlx import datasets
from tlx.types import Cell

PRETRAINING = {
  'val_fraction': 0.1,
  'test_fraction': 0.3,
  'val_examples': 0,
}  # of the data set that a source is trained on


class Cohort(NamedTuple):
  """Cells that are trained together; cohorts of one source, target and method are chosen from
  together.
  """

  id: str
  cells: tuple[Cell, ...]


def cell_id(cell: Cell) -> str:
  """The name of a run's folder; rates as the shortest decimals that read back the same."""
  shots = f'{cell.shots}shot' if cell.shots else 'full'
  rate = f'-lr{float(cell.learning_rate)!r}' if cell.learning_rate else ''
  decay = f'-wd{float(cell.weight_decay)!r}' if cell.weight_decay else ''
  return f'{cell.source}-{cell.target}-{cell.method}-{shots}-seed{cell.seed}{rate}{decay}'


def trains(method: Mapping[str, Any]) -> bool:
  """Whether a method takes any step; else it is the source as it is, or a random start."""
  return any(phase['steps'] or phase['epochs'] for phase in method['phases'])


def settings_of(method: Mapping[str, Any]) -> list[tuple[float, float]]:
  """[(learning rate, weight decay)] that a method really tries.

  Where every phase has a rate of its own or is solved exactly, the grid's rates would make
  identical runs: there is one, the last phase's, 0.0 for an exact solution. A method that takes no
  step of its own has neither.
  """
  if not trains(method) or method.get('merge'):
    return [(0.0, 0.0)]
  rates = method['grid']['learning_rate']
  if all(phase['learning_rate'] or phase['solver'] != 'sgd' for phase in method['phases']):
    last = method['phases'][-1]
    rates = (last['learning_rate'] if last['solver'] == 'sgd' else 0.0,)
  return list(itertools.product(rates, method['grid']['weight_decay']))


def base(name: str) -> str:
  """'mnist' of the source 'mnist@1', which is the same with another seed; 'faces' of its fold
  'faces@2of5'.
  """
  return name.partition('@')[0]


def cells_of(study: Mapping[str, Any]) -> list[Cell]:
  """Every run of a resolved config, those that a cohort may hold together next to each other.

  A random start has nothing of its source. Of several seeds of one it is run for a single one:
  that which bears the source's name, else the first.
  """
  firsts = {base(source): source for source in reversed(study['sources'])}
  firsts |= {source: source for source in study['sources'] if source == base(source)}
  return [
    Cell(source, target, name, shots, seed, rate, decay)
    for source, target, (name, method) in itertools.product(
      study['sources'], study['targets'], study['methods'].items()
    )
    if method['init'] != 'random' or source == firsts[base(source)]
    for shots, seed in itertools.product(study['shots'], study['seeds'])
    for rate, decay in settings_of(method)
  ]


def beyond_edges(
  study: Mapping[str, Any], tried: Collection[Cell], chosen: Collection[Cell]
) -> list[Cell]:
  """The cells of one more learning rate, for each size at which the chosen one is the lowest or
  the highest of several.

  `tried` and `chosen` are of one source, target and method. The rate lies as far beyond as the
  next one within, in ratio and rounded to three digits; it has all seeds and weight decays. No
  more than the grid's `extend` are added at a size.
  """
  cells: list[Cell] = []
  for one in sorted({cell.shots: cell for cell in chosen}.values()):
    of_size = [cell for cell in tried if cell.shots == one.shots]
    grid = study['methods'][one.method]['grid']
    rates = sorted({cell.learning_rate for cell in of_size})
    num_added = len(rates) - len(grid['learning_rate'])
    if len(rates) > 1 and one.learning_rate in (rates[0], rates[-1]) and num_added < grid['extend']:
      inner = rates[1] if one.learning_rate == rates[0] else rates[-2]
      rate = float(f'{one.learning_rate**2 / inner:.3g}')
      alike = {cell._replace(learning_rate=rate) for cell in of_size}
      cells += sorted(alike)
  return cells


def dependencies(
  study: Mapping[str, Any],
  cell: Cell,
  data_sha256: str | None = None,
  source_sha256: str | None = None,
) -> dict[str, Any]:
  """All that a run's numbers depend on but its own cell and the versions of the code, under the
  names it has in the config.

  Of the source that is its form and its parameters, whatever they came from. Digests that are
  None are not known yet, and left out.
  """
  source, method = study['sources'][cell.source], dict(study['methods'][cell.method])
  target = dict(study['targets'][cell.target])
  method.pop('grid')
  if not method.get('head'):
    target.pop('class_names', None)  # words for a head that it has not
  own = ('backbone', 'input', *(('form',) if source['form'] else ()))
  known: dict[str, Any] = {
    'sources': {cell.source: {name: source[name] for name in own}},
    'targets': {cell.target: target},
    'methods': {cell.method: method},
    'validation': study['validation'],
  }
  if data_sha256 is not None:
    known['data'] = {f'{cell.source}/{cell.target}': data_sha256}
  if source_sha256 is not None:
    known['weights'] = {cell.source: source_sha256}
  return known


def classes_of(study: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, ...]:
  """The class names of a source's or a target's data set."""
  return info_of(study, data).class_names


def num_strata(study: Mapping[str, Any], data: Mapping[str, Any]) -> int:
  """What `shots` counts examples of: the classes, or 1 where examples have values instead."""
  valued = _is_valued(data['dataset'], data['group'], data['skip_bad'], study['data_dir'] or None)
  return 1 if valued else len(classes_of(study, data))


def num_train(study: Mapping[str, Any], cell: Cell) -> int:
  """The examples a cell trains on; 0 for all of a set that TFDS does not know the size of yet."""
  data = study['targets'][cell.target]
  return cell.shots * num_strata(study, data) or counts_of(study, data)['train']


def examples_of(study: Mapping[str, Any], target: str) -> dict[str, int] | None:
  """The examples of each split that a study looks at, of the training part at most every
  subset's; None where TFDS does not know yet.
  """
  data = study['targets'][target]
  counts = counts_of(study, data)
  most = max(study['shots']) * num_strata(study, data) * len(study['seeds'])
  train = counts['train'] if 0 in study['shots'] else min(counts['train'], most)
  return counts | {'train': train} if all(counts.values()) else None


def counts_of(study: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, int]:
  """The examples of 'train', 'val' and 'test', as a data set of one split will be divided; 0
  where TFDS does not know yet.
  """
  counts = dict(info_of(study, data).num_examples)
  train = counts.pop('train', counts.pop('all', 0))
  for split in ('test', 'val'):
    if split not in counts:
      counts[split] = int(data[f'{split}_fraction'] * train)
      train -= counts[split]
  val = min(counts['val'], data['val_examples'] or counts['val'])
  return counts | {'train': train, 'val': val}


def info_of(study: Mapping[str, Any], data: Mapping[str, Any]) -> datasets.Info:
  return _info(
    data['dataset'],
    study['data_dir'] or None,
    data['shift'],
    data['group'],
    data['skip_bad'],
    data['answers'],
  )


_info = functools.lru_cache(maxsize=None)(datasets.info)
_is_valued = functools.lru_cache(maxsize=None)(datasets.is_valued)


def forget() -> None:
  """Classes and counts of data sets are looked up anew."""
  _info.cache_clear()
  _is_valued.cache_clear()
