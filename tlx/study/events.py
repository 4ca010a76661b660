"""TensorBoard's event files of finished runs, by tensorboardX: <workdir>/tensorboard/<run>."""

import importlib.util
import json
from collections.abc import Iterable

from etils import epath


def check() -> None:
  """Raises ValueError where the package that writes them is not installed."""
  if importlib.util.find_spec('tensorboardX') is None:
    raise ValueError("--tensorboard wants tensorboardX: pip install 'tlx-jax[tensorboard]'.")


def write(workdir: epath.Path, runs: Iterable[str]) -> None:
  """Writes what metrics.jsonl of each run says by steps, and its test columns at its last step.
  What was there of a run is replaced.
  """
  from tensorboardX import SummaryWriter

  for run in runs:
    folder = epath.Path(workdir) / 'tensorboard' / run
    if folder.exists():
      folder.rmtree()
    lines = (workdir / 'runs' / run / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    result = json.loads((workdir / 'runs' / run / 'result.json').read_text(encoding='utf-8'))
    step = 0
    with SummaryWriter(str(folder)) as writer:
      for line in map(json.loads, lines):
        step = line.pop('step')
        _add(writer, {_tag(name): value for name, value in line.items()}, step)
      test = result['test'] or {}
      _add(writer, {f'test/{name}': value for name, value in test.items()}, step)


def _tag(name: str) -> str:
  """'val/accuracy' for 'val_accuracy', 'train/loss' for 'loss'."""
  return f'val/{name.removeprefix("val_")}' if name.startswith('val_') else f'train/{name}'


def _add(writer, values, step: int) -> None:
  """Adds the numbers among these values; there is none where a run diverged."""
  for tag, value in values.items():
    if isinstance(value, (int, float)):
      writer.add_scalar(tag, value, step)
