"""What tlx does on an accelerator, against torch on the same card where torch is there.

  python -m benchmarks.accelerator                     # less than 8 minutes on one GPU
  python -m benchmarks.accelerator --parts steps cohorts
  python -m benchmarks.accelerator --small             # sizes for a CPU: that all of it runs

parity: how far our backbones are from the official ones, in float32 and in bfloat16.
steps: a step in bfloat16 (torch: compiled, under autocast) and its share of the card's peak, which
  counts the FLOPs of the same step as XLA does for plain attention.
cohorts: 1, 2, 4, ... 64 runs side by side by `vmap`, against as many one by one.
study: 60 runs of ViT-Ti at 64 px, against the script of peer_journey.py in float32.
probe: a study of linear probes against one forward pass over its images.

Each part is a process of its own. Weights and images are random, of which times do not depend.
Needs what requirements.txt lists; torch, timm, transformers and peft for the other side.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # torch is on the same card

import jax
import numpy as np
from packaging.requirements import Requirement
from safetensors.numpy import save_file

from benchmarks import frozen, journey, models, step
from tlx import parity, peft
from tlx.backbones import _inverse
from tlx.parity import cases
from tlx.plug import plug
from tlx.train import mesh as meshes
from tlx.train import step as training

PARTS = ('parity', 'steps', 'cohorts', 'study', 'probe')
# One a backbone; official names in docs/backbones.md.
OFFICIAL = ('vit', 'resnet_bottleneck', 'resnetv2_bit', 'convnext', 'bert', 'gpt2', 'llama')
# bfloat16 FLOP/s without sparsity, by what the makers' data sheets say.
PEAKS = {
  'H200': 989e12,
  'H100 PCIe': 756e12,
  'H100': 989e12,
  'A100': 312e12,
  'L4': 121e12,
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
}
_SMOLLM2 = {'variant': 'smollm2_135m'}
CASES = {
  'ViT-B/16': (step.Case('vit', {'variant': 'b/16'}, 'vit_base_patch16_224', 64, 224), 'full'),
  'ResNet-50': (step.Case('resnet', {'variant': 'resnet50'}, 'resnet50', 64, 224), 'full'),
  'MiniLM': (step.CASES['minilm']._replace(batch_size=64), 'full'),
  'SmolLM2-135M': (step.Case('llama', _SMOLLM2, '', 32), 'full'),
  'SmolLM2-135M, LoRA': (step.Case('llama', _SMOLLM2, '', 32), 'added'),
}
_VIT_TI = step.Case('vit', {'variant': 'ti/16', 'image_size': 64}, 'vit_tiny_patch16_224', 32, 64)
_TEXT = {'dim': 64, 'depth': 2, 'heads': 4, 'mlp_dim': 128}
_LLAMA = _TEXT | {'kv_heads': 2, 'vocab_size': step.VOCABULARY}
SMALL = {
  'ViT-Ti/16': (_VIT_TI._replace(batch_size=4), 'full'),
  'ResNet-18': (step.Case('resnet', {'variant': 'resnet18'}, 'resnet18', 4, 32), 'full'),
  'a BERT': (step.Case('bert', _TEXT | {'pool': 'mean'}, '', 2), 'full'),
  'a Llama': (step.Case('llama', _LLAMA, '', 1), 'full'),
  'a Llama, LoRA': (step.Case('llama', _LLAMA, '', 1), 'added'),
}
LORA = r'attention/(query|value)$'


def main() -> None:
  """Runs part after part, each in a process of its own."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--parts', nargs='+', default=PARTS, choices=PARTS)
  parser.add_argument('--small', action='store_true', help='sizes for a CPU')
  parser.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.inside:
    meshes.use_all_cores()
    globals()[f'print_{args.parts[0]}'](args.small)
    return
  print(about(), flush=True)
  small = ['--small'] * args.small
  for part in args.parts:
    began = time.perf_counter()
    print(f'\n## {part}\n', flush=True)
    command = [sys.executable, '-m', 'benchmarks.accelerator', '--inside', '--parts', part, *small]
    code = subprocess.run(command, cwd=models.REPO, check=False).returncode
    ended = f'failed with {code}' if code else 'done'
    print(f'\n{ended} after {time.perf_counter() - began:.0f} s', flush=True)


