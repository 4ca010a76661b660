"""The peer of journey.py: what one writes with timm and torch, cells one after another in one
process.

  python -m benchmarks.peer_journey SETTINGS.json OUT.jsonl [NUM_CELLS]

Images are decoded once into memory, the frozen part runs without gradients and in eval mode, and a
probe's features are computed at every step, as there is no cache in such a script. A line a cell
goes to OUT: seconds and accuracies. NUM_CELLS=0 stops before the first.
"""

import itertools
import json
import math
import sys
import time
import types

BEGAN = time.time()


class _Named(type):
  """A class that has any attribute."""

  def __getattr__(cls, name: str) -> str:
    if name.startswith('__'):
      raise AttributeError(name)
    return name


class _Nothing(types.ModuleType):
  """torchvision in name only: timm imports it for things that are not used here, and its builds
  must match torch's.
  """

  __path__: list = []

  def __getattr__(self, name: str):
    if name.startswith('__'):
      raise AttributeError(name)
    return sys.modules.get(f'{self.__name__}.{name}') or _Named(name, (), {})


_NAMES = (
  '',
  '.ops',
  '.ops.misc',
  '.models',
  '.models.feature_extraction',
  '.transforms',
  '.transforms.functional',
  '.datasets',
)
for _name in _NAMES:
  sys.modules[f'torchvision{_name}'] = _Nothing(f'torchvision{_name}')

import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def load_images(folder: str, ids: list[str], peer: dict) -> torch.Tensor:
  """float32 [N, C, H, W], normalised."""
  size = (peer['image_size'],) * 2
  arrays = np.stack(
    [
      np.asarray(
        Image.open(f'{folder}/{name}').convert('RGB').resize(size, Image.Resampling.BICUBIC)
      )
      for name in ids
    ]
  )
  images = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255
  images = (images - torch.tensor(peer['mean']).view(1, 3, 1, 1)) / torch.tensor(peer['std']).view(
    1, 3, 1, 1
  )
  return images.to(DEVICE, memory_format=torch.channels_last)


def load_weights(path: str) -> dict[str, torch.Tensor]:
  """The arrays of a .safetensors or .pth file."""
  if path.endswith('.safetensors'):
    from safetensors.torch import load_file

    return load_file(path)
  return torch.load(path, map_location='cpu', weights_only=True)


def make_model(
  peer: dict, weights: dict[str, torch.Tensor], num_classes: int, seed: int
) -> nn.Module:
  """The pretrained network with a fresh head. Weights of other names come in timm's order."""
  torch.manual_seed(seed)
  model = timm.create_model(peer['timm'], num_classes=num_classes, **peer['options'])
  own, head = model.state_dict(), model.pretrained_cfg['classifier']
  theirs = weights
  if own.keys() != weights.keys():
    theirs = dict(zip(own, weights.values(), strict=True))
  kept = {name: array for name, array in own.items() if name.startswith(f'{head}.')}
  model.load_state_dict({name: theirs[name] for name in own.keys() - kept.keys()} | kept)
  nn.init.trunc_normal_(model.get_classifier().weight, std=model.num_features**-0.5)  # as in tlx
  nn.init.zeros_(model.get_classifier().bias)
  for module in model.modules():
    if isinstance(module, nn.BatchNorm2d) and peer['norm_momentum']:
      module.momentum = peer['norm_momentum']
  return model.to(DEVICE, memory_format=torch.channels_last)  # 1.7 times as fast for EfficientNet


def blocks_of(model: nn.Module) -> list[nn.Module]:
  """The residual blocks, in order, however timm groups them."""
  stages = next(filter(None, (getattr(model, name, None) for name in ('blocks', 'stages'))), None)
  blocks: list[nn.Module] = []
  for stage in stages or (model.layer1, model.layer2, model.layer3, model.layer4):
    blocks += stage if isinstance(stage, nn.Sequential) else getattr(stage, 'blocks', [stage])
  return blocks


