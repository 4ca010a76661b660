"""One file by https, whole or not at all."""

import http.client
import shutil
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path, PurePosixPath

from tlx.sources._budget import brief
from tlx.sources._files import cache, companions, short


def download(url: str) -> Path:
  """The file of `url` in the cache, fetched unless it is there, with the shards of an index.

  Raises:
    ValueError: it cannot be had, comes short, or the server leads away from https.
  """
  try:
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
  except ValueError as error:
    raise ValueError(f'{brief(url)} is no URL: {error}') from error
  if not url.startswith('https://') or name in ('', '..'):
    raise ValueError(f'{brief(url)}: wanted https://HOST/.../FILE.')
  path = cache() / 'https' / short(url) / name
  _one(url, path)
  for companion in companions(path):
    _one(urllib.parse.urljoin(url, urllib.parse.quote(companion)), path.parent / companion)
  return path


def _one(url: str, path: Path):
  """Puts the bytes of `url` at `path` unless something is there; a part of them never is."""
  if path.exists():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
    part = Path(scratch) / 'part'
    try:
      with urllib.request.urlopen(url, timeout=60) as response, part.open('wb') as out:
        if not response.url.startswith('https:'):
          raise ValueError(f'{url} leads to {response.url}, which is not https.')
        shutil.copyfileobj(response, out)
        wanted = response.headers.get('Content-Length')
    except (OSError, http.client.HTTPException, UnicodeError) as error:
      raise ValueError(
        f'{brief(url)} cannot be downloaded: {error}. A file fetched elsewhere can be named by its '
        'path.'
      ) from error
    if wanted is not None and str(part.stat().st_size) != wanted.strip():
      raise ValueError(f'{url} came short: {part.stat().st_size} of {wanted} bytes. Try again.')
    part.replace(path)
