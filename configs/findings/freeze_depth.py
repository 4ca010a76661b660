"""Similarity decides how deep to freeze.

Yosinski et al. 2014 (arXiv:1411.1792, figures 2 and 3): frozen features cost the more, the deeper
they are and the further the target is. Here the target is the same images under other labels
(near), digits turned by 90 degrees or with permuted pixels (far).

  python -m experiments.study --config=configs/findings/freeze_depth.py --workdir=runs/freeze_depth
  ... --confirm

`:paper` is ResNet-50 on pets under the same changes, for a GPU.
"""

from configs.findings import _digits

NEAR, FAR = 'other_labels', ('rotated_90', 'permuted_pixels')


def get_config(scale: str = 'here'):
  """5 source networks x 3 targets x 6 methods x 5 seeds x 4 rates."""
  config = _digits.study('Similarity and freeze depth', NEAR, *FAR, scale=scale)
  config.claim = 'Deep freezing pays near the source and costs far from it.'
  config.shots = (50,) if scale == 'here' else (0,)
  depths = range(5) if scale == 'here' else (0, *_digits.GROUPS.values())
  names = tuple(f'freeze_{k}' for k in depths)
  config.methods = {'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]}} | {
    name: {'phases': [{'tune': {'policy': 'after', 'k': k}}]} for name, k in zip(names, depths)
  }
  config.methods[names[-1]].grid = {'learning_rate': (3e-3, 1e-2, 3e-2, 1e-1)}  # a linear probe
  config.baseline = 'scratch'
  deep, none = {'method': names[-1]}, {'method': names[0]}
  config.claims = (
    {
      'name': 'Near the source, deeper freezing is better',
      'paper': 'Yosinski 2014',
      'kind': 'trend',
      'of': {'target': NEAR},
      'along': {'method': names},
    },
    {
      'name': 'Far from it, deeper freezing is worse',
      'paper': 'Yosinski 2014',
      'kind': 'trend',
      'of': {'target': FAR},
      'along': {'method': names},
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
