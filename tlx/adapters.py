"""LoRA, (IA)3, VeRA, LoHa, LoKr and OFT as the peft library keeps them, to write and to read.

A folder holds adapter_model.safetensors and adapter_config.json
(https://huggingface.co/docs/peft/developer_guides/checkpoint).
"""

import json
import os
import pathlib
import re
import types
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from tlx import checkpoint, peft
from tlx.peft._layers import by_layer
from tlx.plug import plug
from tlx.types import PyTree

WEIGHTS, CONFIG = 'adapter_model.safetensors', 'adapter_config.json'
PREFIX = 'base_model.model.'
# Fields of a config that change what is computed, and the values that are read.
PLAIN: dict[str, tuple[Any, ...]] = {
  'bias': ('none', None),
  'lora_bias': (False, None),
  'use_qalora': (False, None),
  'layer_replication': (None, []),
  'trainable_token_indices': (None, []),
  'target_parameters': (None, []),
  'alora_invocation_tokens': (None, []),
  'use_effective_conv2d': (False, None),
  'decompose_both': (False, None),
  'coft': (False, None),
  'block_share': (False, None),
  'use_cayley_neumann': (False, None),
  # Of the others that change the source's weights.
  'init_lora_weights': (True, False, None, 'gaussian', 'orthogonal', 'eva', 'pissa'),
}
# peft_type and leaves of the methods.
KINDS = {
  'lora': ('LORA', ('lora_A', 'lora_B', 'lora_magnitude_vector')),
  'ia3': ('IA3', ('ia3_l',)),
  'vera': ('VERA', ('vera_lambda_b', 'vera_lambda_d')),
  'loha': ('LOHA', ('hada_w1_a', 'hada_w1_b', 'hada_w2_a', 'hada_w2_b')),
  'lokr': ('LOKR', ('lokr_w1', 'lokr_w2', 'lokr_w2_a', 'lokr_w2_b')),
  'oft': ('OFT', ('oft_R',)),
}
# What leaves of these names are of ours; [.., in, rank] of convolutions are [rank, in h w] there.
SAME = {'vera_lambda_b': 'b', 'vera_lambda_d': 'd', 'oft_R': 'skew'}
TURNED = {
  'hada_w1_a': 'b1',
  'hada_w1_b': 'a1',
  'hada_w2_a': 'b2',
  'hada_w2_b': 'a2',
  'lokr_w1': 'w1',
  'lokr_w2': 'w2',
  'lokr_w2_a': 'b',
  'lokr_w2_b': 'a',
}


class Adapter(NamedTuple):
  """What a folder holds, as ours.

  method: the value of a method's field `added` in a config, {'name': 'lora', 'rank': 8, ...}
  leaves: as `Added.init` gives them; `place` puts them into a network's parameters
  others: tensors of the file that belong to no layer, such as a head, by their names there
  """

  method: dict[str, Any]
  leaves: dict[str, Any]
  others: dict[str, np.ndarray]

  def added(self) -> peft.Added:
    """The method that these leaves are of."""
    options = {name: value for name, value in self.method.items() if name != 'name'}
    return plug('peft', self.method['name']).added(**options)


class Part(NamedTuple):
  """What a layer of ours is of an official one.

  ours: 'block0/attention/query'
  outputs: for each output of ours the official one's number; all in order but where the official
    layer is several of ours side by side
  kernel: the source's, as ours
  """

  ours: str
  outputs: np.ndarray
  kernel: np.ndarray


class Official(NamedTuple):
  """A layer of the source by its official name, without '.weight'.

  transposed: its weight is [in, out], as GPT-2's
  """

  num_outputs: int
  transposed: bool
  parts: tuple[Part, ...]


