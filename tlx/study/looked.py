"""What looking at all of a data set found, kept on this machine, so that the next start does not do
so again: digests of images that are more than memory holds, and which examples nearly are others.
"""

import contextlib
import functools
import hashlib
import inspect
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import jax
import numpy as np

from tlx.datasets import Looked, _near
from tlx.sources import cache
from tlx.train import mesh as meshes

FOLDER = 'looked'  # in `sources.cache`; may be deleted at any time


def once(stamp: Callable[[], str], look: Callable[[], Looked]) -> Looked:
  """What `look` finds, or found before of the same files; one process looks for all."""
  return meshes.on_first(functools.partial(_kept, stamp, look))


def said_once(of: Sequence[str], say: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
  """What there is to say of near copies in the data of these digests: what `say` gives, or gave
  before. Several processes look anew, each for itself: a note that only one of them had would let
  the others wait for it where the data are read.
  """
  if jax.process_count() > 1:
    return say()
  code = inspect.getsource(_near)
  digest = hashlib.sha256('\n'.join((*of, code)).encode()).hexdigest()
  file = cache() / FOLDER / f'{digest}.json'
  with contextlib.suppress(OSError, ValueError):  # not there, or damaged
    return tuple(json.loads(file.read_text(encoding='utf-8')))
  found = say()
  with contextlib.suppress(OSError):
    _replace(file, lambda draft: draft.write_text(json.dumps(found), encoding='utf-8'))
  return found


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
  about = json.dumps({'bad': found.bad, 'sha256': found.sha256})

  def save(draft: pathlib.Path) -> None:
    with draft.open('wb') as opened:
      np.savez(opened, about=np.array(about), **found.digests)  # type: ignore[arg-type]

  _replace(file, save)


def _replace(file: pathlib.Path, save: Callable[[pathlib.Path], object]) -> None:
  """The file as `save` writes it, whole or not at all."""
  file.parent.mkdir(parents=True, exist_ok=True)
  draft = file.with_name(f'.{file.stem}.{os.getpid()}')
  try:
    save(draft)
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
