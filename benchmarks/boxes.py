"""A training step and inference of a detector against torchvision's FCOS: the same backbone, the
same head, the same weights, the same batch.

  pip install -r benchmarks/requirements.txt torchvision      # a build that fits torch's
  python -m benchmarks.boxes [--models resnet18] [--size 256 --depth 4] [--turns 7]

Backbones whose batch norms are frozen, a pyramid at strides 8, 16 and 32 and FCOS's head, float32,
AdamW; in one process, turn by turn. What torchvision's detector has otherwise than ours is built
for it (peer_boxes.py), and before anything is timed the three losses of both sides have to agree.
torchvision is eager and channels_last, with the fused AdamW. `tlx` is one jitted program on all
cores, `tlx in a study` the program that studies run, as in step.py. Inference goes as far as at
most 100 boxes an image after class-wise suppression, of candidates of any score: torchvision
takes the 1,000 best of each level, ours those of all levels. Times are medians over the turns;
ratios are of tlx to torchvision, with their range over the turns.
"""

import argparse
import gc
import importlib.metadata
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import models, step
from tlx import backbones, sources
from tlx.inputs import boxes
from tlx.plug import plug
from tlx.tasks import detection
from tlx.train import cohort
from tlx.train import mesh as meshes
from tlx.train import step as steps
from tlx.tree import map_named, named_leaves
from tlx.types import Batch

NUM_CLASSES, OBJECTS = 3, 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STAGES = {
  'resnet18': ('layer2_1', 'layer3_1', 'layer4_1'),
  'efficientnet_lite0': ('block4', 'block10', 'block15'),
}
SIDES = ('tlx', 'tlx in a study', 'torchvision')
TOLERANCE = 1e-4  # of losses on the two sides, as a share