def layers(
  backbone: types.ModuleType, arrays: Mapping[str, np.ndarray], **options: Any
) -> dict[str, Official]:
  """{official name: what it is of ours} of a backbone's layers.

  Args:
    arrays: of the source's weights, as `sources.load` gives them.
    options: those that `backbone.build` took.
  """
  found: dict[str, Official] = {}
  for ours, (theirs, change) in backbone.names(arrays, **options).items():
    if not ours.endswith('/kernel') or theirs not in arrays or not theirs.endswith('.weight'):
      continue
    weight = np.asarray(arrays[theirs])
    number = np.asarray(change(np.arange(weight.size).reshape(weight.shape)))
    number = number.reshape(-1, number.shape[-1]).astype(int)
    rows = number // (weight.size // len(weight))
    transposed = bool((rows != rows[:1]).any())
    outputs = number[0] % weight.shape[1] if transposed else rows[0]
    part = Part(ours.removesuffix('/kernel'), outputs, np.asarray(change(weight)))
    name = theirs.removesuffix('.weight')
    before = found[name].parts if name in found else ()
    size = weight.shape[1] if transposed else len(weight)
    found[name] = Official(size, transposed, (*before, part))
  return found


def place(params: PyTree, adapter: Adapter) -> PyTree:
  """The parameters with an adapter's leaves.

  Raises:
    ValueError: leaves of its method are there already.
  """

  def start(key: Any, params: PyTree) -> dict[str, Any]:
    return adapter.leaves

  return peft.add(params, peft.Added(adapter.method['name'], start, None, None), None)  # type: ignore[arg-type]


def save(
  folder: os.PathLike | str,
  params: PyTree,
  method: Mapping[str, Any],
  official: Mapping[str, Official],
  prefix: str = '',
  base: str = '',
) -> None:
  """Writes what `method` added to `params` as the peft library does.

  Where an official layer is several of ours, as GPT-2's query, key and value, it gets the sum of
  their ranks. PiSSA becomes LoRA of twice the rank, for the source as it is.

  Args:
    method: as in a study's config, {'name': 'lora', 'rank': 8}.
    official: what `layers` gives.
    prefix: what stands before the source's names in the model that will take the adapter: 'bert.'
      of a BertForSequenceClassification.
    base: the name or path of the source, for the config.

  Raises:
    ValueError: a method that peft does not have, a layer that the source's file does not have, or
      one that peft keeps in another form: a depthwise convolution, a bias; of methods but lora and
      ia3 one that is several of ours.
  """
  name = method['name']
  if name not in KINDS:
    raise ValueError(f'{name!r} is not kept in the form of peft; {", ".join(KINDS)} are.')
  own = by_layer(peft.split(params, name)[1])
  shared = {stage: own.pop(stage) for stage in list(own) if '/' not in stage}
  if not own:
    raise ValueError(f'The parameters have no leaves of {name!r} to write.')
  covered = {part.ours for layer in official.values() for part in layer.parts}
  if unknown := sorted(own.keys() - covered):
    raise ValueError(f'The source has no official name for {", ".join(unknown)}.')
  chosen = {
    theirs: layer
    for theirs, layer in official.items()
    if any(part.ours in own for part in layer.parts)
  }
  write = {'lora': _lora_to_peft, 'ia3': _ia3_to_peft}.get(name, _others_to_peft)
  tensors, config = write(method, own, chosen, prefix)
  for leaves in shared.values():  # equal in all stages
    tensors['base_model.vera_A'] = leaves['fixed/a'].T
    tensors['base_model.vera_B'] = leaves['fixed/b'].T
  transposed = {layer.transposed for layer in chosen.values()}
  if len(transposed) > 1:
    raise ValueError('peft has one fan_in_fan_out for all layers, and these have both.')
  if name in ('lora', 'ia3'):
    config['fan_in_fan_out'] = transposed.pop()
  config |= {
    'peft_type': KINDS[name][0],
    'base_model_name_or_path': base or None,
    'inference_mode': True,
    'target_modules': any_of(f'{prefix}{theirs}' for theirs in chosen),
    'task_type': None,
  }
  place = pathlib.Path(folder)
  place.mkdir(parents=True, exist_ok=True)
  arrays = {key: np.ascontiguousarray(leaf) for key, leaf in tensors.items()}
  checkpoint.write_arrays(place / WEIGHTS, arrays)
  (place / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + '\n')


