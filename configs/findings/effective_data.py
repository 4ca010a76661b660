"""How many more examples is a pretrained network worth, and is that factor smaller with more of
them?

Hernandez et al. 2021 (Scaling laws for transfer, arXiv:2102.01293): what pretraining is worth in
examples of the target, D_T = k D_F^a N^b with a = .18 (text to Python) and .096, so that its share
D_T / D_F falls as data grow. That it is worth more than doubling the data is that fine-tuning with
n examples beats training from scratch with 2 n, whatever the curve between them.

  python -m experiments.study --config=configs/findings/effective_data.py --workdir=runs/effective
  ... --confirm

The report's table of multipliers has the factor itself, from the curve of scratch.
"""

from configs.findings import _digits

PAPER = 'Hernandez 2021'


def get_config():
  """5 source networks x 3 methods x 5 sizes x 5 seeds x 4 rates."""
  config = _digits.study('Effective data', 'uci_digits')
  config.claim = 'A pretrained network is worth more examples, by a factor that falls.'
  config.shots = (5, 10, 20, 40, 80)
  half = {'steps': 75}
  config.methods = {
    'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]},
    'full': {'phases': [{'tune': 'all'}]},
    'lp_ft': {'phases': [{'tune': 'head', 'learning_rate': 1e-2, **half}, {'tune': 'all', **half}]},
  }
  config.baseline = 'scratch'
  config.claims = (
    _doubling('With 5 a class LP-FT is worth double the data', 'lp_ft', 5),
    _doubling('With 40 a class it is not', 'lp_ft', 40, expected='below'),
    _doubling('With 5 a class full fine-tuning is worth double the data', 'full', 5),
    {
      'name': 'LP-FT with 5 a class is worth four times the data',
      'paper': PAPER,
      'of': {'method': 'lp_ft', 'shots': 5},
      'minus': {'method': 'scratch', 'shots': 20},
    },
    {
      'name': 'With 40 a class LP-FT still beats scratch with as many',
      'paper': PAPER,
      'of': {'method': 'lp_ft', 'shots': 40},
      'minus': {'method': 'scratch'},
    },
  )
  return config


def _doubling(name: str, method: str, shots: int, expected: str = 'above') -> dict:
  """A method is above, or below, scratch with twice its examples."""
  return {
    'name': name,
    'paper': PAPER,
    'of': {'method': method, 'shots': shots},
    'minus': {'method': 'scratch', 'shots': 2 * shots},
    'expected': expected,
  }
