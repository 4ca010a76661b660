"""COCO detection from two kinds of backbone: ResNet-50 of torchvision (He et al. 2016) with a
feature pyramid, and AugReg's ViT-B/16 (Steiner et al. 2022) with the simple pyramid of ViTDet (Li
et al. 2022), both under the head of FCOS (Tian et al. 2019).

Claim: fine-tuning beats a head on a frozen backbone, by less the fewer images there are.

  python -m experiments.study --config=configs/coco_detection.py:DATA --workdir=runs/coco

For a GPU. DATA is the folder of COCO 2017, with annotations/, train2017/ and val2017/, as
coco:FOLDER, or another set of boxes (docs/detection.md). COCO's labels of its test part are not
public: without one, a share of the training images is the test part here (test_fraction), and
AP is not that of leaderboards. Training is torchvision's in short: 640 pixels instead of 800, scale
jitter and flips, norms frozen; the head has the 256 channels and 4 layers of the papers.
Decoded, 118,000 images of 640 pixels are 135 GiB, so they are decoded on their way (data_bytes).
Of a frozen backbone nothing is kept: the three stages of ResNet-50 that the head sees are 11 MB an
image in bfloat16.
"""

from tlx.study.config import base


def get_config(data: str = 'coco:coco2017'):
  """2 sources x 4 methods x 3 sizes x 3 seeds x 2 settings."""
  config = base()
  config.name = 'COCO from ResNet-50 and ViT-B'
  config.claim = 'Fine-tuning beats a head on a frozen backbone, by less the fewer images.'
  config.sources.resnet50 = {
    'backbone': {'name': 'resnet', 'variant': 'resnet50', 'dtype': 'bfloat16'},
    'weights': 'torchhub:resnet50-0676ba61.pth',
    'input': {'image_size': 640},
  }
  config.sources.vit_b16 = {
    'backbone': {
      'name': 'vit',
      'variant': 'b/16',
      'gelu': 'tanh',
      'image_size': 640,
      'dtype': 'bfloat16',
    },
    'weights': 'https://storage.googleapis.com/vit_models/augreg/'
    'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz',
    'input': {'image_size': 640},
  }
  config.targets.coco = {
    'dataset': data,
    'task': 'detection',
    'test_fraction': 0.04,
    'val_examples': 2000,
  }
  config.shots = (1000, 10000, 0)
  config.seeds = (0, 1, 2)
  config.train.steps = 20000
  config.train.batch_size = 16
  config.train.optimizer = 'adamw'
  config.train.warmup = 0.05
  config.train.clip_norm = 1.0
  config.train.augment = {'zoom': 0.5, 'flip': 0.5}
  config.grid.learning_rate = (1e-4, 3e-4)
  config.grid.weight_decay = (0.05,)
  place = {'stage': '', 'kind': 'boxes', 'size': 256, 'depth': 4}
  config.methods = {
    'head': {
      'head_after': place,
      'phases': [{'tune': 'head'}],
      'grid': {'learning_rate': (3e-4, 1e-3)},
    },
    'full': {'head_after': place, 'phases': [{'tune': 'all', 'layer_decay': 0.8}]},
    'lp_ft': {
      'head_after': place,
      'phases': [
        {'tune': 'head', 'learning_rate': 1e-3, 'steps': '0.25x'},
        {'tune': 'all', 'layer_decay': 0.8, 'steps': '0.75x'},
      ],
    },
    'scratch': {
      'init': 'random',
      'head_after': place,
      'phases': [{'tune': 'all'}],
      'grid': {'learning_rate': (1e-4, 3e-4)},
    },
  }
  config.baseline = 'head'
  return config
