"""Does fine-tuning distort features, so that it loses to a probe under a shift?

Kumar et al. 2022 (arXiv:2202.10054, tables 1 and 2): on average over ten shifts fine-tuning is 2
points above a probe on the data it was trained on and 7 below it under the shift; a probe first,
then fine-tuning from its head (LP-FT) is 1 above on the former and 10 on the latter. Here the shift
is eight corruptions of the test images at severity 3.

  python -m experiments.study --config=configs/findings/under_shift.py --workdir=runs/under_shift
  ... --confirm

`:paper` is ResNet-50 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits

PAPER = 'Kumar 2022'
SHIFTED = {'column': 'corrupted_accuracy'}


def get_config(scale: str = 'here'):
  """5 source networks x 3 methods x 5 seeds x 4 rates."""
  config = _digits.study('Probes under a shift', 'uci_digits', scale=scale)
  config.claim = 'Fine-tuning distorts features and loses under a shift; LP-FT does not.'
  config.shots = (20,) if scale == 'here' else (0,)
  last = 'dense4' if scale == 'here' else 'layer4_2'
  probe = {'tune': 'head', 'steps': '1x', 'learning_rate': 1e-2}
  config.methods = {
    'probe': {'phases': [{'tune': 'head', 'steps': '2x'}]},
    'full': {'phases': [{'tune': 'all', 'steps': '2x'}]},
    'lp_ft': {'phases': [probe, {'tune': 'all'}]},
  }
  config.evaluators = ({'name': 'corruptions', 'severities': (3,)}, 'drift')
  config.baseline = 'full'
  claim = _digits.difference
  config.claims = (
    claim('Without a shift fine-tuning beats a probe', PAPER, ('full', 'probe')),
    claim('Under a shift a probe beats fine-tuning', PAPER, ('probe', 'full'), **SHIFTED),
    claim('Under a shift LP-FT beats fine-tuning', PAPER, ('lp_ft', 'full'), **SHIFTED),
    claim('Without one LP-FT is within a point of it', PAPER, ('lp_ft', 'full'), -0.01),
    claim('LP-FT keeps the last features nearer to the source', PAPER, ('lp_ft', 'full'),
          column=f'cka_{last}'),
  )  # fmt: skip
  return config
