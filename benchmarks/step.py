"""One step of tlx against torch, eager and compiled: forward pass, linear probe, last block,
everything.

  pip install -r benchmarks/requirements.txt
  python -m benchmarks.step                           # all; most of the time is torch.compile's
  python -m benchmarks.step --models vit_ti --kinds probe full --no-compiled

Both sides take the same batch in float32 with AdamW and random weights, in one process, turn by
turn. Times are medians over the turns; ratios are of tlx to the faster peer, with their range over
the turns. `tlx` is one jitted step on all cores; `tlx in a study` is a step of the program that
studies run: as many runs as there are cores, each in a loop on a core of its own,
the time divided by all their steps. A GPT's probe has a head of classes, its other steps predict
tokens from tied embeddings, which stay frozen with the last block.
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
import jax.numpy as jnp
import numpy as np
import optax

from tlx import freezing
from tlx.inputs import image
from tlx.plug import plug
from tlx.tasks import classification
from tlx.train import cohort, feed, step
from tlx.train import mesh as meshes
from tlx.train.spread import Spread
from tlx.tree import label, named_leaves
from tlx.types import Array, Batch, Form, Task, Variables

NUM_CLASSES, VOCABULARY, LENGTH = 10, 50257, 128
KINDS = ('forward', 'probe', 'last', 'full')
SIDES = ('tlx', 'tlx in a study', 'torch eager', 'torch compiled')
LOOP = 4  # steps of a run between two returns to Python; studies take more
HYPER = step.Hyper(*map(np.float32, (1e-3, 1e-2, 1000, 0)))  # the last freezes no group


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
  'minilm': Case(
    'bert', {'dim': 384, 'depth': 6, 'heads': 12, 'mlp_dim': 1536, 'pool': 'mean'}, '', 16
  ),
  'gpt_30m': Case('gpt2', {'dim': 384, 'depth': 6, 'heads': 6}, '', 8),
}


def main() -> None:
  """Measures case by case, prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--models', nargs='+', default=list(CASES), choices=CASES)
  parser.add_argument('--kinds', nargs='+', default=list(KINDS), choices=KINDS)
  parser.add_argument('--turns', type=int, default=7)
  parser.add_argument('--seconds', type=float, default=0.5, help='of a turn')
  parser.add_argument(
    '--compiled', action=argparse.BooleanOptionalAction, default=True, help='torch.compile too'
  )
  args = parser.parse_args()
  meshes.use_all_cores()
  print(
    f'{about()}\n\n| model | step | batch | {" | ".join(f"{side}, ms" for side in SIDES)} | tlx / '
    'best peer | in a study / best peer |'
  )
  print('|---|---' + '|--:' * 7 + '|')
  for name in args.models:
    for kind in args.kinds:
      steppers = {'tlx': one_step(CASES[name], kind), 'tlx in a study': in_study(CASES[name], kind)}
      for peer in SIDES[2 : 4 if args.compiled else 3]:
        steppers[peer] = theirs(CASES[name], kind, peer == SIDES[3])
      print(
        row(name, kind, CASES[name].batch_size, measure(steppers, args.turns, args.seconds)),
        flush=True,
      )
      gc.collect()


def about() -> str:
  """What was measured, where."""
  from benchmarks.peer_step import torch

  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}'
    for name in ('jax', 'torch', 'timm', 'transformers')
  )
  return (
    f'{versions}; {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch; '
    f'float32; loaded {os.getloadavg()[0]:.1f}'
  )


