"""What configs may hold: every field has a range, and every value outside it is refused before
anything runs.
"""

import copy
import json
import math
import re
import shlex
import sys

import jax
import numpy as np
import pytest

from experiments import study as command
from tests.study import tiny
from tlx import ranges, report
from tlx.inputs import image
from tlx.plug import available, plug
from tlx.study import cohorts, config, run
from tlx.study import ranges as study_ranges
from tlx.study.cells import cell_id, cells_of, settings_of
from tlx.study.cohorts import cohorts_of
from tlx.train import optim
from tlx.types import Batch

SECTIONS = {
  'config': config.STUDY,
  'train': config.TRAIN,
  'grid': config.GRID,
  'input': image.INPUT,
  'source': config.SOURCE,
  'target': config.TARGET,
  'method': config.METHOD,
  'merge': config.MERGE,
  'mesh': config.MESH,
  'confirm': config.CONFIRM,
}
# Where a section stands in the tiny study, and its name in errors.
PLACES = {
  'config': ((), 'config'),
  'confirm': (('confirm',), 'config.confirm'),
  'train': (('train',), 'config.train'),
  'grid': (('grid',), 'config.grid'),
  'input': (('sources', 'turned', 'input'), 'config.sources.turned.input'),
  'source': (('sources', 'turned'), 'config.sources.turned'),
  'target': (('targets', 'digits'), 'config.targets.digits'),
  'method': (('methods', 'probe'), 'config.methods.probe'),
  'merge': (('methods', 'soup', 'merge'), 'config.methods.soup.merge'),
  'mesh': (('mesh',), 'config.mesh'),
}


def with_field(section, field, value):
  """The tiny study with another value in one field."""
  study = tiny.get_config().to_dict()
  if section == 'merge':
    study['methods']['soup'] = {'merge': {'name': 'mean', 'of': 'probe'}}
  place = study
  for name in PLACES[section][0]:
    place = place.setdefault(name, {})
  place[field] = value
  return study


def bad_numbers(kind):
  return [
    kind.low if kind.above else kind.low - 1,
    kind.high if kind.below else kind.high * 2 + 1,
    math.nan,
    math.inf,
    -math.inf,
    'x',
    True,
    None,
  ]


def bad_values(section, field):
  """Values that a field may not have, made from its range and its default."""
  kind, default = RANGES[section][field], SECTIONS[section][field]
  if isinstance(kind, ranges.Range):
    return [
      *bad_numbers(kind),
      [1],
      *([kind.low + 0.5] if isinstance(default, int) else []),
    ]
  if isinstance(kind, ranges.Each):
    one = default[0]
    return [
      (),
      one,
      'x',
      None,
      *([(one, one)] if kind.different else []),
      *((bad,) for bad in bad_numbers(kind.range)),
    ]
  if type(kind) is tuple:
    return [bad for bad in ('nonsense', '', 3, None, True) if bad not in kind]
  return {
    ranges.TEXT: [3, None, True, ['a']],
    ranges.PLUGIN: [3, None, 'nonsense', {'nam': 'x'}, {}],
    ranges.STAGE: [
      3,
      None,
      {'nam': 'x'},
      {},
      {'stage': 3},
      {'stage': 'fc', 'gird': 2},
    ],
    ranges.SWITCH: ['yes', 2, None],
    ranges.FIELDS: [3, None, 'x', {'nonsense': 'x'}],
    ranges.TEXTS: [3, None, 'x', {'0': 3}],
    ranges.PHASES: [3, 'x', None, ()],
    ranges.CLAIMS: [3, 'x', None, ({},), (3,)],
    ranges.PLUGINS: [3, 'f1', None, ('nonsense',), ({},), (3,)],
  }[kind]


RANGES = {**study_ranges.RANGES, 'input': image.RANGES}
CASES = [(section, field) for section, kinds in RANGES.items() for field in kinds]


