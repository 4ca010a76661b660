"""The folder of a study: who may write to it, what it was begun with, and what is done."""
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from tlx import checkpoint
from tlx.sources import format_study
from tlx.study.plan import Cohort
from tlx.train import mesh as meshes

FREE_FIELDS = ('data_dir', 'checkpoint_seconds', 'feature_dir', 'mesh.run', 'mesh.data', 'mesh.fsdp')  # may change between two starts: no number depends on them
NUMERIC = ('tlx-jax', 'jax', 'jaxlib', 'flax', 'optax', 'commit')  # of the versions, those that numbers follow
PACKAGES = ('tlx-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-datasets', 'numpy')


UNUSABLE = '[]*?\\'  # Orbax takes these in a path for patterns


def place(workdir: os.PathLike | str) -> epath.Path:
  """The folder of a study, which may not exist yet.

  Raises:
    ValueError: it cannot be one.
  """
  path = epath.Path(workdir)
  if bad := [letter for letter in UNUSABLE if letter in os.fspath(path)]:
    raise ValueError(f'--workdir={os.fspath(path)!r} holds {" ".join(bad)}, which checkpoints cannot be '
                     'saved under. Take another name.')
  try:
    if '://' not in os.fspath(path):
      with contextlib.suppress(FileNotFoundError):
        os.stat(path)
    taken = path.exists() and not path.is_dir()
  except (OSError, ValueError, ImportError) as error:
    reason = str(error).partition(': ')[0]  # the path may be very long
    raise ValueError(f'--workdir={os.fspath(path)[:200]!r} cannot be used: {reason}.') from None
  if taken:
    raise ValueError(f'--workdir={os.fspath(path)!r} is a file; a study wants a folder.')
  return path


@contextlib.contextmanager
def locked(workdir: epath.Path) -> Iterator[None]:
  """Holds the folder; the operating system lets go of it however the process ends. Remote folders are not locked.

  Raises:
    ValueError: another process holds it.
  """
  with contextlib.ExitStack() as stack:
    def hold() -> None:
      workdir.mkdir(parents=True, exist_ok=True)
      if '://' in os.fspath(workdir) or sys.platform == 'win32':
        return
      import fcntl
      file = stack.enter_context(open(workdir / '.lock', 'a+'))
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError:
        file.seek(0)
        raise ValueError(f'Another process ({file.read().strip() or "unknown"}) is working in {workdir}. '
                         'Wait for it, or give this study another --workdir.') from None
      file.truncate(0)
      file.write(f'pid {os.getpid()} on {platform.node()}')
      file.flush()

    meshes.on_first(hold)
    yield


def check(workdir: epath.Path, study: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> None:
  """Whether the study that the folder holds, if it holds one, is this one, on the same data.

  Raises:
    ValueError: it is not; the message shows the difference.
  """
  path = workdir / 'study.json'
  if not path.exists():
    return
  begun = checkpoint.read_json(path)
  if not isinstance(begun, dict) or not isinstance(begun.get('config'), dict):
    raise ValueError(f'Cannot read {path}: it holds no config. Delete it and run the same command.')
  if changed := _changes(begun['config'], study):
    raise ValueError('\n'.join([f'{workdir} holds a study of another config. It differs in', *changed,
                                'Give this one another --workdir, or undo the change to continue.']))
  if data and (changed := _changes(_measures(begun.get('data', {})), _measures(data))):
    raise ValueError('\n'.join([f'The data changed since the study in {workdir} began:', *changed,
                                'Give this one another --workdir, or bring the data back to continue.']))


def _measures(data: Mapping[str, Any]) -> dict[str, Any]:
  return {f'data {pair}': {name: of_pair.get(name) for name in ('num_examples', 'class_names', 'sha256')}
          for pair, of_pair in data.items()}


def _changes(before: Any, now: Any) -> list[str]:
  """A line for every field that differs."""
  was, now = (_flat(checkpoint.plain(value)) for value in (before, now))
  changed = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name) and name not in FREE_FIELDS]
  return [f'  {name}: {was.get(name, "(not there)")!r} -> {now.get(name, "(not there)")!r}' for name in changed[:20]]


def begin(workdir: epath.Path, study: Mapping[str, Any], cohorts: list[Cohort], data: Mapping[str, Any]) -> None:
  """Writes study.json, or checks that the study there is this one.

  Raises:
    ValueError: as `check`.
  """
  content = {'name': study['name'], 'claim': study['claim'], 'config': study,
             'plan': {'num_runs': sum(len(cohort.cells) for cohort in cohorts), 'cohorts': [cohort.id for cohort in cohorts]},
             'data': data, 'versions': versions(), 'devices': [str(device) for device in jax.devices()]}

  def write() -> None:
    check(workdir, study, data)
    if not (workdir / 'study.json').exists():
      checkpoint.write_json(workdir / 'study.json', content)

  meshes.on_first(write)


def write_subsets(workdir: epath.Path, ids: Mapping[str, Any]) -> None:
  """Writes the ids of every subset, a file a target, where it is not there."""
  def write() -> None:
    (workdir / 'subsets').mkdir(exist_ok=True)
    for target, of_target in ids.items():
      if not (path := workdir / 'subsets' / f'{target}.json').exists():
        checkpoint.write_json(path, of_target)

  meshes.on_first(write)


