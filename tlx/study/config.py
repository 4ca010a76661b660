"""Configs: the fields a study has, their defaults, and the errors for what is wrong with one
(ranges.py: what each field may hold).

A config file starts from `base()`, so that every field it may set or a flag may override stands
there with its default.
"""

import contextlib
import copy
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
from etils import epath
from ml_collections.config_flags import config_path

from tlx import ranges, sources
from tlx.plug import available, closest, plug
from tlx.study import presets
from tlx.study.ranges import MOST_EXAMPLES, RANGES, SCALE

if TYPE_CHECKING:  # brings jax, which a config file does not need
  from tlx.types import Form

# Every phase has these fields; a config's `train` holds their values for the whole study, each
# phase may differ.
TRAIN = {
  'tune': 'all',  # what to train: a policy of tlx/freezing, or {'policy': 'after', 'k': 2}
  # 0 trains nothing: what the method begins with is looked at as it is. A phase may have them as
  # '2.5x', times those of config.train, so that a flag for these reaches it too
  'steps': 100,
  # over a run's own examples: the steps of each run follow from their number. 0 takes `steps`,
  # the same for every size
  'epochs': 0.0,
  'batch_size': 32,
  'optimizer': 'adam',  # any of optax, or {'name': 'sgd', 'momentum': 0.9}
  # constant, linear, cosine, slanted_triangular, exponential, or with options {'name':
  # 'staircase', 'at': (0.3, 0.6, 0.9), 'factor': 0.1}; what they mean: tlx/train/optim.py
  'schedule': 'cosine',
  'warmup': 0.0,  # share of the phase's steps
  'learning_rate': 0.0,  # fixed for this phase; 0 takes the grid's
  'rates': {'train': 1.0},  # group -> multiple of the learning rate
  'layer_decay': 1.0,  # each stage below the head learns at this multiple of the one above it
  'clip_norm': 0.0,  # of the trainable gradients; 0 is off
  'norm': 'frozen',  # batch statistics of frozen layers: frozen | live
  'augment': {},  # {'shift': 2, 'flip': 0.5, 'crop': 4, 'mixup': 0.2}
  'label_smoothing': 0.0,
  # what is minimised instead of the task's loss: a contrast of the vectors before the head, a task
  # such as 'embedding' or {'name': 'embedding', 'objective': 'cosine'}; not validated
  'loss': '',
  # what holds the run back to its source: 'l2_sp', or {'name': 'l2_sp', 'alpha': 0.01}
  'penalty': '',
  'evaluations': 4,  # of the validation part, evenly over the phase
  # a linear probe is also solved exactly: logistic | ridge, with the grid's weight_decay as the
  # penalty
  'solver': 'sgd',
  # augmented views of each example that are kept where a prefix is frozen; 0 augments at every
  # step
  'views': 0,
  'accumulate': 1,  # parts of a batch that go through one after another
  'ema': 0.0,  # decay of a moving average of the weights, which is evaluated and kept; 0 is off
  # the weights a phase ends with: last | best (its best step on validation, of `evaluations`), or a
  # greedy soup of the best {'name': 'soup', 'top': 3}; the last step is scored beside it
  'keep': 'last',
  'sam': 0.0,  # sharpness-aware minimisation: its radius rho, such as 0.05; 0 is off
  'remat': False,  # activations are computed again for the gradient instead of kept
}
GRID = {
  'learning_rate': (1e-3,),
  'weight_decay': (0.0,),
  # at most so many learning rates are added, for a method and size, beyond the edge at which the
  # chosen one lies
  'extend': 0,
}
DATA = {  # of sources and targets
  'dataset': '',
  'shift': 'none',
  # what names an example's group, of which no two parts have one: a column, a feature, or a
  # pattern over the id
  'group': '',
  # 'drop' leaves images out of training that are in val or test too, byte for byte
  'duplicates': 'keep',
  'task': 'classification',  # what is asked: a file of tlx/tasks, or {'name': ..., 'option': ...}
  'skip_bad': False,  # leaves out images that cannot be read, and says so
  # the role of dialogues that answers; where it is another, all others but the system are users
  'answers': 'assistant',
}
SOURCE = {
  'backbone': 'cnn',  # a file of tlx/backbones, or {'name': 'cnn', 'channels': (16, 32)}
  # where they come from, a URI of tlx/sources, or a name of its catalogue ('lite0.imagenet'), which
  # brings backbone, sha256 and input; a source may be that name alone
  'weights': '',
  'sha256': '',  # of that file, which is refused if it has another
  'part': '',  # of a file with several models, the one that is meant: 'model_ema'
  # what its examples are made into, a file of tlx/inputs; '' is what the study's tasks ask for,
  # else its backbone
  'form': '',
  'input': {},  # fields of its form's INPUT; what is not given is as the weights want it
  **DATA,  # or, without weights, the study trains the source on this itself
  'train': {},  # fields of TRAIN for that
  'seed': 0,
  'seeds': (
    0,
    # trained once for each; that of `seed` goes by the source's name, others by 'name@3'. Left
    # out: `seed` alone
  ),
}
TARGET = {
  **DATA,
  # of what is no test part; where the data set has no validation part of its own
  'val_fraction': 0.22,
  'test_fraction': 0.3,  # of the whole; where it has no test part
  # so many parts are the test part by turns, of each class alike, groups whole: targets
  # 'name@1of5' ...; 0 is one split
  'folds': 0,
  'val_examples': 0,  # at most so many are validated on; 0 is all
  # words for classes in a head of class names: {'3': 'three'}; where none, the data set's label
  'class_names': {},
  'spread_shots': False,  # the shots of a class come from as many of its groups as there are
}
METHOD = {
  # source | random | mean_var: drawn with the mean and variance of each of the source's leaves |
  # first_3: the first 3 groups of stages are the source's (freezing.md), the others random
  'init': 'source',
  # weights that the source did not bring: 'lora', or {'name': 'lora', 'rank': 4}; tune = 'added'
  # trains them alone
  'added': '',
  # the stage that the head follows, averaged over places: 'conv2', or {'stage': 'conv2', 'grid':
  # 4} for 4 x 4 averages; of several {'stage': ('conv1', 'conv2')}; other heads by {'kind':
  # 'attentive'}. 'input' is the images themselves, '' the last stage
  'head_after': '',
  # what the head begins as: '' at random, 'zero_shot' of the names of the classes, or {'name':
  # 'zero_shot', 'templates': ('a photo of a {}.',)} (zero_shot.py)
  'head': '',
  'grid': {},  # its own grid, of the same size as the study's
  # fields of TRAIN, one dict a phase; () with a head of class names takes no step
  'phases': ({},),
  # instead of all others: weights made of those of another method's runs, fields of MERGE and the
  # rule's own
  'merge': {},
}
MERGE = {
  'name': '',  # a rule of tlx/merging
  'of': '',  # the method whose runs are merged
  # run: the chosen one; settings: all of the grid, of its seed; seeds: the chosen setting at every
  # seed; targets: the chosen one of every target. '' is what the rule says
  'over': '',
  # what the rule gives is added so many times to the start; of several the best on validation
  'scale': (1.0,),
  'start': '',  # where runs start: '' is the source, or a method, whose chosen run it is
  'targets': {},  # over targets: {'digits': 1.0, 'letters': -1.0}; {} is each at 1
}
OVER = ('run', 'settings', 'seeds', 'targets')
CONFIRM = {'seeds': (0,), 'source_seeds': (0,)}
MESH = {'run': 0, 'data': 0, 'fsdp': False}
STUDY = {
  'name': '',
  'claim': '',
  # what it states of its results before they are there: fields of tlx/report/claims.CLAIM, one dict
  # a claim
  'claims': (),
  # seeds that nobody looks at until --confirm opens them, once, for the claims as they stand:
  # {'seeds': (20, 21, 22), 'source_seeds': (5, 6, 7)} (confirm.py)
  'confirm': {},
  'sources': {},
  'targets': {},
  'methods': {},
  # the methods that run, as 'probe,full'; '' is all. A baseline that is not among them is none
  'only': '',
  # how much of what is written here runs: quick | standard | paper set seeds, sizes, grids and
  # steps at once (presets.py); '' is all, as written
  'preset': '',
  'shots': (1, 5, 20),  # examples a class; 0 is all
  'seeds': (0, 1, 2, 3, 4),
  'grid': GRID,
  'baseline': '',  # the method that the others are compared with
  # who chooses: all validation examples | 'matched', for each run no more than it trains on
  'validation': 'all',
  # what else is asked of chosen runs: files of tlx/evaluators, or {'name': 'top_k', 'k': 5}
  'evaluators': (),
  'train': TRAIN,
  # At most so much for the examples of a data set in memory; images of larger ones are decoded when
  # they are needed.
  'data_bytes': 4.0 * 2**30,
  'data_dir': '',  # where prepared data sets live; '' is TFDS's own place
  # runs are trained together up to this much memory; 0 is 4 GB, of accelerators two fifths
  'cohort_bytes': 0.0,
  # at most so much of a split's examples on a device; 0 is a quarter of its memory
  'device_bytes': 0.0,
  'reuse': True,  # what is frozen runs once for every example
  'feature_bytes': 4e9,  # at most so much is kept of a stage, for a source and a target
  # where it is kept; '' is features/ in the study's folder. Studies may share one
  'feature_dir': '',
  'mesh': MESH,  # devices along runs and batches (0: as fits); parameters split over the latter
  'checkpoint_seconds': 30.0,
}


