"""Features of all layers beat those of the last where the target is far.

Evci et al. 2022 (Head2Toe, arXiv:2201.03529, figure 1 and table 1): a linear map of features of all
layers, chosen by group lasso, is as good as fine-tuning on VTAB, and gains most over the last layer
where the target is far from the source. Chosen here by the weights of a first probe.

  python -m experiments.study --config=configs/findings/intermediate.py --workdir=runs/intermediate
  ... --confirm

`:paper` is ResNet-50 on pets under the same changes, for a GPU.
"""

from configs.findings import _digits

PAPER = 'Evci 2022'
NEAR, FAR = 'other_labels', ('rotated_90', 'inverted')
STAGES = ('dense1', 'dense2', 'dense3', 'dense4')


def get_config(scale: str = 'here'):
  """5 source networks x 3 targets x 4 methods x 5 seeds x 4 rates."""
  config = _digits.study('Intermediate features', NEAR, *FAR, scale=scale)
  config.claim = 'A probe of all layers beats one of the last, the more the farther the target.'
  config.shots = (50,) if scale == 'here' else (0,)
  stages = STAGES if scale == 'here' else tuple(_digits.GROUPS)
  everywhere, probe = {'head_after': {'stage': stages}}, {'tune': 'head'}
  config.methods = {
    'last': {'phases': [probe]},
    'all_layers': {**everywhere, 'phases': [probe]},
    'chosen': {
      **everywhere,
      'phases': [
        {**probe, 'steps': '0.5x'},
        {'tune': {'policy': 'select', 'share': 0.2}, 'steps': '0.5x'},
      ],
    },
    'full': {'phases': [{'tune': 'all'}]},
  }
  config.grid.learning_rate = (1e-3, 3e-3, 1e-2, 3e-2)
  config.baseline = 'last'
  claim, far = _digits.difference, {'target': FAR}
  config.claims = (
    claim('Far, all layers beat the last', PAPER, ('all_layers', 'last'), **far),
    claim('Far, they gain more than near', PAPER, ('all_layers', 'last'), kind='interaction',
          than={'target': NEAR}, **far),
    claim('Far, a fifth of their features is as good within a point', PAPER,
          ('chosen', 'all_layers'), -0.01, **far),
    claim('Far, they are within a point of full fine-tuning', PAPER, ('all_layers', 'full'), -0.01,
          **far),
  )  # fmt: skip
  return config