def load(folder: os.PathLike | str, official: Mapping[str, Official]) -> Adapter:
  """The adapter that a folder of the peft library holds.

  Args:
    official: what `layers` gives.

  Raises:
    ValueError: a peft_type or a field that is not computed, or a tensor of a layer that the source
      does not have, by its name.
  """
  config = json.loads((pathlib.Path(folder) / CONFIG).read_text())
  kinds = {kind: name for name, (kind, _) in KINDS.items()}
  if (kind := config.get('peft_type')) not in kinds:
    raise ValueError(f'{CONFIG} says peft_type = {kind!r}; {", ".join(kinds)} are read.')
  for field, values in PLAIN.items():
    if field in config and config[field] not in values:
      raise ValueError(f'{CONFIG} says {field} = {config[field]!r}, which is not read.')
  name = kinds[kind]
  names = KINDS[name][1]
  found: dict[str, dict[str, np.ndarray]] = {}
  others = {}
  for key, array in load_file(pathlib.Path(folder) / WEIGHTS).items():
    path = re.fullmatch(rf'(.*)\.({"|".join(names)})(\.weight)?', key)
    if path:
      found.setdefault(path[1].removeprefix(PREFIX), {})[path[2]] = array
    elif re.search(r'\.(lora|ia3|vera|hada|lokr|oft)_(?!A$|B$)', key):
      raise ValueError(f'{WEIGHTS} has {key!r}, which is not read.')
    else:
      others[key] = array
  modules = {module: official[_known(module, official)] for module in found}
  if name in ('lora', 'ia3'):
    read = _lora_from_peft if name == 'lora' else _ia3_from_peft
    return Adapter(*read(config, found, modules), others)
  method, leaves = _others_from_peft(name, config, found, modules)
  if name == 'vera':
    if not {'base_model.vera_A', 'base_model.vera_B'} <= others.keys():
      raise ValueError(
        f'{WEIGHTS} is without vera_A and vera_B: save it with save_projection=True.'
      )
    projections = [others.pop(f'base_model.vera_{part}').T for part in 'AB']
    for stage in dict.fromkeys(path.partition('/')[0] for path in leaves):
      leaves[f'{stage}/fixed/a'], leaves[f'{stage}/fixed/b'] = projections
  return Adapter(method, leaves, others)


def _known(module: str, official: Mapping[str, Official]) -> str:
  """The source's name of a module, which may have something before it in the adapter."""
  fitting = [name for name in official if f'.{module}'.endswith(f'.{name}')]
  fitting += [name for name in official if f'.{name}'.endswith(f'.{module}')]
  if not fitting:
    raise ValueError(f'{WEIGHTS} adapts {module!r}, which the source does not have.')
  return max(fitting, key=len)


def any_of(names: Any) -> str:
  """A regex that matches these names as a whole.

  >>> any_of(['layer.0.query'])
  '(layer\\\\.0\\\\.query)'
  """
  return f'({"|".join(map(re.escape, names))})'


