"""hf:OWNER/REPO[/file][@revision] through huggingface_hub (extra `hf`) and its cache."""

import re
from pathlib import Path

from tlx.sources._files import BESIDE, companions, inside, need

# What a repository without a named file is taken to mean, the first that is there.
_USUAL = (
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
  'flax_model.msgpack',
)


def find(rest: str) -> tuple[Path, dict]:
  """(the file in the hub's cache, package, revision (the commit) and the licence that its model
  card declares).

  Raises:
    ValueError: another form, no such file, or not in the cache while offline.
  """
  name, _, revision = rest.partition('@')
  found = re.fullmatch(r'([\w.-]+/[\w.-]+)(?:/(.+))?', name)
  if not found:
    raise ValueError(
      f'hf:{rest}: wanted hf:OWNER/REPO, hf:OWNER/REPO/file or either with @revision.'
    )
  hub = need('huggingface_hub', 'hf')

  def get(file: str) -> Path | None:
    try:
      return Path(hub.hf_hub_download(found[1], file, revision=revision or None))
    except hub.errors.EntryNotFoundError:
      return None
    except (OSError, ValueError) as error:
      raise ValueError(f'hf:{rest}: {error}') from error

  files = [inside(found[2])] if found[2] else _USUAL
  path = next((path for path in map(get, files) if path), None)
  if path is None:
    raise ValueError(
      f'hf:{rest}: found none of {", ".join(files)} in the repository (or in the cache, if '
      'offline).'
    )
  for shard in companions(path):
    if get((Path(files[0] if found[2] else path.name).parent / shard).as_posix()) is None:
      raise ValueError(f'hf:{rest}: {path.name} needs {shard}, which is not there.')
  for beside in BESIDE:
    get((Path(files[0] if found[2] else path.name).parent / beside).as_posix())
  card = get('README.md')
  licence = re.search(r'(?m)^license:\s*(\S+)', card.read_text(errors='replace')) if card else None
  commit = re.search(r'/snapshots/([0-9a-f]{40})/', path.as_posix())
  return path, {
    'package': found[1],
    'revision': commit[1] if commit else revision,
    'licence': licence[1] if licence else None,
  }
