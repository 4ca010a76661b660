"""Vision transformers: ViT (arXiv:2010.11929) as in timm, transformers and big_vision, and DINOv2
(arXiv:2304.07193).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tlx.backbones import NameMap, _config, _names, _vit, chain
from tlx.backbones._attention import OF_TRANSFORMERS
from tlx.backbones._layers import Head, choose, resolve, sizes
from tlx.types import Network


class Options(NamedTuple):
  """The sizes of ViT-B/16.

  image_size: one number or (height, width), multiples of the patch; position embeddings belong to
  it
  position_size: the image size that a file's position embeddings belong to; None takes their grid
  for a square one, or, where
    their number is no square, for that of image_size
  class_position: whether the class token has a position embedding; registers (arXiv:2309.16588)
  never do
  layer_scale: the initial value of a learned scale per channel on both branches of a block; None
  for no such scale
  pool: 'token' (the class token) or 'mean' (over the patches), after the final norm
  gelu: 'exact', 'tanh' as in big_vision, or 'quick' as in CLIP
  """

  dim: int = 768
  depth: int = 12
  heads: int = 12
  patch: int = 16
  image_size: int | Sequence[int] = 224
  position_size: int | Sequence[int] | None = None
  mlp_ratio: float = 4.0
  class_token: bool = True
  class_position: bool = True
  registers: int = 0
  layer_scale: float | None = None
  qkv_bias: bool = True
  pool: str = 'token'
  gelu: str = 'exact'
  norm_eps: float = 1e-6
  dtype: str = 'float32'
  precision: str = 'float32'


_SIZES = {
  'ti': {'dim': 192, 'depth': 12, 'heads': 3},
  's': {'dim': 384, 'depth': 12, 'heads': 6},
  'b': {'dim': 768, 'depth': 12, 'heads': 12},
  'l': {'dim': 1024, 'depth': 24, 'heads': 16},
  'h': {'dim': 1280, 'depth': 32, 'heads': 16},
}
VARIANTS: dict[str, dict[str, Any]] = {}
for _name, _widths in _SIZES.items():
  for _patch in (8, 14, 16, 32):
    VARIANTS[f'{_name}/{_patch}'] = {**_widths, 'patch': _patch}
for _name in 'sbl':
  _of_dinov2 = {'image_size': 518, 'layer_scale': 1e-5}
  VARIANTS[f'dinov2_{_name}/14'] = {**VARIANTS[f'{_name}/14'], **_of_dinov2}
IGNORE = (r'mask_token$', r'pooler\.')  # tensors of public files that a network does not use
# and those that stand between features and head, where the head is not used either
IGNORE_WITH_HEAD = (r'pre_logits',)


def build(num_classes: int, variant: str | None = None, **options: Any) -> Network:
  """The network with stages embed, block0, ..., norm (tokens [B, T, D]), pool ([B, D]) and head.

  Tokens are the class token, then registers, then patches row by row. Variants are 'ti/16', 's/8',
  'dinov2_b/14' and so on.

  Raises:
    ValueError: a bad option.
  """
  o = _resolve(variant, options)
  block = _vit.Block(o)
  return chain(
    [
      ('embed', _vit.Embed(o)),
      *((f'block{i}', block) for i in range(o.depth)),
      ('norm', _vit.Norm(o)),
      ('pool', _vit.Pool(o)),
      ('head', Head(num_classes)),
    ],
    o.precision,
  )


def _resolve(variant: str | None, options: Mapping[str, Any]) -> Options:
  """The options, checked, with `image_size` as (height, width)."""
  o = resolve(Options(), VARIANTS, variant, options)
  sizes('dim, depth, heads, patch', (o.dim, o.depth, o.heads, o.patch), 4)
  image_size = _vit.whole_patches('image_size', o.image_size, o.patch)
  position_size = None
  if o.position_size is not None:
    position_size = _vit.whole_patches('position_size', o.position_size, o.patch)
  if o.dim % o.heads:
    raise ValueError(
      f'Option dim is {o.dim}, which {o.heads} heads do not divide; choose other dim or heads.'
    )
  choose('gelu', o.gelu, tuple(_vit.GELUS))
  if choose('pool', o.pool, ('token', 'mean')) == 'token' and not o.class_token:
    raise ValueError("Option pool is 'token' but class_token is False; set pool='mean'.")
  return o._replace(image_size=image_size, position_size=position_size)


# What the pieces of a network are called in a file, and where block i's pieces stand; one dict a
# layout.
_TIMM = {
  'class': 'cls_token',
  'position': 'pos_embed',
  'registers': 'reg_token',
  'patch': 'patch_embed.proj',
  'norm': 'norm',
  'head': 'head',
  'block': 'blocks.{}.',
  'norm1': 'norm1',
  'qkv': 'attn.qkv',
  'out': 'attn.proj',
  'norm2': 'norm2',
  'up': 'mlp.fc1',
  'down': 'mlp.fc2',
  'layer_scale1': 'ls1.gamma',
  'layer_scale2': 'ls2.gamma',
}
_HF = {
  'class': 'embeddings.cls_token',
  'position': 'embeddings.position_embeddings',
  'registers': 'embeddings.register_tokens',
  'patch': 'embeddings.patch_embeddings.projection',
  'norm': 'layernorm',
  'head': 'classifier',
  'block': 'encoder.layer.{}.',
  'norm1': 'layernorm_before',
  'norm2': 'layernorm_after',
  'up': 'intermediate.dense',
  'down': 'output.dense',
  'query': 'attention.attention.query',
  'key': 'attention.attention.key',
  'value': 'attention.attention.value',
  'out': 'attention.output.dense',
  'layer_scale1': 'layer_scale1.lambda1',
  'layer_scale2': 'layer_scale2.lambda1',
}
_HF_DINO = {**_HF, 'norm1': 'norm1', 'norm2': 'norm2', 'up': 'mlp.fc1', 'down': 'mlp.fc2'}
_HF5 = {
  'query': 'attention.q_proj',
  'key': 'attention.k_proj',
  'value': 'attention.v_proj',
  'out': 'attention.o_proj',
  'up': 'mlp.fc1',
  'down': 'mlp.fc2',
}
_BIG_VISION = {
  'class': 'cls',
  'position': 'pos_embedding',
  'patch': 'embedding',
  'norm': 'Transformer/encoder_norm',
  'head': 'head',
  'block': 'Transformer/encoderblock_{}/',
  'norm1': 'LayerNorm_0',
  'norm2': 'LayerNorm_1',
  'attention': 'MultiHeadDotProductAttention_0/',
  'up': 'MlpBlock_0/Dense_0',
  'down': 'MlpBlock_0/Dense_1',
}
LAYOUTS = {
  'timm': _TIMM,
  'dinov2': {**_TIMM, 'registers': 'register_tokens'},  # its own checkpoints
  'transformers': _HF,  # what transformers writes; in memory its version 5 has other names:
  'transformers 5': {**_HF, **_HF5, 'block': 'layers.{}.'},
  'transformers, dinov2': _HF_DINO,
  'transformers 5, dinov2': {**_HF_DINO, **_HF5},
  'big_vision': _BIG_VISION,
  # arXiv:2106.10270
  'augreg': {
    **_BIG_VISION,
    'position': 'Transformer/posembed_input/pos_embedding',
    'norm2': 'LayerNorm_2',
    'attention': 'MultiHeadDotProductAttention_1/',
    'up': 'MlpBlock_3/Dense_0',
    'down': 'MlpBlock_3/Dense_1',
  },
}


def names(arrays: Mapping[str, np.ndarray], variant: str | None = None, **options: Any) -> NameMap:
  """The names in `arrays`, of the layout that has most of them, for a network of these options.

  Position embeddings of another grid are resized, bicubically with antialiasing as in timm (within
  1e-6 of it; DINOv2's own code has no antialiasing, which matters only for grids other than its 37
  x 37). What the names cannot tell is yours to set, unless it stands beside the weights
  (`backbones.options_of`): big_vision has gelu='tanh' and class_position=False (augreg's files
  True), timm's no_embed_class is class_position=False, transformers' ViT has norm_eps=1e-12.
  """
  o = _resolve(variant, options)
  maps = [_names_in(layout, arrays, o) for layout in LAYOUTS.values()]
  return max(maps, key=lambda found: sum(theirs in arrays for theirs, _ in found.values()))


def _names_in(layout: Mapping[str, str], arrays: Mapping[str, np.ndarray], o: Options) -> dict:
  """The name map of one layout, with the prefix that its patch embedding has in the file."""
  flax = 'attention' in layout
  linear, conv, norm = _names.dense, _names.conv, _names.norm
  if flax:
    linear, conv, norm = _flax, _flax, _flax_norm
  with_class = o.class_token and o.class_position
  wanted = _vit.grid(o.image_size, o.patch)
  given = _vit.grid(o.position_size, o.patch) if o.position_size else None
  found = {
    'embed/position': (
      layout['position'],
      lambda array: _vit.resize_positions(array, wanted, with_class, given),
    ),
    **conv('embed/patch', layout['patch'], bias=True),
    **norm('norm/norm', layout['norm']),
  }
  if o.class_token:
    found['embed/class'] = (layout['class'], _names.same)
  if 'registers' in layout and o.registers > 0:
    found['embed/registers'] = (layout['registers'], _names.same)
  for i in range(o.depth):
    ours, theirs = f'block{i}/', layout['block'].format(i)
    for piece in ('norm1', 'norm2'):
      found |= norm(ours + piece, theirs + layout[piece])
    for piece in ('up', 'down'):
      found |= linear(f'{ours}mlp/{piece}', theirs + layout[piece])
    for piece in ('layer_scale1', 'layer_scale2') if o.layer_scale is not None and not flax else ():
      found[ours + piece] = (theirs + layout[piece], _names.same)
    found |= _attention(f'{ours}attention/', theirs, layout, o)
  prefix = _names.prefix_of(arrays, found['embed/patch/bias'][0])
  head = linear('head', layout['head'])
  return {
    **_names.prefixed(prefix, found),
    **(head if layout['head'] == 'classifier' else _names.prefixed(prefix, head)),
  }


def _attention(ours: str, theirs: str, layout: Mapping[str, str], o: Options) -> dict:
  """Entries for query, key, value, out: in one piece in timm's files, by head in big_vision's."""
  found: dict[str, Any] = {}
  if 'attention' in layout:
    for piece in ('query', 'key', 'value', 'out'):
      found |= _flax(
        ours + piece,
        theirs + layout['attention'] + piece,
        piece == 'out' or o.qkv_bias,
        (o.dim, o.dim),
      )
    return found
  for i, piece in enumerate(('query', 'key', 'value')):
    rows = slice(i * o.dim, (i + 1) * o.dim) if 'qkv' in layout else slice(None)
    name = theirs + layout.get('qkv', layout.get(piece, ''))
    found[f'{ours}{piece}/kernel'] = (f'{name}.weight', lambda w, rows=rows: w[rows].T)
    if o.qkv_bias:
      found[f'{ours}{piece}/bias'] = (f'{name}.bias', lambda b, rows=rows: b[rows])
  return found | _names.dense(f'{ours}out', theirs + layout['out'])


def _flax(ours: str, theirs: str, bias: bool = True, shape: tuple[int, int] | None = None) -> dict:
  """A flax layer's kernel and bias, flattened to `shape` where the file has an axis for heads."""
  entries = {
    f'{ours}/kernel': (f'{theirs}/kernel', (lambda w: w.reshape(shape)) if shape else _names.same)
  }
  return entries | {f'{ours}/bias': (f'{theirs}/bias', np.ravel)} if bias else entries


