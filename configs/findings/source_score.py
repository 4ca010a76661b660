"""Do better source networks transfer better?

Kornblith et al. 2019 (arXiv:1805.08974, figures 1 and 2; table 2): over 16 networks accuracy on
ImageNet and on the target correlate, r = 0.99 for fixed features and 0.96 fine-tuned; label
smoothing at the source hurts fixed features. Here networks differ in how long they were trained.

  python -m experiments.study --config=configs/findings/source_score.py --workdir=runs/source_score
  ... --confirm

`:paper` is ResNet-50, trained on ImageNet from 1,000 to 112,600 steps, for a GPU.
"""

from configs.findings import _digits

STEPS = (20, 60, 200, 600, 2000)
PAPER = 'Kornblith 2019'


def get_config(scale: str = 'here'):
  """6 sources of 5 networks each x 2 methods x 5 seeds x 4 rates."""
  config = _digits.study('Source accuracy and transfer', 'uci_digits', scale=scale)
  config.claim = 'The better a network is at its source, the better it transfers.'
  here = scale == 'here'
  trained = _digits.source() if here else _digits.of_imagenet()
  lengths = STEPS if here else (1_000, 5_000, 20_000, 50_000, 112_600)
  names = tuple(f'steps_{steps}' for steps in lengths)
  config.sources = {
    name: {**trained, 'train': {**trained['train'], 'steps': steps}}
    for name, steps in zip(names, lengths)
  }
  longest = config.sources[names[-1]].to_dict()
  config.sources['smoothed'] = {**longest, 'train': {**longest['train'], 'label_smoothing': 0.1}}
  config.shots = (20,) if here else (0,)
  if not here:
    config.confirm.source_seeds = (10, 11, 12)
  config.methods = {
    'probe': {'phases': [{'tune': 'head'}]},
    'full': {'phases': [{'tune': 'all'}]},
  }
  config.baseline = 'probe'
  config.claims = (
    *(
      {
        'name': f'{of} correlates with what the source scored',
        'paper': PAPER,
        'kind': 'correlation',
        'of': {'method': method},
        'minus_column': 'source_score',
        'along': {'source': names},
        'threshold': 0.8,
      }
      for method, of in (('probe', 'A probe'), ('full', 'Full fine-tuning'))
    ),
    {
      'name': 'Label smoothing at the source hurts fixed features',
      'paper': PAPER,
      'of': {'method': 'probe', 'source': names[-1]},
      'minus': {'source': 'smoothed'},
    },
  )
  return config
