"""What a tracker is told of one run."""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath


class Run(NamedTuple):
  """A finished run.

  cell: its fields
  points: (step, what was measured there), rising
  test: what was measured at the last of them, of the test set; empty of a run that is not chosen
  """

  name: str
  cell: Mapping[str, Any]
  points: list[tuple[int, dict[str, float]]]
  test: dict[str, float]


def want(package: str, tracker: str) -> None:
  """Raises ValueError where a tracker's package is not installed."""
  if importlib.util.find_spec(package) is None:
    raise ValueError(f"--{tracker} wants {package}: pip install 'tlx-jax[{tracker}]'.")


def read(workdir: epath.Path, runs: list[str]) -> Iterator[Run]:
  """Of each run what metrics.jsonl says by steps, and its test columns."""
  for name in runs:
    folder = epath.Path(workdir) / 'runs' / name
    lines = (folder / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    result = json.loads((folder / 'result.json').read_text(encoding='utf-8'))
    points = []
    for line in map(json.loads, lines):
      step = line.pop('step')
      points.append((step, _numbers({_tag(tag): value for tag, value in line.items()})))
    test = {f'test/{tag}': value for tag, value in (result['test'] or {}).items()}
    yield Run(name, result['cell'], points, _numbers(test))


def _tag(name: str) -> str:
  """'val/accuracy' for 'val_accuracy', 'train/loss' for 'loss'."""
  return f'val/{name.removeprefix("val_")}' if name.startswith('val_') else f'train/{name}'


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
  """The numbers among some values; there is none where a run diverged."""
  return {tag: value for tag, value in values.items() if isinstance(value, (int, float))}
