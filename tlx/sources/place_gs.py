"""gs://BUCKET/file or folder, copied once into the cache by etils.epath."""

import tempfile
from pathlib import Path

from etils import epath

from tlx.sources._files import cache, companions, short


def find(rest: str) -> tuple[Path, dict]:
  """(the file or folder in the cache, {}).

  Raises:
    ValueError: nothing there, or no right to read it.
  """
  uri = f'gs:{rest}'
  remote = epath.Path(uri)
  path = cache() / 'gs' / short(uri) / remote.name
  try:
    if not path.exists():
      path.parent.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        _copy(remote, Path(scratch) / remote.name)
        for name in companions(Path(scratch) / remote.name):
          _copy(remote.parent / name, path.parent / name)
        (Path(scratch) / remote.name).replace(path)
  except ImportError as error:
    raise ValueError(
      f'{uri} cannot be read: {error}: pip install gcsfs. A file fetched elsewhere can be named by '
      'its path.'
    ) from error
  except OSError as error:
    raise ValueError(f'{uri} cannot be read: {error}') from error
  return path, {}


def _copy(remote: epath.Path, path: Path):
  path.parent.mkdir(parents=True, exist_ok=True)
  if remote.is_dir():
    path.mkdir(exist_ok=True)
    for child in remote.iterdir():
      _copy(child, path / child.name)
  else:
    remote.copy(path)