def batch_of(case: Case, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """(images uint8 [B, H, W, C] or token ids [B, T], classes [B] or the next tokens [B, T])."""
  random = np.random.default_rng(0)
  if case.image_size:
    inputs = random.integers(0, 256, (case.batch_size, case.image_size, case.image_size, 3)).astype(
      np.uint8
    )
  else:
    inputs = random.integers(0, 30000, (case.batch_size, LENGTH)).astype(np.int32)
  if num_classes(case, kind) is None:
    return inputs, np.roll(inputs, -1, 1)
  return inputs, random.integers(0, NUM_CLASSES, case.batch_size).astype(np.int32)


def num_classes(case: Case, kind: str) -> int | None:
  """Of the head; None for a language model."""
  return None if case.backbone in ('gpt2', 'llama') and kind != 'probe' else NUM_CLASSES


def next_token() -> Task:
  """The mean cross-entropy over tokens."""

  def terms(logits: Array, batch: Batch) -> dict[str, tuple[Array, Array]]:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    return {'loss': (losses, jnp.ones_like(losses))}

  return Task(
    head=VOCABULARY,
    targets=lambda inputs, tokens: tokens,
    terms=terms,
    keep=lambda logits: {},
    scores=lambda sums, kept=None, targets=None: {},
    select=('loss', -1),
  )


def form_of(case: Case) -> Form:
  """Images from 0 to 1; tokens as they are."""
  if case.image_size:
    return image.form(case.image_size, 3, (0.0,) * 3, (1.0,) * 3)
  spec = {'ids': jax.ShapeDtypeStruct((LENGTH,), np.int32)}
  return Form(
    name='tokens',
    spec=spec,
    enter=lambda leaves: leaves,
    augment=lambda key, batch, options: batch,
    check=lambda options: None,
  )


class Ours(NamedTuple):
  """What a step of tlx takes."""

  recipe: step.Recipe
  variables: Variables
  batch: Batch


def phase_of(variables: Variables, rules: Any) -> step.Phase:
  """AdamW at one rate on what the rules of freezing train; frozen norms keep their statistics."""
  return step.Phase(
    tuple(named_leaves(label(variables.params, rules))),
    (('train', 1.0),),
    freezing.frozen_norms(variables.params, variables.stats, rules, 'frozen'),
    'adamw',
    schedule='constant',
  )


def make(case: Case, kind: str) -> Ours:
  """A network with random weights, what is trained of it, a batch."""
  classes = num_classes(case, kind)
  network = plug('backbones', case.backbone).build(classes, **case.options)
  inputs, targets = batch_of(case, kind)
  inputs = inputs if case.image_size else {'ids': inputs}
  example = jax.tree.map(
    lambda leaf: leaf[:1].astype(np.float32 if case.image_size else leaf.dtype), inputs
  )
  variables = jax.jit(network.init)(jax.random.key(0), example)
  blocks = [i for i, stage in enumerate(network.stages) if stage.startswith(('block', 'layer'))]
  frozen_stages = {'forward': 0, 'probe': len(network.stages) - 1, 'last': blocks[-1], 'full': 0}[
    kind
  ]
  rules = plug('freezing', 'after').rules([(stage,) for stage in network.stages], k=frozen_stages)
  phase = phase_of(variables, rules)
  task = classification.task(classes) if classes else next_token()
  return Ours(
    step.Recipe(network, form_of(case), task, phase),
    variables,
    Batch(inputs, targets, np.ones(case.batch_size, np.float32)),
  )


def one_step(case: Case, kind: str) -> tuple[Callable[[], Any], int]:
  """(what does one step and gives what to wait for, 1)."""
  ours = make(case, kind)
  if kind == 'forward':
    recipe, variables, batch = ours
    inputs = jax.device_put(batch.inputs)
    forward = jax.jit(
      lambda variables, x: recipe.network.apply(variables, step.enter(recipe, x), train=False)[0]
    )
    return lambda: forward(variables, inputs), 1
  return stepping(ours), 1


def stepping(ours: Ours) -> Callable[[], Any]:
  """What does one jitted training step on all cores and gives what to wait for."""
  recipe, variables, batch = ours
  batch = jax.device_put(batch)
  trainable, frozen = step.split(variables.params, recipe.phase)
  run = jax.jit(functools.partial(step.train_step, recipe), donate_argnums=0)
  state, key = step.init_state(trainable, variables.stats, recipe.phase, HYPER), jax.random.key(0)

  def one() -> Any:
    nonlocal state
    state, metrics = run(state, frozen, batch, key, HYPER)
    return metrics

  return one


def in_study(case: Case, kind: str) -> tuple[Callable[[], Any], int]:
  """(what takes LOOP steps of a cohort of as many runs as there are devices, the steps of all its
  runs).
  """
  ours = make(case, kind)
  return looking(ours, cohort.evaluate) if kind == 'forward' else advancing(ours)


def looking(ours: Ours, function: Callable) -> tuple[Callable[[], Any], int]:
  """As `in_study`, of the same batch LOOP times by `cohort.evaluate` or `cohort.predict`."""
  recipe, variables, batch = ours
  spread = Spread.over(jax.device_count())
  trainable, frozen = step.split(variables.params, recipe.phase)
  nothing = jax.tree.map(lambda _: None, frozen)
  run = cohort.program(function, recipe, spread.mesh)
  batches = jax.tree.map(lambda leaf: np.stack([leaf] * LOOP), batch)
  looked = cohort.Evaluated(trainable, nothing, variables.stats, np.asarray(batches.mask))
  own, shared = spread.place(spread.broadcast(looked)), spread.everywhere((frozen, batches))
  return lambda: run((), own, shared), LOOP * spread.num_runs


def advancing(ours: Ours, num_runs: int = 0) -> tuple[Callable[[], Any], int]:
  """As `in_study`, of training steps; of as many runs as there are devices, or another number."""
  recipe, variables, batch = ours
  batch_size, spread = len(batch.mask), Spread.over(num_runs or jax.device_count())
  trainable, frozen = step.split(variables.params, recipe.phase)
  nothing = jax.tree.map(lambda _: None, frozen)
  run = cohort.program(cohort.advance, recipe, spread.mesh)
  state = step.init_state(trainable, variables.stats, recipe.phase, HYPER)
  order = np.broadcast_to(np.arange(batch_size, dtype=np.int32), (4096, batch_size))
  keys = jax.random.split(jax.random.key(0), spread.num_runs)
  runs = cohort.Runs(
    spread.place(spread.broadcast(nothing)),
    *spread.place((keys, spread.broadcast(HYPER))),
  )
  order = spread.place(cohort.Order(spread.broadcast(order), np.zeros(spread.num_runs, np.int32)))
  shared = cohort.Shared(
    spread.everywhere(frozen), spread.everywhere(feed.Arrays(batch.inputs, batch.targets))
  )
  carry = spread.place(
    spread.broadcast((state, {'loss': np.float32(0), 'grad_norm': np.float32(0)}))
  )

  def several() -> Any:
    nonlocal carry
    carry = run(carry, (runs, order, spread.each(LOOP)), shared)
    return carry[1]

  return several, LOOP * spread.num_runs


def theirs(case: Case, kind: str, compiled: bool) -> tuple[Callable[[], Any], int]:
  """(one step in torch, 1)."""
  from benchmarks import peer_step

  peer_step.torch.manual_seed(0)
  classes = num_classes(case, kind)
  if case.image_size:
    peer = peer_step.image_peer(case.timm, case.image_size, classes)
  else:
    peer = {'bert': peer_step.bert_peer, 'gpt2': peer_step.gpt2_peer}[case.backbone](
      case.options, classes
    )
  return peer_step.stepper(peer, kind, *batch_of(case, kind), compiled), 1


def measure(
  steppers: dict[str, tuple[Callable[[], Any], int]], turns: int, seconds: float
) -> dict[str, np.ndarray]:
  """Milliseconds a step of each, [turns]; they take turns of about `seconds`."""

  def turn(name: str, calls: int) -> float:
    one, steps = steppers[name]
    began = time.perf_counter()
    for _ in range(calls):
      done = one()
    jax.block_until_ready(done)
    return (time.perf_counter() - began) / (calls * steps) * 1e3

  for name in steppers:
    turn(name, 2)  # compiles
  calls = {
    name: max(1, round(seconds * 1e3 / (turn(name, 1) * steps)))
    for name, (_, steps) in steppers.items()
  }
  times = []
  for _ in range(turns):
    times.append([turn(name, calls[name]) for name in steppers])
  return dict(zip(steppers, np.asarray(times).T))


def row(name: str, kind: str, batch_size: int, times: dict[str, np.ndarray]) -> str:
  """A line of the table."""
  peers = [peer for peer in times if not peer.startswith('tlx')]
  best = min(peers, key=lambda peer: np.median(times[peer]))
  cells = []
  for side in SIDES:
    span = ''
    if side in times:
      span = f'{np.median(times[side]):.0f} ({times[side].min():.0f}-{times[side].max():.0f})'
    cells.append(span)
  for side in ('tlx', 'tlx in a study'):
    ratios = times[side] / times[best]
    cells.append(
      f'{np.median(times[side]) / np.median(times[best]):.2f} '
      f'({ratios.min():.2f}-{ratios.max():.2f})'
    )
  return f'| {name} | {kind} | {batch_size} | {" | ".join(cells)} |'


if __name__ == '__main__':
  main()
