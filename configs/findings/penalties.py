"""Regularisers that hold on to the source help when data are scarce.

Li et al. 2018 (arXiv:1802.01483, L2-SP), Li et al. 2019 (arXiv:1901.09229, DELTA), Chen et al. 2019
(BSS), You et al. 2020 (Co-Tuning): on 15% of birds, cars and aircraft they gain 2 to 8 points, on
all of them less than 1.5.

  python -m experiments.study --config=configs/findings/penalties.py --workdir=runs/penalties
  ... --confirm

`:paper` is ResNet-50 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits

PENALTIES = {'l2_sp': {'alpha': 0.01}, 'bss': {}, 'delta': {}}


def get_config(scale: str = 'here'):
  """5 source networks x 4 methods x 2 sizes x 5 seeds x 4 rates."""
  config = _digits.study('Penalties and scarce data', 'uci_digits', scale=scale)
  config.claim = 'Penalties help with few examples, and not with many.'
  few, many = (5, 80) if scale == 'here' else (5, 0)
  config.shots = (few, many)
  config.methods = {'full': {'phases': [{'tune': 'all'}]}} | {
    name: {'phases': [{'tune': 'all', 'penalty': {'name': name, **options}}]}
    for name, options in PENALTIES.items()
  }
  config.baseline = 'full'
  claims = []
  for name in PENALTIES:
    claims.append(
      {
        'name': f'With few examples {name} gains a point',
        'paper': 'Li 2018; Chen 2019',
        'of': {'method': name, 'shots': few},
        'minus': {'method': 'full'},
        'threshold': 0.01,
      }
    )
  claims.append(
    {
      'name': 'With few examples L2-SP gains more than with many',
      'paper': 'Li 2018',
      'kind': 'interaction',
      'of': {'method': 'l2_sp', 'shots': few},
      'minus': {'method': 'full'},
      'than': {'shots': many},
    }
  )
  config.claims = tuple(claims)
  return config