def test_every_field_has_a_range_and_every_range_a_field():
  assert {section: set(kinds) for section, kinds in RANGES.items()} == {
    name: set(fields) for name, fields in SECTIONS.items()
  }
  assert image.RANGES['fit'] and set(image.AUGMENT) == set(image.AUGMENTATIONS)


@pytest.mark.parametrize('section, field', CASES)
def test_what_a_field_may_not_hold_is_refused_by_its_name(section, field):
  for value in bad_values(section, field):
    with pytest.raises(ValueError) as error:
      config.resolve(with_field(section, field, value))
    assert PLACES[section][1] in str(error.value) and (
      field in str(error.value) or 'phases[0]' in str(error.value)
    ), (value, str(error.value))


@pytest.mark.parametrize('section, field', CASES)
def test_what_a_field_may_hold_at_its_ends_is_not(section, field):
  kind = RANGES[section][field]
  if isinstance(kind, ranges.Range):
    for end in ([] if kind.above else [kind.low]) + ([] if kind.below else [kind.high]):
      assert ranges.checked('x', end, kind, SECTIONS[section][field]) == end
  if type(kind) is tuple:
    assert all(ranges.checked('x', choice, kind, '') == choice for choice in kind)


@pytest.mark.parametrize(
  'section, field',
  [case for case in CASES if isinstance(RANGES[case[0]][case[1]], ranges.Range)],
)
def test_numbers_get_the_type_of_their_default(section, field):
  default = SECTIONS[section][field]
  kind = RANGES[section][field]
  assert type(
    ranges.checked('x', float(kind.high if not kind.below else 0.5), kind, default)
  ) is type(default)


PHASES = [
  ({'augment': {'flip': 7}}, "'flip'.*up to 1; got 7"),
  ({'augment': {'flip': -0.1}}, 'flip'),
  ({'augment': {'flip': math.nan}}, 'flip'),
  ({'augment': {'shift': 0.5}}, "'shift'.*whole pixels"),
  ({'augment': {'shift': 99}}, "'shift'.*fewer than an image of 8"),
  ({'augment': {'shift': 8}}, 'shift'),
  ({'augment': {'crop': 4}}, "'crop'.*less than half"),
  ({'augment': {'crop': 10}}, 'crop'),
  ({'augment': {'crop': math.inf}}, 'crop'),
  ({'augment': {'mixup': 'x'}}, 'mixup'),
  ({'augment': {'mixup': 0.2, 'cutmix': 1.0}}, 'mixup and cutmix both pair'),
  ({'augment': {'flip': True}}, 'flip'),
  ({'augment': {'flop': 1}}, "Did you mean 'flip'"),
  ({'rates': {'train': -1.0}}, r'rates\.train is at least 1.2e-38'),
  ({'rates': {'train': math.nan}}, 'rates.train'),
  ({'rates': {'train': 0}}, 'rates.train'),
  ({'rates': {}}, 'rates'),
  ({'rates': {'frozen': 1.0, 'train': 1.0}}, 'rates'),
  ({'steps': 10**12}, 'steps is at least 0 and at most 16,777,216'),
  ({'batch_size': 10**9}, 'batch_size'),
  ({'steps': 2**24, 'batch_size': 2**16}, 'are more than 1,073,741,824'),
  ({'optimizer': {'name': 'adam', 'b1': -3}}, "'b1'"),
  ({'optimizer': {'name': 'sgd', 'momentum': 'x'}}, 'momentum'),
  ({'optimizer': 'lbfgs'}, 'lbfgs'),
  ({'optimizer': 'scale_by_learning_rate'}, 'Unknown optimizer'),
  ({'optimizer': {'name': 3}}, 'optimizer 3'),
  (
    {'tune': {'policy': 'regex', 'rules': (('(head', 'train'), ('.*', 'frozen'))}},
    'no regular expression',
  ),
  (
    {'tune': {'policy': 'regex', 'rules': (('.*', 'frozen'),)}},
    'freezes every parameter',
  ),
  ({'tune': {'policy': 'last', 'k': -1}}, 'k=-1'),
  ({'tune': {'policy': 'last'}}, "missing.*'k'"),
  ({'tune': {'policy': 3}}, 'freezing 3'),
  ({'steps': '2 x'}, "steps is '2 x'; wanted a number, or '2.5x'"),
  ({'steps': '2x', 'epochs': 1.0}, "steps is '2x', but epochs = 1.0 decides"),
  ({'steps': '2.5'}, "steps is '2.5'; wanted a number, or '2.5x'"),
  ({'epochs': 1e5, 'batch_size': 1}, 'epochs of .* are .* steps'),
  ({'augment': {'shift': 1}, 'views': 2}, 'config.reuse'),
]


