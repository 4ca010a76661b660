"""Prints how far our networks are from the official implementations, a line an output of a case.

    python -m experiments.parity [--parity_dir=DIR] [--case=NAME ...]

DIR holds <case>.npz, <case>.safetensors and meta.json of other weights, inputs and sizes;
docs/backbones.md says what is in them. Public weights that are not on this machine are a line with
the command that fetches them. Ends with 1 where an error exceeds its limit.
"""

import pathlib
import sys

from absl import app, flags, logging

from tlx import parity
from tlx.command import run_command
from tlx.parity import cases

_FOLDER = flags.DEFINE_string('parity_dir', str(cases.FOLDER), 'The folder of the cases.')
_CASES = flags.DEFINE_multi_string('case', [], 'Only this case; may be repeated.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; the folder goes into --parity_dir.')
  folder = pathlib.Path(_FOLDER.value)
  names = cases.names(folder)
  if not names or set(_CASES.value) - set(names):
    sys.exit(
      f'Error: the cases in {folder} are {", ".join(names) or "none"}; wanted '
      f'{", ".join(_CASES.value) or "at least one"}.'
    )
  logging.set_verbosity(logging.WARNING)  # JAX looks for accelerators aloud
  print(
    'Errors are max |ours - official| / max |official|; of tokens and texts the share that '
    'differs.\n\n'
    f'{"case":20} {"backbone":18} {"parameters":>11} {"output":13} '
    f'{"float32":>9} {"limit":>8} {"bfloat16":>9} {"limit":>8}  ok'
  )
  failed = sum(show(name, folder).count(False) for name in _CASES.value or names)
  print(f'\n{failed} beyond their limit.')
  sys.exit(1 if failed else 0)


def show(name, folder):
  """Prints the lines of a case and gives whether each is within its limits."""
  if commands := cases.to_fetch(name):
    print(f'{name:20} not here: {"; ".join(commands)}', flush=True)
    return []
  try:
    rows = parity.compare(cases.read(name, folder))
  except ImportError as error:
    print(f'{name:20} {error}', flush=True)
    return []
  except ValueError as error:
    print(f'{name:20} {error}', flush=True)
    return [False]
  for row in rows:
    numbers = []
    for dtype in parity.LIMITS:
      known = dtype in row.errors
      numbers.append(f'{row.errors[dtype]:9.1e} {row.limits[dtype]:8.1e}' if known else ' ' * 18)
    print(
      f'{name:20} {row.backbone:18} {row.num_params:11,} {row.output:13} {" ".join(numbers)}  '
      f'{"yes" if row.ok else "NO"}',
      flush=True,
    )
  return [row.ok for row in rows]


if __name__ == '__main__':
  run_command(main)
