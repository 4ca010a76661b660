"""What a study costs by the number of runs, examples, devices and parameters: a table and a figure.

  python -m benchmarks.scaling --data=PATH             # PATH/{train,test}/<class>/<image>
  python -m benchmarks.scaling --data=PATH --quick     # the ends of every curve

35 studies, 6 minutes.
Every point is a ViT study in a process of its own that runs it twice, each time from an empty
folder; the second is what is shown: nothing is compiled or decoded, all is computed and written.
Devices are virtual ones of the CPU (XLA_FLAGS), so they can only show what more of them cost on the
same cores.
"""

import argparse
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import matplotlib
import numpy as np

from benchmarks import models

matplotlib.use('Agg')
import matplotlib.pyplot as plt

COLOURS = {'probe': '#0072b2', 'last_2': '#d55e00', 'full': '#009e73'}
LABELS = {'probe': 'linear probe', 'last_2': 'last 2 blocks', 'full': 'everything'}


class Point(NamedTuple):
  """One study."""

  panel: str
  x: int
  method: str
  runs: int = 1
  shots: int = 20
  steps: int = 30
  devices: int = 0  # 0: one a core
  dim: int = 192


def points(num_shots: list[int]) -> list[Point]:
  """All studies, panel by panel; the examples vary with 20 epochs of each number."""
  two, three = ('probe', 'last_2'), ('probe', 'last_2', 'full')
  made = []
  for method, runs in itertools.product(two, (1, 2, 4, 8, 16)):
    made.append(Point('runs', runs, method, runs=runs))
  for method, shots in itertools.product(two, num_shots):
    steps = 20 * 10 * shots // 32
    made.append(Point('examples', 10 * shots, method, shots=shots, steps=steps))
  for method, devices in itertools.product(two, (1, 2, 4, 8)):
    made.append(Point('devices', devices, method, runs=8, devices=devices))
  for method, dim in itertools.product(three, (96, 192, 384)):
    made.append(Point('parameters', 0, method, dim=dim, steps=10))
  return made


def main() -> None:
  """Runs every point, prints the table, draws the figure."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, help='PATH/{train,test}/<class>/<image>')
  parser.add_argument('--out', default='runs/scaling')
  parser.add_argument('--quick', action='store_true')
  args = parser.parse_args()
  folder = pathlib.Path(args.out).absolute()
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  wanted = points([10, 20, 40, 80])
  if args.quick:
    curves: dict[tuple[str, str], list[Point]] = {}
    for point in wanted:
      curves.setdefault((point.panel, point.method), []).append(point)
    wanted = []
    for curve in curves.values():
      curve.sort(key=lambda point: point.x or point.dim)
      wanted += [curve[0], curve[2]]
  rows = []
  print(
    '| panel | method | x | study, s | frozen stages, s | training, s | peak memory, MB | '
    'parameters |\n|---|---|--:|--:|--:|--:|--:|--:|'
  )
  for point in wanted:
    found = measure(point, args.data, folder)
    rows.append({**point._asdict(), **found, 'x': point.x or found['total_params']})
    print(
      '| {panel} | {method} | {x:,} | {second:.2f} | {feature_seconds:.2f} | {train_seconds:.2f} | '
      '{peak:,.0f} | {total_params:,} |'.format(**rows[-1], peak=found['peak_bytes'] / 1e6),
      flush=True,
    )
  (folder / 'scaling.json').write_text(json.dumps(rows))
  draw(rows, folder / 'scaling.png')
  print(f'\n{folder / "scaling.png"}')


def measure(point: Point, data: str, folder: pathlib.Path) -> dict[str, Any]:
  """The study of one point in a process of its own."""
  place = folder / '-'.join(map(str, point))
  place.mkdir()
  sizes = {'dim': point.dim, 'depth': 12, 'heads': point.dim // 48, 'patch': 16}
  peer = {'embed_dim': point.dim, 'depth': 12, 'num_heads': point.dim // 48}
  model = models.Model({'name': 'vit', **sizes}, 'vit_tiny_patch16_224', peer).of_size(64)
  images = models.pool(data, place / 'data', {'train': point.shots, 'val': 5, 'test': 5})
  methods = {point.method: models.phases(model, point.steps)[point.method]}
  models.settings(point.panel, model, images, place, methods, (point.shots,), point.runs)
  env = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(folder / 'xla')}
  if point.devices:
    env['XLA_FLAGS'] = (
      f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={point.devices}'
    )
  command = [
    sys.executable,
    '-m',
    'benchmarks.timed_study',
    place / 'settings.json',
    place / 'study',
  ]
  done = subprocess.run(
    command, cwd=models.REPO, env=env, check=True, capture_output=True, text=True
  )
  shutil.rmtree(place)
  return json.loads(done.stdout.splitlines()[-1])


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
  """A panel for each thing that grows; dotted, what proportional cost would be."""
  panels = {
    'runs': 'runs of one cohort',
    'examples': 'training images (20 epochs)',
    'devices': f'virtual devices on {os.cpu_count()} cores (8 runs)',
    'parameters': 'parameters of the network',
  }
  figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), constrained_layout=True)
  for axis, (panel, label) in zip(axes, panels.items()):
    for method, colour in COLOURS.items():
      line = sorted(
        (row['x'], row['second'])
        for row in rows
        if (row['panel'], row['method']) == (panel, method)
      )
      if not line:
        continue
      x, seconds = np.array(line).T
      axis.plot(x, seconds, 'o-', color=colour, label=LABELS[method])
      if panel != 'devices':
        axis.plot(x, seconds[-1] * x / x[-1], ':', color=colour, linewidth=1)
    axis.set(
      xscale='log',
      yscale='log',
      xlabel=label,
      ylabel='seconds of the study' if panel == 'runs' else '',
    )
    ticks = sorted({row['x'] for row in rows if row['panel'] == panel})
    names = [f'{tick:,}' for tick in ticks]
    if panel == 'parameters':
      names = [f'{tick / 1e6:.1f} M' for tick in ticks]
    axis.set_xticks(ticks, names)
    axis.tick_params(axis='x', which='minor', bottom=False, labelbottom=False)
    axis.grid(alpha=0.3)
    axis.set_title(panel)
  axes[-1].legend(frameon=False)
  figure.savefig(path, dpi=130)


if __name__ == '__main__':
  main()
