"""Fine-tuning is unstable where its rate is high and its steps are few.

Mosbach et al. 2021 (arXiv:2006.04884, table 1): over 25 seeds the scores of BERT on RTE vary by 7.2
points with the usual recipe and by 2.4 with a small rate, warm-up and 20 epochs instead of 3, and
the median rises by 22. Here a vision transformer of digits.

  python -m experiments.study --config=configs/findings/stability.py --workdir=runs/stability
  ... --confirm

`:paper` is BERT on three sets of texts, RTE among them, for a GPU.
"""

from configs.findings import _digits

PAPER = 'Mosbach 2021'


def get_config(scale: str = 'here'):
  """3 source networks x 4 methods x 5 seeds, each at a rate of its own."""
  here = scale == 'here'
  config = _digits.study('Stability', 'uci_digits', scale=scale, backbone='vit' if here else 'bert')
  config.claim = 'A small rate, warm-up and more steps make fine-tuning stable.'
  config.shots = (10,) if here else (0,)
  high = {'tune': 'all', 'steps': 60, 'learning_rate': 2e-2, 'warmup': 0.0}
  steady = {'tune': 'all', 'steps': 400, 'learning_rate': 1e-3, 'warmup': 0.1}
  config.methods = {
    'usual': {'phases': [high]},
    'warmed': {'phases': [{**high, 'warmup': 0.1}]},
    'longer': {'phases': [{**high, 'warmup': 0.1, 'steps': 400}]},
    'steady': {'phases': [steady]},
  }
  config.grid.learning_rate = (1e-3,)  # each method has its own
  config.baseline = 'usual'
  claim = _digits.difference
  config.claims = (
    claim('The usual recipe varies more than the steady one', PAPER, ('usual', 'steady'),
          kind='spread'),
    claim('and more than with warm-up alone', PAPER, ('usual', 'warmed'), kind='spread'),
    claim('The steady recipe is better', PAPER, ('steady', 'usual')),
    claim('Steps alone do not do it: a small rate is better at as many', PAPER,
          ('steady', 'longer')),
  )  # fmt: skip
  return config
