"""kaggle:OWNER/MODEL/FRAMEWORK/VARIATION/VERSION[/file] through kagglehub (extra `kaggle`) and its
cache. TensorFlow Hub's models are there.
"""

import re
from pathlib import Path

from tlx.sources._files import files, inside, need, pick

_NAME = re.compile(r'((?:[\w.-]+/){4})(\d+)(?:/(.+))?')


def find(rest: str) -> tuple[Path, dict]:
  """(the folder of the model or a file in it, package and version).

  Raises:
    ValueError: another form, or it cannot be had.
  """
  named = _NAME.fullmatch(rest)
  if not named:
    raise ValueError(
      f'kaggle:{rest}: wanted kaggle:OWNER/MODEL/FRAMEWORK/VARIATION/VERSION[/file].'
    )
  model, version, member = inside(named[1].rstrip('/')), named[2], named[3]
  hub = need('kagglehub', 'kaggle')
  folder = Path(hub.model_download(f'{model}/{version}'))
  if member:
    names = [file.relative_to(folder).as_posix() for file in files(folder)]
    folder = folder / pick(names, inside(member), f'kaggle:{rest}')
  return folder, {'package': model, 'version': version}
