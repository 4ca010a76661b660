"""LoRA and (IA)3 as the peft library keeps them, to write and to read.

A folder holds adapter_model.safetensors and adapter_config.json
(https://huggingface.co/docs/peft/developer_guides/checkpoint).
"""

import json
import os
import pathlib
import re
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from tlx import peft
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
  'modules_to_save': (None, []),
  'layer_replication': (None, []),
  'trainable_token_indices': (None, []),
  'target_parameters': (None, []),
  'alora_invocation_tokens': (None, []),
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
    ValueError: a method that is neither lora nor ia3, a layer that the source's file does not have,
      or that peft keeps in another form: a depthwise convolution, a bias.
  """
  name = method['name']
  if name not in ('lora', 'ia3'):
    raise ValueError(f'{name!r} is not kept in the form of peft; lora and ia3 are.')
  own = by_layer(peft.split(params, name)[1])
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
  write = _lora_to_peft if name == 'lora' else _ia3_to_peft
  tensors, config = write(method, own, chosen, prefix)
  transposed = {layer.transposed for layer in chosen.values()}
  if len(transposed) > 1:
    raise ValueError('peft has one fan_in_fan_out for all layers, and these have both.')
  config |= {
    'base_model_name_or_path': base or None,
    'fan_in_fan_out': transposed.pop(),
    'inference_mode': True,
    'target_modules': _any_of(f'{prefix}{theirs}' for theirs in chosen),
    'task_type': None,
  }
  place = pathlib.Path(folder)
  place.mkdir(parents=True, exist_ok=True)
  save_file({key: np.ascontiguousarray(leaf) for key, leaf in tensors.items()}, place / WEIGHTS)
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
  kind = config.get('peft_type')
  if kind not in ('LORA', 'IA3'):
    raise ValueError(f'{CONFIG} says peft_type = {kind!r}; LORA and IA3 are read.')
  for field, values in PLAIN.items():
    if field in config and config[field] not in values:
      raise ValueError(f'{CONFIG} says {field} = {config[field]!r}, which is not read.')
  names = ('lora_A', 'lora_B', 'lora_magnitude_vector') if kind == 'LORA' else ('ia3_l',)
  found: dict[str, dict[str, np.ndarray]] = {}
  others = {}
  for key, array in load_file(pathlib.Path(folder) / WEIGHTS).items():
    path = re.fullmatch(rf'(.*)\.({"|".join(names)})(\.weight)?', key)
    if path:
      found.setdefault(path[1].removeprefix(PREFIX), {})[path[2]] = array
    elif re.search(r'\.(lora|ia3)_', key):
      raise ValueError(f'{WEIGHTS} has {key!r}, which is not read.')
    else:
      others[key] = array
  modules = {module: official[_known(module, official)] for module in found}
  read = _lora_from_peft if kind == 'LORA' else _ia3_from_peft
  return Adapter(*read(config, found, modules), others)


def _known(module: str, official: Mapping[str, Official]) -> str:
  """The source's name of a module, which may have something before it in the adapter."""
  fitting = [name for name in official if f'.{module}'.endswith(f'.{name}')]
  fitting += [name for name in official if f'.{name}'.endswith(f'.{module}')]
  if not fitting:
    raise ValueError(f'{WEIGHTS} adapts {module!r}, which the source does not have.')
  return max(fitting, key=len)


def _any_of(names: Any) -> str:
  """A regex that matches these names as a whole.

  >>> _any_of(['layer.0.query'])
  '(layer\\\\.0\\\\.query)'
  """
  return f'({"|".join(map(re.escape, names))})'