def test_steps_as_times_those_of_all_follow_a_flag():
  made = tiny.get_config()
  made.methods = {'two': {'phases': [{'tune': 'head', 'steps': '2.5x'}, {'steps': 7}]}}
  made.baseline = ''
  for common, wanted in ((4, [10, 7]), (100, [250, 7])):
    made.train.steps = common
    phases = config.resolve(made)['methods']['two']['phases']
    assert [phase['steps'] for phase in phases] == wanted
    assert config.resolve(config.resolve(made))['methods']['two']['phases'] == phases
  made.train.steps, made.methods.two.phases[1]['steps'] = 1, '0.5x'  # not none: that trains nothing
  assert [phase['steps'] for phase in config.resolve(made)['methods']['two']['phases']] == [2, 1]


@pytest.mark.parametrize('phase, words', PHASES)
def test_phases_that_cannot_be_are_refused_at_the_check(phase, words):
  made = tiny.get_config().to_dict()
  made['methods'] = {'probe': {'phases': ({'tune': 'head', **phase},)}}
  made.update(baseline='', reuse=False, shots=(100,) if 'epochs' in phase else (1,))
  made['train']['batch_size'] = 8
  with pytest.raises(
    ValueError,
    match=f'(?s)config.methods.probe.*{words}' if 'freezes' not in words else words,
  ):
    study = config.resolve(made)
    cohorts_of(study)


@pytest.mark.parametrize(
  'options',
  [
    {'flip': 1},
    {'flip': 1.0, 'shift': 2.0},
    {'crop': 3},
    {'mixup': 1},
    {'cutmix': 1},
    {'shift': 7},
    {'crop': 3.99},
  ],
)
def test_augmentations_within_their_ranges_work(options):
  form = image.form(8, 1)
  form.check(options)
  images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1)).astype(np.uint8)
  batch = form.augment(jax.random.key(0), Batch(images, np.arange(4) % 3, np.ones(4)), options)
  assert np.isfinite(batch.inputs).all() and batch.inputs.shape == images.shape
  if set(options) == {'flip'}:
    np.testing.assert_array_equal(batch.inputs, images[:, :, ::-1])


def test_schedules_are_those_there_are():
  for name in optim.SCHEDULES:
    config.resolve(with_field('train', 'schedule', name))


def test_plugins_are_names_or_dicts_without_more_ado():
  made = tiny.get_config()
  made.train.optimizer = {'name': 'sgd', 'momentum': 0.9}
  made.train.tune = {'policy': 'after', 'k': 1}
  made.sources.turned.backbone = 'mlp'
  made.sources.turned.backbone = {'name': 'mlp', 'widths': (3,)}
  study = config.resolve(made)
  assert study['train']['optimizer'] == {'name': 'sgd', 'momentum': 0.9} and study['train'][
    'tune'
  ] == {'policy': 'after', 'k': 1}
  assert study['sources']['turned']['backbone']['widths'] == (3,)
  made.train.optimizer = 'adam'
  assert config.resolve(made)['train']['optimizer'] == 'adam'
  with pytest.raises(TypeError):
    made.train.steps = 'many'


