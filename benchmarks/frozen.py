"""What frozen costs: a linear-probe study over N images against one forward pass over them; bytes
for frozen leaves; peak memory.

  python -m benchmarks.frozen --data=PATH                  # PATH/{train,test}/<class>/<image>
  python -m benchmarks.frozen --data=PATH --model efficientnet_lite0 --image_size=96

Three ways to count, study and pass in turn: `steady`, both in a process where all is compiled and
decoded, the study from an empty folder to its last result.json; `warm` and `cold`, whole processes
(imports, decoding, compilation and, of the study, its report) with and without a
compilation cache. The study: 20 epochs of a linear head on all training images, validation, test.
The peer is the script of peer_journey.py.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.timed_study import peak_bytes

BATCH = 32  # of the pass, as the study's


def main() -> None:
  """Prints three tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, help='PATH/{train,test}/<class>/<image>')
  parser.add_argument('--out', default='runs/frozen')
  parser.add_argument('--model', default='vit_ti', choices=models.MODELS)
  parser.add_argument('--image_size', type=int, default=96)
  parser.add_argument(
    '--images', nargs=3, type=int, default=[140, 20, 40], help='a class, for train, val and test'
  )
  parser.add_argument('--epochs', type=int, default=20)
  parser.add_argument('--turns', type=int, default=3)
  parser.add_argument('--forward', default='', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.forward:
    print(json.dumps(forward(json.loads(pathlib.Path(args.forward).read_text()))))
    return
  folder = pathlib.Path(args.out).absolute()
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  model = models.MODELS[args.model].of_size(args.image_size)
  data = models.pool(args.data, folder / 'data', dict(zip(('train', 'val', 'test'), args.images)))
  num_train = sum(1 for _ in data.glob('train/*/*'))
  methods = {'probe': models.phases(model, args.epochs * num_train // BATCH)['probe']}
  settings = models.settings(f'{args.model} probe', model, data, folder, methods, (0,), 1, BATCH)
  num_images = sum(map(len, settings['ids'].values()))
  print(
    f'{args.model}, {args.image_size} px, {num_images} images, {methods["probe"][0]["steps"]} '
    f'steps of {BATCH}\n'
  )
  found = [turn(folder, i) for i in range(args.turns)]
  print(times(found), memory(folder, settings, found), state_bytes(settings), sep='\n\n')


def turn(folder: pathlib.Path, index: int) -> dict[str, dict[str, Any]]:
  """One pass and one study, each in a process of its own; then a study in a process that has run it
  before. The first turn is cold.
  """
  env = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(folder / 'xla')}
  commands = {
    'pass': ['benchmarks.frozen', '--data=-', f'--forward={folder}/settings.json'],
    'study': [
      'experiments.study',
      f'--config=benchmarks/journey_study.py:{folder}/settings.json',
      f'--workdir={folder}/study{index}',
    ],
    'again': ['benchmarks.timed_study', f'{folder}/settings.json', f'{folder}/again'],
  }
  found = {}
  for name, command in commands.items():
    if not index:
      shutil.rmtree(folder / 'xla', ignore_errors=True)
    began = time.perf_counter()
    done = subprocess.run(
      [sys.executable, '-m', *command],
      cwd=models.REPO,
      env=env,
      check=True,
      capture_output=True,
      text=True,
    )
    found[name] = {'process': time.perf_counter() - began} | (
      json.loads(done.stdout.splitlines()[-1]) if name != 'study' else {}
    )
  return found


def forward(settings: dict[str, Any]) -> dict[str, float]:
  """Seconds of a pass over all images through all stages before the head, compiled before, and this
  process's peak of memory.
  """
  import jax

  from tlx import backbones, datasets, sources
  from tlx.plug import plug
  from tlx.study import config
  from tlx.study.phases import network_of, shapes_of
  from tlx.train import mesh

  mesh.use_all_cores()
  jax.config.update('jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR'])
  source = settings['source']
  for name in ('mean', 'std'):  # JSON has no tuples
    source['input'][name] = tuple(source['input'][name])
  data = datasets.load(
    f'folder:{settings["data"]}',
    **{name: value for name, value in source['input'].items() if name not in ('mean', 'std')},
  )
  images = np.concatenate([split.inputs for split in (data.train, data.val, data.test)])
  network = network_of(source, len(data.class_names))
  shapes = shapes_of(source, network)
  arrays = sources.load(source['weights']).arrays
  module = plug('backbones', source['backbone']['name'])
  options = {key: value for key, value in source['backbone'].items() if key != 'name'}
  variables, _ = backbones.fill(
    shapes, arrays, module.names(arrays, **options), network.stages[-1:], module.IGNORE
  )
  devices = mesh.make(1, jax.device_count())
  along, whole = mesh.spec(devices, 'data'), mesh.spec(devices)
  form = config.form_of(source)

  def features(variables, x):
    entered = form.enter(x)
    return network.apply(variables, entered, train=False, stop=len(network.stages) - 1)[0]

  run = jax.jit(features, in_shardings=(whole, along), out_shardings=along)
  variables, size, seconds = mesh.put(variables, whole), BATCH * devices.size, []
  batches = [images[i : i + size] for i in range(0, len(images) // size * size, size)]
  for _ in range(3):
    began = time.perf_counter()
    for batch in batches:
      np.asarray(run(variables, mesh.put(batch, along)))
    seconds.append((time.perf_counter() - began) * len(images) / (len(batches) * size))
  return {'steady': min(seconds[1:]), 'peak_bytes': peak_bytes()}


def times(found: list[dict[str, dict[str, Any]]]) -> str:
  """Medians over the turns."""
  cold, warm = found[0], found[1:] or found
  rows = {
    'steady': (
      float(np.median([turn['again']['second'] for turn in found])),
      float(np.median([turn['pass']['steady'] for turn in found])),
    ),
    'warm': (
      float(np.median([turn['study']['process'] for turn in warm])),
      float(np.median([turn['pass']['process'] for turn in warm])),
    ),
    'cold': (cold['study']['process'], cold['pass']['process']),
  }
  lines = ['| | study, s | one pass, s | ratio | study - pass, s |', '|---|--:|--:|--:|--:|']
  lines += [
    f'| {name} | {study:.2f} | {once:.2f} | {study / once:.2f} | {study - once:.2f} |'
    for name, (study, once) in rows.items()
  ]
  return '\n'.join(lines)


def memory(
  folder: pathlib.Path, settings: dict[str, Any], found: list[dict[str, dict[str, Any]]]
) -> str:
  """The peaks of the processes; the peer takes one epoch, since more do not need more."""
  phase = settings['methods']['probe']['phases'][0]
  short = settings | {
    'methods': {'probe': {'phases': [phase | {'steps': len(settings['ids']['train']) // BATCH}]}}
  }
  (folder / 'short.json').write_text(json.dumps(short))
  code = (
    'import sys; from benchmarks import peer_journey, timed_study; '
    'peer_journey.main(*sys.argv[1:]); print(timed_study.peak_bytes())'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, folder / 'short.json', folder / 'torch.jsonl'],
    cwd=models.REPO,
    check=True,
    capture_output=True,
    text=True,
  )
  peaks = {
    'tlx, the study (twice)': max(t['again']['peak_bytes'] for t in found),
    'tlx, one pass': max(t['pass']['peak_bytes'] for t in found),
    'torch, a probe': int(done.stdout),
  }
  return '\n'.join(
    [
      '| peak memory | MB |',
      '|---|--:|',
      *(f'| {name} | {peak / 1e6:,.0f} |' for name, peak in peaks.items()),
    ]
  )


def state_bytes(settings: dict[str, Any]) -> str:
  """What frozen leaves have beside themselves, from the shapes and the compiled step, their stages
  being part of it (no reuse).
  """
  import jax

  from tlx.study import config
  from tlx.study.phases import network_of, phases_of, shapes_of
  from tlx.tasks import classification
  from tlx.train import step
  from tlx.tree import named_leaves, num_bytes
  from tlx.types import Batch

  source = settings['source']
  network = network_of(source, len(settings['classes']))
  shapes = shapes_of(source, network)
  size, scalar = source['input']['image_size'], jax.ShapeDtypeStruct((), np.float32)
  batch = Batch(
    jax.ShapeDtypeStruct((BATCH, size, size, 3), np.uint8),
    *(jax.ShapeDtypeStruct((BATCH,), t) for t in (np.int32, np.float32)),
  )
  key, hyper = jax.random.key(0), step.Hyper(scalar, scalar, scalar)
  task = classification.task(len(settings['classes']))
  lines = [
    '| MB | trained leaves | their gradients | their optimizer state | gradients of frozen leaves '
    '| optimizer state of frozen leaves | compiled step: results | temporaries |',
    '|---|' + '--:|' * 7,
  ]
  for tune in ('head', 'all'):
    fields = config.TRAIN | {'tune': tune, 'optimizer': 'adamw', 'steps': 1}
    num_classes = len(settings['classes'])
    phase = phases_of({'phases': (fields,)}, source, num_classes, 'classification')[0].phase
    recipe = step.Recipe(network, config.form_of(source), task, phase)
    trainable, frozen = step.split(shapes.params, phase)
    state = jax.eval_shape(
      lambda t, s, h, phase=phase: step.init_state(t, s, phase, h), trainable, shapes.stats, hyper
    )
    (_, grads) = jax.eval_shape(
      lambda t, f, s, b, recipe=recipe: step.gradient(recipe, t, f, s, b, key),
      trainable,
      frozen,
      shapes.stats,
      batch,
    )

    def train_step(state, frozen, batch, hyper, recipe=recipe):
      return step.train_step(recipe, state, frozen, batch, key, hyper)

    run = jax.jit(train_step, donate_argnums=0)
    found = run.lower(state, frozen, batch, hyper).compile().memory_analysis()
    names = [name for name, _ in named_leaves(frozen)]
    of_frozen = []
    for tree in (grads, state.opt_state):
      leaves = [leaf for name, leaf in named_leaves(tree) if name.endswith(tuple(names))]
      of_frozen.append(sum(map(num_bytes, leaves)))
    row = [
      num_bytes(trainable),
      num_bytes(grads),
      num_bytes(state.opt_state),
      *of_frozen,
      found.output_size_in_bytes,
      found.temp_size_in_bytes,
    ]
    lines.append(f'| {tune} | ' + ' | '.join(f'{value / 1e6:.2f}' for value in row) + ' |')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
