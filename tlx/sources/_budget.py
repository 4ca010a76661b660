"""What reading a source may cost, counted over the source as a whole: one place for every format.

A few bytes can ask for any amount of memory or time: by compression, by sharing, by a shape, by
links. So whatever a format hands out, unpacks or visits is taken from one budget first, which grows
with the bytes that the source has.
"""

import math
import zipfile
from pathlib import Path
from typing import Any

from tlx.sources._files import size

_FREE_BYTES = 1 << 26
_BYTES_PER_BYTE = 64  # 2-bit weights as float32 are 16 bytes for each of theirs
_FREE_STEPS, _STEPS_PER_BYTE, _MOST_STEPS = 10_000, 1, 1_000_000
_DEEPEST, _MOST_AXES = 32, 32


class Budget:
  """What is left of 64 MiB and 64 bytes for each byte of a source, and of its steps.

  A step is a node of a tree or an entry of a header: 10,000 and one for each byte of the source,
  never more than a million.
  """

  def __init__(self, num_bytes: int):
    self.num_bytes = num_bytes
    self.bytes_left = _FREE_BYTES + _BYTES_PER_BYTE * num_bytes
    self.steps_left = min(_MOST_STEPS, _FREE_STEPS + _STEPS_PER_BYTE * num_bytes)

  @classmethod
  def of(cls, *paths: Path) -> 'Budget':
    """That of all files of the sources at `paths`.

    Raises:
      ValueError: one of them is missing, or is neither a regular file nor a folder.
    """
    return cls(sum(map(size, paths)))

  def take(self, count: int, what: str) -> None:
    """Takes `count` bytes for `what`.

    Raises:
      ValueError: so many are not left.
    """
    self.bytes_left -= count
    if count < 0 or self.bytes_left < 0:
      raise ValueError(
        f'{brief(what)} takes {count} bytes, and with it all takes more than {_BYTES_PER_BYTE} '
        f'times the {self.num_bytes} bytes of the source; refused'
      )

  def step(self, what: str = 'a node', count: int = 1, depth: int = 0) -> None:
    """Takes `count` steps for `what`, which lies `depth` levels deep.

    Raises:
      ValueError: so many are not left, or it lies too deep.
    """
    self.steps_left -= count
    if depth > _DEEPEST:
      raise ValueError(f'{brief(what)}: containers nest deeper than {_DEEPEST} levels; refused')
    if self.steps_left < 0:
      raise ValueError(
        f'{brief(what)}: there are more nodes or entries than the {self.num_bytes} bytes of the '
        'source can hold; refused'
      )

  def array(self, name: str, shape: Any, itemsize: int) -> int:
    """The bytes of an array, taken.

    Raises:
      ValueError: `shape` is none, or there are not so many bytes left.
    """
    axes = list(shape)
    whole = all(type(n) is int and 0 <= n < 1 << 63 for n in axes)
    if not whole or len(axes) > _MOST_AXES or itemsize < 1:
      raise ValueError(
        f'{brief(name)} has no shape that an array can have, or items of {itemsize} bytes'
      )
    num_bytes = math.prod(axes) * itemsize
    self.take(num_bytes, f'{brief(name)} {tuple(axes)}')
    return num_bytes

  def members(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """{name: member} of the files in a zip archive, whose unpacked bytes are all taken.

    Raises:
      ValueError: there are not so many left, two have one name, or one is packed so that its size
        cannot be held to.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
      if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
          f'{brief(info.filename)} is compressed by another method than deflate; refused'
        )
      if info.filename in found:
        raise ValueError(f'{brief(info.filename)} is there twice')
      self.step(info.filename)
      self.take(info.file_size, info.filename)
      if not info.is_dir():
        found[info.filename] = info
    return found


def brief(text: str) -> str:
  """`text`, cut short for a message."""
  return text if len(text) <= 120 else f'{text[:100]}... ({len(text)} characters)'
