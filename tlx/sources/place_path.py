"""A file or folder on this machine; '~' is the home folder."""

from pathlib import Path

from tlx.sources._budget import brief


def find(rest: str) -> tuple[Path, dict]:
  """(the path, {}).

  Raises:
    ValueError: nothing there, or '~' names nobody.
  """
  try:
    path = Path(rest).expanduser()
  except RuntimeError as error:
    raise ValueError(
      f'{brief(rest)!r} starts with the home folder of a user that is not there. '
      'Give the whole path.'
    ) from error
  if not path.exists():
    raise ValueError(f'No such file or folder: {brief(str(path))!r}.')
  return path, {}
