"""Synthetic study folders in the form of docs/results.md."""

import hashlib
import itertools
import json
import math

import numpy as np
import pytest

# name: (init, frozen stages of 5, phases, trained parameters, gain in accuracy over scratch at 1
# shot on the near target)
METHODS = {
  'scratch': ('random', 0, 1, 23456, 0.0),
  'full': ('source', 0, 1, 23456, 0.12),
  'freeze2': ('source', 2, 1, 12000, 0.16),
  'linear': ('source', 4, 1, 650, 0.15),
  'lp_ft': ('source', 0, 2, 23456, 0.17),
  'lora': ('source', 0, 1, 900, 0.13),
  'bitfit': ('source', 0, 1, 300, 0.11),
  'l2_sp': ('source', 0, 1, 23456, 0.12),
}
# Solved exactly, with the head after the second stage, the third or the last: (head_after, all
# stages, gain)
PROBES = {'probe_b': ('b', 5, 0.2), 'probe_a': ('a', 4, 0.05), 'probe': ('', 5, 0.15)}
_ROWS = METHODS | {
  name: ('source', num_stages - 1, 1, 650, gain) for name, (_, num_stages, gain) in PROBES.items()
}
ALL = 156  # examples a class that shots 0 stands for


def _make_study(
  folder,
  *,
  sources=('mnist',),
  targets=('digits', 'textures'),
  methods=tuple(METHODS),
  shots=(1, 5),
  seeds=(0, 1, 2, 3, 4),
  rates=(0.001, 0.003, 0.01),
  baseline='scratch',
  diverged=True,
  num_runs=None,
  claim='A claim.',
):
  """Writes a study whose last target, if there are two, is far: transfer hurts there. The rate of
  0.003 is best.
  """
  random = np.random.default_rng(0)
  runs = list(itertools.product(sources, targets, methods, shots, seeds, rates))
  chosen = 0.003 if 0.003 in rates else rates[-1]
  luck = {key: random.normal(0, 0.02) for key in itertools.product(targets, shots, seeds)}
  for source, target, method, size, seed, rate in runs:
    far = target == targets[-1] and len(targets) > 1
    examples = math.log(size or ALL)
    gain = _ROWS[method][4] * (-0.4 if far else 1) / (1 + 0.5 * examples)
    score = (
      0.5
      + 0.07 * examples
      + gain
      + luck[target, size, seed]
      + random.normal(0, 0.005)
      - 0.02 * abs(math.log(rate / chosen))
    )
    broken = diverged and (method, size, rate, seed, target) == (
      'full',
      shots[0],
      rates[-1],
      seeds[-1],
      targets[0],
    )
    _write_run(
      folder,
      (source, target, method, size, seed, rate),
      float(np.clip(score, 0, 0.995)),
      rate == chosen,
      broken,
    )
  study = {
    'name': 'Digits from MNIST',
    'claim': claim,
    'versions': {'jax': '0.10.2', 'tlx': '0.1.0'},
    'devices': ['TFRT_CPU_0'],
    'plan': {'num_runs': num_runs or len(runs)},
    'config': {
      'baseline': baseline,
      'methods': {m: _config(m) for m in methods},
      'sources': list(sources),
      'targets': list(targets),
    },
  }
  (folder / 'study.json').write_text(json.dumps(study))
  return folder


def _config(method):
  phase = (
    {'tune': 'head', 'solver': 'logistic'}
    if method in PROBES
    else {'tune': method, 'solver': 'sgd', 'batch_size': 32}
  )
  return {
    'init': _ROWS[method][0],
    'head_after': PROBES[method][0] if method in PROBES else '',
    'phases': [phase] * _ROWS[method][2],
  }


