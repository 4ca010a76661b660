"""TensorFlow's SavedModels and checkpoints, folders of variables, read without TensorFlow."""

import glob
import re
from pathlib import Path

import numpy as np

from tlx.sources import _tensor_bundle
from tlx.sources._budget import Budget

_VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'
_STATE = 'checkpoint'  # the file that says which of several checkpoints is the latest


def matches(path: Path) -> bool:
  """A folder with saved_model.pb, or with PREFIX.index of a checkpoint and its shards."""
  if not path.is_dir():
    return False
  return (path / 'saved_model.pb').is_file() or bool(_prefixes(path))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({name: array}, {}) of the variables, object paths of TF2 without their
  '/.ATTRIBUTES/VARIABLE_VALUE'.
  """
  arrays = _tensor_bundle.read(_prefix(path), Budget.of(path))
  return {name.removesuffix(_VALUE): arrays[name] for name in sorted(arrays)}, {}


def _prefix(path: Path) -> Path:
  """What the files of the checkpoint begin with: of several the one that is the latest."""
  if (path / 'saved_model.pb').is_file():
    return path / 'variables' / 'variables'
  names = _prefixes(path)
  if len(names) > 1 and (path / _STATE).is_file():
    said = (path / _STATE).read_text(encoding='utf-8', errors='replace')
    latest = re.search(r'(?m)^model_checkpoint_path: "(?:.*/)?([^"/]+)"', said)
    names = [name for name in names if latest and name == latest[1]] or names
  if len(names) > 1:
    raise ValueError(f'it holds the checkpoints {", ".join(names[:9])}: keep one in the folder')
  return path / names[0]


def _prefixes(path: Path) -> list[str]:
  """What the files of each checkpoint in a folder begin with."""
  found = []
  for file in sorted(path.glob('*.index')):
    if any(path.glob(f'{glob.escape(file.stem)}.data-?????-of-?????')):
      found.append(file.stem)
  return found