def test_dicts_that_a_file_uses_twice_are_two():
  made, shared = tiny.get_config(), {'learning_rate': (0.1, 0.2)}
  made.methods = {
    'a': {'grid': shared, 'phases': [{'tune': 'head'}]},
    'b': {'grid': shared},
  }
  made.methods.a.grid.learning_rate = (0.3, 0.4)
  assert made.methods.b.grid.learning_rate == (0.1, 0.2) and shared == {'learning_rate': (0.1, 0.2)}


def test_resolving_twice_changes_nothing():
  study = config.resolve(tiny.get_config())
  assert config.resolve(copy.deepcopy(study)) == study


OVERRIDES = [
  ('config.sources.turned.seed=7', lambda s: s['sources']['turned']['seed'] == 7),
  (
    'config.sources.turned.train.clip_norm=0.5',
    lambda s: s['sources']['turned']['train']['clip_norm'] == 0.5,
  ),
  (
    'config.sources.turned.input.crop=0.5',
    lambda s: s['sources']['turned']['input']['crop'] == 0.5,
  ),
  (
    'config.sources.turned.backbone.dtype=bfloat16',
    lambda s: s['sources']['turned']['backbone']['dtype'] == 'bfloat16',
  ),
  (
    'config.targets.digits.val_fraction=0.4',
    lambda s: s['targets']['digits']['val_fraction'] == 0.4,
  ),
  (
    'config.methods.scratch.head_after=dense1',
    lambda s: s['methods']['scratch']['head_after'] == 'dense1',
  ),
  (
    'config.methods.scratch.grid.learning_rate=(0.1,0.2)',
    lambda s: s['methods']['scratch']['grid']['learning_rate'] == (0.1, 0.2),
  ),
  (
    'config.methods.lp_ft.phases[1].steps=5',
    lambda s: s['methods']['lp_ft']['phases'][1]['steps'] == 5,
  ),
  ('config.train.augment.flip=0.5', lambda s: s['train']['augment'] == {'flip': 0.5}),
  (
    'config.train.optimizer=sgd',
    lambda s: s['methods']['lp_ft']['phases'][1]['optimizer'] == 'sgd',
  ),
  ('config.mesh.fsdp=true', lambda s: s['mesh']['fsdp']),
  ('config.checkpoint_seconds=3', lambda s: s['checkpoint_seconds'] == 3.0),
  (
    'config.only=lp_ft,probe',
    lambda s: list(s['methods']) == ['probe', 'lp_ft'] and s['baseline'] == '',
  ),
]


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of how ml_collections loads files
@pytest.mark.parametrize('override, holds', OVERRIDES)
def test_every_default_can_be_overridden_on_the_command_line(override, holds, monkeypatch):
  """Fields that the config file does not set too."""
  from absl import flags
  from ml_collections import config_flags

  values = flags.FlagValues()
  argv = ['study', f'--config={tiny.__file__}', f'--{override}']
  monkeypatch.setattr(sys, 'argv', argv)
  config_flags.DEFINE_config_file('config', None, '', flag_values=values)
  values['config'].parser = command.Parser(values['config'].parser)
  values(argv)
  assert holds(config.resolve(values['config'].value))


@pytest.mark.parametrize(
  'path, words',
  [
    (
      'config.sources.turned.sed',
      "config.sources.turned has no field 'sed'.*Did you mean 'seed'",
    ),
    ('config.methods.scratch.phase', "Did you mean 'phases'"),
    ('config.targets.digits.val_fractoin', "Did you mean 'val_fraction'"),
    (
      'config.methods.lp_ft.phases[4].steps',
      r'no field \[4\]; it has \[0\] to \[1\]',
    ),
    ('config.sources.mnist.seed', "no field 'mnist'"),
    ('config.train.augment.flop', "Did you mean 'flip'"),
    ('config.sources.turned.backbone.width', "Did you mean 'widths'"),
  ],
)
def test_names_that_are_no_fields_are_said(path, words):
  made = tiny.get_config()
  config.add_defaults(made, [path])
  assert re.search(words, config.missing_field(made, path))
  assert made.to_dict() == tiny.get_config().to_dict()