def patterns(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
  """(the most frequent value, {pattern of a name: value} of the others)."""
  usual = Counter(values.values()).most_common(1)[0][0]
  return usual, {f'^{re.escape(name)}': value for name, value in values.items() if value != usual}


def _lora_to_peft(
  method: Mapping[str, Any],
  own: Mapping[str, dict[str, np.ndarray]],
  chosen: Mapping[str, Official],
  prefix: str,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """(tensors, config) of LoRA and its variants."""
  rslora = bool(method.get('rslora', False))
  power = 0.5 if rslora else 1.0
  tensors, ranks, alphas = {}, {}, {}
  for theirs, layer in chosen.items():
    columns, rows, scales = [], [], []
    magnitude = None
    for part in layer.parts:
      leaves = own.get(part.ours, {})
      if 'bias' in leaves:
        raise ValueError(f'{part.ours} has a trained bias, which is not written; merge instead.')
      if magnitude is None and any('magnitude' in own.get(p.ours, {}) for p in layer.parts):
        magnitude = np.ones(layer.num_outputs, np.float32)
      if magnitude is not None:
        kernel = part.kernel.reshape(-1, part.kernel.shape[-1])
        magnitude[part.outputs] = np.linalg.norm(kernel, axis=0) + leaves.get('magnitude', 0)
      if not leaves:
        continue
      a, b = leaves['a'], leaves['b']
      if _is_depthwise(part):
        raise ValueError(f'{part.ours} is a depthwise convolution, which peft adapts otherwise.')
      scale = scale_of(method, leaves)
      if 'fixed/a' in leaves:
        a = np.concatenate([a, leaves['fixed/a']], axis=-1)
        b = np.concatenate([b, -leaves['fixed/b']])
      spread = np.zeros((len(b), layer.num_outputs), np.float32)
      spread[:, part.outputs] = b
      columns.append(a)
      rows.append(spread)
      scales.append(scale)
    a = np.concatenate(columns, axis=-1)
    b = np.concatenate([scale / scales[0] * row for scale, row in zip(scales, rows, strict=True)])
    name = f'{prefix}{theirs}'
    ranks[name], alphas[name] = len(b), _short(scales[0] * len(b) ** power)
    convolution = a.ndim == 4
    tensors[f'{PREFIX}{name}.lora_A.weight'] = a.transpose(3, 2, 0, 1) if convolution else a.T
    tensors[f'{PREFIX}{name}.lora_B.weight'] = b.T[:, :, None, None] if convolution else b.T
    if magnitude is not None:
      shape = (1, -1, 1, 1) if convolution else (-1,)
      tensors[f'{PREFIX}{name}.lora_magnitude_vector'] = magnitude.reshape(shape)
  rank, rank_pattern = patterns(ranks)
  alpha, alpha_pattern = patterns(alphas)
  return tensors, {
    'r': rank,
    'lora_alpha': alpha,
    'lora_dropout': 0.0,
    'rank_pattern': rank_pattern,
    'alpha_pattern': alpha_pattern,
    'bias': 'none',
    'use_rslora': rslora,
    'use_dora': any('magnitude' in leaves for leaves in own.values()),
    'init_lora_weights': True,
  }


def scale_of(method: Mapping[str, Any], own: Mapping[str, Any]) -> float:
  """The factor of a layer's product a b."""
  alpha = own.get('fixed/alpha', method.get('alpha') or 2 * method.get('rank', 8))
  return float(alpha) / own['a'].shape[-1] ** (0.5 if method.get('rslora') else 1.0)


def _short(value: float) -> float:
  """Without what rounding made of it; a whole number as one."""
  value = round(value, 6)
  return int(value) if value == int(value) else value


def _is_depthwise(part: Part) -> bool:
  """Of a kernel [h, w, 1, out] with one input for each of several outputs."""
  shape = part.kernel.shape
  return len(shape) == 4 and shape[2] == 1 and shape[3] > 1


def _lora_from_peft(
  config: Mapping[str, Any],
  found: Mapping[str, Mapping[str, np.ndarray]],
  modules: Mapping[str, Official],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """(method, leaves) of LoRA and its variants."""
  leaves: dict[str, Any] = {}
  ranks, alphas = {}, {}
  pissa = config.get('init_lora_weights') == 'pissa'
  for module, tensors in found.items():
    a, b = tensors['lora_A'], tensors['lora_B']
    alpha = config['lora_alpha']
    for pattern, value in (config.get('alpha_pattern') or {}).items():
      if re.match(rf'(.*\.)?({pattern})$', module):
        alpha = value
        break
    start = {}
    if pissa:
      power = 0.5 if config.get('use_rslora') else 1.0
      start = _pissa_start(modules[module], len(a), alpha / len(a) ** power)
    for part in modules[module].parts:
      kernel = part.kernel
      of_all = b.reshape(len(b), -1).T
      if kernel.ndim == 4 and a.ndim == 4:
        leaves[f'{part.ours}/a'] = a.transpose(2, 3, 1, 0)
      else:
        leaves[f'{part.ours}/a'] = a.reshape(len(a), -1).T
      leaves[f'{part.ours}/b'] = of_all[:, part.outputs]
      if pissa:
        leaves[f'{part.ours}/fixed/a'] = start['a']
        leaves[f'{part.ours}/fixed/b'] = start['b'][:, part.outputs]
      if 'lora_magnitude_vector' in tensors:
        norm = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        magnitude = tensors['lora_magnitude_vector'].ravel()[part.outputs]
        leaves[f'{part.ours}/magnitude'] = magnitude - norm
      ranks[part.ours], alphas[part.ours] = len(a), alpha
  rank, rank_pattern = patterns(ranks)
  alpha, alpha_pattern = patterns(alphas)
  for name, value in alphas.items():
    if value != alpha:
      leaves[f'{name}/fixed/alpha'] = np.float32(value)
  method = {
    'name': 'lora',
    'at': f'^{any_of(ranks)}$',
    'rank': rank,
    'alpha': alpha,
    'rank_pattern': [(f'{pattern}$', value) for pattern, value in rank_pattern.items()],
    'alpha_pattern': [(f'{pattern}$', value) for pattern, value in alpha_pattern.items()],
    'rslora': bool(config.get('use_rslora')),
    'dora': bool(config.get('use_dora')),
    'init': 'pissa' if pissa else 'uniform',
  }
  return method, leaves


def _pissa_start(layer: Official, rank: int, scale: float) -> dict[str, np.ndarray]:
  """a and b of what peft takes off a layer's weight before it adds an adapter that is PiSSA's."""
  kernel = np.zeros((*layer.parts[0].kernel.shape[:-1], layer.num_outputs), np.float32)
  for part in layer.parts:
    kernel[..., part.outputs] = part.kernel
  left, values, right = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), full_matrices=False)
  a = left[:, :rank].reshape(*kernel.shape[:-1], rank)
  return {'a': a, 'b': values[:rank, None] / np.float32(scale) * right[:rank]}


def _ia3_to_peft(
  method: Mapping[str, Any],
  own: Mapping[str, dict[str, np.ndarray]],
  chosen: Mapping[str, Official],
  prefix: str,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """(tensors, config) of (IA)3."""
  tensors, feedforward = {}, []
  for theirs, layer in chosen.items():
    scale = np.ones(layer.num_outputs, np.float32)
    of_inputs = [own[part.ours]['scale_in'] for part in layer.parts if 'scale_in' in own[part.ours]]
    if of_inputs and len(layer.parts) > 1:
      raise ValueError(f'{theirs} takes one input for several layers of ours; scale outputs there.')
    for part in layer.parts:
      scale[part.outputs] = own.get(part.ours, {}).get('scale', 1.0)
    vector = of_inputs[0] if of_inputs else scale
    if of_inputs:
      feedforward.append(f'{prefix}{theirs}')
    shape: tuple[int, ...] = (1, -1) if of_inputs else (-1, 1)
    if layer.parts[0].kernel.ndim == 4:
      shape = (1, -1, 1, 1)
    tensors[f'{PREFIX}{prefix}{theirs}.ia3_l'] = vector.reshape(shape)
  modules = any_of(feedforward) if feedforward else []
  config = {'feedforward_modules': modules, 'init_ia3_weights': True}
  return tensors, config


def _ia3_from_peft(
  config: Mapping[str, Any],
  found: Mapping[str, Mapping[str, np.ndarray]],
  modules: Mapping[str, Official],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """(method, leaves) of (IA)3."""
  leaves, inputs, outputs = {}, [], []
  is_feedforward = _matcher(config.get('feedforward_modules') or [])
  for module, tensors in found.items():
    vector = tensors['ia3_l'].ravel()
    for part in modules[module].parts:
      if is_feedforward(module):
        inputs.append(part.ours)
        leaves[f'{part.ours}/scale_in'] = vector
      else:
        outputs.append(part.ours)
        leaves[f'{part.ours}/scale'] = vector[part.outputs]
  at, of_inputs = (f'^{any_of(names)}$' for names in ([*inputs, *outputs], inputs))
  return {'name': 'ia3', 'at': at, 'inputs': of_inputs}, leaves


def _matcher(names: Any) -> Callable[[str], bool]:
  """Whether a module is among those that a config names: by one regex, or by the ends of names."""
  if isinstance(names, str):
    return lambda module: bool(re.fullmatch(names, module))
  return lambda module: any(f'.{module}'.endswith(f'.{name}') for name in names)


def _alone(name: str, theirs: str, layer: Official) -> Part:
  """What an official layer is of ours, output by output.

  Raises:
    ValueError: it is several of ours, or has its outputs in another order, or, with lokr and oft,
      is a convolution.
  """
  part = layer.parts[0]
  in_order = np.array_equal(part.outputs, np.arange(layer.num_outputs))
  if len(layer.parts) > 1 or layer.transposed or not in_order:
    raise ValueError(f'{theirs} is kept otherwise than {part.ours}, which {name} cannot follow.')
  if part.kernel.ndim == 4 and name != 'loha':
    raise ValueError(f'{theirs} is a convolution, and {name} is written and read of dense layers.')
  return part


def _others_to_peft(
  method: Mapping[str, Any],
  own: Mapping[str, dict[str, Any]],
  chosen: Mapping[str, Official],
  prefix: str,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """(tensors, config) of VeRA, LoHa, LoKr and OFT."""
  name, tensors = method['name'], {}
  for theirs, layer in chosen.items():
    leaves = own[_alone(name, theirs, layer).ours]
    for leaf in KINDS[name][1]:
      key = f'{PREFIX}{prefix}{theirs}.{leaf}{".weight" if leaf == "oft_R" else ""}'
      if leaf in SAME:
        tensors[key] = np.asarray(leaves[SAME[leaf]])
      elif TURNED[leaf] in leaves:
        array = np.asarray(leaves[TURNED[leaf]])
        turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        tensors[key] = turned.reshape(len(turned), -1)
  rank = method.get('rank', 8)
  if name == 'vera':
    rank = method.get('rank', 256)
    return tensors, {'r': rank, 'projection_prng_key': 0, 'save_projection': True}
  if name == 'oft':
    block = method.get('block', 32)
    return tensors, {'r': 0, 'oft_block_size': block, 'use_cayley_neumann': False}
  config = {'r': rank, 'alpha': method.get('alpha') or 2 * rank}
  if name == 'lokr':
    config['decompose_factor'] = method.get('factor', -1)
  return tensors, config


def _others_from_peft(
  name: str,
  config: Mapping[str, Any],
  found: Mapping[str, Mapping[str, np.ndarray]],
  modules: Mapping[str, Official],
) -> tuple[dict[str, Any], dict[str, Any]]:
  """(method, leaves) of VeRA, LoHa, LoKr and OFT."""
  for field in ('rank_pattern', 'alpha_pattern'):
    if config.get(field):
      raise ValueError(f'{CONFIG} says {field} = {config[field]!r}, which is read of LORA only.')
  leaves: dict[str, Any] = {}
  names = []
  for module, tensors in found.items():
    part = _alone(name, module, modules[module])
    names.append(part.ours)
    for leaf, array in tensors.items():
      if leaf in SAME:
        leaves[f'{part.ours}/{SAME[leaf]}'] = array
      elif part.kernel.ndim == 4 and leaf.endswith('_b'):  # [rank, in h w]
        height, width, inputs, _ = part.kernel.shape
        turned = array.reshape(-1, inputs, height, width).transpose(2, 3, 1, 0)
        leaves[f'{part.ours}/{TURNED[leaf]}'] = turned
      else:
        leaves[f'{part.ours}/{TURNED[leaf]}'] = array.T
  method = {'name': name, 'at': f'^{any_of(names)}$'}
  if name == 'oft':
    blocks = len(leaves[f'{names[0]}/skew'])
    return {
      **method,
      'block': modules[next(iter(found))].parts[0].kernel.shape[0] // blocks,
    }, leaves
  method['rank'] = config['r']
  if name != 'vera':
    method['alpha'] = config['alpha']
  if name == 'lokr':
    method['factor'] = config.get('decompose_factor', -1)
  return method, leaves
