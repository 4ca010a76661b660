"""GGUF (llama.cpp), dequantised to float32 by the package gguf (extra `gguf`).

The header is read here (layout: ggml/docs/gguf.md), with every count checked against the size of
the file; gguf's own reader would follow a header that lies.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tlx.sources._budget import Budget
from tlx.sources._files import need

_SCALARS = {
  0: 'B',
  1: 'b',
  2: 'H',
  3: 'h',
  4: 'I',
  5: 'i',
  6: 'f',
  7: '?',
  10: 'Q',
  11: 'q',
  12: 'd',
}
_STRING, _ARRAY = 8, 9


def matches(path: Path) -> bool:
  return path.suffix == '.gguf'


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({'blk.0.attn_q.weight': array [out, in]}, {'llama.block_count': 30, ...}).

  Quantised and half-precision tensors become float32.
  """
  gguf, budget = need('gguf', 'gguf'), Budget.of(path)
  with path.open('rb') as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
    header = _Header(data)
    if data[:4] != b'GGUF' or header.number('I', skip=4) not in (2, 3):
      raise ValueError('it is not GGUF of version 2 or 3, little-endian')
    num_tensors, num_values = header.number('Q'), header.number('Q')
    metadata: dict[str, Any] = {}
    for _ in range(num_values):
      key = header.string()
      metadata[key] = header.value(header.number('I'))
    entries = []
    for _ in range(num_tensors):
      name, rank = header.string(), header.number('I')
      entries.append(
        (name, header.numbers('Q', rank)[::-1], header.number('I'), header.number('Q'))
      )
    alignment = metadata.get('general.alignment', 32)
    start = -(-header.position // alignment) * alignment
    return _tensors(gguf, data, start, entries, budget), metadata


def _tensors(
  gguf, data: mmap.mmap, start: int, entries: list, budget: Budget
) -> dict[str, np.ndarray]:
  arrays: dict[str, np.ndarray] = {}
  free = 0  # where the next tensor may begin: none shares bytes with another
  for name, shape, code, offset in sorted(entries, key=_offset):
    budget.step(name)
    kind = gguf.GGMLQuantizationType(code)
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    size, row = budget.array(name, shape, 4) // 4, shape[-1] if shape else 1
    end = start + offset + size // per_block * block_bytes
    if name in arrays or row % per_block or end > len(data) or offset < free:
      raise ValueError(
        f'{name}: {kind.name} {shape} ends at byte {end} of {len(data)}, has broken rows, is there '
        'twice, or shares bytes with another'
      )
    free = end - start
    raw = np.frombuffer(data[start + offset : end], np.uint8).reshape(
      *shape[:-1], row // per_block * block_bytes
    )
    plain = kind.name in ('I8', 'I16', 'I32', 'I64', 'F64')
    values = (
      raw.view(f'{kind.name[0].lower()}{block_bytes}') if plain else gguf.dequantize(raw, kind)
    )
    arrays[name] = values.reshape(shape)
  return arrays


def _offset(entry: tuple) -> tuple[int, int]:
  """Where a tensor's bytes begin; one without any goes before one that begins there as well."""
  _, shape, _, offset = entry
  return offset, 0 not in shape


class _Header:
  """Reads forward through the header; struct refuses counts that the rest cannot hold."""

  def __init__(self, data: mmap.mmap):
    self.data, self.position = data, 0

  def numbers(self, code: str, count: int) -> list:
    values = struct.unpack_from(form := f'<{count}{code}', self.data, self.position)
    self.position += struct.calcsize(form)
    return list(values)

  def number(self, code: str, skip: int = 0) -> Any:
    self.position += skip
    return self.numbers(code, 1)[0]

  def string(self) -> str:
    return self.numbers('s', self.number('Q'))[0].decode('utf-8', 'replace')

  def value(self, kind: int, depth: int = 0) -> Any:
    if kind == _STRING:
      return self.string()
    if kind != _ARRAY:
      return self.number(_SCALARS[kind])
    inner, count = self.number('I'), self.number('Q')
    if inner in _SCALARS:
      return self.numbers(_SCALARS[inner], count)
    if count > len(self.data) - self.position or depth > 8:
      raise ValueError(
        f'the header has an array of {count} values at byte {self.position}, nested {depth} deep'
      )
    return [self.value(inner, depth + 1) for _ in range(count)]
