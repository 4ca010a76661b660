"""torchhub:FILE or torchhub:https://..., weights of torchvision and PyTorch Hub.

A bare file name lies where torchvision keeps its weights. Torch's own cache is used first, and the
eight or more hex digits that these names end in are checked, both as
`torch.hub.load_state_dict_from_url` does.
"""

import hashlib
import os
import re
from pathlib import Path

from tlx.sources._download import download

_HOME = 'https://download.pytorch.org/models/'


def find(rest: str) -> tuple[Path, dict]:
  """(the file, {}).

  Raises:
    ValueError: it cannot be had, or its sha256 does not begin as its name says.
  """
  if rest.rpartition('/')[2] in ('', '.', '..'):
    raise ValueError(f'torchhub:{rest}: wanted torchhub:FILE or torchhub:https://HOST/.../FILE.')
  url = rest if rest.startswith('https://') else _HOME + rest
  default = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'torch'
  home = Path(os.environ.get('TORCH_HOME') or default).expanduser()
  path = home / 'hub' / 'checkpoints' / url.rpartition('/')[2]
  if not path.is_file():
    path = download(url)
  if found := re.search(r'-([0-9a-f]{8,64})\.', path.name):
    with path.open('rb') as stream:
      got = hashlib.file_digest(stream, 'sha256').hexdigest()
    if not got.startswith(found[1]):
      raise ValueError(
        f'Wrong sha256 of {path}:\n  wanted {found[1]}...\n  got    {got}\n'
        'Delete the file to fetch it anew.'
      )
  return path, {}
