"""Advice on trial: is the depth that the advice freezes to, before any training, a good one?

Every depth is trained from three source networks on near and far targets at several sizes, so that
whatever depth the advice would have taken is there to be compared with the best, with tuning all,
with freezing all and with a depth at random (experiments.advise --trial). `:mnist` is where a rule
may be made, `:uci` where it is judged: other sources, other targets. Any other argument is a folder
of photographs, or a data set such as `csv:PATH`: from EfficientNet-Lite0, 64 pixels.

  python -m experiments.study --config=configs/advice_on_trial.py --workdir=runs/trial
  python -m experiments.advise --config=configs/advice_on_trial.py --workdir=runs/trial --trial

Found: docs/scores.md.
"""

from configs.imagenet_to_folder import LITE0
from tlx.study.config import base

SHIFTS = {
  'other_labels': 'relabel_mod5',
  'shifted_2px': 'translate_2px',
  'rotated_90': 'rotate_90',
  'inverted': 'invert',
  'permuted_pixels': 'permute_pixels',
}
DATASETS = {'mnist': 'mnist_5k', 'uci': 'uci_digits'}


def get_config(source='mnist'):
  """3 source networks x 6 targets x 5 freeze depths x 3 sizes x 5 seeds x 3 learning rates; of
  photographs 1 x 3 x 7 x 2 x 5 x 2.
  """
  if source not in DATASETS:
    return _photographs(source if ':' in source else f'folder:{source}')
  other = next(name for name in DATASETS if name != source)
  config = base()
  config.name = f'Advice on trial: from {source}'
  config.sources[source] = {
    'backbone': {'name': 'mlp', 'widths': (128, 128, 128, 64)},
    'input': {'image_size': 14, 'channels': 1, 'mean': (0.13,), 'std': (0.3,)},
    'dataset': DATASETS[source],
    'seed': 31,  # fresh, as all seeds here: the rule was found with others
    'seeds': (31, 32, 33),
    'train': {'steps': 1000, 'batch_size': 128, 'learning_rate': 1e-3},
  }
  config.targets = {
    f'{other}_digits': {'dataset': DATASETS[other]},
    **{name: {'dataset': DATASETS[source], 'shift': shift} for name, shift in SHIFTS.items()},
  }
  config.methods = {
    f'freeze_{k}': {'phases': [{'tune': {'policy': 'after', 'k': k}}]} for k in range(5)
  }
  config.methods.freeze_4.grid = {'learning_rate': (3e-3, 1e-2, 3e-2)}  # a linear probe
  config.baseline = 'freeze_0'
  config.shots = (5, 20, 50)
  config.seeds = (41, 42, 43, 44, 45)
  config.train.steps = 150
  config.train.evaluations = 2
  config.grid.learning_rate = (1e-3, 3e-3, 1e-2)
  return config


# {how many of the 18 groups before the head are frozen: rates}; blocks of one size go together
DEPTHS = {
  **dict.fromkeys((0, 4, 9), (1e-4, 1e-3)),
  **dict.fromkeys((12, 16), (3e-4, 3e-3)),
  **dict.fromkeys((17, 18), (1e-3, 1e-2)),
}


def _photographs(data):
  config = base()
  config.name = f'Advice on trial: from ImageNet to {data}'
  config.sources.imagenet = {**LITE0, 'input': {'image_size': 64, 'fit': 'squeeze', 'crop': 1.0}}
  config.targets = {
    'photographs': {'dataset': data},
    'handwriting': {'dataset': 'mnist_5k'},
    'digits': {'dataset': 'uci_digits'},
  }
  config.methods = {
    f'freeze_{k}': {
      'phases': [{'tune': {'policy': 'after', 'k': k, 'norms': 'frozen'}}],
      'grid': {'learning_rate': rates},
    }
    for k, rates in DEPTHS.items()
  }
  config.grid.learning_rate = DEPTHS[0]
  config.baseline = 'freeze_0'
  config.shots = (5, 20)
  config.seeds = (51, 52, 53, 54, 55)
  config.train.steps = 40
  config.train.batch_size = 16
  config.train.evaluations = 1
  return config
