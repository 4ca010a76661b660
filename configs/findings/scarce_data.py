"""Transfer helps most when data are scarce.

Kornblith et al. 2019 (arXiv:1805.08974, figure 8), He et al. 2019 (arXiv:1811.08883, figure 7): the
gain over training from scratch is large with few examples and goes to nothing with many.

  python -m experiments.study --config=configs/findings/scarce_data.py --workdir=runs/scarce_data
  ... --confirm

`:paper` is ResNet-50 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits


def get_config(scale: str = 'here'):
  """5 source networks x 3 methods x 4 sizes x 5 seeds x 4 rates."""
  config = _digits.study('Transfer and scarce data', 'uci_digits', scale=scale)
  config.claim = 'The gain of fine-tuning over scratch is there with few examples, and goes.'
  few, many = (2, 80) if scale == 'here' else (2, 0)
  config.shots = (few, 5, 20, many)
  config.methods = {
    'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]},
    'full': {'phases': [{'tune': 'all'}]},
    'lp_ft': {
      'phases': [{'tune': 'head', 'learning_rate': 1e-2, 'steps': 75}, {'tune': 'all', 'steps': 75}]
    },
  }
  config.baseline = 'scratch'
  of, minus = {'method': 'full', 'shots': few}, {'method': 'scratch'}
  config.claims = (
    {
      'name': 'With few examples fine-tuning beats scratch',
      'paper': 'Kornblith 2019',
      'of': of,
      'minus': minus,
    },
    {
      'name': 'With many examples it gains less than a point',
      'paper': 'He 2019',
      'of': {**of, 'shots': many},
      'minus': minus,
      'expected': 'below',
      'threshold': 0.01,
    },
    {
      'name': 'The gain with few is larger than that with many',
      'paper': 'Kornblith 2019',
      'kind': 'interaction',
      'of': of,
      'minus': minus,
      'than': {'shots': many},
    },
  )
  return config
