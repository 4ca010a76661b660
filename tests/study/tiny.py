"""A study of seconds: UCI digits turned by 90 degrees to UCI digits, a small MLP."""

from tlx.study.config import base


def get_config(steps='8'):
  config = base()
  config.name = 'tiny'
  config.claim = 'Runs in seconds.'
  config.sources.turned = {
    'backbone': {'name': 'mlp', 'widths': (16, 12)},
    'input': {'image_size': 8, 'channels': 1, 'mean': (0.3,), 'std': (0.4,)},
    'dataset': 'uci_digits',
    'shift': 'rotate_90',
    'train': {'steps': 30, 'batch_size': 32, 'learning_rate': 3e-3},
  }
  config.targets.digits = {'dataset': 'uci_digits'}
  config.methods = {
    'scratch': {'init': 'random'},
    'probe': {'phases': ({'tune': 'head'},)},
    'lp_ft': {
      'phases': ({'tune': 'head', 'learning_rate': 3e-3}, {'tune': 'all', 'layer_decay': 0.5})
    },
  }
  config.shots = (1, 4)
  config.seeds = (0, 1)
  config.grid.learning_rate = (1e-3, 1e-2)
  config.train.steps = int(steps)
  config.train.batch_size = 8
  config.train.evaluations = 2
  config.baseline = 'scratch'
  config.checkpoint_seconds = 0.0  # after every segment
  return config
