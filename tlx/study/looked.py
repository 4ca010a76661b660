"""What decoding all images of a data set found, when they are more than memory holds: kept on this
machine, so that the next start does not decode them all again.
"""

import contextlib
import functools
import json
import os
import pathlib
import zipfile
from collections.abc import Callable

import numpy as np

from tlx.datasets import Looked
from tlx.sources import cache
from tlx.train import mesh as meshes

FOLDER = 'looked'  # in `sources.cache`; may be deleted at any time


def once(stamp: Callable[[], str], look: Callable[[], Looked]) -> Looked:
  """What `look` finds, or found before of the same files; one process looks for all."""
  return meshes.on_first(functools.partial(_kept, stamp, look))


def _kept(stamp: Callable[[], str], look: Callable[[], Looked]) -> Looked:
  digest = stamp()
  file = cache() / FOLDER / f'{digest}.npz'
  found = _read(file) if digest else None
  if found is None:
    found = look()
    if digest:
      with contextlib.suppress(OSError):  # a full disk: the next start looks again
        _write(file, found)
  return found


def _write(file: pathlib.Path, found: Looked) -> None:
  file.parent.mkdir(parents=True, exist_ok=True)
  draft = file.with_name(f'.{file.stem}.{os.getpid()}')
  about = json.dumps({'bad': found.bad, 'sha256': found.sha256})
  try:
    with draft.open('wb') as opened:
      np.savez(opened, about=np.array(about), **found.digests)  # type: ignore[arg-type]
    draft.replace(file)
  finally:
    draft.unlink(missing_ok=True)


def _read(file: pathlib.Path) -> Looked | None:
  """What the file says; None where it is not there or damaged."""
  try:
    with np.load(file, allow_pickle=False) as arrays:
      about = json.loads(str(arrays['about']))
      digests = {name: arrays[name] for name in arrays.files if name != 'about'}
    return Looked(digests, about['bad'], about['sha256'])
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None
