"""Does transfer raise accuracy, or only arrive there sooner?

He et al. 2019 (arXiv:1811.08883, figures 1 and 7): from scratch, trained longer, detectors on COCO
are no worse, down to a tenth of the data; with 1,000 images they are. Raghu et al. 2019
(arXiv:1902.07208, figure 8): Mean-Var starts lie between scratch and transfer in speed.

  python -m experiments.study --config=configs/findings/speed.py --workdir=runs/speed
  ... --confirm

Speed is in steps until validation reaches 95%; all 400 where it never does, which favours scratch.
`:paper` is ResNet-50 on three sets of VTAB and 50%, for a GPU.
"""

from configs.findings import _digits

HE, RAGHU = 'He 2019', 'Raghu 2019'


def get_config(scale: str = 'here'):
  """5 source networks x 3 methods x 2 sizes x 5 seeds x 4 rates."""
  config = _digits.study('Speed, not accuracy', 'uci_digits', scale=scale)
  config.claim = 'Transfer reaches the same accuracy sooner where data are many.'
  few, many = (2, 80) if scale == 'here' else (2, 0)
  config.shots = (few, many)
  if scale == 'here':
    config.train.steps = 400
  config.train.evaluations = 40
  config.methods = {
    'scratch': {'init': 'random', 'phases': [{'tune': 'all'}]},
    'mean_var': {'init': 'mean_var', 'phases': [{'tune': 'all'}]},
    'full': {'phases': [{'tune': 'all'}]},
  }
  config.baseline = 'scratch'
  scratch, claim = ('scratch', 'full'), _digits.difference
  soon = {'column': f'steps_to_{0.95 if scale == "here" else 0.5}', 'shots': many}
  config.claims = (
    claim('Scratch takes twice the steps', HE, scratch, 2.0, kind='ratio', **soon),
    claim('With many examples the gain is below 1.5 points', HE, scratch[::-1], 0.015, shots=many,
          expected='below'),
    claim('With 2 a class it is above 5 points', HE, scratch[::-1], 0.05, shots=few),
    claim('Scales alone are sooner there than scratch', RAGHU, ('scratch', 'mean_var'), **soon),
    claim('Features are sooner there than scales alone', RAGHU, ('mean_var', 'full'), **soon),
  )  # fmt: skip
  return config
