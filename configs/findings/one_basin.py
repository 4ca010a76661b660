"""Do two networks fine-tuned from one source lie in one basin of the loss?

Neyshabur et al. 2020 (arXiv:2008.11687, sections 3.2 and 3.3; ImageNet to CheXpert and DomainNet):
between two fine-tuned networks the loss is not higher than at either, between two from scratch it
is, and fine-tuned ones are nearer to each other. Mean-Var (Raghu et al. 2019) is the control of
what scales alone do.

  python -m experiments.study --config=configs/findings/one_basin.py --workdir=runs/one_basin
  ... --confirm

The thresholds of differences were written before the study was run, from a pilot with one source
and other seeds; those of the ratios after, when it had shown that new heads that begin differently
raise a barrier of their own.

`:paper` is ViT-B/16 on three sets of VTAB, for a GPU.
"""

from configs.findings import _weights


def get_config(scale: str = 'here'):
  """3 source networks x 4 methods x 5 seeds."""
  config = _weights.study(
    'One basin',
    'Two networks fine-tuned from one source have no barrier between them, two from scratch have.',
    scale,
  )
  config.shots = (0,)
  config.seeds = (30, 31, 32, 33, 34)
  if scale == 'here':
    config.train.steps = 400
  config.train.evaluations = 4
  config.grid.learning_rate = (1e-3,)
  config.methods = {
    'scratch': {'init': 'random'},
    'mean_var': {'init': 'mean_var'},
    'full': {},
    'lp_ft': {
      'phases': [{'tune': 'head', 'steps': '0.5x', 'learning_rate': 1e-2}, {'steps': '0.5x'}]
    },
  }
  config.evaluators = ('barrier',)
  config.baseline = 'scratch'
  paper = 'Neyshabur et al. 2020'
  scratch, full, lp_ft = ({'method': name} for name in ('scratch', 'full', 'lp_ft'))
  config.claims = (
    {
      'name': 'The accuracy barrier is lower between fine-tuned networks than from scratch',
      'paper': paper,
      'of': scratch,
      'minus': full,
      'column': 'accuracy_barrier',
      'threshold': 0.3,
    },
    {
      'name': 'So is that of the loss',
      'paper': paper,
      'of': scratch,
      'minus': full,
      'column': 'loss_barrier',
      'threshold': 0.5,
    },
    {
      'name': 'Fine-tuned networks are nearer to each other',
      'paper': paper,
      'of': scratch,
      'minus': full,
      'column': 'line_distance',
      'threshold': 5.0,
    },
    {
      'name': "The source's scales alone make no common basin",
      'of': {'method': 'mean_var'},
      'minus': full,
      'column': 'accuracy_barrier',
      'threshold': 0.3,
    },
    {
      'name': 'Of the barrier from scratch a tenth is left',
      'paper': paper,
      'kind': 'ratio',
      'of': full,
      'minus': scratch,
      'column': 'accuracy_barrier',
      'expected': 'below',
      'threshold': 0.1,
    },
    {
      'name': 'and so it is where heads are trained first',
      'kind': 'ratio',
      'of': lp_ft,
      'minus': scratch,
      'column': 'accuracy_barrier',
      'expected': 'below',
      'threshold': 0.1,
    },
  )
  return config
