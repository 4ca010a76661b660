"""Configs: the fields a study has, their defaults, and the errors for what is wrong with one.

A config file starts from `base()`, so that every field it may set or a flag may override stands there with its default.
"""
import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from tlx import sources
from tlx.plug import closest, plug

# Every phase has these fields; a config's `train` holds their values for the whole study, each phase may differ.
TRAIN = {
    'tune': 'all',  # what to train: a policy of tlx/freezing, or {'policy': 'after', 'k': 2}
    'steps': 100,
    'epochs': 0.0,  # over a run's own examples: the steps of each run follow from their number. 0 takes `steps`, the same for every size
    'batch_size': 32,
    'optimizer': 'adam',  # any of optax, or {'name': 'sgd', 'momentum': 0.9}
    'schedule': 'cosine',  # constant, linear, cosine, slanted_triangular
    'warmup': 0.0,  # share of the phase's steps
    'learning_rate': 0.0,  # fixed for this phase; 0 takes the grid's
    'rates': {'train': 1.0},  # group -> multiple of the learning rate
    'layer_decay': 1.0,  # each stage below the head learns at this multiple of the one above it
    'clip_norm': 0.0,  # of the trainable gradients; 0 is off
    'norm': 'frozen',  # batch statistics of frozen layers: frozen | live
    'augment': {},  # {'shift': 2, 'flip': 0.5, 'crop': 4, 'mixup': 0.2}
    'label_smoothing': 0.0,
    'evaluations': 4,  # of the validation part, evenly over the phase
    'solver': 'sgd',  # a linear probe is also solved exactly: logistic | ridge, with the grid's weight_decay as the penalty
    'views': 0,  # augmented views of each example that are kept where a prefix is frozen; 0 augments at every step
    'accumulate': 1,  # parts of a batch that go through one after another
    'remat': False,  # activations are computed again for the gradient instead of kept
}
GRID = {'learning_rate': (1e-3,), 'weight_decay': (0.0,)}
INPUT = {'image_size': 16, 'channels': 1, 'mean': (0.5,), 'std': (0.25,), 'interpolation': 'bicubic', 'fit': 'squeeze', 'crop': 1.0}
SOURCE = {
    'backbone': 'cnn',  # a file of tlx/backbones, or {'name': 'cnn', 'channels': (16, 32)}
    'weights': '',  # where they come from, a URI of tlx/sources
    'sha256': '',  # of that file, which is refused if it has another
    'part': '',  # of a file with several models, the one that is meant: 'model_ema'
    'input': {},  # fields of INPUT; what is not given is as the weights want it
    'dataset': '',  # or, without weights, the study trains the source on this itself
    'shift': 'none',
    'train': {},  # fields of TRAIN for that
    'seed': 0,
}
TARGET = {'dataset': '', 'shift': 'none', 'val_fraction': 0.22, 'test_fraction': 0.3}
METHOD = {
    'init': 'source',  # source | random
    'head_after': '',  # the stage that the head follows, averaged over places: 'conv2', or {'stage': 'conv2', 'grid': 4} for 4 x 4
                       # averages; 'input' is the images themselves, '' the last stage
    'grid': {},  # its own grid, of the same size as the study's
    'phases': ({},),  # fields of TRAIN, one dict a phase
}
MESH = {'run': 0, 'data': 0, 'fsdp': False}
STUDY = {
    'name': '',
    'claim': '',
    'sources': {},
    'targets': {},
    'methods': {},
    'shots': (1, 5, 20),  # examples a class; 0 is all
    'seeds': (0, 1, 2, 3, 4),
    'grid': GRID,
    'baseline': '',  # the method that the others are compared with
    'validation': 'all',  # who chooses: all validation examples | 'matched', for each run no more than it trains on
    'train': TRAIN,
    'data_dir': '',  # where prepared data sets live; '' is TFDS's own place
    'cohort_bytes': 4e9,  # runs are trained together up to this much memory
    'reuse': True,  # what is frozen runs once for every example
    'feature_bytes': 4e9,  # at most so much of that is kept for a source and a target
    'feature_dir': '',  # where it is kept; '' is features/ in the study's folder. Studies may share one
    'mesh': MESH,  # devices along runs and batches (0: as fits); parameters split over the latter
    'checkpoint_seconds': 30.0,
}


