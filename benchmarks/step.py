"""One step of tlx against torch, eager and compiled: forward pass, linear probe, last block, everything.

  pip install -r benchmarks/requirements.txt
  python -m benchmarks.step                                       # all; most of the time is torch.compile's
  python -m benchmarks.step --models vit_ti --kinds probe full --no-compiled

Both sides take the same batch in float32 with AdamW and random weights, in one process, turn by turn. Times are medians over the turns;
the ratio is of tlx to the faster peer, with its range over the turns. A GPT's probe has a head of classes, its other steps predict tokens
from tied embeddings, which stay frozen with the last block.
"""
import argparse
import functools
import gc
import importlib.metadata
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from tlx import freezing
from tlx.plug import plug
from tlx.tasks import classification
from tlx.train import step
from tlx.tree import label, named_leaves
from tlx.types import Array, Batch, Task

NUM_CLASSES, VOCABULARY, LENGTH = 10, 50257, 128
KINDS = ('forward', 'probe', 'last', 'full')


class Case(NamedTuple):
  """One model: its backbone here, its name in timm (none for text), its batch."""
  backbone: str
  options: dict[str, Any]
  timm: str
  batch_size: int
  image_size: int = 0


CASES = {
    'lite0': Case('efficientnet_lite', {'variant': 'lite0'}, 'tf_efficientnet_lite0', 16, 224),
    'resnet18': Case('resnet', {'variant': 'resnet18'}, 'resnet18', 32, 96),
    'vit_ti': Case('vit', {'variant': 'ti/16'}, 'vit_tiny_patch16_224', 16, 224),
    'minilm': Case('bert', {'dim': 384, 'depth': 6, 'heads': 12, 'mlp_dim': 1536, 'pool': 'mean'}, '', 16),
    'gpt_30m': Case('gpt2', {'dim': 384, 'depth': 6, 'heads': 6}, '', 8),
}


