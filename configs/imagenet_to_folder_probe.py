"""The quickest look at your own images: linear probes of EfficientNet-Lite0's ImageNet features
(Tan and Le 2019) at full resolution.

DATA is a folder of images (PATH/<class>/<image> or PATH/{train,val,test}/<class>/<image>),
csv:PATH/labels.csv or tfds:NAME.

Claim: the exact probe (L-BFGS) is at least as good as one trained by Adam, at every size, and costs
no more than the features.

  python -m experiments.study --config=configs/imagenet_to_folder_probe.py:DATA --workdir=runs/probe

The features of 2,000 images take about a minute on two CPU cores; a run then takes a second or so,
so seeds and sizes are cheap.
"""

from configs.imagenet_to_folder import LITE0
from tlx.study.config import base


def get_config(data: str = 'images'):
  """3 methods x 3 sizes x 5 seeds x 6 settings."""
  config = base()
  config.name = f'Probes of ImageNet features on {data}'
  config.claim = 'The exact linear probe is at least as good as the one trained by Adam.'
  config.sources.imagenet = LITE0
  config.targets.images = {'dataset': data if ':' in data else f'folder:{data}'}
  config.shots = (1, 5, 20)
  config.train.steps = 200
  config.grid.learning_rate = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
  penalties = {'learning_rate': (1.0,), 'weight_decay': (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)}
  config.methods = {
    'adam': {'phases': [{'tune': 'head'}]},
    'logistic': {'phases': [{'tune': 'head', 'solver': 'logistic'}], 'grid': penalties},
    'ridge': {'phases': [{'tune': 'head', 'solver': 'ridge'}], 'grid': penalties},
  }
  config.baseline = 'adam'
  return config
