"""Are features lost in a frozen network by being too special, or by being torn from their partners?

Yosinski et al. 2014 (arXiv:1411.1792, figure 2): the first n layers are copied from a network and
the others start at random. Frozen and retrained on the same task the middle layers lose accuracy,
though their features are that task's own (co-adaptation); on another task the last ones do, too
special for it; tuned, the copies generalise better than a start from scratch. Here the other task
is images turned by 90 degrees; frozen random layers are the control.

  python -m experiments.study --config=configs/findings/copied.py --workdir=runs/copied
  ... --confirm

`:paper` is ResNet-50, trained on ImageNet and retrained on it, for a GPU.
"""

from configs.findings import _digits

DEPTHS = (1, 2, 3, 4)
PAPER = 'Yosinski 2014'


def get_config(scale: str = 'here'):
  """5 source networks x 2 targets x 12 methods x 5 seeds x 3 rates."""
  here = scale == 'here'
  config = _digits.study('Copied layers', _digits.FAR, scale=scale)
  config.claim = (
    'Copied layers lose by co-adaptation in the middle and by being special at the end.'
  )
  depths = DEPTHS if here else tuple(_digits.GROUPS.values())
  if not here:
    config.targets[_digits.FAR].dataset = 'imagenet2012'
  # the examples of the source, as in the paper
  config.targets.same = {'dataset': 'mnist_5k' if here else 'imagenet2012'}
  config.shots = (0,)
  config.train.steps, config.train.batch_size = (250, 64) if here else (112_600, 1024)
  config.grid.learning_rate = (1e-3, 3e-3, 1e-2)
  methods = {'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]}}
  for k in depths:
    kept = [{'tune': {'policy': 'after', 'k': k}}]
    methods[f'frozen_{k}'] = {'init': f'first_{k}', 'phases': kept}
    methods[f'tuned_{k}'] = {'init': f'first_{k}', 'phases': [{'tune': 'all'}]}
    methods[f'random_{k}'] = {'init': 'random', 'phases': kept}
  config.methods = methods
  config.baseline = 'scratch'
  special = {'method': f'frozen_{depths[-1]}', 'target': _digits.FAR}
  config.claims = (
    {
      'name': 'On the same task a frozen middle loses',
      'paper': PAPER,
      'of': {'method': tuple(f'frozen_{k}' for k in depths[1:3]), 'target': 'same'},
      'minus': {'method': 'scratch'},
      'expected': 'below',
    },
    {
      'name': 'On another task the last frozen layer costs 5 points',
      'paper': PAPER,
      'of': special,
      'minus': {'method': 'scratch'},
      'expected': 'below',
      'threshold': -0.05,
    },
    {
      'name': 'Copied and tuned layers beat scratch on another task',
      'paper': PAPER,
      'of': {'method': tuple(f'tuned_{k}' for k in depths), 'target': _digits.FAR},
      'minus': {'method': 'scratch'},
    },
    {
      'name': 'Frozen copies beat frozen random layers on another task',
      'paper': PAPER,
      'of': special,
      'minus': {'method': f'random_{depths[-1]}'},
    },
  )
  return config
