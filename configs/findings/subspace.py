"""Pretraining lowers the intrinsic dimension.

Aghajanyan et al. 2021 (arXiv:2012.13255, table 1 and figure 2): fine-tuning RoBERTa in 200 random
directions reaches 90% of full fine-tuning on MRPC; larger and better pretrained models need fewer.
Li et al. 2018 (arXiv:1804.08838) measured it from random starts.

  python -m experiments.study --config=configs/findings/subspace.py --workdir=runs/subspace
  ... --confirm

`:paper` is BERT on three sets of texts, for a GPU.
"""

from configs.findings import _digits

SIZES = (20, 50, 100, 200, 400)
PAPER = 'Aghajanyan 2021'


def get_config(scale: str = 'here'):
  """5 source networks x 11 methods x 5 seeds x 4 rates."""
  config = _digits.study(
    'Intrinsic dimension', 'uci_digits', scale=scale, backbone='mlp' if scale == 'here' else 'bert'
  )
  config.claim = 'From a pretrained start fewer random directions are enough.'
  config.shots = (20,) if scale == 'here' else (0,)
  config.methods = {'full': {'phases': [{'tune': 'all'}]}}
  for size in SIZES:
    inside = {'added': {'name': 'intrinsic', 'size': size}, 'phases': [{'tune': 'added'}]}
    config.methods[f'source_{size}'] = inside
    config.methods[f'random_{size}'] = {**inside, 'init': 'random'}
  config.grid.learning_rate = (3e-3, 1e-2, 3e-2, 1e-1)
  config.baseline = 'full'
  claim = _digits.difference
  config.claims = (
    claim('In 200 directions a source has 90% of full', PAPER, ('source_200', 'full'), 0.9,
          kind='ratio'),
    claim('A random start has less in 20', PAPER, ('source_20', 'random_20')),
    claim('and in 200', PAPER, ('source_200', 'random_200')),
    claim('Where a random start has not', PAPER, ('random_200', 'full'), 0.9, kind='ratio',
          expected='below'),
  )  # fmt: skip
  return config
