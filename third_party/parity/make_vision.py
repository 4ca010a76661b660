"""Makes vit_transformers, dinov2_transformers, vit_augreg, bit_official and face_api: names and
outputs of official implementations.

    python third_party/parity/make_vision.py [FACE_API_OUTPUTS.json]

Weights are tiny and random. vit_augreg and bit_official have the names of the authors' .npz files
and outputs by timm, which reads those. face_api.npz has the descriptors that @vladmandic/face-api
1.7.15 computes (its CPU backend, run in Node) from the weights and images of `face_api`, handed
over as JSON [2, 128]; its real size makes the weights too large to store, so tests make
them anew. Needs: torch timm transformers safetensors.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.numpy import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from transformers import (
  Dinov2WithRegistersConfig,
  Dinov2WithRegistersModel,
  ViTConfig,
  ViTForImageClassification,
)

OUT = Path(__file__).parent
RANDOM = np.random.RandomState(0)
SMALL = {
  'hidden_size': 24,
  'num_hidden_layers': 2,
  'num_attention_heads': 3,
  'image_size': 16,
  'patch_size': 4,
}


@torch.no_grad()
def main() -> None:
  torch.manual_seed(0)
  x = torch.from_numpy(RANDOM.randn(2, 3, 16, 16).astype('float32'))
  vit = jitter(ViTForImageClassification(ViTConfig(intermediate_size=40, num_labels=5, **SMALL)))
  keep('vit_transformers', saved(vit), x=x, logits=vit(x).logits)
  dino = jitter(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=2, **SMALL)))
  keep('dinov2_transformers', saved(dino), x=x, tokens=dino(x).last_hidden_state)

  vit = jitter(
    VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5)
  )
  arrays = augreg(24, 3, 2, 96, 5)
  load_npz(vit, arrays)
  position = torch.from_numpy(arrays['Transformer/posembed_input/pos_embedding'])
  keep(
    'vit_augreg',
    arrays,
    x=x,
    logits=vit(x),
    position_3x5=resample_abs_pos_embed(position, (3, 5), (4, 4)),
    position_7x6=resample_abs_pos_embed(position, (7, 6), (4, 4)),
  )

  x = torch.from_numpy(RANDOM.randn(2, 3, 48, 40).astype('float32'))
  norm = lambda channels, **options: timm.layers.GroupNormAct(channels, num_groups=4, **options)
  conv = lambda *sizes, **options: timm.layers.StdConv2d(*sizes, eps=1e-8, **options)
  bit = ResNetV2(
    (2, 1), (16, 32), num_classes=5, stem_chs=8, stem_type='fixed', norm_layer=norm, conv_layer=conv
  )
  arrays = bit_official(bit)
  load_npz(bit, arrays)
  keep('bit_official', arrays, x=x, features=bit.eval().forward_features(x), logits=bit(x))
  if len(sys.argv) > 1:
    np.savez_compressed(
      OUT / 'face_api.npz',
      descriptors=np.array(json.loads(Path(sys.argv[1]).read_text()), np.float32),
    )


def jitter(model: torch.nn.Module) -> torch.nn.Module:
  """The model with random weights everywhere, since a zero hides a mistake."""
  for parameter in model.parameters():
    parameter.add_(0.1 * torch.randn_like(parameter))
  return model.eval()


def saved(model: torch.nn.Module) -> dict[str, np.ndarray]:
  """The arrays under the names that `save_pretrained` writes."""
  from safetensors.numpy import load_file

  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    return load_file(Path(folder) / 'model.safetensors')


def load_npz(model: torch.nn.Module, arrays: dict[str, np.ndarray]) -> None:
  """Has timm read the arrays as an official .npz."""
  with tempfile.TemporaryDirectory() as folder:
    np.savez(Path(folder) / 'weights.npz', **arrays)
    model.load_pretrained(str(Path(folder) / 'weights.npz'))


def normal(*shape: int) -> np.ndarray:
  return (0.3 * RANDOM.randn(*shape)).astype('float32')


def augreg(dim: int, heads: int, depth: int, mlp: int, classes: int) -> dict[str, np.ndarray]:
  """Arrays under the names of the files of How to train your ViT, for 16 px and patches of 4."""
  found = {
    'cls': normal(1, 1, dim),
    'Transformer/posembed_input/pos_embedding': normal(1, 17, dim),
    'embedding/kernel': normal(4, 4, 3, dim),
    'embedding/bias': normal(dim),
    'head/kernel': normal(dim, classes),
    'head/bias': normal(classes),
  }
  norms = ['encoder_norm']
  for i in range(depth):
    block = f'encoderblock_{i}'
    norms += [f'{block}/LayerNorm_0', f'{block}/LayerNorm_2']
    attention = f'Transformer/{block}/MultiHeadDotProductAttention_1'
    for piece in ('query', 'key', 'value'):
      found[f'{attention}/{piece}/kernel'] = normal(dim, heads, dim // heads)
      found[f'{attention}/{piece}/bias'] = normal(heads, dim // heads)
    found |= {
      f'{attention}/out/kernel': normal(heads, dim // heads, dim),
      f'{attention}/out/bias': normal(dim),
    }
    for layer, sizes in (('Dense_0', (dim, mlp)), ('Dense_1', (mlp, dim))):
      found[f'Transformer/{block}/MlpBlock_3/{layer}/kernel'] = normal(*sizes)
      found[f'Transformer/{block}/MlpBlock_3/{layer}/bias'] = normal(sizes[1])
  for norm in norms:
    found |= {f'Transformer/{norm}/scale': 1 + normal(dim), f'Transformer/{norm}/bias': normal(dim)}
  return found


def bit_official(model: ResNetV2) -> dict[str, np.ndarray]:
  """Arrays under the names of the files of Big Transfer, of the shapes of timm's model."""
  names = {
    'stem.conv': 'root_block/standardized_conv2d/kernel',
    'norm': 'group_norm',
    'head.fc': 'head/conv2d',
  }
  for i, stage in enumerate(model.stages):
    for j, block in enumerate(stage.blocks):
      ours, unit = f'stages.{i}.blocks.{j}', f'block{i + 1}/unit{j + 1:02d}'
      for k, letter in enumerate('abc', 1):
        names |= {
          f'{ours}.conv{k}': f'{unit}/{letter}/standardized_conv2d/kernel',
          f'{ours}.norm{k}': f'{unit}/{letter}/group_norm',
        }
      if block.downsample is not None:
        names[f'{ours}.downsample.conv'] = f'{unit}/a/proj/standardized_conv2d/kernel'
  found = {}
  for ours, theirs in names.items():
    weight = model.get_submodule(ours).weight
    if theirs.endswith('group_norm'):
      found |= {
        f'resnet/{theirs}/gamma': 1 + normal(*weight.shape),
        f'resnet/{theirs}/beta': normal(*weight.shape),
      }
    else:
      out, inputs, height, width = weight.shape
      found[f'resnet/{theirs}' + '/kernel' * (ours == 'head.fc')] = normal(
        height, width, inputs, out
      )
  return found | {'resnet/head/conv2d/bias': normal(5)}


def keep(name: str, arrays: dict[str, np.ndarray], **outputs: torch.Tensor) -> None:
  """Writes <name>.safetensors and <name>.npz."""
  save_file(
    {key: np.ascontiguousarray(array) for key, array in arrays.items()}, OUT / f'{name}.safetensors'
  )
  np.savez_compressed(
    OUT / f'{name}.npz', **{key: tensor.detach().numpy() for key, tensor in outputs.items()}
  )


if __name__ == '__main__':
  main()
