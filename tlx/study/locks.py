"""Who works at what of a study: locks that the operating system lets go of however a process ends.

`.lock` is held by every process of a study for its life, shared, and by one alone while it begins
or reports. `.locks/NAME` are held by one process each: a source while it is made, a group (one
method from one source to one target) until it is chosen and tested, files that several write.
They are `flock`s, which NFS 4 and Lustre with `-o flock` keep between machines. Object stores and
Windows, which has no `flock`, keep none: there one process works at a time, and nobody checks it.
"""

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO

from etils import epath

from tlx.train import mesh as meshes

LOOK_SECONDS = 0.2  # between two looks at what another process holds


def are_kept(workdir: epath.Path) -> bool:
  """Whether processes can hold something of the folder."""
  return '://' not in os.fspath(workdir) and sys.platform != 'win32'


@contextlib.contextmanager
def joined(
  workdir: epath.Path, begin: Callable[[], None], same: Callable[[], str]
) -> Iterator[None]:
  """Within, this process is one of those that work in the folder. The first of them calls `begin`
  while it is alone.

  Args:
    same: '' where what the folder was begun with is what this process wants, else the difference.

  Raises:
    ValueError: others work in the folder at something else.
  """
  with contextlib.ExitStack() as stack:

    def join() -> None:
      workdir.mkdir(parents=True, exist_ok=True)
      if not are_kept(workdir):
        begin()
        return
      file = stack.enter_context(open(workdir / '.lock', 'a+'))
      while not _took(file):
        if _took(file, shared=True):
          break
        time.sleep(LOOK_SECONDS)
      else:
        file.truncate(0)
        file.write(f'pid {os.getpid()} on {platform.node()}')
        file.flush()
        begin()
        while not _took(file, shared=True):  # between the two locks another one may have begun
          time.sleep(LOOK_SECONDS)
      if difference := same():
        file.seek(0)
        raise ValueError(
          f'Another process ({file.read().strip() or "unknown"}) is working in {workdir} at '
          f'another config:\n{difference}\nWait for it, or give this study another --workdir.'
        )

    meshes.on_first(join)
    yield


@contextlib.contextmanager
def last(workdir: epath.Path) -> Iterator[bool]:
  """Whether no other process works in the folder; within, none begins to."""
  with contextlib.ExitStack() as stack:
    hold = _holder(stack, workdir, workdir / '.lock', wait=False)
    yield meshes.on_first(hold)


@contextlib.contextmanager
def held(workdir: epath.Path, name: str, wait: bool = False) -> Iterator[bool]:
  """Whether this process holds what goes by the name within, or another one has it; with `wait`
  it does sooner or later.
  """
  with contextlib.ExitStack() as stack:
    hold = _holder(stack, workdir, workdir / '.locks' / name, wait)
    yield meshes.on_first(hold)


@contextlib.contextmanager
def held_here(workdir: epath.Path, name: str) -> Iterator[None]:
  """Within, this process holds what goes by the name; those that it computes with are not asked."""
  with contextlib.ExitStack() as stack:
    _holder(stack, workdir, workdir / '.locks' / name, wait=True)()
    yield


def _holder(
  stack: contextlib.ExitStack, workdir: epath.Path, path: epath.Path, wait: bool
) -> Callable[[], bool]:
  """Takes the lock of a file until the stack is left, and returns whether it could."""

  def hold() -> bool:
    if not are_kept(workdir):
      return True
    path.parent.mkdir(parents=True, exist_ok=True)
    file = stack.enter_context(path.open('a'))
    while not _took(file):
      if not wait:
        return False
      time.sleep(LOOK_SECONDS)
    return True

  return hold


def _took(file: IO[str], shared: bool = False) -> bool:
  """Whether a file's lock could be had now.

  Raises:
    ValueError: the disk has no locks.
  """
  import fcntl  # which Windows lacks

  try:
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    raise ValueError(
      f'{os.path.dirname(file.name)} lies on a disk that keeps no locks ({error.strerror}). Mount '
      'it with them (NFS 4, Lustre with -o flock), or take a --workdir on another one.'
    ) from None
  return True


def is_free(workdir: epath.Path, name: str) -> bool:
  """Whether no process holds what goes by the name."""
  try:
    with open(workdir / '.locks' / name) as file:
      return _took(file, shared=True)
  except FileNotFoundError:
    return True
