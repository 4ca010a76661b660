"""The folder of a study: who may write to it, what it was begun with, and what is done."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from tlx import checkpoint
from tlx import tree as trees
from tlx.sources import format_study
from tlx.study import locks
from tlx.study.cells import Cohort, cell_id, cells_of, dependencies
from tlx.study.config import METHOD, SOURCE, TARGET, TRAIN
from tlx.types import Cell

NUMERIC = (
  'tlx-jax',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'commit',
)  # of the versions, those that numbers follow
PACKAGES = (
  'tlx-jax',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'tensorflow-datasets',
  'numpy',
)


UNUSABLE = '[]*?\\'  # Orbax takes these in a path for patterns


def place(workdir: os.PathLike | str) -> epath.Path:
  """The folder of a study, which may not exist yet.

  Raises:
    ValueError: it cannot be one.
  """
  try:
    path = epath.Path(workdir)
    os.fspath(path)
  except (KeyError, ValueError) as error:
    raise ValueError(f'--workdir={workdir!r} cannot be used: {error}.') from None
  if bad := [letter for letter in UNUSABLE if letter in os.fspath(path)]:
    raise ValueError(
      f'--workdir={os.fspath(path)!r} holds {" ".join(bad)}, which checkpoints cannot be '
      'saved under. Take another name.'
    )
  try:
    if '://' not in os.fspath(path):
      with contextlib.suppress(FileNotFoundError):
        os.stat(path)
    taken = path.exists() and not path.is_dir()
  except (
    OSError,
    ValueError,
    ImportError,
    KeyError,
  ) as error:  # a scheme that etils does not know is a KeyError
    reason = str(error).partition(': ')[0]  # the path may be very long
    raise ValueError(f'--workdir={os.fspath(path)[:200]!r} cannot be used: {reason}.') from None
  if taken:
    raise ValueError(f'--workdir={os.fspath(path)!r} is a file; a study wants a folder.')
  return path


def check(workdir: epath.Path, study: Mapping[str, Any]) -> None:
  """Whether what the folder holds was made as the study would make it now: it may hold less than
  that, and more.

  Raises:
    ValueError: it was not; the message shows the difference.
  """
  _times_before(workdir)
  changed: dict[str, None] = {}
  for name, source in study['sources'].items():
    if (record := workdir / 'sources' / name / 'result.json').exists():
      was, now = (
        {'sources': {name: _source_since(config)}}
        for config in (_unsealed(record, record.parent)['config'], source)
      )
      changed |= dict.fromkeys(changes(was, now))
  for cohort, depends in begun(workdir):
    cell = cohort.cells[0]
    if (
      cell.source in study['sources']
      and cell.target in study['targets']
      and cell.method in study['methods']
    ):
      was = {name: value for name, value in depends.items() if name not in ('data', 'weights')}
      changed |= dict.fromkeys(changes(_since(was), _since(dependencies(study, cell))))
  _refuse(f'{workdir} holds runs that were made otherwise:', changed, 'undo the change')


def check_data(
  workdir: epath.Path,
  cells: Iterable[Cell],
  data: Mapping[str, Any],
  known: Collection[str] = (),
) -> dict[str, dict[str, str]]:
  """{run that is there: the versions that made it}, all on this data, as the study was begun.

  Args:
    known: runs that were looked at before in this start, and are not read again.

  Raises:
    ValueError: it was not; the message shows the difference.
  """
  if (path := workdir / 'study.json').exists():
    before = _unsealed(path, path)['data']
    _refuse(
      'The data changed since the study began:',
      changes(_measures(before, data), _measures(data, before)),
      'bring the data back',
    )
  for cohort, depends in begun(workdir):
    was = {pair: sha256 for pair, sha256 in depends['data'].items() if pair in data}
    now = {pair: data[pair]['sha256'] for pair in was}
    _refuse(
      f'The data changed since {cohort.id} was trained on them:',
      changes({'data': was}, {'data': now}),
      'bring the data back',
    )
  made = {}
  for cell in cells:
    name = cell_id(cell)
    of_run = None if name in known else result(workdir, name)
    if not of_run:
      continue
    if of_run['data_sha256'] != data[f'{cell.source}/{cell.target}']['sha256']:
      raise ValueError(
        f'The data changed since {name} was trained on them. '
        'Give this study another --workdir, or bring the data back to continue.'
      )
    made[name] = of_run.get('versions', {})
  return made


def told(workdir: epath.Path) -> set[str]:
  """The notes of the data that an earlier start has said, each with its 'source/target'."""
  path = workdir / 'study.json'
  data = _unsealed(path, path)['data'] if path.exists() else {}
  return {f'{pair}: {note}' for pair, of_pair in data.items() for note in of_pair.get('notes', ())}


def _measures(data: Mapping[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
  """What must stay of the data, of those pairs that are there."""
  return {
    f'data {pair}': {
      name: data[pair].get(name) for name in ('num_examples', 'class_names', 'sha256')
    }
    for pair in pairs
    if pair in data
  }


def changes(before: Any, now: Any) -> list[str]:
  """A line for every field that differs."""
  was, now = (_flat(checkpoint.plain(value)) for value in (before, now))
  changed = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
  return [
    f'  {name}: {was.get(name, "(not there)")!r} -> {now.get(name, "(not there)")!r}'
    for name in changed
  ]


def _refuse(what: str, changes: Iterable[str], remedy: str) -> None:
  """Raises ValueError where there are changes, and shows the first of them."""
  if lines := list(changes)[:20]:
    raise ValueError(
      '\n'.join(
        [
          what,
          *lines,
          f'Give this study another --workdir, or {remedy} to continue.',
        ]
      )
    )


def check_source(workdir: epath.Path, name: str, data_sha256: str) -> None:
  """Whether a source that is there was trained on this data.

  Raises:
    ValueError: it was not.
  """
  record = workdir / 'sources' / name / 'result.json'
  if (
    record.exists() and (was := _unsealed(record, record.parent).get('data_sha256')) != data_sha256
  ):
    raise ValueError(
      f'The source {name} in {workdir} was trained on other data (digest {was}, now '
      f'{data_sha256}): its data set changed, or the targets now hold out examples that it '
      'was trained on. Give this study another --workdir, or take that back.'
    )


def begin(
  workdir: epath.Path,
  study: Mapping[str, Any],
  cohorts: list[Cohort],
  data: Mapping[str, Any],
  subsets: Mapping[str, Any],
  known: Collection[str] = (),
) -> None:
  """Writes study.json, what is wanted now, and the ids of every subset. What was there may be
  part of it. To be called by one process.

  Args:
    known: as `check_data`.

  Raises:
    ValueError: as `check`.
  """
  runs = [cell_id(cell) for cell in cells_of(study)]
  content = {
    'name': study['name'],
    'claim': study['claim'],
    'config': study,
    'plan': {
      'num_runs': len(runs),
      'cohorts': [cohort.id for cohort in cohorts],
      'runs': runs,
    },
    'data': data,
    'versions': versions(),
    'devices': [str(device) for device in jax.devices()],
  }
  check(workdir, study)
  check_data(workdir, cells_of(study), data, known)
  (workdir / 'subsets').mkdir(exist_ok=True)
  for target, of_target in subsets.items():
    checkpoint.write_json(workdir / 'subsets' / f'{target}.json', of_target)
  files = {
    f'subsets/{target}.json': _digest(workdir / 'subsets' / f'{target}.json') for target in subsets
  }
  checkpoint.write_json(workdir / 'study.json', checkpoint.sealed({**content, 'files': files}))


def difference(workdir: epath.Path, study: Mapping[str, Any]) -> str:
  """A line for each field in which the config that the folder was begun with differs; '' where it
  does not.
  """
  path = workdir / 'study.json'
  return '\n'.join(changes(_unsealed(path, path)['config'], study)[:20])


def add_runs(workdir: epath.Path, cohorts: Iterable[Cohort], cells: Iterable[Cell]) -> None:
  """Puts runs and their cohorts to the plan in study.json that its grid does not have: those
  beyond its edges. To be called by one process at a time.
  """
  path = workdir / 'study.json'
  content = _unsealed(path, path)
  content.pop('sha256')
  runs = list(dict.fromkeys([*content['plan']['runs'], *map(cell_id, cells)]))
  ids = list(dict.fromkeys([*content['plan']['cohorts'], *(cohort.id for cohort in cohorts)]))
  plan = {'num_runs': len(runs), 'cohorts': ids, 'runs': runs}
  checkpoint.write_json(path, checkpoint.sealed({**content, 'plan': plan}))


def begun(workdir: epath.Path) -> Iterator[tuple[Cohort, dict[str, Any]]]:
  """The cohorts in the folder, finished or not, each with what its runs depend on."""
  for path in (
    sorted((workdir / 'cohorts').glob('*/cells.json')) if (workdir / 'cohorts').exists() else ()
  ):
    try:
      content = checkpoint.unsealed(path)
    except ValueError as error:
      raise ValueError(
        f'{error} Delete {path.parent} and run the same command: its runs are made again.'
      ) from None
    yield (
      Cohort(path.parent.name, tuple(Cell(**cell) for cell in content['cells'])),
      content['depends'],
    )


def _since(depends: Mapping[str, Any]) -> dict[str, Any]:
  """What runs depend on, with the fields that are not there at their defaults.

  Those a config did not have yet when the runs were made leave numbers as they were.
  """
  targets = {name: {**TARGET, **target} for name, target in depends['targets'].items()}
  methods = {}
  for name, method in depends['methods'].items():
    phases = [{**TRAIN, **phase} for phase in method['phases']]
    methods[name] = {**METHOD, **method, 'phases': phases}
  return {**depends, 'targets': targets, 'methods': methods}


def _source_since(source: Mapping[str, Any]) -> dict[str, Any]:
  """As `_since`, a source; how weights of elsewhere would be trained here is no part of them."""
  trained = source['train'] and not source.get('weights')
  train = {**TRAIN, **source['train']} if trained else {}
  return {**SOURCE, **source, 'train': train}


def begin_cohort(workdir: epath.Path, cohort: Cohort, depends: Mapping[str, Any]) -> None:
  """Writes down what the cohort is before it is trained.

  Raises:
    ValueError: it was begun with other parameters of its source.
  """
  path = workdir / 'cohorts' / cohort.id / 'cells.json'
  if path.exists():
    _refuse(
      f'{path.parent} was trained from other parameters or data:',
      changes(_since(checkpoint.unsealed(path)['depends']), _since(depends)),
      f'delete {path.parent} and its runs',
    )
  else:
    if path.parent.exists():
      path.parent.rmtree()  # whose parameters it holds, nobody says
    path.parent.mkdir(parents=True)
    checkpoint.write_json(
      path,
      checkpoint.sealed({'cells': [cell._asdict() for cell in cohort.cells], 'depends': depends}),
    )


def made_elsewhere(made: Iterable[Mapping[str, str]]) -> str:
  """A sentence on the finished runs that other versions of the packages `made`, or ''."""
  now, others = versions(), Counter[str]()
  for of_run in made:
    others[
      ', '.join(
        f'{name} {of_run[name]}'
        for name in NUMERIC
        if of_run.get(name) != now.get(name) and name in of_run
      )
    ] += 1
  others.pop('', None)
  if not others:
    return ''
  of_others = '; '.join(f'{count} with {what}' for what, count in others.items())
  return (
    f'Finished runs were made by other versions than these ({of_others}); numbers of one table '
    'may then differ by rounding. For numbers of one version run the study in a new --workdir.'
  )


def _times_before(workdir: epath.Path) -> list[dict[str, float]]:
  """What time.json says of earlier starts.

  Raises:
    ValueError: it is damaged.
  """
  path = workdir / 'time.json'
  try:
    before = checkpoint.read_json(path) if path.exists() else []
    if isinstance(before, list) and all(isinstance(times, dict) for times in before):
      return before
    reason = f'Cannot read {path}: wanted a list of what earlier starts took.'
  except ValueError as error:
    reason = str(error)
  raise ValueError(f'{reason} Delete it and run the same command.')


def add_times(workdir: epath.Path, times: Mapping[str, float]) -> None:
  """Puts the seconds of one start of the study to those of the starts before."""
  path = workdir / 'time.json'
  rounded = {name: round(seconds, 3) for name, seconds in times.items()}
  with locks.held_here(workdir, path.name):
    checkpoint.write_json(path, [*_times_before(workdir), rounded])


@functools.cache
def versions() -> dict[str, str]:
  """Versions of Python, of the packages that numbers depend on, and of the code."""
  found = {'python': platform.python_version()}
  for package in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[package] = importlib.metadata.version(package)
  with contextlib.suppress(OSError, subprocess.SubprocessError):
    here = os.path.dirname(os.path.abspath(__file__))
    git = subprocess.run(
      ['git', 'describe', '--always', '--dirty'],
      cwd=here,
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    )
    found['commit'] = git.stdout.strip()
  return found


def result(workdir: epath.Path, run_id: str) -> dict[str, Any] | None:
  """What was written of a run, or None where some of it is not there.

  Raises:
    ValueError: it was changed since.
  """
  path = workdir / 'runs' / run_id / 'result.json'
  if not path.exists():
    return None
  found = _unsealed(path, path.parent)
  return found if all((path.parent / name).exists() for name in found['files']) else None


def _unsealed(path: epath.Path, whole: epath.Path) -> dict[str, Any]:
  """The content of a file of the study; an error says to delete `whole`."""
  try:
    return checkpoint.unsealed(path)
  except ValueError as error:
    raise ValueError(
      f'{error} Delete {whole} and run the same command: it is made again.'
    ) from None


def _digest(path: epath.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def checkpoints(workdir: epath.Path, cohort: Cohort) -> epath.Path:
  """The folder of a cohort's checkpoints."""
  return workdir / 'cohorts' / cohort.id / 'checkpoints'


