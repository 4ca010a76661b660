"""TensorFlow's checkpoints without TensorFlow: the TensorBundle format (tensorflow/core/util/
tensor_bundle), an index table and raw shards.

PREFIX.index is a table of LevelDB (its doc/table_format.md): sorted names, each with a
BundleEntryProto; the empty name has the BundleHeaderProto. PREFIX.data-00000-of-00001 has the
tensors' bytes. Blocks and tensors have masked CRC-32C checksums, all of which are held against.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tlx.sources._budget import Budget, brief

_MAGIC, _FOOTER = 0xDB4775248B80FB57, 48
_TRAILER = 5  # bytes after a block: how it is compressed, and its checksum
_STRING = 7
_FEW = 1 << 16  # bytes of which a checksum is made one after the other
_TYPES = {  # of tensorflow/core/framework/types.proto
  1: np.float32,
  2: np.float64,
  3: np.int32,
  4: np.uint8,
  5: np.int16,
  6: np.int8,
  8: np.complex64,
  9: np.int64,
  10: np.bool_,
  14: ml_dtypes.bfloat16,
  17: np.uint16,
  18: np.complex128,
  19: np.float16,
  22: np.uint32,
  23: np.uint64,
}


class _Entry(NamedTuple):
  dtype: int
  shape: tuple[int, ...]
  shard: int
  offset: int
  size: int
  checksum: int


def read(prefix: Path, budget: Budget) -> dict[str, np.ndarray]:
  """{name: array} of all tensors of numbers, as tf.train.load_checkpoint names them. Strings, which
  are no weights, are left out.

  Raises:
    ValueError: a file is missing, damaged or written in another way than little-endian and whole.
  """
  entries, num_shards = _index(prefix.with_name(f'{prefix.name}.index'), budget)
  shards: dict[int, Path] = {}
  found = {}
  for name, entry in entries.items():
    if entry.dtype == _STRING:
      continue
    if entry.dtype not in _TYPES:
      raise ValueError(f'{brief(name)} is of the type {entry.dtype}, which numpy lacks')
    dtype = np.dtype(_TYPES[entry.dtype])
    if budget.array(name, entry.shape, dtype.itemsize) != entry.size:
      raise ValueError(f'{brief(name)} has {entry.size} bytes, which is not what its shape says')
    if not 0 <= entry.shard < num_shards:
      raise ValueError(f'{brief(name)} is in shard {entry.shard} of {num_shards}')
    if entry.shard not in shards:
      ending = f'.data-{entry.shard:05d}-of-{num_shards:05d}'
      shards[entry.shard] = prefix.with_name(f'{prefix.name}{ending}')
      Budget.of(shards[entry.shard])  # a regular file
    with shards[entry.shard].open('rb') as stream:
      stream.seek(entry.offset)
      data = stream.read(entry.size)
    if len(data) != entry.size or _masked(data) != entry.checksum:
      raise ValueError(f'{brief(name)} is damaged: its checksum is another')
    found[name] = np.frombuffer(data, dtype).reshape(entry.shape)
  return found


def _index(path: Path, budget: Budget) -> tuple[dict[str, _Entry], int]:
  """({name: where its bytes are}, the number of shards)."""
  Budget.of(path)  # a regular file
  data = path.read_bytes()
  if len(data) < _FOOTER or struct.unpack('<Q', data[-8:])[0] != _MAGIC:
    raise ValueError(f'{path.name} is no index of a checkpoint, or is cut short')
  footer = data[-_FOOTER:-8]
  _, place = _handle(footer, 0)  # of a block of which nothing is needed
  (top, _) = _handle(footer, place)
  entries, num_shards = {}, 0
  for _, value in _block(data, top, budget):
    handle, _ = _handle(value, 0)
    for key, message in _block(data, handle, budget):
      fields = _fields(message, budget)
      if not key:
        if fields.get(2, [0])[-1]:
          raise ValueError('it is written in big-endian, which is not read')
        num_shards = fields.get(1, [0])[-1]
        continue
      name = key.decode()
      if 7 in fields:
        raise ValueError(f'{brief(name)} is divided into slices, which are not read')
      entries[name] = _Entry(
        fields.get(1, [0])[-1],
        _shape(fields.get(2, [b''])[-1], budget),
        fields.get(3, [0])[-1],
        fields.get(4, [0])[-1],
        fields.get(5, [0])[-1],
        fields.get(6, [0])[-1],
      )
  if num_shards < 1:
    raise ValueError('its index says of no shard')
  return entries, num_shards


def _block(data: bytes, handle: tuple[int, int], budget: Budget) -> Iterator[tuple[bytes, bytes]]:
  """The (key, value) pairs of a block of a table; a key has its first bytes from the one before."""
  offset, size = handle
  end = offset + size
  if end + _TRAILER > len(data):
    raise ValueError('a block of its index ends after the file')
  (checksum,) = struct.unpack('<I', data[end + 1 : end + _TRAILER])
  if data[end] or size < 4:
    raise ValueError('a block of its index is compressed or empty, which is not read')
  budget.take(size, 'a block of the index')  # as many blocks as there are entries may be this one
  if _masked(data[offset : end + 1]) != checksum:
    raise ValueError('a block of its index is damaged: its checksum is another')
  (num_restarts,) = struct.unpack('<I', data[end - 4 : end])
  place, stop, key = offset, end - 4 - 4 * num_restarts, b''
  while place < stop:
    budget.step('an entry of the index')
    shared, place = _varint(data, place)
    own, place = _varint(data, place)
    length, place = _varint(data, place)
    if shared > len(key) or place + own + length > stop:
      raise ValueError('an entry of its index ends after its block')
    budget.take(shared + own, 'a name of the index')
    key = key[:shared] + data[place : place + own]
    place += own
    yield key, data[place : place + length]
    place += length


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
  """((offset, size) of a block, the place after it)."""
  offset, place = _varint(data, place)
  size, place = _varint(data, place)
  return (offset, size), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
  """(a number of 7 bits a byte, the place after it)."""
  value = 0
  for shift in range(0, 70, 7):
    if place >= len(data):
      break
    byte = data[place]
    place += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value & (1 << 64) - 1, place
  raise ValueError('a number of its index has no end')


def _fields(message: bytes, budget: Budget) -> dict[int, list[Any]]:
  """{number of a field: its values} of a protocol buffer."""
  found: dict[int, list[Any]] = {}
  place = 0
  while place < len(message):
    budget.step('a field of the index')
    key, place = _varint(message, place)
    kind = key & 7
    value: Any
    if kind == 0:
      value, place = _varint(message, place)
    else:
      length = {1: 8, 5: 4}.get(kind, 0)
      if kind == 2:
        length, place = _varint(message, place)
      elif not length:
        raise ValueError('a field of its index is of no known kind')
      value = message[place : place + length]
      if len(value) != length:
        raise ValueError('a field of its index is cut short')
      place += length
      if kind != 2:
        value = int.from_bytes(value, 'little')
    found.setdefault(key >> 3, []).append(value)
  return found


def _shape(message: bytes, budget: Budget) -> tuple[int, ...]:
  """The sides of a TensorShapeProto."""
  sides = []
  for dimension in _fields(message, budget).get(2, []):
    sides.append(_fields(dimension, budget).get(1, [0])[-1])
  return tuple(sides)


def crc32c(data: bytes) -> int:
  """CRC-32C (Castagnoli; RFC 3720, appendix B.4), of much data that of many parts at a time.

  A checksum that starts at 0 and is not inverted is linear over GF(2): that of two parts is the
  first one's, moved over as many zero bytes as the second has, plus the second one's.

  >>> hex(crc32c(b'123456789'))
  '0xe3069283'
  """
  if len(data) < _FEW:
    crc = 0xFFFFFFFF
    for byte in data:
      crc = _BYTES[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
  values = np.frombuffer(data, np.uint8)
  num_parts = 1 << (len(values) >> 10).bit_length()
  length = -(-len(values) // num_parts)
  padded = np.zeros(num_parts * length, np.uint8)  # zeros in front change nothing
  padded[len(padded) - len(values) :] = values
  state = np.zeros(num_parts, np.uint32)
  for column in np.ascontiguousarray(padded.reshape(num_parts, length).T):
    state = _moved(state ^ column)
  over = _over_zeros(length)
  while len(state) > 1:
    state = _applied(over, state[::2]) ^ state[1::2]
    over = _applied(over, over)
  start = _applied(_over_zeros(len(values)), np.array([0xFFFFFFFF], np.uint32))
  return int(start[0] ^ state[0]) ^ 0xFFFFFFFF


def _table() -> np.ndarray:
  """uint32 [256]: each byte's checksum."""
  made = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    made = np.where(made & 1, np.uint32(0x82F63B78) ^ (made >> 1), made >> 1)
  return made


_TABLE = _table()
_BYTES = _TABLE.tolist()


def _moved(state: np.ndarray) -> np.ndarray:
  """States of a checksum, each over a zero byte."""
  return _TABLE[state & 255] ^ (state >> 8)


def _applied(matrix: np.ndarray, states: np.ndarray) -> np.ndarray:
  """States under a linear map, which is what it makes of each single bit, uint32 [32]."""
  made = np.zeros_like(states)
  for bit, column in enumerate(matrix):
    made ^= np.where(states >> np.uint32(bit) & 1, column, np.uint32(0))
  return made


def _over_zeros(count: int) -> np.ndarray:
  """The linear map over so many zero bytes."""
  made = np.uint32(1) << np.arange(32, dtype=np.uint32)
  power = _moved(made)
  while count:
    if count & 1:
      made = _applied(power, made)
    power = _applied(power, power)
    count >>= 1
  return made


def _masked(data: bytes) -> int:
  """The checksum as TensorFlow and LevelDB store it."""
  found = crc32c(data)
  return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF
