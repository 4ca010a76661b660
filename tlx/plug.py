"""Plug-ins by file name: `plug('freezing', 'head')` is the module tlx/freezing/head.py. There is
nothing to register.
"""

import difflib
import importlib
import pathlib
import types


def available(room: str) -> list[str]:
  """The names of the plug-ins in a room, sorted."""
  return sorted(file.stem for file in (pathlib.Path(__file__).parent / room).glob('[!_]*.py'))


def closest(name: str, names) -> str:
  """' Did you mean 'lora'?' for a near miss, else ''."""
  near = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
  return f' Did you mean {near[0]!r}?' if near else ''


def plug(room: str, name: str) -> types.ModuleType:
  """The module of a plug-in.

  Raises:
    ValueError: no such file in the room; the message lists those there are.
  """
  names = available(room)
  if name not in names:
    raise ValueError(f'Unknown {room} {name!r}; have {", ".join(names)}.{closest(name, names)}')
  return importlib.import_module(f'tlx.{room}.{name}')
