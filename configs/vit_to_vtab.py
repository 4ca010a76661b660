"""ViT-B/16 to VTAB-1k: how much of a transformer must be tuned when very different tasks bring
1,000 examples each?

Claim: full fine-tuning beats the linear probe on specialised and structured tasks, where features
of photographs fit badly, and is matched on natural ones by tuning a few per cent of the parameters
(Zhai et al. 2019; Jia et al. 2022, Visual prompt tuning, table 1).
Source: AugReg's ViT-B/16, pre-trained on ImageNet-21k (Steiner et al. 2022).

  python -m experiments.study --config=configs/vit_to_vtab.py --workdir=runs/vit_to_vtab

For a GPU. TASK takes one task alone, as in configs/vit_to_vtab.py:cifar100. Training follows Jia et
al.: 100 epochs of batches of 64, cosine with warm-up, images squeezed to 224 pixels, no
augmentation. It departs from VTAB-1k in this:
  - 12 of the 19 tasks: Clevr's, dSprites', SmallNORB's and KITTI's labels are computed from
    coordinates, counts and boxes. 10 of these by default, for the last reason below.
  - Settings are chosen by the 200 validation examples, as there, but the network is not trained
    again on all 1,000.
  - Test parts that take more than 4 GiB at this size are refused: retinopathy and camelyon want a
    smaller image_size.
"""

from tlx.study.config import base

TASKS = (
  'caltech101',
  'cifar100',
  'dtd',
  'flowers',
  'pets',
  'svhn',
  'sun397',
  'eurosat',
  'resisc45',
  'dmlab',
)


def get_config(task: str = ''):
  """10 tasks x 6 methods x 3 seeds x 3 settings."""
  config = base()
  config.name = 'ViT-B/16 to VTAB-1k'
  config.claim = 'The further a task is from photographs, the more of the network must be tuned.'
  config.sources.vit = {
    'backbone': {'name': 'vit', 'variant': 'b/16', 'gelu': 'tanh', 'dtype': 'bfloat16'},
    'weights': 'https://storage.googleapis.com/vit_models/augreg/'
    'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz',
    'input': {'image_size': 224, 'fit': 'squeeze', 'crop': 1.0, 'interpolation': 'bilinear'},
  }
  config.targets = {name: {'dataset': f'vtab1k:{name}'} for name in ((task,) if task else TASKS)}
  config.shots = (0,)
  config.seeds = (0, 1, 2)
  config.train.steps = 1250
  config.train.batch_size = 64
  config.train.optimizer = {'name': 'sgd', 'momentum': 0.9}
  config.train.warmup = 0.1
  config.grid.learning_rate = (3e-3, 1e-2, 3e-2)
  penalties = {'learning_rate': (1.0,), 'weight_decay': (0.001, 0.03, 1.0)}
  config.methods = {
    'linear_probe': {'phases': [{'tune': 'head'}], 'grid': {'learning_rate': (0.1, 0.3, 1.0)}},
    'exact_probe': {'phases': [{'tune': 'head', 'solver': 'logistic'}], 'grid': penalties},
    'full': {'phases': [{'tune': 'all', 'clip_norm': 1.0}]},
    'lp_ft': {
      'phases': [{'tune': 'head', 'learning_rate': 0.1}, {'tune': 'all', 'clip_norm': 1.0}]
    },
    'bias': {'phases': [{'tune': 'bias'}]},
    # four blocks, and norm and head
    'last_4_blocks': {'phases': [{'tune': {'policy': 'last', 'k': 5}, 'clip_norm': 1.0}]},
  }
  config.baseline = 'full'
  return config
