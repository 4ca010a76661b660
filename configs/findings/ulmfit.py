"""Discriminative rates, slanted triangular rates and gradual unfreezing.

Howard and Ruder 2018 (ULMFiT, arXiv:1801.06146, table 7): test errors on IMDb, TREC-6 and AG's news
fall from 6.87, 6.86, 5.81% (full fine-tuning) to 5.00, 5.69, 5.38% with all three; the last layer
alone has 6.49, 16.09, 8.38%, one layer after the other (chain-thaw) 5.39, 6.71, 5.90%. There a
language model of words, here a network of digits.

  python -m experiments.study --config=configs/findings/ulmfit.py --workdir=runs/ulmfit
  ... --confirm

`:paper` is BERT on three sets of texts, IMDb and AG's news among them, for a GPU.
"""

from configs.findings import _digits
from tlx.study import recipes

PAPER = 'Howard and Ruder 2018'
STAGES = ('dense4', 'dense3', 'dense2', 'dense1')  # unfrozen in this order


def get_config(scale: str = 'here'):
  """5 source networks x 6 methods x 5 seeds x 4 rates, 150 steps each."""
  config = _digits.study(
    'Discriminative fine-tuning',
    'uci_digits',
    scale=scale,
    backbone='mlp' if scale == 'here' else 'bert',
  )
  config.claim = 'Rates by depth, slanted triangles and gradual unfreezing beat plain fine-tuning.'
  config.shots = (10,) if scale == 'here' else (0,)
  stages = STAGES if scale == 'here' else tuple(f'block{i}' for i in range(11, -1, -1))
  groups, alone = len(stages) + 1, config.train.steps * 2 // 15
  triangle = {'tune': 'all', 'schedule': 'slanted_triangular'}
  config.methods = {
    'full': {'phases': [{'tune': 'all'}]},
    'by_depth': {'phases': [{'tune': 'all', 'layer_decay': 1 / 2.6}]},
    'triangle': {'phases': [triangle]},
    'ulmfit': recipes.ulmfit(depth=groups, steps=config.train.steps // groups),
    'last': {'phases': [{'tune': 'head'}]},
    'chain_thaw': {
      'phases': [
        {'tune': 'head', 'steps': '0.2x'},
        *({'tune': {'policy': 'surgical', 'stages': (stage,)}, 'steps': alone} for stage in stages),
        {'tune': 'all', 'steps': config.train.steps * 4 // 15},
      ]
    },
  }
  config.baseline = 'full'
  claim = _digits.difference
  config.claims = (
    claim('All three beat full fine-tuning', PAPER, ('ulmfit', 'full')),
    claim('Rates by depth do alone', PAPER, ('by_depth', 'full')),
    claim('Slanted triangles do alone', PAPER, ('triangle', 'full')),
    claim('Chain-thaw is below all three', PAPER, ('ulmfit', 'chain_thaw')),
    claim('The last layer alone is 2 points below full', PAPER, ('full', 'last'), 0.02),
  )
  return config
