"""LoRA learns less and forgets less.

Biderman et al. 2024 (arXiv:2405.09673, figures 2 and 3): with LoRA the target's score is below that
of full fine-tuning, and the source's is kept better; both in the order of the rank.

  python -m experiments.study --config=configs/findings/forgetting.py --workdir=runs/forgetting
  ... --confirm

The source's score is that of its own head on the adapted network. Rates are chosen by the target
alone, for every method from the same grid.

`:paper` is ResNet-50, trained on ImageNet by the study, on turned images of pets, for a GPU.
"""

from configs.findings import _digits

RANKS = (1, 4, 16)


def get_config(scale: str = 'here'):
  """5 source networks x 4 methods x 5 seeds x 4 rates."""
  config = _digits.study('Learning and forgetting', 'rotated_90', scale=scale)
  config.claim = 'LoRA learns less than full fine-tuning and forgets less.'
  config.shots = (50,) if scale == 'here' else (0,)
  where = 'linear$' if scale == 'here' else r'conv\d$'
  if scale == 'paper':
    config.sources = {'imagenet': _digits.of_imagenet()}
    config.confirm.source_seeds = (10, 11, 12)
  config.methods = {
    f'rank_{rank}': {
      'added': {'name': 'lora', 'rank': rank, 'alpha': 2 * rank, 'at': where},
      'phases': [{'tune': 'added'}],
    }
    for rank in RANKS
  } | {'full': {'phases': [{'tune': 'all'}]}}
  config.evaluators = ('forgetting',)
  config.grid.learning_rate = (1e-3, 3e-3, 1e-2, 3e-2)
  config.baseline = 'full'
  of, minus = {'method': 'full'}, {'method': 'rank_4'}
  order = {'method': (*(f'rank_{rank}' for rank in RANKS), 'full')}
  kept = {'column': 'source_accuracy'}
  config.claims = (
    {'name': 'LoRA learns less', 'paper': 'Biderman 2024', 'of': of, 'minus': minus},
    {
      'name': 'LoRA forgets less',
      'paper': 'Biderman 2024',
      'of': minus,
      'minus': of,
      **kept,
    },
    {
      'name': 'The higher the rank, the more is learnt',
      'paper': 'Biderman 2024',
      'kind': 'trend',
      'along': order,
    },
    {
      'name': 'The higher the rank, the more is forgotten',
      'paper': 'Biderman 2024',
      'kind': 'trend',
      'along': order,
      'expected': 'below',
      **kept,
    },
  )
  return config