def has_parameters(workdir: epath.Path, cohort: Cohort) -> bool:
  """Whether what the runs of a cohort trained is there, and said to be theirs."""
  folder = checkpoints(workdir, cohort)
  return (folder.parent / 'cells.json').exists() and bool(checkpoint.steps(folder))


def write_run(
  workdir: epath.Path,
  run_id: str,
  config: Mapping[str, Any],
  history: list[dict[str, Any]],
  labels: str,
  predictions: dict[str, Any] | None,
  result: Mapping[str, Any],
) -> None:
  """Writes a run's folder, its result.json last and with the digests of the others."""
  folder = workdir / 'runs' / run_id
  folder.mkdir(parents=True, exist_ok=True)
  checkpoint.write_json(folder / 'config.json', config)
  (folder / 'metrics.jsonl').write_text(
    ''.join(checkpoint.json_line(line) + '\n' for line in history), encoding='utf-8'
  )
  (folder / 'labels.txt').write_text(labels, encoding='utf-8')
  if predictions is not None:
    with (folder / 'predictions.npz').open('wb') as file:
      np.savez_compressed(file, **predictions)
  files = {
    name: _digest(folder / name)
    for name in (
      'config.json',
      'labels.txt',
      'metrics.jsonl',
      *(['predictions.npz'] if predictions else []),
    )
  }
  write_result(workdir, {**result, 'files': files})


