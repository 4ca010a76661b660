"""The rank of LoRA does not matter much.

Hu et al. 2022 (arXiv:2106.09685, table 6): ranks from 1 to 64 differ by less than a point on
WikiSQL and MNLI. Here on a near target (UCI digits) and on a far one (turned by 90 degrees), where
a change of low rank may not be enough.

  python -m experiments.study --config=configs/findings/rank.py --workdir=runs/rank
  ... --confirm

`:paper` is ViT-B/16 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits

NEAR, FAR = 'uci_digits', 'rotated_90'
RANKS = (1, 4, 16, 64)


def get_config(scale: str = 'here'):
  """5 source networks x 2 targets x 5 methods x 5 seeds x 4 rates."""
  here = scale == 'here'
  near, far = (NEAR, FAR) if here else ('pets', 'eurosat')
  config = _digits.study(
    'Rank of LoRA',
    *((NEAR, FAR) if here else ('uci_digits',)),
    scale=scale,
    backbone='mlp' if here else 'vit',
  )
  config.claim = 'One rank is as good as 64 near the source, and not far from it.'
  config.shots = (50,) if here else (0,)
  where = 'linear$' if here else 'attention/(query|value)$'
  config.methods = {
    f'rank_{rank}': {
      'added': {'name': 'lora', 'rank': rank, 'alpha': 2 * rank, 'at': where},
      'phases': [{'tune': 'added'}],
    }
    for rank in RANKS
  } | {'full': {'phases': [{'tune': 'all'}]}}
  config.grid.learning_rate = (1e-3, 3e-3, 1e-2, 3e-2)
  config.baseline = 'full'
  of, minus = {'method': 'rank_64', 'target': near}, {'method': 'rank_1'}
  config.claims = (
    {
      'name': 'Near the source rank 64 is less than a point above rank 1',
      'paper': 'Hu 2022',
      'of': of,
      'minus': minus,
      'expected': 'below',
      'threshold': 0.01,
    },
    {
      'name': 'Rank brings more far from the source than near it',
      'kind': 'interaction',
      'of': {**of, 'target': far},
      'minus': minus,
      'than': {'target': near},
    },
    {
      'name': 'Far from the source a higher rank is better',
      'kind': 'trend',
      'of': {'target': far},
      'along': {'method': tuple(f'rank_{rank}' for rank in RANKS)},
    },
  )
  return config
