"""Reuse or scaling: how much of transfer is features, how much the size of the weights?

Raghu et al. 2019 (arXiv:1902.07208, section 5): weights drawn with the mean and variance of each
pretrained tensor begin with good scales and without features, and lie between scratch and transfer.

  python -m experiments.study --config=configs/findings/mean_var.py --workdir=runs/mean_var
  ... --confirm

`:paper` is ResNet-50 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits


def get_config(scale: str = 'here'):
  """5 source networks x 3 methods x 2 sizes x 5 seeds x 4 rates."""
  config = _digits.study('Reuse or scaling', 'uci_digits', scale=scale)
  config.claim = 'Mean-Var lies between scratch and transfer.'
  config.shots = (5, 20)
  config.methods = {
    'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]},
    'mean_var': {'init': 'mean_var', 'phases': [{'tune': 'all'}]},
    'full': {'phases': [{'tune': 'all'}]},
  }
  config.baseline = 'scratch'
  config.claims = (
    {
      'name': 'Scales alone beat scratch',
      'paper': 'Raghu 2019',
      'of': {'method': 'mean_var'},
      'minus': {'method': 'scratch'},
    },
    {
      'name': 'Features beat scales alone',
      'paper': 'Raghu 2019',
      'of': {'method': 'full'},
      'minus': {'method': 'mean_var'},
    },
  )
  return config