def write_result(workdir: epath.Path, result: Mapping[str, Any]) -> None:
  """Writes a run's result.json."""
  checkpoint.write_json(
    workdir / 'runs' / result['id'] / 'result.json', checkpoint.sealed({**result})
  )


def params(workdir: os.PathLike | str, run_id: str) -> tuple[dict, dict]:
  """(params, stats) of one finished run as nested dicts of numpy arrays: what was trained, over
  what its source holds.

  Raises:
    ValueError: no such run, or a damaged checkpoint.
  """
  folder = epath.Path(workdir)
  if not (folder / 'runs' / run_id / 'result.json').exists():
    raise ValueError(f'No finished run {run_id!r} in {folder}.')
  arrays, metadata = format_study.read(folder / 'runs' / run_id)
  stats = {name: arrays.pop(name) for name in metadata['stats']}
  return trees.nested(arrays.items()), trees.nested(stats.items())


def trained(folder: epath.Path, row: int) -> tuple[dict, dict]:
  """(params, stats) that a cohort's last checkpoint holds for one of its runs.

  Raises:
    ValueError: there is no checkpoint, or it is damaged.
  """
  params, stats = format_study.trained(folder, row)
  return trees.nested(params.items()), trees.nested(stats.items())


def _flat(value: Any, name: str = '') -> dict[str, Any]:
  """{'a.b[0].c': leaf} of nested dicts and lists."""
  if isinstance(value, dict) and value:
    return {
      k: v
      for key, item in value.items()
      for k, v in _flat(item, f'{name}.{key}' if name else key).items()
    }
  if isinstance(value, list) and value:
    return {k: v for i, item in enumerate(value) for k, v in _flat(item, f'{name}[{i}]').items()}
  return {name: value}