def _flax_norm(ours: str, theirs: str) -> dict:
  return {f'{ours}/{leaf}': (f'{theirs}/{leaf}', _names.same) for leaf in ('scale', 'bias')}


# What the tensors do not tell, and what is taken for granted where nothing stands beside them.
OPEN = ('heads', 'norm_eps', 'gelu', 'pool')
ASSUMED = (
  'Attention is taken to have no rotary or relative positions, position embeddings to be of a '
  'square grid where their number is a square, and the final norm to stand before the pooling.',
)
HEADS = r'(ViT|Dinov2|Dinov2WithRegisters)Model|ViTForImageClassification'
TIMM = ('vit_', 'deit', 'dinov2')
READ = (
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'intermediate_size',
  'hidden_act',
  'layer_norm_eps',
  'image_size',
  'patch_size',
  'num_channels',
  'qkv_bias',
  'mlp_ratio',
  'layerscale_value',
  'use_swiglu_ffn',
  'num_register_tokens',
  'apply_layernorm',
  'global_pool',
  'model_args',
)


def told(config: Mapping[str, Any]) -> _config.Told:
  """The options that a config.json of transformers or timm asks for.

  Raises:
    ValueError: a field that is not computed, by its name.
  """
  if 'architecture' in config:
    return _told_by_timm(config)
  _config.only(
    config,
    {
      'model_type': ('vit', 'dinov2', 'dinov2_with_registers'),
      'use_swiglu_ffn': (False,),
      'num_channels': (3,),
    },
    'vit',
  )
  ours_of = {name: ours for ours, name in _vit.GELUS.items()}
  gelus = {theirs: ours_of[name] for theirs, name in OF_TRANSFORMERS.items() if name in ours_of}
  _config.only(config, {'hidden_act': tuple(gelus)}, 'vit')
  found = _config.given(
    config,
    {
      'dim': 'hidden_size',
      'depth': 'num_hidden_layers',
      'heads': 'num_attention_heads',
      'patch': 'patch_size',
      'image_size': 'image_size',
      'qkv_bias': 'qkv_bias',
      'mlp_ratio': 'mlp_ratio',
      'norm_eps': 'layer_norm_eps',
      'layer_scale': 'layerscale_value',
      'registers': 'num_register_tokens',
    },
  )
  if 'mlp_ratio' not in found and {'intermediate_size', 'hidden_size'} <= config.keys():
    found['mlp_ratio'] = ('intermediate_size', config['intermediate_size'] / config['hidden_size'])
  size = found.get('image_size', ('', 0))[1]
  if isinstance(size, Sequence) and size[0] != size[1]:
    found['position_size'] = ('image_size', tuple(size))
  return found | {
    'gelu': ('hidden_act', gelus[config.get('hidden_act', 'gelu')]),
    'pool': ('model_type', 'token'),
    'class_token': ('model_type', True),
    'class_position': ('model_type', True),
  }


