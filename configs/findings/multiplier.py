"""How many more examples is a pretrained network worth, and is that factor smaller with more of
them?

Hernandez et al. 2021 (Scaling laws for transfer, arXiv:2102.01293): what pretraining is worth in
examples of the target, D_T = k D_F^a N^b with a = .18 (text to Python) and .096, so that its share
D_T / D_F falls as data grow. That it is worth more than doubling the data is that fine-tuning with
n examples beats training from scratch with 2 n, whatever the curve between them.

  python -m experiments.study --config=configs/findings/multiplier.py --workdir=runs/multiplier
  ... --confirm

The report's table of multipliers has the factor itself, from the curve of scratch.

`:paper` is ResNet-50 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits

PAPER = 'Hernandez 2021'


def get_config(scale: str = 'here'):
  """5 source networks x 3 methods x 5 sizes x 5 seeds x 4 rates."""
  config = _digits.study('Effective data', 'uci_digits', scale=scale)
  config.claim = 'A pretrained network is worth more examples, by a factor that falls.'
  few, many = (5, 40) if scale == 'here' else (1, 4)
  config.shots = tuple(sorted({few, 2 * few, 4 * few, many, 2 * many}))
  half = {'steps': '0.5x'}
  config.methods = {
    'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]},
    'full': {'phases': [{'tune': 'all'}]},
    'lp_ft': {'phases': [{'tune': 'head', 'learning_rate': 1e-2, **half}, {'tune': 'all', **half}]},
  }
  config.baseline = 'scratch'
  config.claims = (
    _times('With few LP-FT is worth double the data', 'lp_ft', few, 2),
    _times('With many it is not', 'lp_ft', many, 2, expected='below'),
    _times('With few full fine-tuning is worth double the data', 'full', few, 2),
    _times('With few LP-FT is worth four times the data', 'lp_ft', few, 4),
    _times('With many LP-FT is worth something', 'lp_ft', many, 1),
  )
  return config


def _times(name: str, method: str, shots: int, times: int, expected: str = 'above') -> dict:
  """A method is above, or below, scratch with so many times its examples."""
  return {
    'name': name,
    'paper': PAPER,
    'of': {'method': method, 'shots': shots},
    'minus': {'method': 'scratch', 'shots': times * shots},
    'expected': expected,
  }
