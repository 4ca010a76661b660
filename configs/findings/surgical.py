"""Which block to tune depends on the kind of shift.

Lee et al. 2023 (arXiv:2210.11466, figure 2 and table 1): for a shift of the labels' meaning the
last block is best, and better than all; for a shift of the inputs the first is better than the
last, and as good as all. Here labels are merged (classes c and c + 5), or images shifted by two
pixels, inverted and turned.

  python -m experiments.study --config=configs/findings/surgical.py --workdir=runs/surgical
  ... --confirm
"""

from configs.findings import _digits

OUTPUT, INPUT = 'other_labels', ('shifted_2px', 'inverted', 'rotated_90')
BLOCKS = ('dense1', 'dense2', 'dense3', 'dense4')


def get_config():
  """5 source networks x 4 targets x 5 methods x 5 seeds x 4 rates."""
  config = _digits.study('Surgical fine-tuning', OUTPUT, *INPUT)
  config.claim = 'Shifts of outputs want the last block, shifts of inputs the first.'
  config.shots = (50,)
  config.methods = {
    block: {'phases': [{'tune': {'policy': 'surgical', 'stages': (block,)}}]} for block in BLOCKS
  } | {'full': {'phases': [{'tune': 'all'}]}}
  config.baseline = 'full'
  first, last = BLOCKS[0], BLOCKS[-1]
  config.claims = (
    {
      'name': 'Under other labels the last block beats full fine-tuning',
      'paper': 'Lee 2023',
      'of': {'method': last, 'target': OUTPUT},
      'minus': {'method': 'full'},
    },
    {
      'name': 'On changed inputs earlier blocks are better',
      'paper': 'Lee 2023',
      'kind': 'trend',
      'of': {'target': INPUT},
      'along': {'method': BLOCKS},
      'expected': 'below',
    },
    {
      'name': 'On changed inputs the first block is within a point of full fine-tuning',
      'paper': 'Lee 2023',
      'of': {'method': first, 'target': INPUT},
      'minus': {'method': 'full'},
      'threshold': -0.01,
    },
  )
  return config