def base() -> ml_collections.ConfigDict:
  """A config with every field of a study at its default and no sources, targets or methods yet."""
  return ml_collections.ConfigDict(copy.deepcopy(STUDY), convert_dict=True, sort_keys=False)


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config as plain dicts with every default filled in, checked field by field.

  Raises:
    ValueError: what is wrong, where in the config, and what would be right.
  """
  config = _as_written(config).to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
  study = _fields('config', config, STUDY)
  study['train'] = _fields('config.train', study['train'], TRAIN)
  study['mesh'] = _fields('config.mesh', study['mesh'], MESH)
  study['grid'] = _grid('config.grid', study['grid'], GRID)
  for kind in ('sources', 'targets', 'methods'):
    if not study[kind]:
      raise ValueError(f'config.{kind} is empty; a study needs at least one.')
    for name in study[kind]:
      if not name.replace('_', '').isalnum():
        raise ValueError(f'config.{kind}: names become folders and take letters, digits and _ only, got {name!r}.')
  study['sources'] = {name: _source(f'config.sources.{name}', source, study) for name, source in study['sources'].items()}
  study['targets'] = {name: _target(f'config.targets.{name}', target) for name, target in study['targets'].items()}
  study['methods'] = {name: _method(f'config.methods.{name}', method, study) for name, method in study['methods'].items()}
  _whole_numbers('config.shots', study['shots'])
  _whole_numbers('config.seeds', study['seeds'])
  if study['validation'] not in ('all', 'matched'):
    raise ValueError(f"config.validation is 'all' or 'matched', got {study['validation']!r}.")
  if study['baseline'] and study['baseline'] not in study['methods']:
    raise ValueError(f'config.baseline {study["baseline"]!r} is no method; have {", ".join(study["methods"])}.'
                     + closest(study['baseline'], study['methods']))
  return study


def _as_written(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config, its fields in the order they were set: dicts that are assigned later do not inherit `sort_keys` from `base`."""
  object.__setattr__(config, '_sort_keys', False)
  for value in config.values():
    if isinstance(value, ml_collections.ConfigDict):
      _as_written(value)
  return config


def named(value: str | Mapping[str, Any], key: str = 'name') -> tuple[str, dict[str, Any]]:
  """('adam', {}) for 'adam', and ('sgd', {'momentum': 0.9}) for {'name': 'sgd', 'momentum': 0.9}."""
  if isinstance(value, str):
    return value, {}
  if key not in value:
    raise ValueError(f'{dict(value)} lacks the field {key!r} that names the plug-in.')
  return value[key], {name: option for name, option in value.items() if name != key}


def missing_field(config: Any, path: str) -> str:
  """What is wrong with 'config.a.b' as the name of a field that is there, or ''."""
  where, *names = re.sub(r'\[\d+\]', '', path).split('.')
  for name in names:
    if not isinstance(config, ml_collections.ConfigDict):
      return ''
    if name not in config:
      return (f'{where} has no field {name!r}; it has {", ".join(config)}.{closest(name, config)} '
              'A field that the config file does not set is added there.')
    where, config = f'{where}.{name}', config[name]
  return ''


