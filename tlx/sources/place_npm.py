"""npm:PACKAGE@VERSION/member, a file of an npm package, fetched with `npm pack`; no scripts run."""

import contextlib
import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tlx.sources._budget import Budget
from tlx.sources._files import cache, inside
from tlx.sources._packages import cached, is_about, keep, licence, packed


def find(rest: str) -> tuple[Path, dict]:
  """(the file in the cache, package, version and licence); the end of the member's path will do.

  Raises:
    ValueError: another form, or it has not been fetched; the message gives the command.
  """
  name, version, member = _parse(rest)
  path = cached(
    f'npm/{name}@{version}', member, f'npm:{rest}', f'{name}@{version} has not been fetched'
  )
  root = cache() / 'npm' / f'{name}@{version}'
  file = root / 'package.json'
  manifest = json.loads(file.read_bytes()) if file.is_file() else {}
  declared = manifest.get('license') if isinstance(manifest, dict) else None
  return path, {
    'package': name,
    'version': version,
    'licence': licence([declared if isinstance(declared, str) else None], sorted(root.glob('*'))),
  }


def fetch(rest: str, sha256: str | None) -> Path:
  """The file, from the cache or the archive that `npm pack` downloads; links are passed over.

  Raises:
    ValueError: npm has no such version, no such member in it, or another checksum.
  """
  name, version, member = _parse(rest)
  try:
    return find(rest)[0]
  except ValueError:
    pass
  npm = ['npm', 'pack', f'{name}@{version}', '--silent', '--ignore-scripts']
  with packed(npm, '--pack-destination', '.tgz', f'npm:{rest}') as path, _unpacked(path) as archive:
    files = _members(archive, Budget.of(path))
    about = [
      name for name in files if name == 'package.json' or ('/' not in name and is_about(name))
    ]

    def opener(name: str):
      return archive.extractfile(files[name])

    return keep(f'npm/{name}@{version}', files, member, opener, about, sha256)


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[tarfile.TarFile]:
  """The archive, decompressed beside itself first: tarfile holds what headers claim in memory."""
  budget = Budget.of(path)
  plain = path.with_suffix('.tar')
  with gzip.open(path) as stream, plain.open('wb') as out:
    while block := stream.read(1 << 20):
      budget.take(len(block), path.name)
      out.write(block)
  with tarfile.open(plain, 'r:') as archive:
    yield archive


def _members(archive: tarfile.TarFile, budget: Budget) -> dict[str, tarfile.TarInfo]:
  """{name: entry} of the files. Everything lies in one folder; sparse files count in full."""
  files = {}
  for entry in archive:
    budget.step(entry.name)
    budget.take(entry.size, entry.name)
    if entry.isreg():
      files[entry.name.partition('/')[2]] = entry
  return files


def _parse(rest: str) -> tuple[str, str, str]:
  found = re.fullmatch(
    r'((?:@[a-z0-9][a-z0-9._~-]*/)?[a-z0-9][a-z0-9._~-]*)@([0-9][A-Za-z0-9.+-]*)/(.+)', rest
  )
  if not found:
    raise ValueError(f'npm:{rest}: wanted npm:PACKAGE@VERSION/member, with an exact version.')
  return found[1], found[2], inside(found[3])
