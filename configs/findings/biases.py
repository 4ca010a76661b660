"""Tuning biases alone beats tuning as many weights drawn at random.

Ben Zaken et al. 2022 (BitFit, arXiv:2106.10199, tables 1 and 3, figure 2): biases of BERT have 0.1%
of its parameters and are as good as all (82.3 of 82.4 on GLUE), random subsets of that size lose
three to four points; with few examples biases are better than all, with many worse.

  python -m experiments.study --config=configs/findings/biases.py --workdir=runs/biases
  ... --confirm

`:paper` is ViT-B/16 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits

PAPER = 'Ben Zaken 2022'
BIASES = {'here': 1120, 'paper': 102_912}  # before the head, those of norms among them


def get_config(scale: str = 'here'):
  """3 source networks x 2 sizes x 4 methods x 5 seeds x 4 rates."""
  config = _digits.study('Biases', 'uci_digits', scale=scale, backbone='vit')
  config.claim = (
    'Biases alone are better than as many random weights, and than all with few examples.'
  )
  few, many = (5, 80) if scale == 'here' else (5, 0)
  config.shots = (few, many)
  config.methods = {
    'probe': {'phases': [{'tune': 'head'}]},
    'bias': {'phases': [{'tune': 'bias'}]},
    'random': {'phases': [{'tune': {'policy': 'random', 'weights': BIASES[scale]}}]},
    'full': {'phases': [{'tune': 'all'}]},
  }
  config.grid.learning_rate = (1e-3, 3e-3, 1e-2, 3e-2)
  config.baseline = 'full'
  claim = _digits.difference
  config.claims = (
    claim('Biases beat as many random weights', PAPER, ('bias', 'random')),
    claim('With 5 a class biases beat all weights', PAPER, ('bias', 'full'), shots=few),
    claim('With many they lose to them', PAPER, ('full', 'bias'), shots=many),
    claim('Biases beat a probe', PAPER, ('bias', 'probe')),
  )
  return config
