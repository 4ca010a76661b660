"""ImageNet to birds: 200 species of CUB-200-2011 (Wah et al. 2011), from ImageNet's two favourite
kinds of network.

Claim: fine-tuning beats the linear probe the more the more examples a species has; from
ImageNet-21k, which knows many species, the probe is hard to beat at 1 and 5 (Kornblith et al. 2019;
Kolesnikov et al. 2020). Sources: ResNet-50 of torchvision (He et al. 2016), trained on ImageNet-1k,
and AugReg's ViT-B/16 (Steiner et al. 2022), trained on ImageNet-21k.

  python -m experiments.study --config=configs/imagenet_to_birds.py:DATA --workdir=runs/birds

For a GPU. DATA is tfds:caltech_birds2011 unless you name a folder of images, csv:PATH/labels.csv or
another of TFDS.
"""

from tlx.study.config import base


def get_config(data: str = 'tfds:caltech_birds2011'):
  """2 sources x 7 methods x 4 sizes x 3 seeds x 3 settings."""
  config = base()
  config.name = 'ImageNet to birds'
  config.claim = (
    'Fine-tuning gains on the probe as examples grow; ImageNet-21k leaves it less to gain.'
  )
  config.sources.resnet50 = {
    'backbone': {'name': 'resnet', 'variant': 'resnet50', 'dtype': 'bfloat16'},
    'weights': 'torchhub:resnet50-0676ba61.pth',
    'input': {'image_size': 224},
  }
  config.sources.vit_b16 = {
    'backbone': {'name': 'vit', 'variant': 'b/16', 'gelu': 'tanh', 'dtype': 'bfloat16'},
    'weights': 'https://storage.googleapis.com/vit_models/augreg/'
    'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz',
    'input': {'image_size': 224},
  }
  config.targets.birds = {'dataset': data if ':' in data else f'folder:{data}'}
  config.shots = (1, 5, 10, 0)
  config.seeds = (0, 1, 2)
  config.train.steps = 2000
  config.train.batch_size = 64
  config.train.augment = {'flip': 0.5, 'crop': 16}
  config.train.warmup = 0.1
  config.grid.learning_rate = (3e-5, 1e-4, 3e-4)
  penalties = {'learning_rate': (1.0,), 'weight_decay': (0.001, 0.03, 1.0)}
  probe = {'tune': 'head', 'augment': {}, 'learning_rate': 3e-3}
  config.methods = {
    'linear_probe': {
      'phases': [{'tune': 'head', 'augment': {}}],
      'grid': {'learning_rate': (1e-3, 3e-3, 1e-2)},
    },
    'exact_probe': {
      'phases': [{'tune': 'head', 'augment': {}, 'solver': 'logistic'}],
      'grid': penalties,
    },
    'full': {'phases': [{'tune': 'all'}]},
    'lp_ft': {'phases': [probe, {'tune': 'all'}]},
    'last_3_blocks': {'phases': [{'tune': {'policy': 'last', 'k': 4}}]},  # and the head
    'gradual': {
      'phases': [
        {**probe, 'steps': 500},
        {'tune': {'policy': 'last', 'k': 4}, 'steps': 500},
        {'tune': 'all', 'layer_decay': 0.75, 'steps': 1000},
      ]
    },
    'scratch': {
      'init': 'random',
      'phases': [{'tune': 'all'}],
      'grid': {'learning_rate': (3e-4, 1e-3, 3e-3)},
    },
  }
  config.baseline = 'linear_probe'
  return config