def _fields(where: str, given: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
  """`given` over `defaults`; unknown fields and other types than the default's are errors."""
  if not isinstance(given, Mapping):
    raise ValueError(f'{where} is a dict with fields such as {", ".join(defaults)}, got {given!r}.')
  for name, value in given.items():
    if name not in defaults:
      raise ValueError(f'{where} has no field {name!r}; it has {", ".join(defaults)}.{closest(name, defaults)}')
    default = defaults[name]
    number = isinstance(default, (int, float)) and isinstance(value, (int, float)) and not isinstance(value, bool)
    plugin = name in ('tune', 'optimizer', 'backbone', 'head_after') and isinstance(value, (str, Mapping))
    sequence = isinstance(default, tuple) and isinstance(value, (list, tuple))
    if not (number or plugin or sequence or isinstance(value, type(default)) or (isinstance(default, dict) and isinstance(value, Mapping))):
      raise ValueError(f'{where}.{name} takes a {type(default).__name__} such as {default!r}, got {value!r}.')
    if isinstance(default, int) and isinstance(value, float) and value != int(value):
      raise ValueError(f'{where}.{name} takes a whole number, got {value!r}.')
  merged = copy.deepcopy(dict(defaults)) | copy.deepcopy(dict(given))
  return {name: tuple(value) if isinstance(value, list) else value for name, value in merged.items()}


def _grid(where: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
  grid = _fields(where, given, defaults)
  for name, values in grid.items():
    if not values or not all(isinstance(v, (int, float)) and v >= 0 for v in values) or len(set(values)) != len(values):
      raise ValueError(f'{where}.{name} takes different numbers of at least 0, got {values!r}.')
  if 0 in grid['learning_rate']:
    raise ValueError(f'{where}.learning_rate takes numbers above 0, got {grid["learning_rate"]!r}.')
  return grid


def _whole_numbers(where: str, values: tuple[int, ...]) -> None:
  if not values or any(not isinstance(v, int) or v < 0 for v in values) or len(set(values)) != len(values):
    raise ValueError(f'{where} takes different whole numbers of at least 0, got {values!r}.')


def _phase(where: str, given: Mapping[str, Any], study: Mapping[str, Any], weight_decays: tuple[float, ...]) -> dict[str, Any]:
  """One phase, filled from config.train. Rules are tried against the network later, when its parameters are known."""
  from tlx.train import augment, optim  # brings jax, which a config file does not need

  phase = _fields(where, given, study['train'])
  try:
    plug('freezing', named(phase['tune'], 'policy')[0])
    name, options = named(phase['optimizer'])
    optim.check(name, options, 0.0 if phase['solver'] != 'sgd' else max(weight_decays))
    optim.schedule(phase['schedule'], phase['warmup'])
    augment.check(phase['augment'])
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from None
  for field in ('steps', 'batch_size', 'evaluations', 'accumulate'):
    if phase[field] < 1:
      raise ValueError(f'{where}.{field} is at least 1, got {phase[field]}.')
  for field in ('epochs', 'learning_rate', 'clip_norm', 'layer_decay', 'views'):
    if phase[field] < 0:
      raise ValueError(f'{where}.{field} is not negative, got {phase[field]}.')
  for field, choices in (('norm', ('frozen', 'live')), ('solver', ('sgd', 'logistic', 'ridge'))):
    if phase[field] not in choices:
      raise ValueError(f'{where}.{field} is {" or ".join(map(repr, choices))}, got {phase[field]!r}.{closest(phase[field], choices)}')
  if phase['batch_size'] % phase['accumulate']:
    raise ValueError(f'{where}.batch_size is {phase["batch_size"]}, which {phase["accumulate"]} parts (accumulate) do not divide.')
  if phase['views'] and not any(phase['augment'].values()):
    raise ValueError(f'{where}.views is {phase["views"]} but augment is {phase["augment"]}: every view would be the same.')
  if phase['views'] and phase['augment'].get('mixup'):
    raise ValueError(f'{where}.views cannot be kept under mixup, which pairs the examples of a batch. Set views = 0 or take mixup out.')
  return phase if phase['solver'] == 'sgd' else {**phase, 'steps': 1, 'epochs': 0.0, 'evaluations': 1}  # there is one step, to the solution


def _source(where: str, given: Any, study: Mapping[str, Any]) -> dict[str, Any]:
  source = _fields(where, given, SOURCE)
  backbone, options = named(source['backbone'])
  module = plug('backbones', backbone)
  if bool(source['weights']) == bool(source['dataset']):
    raise ValueError(f'{where} wants either weights (a URI: where they come from) or a dataset (which the study trains it on), got '
                     f'weights={source["weights"]!r} and dataset={source["dataset"]!r}.')
  spec: Mapping[str, Any] = INPUT
  if source['weights']:
    _located(f'{where}.weights', lambda: sources.check(source['weights']))
    spec = INPUT | _located(f'{where}.backbone', lambda: module.input_spec(**options) if hasattr(module, 'input_spec') else {})
  elif field := next((field for field in ('sha256', 'part') if source[field]), ''):
    raise ValueError(f'{where}.{field} is for weights, and this source has none.')
  source['input'] = _fields(f'{where}.input', source['input'], spec)
  channels = source['input']['channels']
  if channels not in (1, 3) or not len(source['input']['mean']) == len(source['input']['std']) == channels:
    raise ValueError(f'{where}.input wants 1 or 3 channels and a mean and std for each, got {source["input"]}.')
  source['train'] = _phase(f'{where}.train', source['train'], study, (0.0,))
  if source['dataset'] and not source['train']['learning_rate']:
    raise ValueError(f'{where}.train.learning_rate is 0; a source has no grid and needs one, such as 1e-3.')
  return source


def _target(where: str, given: Any) -> dict[str, Any]:
  target = _fields(where, given, TARGET)
  if not target['dataset']:
    raise ValueError(f"{where}.dataset is empty; name one such as 'uci_digits', 'folder:PATH' or a TFDS name.")
  for field in ('val_fraction', 'test_fraction'):
    if not 0 < target[field] < 1:
      raise ValueError(f'{where}.{field} is a share between 0 and 1, got {target[field]}.')
  return target


def _method(where: str, given: Any, study: Mapping[str, Any]) -> dict[str, Any]:
  method = _fields(where, given, METHOD)
  if method['init'] not in ('source', 'random'):
    raise ValueError(f"{where}.init is 'source' or 'random', got {method['init']!r}.")
  grid = _grid(f'{where}.grid', method['grid'], study['grid'])
  sizes = [len(g['learning_rate']) * len(g['weight_decay']) for g in (grid, study['grid'])]
  if sizes[0] != sizes[1]:
    raise ValueError(f'{where}.grid tries {sizes[0]} settings where config.grid tries {sizes[1]}; every method gets the same budget.')
  if not method['phases']:
    raise ValueError(f'{where}.phases is empty; a method has at least one phase, such as {{"tune": "head"}}.')
  stage, place = named(method['head_after'], 'stage')
  if not isinstance(stage, str) or place.keys() - {'grid'} or (place and not stage):
    raise ValueError(f"{where}.head_after is a stage, or one with a grid such as {{'stage': 'conv2', 'grid': 4}}, got "
                     f"{method['head_after']!r}.")
  phases = tuple(_phase(f'{where}.phases[{i}]', phase, study, grid['weight_decay']) for i, phase in enumerate(method['phases']))
  for phase in phases:
    if phase['solver'] != 'sgd' and (method['init'], phase['tune']) != ('source', 'head'):
      raise ValueError(f"{where}: solver {phase['solver']!r} finds the head of a source whose stages are frozen; "
                       "set tune = 'head' and init = 'source', or solver = 'sgd'.")
  return {'init': method['init'], 'head_after': method['head_after'], 'grid': grid, 'phases': phases}


def _located(where: str, function: Callable[[], Any]) -> Any:
  """What `function()` gives; an error of its says where in the config it lies."""
  try:
    return function()
  except (ValueError, TypeError) as error:
    raise ValueError(f'{where}: {error}') from None
