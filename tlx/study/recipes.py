"""Methods of papers and tools as data: `config.methods.ulmfit = recipes.ulmfit(depth=4, steps=90)`.

Each returns the fields of a method as a config has them, and says where it departs from its source.
"""

from typing import Any


def autogluon(**fields: Any) -> dict[str, Any]:
  """AutoGluon's default of multimodal training (configs/optim/default.yaml): AdamW, layer-wise
  decay 0.9, cosine with a tenth of warm-up, clipped at norm 1, validated twice an epoch, 20 epochs,
  and the greedy soup of the 3 best checkpoints.

  Its grid is one setting, rate 1e-4 and weight decay 1e-3; the study's grid serves here, as for
  every method. It stops early after 10 validations without a gain, which is not done here.
  `fields` are of the phase.
  """
  phase = {
    'tune': 'all',
    'optimizer': 'adamw',
    'layer_decay': 0.9,
    'schedule': 'cosine',
    'warmup': 0.1,
    'clip_norm': 1.0,
    'epochs': 20.0,
    'evaluations': 40,
    'keep': {'name': 'soup', 'top': 3},
  }
  return {'phases': ({**phase, **fields},)}


def ulmfit(depth: int, steps: int, **fields: Any) -> dict[str, Any]:
  """Howard and Ruder 2018, section 3.3: gradual unfreezing from the last of `depth` groups of
  stages (freezing.md) on, `steps` for each, with discriminative rates (2.6 times less a group) and
  slanted triangular rates (cut_frac 0.1, ratio 32) in each phase.

  The paper takes an epoch for each group and then trains all to convergence: give `epochs` instead
  where runs differ in size. `fields` are of every phase.

  >>> [phase['tune']['k'] for phase in ulmfit(3, 100)['phases']]
  [1, 2, 3]
  """
  same = {'steps': steps, 'layer_decay': 1 / 2.6, 'schedule': 'slanted_triangular', **fields}
  return {
    'phases': tuple({'tune': {'policy': 'last', 'k': k}, **same} for k in range(1, depth + 1))
  }


def wise_ft(of: str, start: str = '', points: int = 11) -> dict[str, Any]:
  """WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903): the weights on the line from the start of
  the method `of` to its chosen run, at the share of the way that is best on validation.

  The paper's start is zero-shot: give `of` a head of class names. Another method's run is the start
  where named, such as the probe that LP-FT goes on from. A new head has no start, and is the one
  that was fine-tuned all the way; the paper takes 0.5 where no validation set is to be trusted.

  >>> wise_ft('full', points=3)['merge']['scale']
  (0.0, 0.5, 1.0)
  """
  scale = tuple(round(i / (points - 1), 6) for i in range(points))
  return {'merge': {'name': 'mean', 'of': of, 'over': 'run', 'start': start, 'scale': scale}}


def bit(num_examples: int, **fields: Any) -> dict[str, Any]:
  """The BiT-HyperRule of Kolesnikov et al. 2020 as bit_hyperrule.py has it: SGD with momentum 0.9
  at 0.003 and batches of 512; 500 steps below 20,000 training examples, 10,000 below 500,000, else
  20,000; warm-up, then a tenth of the rate at each of three steps; mixup 0.1 from 20,000 on.

  Resolution is the source's: set `sources.<name>.input.image_size` to 128 for images of an area
  below 96 x 96, else 480; crops and flips are the study's `augment`. The official rate is 0 at the
  first step of the warm-up and falls one step later than here. `fields` are of the phase.

  >>> bit(1000)['phases'][0]['steps'], bit(20_000)['phases'][0]['augment']
  (500, {'mixup': 0.1})
  """
  if num_examples < 20_000:
    warm, *falls, steps = 100, 200, 300, 400, 500
  elif num_examples < 500_000:
    warm, *falls, steps = 500, 3000, 6000, 9000, 10_000
  else:
    warm, *falls, steps = 500, 6000, 12_000, 18_000, 20_000
  at = tuple((fall - warm) / (steps - warm) for fall in falls)
  phase = {
    'tune': 'all',
    'steps': steps,
    'batch_size': 512,
    'optimizer': {'name': 'sgd', 'momentum': 0.9},
    'learning_rate': 0.003,
    'warmup': warm / steps,
    'schedule': {'name': 'staircase', 'at': at, 'factor': 0.1},
    **({'augment': {'mixup': 0.1}} if num_examples >= 20_000 else {}),
  }
  return {'phases': ({**phase, **fields},)}
