"""A program for test_devices.py: a cohort laid out on this process's devices in several ways.

It prints the losses as JSON.
"""

import json
import pathlib
import sys

import jax
import numpy as np
from etils import epath

from tlx.backbones import cnn
from tlx.inputs import image
from tlx.tasks import classification
from tlx.train import feed, fit, step
from tlx.train import spread as spreads
from tlx.train.job import Job, PhasePlan
from tlx.tree import label, named_leaves
from tlx.types import Variables

NETWORK = cnn.build(3, channels=(8,), hidden=16, norm='batch')
HEAD = (('^head/', 'train'), ('.*', 'frozen'))
ALL = (('.*', 'train'),)


def job(num_runs: int, devices: spreads.Devices, num_bytes: float) -> Job:
  """Two phases of three steps: the head, then everything."""
  random = np.random.default_rng(0)
  images = feed.Arrays(
    random.integers(0, 255, (40, 8, 8, 1)).astype(np.uint8),
    random.integers(0, 3, 40).astype(np.int32),
  )
  drawn = jax.device_get(NETWORK.init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32)))
  stack = lambda tree: jax.tree.map(lambda leaf: np.stack([leaf] * num_runs), tree)
  nothing = jax.tree.map(lambda _: None, drawn.params)
  base = {**drawn.params, 'head': nothing['head']}
  plans = tuple(
    PhasePlan(
      step.Phase(tuple(named_leaves(label(drawn.params, rules))), (('train', 1.0),)),
      classification.task(3),
      3,
      16,
      1,
      0.0,
    )
    for rules in (HEAD, ALL)
  )
  return Job(
    NETWORK,
    image.form(8, 1),
    plans,
    Variables(base, {}),
    {**nothing, 'head': stack(drawn.params['head'])},
    stack(drawn.stats),
    lambda phase: images,
    lambda phase: images,
    [np.arange(40)] * num_runs,
    list(range(num_runs)),
    [1e-2] * num_runs,
    [1e-3] * num_runs,
    devices,
    device_bytes=num_bytes,
  )


def main(folder: str, *layouts: str) -> None:
  spreads.FSDP_SIZE = 1
  found = {}
  for layout in layouts:
    runs, run, data, fsdp, steps, *num_bytes = (int(n) for n in layout.split(','))
    spread = spreads.Spread.over(runs, spreads.Devices(run, data, bool(fsdp)))
    place = epath.Path(folder) / f'{runs}-{steps}' if steps else epath.Path(folder) / layout
    count = []
    try:
      fitted = fit.fit(
        job(runs, spreads.Devices(run, data, bool(fsdp)), sum(num_bytes)),
        place,
        say=lambda *_, count=count: count.append(0),
        interrupted=lambda steps=steps, count=count: steps == 1 and len(count) == 1,
      )
      found[layout] = {'history': fitted.progress['history'], 'mesh': dict(spread.mesh.shape)}
    except KeyboardInterrupt:
      found[layout] = None
  split = spreads.Spread.over(1, spreads.Devices(0, 0, True)).whole(
    {'kernel': np.zeros((24, 5), np.float32)}
  )['kernel']
  found['bytes on a device'] = split.addressable_shards[0].data.nbytes
  print(json.dumps(found))


if __name__ == '__main__':
  main(str(pathlib.Path(sys.argv[1])), *sys.argv[2:])