def about() -> str:
  """The card, the versions, and what requirements.txt asks for that is not there."""
  # In a process of its own: a card that this one held would be short of memory for the others.
  code = 'import jax; print(len(jax.devices()), jax.devices()[0].device_kind)'
  asked = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  found, unmet = [], []
  for name in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'torch', 'timm', 'transformers', 'peft'):
    found.append(f'{name} {_version(name) or "not there"}')
  for line in (models.REPO / 'requirements.txt').read_text().splitlines():
    if line := line.split('#')[0].strip():
      wanted = Requirement(line)
      version = _version(wanted.name)
      if not version or not wanted.specifier.contains(version, prereleases=True):
        unmet.append(f'{line} (is {version or "not there"})')
  return (
    f'{asked.stdout.strip()}; {", ".join(found)}\nof requirements.txt not met: '
    f'{", ".join(unmet) or "nothing"}'
  )


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return ''


def print_parity(small: bool) -> None:
  """The largest error of each backbone by type, and what is beyond its limit."""
  limits = ' | '.join(f'{dtype}, of {limit:.0e}' for dtype, limit in parity.LIMITS.items())
  print(f'| case | {limits} | beyond it |\n|---|--:|--:|---|')
  public = [name for name in cases.PUBLIC if not cases.to_fetch(name)]
  for name in OFFICIAL[::3] if small else (*OFFICIAL, *public):
    rows = parity.compare(cases.read(name))
    cells = []
    for dtype in parity.LIMITS:
      worst, limit = 0.0, parity.LIMITS[dtype]
      for row in rows:
        if row.limits.get(dtype):  # tokens and texts have none: none may differ
          worst = max(worst, row.errors[dtype] / row.limits[dtype] * limit)
      cells.append(f'{worst:.1e}')
    wrong = [row.output for row in rows if not row.ok]
    cells.append(', '.join(wrong))
    print(f'| {name} | {" | ".join(cells)} |', flush=True)


def ours_of(case: step.Case, kind: str, dtype: str) -> step.Ours:
  """A step of tlx; 'added' trains LoRA of rank 8 at queries and values."""
  case = case._replace(options={**case.options, 'dtype': dtype})
  if kind != 'added':
    return step.make(case, kind)
  ours = step.make(case, 'full')
  network = peft.wrap(ours.recipe.network, plug('peft', 'lora').added(at=LORA, rank=8))
  example = jax.tree.map(lambda leaf: leaf[:1], ours.batch.inputs)
  variables = jax.jit(network.init)(jax.random.key(0), example)
  phase = step.phase_of(variables, (('/added/', 'train'), ('.*', 'frozen')))
  recipe = ours.recipe._replace(network=network, phase=phase)
  return ours._replace(recipe=recipe, variables=variables)


def print_steps(small: bool) -> None:
  """Milliseconds a step and the share of the card's peak."""
  kind = jax.devices()[0].device_kind
  peak = next((flops for name, flops in PEAKS.items() if name in kind), float('nan'))
  has_torch = all(map(importlib.util.find_spec, ('torch', 'timm', 'transformers', 'peft')))
  print('| model | trained | batch | GFLOP | tlx, ms | of peak | torch, ms | tlx / torch |')
  print('|---|---' + '|--:' * 6 + '|')
  for name, (case, trained) in (SMALL if small else CASES).items():
    steppers = {'tlx': (step.stepping(ours_of(case, trained, 'bfloat16')), 1)}
    if has_torch:
      steppers['torch'] = _theirs(case, trained, compiled=not small), 1
    times = step.measure(steppers, 1 if small else 5, 0.1 if small else 1.0)
    # Attention that is fused counts for nothing with XLA.
    flops = _flops(ours_of(case, trained, 'float32'))
    ours, theirs = (float(np.median(times.get(side, np.nan))) for side in ('tlx', 'torch'))
    print(
      f'| {name} | {trained} | {case.batch_size} | {flops / 1e9:,.1f} | {ours:.1f} | '
      f'{flops / ours * 1e3 / peak:.1%} | {theirs:.1f} | {ours / theirs:.2f} |',
      flush=True,
    )


def _flops(ours: step.Ours) -> float:
  """Of the loss and the gradients of a batch, as XLA counts them."""
  recipe, variables, batch = ours
  trainable, frozen = training.split(variables.params, recipe.phase)
  run = jax.jit(functools.partial(training.gradient, recipe))
  arguments = trainable, frozen, variables.stats, batch, jax.random.key(0)
  return run.lower(*arguments).cost_analysis()['flops']


