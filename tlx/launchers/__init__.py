"""Where the processes of one study are started: a file for each kind of place.

A launcher has `TAKES`, the fields of `Needs` that it heeds, and `start(commands, folder, needs)`,
which starts a process for each command line and returns their tasks. Processes find each other by
the study's folder, which all of them have to reach under one path, as well as this checkout.
"""

from typing import NamedTuple, Protocol


class Needs(NamedTuple):
  """What one process is given; 0 and '' are the launcher's default.

  minutes: after which the place may end it; it then goes on in the queue
  """

  partition: str = ''
  minutes: int = 0
  gpus: int = 0
  cpus: int = 0


class Task(Protocol):
  """A process that was started somewhere."""

  name: str  # 'Process 4711'

  def poll(self) -> int | None:
    """Its exit code once it has ended."""

  def stop(self, number: int) -> None:
    """Asks it to save and end, with a signal's number where the place passes that on."""
