"""Which block to tune depends on the kind of shift.

Lee et al. 2023 (arXiv:2210.11466, figure 2 and table 1): for a shift of the labels' meaning the
last block is best, and better than all; for a shift of the inputs the first is better than the
last, and as good as all. Here labels are merged (classes c and c + 5), or images shifted by two
pixels, inverted and turned.

  python -m experiments.study --config=configs/findings/surgical.py --workdir=runs/surgical
  ... --confirm

`:paper` is ResNet-50 by its four groups of blocks on pets under the same changes, for a GPU.
"""

from configs.findings import _digits

OUTPUT, INPUT = 'other_labels', ('shifted_2px', 'inverted', 'rotated_90')
BLOCKS = {name: (name,) for name in ('dense1', 'dense2', 'dense3', 'dense4')}
# of ResNet-50: {a group: its blocks}
GROUPS = {
  f'layer{i}': tuple(f'layer{i}_{j}' for j in range(depth))
  for i, depth in enumerate((3, 4, 6, 3), 1)
}


def get_config(scale: str = 'here'):
  """5 source networks x 4 targets x 5 methods x 5 seeds x 4 rates."""
  config = _digits.study('Surgical fine-tuning', OUTPUT, *INPUT, scale=scale)
  config.claim = 'Shifts of outputs want the last block, shifts of inputs the first.'
  config.shots = (50,) if scale == 'here' else (0,)
  blocks = BLOCKS if scale == 'here' else GROUPS
  config.methods = {
    block: {'phases': [{'tune': {'policy': 'surgical', 'stages': stages}}]}
    for block, stages in blocks.items()
  } | {'full': {'phases': [{'tune': 'all'}]}}
  config.baseline = 'full'
  first, *_, last = blocks
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
      'along': {'method': tuple(blocks)},
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
