"""Checkpoints: a tree of arrays through Orbax beside our own digest of it, since Orbax does not
notice flipped bytes.

`<folder>/<step>/arrays` is written first and `<folder>/<step>/meta.json` last: a checkpoint without
the latter does not exist.
JSON whose content reaches a number is sealed: it carries a digest of itself.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import logging
from etils import epath
from safetensors.numpy import save_file

from tlx import tree as trees
from tlx.types import PyTree

if TYPE_CHECKING:  # a dry run saves nothing, and has no second for it
  import orbax.checkpoint as ocp


def save(folder: epath.Path, step: int, tree: PyTree, meta: dict[str, Any]) -> None:
  """Writes a checkpoint and then removes those before it. `meta` is JSON; it gains the arrays'
  'names' and 'arrays_sha256'.

  Raises:
    OSError: it cannot be written; those before it stay.
  """
  arrays = {name: np.asarray(leaf) for name, leaf in trees.named_leaves(jax.device_get(tree))}
  place = folder / str(step)
  if place.exists():  # left by a save that did not end, or by an equal one
    place.rmtree()
  place.mkdir(parents=True)
  with _failing_quietly(place), _to(place / 'arrays') as there, checkpointer() as orbax:
    orbax.save(there, {f'{i:05d}': array for i, array in enumerate(arrays.values())})
  write_json(
    place / 'meta.json',
    sealed(meta | {'names': list(arrays), 'arrays_sha256': trees.sha256(arrays)}),
  )
  for other in steps(folder):
    if other != step:
      (folder / str(other)).rmtree()


@contextlib.contextmanager
def _failing_quietly(place: epath.Path) -> Iterator[None]:
  """What Orbax and TensorStore print of a save that fails, a traceback a thread, becomes one
  error.
  """
  verbosity, hook = logging.get_verbosity(), sys.unraisablehook
  logging.set_verbosity(logging.FATAL)
  sys.unraisablehook = lambda _: None
  try:
    yield
  except Exception as error:  # Orbax and TensorStore raise many kinds
    with contextlib.suppress(OSError):
      place.rmtree()
    full = (
      errno.ENOSPC
      if 'RESOURCE_EXHAUSTED' in str(error) or getattr(error, 'errno', 0) == errno.ENOSPC
      else errno.EIO
    )
    raise OSError(
      full,
      f'Cannot write the checkpoint {place}: {os.strerror(full)} ({str(error)[:200]})',
    ) from None
  else:
    sys.unraisablehook = hook  # after a failure threads go on complaining
  finally:
    logging.set_verbosity(verbosity)


def checkpointer() -> 'ocp.Checkpointer':
  """Orbax's, for trees of arrays, used by this process alone: it waits for no other."""
  import orbax.checkpoint as ocp

  me = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=me, active_processes={me}, barrier_sync_key_prefix=f'tlx{me}'
  )
  return ocp.Checkpointer(
    ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
    multiprocessing_options=alone,
  )


def steps(folder: epath.Path) -> list[int]:
  """The steps of the complete checkpoints in a folder, ascending."""
  if not folder.exists():
    return []
  return sorted(
    int(place.name)
    for place in folder.iterdir()
    if place.name.isdigit() and (place / 'meta.json').exists()
  )


def latest(folder: epath.Path) -> dict[str, Any] | None:
  """The `meta` of the newest checkpoint with its 'step', or None.

  Raises:
    ValueError: it is damaged.
  """
  done = steps(folder)
  if not done:
    return None
  place = folder / str(done[-1])
  try:
    return unsealed(place / 'meta.json') | {'step': done[-1]}
  except ValueError as error:
    raise _damaged(place, str(error)) from None


def _damaged(place: epath.Path, reason: str) -> ValueError:
  return ValueError(
    f'The checkpoint {place} is damaged: {reason} Delete {place} and run the same '
    'command: what it held is computed again, also of a study that was finished.'
  )


def load(folder: epath.Path) -> dict[str, np.ndarray]:
  """{name: array} of the newest checkpoint.

  Raises:
    ValueError: there is none, or it is damaged.
  """
  meta = latest(folder)
  if meta is None:
    raise ValueError(
      f'No checkpoint in {folder}. Run the study again: what is missing is computed again.'
    )
  place = folder / str(meta['step'])
  try:
    with _from(place / 'arrays') as there, checkpointer() as orbax:
      stored = orbax.restore(there)
    arrays = {name: np.asarray(stored[f'{i:05d}']) for i, name in enumerate(meta['names'])}
    found = trees.sha256(arrays)
  except Exception as error:  # Orbax and TensorStore raise many kinds
    found = f'{type(error).__name__}: {str(error)[:200]}'
  if found != meta['arrays_sha256']:
    raise _damaged(place, f'its digest should be {meta["arrays_sha256"]}, got {found}.')
  return arrays