class Config(ml_collections.ConfigDict):
  """A ConfigDict in which every dict is a copy of its own, in its own order, a plug-in's name may
  become a dict and back, and any other name a dict.
  """

  def __setitem__(self, key: str, value: Any) -> None:
    if isinstance(value, _DICTS):
      value = _config(value)
    elif isinstance(value, (list, tuple)):
      value = copy.deepcopy(value)
    renamed = key in PLUGINS and isinstance(value, (str, Config))
    if key in self and (renamed or (isinstance(self[key], str) and isinstance(value, Config))):
      self._fields[key] = value
    else:
      super().__setitem__(key, value)


PLUGINS = (
  'tune',
  'optimizer',
  'schedule',
  'keep',
  'loss',
  'backbone',
  'head_after',
  'head',
  'added',
  'task',
  'penalty',
  'merge',
)  # a name, or a dict with options
_DICTS = (Mapping, ml_collections.ConfigDict)


def _config(fields: Mapping[str, Any]) -> Config:
  made = Config(sort_keys=False)
  for name, value in fields.items():
    made[name] = value
  return made


def base() -> Config:
  """A config with every field of a study at its default and no sources, targets or methods yet."""
  return _config(STUDY)


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config as plain dicts with every default filled in, checked field by field.

  Raises:
    ValueError: what is wrong, where in the config, and what would be right.
  """
  of_flags = getattr(config, '_of_flags', ())
  config = (
    _as_written(config).to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
  )
  study = _fields('config', config, STUDY, 'config')
  study['train'] = _fields('config.train', study['train'], TRAIN, 'train')
  study['mesh'] = _fields('config.mesh', study['mesh'], MESH, 'mesh')
  study['grid'] = _fields('config.grid', study['grid'], GRID, 'grid')
  study = presets.applied(study, of_flags)
  for i, evaluator in enumerate(study['evaluators']):
    located(f'config.evaluators[{i}]', functools.partial(_check_evaluator, evaluator))
  for kind in ('sources', 'targets', 'methods'):
    if not study[kind]:
      raise ValueError(f'config.{kind} is empty; a study needs at least one.')
    for name in study[kind]:
      if not isinstance(name, str) or not name.replace('_', '').isalnum():
        raise ValueError(
          f'config.{kind}: names become folders and take letters, digits and _ only, got {name!r}.'
        )
  for field in ('data_dir', 'feature_dir'):
    if os.path.expanduser(study[field]).startswith('~'):
      raise ValueError(f'config.{field} {study[field]!r}: there is no such user.')
  _check_phase('config.train', study['train'], 0.0)
  study['claims'] = _claims(study)
  all_methods, study['methods'] = study['methods'], _only(study)
  study['sources'] = {
    name: located(f'config.sources.{name}', functools.partial(catalogued, given))
    for name, given in study['sources'].items()
  }
  study['confirm'] = _confirm(study)
  study['targets'] = {
    level: target
    for name, given in study['targets'].items()
    for level, target in _folds(name, given).items()
  }
  study['sources'] = {
    level: source
    for name, given in study['sources'].items()
    for level, source in _seeds(name, given, study).items()
  }
  study['methods'] = _methods(study)
  if study['baseline'] and study['baseline'] not in all_methods:
    raise ValueError(
      f'config.baseline {study["baseline"]!r} is no method; have {", ".join(all_methods)}.'
      + closest(study['baseline'], all_methods)
    )
  study['baseline'] = study['baseline'] if study['baseline'] in study['methods'] else ''
  return study


def _claims(study: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
  """The claims, resolved; sources and targets go by the names that the config gives them."""
  if not study['claims']:
    return ()
  from tlx.report import claims  # brings pandas and scipy, which a config file does not need

  have = {kind: tuple(study[f'{kind}s']) for kind in ('source', 'target', 'method')}
  have['shots'] = study['shots']
  made = []
  for i, given in enumerate(study['claims']):
    where = f'config.claims[{i}]'
    made.append(claims.resolved(where, _fields(where, given, claims.CLAIM, claims.RANGES), have))
  return tuple(made)


def _confirm(study: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """The seeds that are kept for confirming, {} where there are none.

  Raises:
    ValueError: they are not new, or there are no claims that they could confirm.
  """
  if not study['confirm']:
    return {}
  made = _fields('config.confirm', study['confirm'], CONFIRM, 'confirm')
  if not study['claims']:
    raise ValueError('config.confirm keeps seeds for config.claims, of which there are none.')
  known = {'seeds': set(study['seeds']), 'source_seeds': set()}
  trained = []
  for name, given in study['sources'].items():
    source = _fields(f'config.sources.{name}', given, SOURCE, 'source')
    if source['dataset']:
      trained.append(name)
      known['source_seeds'] |= {source['seed'], *(source['seeds'] if 'seeds' in given else ())}
  if not trained:
    if 'source_seeds' in study['confirm']:
      raise ValueError('config.confirm.source_seeds is for sources that the study trains.')
    del made['source_seeds'], known['source_seeds']
  elif 'source_seeds' not in study['confirm']:
    raise ValueError(
      f'config.confirm.source_seeds is missing: the study trains {", ".join(trained)}, and a '
      'network that was looked at confirms nothing.'
    )
  for field, seen in known.items():
    if old := sorted(seen.intersection(made[field])):
      raise ValueError(f'config.confirm.{field} are seeds of the study already: {old}.')
  return made


def _only(study: Mapping[str, Any]) -> dict[str, Any]:
  """The methods that run, in the config's order."""
  wanted = [name.strip() for name in study['only'].split(',') if name.strip()]
  for name in wanted:
    if name not in study['methods']:
      raise ValueError(
        f'config.only: {name!r} is no method; have '
        f'{", ".join(study["methods"])}.{closest(name, study["methods"])}'
      )
  return {name: method for name, method in study['methods'].items() if name in wanted or not wanted}


