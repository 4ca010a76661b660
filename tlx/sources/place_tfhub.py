"""tfhub:OWNER/MODEL/VERSION, a SavedModel of TensorFlow Hub, through tensorflow_hub (extra
`tensorflow`) and its cache.
"""

from pathlib import Path

from tlx.sources._files import need


def find(rest: str) -> tuple[Path, dict]:
  """(the folder of the SavedModel, {}).

  Raises:
    ValueError: it cannot be had.
  """
  hub = need('tensorflow_hub', 'tensorflow')
  try:
    return Path(hub.resolve(f'https://tfhub.dev/{rest}')), {}
  except (OSError, ValueError, RuntimeError) as error:
    raise ValueError(f'tfhub:{rest}: {error}') from error
