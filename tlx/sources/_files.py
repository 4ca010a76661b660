"""Files: where they are cached, which belong together, whether they are the right ones."""

import hashlib
import importlib
import json
import os
import re
import stat
import types
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from tlx.plug import closest

# Small files of the same folder: how weights compute, on which tokens they were trained, how
# dialogues are written for them and what ends a text.
BESIDE = (
  'config.json',
  'tokenizer.json',
  'vocab.txt',
  'vocab.json',
  'merges.txt',
  'tokenizer_config.json',
  'generation_config.json',
  'chat_template.jinja',
)
_CONFIG_BYTES, _LARGEST_INDEX, _LARGEST_HOLE = 1 << 20, 1 << 26, 1 << 30


def cache() -> Path:
  """The folder of fetched files: $TLX_CACHE, else $XDG_CACHE_HOME/tlx, else ~/.cache/tlx."""
  default = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'tlx'
  return Path(os.environ.get('TLX_CACHE') or default).expanduser()


def short(text: str) -> str:
  """16 hex digits that stand for `text`, as the name of a folder."""
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def need(module: str, extra: str) -> types.ModuleType:
  """An optional package, imported.

  Raises:
    ImportError: it is not installed; the message says how to install it.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise ImportError(
      f"This source needs the package {module.split('.')[0]}: pip install 'tlx-jax[{extra}]'."
    ) from error


def inside(name: str) -> str:
  """`name`, from a file or URI that is not trusted, if it is a path that stays in its folder.

  Raises:
    ValueError: it is absolute, climbs with '..', or is empty.
  """
  parts = PurePosixPath(name).parts
  if not parts or name.startswith('/') or '..' in parts or re.search(r'[\\:\0]', name):
    raise ValueError(f'path {name!r} leads out of its folder; refused')
  return name


def pick(names: Iterable[str], member: str, where: str) -> str:
  """The one of `names` that is `member`, or else that ends in '/' + member.

  >>> pick(['bert/model/vocab.txt', 'bert/LICENSE'], 'model/vocab.txt', 'bert 1.0')
  'bert/model/vocab.txt'

  Raises:
    ValueError: none or several.
  """
  names = sorted(names)
  found = [name for name in names if name == member]
  if not found:
    found = [name for name in names if name.endswith(f'/{member}')]
  if len(found) != 1:
    have = f'several: {", ".join(found)}. Give the full path.'
    if not found:
      have = f'none.{closest(member, names)} It has {names[:20]}'
    raise ValueError(f'{where}: wanted one member {member!r}, got {have}')
  return found[0]


def companions(path: Path) -> list[str]:
  """Names, relative to its folder, of the files that the index or manifest `path` needs, else [].

  Raises:
    ValueError: the JSON is not that of an index or manifest, or a name leads out of the folder.
  """
  if not (path.name.endswith(('.index.json', 'manifest.json')) or path.name == 'model.json'):
    return []
  try:
    index = read_json(path)
    names: set[str] = set()
    if path.name.endswith('.index.json'):
      names.update(index['weight_map'].values())
    else:
      for group in index['weightsManifest'] if isinstance(index, dict) else index:
        names.update(group['paths'])
    return sorted({normal(name) for name in names})
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'{path} is not the index of a sharded model: {error!r}') from error


def config_beside(path: Path) -> tuple[dict[str, Any], str]:
  """(what the config.json beside a file, or in a folder, says, its sha256), ({}, '') without one.

  Raises:
    ValueError: it is no JSON object, or larger than 1 MiB.
  """
  file = (path if path.is_dir() else path.parent) / 'config.json'
  if not file.exists():
    return {}, ''
  try:
    _regular(file)
    with file.open('rb') as stream:
      data = stream.read(_CONFIG_BYTES + 1)
    if len(data) > _CONFIG_BYTES:
      raise ValueError(f'it is larger than {_CONFIG_BYTES:,} bytes')
    config = json.loads(data)
    if not isinstance(config, dict):
      raise ValueError(f'it is a {type(config).__name__}')
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(
      f'{file} stands beside the weights and should say as a JSON object how they compute, but '
      f'{error}. Mend it, or move the weights to a folder without it.'
    ) from error
  return config, hashlib.sha256(data).hexdigest()


def normal(name: str) -> str:
  """`inside(name)` in the one way to write it: './a//b' is 'a/b'."""
  return PurePosixPath(inside(name)).as_posix()


def read_json(path: Path) -> Any:
  """The content of an index or manifest.

  Raises:
    ValueError: it is no regular file, is larger than 64 MiB, or is not JSON.
  """
  if (found := _regular(path).st_size) > _LARGEST_INDEX:
    raise ValueError(f'{path} has {found} bytes, more than any index; refused')
  try:
    return json.loads(path.read_bytes())
  except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise ValueError(f'{path} is not JSON: {error!r}') from error


def remote(path: os.PathLike) -> bool:
  """Whether a path is that of a bucket."""
  return '://' in os.fspath(path)


def files(path: Path) -> list[Path]:
  """All files of a source: a file with its companions, or everything in a folder.

  Raises:
    ValueError: one of them is missing, or is neither a regular file nor a folder of its own.
  """
  found = []
  if path.is_dir():
    for folder, folders, names in os.walk(path, onerror=_raise):
      if links := [name for name in folders if os.path.islink(os.path.join(folder, name))]:
        raise ValueError(f'{Path(folder) / links[0]} is a link to a folder; refused')
      found += [Path(folder) / name for name in names]
  else:
    _regular(path)
    found = [path, *(path.parent / name for name in companions(path))]
  for file in found:
    _regular(file)
  return sorted(found)


def size(path: Path) -> int:
  """The bytes that a source has on disk: those of all its files, each once whatever names it has.

  Raises:
    ValueError: as `files`.
  """
  found = map(_regular, files(path))
  return sum({(one.st_dev, one.st_ino): one.st_size for one in found}.values())


def _regular(path: Path) -> os.stat_result:
  """The stat of a regular file: reading a FIFO or a device would never end."""
  try:
    found = path.stat()
  except OSError as error:
    why = f'No such file: {path}.' if isinstance(error, FileNotFoundError) else str(error)
    raise ValueError(why) from error
  if stat.S_ISDIR(found.st_mode):
    raise ValueError(f'{path} is a folder, wanted a file')
  if not stat.S_ISREG(found.st_mode):
    raise ValueError(f'{path} is no regular file but a FIFO, socket or device; refused')
  if found.st_size > _LARGEST_HOLE and 512 * found.st_blocks * 64 < found.st_size:
    with path.open('rb') as stream:  # where a file system cannot tell, the hole is at the end
      if (data := os.lseek(stream.fileno(), 0, os.SEEK_HOLE)) < found.st_size:
        raise ValueError(f'{path} is a hole from byte {data} of {found.st_size} on; refused')
  return found


def _raise(error: OSError):
  raise error


def digest(path: Path) -> str:
  """The sha256 of a file; of several, that of their lines '<sha256>  <relative name>' by name."""

  def one(file: Path) -> str:
    with file.open('rb') as stream:
      return hashlib.file_digest(stream, 'sha256').hexdigest()

  found, root = files(path), path if path.is_dir() else path.parent
  if found == [path]:
    return one(path)
  lines = sorted((file.relative_to(root).as_posix(), one(file)) for file in found)
  return hashlib.sha256(''.join(f'{sha}  {name}\n' for name, sha in lines).encode()).hexdigest()


def verify(path: Path, sha256: str | None, digest: Callable[[Path], str] = digest) -> str:
  """The digest of `path`.

  Raises:
    ValueError: it is not `sha256`; the message shows both.
  """
  if sha256 is not None and not re.fullmatch('[0-9a-fA-F]{64}', sha256):
    raise ValueError(f'A sha256 has 64 hex digits, got {sha256!r}.')
  got = digest(path)
  if sha256 is not None and got != sha256.lower():
    raise ValueError(
      f'Wrong sha256 of {path}:\n  wanted {sha256.lower()}\n  got    {got}\n'
      'Delete the file to fetch it anew, or correct the checksum in the config.'
    )
  return got


def sharded(
  path: Path, budget: Any, read: Callable[[Path, Any], tuple[dict, dict]]
) -> tuple[dict, dict]:
  """(arrays, metadata) of `path`, read file by file if it is the index of a sharded model.

  Raises:
    ValueError: the shards do not hold the names that the index promises, as a +/- list.
  """
  if not path.name.endswith('.index.json'):
    return read(path, budget)
  wanted = {name: normal(shard) for name, shard in read_json(path)['weight_map'].items()}
  arrays: dict[str, Any] = {}
  got: dict[str, str] = {}
  for shard in companions(path):
    found = read(path.parent / shard, budget)[0]
    arrays.update(found)
    got.update(dict.fromkeys(found, shard))
  if wanted != got:
    lines = ['the shards differ from their index (- promised, + found):']
    lines += [f'  - {name} in {shard}' for name, shard in sorted(wanted.items() - got.items())]
    lines += [f'  + {name} in {shard}' for name, shard in sorted(got.items() - wanted.items())]
    raise ValueError('\n'.join(lines))
  return arrays, {}