def made_elsewhere(workdir: epath.Path) -> str:
  """A sentence on the finished runs that other versions of the packages made, or ''."""
  now, others = versions(), Counter[str]()
  for path in (workdir / 'runs').glob('*/result.json') if (workdir / 'runs').exists() else ():
    of_run = checkpoint.read_json(path).get('versions', {})
    others[', '.join(f'{name} {of_run[name]}' for name in NUMERIC if of_run.get(name) != now.get(name) and name in of_run)] += 1
  others.pop('', None)
  if not others:
    return ''
  made = '; '.join(f'{count} with {what}' for what, count in others.items())
  return (f'Finished runs were made by other versions than these ({made}); numbers of one table may then differ by rounding. '
          'For numbers of one version run the study in a new --workdir.')


def add_times(workdir: epath.Path, times: Mapping[str, float]) -> None:
  """Puts the seconds of one start of the study to those of the starts before."""
  def write() -> None:
    path = workdir / 'time.json'
    before = checkpoint.read_json(path) if path.exists() else []
    checkpoint.write_json(path, [*before, {name: round(seconds, 3) for name, seconds in times.items()}])

  meshes.on_first(write)


@functools.cache
def versions() -> dict[str, str]:
  """Versions of Python, of the packages that numbers depend on, and of the code."""
  found = {'python': platform.python_version()}
  for package in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[package] = importlib.metadata.version(package)
  with contextlib.suppress(OSError, subprocess.SubprocessError):
    here = os.path.dirname(os.path.abspath(__file__))
    git = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=here, capture_output=True, text=True, check=True, timeout=10)
    found['commit'] = git.stdout.strip()
  return found


def done(workdir: epath.Path, run_ids: list[str]) -> list[bool]:
  """Which runs' results have been written."""
  return meshes.on_first(lambda: [(workdir / 'runs' / run_id / 'result.json').exists() for run_id in run_ids])


def complete(workdir: epath.Path, cohorts: list[Cohort], run_ids: list[str]) -> bool:
  """Whether every run has its result and every cohort the checkpoint that holds its parameters."""
  folders = [workdir / 'cohorts' / cohort.id / 'checkpoints' for cohort in cohorts]
  return all(done(workdir, run_ids)) and meshes.on_first(lambda: all(checkpoint.steps(folder) for folder in folders))


def write_run(workdir: epath.Path, run_id: str, config: Mapping[str, Any], history: list[dict[str, Any]], labels: str,
              predictions: dict[str, Any] | None, result: Mapping[str, Any]) -> None:
  """Writes a run's folder, its result.json last and with the digests of the others."""
  folder = workdir / 'runs' / run_id
  folder.mkdir(parents=True, exist_ok=True)
  checkpoint.write_json(folder / 'config.json', config)
  (folder / 'metrics.jsonl').write_text(''.join(checkpoint.json_line(line) + '\n' for line in history), encoding='utf-8')
  (folder / 'labels.txt').write_text(labels, encoding='utf-8')
  if predictions is not None:
    with (folder / 'predictions.npz').open('wb') as file:
      np.savez_compressed(file, **predictions)
  files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
           for name in ('config.json', 'labels.txt', 'metrics.jsonl', *(['predictions.npz'] if predictions else []))}
  checkpoint.write_json(folder / 'result.json', checkpoint.sealed({**result, 'files': files}))


def params(workdir: os.PathLike | str, run_id: str) -> tuple[dict, dict]:
  """(params, stats) of one finished run as nested dicts of numpy arrays: what was trained, over what its source holds.

  Raises:
    ValueError: no such run, or a damaged checkpoint.
  """
  folder = epath.Path(workdir)
  if not done(folder, [run_id])[0]:
    raise ValueError(f'No finished run {run_id!r} in {folder}.')
  arrays, metadata = format_study.read(folder / 'runs' / run_id)
  stats = {name: arrays.pop(name) for name in metadata['stats']}
  return _nested(arrays), _nested(stats)


def trained(folder: epath.Path, row: int) -> tuple[dict, dict]:
  """(params, stats) that a cohort's last checkpoint holds for one of its runs.

  Raises:
    ValueError: there is no checkpoint, or it is damaged.
  """
  params, stats = format_study.trained(folder, row)
  return _nested(params), _nested(stats)


def _nested(arrays: Mapping[str, np.ndarray]) -> dict:
  """{'a': {'b': array}} of {'a/b': array}."""
  root: dict = {}
  for name, array in arrays.items():
    *parents, leaf = name.split('/')
    node = root
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = array
  return root


def _flat(value: Any, name: str = '') -> dict[str, Any]:
  """{'a.b[0].c': leaf} of nested dicts and lists."""
  if isinstance(value, dict) and value:
    return {k: v for key, item in value.items() for k, v in _flat(item, f'{name}.{key}' if name else key).items()}
  if isinstance(value, list) and value:
    return {k: v for i, item in enumerate(value) for k, v in _flat(item, f'{name}[{i}]').items()}
  return {name: value}
