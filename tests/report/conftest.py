"""Synthetic study folders in the form of docs/results.md."""
import json
import math

import numpy as np
import pytest

# name: (init, frozen stages of 5, phases, trained parameters, gain in accuracy over scratch at 1 shot on the near target)
METHODS = {
    'scratch': ('random', 0, 1, 23456, 0.0), 'full': ('source', 0, 1, 23456, 0.12), 'freeze2': ('source', 2, 1, 12000, 0.16),
    'linear': ('source', 4, 1, 650, 0.15), 'lp_ft': ('source', 0, 2, 23456, 0.17), 'lora': ('source', 0, 1, 900, 0.13),
    'bitfit': ('source', 0, 1, 300, 0.11), 'l2_sp': ('source', 0, 1, 23456, 0.12)}


def _make_study(folder, *, sources=('mnist',), targets=('digits', 'textures'), methods=tuple(METHODS), shots=(1, 5),
               seeds=(0, 1, 2, 3, 4), rates=(0.001, 0.003, 0.01), baseline='scratch', diverged=True, num_runs=None, claim='A claim.'):
  """Writes a study whose last target, if there are two, is far: transfer hurts there. The rate of 0.003 is best."""
  random = np.random.default_rng(0)
  runs = [(s, t, m, k, seed, rate) for s in sources for t in targets for m in methods for k in shots for seed in seeds for rate in rates]
  chosen = 0.003 if 0.003 in rates else rates[-1]
  luck = {(t, k, seed): random.normal(0, 0.02) for t in targets for k in shots for seed in seeds}
  for source, target, method, size, seed, rate in runs:
    far = target == targets[-1] and len(targets) > 1
    gain = METHODS[method][4] * (-0.4 if far else 1) / (1 + 0.5 * math.log(size))
    score = 0.55 + 0.08 * math.log(size) + gain + luck[target, size, seed] + random.normal(0, 0.005) - 0.02 * abs(math.log(rate / chosen))
    broken = diverged and (method, size, rate, seed, target) == ('full', shots[0], rates[-1], seeds[-1], targets[0])
    _write_run(folder, (source, target, method, size, seed, rate), float(np.clip(score, 0, 0.995)), rate == chosen, broken)
  study = {'name': 'Digits from MNIST', 'claim': claim, 'versions': {'jax': '0.10.2', 'tlx': '0.1.0'}, 'devices': ['TFRT_CPU_0'],
           'plan': {'num_runs': num_runs or len(runs)},
           'config': {'baseline': baseline, 'methods': {m: {} for m in methods}, 'sources': list(sources), 'targets': list(targets)}}
  (folder / 'study.json').write_text(json.dumps(study))
  return folder


def _write_run(folder, cell, score, chosen=True, broken=False):
  """One run folder of a cell (source, target, method, shots, seed, learning rate)."""
  source, target, method, size, seed, rate = cell
  init, frozen, num_phases, trained, _ = METHODS[method]
  name = f'{source}-{target}-{method}-{size}shot-seed{seed}-lr{rate}'
  run = folder / 'runs' / name
  run.mkdir(parents=True)
  steps = 50 + 50 * size
  result = {
      'id': name, 'cell': dict(zip(('source', 'target', 'method', 'shots', 'seed', 'learning_rate'), cell), weight_decay=0.0),
      'status': 'diverged at step 7' if broken else 'ok', 'chosen': chosen and not broken, 'init': init,
      'frozen_stages': frozen, 'num_stages': 5, 'val': {'accuracy': score + 0.01, 'loss': 1 - score, 'count': 300},
      'test': {'accuracy': score, 'loss': 1.1 - score, 'count': 597} if chosen and not broken else None,
      'cost': {'trainable_params': trained, 'total_params': 23456 + 900 * (method == 'lora'), 'optimizer_bytes': 8 * trained,
               'train_flops': 3e5 * (23456 + trained) * size, 'steps': steps, 'train_seconds': (trained + 9000) * steps * 1e-7,
               'compile_seconds': 0.1, 'peak_memory_bytes': 123456789},
      'phases': [{'steps': steps // num_phases, 'trainable_params': trained, 'frozen_sha256_before': f'{i}a', 'frozen_sha256_after': f'{i}a'}
                 for i in range(num_phases)],
      'cohort': f'{source}-{target}-{method}-b32', 'source_sha256': 'ab' * 32, 'data_sha256': 'cd' * 32}
  lines = [{'step': step, 'phase': 0, 'loss': 1.0, 'grad_norm': 1.0, 'val_loss': 1.0,
            'val_accuracy': (score + 0.01) * (1 - math.exp(-4 * step / steps)) / (1 - math.exp(-4))}
           for step in range(steps // 5, steps + 1, steps // 5)]
  (run / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  (run / 'result.json').write_text(json.dumps(result))


@pytest.fixture(scope='session')
def study(tmp_path_factory):
  """8 methods, 2 sizes, 5 seeds, 3 rates, two targets, one diverged run; 480 runs of a planned 500. Read only."""
  return _make_study(tmp_path_factory.mktemp('study'), num_runs=500)


@pytest.fixture(scope='session')
def make_study():
  """make_study(folder, **options) -> folder."""
  return _make_study


@pytest.fixture(scope='session')
def write_run():
  """write_run(folder, cell, score, chosen=True, broken=False)."""
  return _write_run
