"""A whole study against the script one writes with timm and torch: 4 methods x 5 seeds x 3 sizes on
two backbones.

  python -m benchmarks.journey --data=PATH            # PATH/{train,test}/<class>/<image>
  python -m benchmarks.journey --data=PATH --quick    # 2 seeds, 2 sizes, fewer test images
  python -m benchmarks.journey --data=PATH --models resnet18 --image_size=96 --shots 5 20 --out=DIR

tlx runs from its command line in a process of its own with an empty study folder, first with an
empty compilation cache (cold), at the end again with what the first run left in that cache (warm);
between them the script (peer_journey.py). Both sides see the same files, subsets, pretrained
weights, preprocessing, optimizer, rates, batch size and steps, and look at the validation part
after every phase and at the test part after every run. Needs torch and timm beside tlx.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks import models
from tlx import report
from tlx.report import statistics

METHODS = ('probe', 'last_2', 'full', 'lp_ft')
ROWS = ('set-up', *METHODS, 'report', 'total')


def main() -> None:
  """Prepares, runs, prints."""
  args = parse()
  for name in args.models:
    folder = pathlib.Path(args.out, name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = prepare(args, name, folder)
    seconds = {'cold': run_tlx(folder, 'cold'), 'torch': run_peer(folder)}
    seconds['start'] = start_peer(folder, seconds['torch'])
    seconds['warm'] = run_tlx(folder, 'warm')
    seconds['probe alone, cold'], seconds['probe alone, warm'] = (
      run_tlx(folder, f'probe_{kind}', kind) for kind in ('cold', 'warm')
    )
    text = '\n\n'.join(
      [describe(settings), times(seconds, settings), accuracies(folder, settings), costs(folder)]
    )
    (folder / 'table.md').write_text(text + '\n')
    print(f'{text}\n', flush=True)


def parse() -> argparse.Namespace:
  """The arguments."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, help='PATH/{train,test}/<class>/<image>')
  parser.add_argument('--out', default='runs/journey')
  parser.add_argument(
    '--models', nargs='+', default=['vit_ti', 'efficientnet_lite0'], choices=models.MODELS
  )
  parser.add_argument('--image_size', type=int, default=64)
  parser.add_argument('--shots', nargs='+', type=int, default=[5, 10, 20])
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--epochs', type=int, default=20)
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument(
    '--test', type=int, default=20, help='test images a class; half as many for validation'
  )
  parser.add_argument('--quick', action='store_true', help='2 seeds, 2 sizes')
  args = parser.parse_args()
  if args.quick:
    args.seeds, args.shots, args.test = 2, args.shots[:2], 10
  return args