def freeze(model: nn.Module, tune: str | dict, num_blocks: int) -> None:
  """Leaves gradients and training mode to the head, to the last blocks and what follows them, or to
  all.
  """
  names = [name for name, _ in model.named_parameters()]
  first = 0
  if tune == 'head':
    first = names.index(f'{model.pretrained_cfg["classifier"]}.weight')
  elif tune != 'all':
    of_block = {id(parameter) for parameter in blocks_of(model)[-num_blocks].parameters()}
    first = next(i for i, parameter in enumerate(model.parameters()) if id(parameter) in of_block)
  for i, parameter in enumerate(model.parameters()):
    parameter.requires_grad_(i >= first)
  for module in model.modules():
    module.training = any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def outputs(model: nn.Module, images: torch.Tensor, probe: bool) -> torch.Tensor:
  """Logits; a probe's features come without a graph."""
  with torch.set_grad_enabled(not probe and torch.is_grad_enabled()):
    features = model.forward_head(model.forward_features(images), pre_logits=True)
  return model.get_classifier()(features)


def train(
  model: nn.Module,
  images: torch.Tensor,
  labels: torch.Tensor,
  phase: dict,
  settings: dict,
  random: torch.Generator,
) -> None:
  """One phase: epochs of fresh permutations one after another in batches of one size."""
  freeze(model, phase['tune'], settings['num_blocks'])
  trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
  groups = [
    {'params': [p for p in trained if p.ndim > 1], 'weight_decay': settings['weight_decay']},
    {'params': [p for p in trained if p.ndim <= 1], 'weight_decay': 0.0},
  ]
  optimizer = torch.optim.AdamW(groups, lr=phase['learning_rate'], fused=True)
  schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, phase['steps'])
  wanted = phase['steps'] * settings['batch_size']
  epochs = math.ceil(wanted / len(labels))
  order = torch.cat([torch.randperm(len(labels), generator=random) for _ in range(epochs)])[:wanted]
  for rows in order.view(phase['steps'], -1):
    loss = nn.functional.cross_entropy(
      outputs(model, images[rows], phase['tune'] == 'head'), labels[rows]
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()


@torch.inference_mode()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
  """The share of images that are classified rightly."""
  model.eval()
  correct = sum(
    int((model(images[i : i + 256]).argmax(1) == labels[i : i + 256]).sum())
    for i in range(0, len(labels), 256)
  )
  return correct / len(labels)


def main(settings_path: str, out: str, num_cells: str = '') -> None:
  """Every cell, or the first few."""
  with open(settings_path) as file:
    settings = json.load(file)
  peer, classes = settings['peer'], settings['classes']
  ids = settings['ids']
  images = {split: load_images(settings['data'], names, peer) for split, names in ids.items()}
  labels = {}
  for split, names in ids.items():
    named = [classes.index(name.split('/')[1]) for name in names]
    labels[split] = torch.tensor(named, device=DEVICE)
  row = {name: i for i, name in enumerate(ids['train'])}
  weights = load_weights(peer['weights'])
  make_model(peer, weights, len(classes), 0)
  cells = list(itertools.product(settings['methods'].items(), settings['shots'], settings['seeds']))
  cells = cells[: int(num_cells)] if num_cells else cells
  with open(out, 'w') as file:
    print(json.dumps({'set_up': time.time() - BEGAN}), file=file)
    for (name, method), shots, seed in cells:
      began = time.time()
      rows = torch.tensor([row[name] for name in settings['subsets'][str(seed)][str(shots)]])
      random = torch.Generator().manual_seed(seed)
      model = make_model(peer, weights, len(classes), seed)
      for phase in method['phases']:
        train(model, images['train'][rows], labels['train'][rows], phase, settings, random)
        val = accuracy(model, images['val'], labels['val'])
      test = accuracy(model, images['test'], labels['test'])
      freeze(model, method['phases'][-1]['tune'], settings['num_blocks'])
      trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
      print(
        json.dumps(
          {
            'method': name,
            'shots': shots,
            'seed': seed,
            'seconds': time.time() - began,
            'val': val,
            'test': test,
            'trainable': trained,
          }
        ),
        file=file,
        flush=True,
      )


if __name__ == '__main__':
  main(*sys.argv[1:])
