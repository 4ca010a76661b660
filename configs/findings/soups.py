"""Are weights between networks better than the networks: WiSE-FT and soups.

Wortsman et al. 2022 (WiSE-FT, arXiv:2109.01903): weights between the start and a fine-tuned network
keep what it can do and are better under a shift. Wortsman et al. 2022 (Model soups,
arXiv:2203.05482): the mean of networks fine-tuned with several rates is better under a shift than
the best of them, and a greedy choice of them no worse than that on the target. The papers have CLIP
on ImageNet and its shifts; here the shifts are corruptions of the test images at severity 3, and
the start is the probe that LP-FT goes on from.

  python -m experiments.study --config=configs/findings/soups.py --workdir=runs/soups
  ... --confirm

Thresholds were written before the study was run: a shift counts from 0 on, and on the target one
point may be lost.

`:paper` is ViT-B/16 on three sets of VTAB, for a GPU.
"""

from configs.findings import _weights
from tlx.study import recipes

SHARES = (0.25, 0.5, 0.75)


def get_config(scale: str = 'here'):
  """3 source networks x 9 methods x 5 seeds, one of them x 4 rates."""
  config = _weights.study(
    'Weights between networks',
    'Weights between networks are better under a shift and no worse without.',
    scale,
  )
  config.shots = (20,) if scale == 'here' else (0,)
  config.seeds = (40, 41, 42, 43, 44)
  if scale == 'here':
    config.train.steps = 200
  config.train.evaluations = 1
  config.grid.learning_rate = (3e-4, 1e-3, 3e-3, 1e-2) if scale == 'here' else (1e-5, 3e-5, 1e-4)
  probe = {'tune': 'head', 'steps': '0.5x', 'learning_rate': 1e-2}
  config.methods = {
    'probe': {'phases': [probe]},
    'lp_ft': {'phases': [probe, {}]},
    'wise': recipes.wise_ft('lp_ft', start='probe'),
    'uniform': {'merge': {'name': 'mean', 'of': 'lp_ft'}},
    'greedy': {'merge': {'name': 'greedy', 'of': 'lp_ft'}},
    'ties': {'merge': {'name': 'ties', 'of': 'lp_ft', 'over': 'settings'}},
  }
  for share in SHARES:
    merge = {'name': 'mean', 'of': 'lp_ft', 'over': 'run', 'start': 'probe', 'scale': (share,)}
    config.methods[f'wise_{100 * share:.0f}'] = {'merge': merge}
  config.evaluators = ({'name': 'corruptions', 'severities': (3,)}, 'forgetting')
  config.baseline = 'lp_ft'
  wise, soups = 'Wortsman et al. 2022, WiSE-FT', 'Wortsman et al. 2022, Model soups'
  config.claims = (
    _claim('Half way is better under a shift than fine-tuning', wise, 'wise_50', 0.0, True),
    _claim('and loses at most a point without', wise, 'wise_50', -0.01),
    _claim('A uniform soup is better under a shift than its best run', soups, 'uniform', 0.0, True),
    _claim('A greedy soup is no worse than the best run', soups, 'greedy', -0.01),
  )
  return config


def _claim(name: str, paper: str, method: str, threshold: float, shift: bool = False) -> dict:
  """A method is above LP-FT by more than a threshold, on corrupted test images or as they are."""
  return {
    'name': name,
    'paper': paper,
    'of': {'method': method},
    'minus': {'method': 'lp_ft'},
    'column': 'corrupted_accuracy' if shift else '',
    'threshold': threshold,
  }
