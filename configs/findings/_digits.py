"""What the findings on digits share: five small networks trained on MNIST, and seeds that are kept
for confirming.

At the scale of papers (`:paper`) it is ResNet-50, trained on ImageNet, and public sets of images:
for a GPU, weights and data are fetched.
"""

import ml_collections

from tlx.study.config import base

FAR = 'rotated_90'
TARGETS = {
  'other_labels': {'dataset': 'mnist_5k', 'shift': 'relabel_mod5'},
  'shifted_2px': {'dataset': 'mnist_5k', 'shift': 'translate_2px'},
  'uci_digits': {'dataset': 'uci_digits'},
  'rotated_90': {'dataset': 'mnist_5k', 'shift': 'rotate_90'},
  'inverted': {'dataset': 'mnist_5k', 'shift': 'invert'},
  'permuted_pixels': {'dataset': 'mnist_5k', 'shift': 'permute_pixels'},
}


def study(name: str, *targets: str, scale: str = 'here') -> ml_collections.ConfigDict:
  """A study from MNIST to digits at a known distance, 5 source networks and 5 seeds; without its
  sizes, methods and claims.

  Raises:
    ValueError: another scale than 'here' or 'paper'.
  """
  if scale not in ('here', 'paper'):
    raise ValueError(f"A finding's argument is its scale, here or paper, got {scale!r}.")
  config = base()
  config.name = name
  config.seeds = (0, 1, 2, 3, 4)
  if scale == 'paper':
    return _of_paper(config)
  config.confirm = {'seeds': (20, 21, 22, 23, 24), 'source_seeds': (10, 11, 12, 13, 14)}
  config.sources.mnist = {
    'backbone': {'name': 'mlp', 'widths': (128, 128, 128, 64)},
    'input': {'image_size': 14, 'channels': 1, 'mean': (0.13,), 'std': (0.3,)},
    'dataset': 'mnist_5k',
    'seeds': (0, 1, 2, 3, 4),
    'train': {'steps': 1000, 'batch_size': 128, 'learning_rate': 1e-3},
  }
  config.targets = {name: TARGETS[name] for name in targets}
  config.train.steps = 150
  config.train.evaluations = 2
  config.grid.learning_rate = (3e-4, 1e-3, 3e-3, 1e-2)
  return config


def _of_paper(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  config.sources.imagenet = {
    'backbone': {'name': 'resnet', 'variant': 'resnet50', 'dtype': 'bfloat16'},
    'weights': 'torchhub:resnet50-0676ba61.pth',
    'input': {'image_size': 224},
  }
  config.targets = {name: {'dataset': f'vtab1k:{name}'} for name in ('pets', 'dtd', 'eurosat')}
  config.confirm = {'seeds': (20, 21, 22, 23, 24)}
  config.train.steps = 2500
  config.train.batch_size = 64
  config.train.augment = {'flip': 0.5}
  config.grid.learning_rate = (3e-5, 1e-4, 3e-4, 1e-3)
  return config
