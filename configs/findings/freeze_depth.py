"""Similarity decides how deep to freeze.

Yosinski et al. 2014 (arXiv:1411.1792, figures 2 and 3): frozen features cost the more, the deeper
they are and the further the target is. Here the target is the same images under other labels
(near), digits turned by 90 degrees or with permuted pixels (far).

  python -m experiments.study --config=configs/findings/freeze_depth.py --workdir=runs/freeze_depth
  ... --confirm
"""

from configs.findings import _digits

NEAR, FAR = 'other_labels', ('rotated_90', 'permuted_pixels')
DEPTHS = tuple(f'freeze_{k}' for k in range(5))


def get_config():
  """5 source networks x 3 targets x 6 methods x 5 seeds x 4 rates."""
  config = _digits.study('Similarity and freeze depth', NEAR, *FAR)
  config.claim = 'Deep freezing pays near the source and costs far from it.'
  config.shots = (50,)
  config.methods = {'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]}} | {
    f'freeze_{k}': {'phases': [{'tune': {'policy': 'after', 'k': k}}]} for k in range(5)
  }
  config.methods.freeze_4.grid = {'learning_rate': (3e-3, 1e-2, 3e-2, 1e-1)}  # a linear probe
  config.baseline = 'scratch'
  deep, none = {'method': DEPTHS[-1]}, {'method': DEPTHS[0]}
  config.claims = (
    {
      'name': 'Near the source, deeper freezing is better',
      'paper': 'Yosinski 2014',
      'kind': 'trend',
      'of': {'target': NEAR},
      'along': {'method': DEPTHS},
    },
    {
      'name': 'Far from it, deeper freezing is worse',
      'paper': 'Yosinski 2014',
      'kind': 'trend',
      'of': {'target': FAR},
      'along': {'method': DEPTHS},
      'expected': 'below',
    },
    {
      'name': 'What freezing everything costs far is more than what it costs near, by 5 points',
      'paper': 'Yosinski 2014',
      'kind': 'interaction',
      'of': {**none, 'target': FAR},
      'minus': deep,
      'than': {'target': NEAR},
      'threshold': 0.05,
    },
    {
      'name': 'Far frozen features transfer negatively, by 5 points',
      'paper': 'Yosinski 2014',
      'of': {**deep, 'target': FAR},
      'minus': {'method': 'scratch'},
      'expected': 'below',
      'threshold': -0.05,
    },
  )
  return config