def test_a_config_file_that_is_not_there_is_said_in_one_line():
  path = tiny.__file__.replace('tiny.py', 'tinny.py')
  with pytest.raises(SystemExit, match=rf'^Error: There is no file {path}. Did you mean .*tiny.py'):
    command.parse(['study', f'--config={path}:argument', '--config.only=probe'])


def test_what_is_said_at_the_end_can_be_typed():
  """Also where a folder's name has spaces and quotes."""
  workdir = "runs/Anna's photos"
  said, _, *lines = command.to_use(workdir, boxes=False).splitlines()
  assert f'--workdir={workdir}' in shlex.split(said) and lines[1].endswith(f'({workdir!r})')
  assert '--out=FOLDER' in command.to_use('x', boxes=True)


def test_only_takes_methods_there_are():
  made = tiny.get_config()
  made.only = 'scratch, probe'
  study = config.resolve(made)
  assert list(study['methods']) == ['scratch', 'probe'] and study['baseline'] == 'scratch'
  made.only = 'prob'
  with pytest.raises(ValueError, match="config.only: 'prob'.*Did you mean 'probe'"):
    config.resolve(made)


def test_ids_read_back_as_the_rates_they_are_of():
  made = tiny.get_config()
  made.methods = {'full': {}}
  made.baseline, made.grid.learning_rate, made.grid.weight_decay = (
    '',
    (0.00123456, 0.001234561, 1e-5, 1.0),
    (0.0,),
  )
  cells = cells_of(config.resolve(made))
  ids = [cell_id(cell) for cell in cells]
  assert len(set(ids)) == len(cells) and {
    'turned-digits-full-1shot-seed0-lr1.0',
    'turned-digits-full-1shot-seed0-lr1e-05',
  } < set(ids)
  assert all(
    float(name.partition('-lr')[2]) == cell.learning_rate for name, cell in zip(ids, cells)
  )


def test_runs_of_one_folder_are_refused(monkeypatch):
  study = config.resolve(tiny.get_config())
  monkeypatch.setattr(cohorts, 'cell_id', lambda cell: f'{cell.method}-{cell.seed}')
  with pytest.raises(ValueError, match="share the folder 'scratch-0'"):
    cohorts_of(study)


def test_names_too_long_for_a_folder_are_refused():
  made = tiny.get_config()
  made.methods = {'m' * 200: {}}
  made.baseline = ''
  with pytest.raises(ValueError, match='more than 200'):
    cohorts_of(config.resolve(made))


def test_fixed_rates_and_exact_solutions_have_one_setting():
  made = tiny.get_config()
  made.grid.weight_decay = (0.0,)
  made.methods.fixed = {
    'phases': (
      {'tune': 'head', 'learning_rate': 0.01},
      {'tune': 'all', 'learning_rate': 0.05},
    )
  }
  made.methods.exact = {
    'phases': ({'tune': 'head', 'solver': 'ridge'},),
    'grid': {'learning_rate': (1.0,), 'weight_decay': (0.1, 1.0)},
  }
  made.methods.waste = {'phases': ({'tune': 'head', 'solver': 'ridge'},)}
  made.methods.after_exact = {
    'phases': (
      {'tune': 'head', 'solver': 'logistic'},
      {'tune': 'all', 'learning_rate': 0.05},
    )
  }
  study = config.resolve(made)
  settings = {name: settings_of(method) for name, method in study['methods'].items()}
  assert settings['fixed'] == settings['after_exact'] == [(0.05, 0.0)] and settings['exact'] == [
    (0.0, 0.1),
    (0.0, 1.0),
  ]
  assert settings['waste'] == [(0.0, 0.0)] and settings['lp_ft'] == [
    (1e-3, 0.0),
    (1e-2, 0.0),
  ]
  ids = {cell_id(cell) for cell in cells_of(study) if cell.shots == 1 and cell.seed == 0}
  assert {
    'turned-digits-exact-1shot-seed0-wd0.1',
    'turned-digits-waste-1shot-seed0',
    'turned-digits-fixed-1shot-seed0-lr0.05',
  } < ids