def prepare(args: argparse.Namespace, name: str, folder: pathlib.Path) -> dict[str, Any]:
  """The settings both sides read; `probe.json` has the probe alone."""
  model = models.MODELS[name].of_size(args.image_size)
  counts = {'train': max(args.shots), 'val': max(1, args.test // 2), 'test': args.test}
  data = models.pool(args.data, folder.absolute() / 'data', counts)
  num_train = sum(1 for _ in data.glob('train/*/*'))
  methods = models.phases(model, math.ceil(args.epochs * num_train / args.batch_size))
  settings = models.settings(
    name, model, data, folder.absolute(), methods, args.shots, args.seeds, args.batch_size
  )
  (folder / 'probe.json').write_text(
    json.dumps(settings | {'methods': {'probe': settings['methods']['probe']}})
  )
  return settings


def run_tlx(folder: pathlib.Path, kind: str, cache: str = '') -> dict[str, float]:
  """Seconds of the parts of a study, from start to end of its process, by the times of the files it
  writes.
  """
  workdir, settings = folder / kind, 'probe' if cache else 'settings'
  if cache == 'cold':
    shutil.rmtree(folder / 'xla_probe', ignore_errors=True)
  command = [
    sys.executable,
    '-m',
    'experiments.study',
    f'--config=benchmarks/journey_study.py:{(folder / settings).absolute()}.json',
    f'--workdir={workdir.absolute()}',
  ]
  env = os.environ | {
    'JAX_COMPILATION_CACHE_DIR': str((folder / ('xla_probe' if cache else 'xla')).absolute())
  }
  began = time.time()
  done = subprocess.run(command, cwd=models.REPO, env=env, capture_output=True, text=True)
  ended = time.time()
  if done.returncode:
    raise RuntimeError(f'{" ".join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}')
  stamps = {}
  for method in METHODS[:1] if cache else METHODS:
    files = workdir.glob(f'runs/source-images-{method}-*/result.json')
    stamps[method] = max(file.stat().st_mtime for file in files)
  stamps |= {
    'set-up': (workdir / 'sources' / 'source' / 'result.json').stat().st_mtime,
    'report': ended,
  }
  stamps = dict(sorted(stamps.items(), key=lambda item: item[1]))
  times = np.diff([began, *stamps.values()])
  return dict(zip(stamps, times.tolist())) | {'total': ended - began}


def run_peer(folder: pathlib.Path) -> dict[str, float]:
  """Seconds of the same parts of the script; it has no report."""
  began = time.time()
  subprocess.run(
    [
      sys.executable,
      '-m',
      'benchmarks.peer_journey',
      folder / 'settings.json',
      folder / 'torch.jsonl',
    ],
    cwd=models.REPO,
    check=True,
  )
  total = time.time() - began
  _, *cells = (json.loads(line) for line in (folder / 'torch.jsonl').read_text().splitlines())
  methods = dict.fromkeys(METHODS, 0.0)
  for cell in cells:
    methods[cell['method']] += cell['seconds']
  return {'set-up': total - sum(methods.values()), **methods, 'report': 0.0, 'total': total}


def start_peer(folder: pathlib.Path, seconds: dict[str, float]) -> dict[str, float]:
  """The same where the script is started once a cell: a start measured (the best of 2) and counted
  for every cell.
  """
  starts = []
  for _ in range(2):
    began = time.time()
    subprocess.run(
      [
        sys.executable,
        '-m',
        'benchmarks.peer_journey',
        folder / 'settings.json',
        folder / 'start.jsonl',
        '0',
      ],
      cwd=models.REPO,
      check=True,
    )
    starts.append(time.time() - began)
  num_cells = len((folder / 'torch.jsonl').read_text().splitlines()) - 1
  methods = {method: seconds[method] + num_cells / len(METHODS) * min(starts) for method in METHODS}
  return {'set-up': 0.0, **methods, 'report': 0.0, 'total': sum(methods.values())}


def describe(settings: dict[str, Any]) -> str:
  """What was compared."""
  steps = ' + '.join(str(phase['steps']) for phase in settings['methods']['lp_ft']['phases'])
  counts = ', '.join(f'{len(ids)} {split}' for split, ids in settings['ids'].items())
  return (
    f'### {settings["name"]}, {settings["image_size"]} px, {len(settings["classes"])} classes '
    f'({counts} images), sizes {settings["shots"]} a class, {len(settings["seeds"])} seeds, '
    f'{settings["methods"]["full"]["phases"][0]["steps"]} steps of {settings["batch_size"]} (LP-FT '
    f'{steps})'
  )


def times(seconds: dict[str, dict[str, float]], settings: dict[str, Any]) -> str:
  """Seconds and their ratios. Features of the frozen stages are computed in the first method that
  needs them.
  """
  ratio = lambda over, under: f'{over / under:.1f}' if over and under else ''
  lines = [
    (
      '| seconds | tlx, cold | tlx, warm | torch | torch / cold | torch / warm | torch, a start a '
      'cell | that / cold |'
    ),
    '|---' * 8 + '|',
  ]
  for row in ROWS:
    cold, warm, torch, start = (seconds[kind][row] for kind in ('cold', 'warm', 'torch', 'start'))
    lines.append(
      f'| {row} | {cold:.1f} | {warm:.1f} | {torch:.1f} | {ratio(torch, cold)} | '
      f'{ratio(torch, warm)} | {start:.1f} | {ratio(start, cold)} |'
    )
  cold, warm = (seconds[f'probe alone, {kind}']['total'] for kind in ('cold', 'warm'))
  torch, start = seconds['torch']['set-up'] + seconds['torch']['probe'], seconds['start']['probe']
  lines.append(
    f'| a probe alone, everything | {cold:.1f} | {warm:.1f} | {torch:.1f} | {ratio(torch, cold)} | '
    f'{ratio(torch, warm)} | {start:.1f} | {ratio(start, cold)} |'
  )
  return '\n'.join(lines)


def accuracies(folder: pathlib.Path, settings: dict[str, Any]) -> str:
  """Mean test accuracies with 95% intervals over the seeds, and of the differences seed by seed.

  Raises:
    ValueError: the two sides did not train the same things on the same examples.
  """
  ours = report.read(folder / 'cold')
  theirs = [json.loads(line) for line in (folder / 'torch.jsonl').read_text().splitlines()[1:]]
  if json.loads((folder / 'cold' / 'subsets' / 'images.json').read_text()) != json.loads(
    json.dumps(settings['subsets'])
  ):
    raise ValueError(f'{folder}: the study drew other subsets than those in settings.json.')
  lines = ['| test accuracy, % | size | tlx | torch | tlx - torch | 0 inside |', '|---' * 6 + '|']
  show = lambda interval: f'{100 * interval.mean:.1f} ± {50 * (interval.high - interval.low):.1f}'
  inside = []
  for method in METHODS:
    for shots in settings['shots']:
      mine = ours[(ours['method'] == method) & (ours['shots'] == shots)].sort_values('seed')
      other = [cell for cell in theirs if (cell['method'], cell['shots']) == (method, shots)]
      if {cell['trainable'] for cell in other} != set(mine['trainable_params']):
        raise ValueError(
          f'{folder}: {method} trains {set(mine["trainable_params"])} parameters in tlx, '
          f'{other[0]["trainable"]} in torch.'
        )
      pair = [mine['test_accuracy'].to_numpy(), np.array([cell['test'] for cell in other])]
      difference = statistics.mean_interval(pair[0] - pair[1])
      inside.append(difference.low <= 0 <= difference.high)
      lines.append(
        f'| {method} | {shots} | {show(statistics.mean_interval(pair[0]))} | '
        f'{show(statistics.mean_interval(pair[1]))} | {show(difference)} | '
        f'{"yes" if inside[-1] else "no"} |'
      )
  return '\n'.join(
    [
      *lines,
      '',
      (
        f'{sum(inside)} of {len(inside)} differences have 0 in their 95% interval (19 of 20 are '
        'expected to).'
      ),
    ]
  )


def costs(folder: pathlib.Path) -> str:
  """Where the time of the studies went, by their own account."""
  lines = [
    '| seconds in tlx | training and evaluation | compilation | frozen stages | programs |',
    '|---' * 5 + '|',
  ]
  for kind in ('cold', 'warm'):
    for method in METHODS:
      cost = [
        json.loads(path.read_text())['cost']
        for path in folder.glob(f'{kind}/runs/source-images-{method}-*/result.json')
      ]
      train = sum(run['train_seconds'] for run in cost)
      compiling = sum(run['compile_seconds'] for run in cost)
      features = sum(run['feature_seconds'] for run in cost)
      lines.append(
        f'| {kind}, {method} | {train:.1f} | {compiling:.1f} | {features:.1f} | '
        f'{cost[0]["compiled_programs"]} |'
      )
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
