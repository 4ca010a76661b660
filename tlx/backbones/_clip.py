"""What the towers of CLIP (arXiv:2103.00020) and SigLIP (arXiv:2303.15343) share: their configs."""

from collections.abc import Mapping
from typing import Any

from tlx.backbones import _config, _names

FAMILIES = ('clip', 'siglip')
# What a config.json of the transformers library leaves out where it is the default of its class.
_CLIP = {
  'hidden_act': 'quick_gelu',
  'layer_norm_eps': 1e-5,
  'num_hidden_layers': 12,
  'max_position_embeddings': 77,
  'vocab_size': 49408,
  'eos_token_id': 49407,
}
_SIGLIP = {
  'hidden_size': 768,
  'intermediate_size': 3072,
  'num_hidden_layers': 12,
  'num_attention_heads': 12,
  'hidden_act': 'gelu_pytorch_tanh',
  'layer_norm_eps': 1e-6,
  'image_size': 224,
  'max_position_embeddings': 64,
  'vocab_size': 32000,
  'pad_token_id': 1,
}
_DEFAULTS = {
  ('clip', 'vision'): {
    'hidden_size': 768,
    'intermediate_size': 3072,
    'num_attention_heads': 12,
    'image_size': 224,
    'patch_size': 32,
    **_CLIP,
  },
  ('clip', 'text'): {
    'hidden_size': 512,
    'intermediate_size': 2048,
    'num_attention_heads': 8,
    **_CLIP,
  },
  ('siglip', 'vision'): {'patch_size': 16, **_SIGLIP},
  ('siglip', 'text'): _SIGLIP,
}
READ = ('vision_config', 'text_config', 'projection_dim', 'logit_scale_init_value')


def tower(config: Mapping[str, Any], part: str) -> tuple[str, dict[str, Any]]:
  """(the family, the fields of a tower, 'vision' or 'text', with its class's defaults).

  `config` is of both towers or of that one alone. 'projection_dim' is the size of the common space,
  None where the class has no projection.

  Raises:
    ValueError: another model, by the name of its field.
  """
  _config.only(
    config,
    {'model_type': tuple(f'{f}{end}' for f in FAMILIES for end in ('', f'_{part}_model'))},
    f'this tower of {part}',
  )
  family = str(config['model_type']).partition('_')[0] if 'model_type' in config else 'clip'
  own = config.get(f'{part}_config', config if f'_{part}_' in config.get('model_type', '') else {})
  fields = {**_DEFAULTS[family, part], **{name: v for name, v in own.items() if v is not None}}
  if family == 'clip':
    bare = f'CLIP{part.capitalize()}Model' in (config.get('architectures') or ())
    common = own if own is config else config
    fields['projection_dim'] = None if bare else common.get('projection_dim', 512)
  else:
    fields['projection_dim'] = None
    if part == 'text':
      fields['projection_dim'] = fields.get('projection_size', fields['hidden_size'])
  return family, fields


def block(ours: str, theirs: str) -> dict[str, Any]:
  """The entries of a block, which are the same in both towers."""
  found: dict[str, Any] = {}
  for name in ('norm1', 'norm2'):
    found |= _names.norm(f'{ours}/{name}', f'{theirs}.layer_{name}')
  for piece in ('query', 'key', 'value'):
    found |= _names.dense(f'{ours}/attention/{piece}', f'{theirs}.self_attn.{piece[0]}_proj')
  found |= _names.dense(f'{ours}/attention/out', f'{theirs}.self_attn.out_proj')
  found |= _names.dense(f'{ours}/mlp/up', f'{theirs}.mlp.fc1')
  return found | _names.dense(f'{ours}/mlp/down', f'{theirs}.mlp.fc2')
