"""The peer of boxes.py: torchvision's FCOS on a trunk of timm's, with the detector of tlx's head.

torchvision's classes of a tower, its losses, matching and suppression are used as they are. What
tlx's head has otherwise stands here: norms and a shared convolution in the pyramid, towers whose
convolutions have no biases, distances exp(s x) where torchvision has relu(x), and places in the
middle of their cells as in FCOS's official code. So both sides compute the same from equal weights.
"""

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import timm
import torch
from torch import nn
from torchvision.models.detection import FCOS, anchor_utils, fcos

STRIDES = (8, 16, 32)
GROUP = 8  # channels of a group norm
PARTS = {
  'class_loss': 'classification',
  'box_loss': 'bbox_regression',
  'centre_loss': 'bbox_ctrness',
}


def _norm(size: int) -> nn.Module:
  return nn.GroupNorm(size // GROUP, size)


class Pyramid(nn.Module):
  """Three levels of `out_channels` of a trunk's last three strides, the finest first."""

  def __init__(self, trunk: nn.Module, size: int):
    super().__init__()
    self.trunk, self.out_channels = trunk, size
    widths = trunk.feature_info.channels()
    self.lateral = nn.ModuleList(nn.Conv2d(width, size, 1, bias=False) for width in widths)
    self.norms = nn.ModuleList(_norm(size) for _ in widths)
    convolution = nn.Conv2d(size, size, 3, padding=1, bias=False)
    self.smooth = nn.Sequential(convolution, _norm(size), nn.ReLU())

  def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
    levels: list[torch.Tensor] = []
    for seen, lateral, norm in reversed(list(zip(self.trunk(x), self.lateral, self.norms))):
      level = norm(lateral(seen))
      if levels:
        level = level + nn.functional.interpolate(levels[0], scale_factor=2.0)
      levels.insert(0, level)
    return OrderedDict((str(i), self.smooth(level)) for i, level in enumerate(levels))


class Sides(fcos.FCOSRegressionHead):
  """torchvision's tower of boxes and centreness, with distances exp(s x) strides, s a level."""

  def __init__(self, size: int, depth: int):
    super().__init__(size, num_anchors=1, num_convs=depth, norm_layer=_norm)
    self.scale = nn.Parameter(torch.ones(len(STRIDES)))

  def forward(self, x: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    sides, centres = [], []
    for level, scale in zip(x, self.scale):
      seen = self.conv(level)
      sides.append((self.bbox_reg(seen) * scale).clamp(max=7.0).exp().flatten(2).mT)
      centres.append(self.bbox_ctrness(seen).flatten(2).mT)
    return torch.cat(sides, 1), torch.cat(centres, 1)


def arrays_of(trunk: str) -> dict[str, np.ndarray]:
  """Random weights of timm's, by its names."""
  torch.manual_seed(0)
  state = timm.create_model(trunk).state_dict()
  return {name: tensor.numpy() for name, tensor in state.items()}


def detector(
  trunk: str,
  arrays: Mapping[str, np.ndarray],
  params: Mapping[str, Any],
  stages: Sequence[str],
  num_classes: int,
  **how: Any,
) -> FCOS:
  """FCOS on timm's `trunk`, channels_last; norms of the trunk keep statistics, scales and shifts.

  Images are not resized, candidates are of any score.

  Args:
    arrays: of the trunk, by timm's names or in their order.
    params: of tlx's head, which sees these `stages`.
    how: arguments of FCOS.
  """
  size, depth = _shape_of(params)
  names = timm.create_model(trunk).state_dict()
  state = {n: torch.from_numpy(np.array(a)) for n, a in zip(names, arrays.values(), strict=True)}
  seen = timm.create_model(trunk, features_only=True, out_indices=(2, 3, 4))
  lacking, _ = seen.load_state_dict(state, strict=False)  # what follows the last stage is left out
  assert not lacking, lacking
  for module in seen.modules():
    if isinstance(module, nn.BatchNorm2d):
      module.requires_grad_(False)
      module.train = functools.partial(_stay, module.eval())
  places = anchor_utils.AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * 3)
  cells = zip(places.cell_anchors, STRIDES)
  places.cell_anchors = [cell + stride / 2 for cell, stride in cells]
  head = fcos.FCOSHead(size, 1, num_classes, depth)
  head.classification_head = fcos.FCOSClassificationHead(
    size, 1, num_classes, depth, norm_layer=_norm
  )
  head.regression_head = Sides(size, depth)
  fixed = {'score_thresh': 0.0, '_skip_resize': True}
  model = FCOS(Pyramid(seen, size), num_classes, anchor_generator=places, head=head, **fixed, **how)
  _fill(model, params, stages)
  return model.to(memory_format=torch.channels_last)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
  """A norm that stays in eval mode whatever the model is told."""
  return module


def _shape_of(params: Mapping[str, Any]) -> tuple[int, int]:
  """(channels, convolutions of a tower) of a head."""
  return params['box']['kernel'].shape[2], sum(name.startswith('class_tower') for name in params)


@torch.no_grad()
def _fill(model: FCOS, params: Mapping[str, Any], stages: Sequence[str]) -> None:
  """Puts the weights of tlx's head in their places."""

  def conv(module: nn.Module, kernel: Any) -> None:
    module.weight.copy_(torch.from_numpy(np.asarray(kernel).transpose(3, 2, 0, 1).copy()))

  def tower(modules: nn.Sequential, name: str) -> None:
    for i in range(len(modules) // 3):
      conv(modules[3 * i], params[f'{name}_tower{i}']['kernel'])
      modules[3 * i].bias = None

  pyramid, classes, sides = (
    model.backbone,
    model.head.classification_head,
    model.head.regression_head,
  )
  for module, stage in zip(pyramid.lateral, stages, strict=True):
    conv(module, params[f'lateral_{stage}']['kernel'])
  tower(pyramid.smooth, 'smooth')
  tower(classes.conv, 'class')
  tower(sides.conv, 'box')
  conv(classes.cls_logits, params['class']['kernel'])
  conv(sides.bbox_reg, params['box']['kernel'][..., :4])
  conv(sides.bbox_ctrness, params['box']['kernel'][..., 4:])


def losses(model: FCOS, images: np.ndarray, targets: Mapping[str, np.ndarray]) -> dict[str, float]:
  """What a training step minimises the sum of, by tlx's names, for the weights as they are."""
  with torch.no_grad():
    found = model.train()(*_batch(images, targets))
  return {name: float(found[part]) for name, part in PARTS.items()}


def stepper(
  model: FCOS, images: np.ndarray, targets: Mapping[str, np.ndarray]
) -> Callable[[], None]:
  """What does one training step with the fused AdamW; images are scaled in it."""
  model.train()
  trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
  optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-2, fused=True)

  def step() -> None:
    found = model(*_batch(images, targets))
    optimizer.zero_grad()
    sum(found.values()).backward()
    optimizer.step()

  return step


def finder(model: FCOS, images: np.ndarray) -> Callable[[], list[dict[str, torch.Tensor]]]:
  """What finds the boxes of the images, by a copy of the model as it is."""
  model = copy.deepcopy(model).eval()

  def find() -> list[dict[str, torch.Tensor]]:
    with torch.inference_mode():
      return model(_images(images))

  return find


def _images(images: np.ndarray) -> list[torch.Tensor]:
  """uint8 [B, H, W, 3] as float images [3, H, W] from 0 to 1, channels_last in memory."""
  return list(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)


def _batch(images: np.ndarray, targets: Mapping[str, np.ndarray]) -> tuple[list, list]:
  wanted = []
  for boxes, labels in zip(targets['boxes'], targets['labels']):
    wanted.append({'boxes': torch.from_numpy(boxes), 'labels': torch.from_numpy(labels).long()})
  return _images(images), wanted
