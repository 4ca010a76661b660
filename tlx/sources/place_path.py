"""A file or folder on this machine; '~' is the home folder."""
from pathlib import Path


def find(rest: str) -> tuple[Path, dict]:
  """(the path, {}).

  Raises:
    ValueError: nothing there.
  """
  path = Path(rest).expanduser()
  if not path.exists():
    raise ValueError(f'No such file or folder: {str(path)!r}.')
  return path, {}
