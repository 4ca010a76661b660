"""What the findings on digits share: five small networks trained on MNIST, and seeds that are kept
for confirming.

At the scale of papers (`:paper`) it is ResNet-50 or ViT-B/16, trained on ImageNet, and public sets
of images, shifted as digits are, for a GPU; weights and data are fetched. A finding that needs what
its source scored trains it (`of_imagenet`), and BERT stands where the paper has texts.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from tlx.study.config import base

FAR = 'rotated_90'
TARGETS = {
  'other_labels': {'dataset': 'mnist_5k', 'shift': 'relabel_mod5'},
  'shifted_2px': {'dataset': 'mnist_5k', 'shift': 'translate_2px'},
  'uci_digits': {'dataset': 'uci_digits'},
  'rotated_90': {'dataset': 'mnist_5k', 'shift': 'rotate_90'},
  'inverted': {'dataset': 'mnist_5k', 'shift': 'invert'},
  'permuted_pixels': {'dataset': 'mnist_5k', 'shift': 'permute_pixels'},
}
# of ResNet-50, from the stem on: after which stages its groups of blocks end, and how many that is
GROUPS = {'layer1_2': 4, 'layer2_3': 8, 'layer3_5': 14, 'layer4_2': 17}
BACKBONES = {
  'mlp': {'name': 'mlp', 'widths': (128, 128, 128, 64)},
  'vit': {'name': 'vit', 'dim': 32, 'depth': 3, 'heads': 4, 'patch': 4, 'image_size': 12},
}


def study(
  name: str, *targets: str, scale: str = 'here', backbone: str = 'mlp'
) -> ml_collections.ConfigDict:
  """A study from MNIST to digits at a known distance, 5 source networks (of a vision transformer 3)
  and 5 seeds; without its sizes, methods and claims.

  Raises:
    ValueError: another scale than 'here' or 'paper'.
  """
  if scale not in ('here', 'paper'):
    raise ValueError(f"A finding's argument is its scale, here or paper, got {scale!r}.")
  config = base()
  config.name = name
  config.seeds = (0, 1, 2, 3, 4)
  if scale == 'paper':
    return _of_paper(config, backbone, targets)
  config.sources.mnist = source(backbone)
  networks = len(config.sources.mnist.seeds)
  config.confirm = {'seeds': (20, 21, 22, 23, 24), 'source_seeds': tuple(range(10, 10 + networks))}
  config.targets = {name: TARGETS[name] for name in targets}
  config.train.steps = 150
  config.train.evaluations = 2
  config.grid.learning_rate = (3e-4, 1e-3, 3e-3, 1e-2)
  return config


def of_added(
  name: str, claim: str, added: Mapping[str, Any], rates: tuple[float, ...], *, scale: str
) -> tuple[ml_collections.ConfigDict, dict[str, str], dict[str, str]]:
  """(a study of weights that are added to a vision transformer, each by the name of its method,
  beside a probe and full fine-tuning; its near target, and its far one, as fields of a claim).
  """
  config = study(name, 'uci_digits', FAR, scale=scale, backbone='vit')
  config.claim = claim
  if scale == 'here':
    config.shots, targets = (50,), ('uci_digits', FAR)
  else:
    config.shots, targets = (0,), ('pets', 'eurosat')
  config.methods = {
    'probe': {'phases': [{'tune': 'head'}]},
    **{method: {'added': one, 'phases': [{'tune': 'added'}]} for method, one in added.items()},
    'full': {'phases': [{'tune': 'all'}]},
  }
  config.grid.learning_rate = rates
  config.baseline = 'full'
  near, far = ({'target': target} for target in targets)
  return config, near, far


def source(backbone: str = 'mlp') -> dict[str, Any]:
  """A network trained on MNIST, once for each seed."""
  small = backbone == 'vit'
  return {
    'backbone': BACKBONES[backbone],
    'input': {'image_size': 12 if small else 14, 'channels': 1, 'mean': (0.13,), 'std': (0.3,)},
    'dataset': 'mnist_5k',
    'seeds': (0, 1, 2) if small else (0, 1, 2, 3, 4),
    'train': {'steps': 1500 if small else 1000, 'batch_size': 128, 'learning_rate': 1e-3},
  }


def of_imagenet() -> dict[str, Any]:
  """ResNet-50 that the study trains on ImageNet, 90 epochs, once for each of three seeds."""
  return {
    'backbone': {'name': 'resnet', 'variant': 'resnet50', 'dtype': 'bfloat16'},
    'input': {'image_size': 224},
    'dataset': 'imagenet2012',
    'seeds': (0, 1, 2),
    'train': {
      'steps': 112_600,
      'batch_size': 1024,
      'learning_rate': 1e-3,
      'warmup': 0.05,
      'augment': {'flip': 0.5, 'crop': 32},
    },
  }


def difference(
  name: str, paper: str, methods: tuple[str, str], threshold: float = 0.0, /, **fields: Any
) -> dict[str, Any]:
  """A claim that the first of two methods is above the second by more than a threshold.

  fields: others of the claim; of target and shots, those of its `of`.
  """
  of = {field: fields.pop(field) for field in ('target', 'shots') if field in fields}
  return {
    'name': name,
    'paper': paper,
    'of': {'method': methods[0], **of},
    'minus': {'method': methods[1]},
    'threshold': threshold,
    **fields,
  }


def _of_paper(
  config: ml_collections.ConfigDict, backbone: str, targets: tuple[str, ...]
) -> ml_collections.ConfigDict:
  if backbone == 'vit':
    config.sources.imagenet = 'vit_b16.augreg_in21k'
  elif backbone == 'bert':
    config.sources.bert = 'bert_base.uncased'
  else:
    config.sources.imagenet = {
      'backbone': {'name': 'resnet', 'variant': 'resnet50', 'dtype': 'bfloat16'},
      'weights': 'torchhub:resnet50-0676ba61.pth',
      'input': {'image_size': 224},
    }
  if backbone == 'bert':
    config.targets = {
      'imdb': {'dataset': 'imdb_reviews'},
      'news': {'dataset': 'ag_news_subset'},
      'rte': {'dataset': 'glue/rte'},
    }
  elif 'uci_digits' in targets:
    config.targets = {name: {'dataset': f'vtab1k:{name}'} for name in ('pets', 'dtd', 'eurosat')}
  else:
    config.targets = {name: {**TARGETS[name], 'dataset': 'vtab1k:pets'} for name in targets}
  config.confirm = {'seeds': (20, 21, 22, 23, 24)}
  config.train.steps = 2500
  config.train.batch_size = 64
  if backbone != 'bert':
    config.train.augment = {'flip': 0.5}
  config.grid.learning_rate = (3e-5, 1e-4, 3e-4, 1e-3)
  return config