def _as_written(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config, its fields in the order they were set, also where it does not come from `base`."""
  object.__setattr__(config, '_sort_keys', False)
  for value in config.values():
    if isinstance(value, ml_collections.ConfigDict):
      _as_written(value)
  return config


def named(value: str | Mapping[str, Any], key: str = 'name') -> tuple[str, dict[str, Any]]:
  """('adam', {}) for 'adam', ('sgd', {'momentum': 0.9}) for {'name': 'sgd', 'momentum': 0.9}."""
  if isinstance(value, str):
    return value, {}
  if key not in value:
    raise ValueError(f'{dict(value)} lacks the field {key!r} that names the plug-in.')
  return value[key], {name: option for name, option in value.items() if name != key}


def add_defaults(config: ml_collections.ConfigDict, paths: Iterable[str]) -> None:
  """Adds each field 'config.sources.mnist.seed' of `paths`, which flags set, that a study may have
  and the config does not set, at its default. What flags set no preset changes.
  """
  paths = tuple(paths)
  object.__setattr__(config, '_of_flags', paths)
  for path in paths:
    _, *names = config_path.split(path)
    place: Any = config
    if names[:1] == ['sources'] and names[2:] and names[1] in config.get('sources', ()):
      with contextlib.suppress(ValueError):  # said where the config is resolved
        _set(config.sources, names[1], catalogued(config.sources[names[1]]))
    for i, name in enumerate(names):
      if not isinstance(place, _DICTS) or (
        name not in place and name not in _known(config, names[:i])
      ):
        if not isinstance(place, (list, tuple)) or name not in range(len(place)):
          break
      elif name not in place:
        _set(place, name, copy.deepcopy(_known(config, names[:i])[name]))
      elif name == 'backbone' and isinstance(place[name], str) and names[i + 1 :]:
        _set(place, name, {'name': place[name]})
      place = place[name]


def _set(place: Any, name: str, value: Any) -> None:
  with (
    place.unlocked() if isinstance(place, ml_collections.ConfigDict) else contextlib.nullcontext()
  ):
    place[name] = value


def missing_field(config: Any, path: str) -> str:
  """What is wrong with 'config.a.b' as the name of a field that there is or may be, or ''."""
  where, *names = config_path.split(path)
  place = config
  for i, name in enumerate(names):
    if isinstance(place, (list, tuple)):
      if name not in range(len(place)):
        return f'{where} has no field [{name!r}]; it has [0] to [{len(place) - 1}].'
    elif isinstance(place, str):
      return (
        f'{where} is {place!r} and has no field {name!r}. Give --{where}=NAME, or set '
        f"{{'name': ..., {name!r}: ...}} in the config file."
      )
    elif not isinstance(place, _DICTS):
      return ''
    elif name not in place:
      have = list(dict.fromkeys([*place, *_known(config, names[:i])]))
      return f'{where} has no field {name!r}; it has {", ".join(have)}.{closest(name, have)}'
    place = place[name]
    where = f'{where}[{name}]' if isinstance(name, int) else f'{where}.{name}'
  return ''


def _known(config: Any, names: list) -> Mapping[str, Any]:
  """The fields, with defaults, that the part of a config under these names may have beyond those
  it has.
  """
  if not names:
    return STUDY
  kind, last = names[0], names[-1]
  if last == 'augment':
    forms = [plug('inputs', name) for name in available('inputs')]
    return {name: default for form in forms for name, default in form.AUGMENT.items()}
  if isinstance(last, int):  # a phase
    return TRAIN
  if kind == 'sources' and last == 'backbone':
    return _options(config.sources[names[1]].backbone)
  if kind == 'sources' and last == 'input':
    source = config.sources[names[1]]
    return plug('inputs', asked_form(source, config.get('targets', {})) or _own_form(source)).INPUT
  if kind == 'methods' and names[2:] == ['merge']:
    from tlx import merging

    return MERGE | merging.options_of(plug('merging', config.methods[names[1]].merge.name))
  sections: dict[tuple, Any] = {
    ('train', 1): TRAIN,
    ('mesh', 1): MESH,
    ('grid', 1): GRID,
    ('sources', 2): SOURCE,
    ('targets', 2): TARGET,
    ('methods', 2): METHOD,
  }
  if len(names) == 3:
    sections = {('sources', 'train'): TRAIN, ('methods', 'grid'): GRID}
  return sections.get((kind, last if len(names) == 3 else len(names)), {})


def _options(backbone: Any) -> Mapping[str, Any]:
  """The options of a backbone of a config and their defaults."""
  module = plug('backbones', named(backbone)[0])
  return {'variant': ''} | (module.Options()._asdict() if hasattr(module, 'Options') else {})


def _fields(
  where: str,
  given: Any,
  defaults: Mapping[str, Any],
  section: str | Mapping[str, ranges.Kind],
) -> dict[str, Any]:
  """`given` over `defaults`, each as its field takes it; unknown fields and values outside a
  field's range are errors.
  """
  if not isinstance(given, Mapping):
    raise ValueError(f'{where} is a dict with fields such as {", ".join(defaults)}, got {given!r}.')
  kinds = RANGES[section] if isinstance(section, str) else section
  for name in given:
    if name not in defaults:
      raise ValueError(
        f'{where} has no field {name!r}; it has {", ".join(defaults)}.{closest(name, defaults)}'
      )
  merged = {**defaults, **given}
  return {
    name: copy.deepcopy(
      ranges.checked(
        f'{where}.{name}',
        value,
        kinds.get(name, ranges.kind_of(defaults[name])),
        defaults[name],
      )
    )
    for name, value in merged.items()
  }


def _phase(
  where: str,
  given: Mapping[str, Any],
  study: Mapping[str, Any],
  weight_decays: tuple[float, ...],
  inputs: Sequence['Form'] = (),
) -> dict[str, Any]:
  """One phase, filled from config.train; `inputs` are the forms that it may augment.

  Rules are tried against the network later, when its parameters are known.
  """
  if isinstance(given, Mapping) and isinstance(given.get('steps'), str):
    if epochs := given.get('epochs', study['train']['epochs']):
      raise ValueError(
        f'{where}.steps is {given["steps"]!r}, but epochs = {epochs} decides how many there are. '
        'Give the phase epochs of its own and no steps, or set epochs = 0.'
      )
    given = {**given, 'steps': _steps(where, given['steps'], study['train']['steps'])}
  phase = _fields(where, given, study['train'], 'train')
  decayed = phase['solver'] == 'sgd' and (phase['steps'] or phase['epochs'])
  _check_phase(where, phase, max(weight_decays) if decayed else 0.0)
  origin = where if 'augment' in given else 'config.train'
  for form in inputs:
    located(f'{origin}.augment', functools.partial(form.check, phase['augment']))
  if phase['steps'] * phase['batch_size'] > MOST_EXAMPLES:
    raise ValueError(
      f'{where}: {phase["steps"]:,} steps of {phase["batch_size"]:,} examples are more than '
      f'{MOST_EXAMPLES:,}.'
    )
  if phase['batch_size'] % phase['accumulate']:
    raise ValueError(
      f'{where}.batch_size is {phase["batch_size"]}, which {phase["accumulate"]} parts '
      '(accumulate) do not divide.'
    )
  if phase['views'] and not any(phase['augment'].values()):
    raise ValueError(
      f'{where}.views is {phase["views"]} but augment is {phase["augment"]}: every view '
      'would be the same.'
    )
  pairing = [name for name in ('mixup', 'cutmix') if phase['augment'].get(name)]
  if phase['views'] and pairing:
    raise ValueError(
      f'{where}.views cannot be kept under {pairing[0]}, which pairs the examples of a batch. Set '
      f'views = 0 or take {pairing[0]} out.'
    )
  # There is one step, to the solution.
  exact = {'steps': 1, 'epochs': 0.0, 'evaluations': 1, 'ema': 0.0, 'sam': 0.0}
  return phase if phase['solver'] == 'sgd' else {**phase, **exact}


def _steps(where: str, written: str, common: int) -> int:
  """The steps of a phase that are written as times `common`, those of config.train; one at least,
  as none would leave the phase out.

  >>> _steps('phase', '2.5x', 100), _steps('phase', '250', 100)
  (250, 250)
  """
  times = re.fullmatch(r'(\d+)|(\d+(?:\.\d+)?)x', written)
  if not times:
    raise ValueError(
      f"{where}.steps is {written!r}; wanted a number, or '2.5x' for 2.5 times config.train.steps."
    )
  if times[1]:
    return int(times[1])
  steps = float(times[2]) * common
  return max(1, round(steps)) if steps else 0


def _check_phase(where: str, phase: Mapping[str, Any], weight_decay: float) -> None:
  """Checks the fields whose values rooms of their own know, but for the form's."""
  from tlx.train import optim  # brings jax, which a config file does not need

  located(f'{where}.tune', lambda: plug('freezing', named(phase['tune'], 'policy')[0]))
  located(
    f'{where}.optimizer',
    lambda: optim.check(*named(phase['optimizer']), weight_decay),
  )
  if phase['loss'] != '':
    located(f'{where}.loss', lambda: plug('tasks', named(phase['loss'])[0]))
  if penalty := located(f'{where}.penalty', lambda: named(phase['penalty']))[0]:
    located(f'{where}.penalty', lambda: plug('penalties', penalty))
    if phase['loss'] != '':
      raise ValueError(
        f'{where}: a phase that contrasts examples (loss) takes no penalty, which joins the '
        'loss of the task. Leave one of them out.'
      )
  name, options = located(f'{where}.schedule', lambda: named(phase['schedule']))
  located(f'{where}.schedule', lambda: optim.schedule(name, phase['warmup'], options))
  located(f'{where}.keep', lambda: num_best(phase['keep']))
  if not all(isinstance(group, str) for group in phase['rates']):
    raise ValueError(
      f"{where}.rates names groups, such as {{'train': 1.0}}, got {phase['rates']!r}."
    )
  for group, rate in phase['rates'].items():
    ranges.checked(f'{where}.rates.{group}', rate, ranges.POSITIVE, 1.0)
  if not phase['rates'] or 'frozen' in phase['rates']:
    raise ValueError(
      f"{where}.rates has a rate for each group that is trained, such as {{'train': 1.0}}, "
      f'got {phase["rates"]!r}.'
    )


def num_best(keep: str | Mapping[str, Any]) -> int:
  """How many of a phase's best steps its weights are made of; 0 is the last step.

  Raises:
    ValueError: `keep` is none of its kinds.
  """
  name, options = named(keep)
  top = options.pop('top', 3) if name == 'soup' else 1
  whole = isinstance(top, int) and not isinstance(top, bool)
  if name not in KEEP or options or not whole or not 1 <= top <= 100:
    raise ValueError(
      f"keep is {', '.join(KEEP)}, or {{'name': 'soup', 'top': 3}} with 1 to 100, got {keep!r}."
      f'{closest(name, KEEP)}'
    )
  return 0 if name == 'last' else top


KEEP = ('last', 'best', 'soup')


def _seeds(name: str, given: Any, study: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """{'mnist': the source of its own seed, 'mnist@1': that of seed 1}, as `seeds` asks for."""
  where = f'config.sources.{name}'
  source = _source(where, given, study)
  seeds, own = source.pop('seeds'), source['seed']
  if 'seeds' not in given:
    return {name: source}
  if not source['dataset']:
    raise ValueError(
      f'{where}.seeds is for a source that the study trains, and weights are one network. '
      'Name each file of weights as a source of its own.'
    )
  return {name if seed == own else f'{name}@{seed}': {**source, 'seed': seed} for seed in seeds}


def _folds(name: str, given: Any) -> dict[str, dict[str, Any]]:
  """{'faces@1of5': the target whose test part is the first of five, ...}; the target alone
  without folds.
  """
  where = f'config.targets.{name}'
  target = _target(where, given)
  folds = target.pop('folds')
  if not folds:
    return {name: target}
  if folds == 1 or 'test_fraction' in given:
    raise ValueError(
      f'{where}.folds is {folds}{" beside test_fraction" if folds > 1 else ""}; there are '
      'two at least, of which each is the test part once, and test_fraction is left out.'
    )
  target['test_fraction'] = 1 / folds
  return {
    f'{name}@{fold}of{folds}': {**target, 'fold': fold, 'folds': folds}
    for fold in range(1, folds + 1)
  }


def catalogued(given: Any) -> Any:
  """A source of a config; where its weights, or all of it, are a name of the catalogue, with what
  that brings.

  Raises:
    ValueError: it is a name that the catalogue does not have.
  """
  if isinstance(given, str):
    given = {'weights': given}
    sources.entry(given['weights'])
  if not isinstance(given, _DICTS) or str(given.get('weights')) not in sources.CATALOGUE:
    return given
  entry = sources.entry(given['weights'])
  brought = {'backbone': entry.backbone, 'sha256': entry.sha256, 'input': dict(entry.input)}
  made = {**brought, **given, 'weights': entry.uri}
  if isinstance(made['input'], _DICTS):
    made['input'] = {**entry.input, **made['input']}
  return made


def _source(where: str, given: Any, study: Mapping[str, Any]) -> dict[str, Any]:
  source = _fields(where, given, SOURCE, 'source')
  if source['weights'].startswith('study:'):
    source['backbone'] = _of_study(where, source, 'backbone' in given)
  located(f'{where}.backbone', lambda: plug('backbones', named(source['backbone'])[0]))
  if bool(source['weights']) == bool(source['dataset']):
    raise ValueError(
      f'{where} wants either weights (a URI: where they come from) or a dataset (which the '
      f'study trains it on), got weights={source["weights"]!r} and '
      f'dataset={source["dataset"]!r}.'
    )
  if source['weights']:
    located(f'{where}.weights', lambda: sources.check(source['weights']))
  elif field := next((field for field in ('sha256', 'part') if source[field]), ''):
    raise ValueError(f'{where}.{field} is for weights, and this source has none.')
  located(f'{where}.task', lambda: plug('tasks', named(source['task'])[0]))
  source['form'] = located(f'{where}.form', lambda: asked_form(source, study['targets']))
  form = form_module(source)
  spec = form.INPUT | located(f'{where}.backbone', lambda: own_input(source))
  source['input'] = _fields(f'{where}.input', source['input'], spec, form.RANGES)
  if hasattr(form, 'settled'):
    source['input'] = located(f'{where}.input', lambda: form.settled(source['input']))
  made = located(f'{where}.input', lambda: form_of(source))
  trained_on = (made,) if source['dataset'] else ()  # weights are not trained here
  alone = {'penalty': '', **source['train']}  # a source has none to be held to
  source['train'] = _phase(f'{where}.train', alone, study, (0.0,), trained_on)
  if source['dataset'] and not source['train']['learning_rate']:
    raise ValueError(
      f'{where}.train.learning_rate is 0; a source has no grid and needs one, such as 1e-3.'
    )
  return source


def source_of(
  backbone: str | Mapping[str, Any],
  weights: str,
  fields: Mapping[str, Any],
  form: str = '',
) -> dict[str, Any]:
  """A source of these weights, resolved, outside of any study.

  Raises:
    ValueError: as `resolve`.
  """
  given = {'weights': weights, 'input': fields, 'form': form}
  given |= {'backbone': backbone} if backbone or weights not in sources.CATALOGUE else {}
  return _source('source', catalogued(given), {**STUDY, 'train': dict(TRAIN)})


def of_study(uri: str) -> dict[str, Any]:
  """The backbone and input of the source of the run that 'study:WORKDIR/RUN' names, as resolved.

  Raises:
    ValueError: no such run.
  """
  found, _ = of_run(uri)
  return found['sources'][found['cell']['source']]


def of_run(uri: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """(what the run that 'study:WORKDIR/RUN' names was made from, its config.json; the config of
  its study).

  Raises:
    ValueError: no such run, or what it says was changed since.
  """
  from tlx import checkpoint  # jax, which --help and a config file do not need

  folder = epath.Path(sources.resolve(uri))
  try:
    wanted = checkpoint.unsealed(folder / 'result.json')['files']['config.json']
    if hashlib.sha256((folder / 'config.json').read_bytes()).hexdigest() != wanted:
      raise ValueError(f'{folder / "config.json"} was changed after it was written.')
    return checkpoint.read_json(folder / 'config.json'), checkpoint.unsealed(
      folder.parent.parent / 'study.json'
    )['config']
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'{uri}: cannot tell what that run is: {error} Delete {folder} and run its study again.'
    ) from None


def form_module(source: Mapping[str, Any]) -> Any:
  """The file of tlx/inputs that makes examples for a source's network."""
  return plug('inputs', source.get('form') or _own_form(source))


def _own_form(source: Mapping[str, Any]) -> str:
  """The form that a source's backbone names."""
  return getattr(plug('backbones', named(source['backbone'])[0]), 'FORM', 'image')


def asked_form(source: Mapping[str, Any], targets: Mapping[str, Any]) -> str:
  """The form that tasks of a study ask of a source, or '' where its backbone's serves.

  Raises:
    ValueError: tasks ask for several, or for another than the source's config.
  """
  tasks = [target.get('task', TARGET['task']) for target in targets.values()]
  tasks += [source.get('task', SOURCE['task'])] if source.get('dataset') else []
  own = _own_form(source)
  asked: dict[str, str] = {}  # form: a task that asks for it
  for task in tasks:
    name = named(task)[0]
    asked.setdefault(getattr(plug('tasks', name), 'FORM', own), name)
  if given := source.get('form', ''):
    asked.setdefault(given, 'config')
  if len(asked) > 1:
    wants = ', '.join(f'{task} wants {form}' for form, task in asked.items())
    raise ValueError(
      f'one form makes the examples of a source, and here {wants}. Give tasks of another '
      'form a study (or the source a task) of their own.'
    )
  form = next(iter(asked), own)
  return '' if form == own else form


def form_of(source: Mapping[str, Any]) -> 'Form':
  """What a source's network takes: its form with the options of the source's input."""
  return form_module(source).form(**source['input'])


def own_input(source: Mapping[str, Any]) -> dict[str, Any]:
  """The input that a source's weights were trained on, or that its network has to have, as a
  resolved config has it; what is not known is not in it.
  """
  form = form_module(source)
  if source['weights'].startswith('study:'):
    return {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in of_study(source['weights'])['input'].items()
      if name in form.INPUT  # shared with the form that its weights were trained in
    }
  name, options = named(source['backbone'])
  module = plug('backbones', name)
  if not hasattr(module, 'input_spec') or not (source['weights'] or form.OF_NETWORK):
    return {}
  tokenizer = {'tokenizer': source['weights']} if 'tokenizer' in form.INPUT else {}
  known = module.input_spec(**options) | tokenizer
  return {name: value for name, value in known.items() if name in form.INPUT}


def _of_study(where: str, source: Mapping[str, Any], named_here: bool) -> dict[str, Any]:
  """The backbone of a source that is a study's run: its own, but for the options that the config
  sets itself.
  """
  before = located(f'{where}.weights', lambda: of_study(source['weights']))
  (name, options), (name_before, options_before) = (
    named(source['backbone']),
    named(before['backbone']),
  )
  if not named_here:
    name, options = name_before, {}
  if name != name_before:
    raise ValueError(
      f'{where}.backbone is {name!r}, and the run trained a {name_before!r}. Leave the field '
      "out to take the run's."
    )
  return {'name': name, **options_before, **options}


def _target(where: str, given: Any) -> dict[str, Any]:
  target = _fields(where, given, TARGET, 'target')
  if not target['dataset']:
    raise ValueError(
      f"{where}.dataset is empty; name one such as 'uci_digits', 'folder:PATH' or a TFDS name."
    )
  located(f'{where}.task', lambda: plug('tasks', named(target['task'])[0]))
  if not target['class_names']:
    target.pop('class_names')  # so that runs of before it do not depend on it
  return target


def _check_evaluator(evaluator: Any) -> None:
  """Raises ValueError where this is no evaluator; what it reads is checked with the targets'
  tasks.
  """
  if not isinstance(evaluator, (str, Mapping)):
    raise ValueError(
      f"wants a name, or a dict such as {{'name': 'top_k', 'k': 5}}, got {evaluator!r}."
    )
  plug('evaluators', named(evaluator)[0])


def _methods(study: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """The methods, resolved, those that are made of others' runs after these."""
  merges = {
    name
    for name, method in study['methods'].items()
    if isinstance(method, Mapping) and method.get('merge')
  }
  trained: dict[str, dict[str, Any]] = {}
  for name, method in study['methods'].items():
    if name not in merges:
      trained[name] = _method(f'config.methods.{name}', method, study)
  made = {}
  for name, method in study['methods'].items():
    where = f'config.methods.{name}'
    made[name] = trained.get(name) or _merged(where, method, trained, study)
  return made


def _merged(
  where: str,
  given: Mapping[str, Any],
  trained: Mapping[str, Mapping[str, Any]],
  study: Mapping[str, Any],
) -> dict[str, Any]:
  """A method that is made of the runs of another one: all fields of that, and `merge`."""
  if others := sorted(given.keys() - {'merge'}):
    raise ValueError(
      f"{where} has merge, which takes all but the rule from the method it is 'of'. Leave out "
      f'{", ".join(others)}.'
    )
  where = f'{where}.merge'
  name, _ = located(where, lambda: named(given['merge']))
  rule = located(f'{where}.name', lambda: plug('merging', name))
  from tlx import merging

  kinds = {**RANGES['merge'], **rule.RANGES}
  merge = _fields(where, given['merge'], {**MERGE, **merging.options_of(rule)}, kinds)
  merge['over'] = merge['over'] or rule.OVER
  for field in ('of', *(('start',) if merge['start'] else ())):
    _check_trained(f'{where}.{field}', merge[field], trained, study['only'])
  of = trained[merge['of']]
  _check_merge(where, merge, of, study)
  differs = merge['start'] or rule.FROM_START or merge['scale'] != MERGE['scale']
  if differs and not merge['start'] and of['init'] != 'source':
    raise ValueError(
      f'{where}: runs of {merge["of"]} start at random, not from the source. Name the method that '
      'they start from in start, or take the mean (or greedy) at scale (1.0,).'
    )
  start = trained.get(merge['start'], of)
  if any(start.get(field, '') != of.get(field, '') for field in ('head_after', 'head', 'init')):
    raise ValueError(f'{where}.start: {merge["start"]} has another network than {merge["of"]}.')
  return {**of, 'merge': merge}


def _check_trained(
  where: str, name: str, trained: Mapping[str, Mapping[str, Any]], only: str
) -> None:
  """Raises ValueError where this is no method whose runs can be merged."""
  if name not in trained:
    left_out = ' config.only says which run.' if only else ''
    raise ValueError(
      f'{where} names {name!r}, and the methods that train here are {", ".join(trained)}.'
      f'{left_out}{closest(name, trained)}'
    )
  if added := named(trained[name]['added'])[0]:
    raise ValueError(
      f'{where}: {name} adds weights ({added}), and a mean of factors is not the mean of what they '
      'add. Merge methods that train the own weights, or combine adapters (tlx/combine.py).'
    )


def _check_merge(
  where: str, merge: Mapping[str, Any], of: Mapping[str, Any], study: Mapping[str, Any]
) -> None:
  """Raises ValueError where there are no runs for a merge, or they should not be merged."""
  over = merge['over']
  if over not in OVER:
    raise ValueError(f'{where}.over is {", ".join(OVER)}, got {over!r}.{closest(over, OVER)}')
  if not any(phase['steps'] or phase['epochs'] for phase in of['phases']):
    raise ValueError(f'{where}.of: {merge["of"]} takes no step, and leaves nothing to merge.')
  if over == 'seeds' and (set(study['shots']) != {0} or study['validation'] != 'all'):
    raise ValueError(
      f"{where}.over: each seed has examples of its own, so that runs over 'seeds' saw more than "
      "any one. Set shots = (0,) and validation = 'all', or over = 'settings'."
    )
  if merge['targets'] and over != 'targets':
    raise ValueError(f"{where}.targets is for over = 'targets', got over = {over!r}.")
  if over == 'targets' and (merge['start'] or any('@' in name for name in study['targets'])):
    raise ValueError(
      f"{where}: over 'targets' runs start from the source, and no target has folds, whose parts "
      'are not those of another.'
    )
  for target, weight in merge['targets'].items():
    if target not in study['targets']:
      raise ValueError(
        f'{where}.targets: {target!r} is no target; have {", ".join(study["targets"])}.'
        f'{closest(target, study["targets"])}'
      )
    ranges.checked(f'{where}.targets.{target}', weight, SCALE, 1.0)


def _method(where: str, given: Any, study: Mapping[str, Any]) -> dict[str, Any]:
  method = _fields(where, given, METHOD, 'method')
  grid = _fields(f'{where}.grid', method['grid'], study['grid'], 'grid')
  sizes = [len(g['learning_rate']) * len(g['weight_decay']) for g in (grid, study['grid'])]
  if sizes[0] != sizes[1]:
    raise ValueError(
      f'{where}.grid tries {sizes[0]} settings where config.grid tries {sizes[1]}; every '
      'method gets the same budget.'
    )
  if grid['extend'] != study['grid']['extend']:
    raise ValueError(
      f'{where}.grid.extend is {grid["extend"]} where config.grid.extend is '
      f'{study["grid"]["extend"]}; every method gets the same budget.'
    )
  if method['head'] and not method['phases']:
    method['phases'] = ({'tune': 'head', 'steps': 0},)
  if not method['phases']:
    raise ValueError(
      f'{where}.phases is empty; a method has at least one phase, such as {{"tune": "head"}}.'
    )
  if added := located(f'{where}.added', lambda: named(method['added']))[0]:
    located(f'{where}.added', lambda: plug('peft', added))
  if (head := located(f'{where}.head', lambda: named(method['head']))[0]) not in ('', 'zero_shot'):
    raise ValueError(f"{where}.head is 'zero_shot' or '', got {head!r}.")
  if not re.fullmatch('source|random|mean_var|first_[1-9][0-9]*', method['init']):
    raise ValueError(
      f"{where}.init is 'source', 'random', 'mean_var' or, for the first 3 groups of the source's "
      f"stages, 'first_3', got {method['init']!r}."
    )
  _check_head_after(f'{where}.head_after', method['head_after'])
  inputs = tuple(dict.fromkeys(form_of(source) for source in study['sources'].values()))
  phases = tuple(
    _phase(f'{where}.phases[{i}]', phase, study, grid['weight_decay'], inputs)
    for i, phase in enumerate(method['phases'])
  )
  _check_phases(where, phases, method['init'])
  return {
    'init': method['init'],
    'head_after': method['head_after'],
    **({'head': method['head']} if method['head'] else {}),
    'added': method['added'],
    'grid': grid,
    'phases': phases,
  }


def _check_head_after(where: str, head_after: Any) -> None:
  """Raises ValueError where this names no stages, or no head on them."""
  stage, place = located(where, lambda: named(head_after, 'stage'))
  several = isinstance(stage, (tuple, list)) and all(isinstance(one, str) for one in stage)
  nowhere = bool(place) and not stage and place.get('kind') != 'boxes'  # which knows its stages
  if not (isinstance(stage, str) or several) or nowhere:
    raise ValueError(
      f"{where} is a stage, or stages and what the head is, such as {{'stage': 'conv2', "
      f"'grid': 4}} or {{'stage': ('conv1', 'conv2'), 'kind': 'attentive'}}, got "
      f'{head_after!r}.'
    )
  if place:
    from tlx import backbones  # brings jax, which a config file does not need

    located(where, lambda: backbones.check_head(**place))


def _check_phases(where: str, phases: Sequence[Mapping[str, Any]], init: str) -> None:
  """Raises ValueError where the resolved phases of a method do not go together."""
  if len(phases) > 1 and not all(phase['steps'] or phase['epochs'] for phase in phases):
    raise ValueError(
      f'{where}: a phase has steps = 0, which trains nothing, and is not the only one. '
      'Leave it out.'
    )
  for phase in phases:
    if phase['loss'] and phase['keep'] != TRAIN['keep']:
      raise ValueError(f'{where}: a phase with a loss is not validated, and keeps its last step.')
  if phases[-1]['loss']:
    raise ValueError(
      f'{where}: the last phase has loss = {phases[-1]["loss"]!r}, which trains no head. Put one '
      "after it, such as {'tune': 'head', 'solver': 'logistic'}."
    )
  for phase in phases:
    if phase['solver'] != 'sgd' and (init, phase['tune']) != ('source', 'head'):
      raise ValueError(
        f'{where}: solver {phase["solver"]!r} finds the head of a source whose stages are '
        "frozen; set tune = 'head' and init = 'source', or solver = 'sgd'."
      )


def located(where: str, function: Callable[[], Any]) -> Any:
  """What `function()` gives; an error of its says where in the config it lies."""
  try:
    return function()
  except (ValueError, TypeError) as error:
    raise ValueError(f'{where}: {error}') from None