def main() -> None:
  """Measures case by case, prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--models', nargs='+', default=list(CASES), choices=CASES)
  parser.add_argument('--kinds', nargs='+', default=list(KINDS), choices=KINDS)
  parser.add_argument('--turns', type=int, default=7)
  parser.add_argument('--seconds', type=float, default=0.5, help='of a turn')
  parser.add_argument('--compiled', action=argparse.BooleanOptionalAction, default=True, help='torch.compile too')
  args = parser.parse_args()
  print(f'{about()}\n\n| model | step | batch | tlx ms | torch eager ms | torch compiled ms | ratio to the best |\n|---|---|--:|--:|--:|--:|--:|')
  for name in args.models:
    for kind in args.kinds:
      steppers = {'tlx': ours(CASES[name], kind)}
      for peer in ('eager', *['compiled'] * args.compiled):
        steppers[peer] = theirs(CASES[name], kind, peer == 'compiled')
      print(row(name, kind, CASES[name].batch_size, measure(steppers, args.turns, args.seconds)), flush=True)
      gc.collect()


def about() -> str:
  """What was measured, where."""
  from benchmarks.peer_step import torch
  versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'torch', 'timm', 'transformers'))
  return f'{versions}; {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch; float32; loaded {os.getloadavg()[0]:.1f}'


def batch_of(case: Case, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """(images uint8 [B, H, W, C] or token ids int32 [B, T], classes [B] or the next tokens [B, T])."""
  random = np.random.default_rng(0)
  if case.image_size:
    inputs = random.integers(0, 256, (case.batch_size, case.image_size, case.image_size, 3)).astype(np.uint8)
  else:
    inputs = random.integers(0, 30000, (case.batch_size, LENGTH)).astype(np.int32)
  if num_classes(case, kind) is None:
    return inputs, np.roll(inputs, -1, 1)
  return inputs, random.integers(0, NUM_CLASSES, case.batch_size).astype(np.int32)


def num_classes(case: Case, kind: str) -> int | None:
  """Of the head; None for a language model."""
  return None if case.backbone == 'gpt2' and kind != 'probe' else NUM_CLASSES


def next_token() -> Task:
  """The mean cross-entropy over tokens."""
  def loss(logits: Array, batch: Batch) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets).mean()
  return Task(loss, lambda outputs, batch: {})


def ours(case: Case, kind: str) -> Callable[[], Any]:
  """What does one step of tlx and gives what to wait for."""
  classes = num_classes(case, kind)
  network = plug('backbones', case.backbone).build(classes, **case.options)
  inputs, targets = batch_of(case, kind)
  inputs = inputs if case.image_size else {'ids': inputs}
  example = jax.tree.map(lambda leaf: leaf[:1].astype(np.float32 if case.image_size else leaf.dtype), inputs)
  variables = jax.jit(network.init)(jax.random.key(0), example)
  batch = jax.device_put(Batch(inputs, targets, np.ones(case.batch_size, np.float32)))
  if kind == 'forward':
    forward = jax.jit(lambda variables, x: network.apply(variables, step.enter(x, step.Phase((), ())), train=False)[0])
    return lambda: forward(variables, batch.inputs)

  blocks = [i for i, stage in enumerate(network.stages) if stage.startswith(('block', 'layer'))]
  frozen_stages = {'probe': len(network.stages) - 1, 'last': blocks[-1], 'full': 0}[kind]
  rules = plug('freezing', 'after').rules(network.stages, k=frozen_stages)
  phase = step.Phase(tuple(named_leaves(label(variables.params, rules))), (('train', 1.0),),
                     freezing.frozen_norms(variables.params, variables.stats, rules, 'frozen'), 'adamw', schedule='constant')
  trainable, frozen = step.split(variables.params, phase)
  hyper = step.Hyper(np.float32(1e-3), np.float32(1e-2), np.int32(1000))
  task = classification.task() if classes else next_token()
  run = jax.jit(functools.partial(step.train_step, network, task, phase), donate_argnums=0)
  state = step.start(trainable, variables.stats, phase, hyper)
  key = jax.random.key(0)

  def one() -> Any:
    nonlocal state
    state, metrics = run(state, frozen, batch, key, hyper)
    return metrics

  return one


def theirs(case: Case, kind: str, compiled: bool) -> Callable[[], Any]:
  """The same in torch."""
  from benchmarks import peer_step
  peer_step.torch.manual_seed(0)
  classes = num_classes(case, kind)
  if case.image_size:
    peer = peer_step.image_peer(case.timm, case.image_size, classes)
  else:
    peer = {'bert': peer_step.bert_peer, 'gpt2': peer_step.gpt2_peer}[case.backbone](case.options, classes)
  return peer_step.stepper(peer, kind, *batch_of(case, kind), compiled)


def measure(steppers: dict[str, Callable[[], Any]], turns: int, seconds: float) -> dict[str, np.ndarray]:
  """Milliseconds a step of each, [turns]; they take turns of about `seconds`."""
  def turn(one: Callable[[], Any], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
      done = one()
    jax.block_until_ready(done)
    return (time.perf_counter() - began) / steps * 1e3

  for one in steppers.values():
    turn(one, 2)  # compiles
  steps = {name: max(1, round(seconds * 1e3 / turn(one, 1))) for name, one in steppers.items()}
  times = [[turn(one, steps[name]) for name, one in steppers.items()] for _ in range(turns)]
  return dict(zip(steppers, np.asarray(times).T))


def row(name: str, kind: str, batch_size: int, times: dict[str, np.ndarray]) -> str:
  """A line of the table."""
  best = min((peer for peer in times if peer != 'tlx'), key=lambda peer: np.median(times[peer]))
  ratios = times['tlx'] / times[best]
  cells = [f'{np.median(times[peer]):.0f} ({times[peer].min():.0f}-{times[peer].max():.0f})' if peer in times else ''
           for peer in ('tlx', 'eager', 'compiled')]
  ratio = f'{np.median(times["tlx"]) / np.median(times[best]):.2f} ({ratios.min():.2f}-{ratios.max():.2f})'
  return f'| {name} | {kind} | {batch_size} | {" | ".join(cells)} | {ratio} |'


if __name__ == '__main__':
  main()
