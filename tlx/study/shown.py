"""What the report shows of test examples, put into the study's folder: the report has no data."""

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from tlx import checkpoint, datasets
from tlx.study import pair as pairs
from tlx.study.cells import base
from tlx.study.config import form_module

SIDE = 64  # pixels of a thumbnail's longer side at most
WITH_BOXES = 400  # of an image on which boxes are drawn
LOSSLESS = 32  # up to this side a thumbnail is a PNG, beyond it a JPEG
TEXT_BYTES = 500  # of UTF-8 of a text


def write(study: Mapping[str, Any], workdir: epath.Path) -> None:
  """Writes examples/<source>-<target>.json: {'records': {id: a text, a pair of them, or
  {'png' or 'jpeg': base64}}} of the examples that the report wants to show, where it is not there
  yet.

  Raises:
    ValueError: what the runs left cannot be read.
  """
  from tlx.report import examples, folder  # pandas takes a second that other uses do not need

  wanted = examples.wanted(folder.load(os.fspath(workdir)))
  for (source, target), ids in wanted.items():
    of_source = next((name for name in study['sources'] if base(name) == source), '')
    path = workdir / 'examples' / f'{source}-{target}.json'
    if not of_source or target not in study['targets'] or _has(path, ids):
      continue
    records = pairs.test_records(study, study['targets'][target], study['sources'][of_source])
    rows = {name: row for row, name in enumerate(records.ids)}
    there = [name for name in ids if name in rows]
    found = records.read([rows[name] for name in there])
    boxes = form_module(study['sources'][of_source]).KIND == 'annotated image'
    side = WITH_BOXES if boxes else SIDE
    kept = {name: content(record, side) for name, record in zip(there, found)}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(path, checkpoint.sealed({'records': kept}))


def _has(path: epath.Path, ids: list[str]) -> bool:
  """Whether the records of these examples are there, and no others."""
  try:
    return set(json.loads(path.read_text())['records']) == set(ids)
  except (OSError, ValueError, KeyError, TypeError):
    return False


def of_records(new: datasets.Unlabelled, rows: Sequence[int]) -> dict[int, Any]:
  """{row: what a page shows of it} of some new examples."""
  records = [new.records[row] for row in rows]
  if new.kind == 'image' and records:
    pictures, _ = datasets.decoded(records, 2 * SIDE, 3, fit='pad')
    records = list(pictures)
  return {row: content(record) for row, record in zip(rows, records)}


def content(record: Any, side: int = SIDE) -> Any:
  """What a page shows of an example: a text, its parts, or {'png' or 'jpeg': base64}."""
  if isinstance(record, np.ndarray):
    return _thumbnail(record, side)
  if isinstance(record, str):
    return _cut(record)
  return [_cut(str(part)) for part in record]


def _thumbnail(pixels: np.ndarray, side: int) -> dict[str, str]:
  """{'png' or 'jpeg': base64} of uint8 [H, W, C]."""
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  image.thumbnail((side, side))
  kind = 'png' if max(image.size) <= LOSSLESS else 'jpeg'
  file = io.BytesIO()
  image.save(file, kind, optimize=True)
  return {kind: base64.b64encode(file.getvalue()).decode()}


def _cut(text: str) -> str:
  whole = text.encode()
  if len(whole) <= TEXT_BYTES:
    return text
  return whole[:TEXT_BYTES].decode(errors='ignore') + '…'
