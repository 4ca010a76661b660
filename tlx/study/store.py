"""The folder of a study: who may write to it, what it was begun with, and what is done."""
import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
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
PACKAGES = ('tlx-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-datasets', 'numpy')


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


def begin(workdir: epath.Path, study: Mapping[str, Any], cohorts: list[Cohort]) -> None:
  """Writes study.json, or checks that the study there is this one.

  Raises:
    ValueError: the folder holds a study of another config; the message shows the difference.
  """
  path = workdir / 'study.json'
  content = {'name': study['name'], 'claim': study['claim'], 'config': study,
             'plan': {'num_runs': sum(len(cohort.cells) for cohort in cohorts), 'cohorts': [cohort.id for cohort in cohorts]},
             'versions': versions(), 'devices': [str(device) for device in jax.devices()]}
  meshes.on_first(lambda: _begin(workdir, path, content))


def _begin(workdir: epath.Path, path: epath.Path, content: Mapping[str, Any]) -> None:
  draft = checkpoint.plain(content)
  if path.exists():
    was, now = (_flat(c) for c in (checkpoint.read_json(path)['config'], draft['config']))
    changed = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name) and name not in FREE_FIELDS]
    if changed:
      lines = [f'  {name}: {was.get(name, "(not there)")!r} -> {now.get(name, "(not there)")!r}' for name in changed[:20]]
      raise ValueError('\n'.join([f'{workdir} holds a study of another config. It differs in', *lines,
                                  'Give this one another --workdir, or undo the change to continue.']))
  else:
    checkpoint.write_json(path, content)


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


def write_run(workdir: epath.Path, run_id: str, config: Mapping[str, Any], history: list[dict[str, Any]], labels: str,
              predictions: dict[str, Any] | None, result: Mapping[str, Any]) -> None:
  """Writes a run's folder, its result.json last."""
  folder = workdir / 'runs' / run_id
  folder.mkdir(parents=True, exist_ok=True)
  checkpoint.write_json(folder / 'config.json', config)
  (folder / 'metrics.jsonl').write_text(''.join(checkpoint.json_line(line) + '\n' for line in history))
  (folder / 'labels.txt').write_text(labels)
  if predictions is not None:
    with (folder / 'predictions.npz').open('wb') as file:
      np.savez_compressed(file, **predictions)
  checkpoint.write_json(folder / 'result.json', result)


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
