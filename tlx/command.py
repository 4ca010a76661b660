"""The console script: `tlx study ...` is `python -m experiments.study ...` where the package is
installed, with experiments/ as tlx.experiments.
"""

import atexit
import gc
import importlib.util
import os
import pathlib
import pkgutil
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any

INSTALLED, CHECKOUT = 'tlx.experiments', 'experiments'


def main() -> None:
  """Runs the command that the first argument names, or lists them."""
  room = _room()
  names = commands()
  if len(sys.argv) < 2 or sys.argv[1] not in names:
    asked = sys.argv[1] if len(sys.argv) > 1 else '--help'
    print(f'tlx COMMAND [--help]: {", ".join(names)}')
    sys.exit(0 if asked in ('-h', '--help') else f'Error: there is no command {asked!r}.')
  name = sys.argv.pop(1)
  runpy.run_module(f'{room}.{name}', run_name='__main__', alter_sys=True)


def commands() -> list[str]:
  """The names of the commands there are."""
  spec = importlib.util.find_spec(_room())
  places = spec.submodule_search_locations if spec else None
  return sorted(module.name for module in pkgutil.iter_modules(places or ()))


def spelled(name: str) -> str:
  """How a command is called: 'tlx study', or 'python -m experiments.study' in a checkout."""
  return f'tlx {name}' if _room() == INSTALLED else f'python -m {CHECKOUT}.{name}'


def run_command(main: Callable, **options: Any) -> None:
  """Runs the `main` of a command as absl does. Ctrl-C is a line and status 130, without the end of
  a process in order, which may crash under a program that still runs. A reader that went, as of
  `| head`, is no error: status 141, as the shell has it.
  """
  from absl import app

  try:
    try:
      app.run(main, **options)
    finally:
      sys.stdout.flush()
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to say
    sys.exit(128 + signal.SIGPIPE)
  except KeyboardInterrupt:
    print('Interrupted.', file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGINT)


def new_file(out: str) -> pathlib.Path:
  """The file that --out names, its folder made where there is none: to be asked for before the work
  whose result is written there.

  Raises:
    ValueError: it cannot be written.
  """
  path = pathlib.Path(out)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(f'--out={out} cannot be written: {error}') from None
  if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
    raise ValueError(f'--out={out} is a folder, or cannot be written. Name another file.')
  return path


def spare_collections() -> None:
  """Lets a command that ends soon not look for cycles of references, neither while it imports and
  traces nor in all modules at its end: a fifth of the CPU seconds of a dry run. One that goes on
  for long calls `collect_again` where its work begins.
  """
  gc.disable()
  atexit.register(gc.freeze)


def collect_again() -> None:
  """Cycles are looked for from here on, but not among what there is: modules and what they made."""
  if not gc.isenabled():
    gc.freeze()
    gc.enable()


def _room() -> str:
  return INSTALLED if importlib.util.find_spec(INSTALLED) else CHECKOUT
