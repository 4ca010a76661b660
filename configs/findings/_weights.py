"""What the findings about the weights between networks share: a small convolutional network trained
on MNIST with three seeds, digits as its target, and seeds that are kept for confirming.
"""

import ml_collections

from configs.findings import _digits
from tlx.study.config import base


def study(name: str, claim: str, scale: str) -> ml_collections.ConfigDict:
  """A study from MNIST to digits, without its sizes, methods and claims."""
  if scale == 'paper':
    config = _digits.study(name, 'uci_digits', scale=scale, backbone='vit')
    config.claim = claim
    return config
  config = base()
  config.name, config.claim = name, claim
  config.sources.mnist = {
    'backbone': {'name': 'cnn', 'channels': (8, 16, 32), 'hidden': 64},
    'input': {'image_size': 16, 'channels': 1, 'mean': (0.13,), 'std': (0.3,)},
    'dataset': 'mnist_5k',
    'seeds': (0, 1, 2),
    'train': {
      'steps': 1200,
      'batch_size': 128,
      'learning_rate': 2e-3,
      'augment': {'shift': 1, 'crop': 2},
    },
  }
  config.targets.digits = {'dataset': 'uci_digits'}
  config.confirm = {'seeds': (20, 21, 22, 23, 24), 'source_seeds': (10, 11, 12)}
  config.train.batch_size = 32
  return config
