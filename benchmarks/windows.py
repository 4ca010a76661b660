"""Training on windows of a split against training on all of it on the device: images a second.

  python -m benchmarks.windows
  python -m benchmarks.windows --kinds images --image_size=64 --window=0.1

The same cohort trains turn by turn on a memory-mapped file: all of it on the device, and no more
than a share of it at a time. Seconds are those of the steps, waiting for examples included,
compilation and set-up left out. `vectors` trains a small MLP on vectors of 192 numbers, where next
to nothing is computed for an example; `images` a small convolutional network on images.
"""

import argparse
import pathlib
import tempfile

import jax
import numpy as np
from etils import epath

from tlx.backbones import cnn, mlp
from tlx.inputs import image
from tlx.tasks import classification
from tlx.train import feed, fit, step
from tlx.train import mesh as meshes
from tlx.train.job import Job, PhasePlan
from tlx.tree import named_leaves
from tlx.types import Form, Variables

NUM_CLASSES, WIDTH, RUNS = 10, 192, 2


def main() -> None:
  """Measures, prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--kinds', nargs='+', default=['vectors', 'images'], choices=['vectors', 'images']
  )
  parser.add_argument('--examples', type=int, default=20_000)
  parser.add_argument('--image_size', type=int, default=32)
  parser.add_argument('--steps', type=int, default=1000)
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--window', type=float, default=0.1, help='share of the examples')
  parser.add_argument('--turns', type=int, default=7)
  args = parser.parse_args()
  meshes.use_all_cores()
  print('| training | all there, images/s | windows, images/s | windows / all there |')
  print('|---|--:|--:|--:|')
  for kind in args.kinds:
    with tempfile.TemporaryDirectory() as folder:
      job, num_bytes = job_of(args, kind, pathlib.Path(folder))
      rates = measure(job, args.window * num_bytes, args.turns, pathlib.Path(folder))
    ratios = rates[:, 1] / rates[:, 0]
    whole, windowed = np.median(rates, 0)
    print(
      f'| {kind} | {whole:,.0f} | {windowed:,.0f} | {np.median(ratios):.2f} '
      f'({ratios.min():.2f}-{ratios.max():.2f}) |',
      flush=True,
    )


def job_of(args: argparse.Namespace, kind: str, folder: pathlib.Path) -> tuple[Job, int]:
  """(runs on examples in a file, the bytes of these)."""
  if kind == 'vectors':
    network, form = mlp.build(NUM_CLASSES, widths=(64,)), activations()
  else:
    network, form = cnn.build(NUM_CLASSES), image.form(args.image_size, 3, (0.5,) * 3, (0.25,) * 3)
  shape = args.examples, *form.spec.shape
  inputs = np.lib.format.open_memmap(folder / 'x.npy', 'w+', form.spec.dtype, shape)
  random = np.random.default_rng(0)
  for rows in np.array_split(np.arange(args.examples), 20):
    inputs[rows] = random.integers(0, 256, (len(rows), *shape[1:])).astype(inputs.dtype)
  data = feed.Arrays(inputs, random.integers(0, NUM_CLASSES, args.examples).astype(np.int32))
  few = feed.Arrays(*(leaf[:64] for leaf in data))
  drawn = jax.device_get(network.init(jax.random.key(0), form.enter(few.inputs[:1])))
  labels = tuple((name, 'train') for name, _ in named_leaves(drawn.params))
  phase = step.Phase(labels, (('train', 1.0),), optimizer='adamw')
  job = Job(
    network,
    form,
    (PhasePlan(phase, classification.task(NUM_CLASSES), args.steps, args.batch_size, 1, 0.0),),
    Variables(jax.tree.map(lambda _: None, drawn.params), {}),
    own=jax.tree.map(lambda leaf: np.stack([leaf] * RUNS), drawn.params),
    stats=jax.tree.map(lambda leaf: np.stack([leaf] * RUNS), drawn.stats),
    train=lambda phase: data,
    val=lambda phase: few,
    examples=[np.arange(args.examples)] * RUNS,
    seeds=list(range(RUNS)),
    learning_rates=[1e-3] * RUNS,
    weight_decays=[0.0] * RUNS,
  )
  return job, inputs.nbytes


def activations() -> Form:
  """Vectors, which enter as they are."""
  spec = jax.ShapeDtypeStruct((WIDTH,), np.float32)
  return Form('vectors', spec, lambda leaves: leaves, lambda key, batch, options: batch, print)


def measure(job: Job, num_bytes: float, turns: int, folder: pathlib.Path) -> np.ndarray:
  """Images a second [turns, (all there, windows)]."""
  num_images = RUNS * job.phases[0].num_steps * job.phases[0].batch_size
  rates = []
  for turn in range(turns + 1):  # the first compiles
    of_turn = []
    for limit in (1e18, num_bytes):
      place = epath.Path(folder) / f'{turn}-{limit}'
      fitted = fit.fit(job._replace(device_bytes=limit), place)
      of_turn.append(num_images / fitted.progress['train_seconds'][0])
    rates.append(of_turn)
  return np.asarray(rates[1:])


if __name__ == '__main__':
  main()