def test_a_fixed_rate_trains_each_run_once(data_dir, tmp_path):
  made = tiny.get_config()
  made.data_dir, made.baseline, made.shots = str(data_dir), '', (1,)
  made.methods = {'fixed': {'phases': ({'tune': 'head', 'learning_rate': 0.05},)}}
  runs = report.read(run.run(made, tmp_path))
  assert len(runs) == 2 and set(runs.learning_rate) == {0.05} and runs.chosen.all()


@pytest.mark.parametrize('backbone', available('backbones'))
def test_what_the_backbones_say_of_their_input_is_in_range(backbone):
  module = plug('backbones', backbone)
  if hasattr(module, 'input_spec'):
    form = config.form_module({'backbone': backbone})
    config._fields('input', module.input_spec(), form.INPUT, form.RANGES)


def chained(workdir, name, **source):
  """A study whose source is a run of the one in `workdir`."""
  made = tiny.get_config()
  made.sources = {'run': {'weights': f'study:{workdir}/{name}', **source}}
  made.methods = {'probe': made.methods.probe}
  made.baseline = ''
  return made


def test_a_run_as_a_source_brings_its_preprocessing_and_its_network(finished):
  workdir, _ = finished
  name = next(path.name for path in (workdir / 'runs').glob('*lp_ft*') if path.is_dir())
  source = config.resolve(chained(workdir, name))['sources']['run']
  assert (
    source['input']['mean'] == (0.3,)
    and source['input']['std'] == (0.4,)
    and source['input']['image_size'] == 8
  )
  assert source['backbone'] == {'name': 'mlp', 'widths': [16, 12]}
  source = config.resolve(
    chained(
      workdir,
      name,
      backbone={'name': 'mlp', 'dtype': 'bfloat16'},
      input={'std': (0.5,)},
    )
  )['sources']['run']
  assert source['backbone'] == {
    'name': 'mlp',
    'widths': [16, 12],
    'dtype': 'bfloat16',
  }
  assert source['input'] | {'std': (0.4,)} == config.own_input(source) and source['input'][
    'std'
  ] == (0.5,)
  with pytest.raises(ValueError, match="backbone is 'cnn', and the run trained a 'mlp'"):
    config.resolve(chained(workdir, name, backbone='cnn'))
  with pytest.raises(ValueError, match='config.sources.run.weights.*no finished run'):
    config.resolve(chained(workdir, 'nowhere'))


def test_the_dry_run_says_what_differs_from_the_run(finished):
  from tlx.study import dry_run

  workdir, _ = finished
  name = next(path.name for path in (workdir / 'runs').glob('*lp_ft*') if path.is_dir())
  text = dry_run.describe(chained(workdir, name, input={'std': (0.5,)}))
  assert "config.sources.run.input.std is (0.5,); the weights' own is (0.4,)." in text
  assert "the weights' own" not in dry_run.describe(chained(workdir, name))


def test_a_chained_study_sees_the_images_that_its_source_saw(finished, data_dir, tmp_path):
  workdir, _ = finished
  name = next(path.name for path in (workdir / 'runs').glob('*lp_ft*') if path.is_dir())
  made = chained(workdir, name)
  made.data_dir = str(data_dir)
  run.run(made, tmp_path)
  record = json.loads((tmp_path / 'sources' / 'run' / 'result.json').read_text())
  assert (record['config']['input']['mean'], record['config']['input']['std']) == (
    [0.3],
    [0.4],
  )
