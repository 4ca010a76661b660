"""MNIST to near and far targets: how deep to freeze follows from how alike source and target are.

Claim: near the source (the same images under other labels) the deepest freezing is best; the
further the target (shifted, UCI digits, turned, inverted, permuted pixels), the less may be frozen,
and on the furthest nothing is gained over training from scratch (Yosinski et al. 2014, on ImageNet
halves). No validation or test image of any target was in the source's training part; their training
images were.

  python -m experiments.study --config=configs/mnist_to_near_and_far.py --workdir=runs/near_and_far
"""

from tlx.study.config import base


def get_config():
  """6 targets x (scratch, 5 freeze depths) x 2 sizes x 5 seeds x 5 learning rates."""
  config = base()
  config.name = 'MNIST to near and far targets'
  config.claim = (
    'The best freeze depth follows the similarity of the domains: deepest for the same images with '
    'other labels, none for far targets, of which permuted pixels show negative transfer.'
  )
  config.sources.mnist = {
    'backbone': {'name': 'mlp', 'widths': (128, 128, 128, 64)},
    'input': {'image_size': 14, 'channels': 1, 'mean': (0.13,), 'std': (0.3,)},
    'dataset': 'mnist_5k',
    'train': {'steps': 1000, 'batch_size': 128, 'learning_rate': 1e-3},
  }
  config.targets = {
    'other_labels': {'dataset': 'mnist_5k', 'shift': 'relabel_mod5'},
    'shifted_2px': {'dataset': 'mnist_5k', 'shift': 'translate_2px'},
    'uci_digits': {'dataset': 'uci_digits'},
    'rotated_90': {'dataset': 'mnist_5k', 'shift': 'rotate_90'},
    'inverted': {'dataset': 'mnist_5k', 'shift': 'invert'},
    'permuted_pixels': {'dataset': 'mnist_5k', 'shift': 'permute_pixels'},
  }
  config.methods = {'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]}} | {
    f'freeze_{k}': {'phases': [{'tune': {'policy': 'after', 'k': k}}]} for k in range(5)
  }
  config.methods.freeze_4.grid = {'learning_rate': (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)}  # a linear probe
  config.shots = (10, 50)
  config.train.steps = 150
  config.train.evaluations = 2
  config.seeds = (10, 11, 12, 13, 14)  # fresh: sources, steps and rates were settled with others
  config.grid.learning_rate = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
  config.baseline = 'scratch'
  return config
