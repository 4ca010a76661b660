"""ImageNet to the UCI digits: do features of photographs serve for 8 x 8 pixel handwriting, and up
to which layer?

Claim: on so far a target a probe of the middle layers beats one of the last layer at every size,
and training from scratch with few examples (Yosinski et al. 2014; Kornblith et al. 2019). Probes
alone, three seeds, the best of five penalties by validation: 67, 88, 94 and 97% after block10 with
1, 5, 20 and 80 examples a class, 52, 76, 87 and 93% after pool. Source: EfficientNet-Lite0 (Tan and
Le 2019); target: scikit-learn's UCI digits.

  python -m experiments.study --config=configs/imagenet_to_digits.py --workdir=runs/photographs

Images are 64 pixels wide, for two CPU cores. On a GPU add
  --config.sources.imagenet.input.image_size=128 --config.train.steps=500
"""

from configs.imagenet_to_folder import LITE0, tune
from tlx.study.config import base

PENALTIES = {'learning_rate': (1.0,), 'weight_decay': (0.0003, 0.003, 0.03, 0.3)}


def get_config():
  """10 methods x 4 sizes x 5 seeds x 4 settings."""
  config = base()
  config.name = 'ImageNet to UCI digits'
  config.claim = (
    'Probes of the middle layers beat those of the last at every size, and training '
    'from scratch with few examples.'
  )
  whole = {'image_size': 64, 'fit': 'squeeze', 'crop': 1.0}  # digits fill the frame
  config.sources.imagenet = {**LITE0, 'input': whole}
  config.targets.digits = {'dataset': 'uci_digits'}
  config.shots = (1, 5, 20, 80)
  config.train.steps = 60
  config.train.batch_size = 16
  config.train.evaluations = 2
  config.grid.learning_rate = (3e-5, 1e-4, 3e-4, 1e-3)
  probe = {'phases': [{'tune': 'head', 'solver': 'logistic'}], 'grid': PENALTIES}
  methods = {
    'scratch': {
      'init': 'random',
      'phases': [{'tune': 'all', 'steps': 120}],
      'grid': {'learning_rate': (3e-4, 1e-3, 3e-3, 1e-2)},
    },
    'full': {'phases': [{'tune': tune()}]},
  }
  for stage in ('input', 'block0', 'block2', 'block4', 'block7', 'block10', 'block14', 'pool'):
    methods[f'probe_{stage}'] = {'head_after': stage, **probe}
  config.methods = methods
  config.baseline = 'probe_pool'
  return config