def _theirs(case: step.Case, kind: str, compiled: bool) -> Any:
  """One step in torch, in bfloat16 under autocast."""
  from benchmarks import peer_step

  classes = step.num_classes(case, kind)
  if case.image_size:
    peer = peer_step.image_peer(case.timm, case.image_size, classes)
  else:
    make = {'bert': peer_step.bert_peer, 'llama': peer_step.llama_peer}[case.backbone]
    options = plug('backbones', case.backbone)._resolve(None, case.options)._asdict()
    peer = make(options, classes)
  if kind == 'added':
    peer_step.add_lora(peer)
  batch = step.batch_of(case, kind)
  return peer_step.stepper(peer, kind, *batch, compiled, peer_step.torch.bfloat16)


def print_cohorts(small: bool) -> None:
  """Milliseconds a step of each run, and how many times faster than as many one by one."""
  types = ('float32', 'bfloat16')
  print('| runs | ' + ' | '.join(f'{dtype}, ms a run | times' for dtype in types) + ' |')
  print('|--:' * 5 + '|')
  case, alone = _VIT_TI._replace(batch_size=2 if small else 32), {}
  for num_runs in (1, 2, 4) if small else (1, 2, 4, 8, 16, 32, 64):
    cells = []
    for dtype in types:
      ours = ours_of(case, 'full', dtype)
      stepper = step.advancing(ours, num_runs)
      times = step.measure({'tlx': stepper}, 1 if small else 3, 0.1 if small else 0.5)
      found = float(np.median(times['tlx']))
      cells.append(f'{found:.2f} | {alone.setdefault(dtype, found) / found:.1f}')
    print(f'| {num_runs} | {" | ".join(cells)} |', flush=True)


def _pictures(folder: pathlib.Path, num_images: int) -> None:
  """PATH/{train,test}/<class>/<image>: stripes of five directions in noise, 64 px."""
  from PIL import Image

  random, (y, x) = np.random.default_rng(0), np.mgrid[:64, :64]
  for part in ('train', 'test'):
    for label in range(5):
      place = folder / part / f'class{label}'
      place.mkdir(parents=True)
      angle = np.pi * label / 5
      stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) / 2)
      for i in range(num_images):
        pixels = 128 + 60 * stripes[..., None] + random.normal(0, 30, (64, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f'{i}.png')


def _with_weights(folder: pathlib.Path) -> None:
  """Random weights of ViT-Ti under timm's names, for both sides."""
  module, options = plug('backbones', 'vit'), {'variant': 'ti/16', 'image_size': 64}
  network = module.build(1000, **options)
  variables = network.init(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
  path = folder / 'vit_ti.safetensors'
  save_file(_inverse.official(jax.device_get(variables), module.names({}, **options), {}), path)
  models.MODELS['vit_ti'] = models.MODELS['vit_ti']._replace(weights=str(path))


def print_study(small: bool) -> None:
  """Seconds of whole processes: 4 methods x 5 seeds x 3 sizes, and the same in torch."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    _pictures(folder / 'pictures', 12 if small else 40)
    _with_weights(folder)
    (folder / 'study').mkdir()
    args = argparse.Namespace(
      data=str(folder / 'pictures'),
      image_size=64,
      shots=[2] if small else [5, 10, 20],
      seeds=1 if small else 5,
      epochs=2 if small else 20,
      batch_size=8 if small else 32,
      test=4 if small else 40,
    )
    settings = journey.prepare(args, 'vit_ti', folder / 'study')
    seconds = {'tlx, cold': journey.run_tlx(folder / 'study', 'cold')}
    if all(map(importlib.util.find_spec, ('torch', 'timm'))):
      seconds['torch'] = journey.run_peer(folder / 'study')
    seconds['tlx, warm'] = journey.run_tlx(folder / 'study', 'warm')
  print(f'{journey.describe(settings)}\n')
  print(f'| seconds | {" | ".join(seconds)} |\n|---{"|--:" * len(seconds)}|')
  for row in journey.ROWS:
    print(f'| {row} | {" | ".join(f"{of_side[row]:.1f}" for of_side in seconds.values())} |')


def print_probe(small: bool) -> None:
  """Seconds of a probe study and of one forward pass over its images."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    _pictures(folder / 'pictures', 16 if small else 200)
    _with_weights(folder)
    model = models.MODELS['vit_ti'].of_size(64)
    counts = {'train': 12, 'val': 4, 'test': 4} if small else {'train': 140, 'val': 20, 'test': 40}
    data = models.pool(str(folder / 'pictures'), folder / 'data', counts)
    steps = 20 * 5 * counts['train'] // frozen.BATCH
    methods = {'probe': models.phases(model, steps)['probe']}
    models.settings('probe', model, data, folder, methods, (0,), 1, frozen.BATCH)
    print(frozen.times([frozen.turn(folder, i) for i in range(1 if small else 2)]))


if __name__ == '__main__':
  main()