def _write_run(folder, cell, score, chosen=True, broken=False, all_shots=ALL):
  """One run folder of a cell (source, target, method, shots, seed, learning rate; of a probe the
  penalty).
  """
  source, target, method, size, seed, rate = cell
  init, frozen, num_phases, trained, _ = _ROWS[method]
  rates = (1.0, rate) if method in PROBES else (rate, 0.0)
  name = f'{source}-{target}-{method}-{size}shot-seed{seed}-lr{rate}'
  run = folder / 'runs' / name
  run.mkdir(parents=True)
  steps = 1 if method in PROBES else 50 + 50 * size
  result = {
    'id': name,
    'cell': dict(
      zip(
        ('source', 'target', 'method', 'shots', 'seed', 'learning_rate', 'weight_decay'),
        (*cell[:5], *rates),
      )
    ),
    'status': 'diverged at step 7' if broken else 'ok',
    'chosen': chosen and not broken,
    'init': init,
    'num_train': 10 * (size or all_shots),
    'num_classes': 10,
    'frozen_stages': frozen,
    'num_stages': PROBES[method][1] if method in PROBES else 5,
    'val': {'accuracy': score + 0.01, 'loss': 1 - score, 'count': 300},
    'test': {'accuracy': score, 'loss': 1.1 - score, 'count': 597}
    if chosen and not broken
    else None,
    'cost': {
      'trainable_params': trained,
      'total_params': 23456 + 900 * (method == 'lora'),
      'optimizer_bytes': 8 * trained,
      'train_flops': 3e5 * (23456 + trained) * size,
      'steps': steps,
      'train_seconds': (trained + 9000) * steps * 1e-7,
      'feature_seconds': 0.25 if frozen else 0.0,
      'compile_seconds': 0.1,
      'compiled_programs': 2,
      'peak_memory_bytes': 123456789,
    },
    'phases': [
      {
        'steps': steps // num_phases,
        'trainable_params': trained,
        'reused_stages': 4 if i < num_phases - 1 else frozen,
        'frozen_sha256_before': f'{i}a',
        'frozen_sha256_after': f'{i}a',
      }
      for i in range(num_phases)
    ],
    'cohort': f'{source}-{target}-{method}-b32',
    'source_sha256': 'ab' * 32,
    'data_sha256': 'cd' * 32,
  }
  lines = [
    {
      'step': step,
      'phase': 0,
      'loss': 1.0,
      'grad_norm': 1.0,
      'val_loss': 1.0,
      'val_accuracy': (score + 0.01) * (1 - math.exp(-4 * step / steps)) / (1 - math.exp(-4)),
    }
    for step in (range(steps // 5, steps + 1, steps // 5) if steps > 1 else (1,))
  ]
  (run / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  (run / 'result.json').write_text(json.dumps(result))


@pytest.fixture(scope='session')
def study(tmp_path_factory):
  """8 methods, 2 sizes, 5 seeds, 3 rates, two targets, one diverged run; 480 runs of a planned 500.
  Read only.
  """
  return _make_study(tmp_path_factory.mktemp('study'), num_runs=500)


@pytest.fixture(scope='session')
def make_study():
  """make_study(folder, **options) -> folder."""
  return _make_study


@pytest.fixture(scope='session')
def write_run():
  """write_run(folder, cell, score, chosen=True, broken=False, all_shots=156)."""
  return _write_run


@pytest.fixture(scope='session')
def change_runs():
  """change_runs(folder, change): change(result) edits every result.json in place, and may say which
  it left alone by `False`.
  """

  def change_all(folder, change):
    for path in sorted(folder.glob('runs/*/result.json')):
      result = json.loads(path.read_text())
      if change(result) is not False:
        path.write_text(json.dumps(result))

  return change_all


@pytest.fixture(scope='session')
def sign():
  """sign(folder): gives every run the digests that a study writes."""

  def sign_all(folder):
    for path in folder.glob('runs/*/result.json'):
      result = json.loads(path.read_text()) | {
        'files': {
          file.name: hashlib.sha256(file.read_bytes()).hexdigest()
          for file in path.parent.iterdir()
          if file != path
        }
      }
      result['sha256'] = hashlib.sha256(
        json.dumps(result, sort_keys=True, ensure_ascii=False).encode()
      ).hexdigest()
      path.write_text(json.dumps(result, indent=1))

  return sign_all


@pytest.fixture(scope='session')
def predict():
  """predict(folder, right): predictions.npz of every tested run; right(result) -> [N] booleans of N
  examples of its classes in turn.
  """

  def predict_all(folder, right):
    for path in folder.glob('runs/*/result.json'):
      result = json.loads(path.read_text())
      if result['test']:
        correct = np.asarray(right(result), bool)
        labels = np.arange(len(correct)) % result['num_classes']
        logits = np.eye(result['num_classes'], dtype=np.float32)[
          np.where(correct, labels, (labels + 1) % result['num_classes'])
        ]
        np.savez(
          path.parent / 'predictions.npz',
          ids=np.array([f'test/{i}' for i in range(len(labels))]),
          labels=labels,
          logits=logits,
        )
        result['test'] |= {'accuracy': float(np.float32(correct.mean())), 'count': len(correct)}
        path.write_text(json.dumps(result))

  return predict_all