def restore(folder: epath.Path, like: PyTree) -> PyTree:
  """The newest checkpoint's arrays in the structure of `like` (arrays or their shapes).

  Raises:
    ValueError: there is none, it is damaged, or it holds other arrays than `like`.
  """
  arrays = load(folder)
  names = [name for name, _ in trees.named_leaves(like)]
  if names != list(arrays):
    raise ValueError(
      f'The checkpoint in {folder} holds other arrays than this code trains; they differ in '
      f'{sorted(set(names) ^ set(arrays))[:8]}. Delete it to train again from the start.'
    )
  return jax.tree.unflatten(jax.tree.structure(like), list(arrays.values()))


@contextlib.contextmanager
def _to(folder: epath.Path) -> Iterator[epath.Path]:
  """Where Orbax is to write a folder. Of object stores it knows some, etils all that fsspec does:
  there it writes to this machine, and the files are copied at the end.
  """
  if '://' not in os.fspath(folder):
    yield folder.resolve()
    return
  with tempfile.TemporaryDirectory() as scratch:
    yield epath.Path(scratch) / 'arrays'
    _copy(epath.Path(scratch) / 'arrays', folder)


@contextlib.contextmanager
def _from(folder: epath.Path) -> Iterator[epath.Path]:
  """Where Orbax finds a folder that it wrote."""
  if '://' not in os.fspath(folder):
    yield folder.resolve()
    return
  with tempfile.TemporaryDirectory() as scratch:
    _copy(folder, epath.Path(scratch) / 'arrays')
    yield epath.Path(scratch) / 'arrays'


def _copy(folder: epath.Path, to: epath.Path) -> None:
  """Every file of a folder."""
  to.mkdir(parents=True, exist_ok=True)
  for path in folder.iterdir():
    if path.is_dir():
      _copy(path, to / path.name)
    else:
      (to / path.name).write_bytes(path.read_bytes())


def write_json(path: epath.Path, content: Any) -> None:
  """Writes JSON atomically: the file is whole or not there. What is not a finite number becomes
  null.
  """
  draft = path.parent / f'.{path.name}.draft'
  draft.write_text(
    json.dumps(plain(content), indent=1, ensure_ascii=False) + '\n',
    encoding='utf-8',
  )
  draft.replace(path)


def write_arrays(
  path: os.PathLike | str, arrays: Mapping[str, np.ndarray], about: Mapping[str, str] | None = None
) -> None:
  """Writes a .safetensors that others may read as they may other new files: the library gives it to
  its owner alone.
  """
  place = pathlib.Path(path)
  place.touch()
  mode = place.stat().st_mode
  save_file(dict(arrays), place, dict(about) if about else None)
  place.chmod(mode)


def json_line(content: Any) -> str:
  """One line of JSON, as `write_json` writes it."""
  return json.dumps(plain(content), ensure_ascii=False)


def read_json(path: epath.Path) -> Any:
  """The content of a JSON file.

  Raises:
    ValueError: it is not JSON; the message names the file.
  """
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:  # UnicodeDecodeError is one
    raise ValueError(f'Cannot read {path}: {error}.') from None


def sealed(content: dict[str, Any]) -> dict[str, Any]:
  """The content in JSON's own types, with a digest of it as 'sha256'."""
  content = plain(content)
  return content | {'sha256': _seal(content)}


def unsealed(path: epath.Path) -> dict[str, Any]:
  """The content of a JSON file that was `sealed`.

  Raises:
    ValueError: it is not JSON, or not what was written.
  """
  content = read_json(path)
  if not isinstance(content, dict) or 'sha256' not in content:
    raise ValueError(
      f'{path} holds no digest of itself: an earlier version wrote it, or it was changed.'
    )
  if content['sha256'] != _seal(content):
    raise ValueError(
      f'{path} was changed after it was written: its digest does not fit its content.'
    )
  return content


def _seal(content: dict[str, Any]) -> str:
  unsigned = {name: value for name, value in content.items() if name != 'sha256'}
  return hashlib.sha256(
    json.dumps(unsigned, sort_keys=True, ensure_ascii=False).encode()
  ).hexdigest()


def plain(value: Any) -> Any:
  """The value in JSON's own types, tuples as lists."""
  if isinstance(value, dict):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  if isinstance(value, (np.generic, np.ndarray)):
    return plain(value.tolist())
  return None if isinstance(value, float) and not np.isfinite(value) else value