def main() -> None:
  """Compares the losses and measures model by model, prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--models', nargs='+', default=list(STAGES), choices=STAGES)
  parser.add_argument('--size', type=int, default=64, help='channels of the head')
  parser.add_argument('--depth', type=int, default=1, help='convolutions of a tower')
  parser.add_argument('--image_size', type=int, default=256)
  parser.add_argument('--batch_size', type=int, default=4)
  parser.add_argument('--turns', type=int, default=7)
  parser.add_argument('--seconds', type=float, default=1.0, help='of a turn')
  args = parser.parse_args()
  meshes.use_all_cores()
  images, targets = drawn(args.batch_size, args.image_size)
  head, lines = {'size': args.size, 'depth': args.depth}, []
  for name in args.models:
    sides, apart = both(name, images, targets, head)
    print(f'{name}: losses differ by {apart:.1e} of their value', flush=True)
    for kind, steppers in sides.items():
      times = step.measure(steppers, args.turns, args.seconds)
      lines.append(row(f'{name}, {kind}, {args.image_size} px', args.batch_size, times))
    gc.collect()
  print(f'{about(head)}\n\n| | batch | {" | ".join(f"{side}, ms" for side in SIDES)}', end='')
  print(' | tlx / torchvision | in a study / torchvision |\n|---' + '|--:' * 6 + '|')
  print('\n'.join(lines))


def about(head: Mapping[str, int]) -> str:
  """What was measured, where."""
  import torch

  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'torch', 'torchvision', 'timm')
  )
  return (
    f'{versions}; {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch; float32; '
    f'{head["size"]} channels, towers of {head["depth"]}; loaded {os.getloadavg()[0]:.1f}'
  )


def drawn(number: int, side: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """(images uint8 [B, H, W, 3], boxes as the form `boxes` publishes them)."""
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (number, side, side, 3)).astype(np.uint8)
  begins = random.uniform(0, 0.6 * side, (number, OBJECTS, 2))
  ends = begins + random.uniform(0.1 * side, 0.4 * side, begins.shape)
  ones = np.ones((number, OBJECTS), np.float32)
  targets = {
    'boxes': np.concatenate([begins, ends], -1).astype(np.float32),
    'labels': random.integers(0, NUM_CLASSES, (number, OBJECTS)).astype(np.int32),
    'valid': ones,
    'crowd': 0 * ones,
    'area': ones,
    'frame': np.tile(np.float32([1, 0, 0, side, side]), (number, 1)),
    'image_id': np.arange(number, dtype=np.int32),
  }
  return images, targets


def both(
  name: str, images: np.ndarray, targets: dict[str, np.ndarray], head: Mapping[str, int]
) -> tuple[dict[str, dict[str, tuple[Callable[[], Any], int]]], float]:
  """({kind: what does it on each side, and how many times}, how far their losses are apart).

  Raises:
    SystemExit: the losses differ by more than float32 explains.
  """
  from benchmarks import peer_boxes

  model = models.MODELS[name]
  ours_first = model.weights and sources.load(model.weights).arrays
  arrays = ours_first or peer_boxes.arrays_of(model.timm)
  ours = make(name, arrays, Batch(images, targets, np.ones(len(images), np.float32)), head)
  how = {'image_mean': list(MEAN), 'image_std': list(STD)}
  peer = peer_boxes.detector(
    model.timm, arrays, ours.variables.params['head'], STAGES[name], NUM_CLASSES, **how
  )
  mine, other = losses(ours), peer_boxes.losses(peer, images, targets)
  apart = max(abs(mine[part] / other[part] - 1) for part in other)
  if apart > TOLERANCE:
    raise SystemExit(f'{name}: the losses are {mine} here and {other} of torchvision.')
  return {
    'training step': {
      'tlx': (step.stepping(ours), 1),
      'tlx in a study': step.advancing(ours),
      'torchvision': (peer_boxes.stepper(peer, images, targets), 1),
    },
    'inference': {
      'tlx': (finding(ours), 1),
      'tlx in a study': step.looking(ours, cohort.predict),
      'torchvision': (peer_boxes.finder(peer, images), 1),
    },
  }, apart


def make(
  name: str, arrays: Mapping[str, np.ndarray], batch: Batch, head: Mapping[str, int]
) -> step.Ours:
  """A detector with these weights and a random head, trained but for the norms of its backbone."""
  options = {key: value for key, value in models.MODELS[name].backbone.items() if key != 'name'}
  module = plug('backbones', models.MODELS[name].backbone['name'])
  task, form = detection.task(NUM_CLASSES), boxes.form(batch.inputs.shape[1], 3, MEAN, STD)
  shape = jax.ShapeDtypeStruct((1, *batch.inputs.shape[1:]), np.float32)
  network = module.build(1, **options)
  network = backbones.with_head(network, task.head, shape, STAGES[name], **head)
  variables = jax.jit(network.init)(jax.random.key(0), np.zeros(shape.shape, np.float32))
  weights = sources.Weights(dict(arrays), {}, {}, {})
  filled, _ = backbones.from_weights(module, options, weights, variables, ('head',))
  read = dict(named_leaves(filled.params) + named_leaves(filled.stats))
  variables = type(variables)(
    *(map_named(lambda leaf_name, leaf: read.get(leaf_name, leaf), tree) for tree in variables)
  )
  rules = (('^head/', 'train'), (r'norm[^/]*/(scale|bias)$', 'frozen'), ('.*', 'train'))
  phase = step.phase_of(variables, rules)
  return step.Ours(steps.Recipe(network, form, task, phase), variables, batch)


def losses(ours: step.Ours) -> dict[str, float]:
  """The parts of the loss, as means over places that answer for an object."""
  recipe, variables, batch = ours

  @jax.jit
  def run(variables: Any, batch: Batch) -> Any:
    outputs, _ = recipe.network.apply(variables, steps.enter(recipe, batch.inputs), train=False)
    return recipe.task.terms(outputs, batch)

  found = {}
  for name, (value, weight) in run(variables, batch).items():
    found[name] = float((value * weight).sum() / weight.sum())
  return found


def finding(ours: step.Ours) -> Callable[[], Any]:
  """What finds the boxes of the batch's images."""
  recipe, variables, batch = ours

  @jax.jit
  def run(variables: Any, inputs: Any) -> Any:
    outputs, _ = recipe.network.apply(variables, steps.enter(recipe, inputs), train=False)
    return recipe.task.keep(outputs)

  inputs = jax.device_put(batch.inputs)
  return lambda: run(variables, inputs)


def row(name: str, batch_size: int, times: Mapping[str, np.ndarray]) -> str:
  """A line of the table."""
  cells = [f'{np.median(of):.0f} ({of.min():.0f}-{of.max():.0f})' for of in times.values()]
  peer = times['torchvision']
  for side in SIDES[:2]:
    ratios = times[side] / peer
    middle = np.median(times[side]) / np.median(peer)
    cells.append(f'{middle:.2f} ({ratios.min():.2f}-{ratios.max():.2f})')
  return f'| {name} | {batch_size} | {" | ".join(cells)} |'


if __name__ == '__main__':
  main()
