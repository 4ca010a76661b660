"""PyTorch checkpoints (.pth .pt .bin .ckpt .pth.tar), zip and legacy, read without torch.

Layouts: `_save` and `_legacy_save` of torch/serialization.py. A checkpoint that needs anything but
tensors, containers, strings, numbers and settings is refused. Strides, shared storages and dtypes
are kept.
"""

import mmap
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tlx.sources import _pickle, _torch
from tlx.sources._budget import Budget, brief
from tlx.sources._files import sharded
from tlx.sources._names import flatten

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def matches(path: Path) -> bool:
  return path.name.endswith(('.pth', '.pt', '.bin', '.ckpt', '.pth.tar', '.bin.index.json'))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({name: array}, {}); nested names are joined by '/', what is no tensor is passed over."""
  return sharded(path, Budget.of(path), _read)


def _read(path: Path, budget: Budget) -> tuple[dict[str, np.ndarray], dict]:
  with path.open('rb') as stream:
    if stream.read(4) == b'PK\x03\x04':
      tree, buffers = _read_zip(path, budget)
    else:
      with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tree, buffers = _read_legacy(data, budget)
  tensors = {
    name: leaf for name, leaf in flatten(tree, budget).items() if isinstance(leaf, _torch.Tensor)
  }
  if not tensors:
    kind = tree.name if isinstance(tree, _pickle.Record) else type(tree).__name__
    raise ValueError(
      f'it holds no tensors, only a {brief(kind)}. If you trust the file, load it with torch and '
      'save its state_dict() alone, or as safetensors'
    )
  return {name: _torch.array(name, tensor, buffers, budget) for name, tensor in tensors.items()}, {}


def _read_zip(path: Path, budget: Budget) -> tuple[Any, dict[str, bytes]]:
  """<name>/data.pkl is the object, <name>/data/<key> the bytes of a storage."""
  with zipfile.ZipFile(path) as archive:
    members = budget.members(archive)
    roots = [
      name.removesuffix('data.pkl')
      for name in members
      if name.count('/') == 1 and name.endswith('/data.pkl')
    ]
    if len(roots) != 1:
      raise ValueError(f'a PyTorch archive has one <name>/data.pkl, this one has {len(roots)}')
    root = roots[0]
    if f'{root}byteorder' in members and archive.read(f'{root}byteorder') != b'little':
      raise ValueError(
        'it was written big-endian. Load and save it with torch on a little-endian machine'
      )
    if f'{root}constants.pkl' in members:
      raise ValueError(
        'it is a TorchScript program. Load it with torch and save its state_dict() alone, or as '
        'safetensors'
      )
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
      raise ValueError('its members are compressed, which PyTorch never does')
    if sum(info.file_size for info in members.values()) > path.stat().st_size:
      raise ValueError('its members overlap or are longer than the file')
    with archive.open(f'{root}data.pkl') as stream:
      tree, storages = _torch.unpickle(stream, 5, budget)
    if lacking := [key for key in storages if f'{root}data/{key}' not in members]:
      raise ValueError(f'the archive lacks the storages {lacking}')
    return tree, {key: archive.read(f'{root}data/{key}') for key in storages}


def _read_legacy(data: mmap.mmap, budget: Budget) -> tuple[Any, dict[str, bytes]]:
  """Pickles of magic number, protocol, machine, object, storage keys, then each storage's bytes."""
  if data[:2] != b'\x80\x02' or _plain(data) != _MAGIC:
    raise ValueError(
      'it starts neither as a PyTorch zip archive nor as a legacy PyTorch file. Shards of a tfjs '
      'model are read by naming their manifest; files from before PyTorch 0.2 must be loaded and '
      'saved with torch'
    )
  if _plain(data) != _PROTOCOL or not _plain(data)['little_endian']:
    raise ValueError(
      f'its legacy protocol is not {_PROTOCOL}, little-endian. Load it with torch and save its '
      'state_dict()'
    )
  tree, storages = _torch.unpickle(data, 6, budget)
  keys, buffers = _plain(data), {}
  if type(keys) is not list or not all(type(key) is str for key in keys):
    raise ValueError('its storage keys are not a list of strings')
  if sorted(keys) != sorted(storages):
    raise ValueError(
      f'it has the storages {sorted(keys)[:9]}, its tensors use {sorted(storages)[:9]}'
    )
  for key in keys:
    if (count := int.from_bytes(data.read(8), 'little')) != storages[key].size:
      raise ValueError(f'storage {key} has {count} elements, its tensors say {storages[key].size}')
    buffers[key] = data.read(count * storages[key].dtype.itemsize)
  return tree, buffers


def _plain(data: mmap.mmap) -> Any:
  """The next pickle, of plain containers only."""
  return _pickle.loads(data, _no, _no, _no)


def _no(*_: Any) -> bool:
  """No global may be named, so that there is none to call and no storage to find."""
  return False