def _patterns(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
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
      scale = _scale(method, leaves)
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
  rank, rank_pattern = _patterns(ranks)
  alpha, alpha_pattern = _patterns(alphas)
  return tensors, {
    'peft_type': 'LORA',
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
  for module, tensors in found.items():
    a, b = tensors['lora_A'], tensors['lora_B']
    alpha = config['lora_alpha']
    for pattern, value in (config.get('alpha_pattern') or {}).items():
      if re.match(rf'(.*\.)?({pattern})$', module):
        alpha = value
        break
    for part in modules[module].parts:
      kernel = part.kernel
      of_all = b.reshape(len(b), -1).T
      if kernel.ndim == 4 and a.ndim == 4:
        leaves[f'{part.ours}/a'] = a.transpose(2, 3, 1, 0)
      else:
        leaves[f'{part.ours}/a'] = a.reshape(len(a), -1).T
      leaves[f'{part.ours}/b'] = of_all[:, part.outputs]
      if 'lora_magnitude_vector' in tensors:
        norm = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        magnitude = tensors['lora_magnitude_vector'].ravel()[part.outputs]
        leaves[f'{part.ours}/magnitude'] = magnitude - norm
      ranks[part.ours], alphas[part.ours] = len(a), alpha
  rank, rank_pattern = _patterns(ranks)
  alpha, alpha_pattern = _patterns(alphas)
  for name, value in alphas.items():
    if value != alpha:
      leaves[f'{name}/fixed/alpha'] = np.float32(value)
  method = {
    'name': 'lora',
    'at': f'^{_any_of(ranks)}$',
    'rank': rank,
    'alpha': alpha,
    'rank_pattern': [(f'{pattern}$', value) for pattern, value in rank_pattern.items()],
    'alpha_pattern': [(f'{pattern}$', value) for pattern, value in alpha_pattern.items()],
    'rslora': bool(config.get('use_rslora')),
    'dora': bool(config.get('use_dora')),
  }
  return method, leaves


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
  modules = _any_of(feedforward) if feedforward else []
  config = {'peft_type': 'IA3', 'feedforward_modules': modules, 'init_ia3_weights': True}
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
  at, of_inputs = (f'^{_any_of(names)}$' for names in ([*inputs, *outputs], inputs))
  return {'name': 'ia3', 'at': at, 'inputs': of_inputs}, leaves


def _matcher(names: Any) -> Callable[[str], bool]:
  """Whether a module is among those that a config names: by one regex, or by the ends of names."""
  if isinstance(names, str):
    return lambda module: bool(re.fullmatch(names, module))
  return lambda module: any(f'.{module}'.endswith(f'.{name}') for name in names)


COMBINATIONS = ('linear', 'cat', 'svd', 'ties', 'ties_svd', 'magnitude_prune')


def combine(
  adapters: Sequence[Adapter],
  weights: Sequence[float],
  kind: str = 'linear',
  rank: int | None = None,
  density: float = 1.0,
) -> Adapter:
  """One LoRA of several, as the peft library's `add_weighted_adapter` makes it.

  'cat': exactly the weighted sum of what they add, of the sum of their ranks. 'svd': its best
  approximation of `rank`. 'linear': sums of their a and of their b, each by the root of its weight
  and scale, so that the product has terms of a with another's b. 'magnitude_prune': the same of the
  `density` of each a and b that is largest. 'ties' (arXiv:2306.01708): of those the mean of the
  values whose sign is that of their sum; 'ties_svd': the same of what they add, and then as 'svd'.

  Raises:
    ValueError: a bad option, adapters of other layers, or of other ranks where these must agree;
      DoRA, biases or PiSSA.
  """
  if kind not in COMBINATIONS:
    raise ValueError(f'combine wants one of {", ".join(COMBINATIONS)}, got kind={kind!r}.')
  if len(adapters) != len(weights) or not adapters or min(weights) < 0:
    raise ValueError(f'{len(adapters)} adapters want as many weights from 0 on, got {weights!r}.')
  if not 0 < density <= 1:
    raise ValueError(f'combine wants a density above 0 and up to 1, got density={density!r}.')
  if kind.endswith('svd') and rank is None:
    raise ValueError(f'kind={kind!r} wants a rank.')
  of_layers = [by_layer(adapter.leaves) for adapter in adapters]
  for adapter, layers in zip(adapters, of_layers, strict=True):
    others = {leaf for own in layers.values() for leaf in own} - {'a', 'b', 'fixed/alpha'}
    if adapter.method['name'] != 'lora' or others:
      raise ValueError(f'combine takes plain LoRA, got {adapter.method} with {sorted(others)}.')
    if layers.keys() != of_layers[0].keys():
      different = ', '.join(sorted(layers.keys() ^ of_layers[0].keys()))
      raise ValueError(f'The adapters are of different layers: {different}.')
  leaves: dict[str, Any] = {}
  ranks: dict[str, int] = {}
  for name in of_layers[0]:
    parts = []
    for adapter, layers, weight in zip(adapters, of_layers, weights, strict=True):
      parts.append((weight, _scale(adapter.method, layers[name]), layers[name]))
    if kind not in ('cat', 'svd', 'ties_svd') and len({own['a'].shape for *_, own in parts}) > 1:
      raise ValueError(f'kind={kind!r} wants equal ranks, and those of {name} differ; take cat.')
    a, b = _combined(parts, kind, rank, density)
    leaves[f'{name}/a'], leaves[f'{name}/b'], ranks[name] = a, b, len(b)
  usual, pattern = _patterns(ranks)
  for name, size in ranks.items():
    if size != usual:
      leaves[f'{name}/fixed/alpha'] = np.float32(size)
  patterns = [(f'{name}$', size) for name, size in pattern.items()]
  method = {'name': 'lora', 'at': f'^{_any_of(ranks)}$', 'rank': usual, 'alpha': usual}
  return Adapter({**method, 'rank_pattern': patterns, 'alpha_pattern': patterns}, leaves, {})


def _scale(method: Mapping[str, Any], own: Mapping[str, Any]) -> float:
  """The factor of a layer's product a b."""
  alpha = own.get('fixed/alpha', method.get('alpha') or 2 * method.get('rank', 8))
  return float(alpha) / own['a'].shape[-1] ** (0.5 if method.get('rslora') else 1.0)


def _combined(
  parts: Sequence[tuple[float, float, Mapping[str, Any]]],
  kind: str,
  rank: int | None,
  density: float,
) -> tuple[np.ndarray, np.ndarray]:
  """(a, b) of one layer, of scale 1."""
  if kind == 'cat':
    a = np.concatenate([weight * scale * own['a'] for weight, scale, own in parts], axis=-1)
    return a, np.concatenate([own['b'] for *_, own in parts])
  if kind.endswith('svd'):
    deltas = [scale * own['a'] @ own['b'] for _, scale, own in parts]
    merged = _merged(deltas, [weight for weight, *_ in parts], kind, density)
    left, values, right = np.linalg.svd(merged.reshape(-1, merged.shape[-1]), full_matrices=False)
    a = left[:, :rank].reshape(*merged.shape[:-1], -1)
    return a, values[:rank, None] * right[:rank]
  roots = [(weight * scale) ** 0.5 for weight, scale, _ in parts]
  a, b = (_merged([own[leaf] for *_, own in parts], roots, kind, density) for leaf in 'ab')
  return a, b


def _merged(
  arrays: Sequence[np.ndarray], weights: Sequence[float], kind: str, density: float
) -> np.ndarray:
  """One array of several of its shape."""
  stacked = np.stack(arrays)
  if kind in ('ties', 'ties_svd', 'magnitude_prune'):
    stacked = np.stack([_largest(array, density) for array in arrays])
  weighted = stacked * np.reshape(weights, (-1, *(1,) * arrays[0].ndim))
  if not kind.startswith('ties'):
    return weighted.sum(0)
  agrees = np.sign(stacked) == np.where(stacked.sum(0) >= 0, 1, -1)
  return (weighted * agrees).sum(0) / np.maximum(agrees.sum(0), 1)


def _largest(array: np.ndarray, density: float) -> np.ndarray:
  """The array with 0 but for this share of its values, the largest."""
  number = int(density * array.size)
  kept = np.zeros(array.size, array.dtype)
  kept[np.argsort(-np.abs(array), axis=None, kind='stable')[:number]] = 1
  return array * kept.reshape(array.shape)