def _told_by_timm(config: Mapping[str, Any]) -> _config.Told:
  """The options that a name of timm asks for."""
  name = config['architecture']
  args = _config.timm_args(config, ('global_pool', 'act_layer'))
  plain = re.fullmatch(
    r'(?:jx_)?(?:vit|deit)_(tiny|small|base|large|huge)_p(?:atch)?(\d+)(?:_(\d+))?'
    r'(_in21k|_dinov2|_reg4_dinov2)?',
    name,
  )
  if not plain:
    raise _config.refused(
      'architecture',
      name,
      'vit computes of timm vit_SIZE_patchN_SIZE, its _dinov2 and _reg4_dinov2, and '
      'deit_SIZE_patchN_SIZE only',
    )
  size, patch, image, dino = plain.groups()
  pool = args.get('global_pool', config.get('global_pool', 'token'))
  act = args.get('act_layer', 'gelu')
  _config.only(
    {'global_pool': pool, 'model_args.act_layer': act},
    {'global_pool': ('token', ''), 'model_args.act_layer': ('gelu', 'gelu_tanh', 'quick_gelu')},
    'vit',
  )
  dino = dino if dino and 'dinov2' in dino else ''
  options = {
    **_SIZES['ti' if size == 'tiny' else size[0]],
    'patch': int(patch),
    'image_size': 518 if dino else int(image or 224),
    'norm_eps': 1e-6,
    'gelu': {name: ours for ours, name in _vit.GELUS.items()}[act],
    'pool': 'token',
    'mlp_ratio': 4.0,
    'qkv_bias': True,
    'registers': 4 if dino.startswith('_reg4') else 0,
    'class_position': not dino.startswith('_reg4'),
    'layer_scale': 1e-5 if dino else None,
    'class_token': True,
  }
  return {option: ('architecture', value) for option, value in options.items()}


def input_spec(variant: str | None = None, **options: Any) -> dict[str, Any]:
  """The preprocessing of public weights; mean and std are for values in 0..1 (uint8 / 255).

  DINOv2 (taken to be what has a layer scale) normalises by ImageNet's statistics, ViT to -1..1;
  both are cropped as in timm.

  Raises:
    ValueError: a bad option, or an image_size that is no square.
  """
  o = _resolve(variant, options)
  side = _vit.side_of_square(o.image_size)
  spec = {**_names.IMAGENET_INPUT, 'image_size': side, 'interpolation': 'bicubic'}
  return (
    spec
    if o.layer_scale is not None
    else {**spec, 'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5), 'crop': 0.9}
  )


def tiny() -> tuple[dict[str, Any], np.ndarray]:
  """Build options and example inputs of a tiny network, for tests."""
  inputs = np.random.default_rng(0).normal(size=(4, 16, 8, 3)).astype('float32')
  return {
    'num_classes': 3,
    'dim': 8,
    'depth': 2,
    'heads': 2,
    'patch': 4,
    'image_size': (16, 8),
    'registers': 2,
    'layer_scale': 0.1,
  }, inputs
