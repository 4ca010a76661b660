"""Checkpoints: a tree of arrays through Orbax beside our own digest of it, since Orbax does not notice flipped bytes.

`<folder>/<step>/arrays` is written first and `<folder>/<step>/meta.json` last: a checkpoint without the latter does not exist.
"""
import json
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from tlx import tree as trees
from tlx.types import PyTree


def save(folder: epath.Path, step: int, tree: PyTree, meta: dict[str, Any]) -> None:
  """Writes a checkpoint and then removes those before it. `meta` is JSON; it gains the arrays' 'names' and 'sha256'."""
  arrays = {name: np.asarray(leaf) for name, leaf in trees.named_leaves(jax.device_get(tree))}
  place = folder / str(step)
  if place.exists():  # left by a save that did not end, or by an equal one
    place.rmtree()
  place.mkdir(parents=True)
  with checkpointer() as orbax:
    orbax.save(_absolute(place / 'arrays'), {f'{i:05d}': array for i, array in enumerate(arrays.values())})
  write_json(place / 'meta.json', meta | {'names': list(arrays), 'sha256': trees.sha256(arrays)})
  for other in steps(folder):
    if other != step:
      (folder / str(other)).rmtree()


def checkpointer() -> ocp.Checkpointer:
  """Orbax's, for trees of arrays, used by this process alone: it waits for no other."""
  me = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f'tlx{me}')
  return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


def steps(folder: epath.Path) -> list[int]:
  """The steps of the complete checkpoints in a folder, ascending."""
  if not folder.exists():
    return []
  return sorted(int(place.name) for place in folder.iterdir() if place.name.isdigit() and (place / 'meta.json').exists())


def latest(folder: epath.Path) -> dict[str, Any] | None:
  """The `meta` of the newest checkpoint with its 'step', or None."""
  done = steps(folder)
  return read_json(folder / str(done[-1]) / 'meta.json') | {'step': done[-1]} if done else None


def load(folder: epath.Path) -> dict[str, np.ndarray]:
  """{name: array} of the newest checkpoint.

  Raises:
    ValueError: there is none, or it is damaged.
  """
  meta = latest(folder)
  if meta is None:
    raise ValueError(f'No checkpoint in {folder}.')
  place = folder / str(meta['step'])
  try:
    with checkpointer() as orbax:
      stored = orbax.restore(_absolute(place / 'arrays'))
    arrays = {name: np.asarray(stored[f'{i:05d}']) for i, name in enumerate(meta['names'])}
    found = trees.sha256(arrays)
  except Exception as error:  # Orbax and TensorStore raise many kinds
    found = f'{type(error).__name__}: {str(error)[:200]}'
  if found != meta['sha256']:
    raise ValueError(f'The checkpoint {place} is damaged: its digest should be {meta["sha256"]}, got {found}. '
                     f'Delete {place} and run the same command: what it held is computed again.')
  return arrays


def restore(folder: epath.Path, like: PyTree) -> PyTree:
  """The newest checkpoint's arrays in the structure of `like` (arrays or their shapes).

  Raises:
    ValueError: there is none, it is damaged, or it holds other arrays than `like`.
  """
  arrays = load(folder)
  names = [name for name, _ in trees.named_leaves(like)]
  if names != list(arrays):
    raise ValueError(f'The checkpoint in {folder} holds other arrays than this code trains; they differ in '
                     f'{sorted(set(names) ^ set(arrays))[:8]}. Delete it to train again from the start.')
  return jax.tree.unflatten(jax.tree.structure(like), list(arrays.values()))


def _absolute(path: epath.Path) -> epath.Path:
  """What Orbax takes; `resolve` is for local paths only."""
  return path if '://' in os.fspath(path) else path.resolve()


def write_json(path: epath.Path, content: Any) -> None:
  """Writes JSON atomically: the file is whole or not there. What is not a finite number becomes null."""
  draft = path.parent / f'.{path.name}.draft'
  draft.write_text(json.dumps(plain(content), indent=1, ensure_ascii=False) + '\n')
  draft.replace(path)


def json_line(content: Any) -> str:
  """One line of JSON, as `write_json` writes it."""
  return json.dumps(plain(content), ensure_ascii=False)


def read_json(path: epath.Path) -> Any:
  """The content of a JSON file."""
  return json.loads(path.read_text())


def plain(value: Any) -> Any:
  """The value in JSON's own types, tuples as lists."""
  if isinstance(value, dict):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  if isinstance(value, np.generic):
    value = value.item()
  return None if isinstance(value, float) and not np.isfinite(value) else value
