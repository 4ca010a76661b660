"""Cells, cohorts and programs; what is planned is what happens."""

import jax
import pandas as pd
import pytest

from tests.study import tiny
from tlx import freezing, tree
from tlx.plug import plug
from tlx.study import config, cost, run
from tlx.study.cells import cells_of
from tlx.study.cohorts import cohorts_of
from tlx.study.cost import cost_table
from tlx.study.phases import (
  _layer_rates,
  frozen_groups,
  network_of,
  phases_of,
  reused_groups,
  shapes_of,
)
from tlx.train import cohort, memory, step
from tlx.train.job import PhasePlan


def resolved(**changes):
  made = tiny.get_config()
  for name, value in changes.items():
    made[name] = value
  return config.resolve(made)


def test_every_method_gets_every_setting_size_and_seed():
  cells = cells_of(resolved())
  assert len(cells) == len(set(cells)) == 3 * 2 * 2 * 2
  for method in ('scratch', 'probe', 'lp_ft'):
    assert {(c.shots, c.seed, c.learning_rate) for c in cells if c.method == method} == {
      (shots, seed, rate) for shots in (1, 4) for seed in (0, 1) for rate in (1e-3, 1e-2)
    }


def test_cohorts_split_where_memory_ends_and_keep_every_cell():
  whole, parts = cohorts_of(resolved()), cohorts_of(resolved(cohort_bytes=100_000.0))
  assert len(whole) == 3 < len(parts)
  assert [cell for c in whole for cell in c.cells] == [cell for c in parts for cell in c.cells]
  assert len({c.id for c in parts}) == len(parts)


def test_cohorts_leave_room_for_activations_where_runs_step_side_by_side(monkeypatch):
  """A probe's run on features of 12 numbers: its state is 130 parameters, their gradients, updates
  and two moments.
  """
  probe = {'probe': {'phases': ({'tune': 'head'},)}}
  study = resolved(methods=probe, baseline='', cohort_bytes=20_000.0)
  state = cost.run_bytes(study, cells_of(study)[0])
  assert 5 * 130 * 4 <= state < 5 * 130 * 4 + 50
  assert [len(one.cells) for one in cohorts_of(study)] == [20_000 // state, 8 - 20_000 // state]
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  kept = cost.run_bytes(study, cells_of(study)[0]) - state  # of 8 examples
  assert 8 * 12 * 4 <= kept <= 8 * (12 + 3 * 10) * 4  # features; of 10 logits what the loss keeps
  fitting = 20_000 // (state + kept)
  assert next(len(one.cells) for one in cohorts_of(study)) == fitting < 20_000 // state
  halves = resolved(
    methods={'probe': {'phases': ({'tune': 'head', 'accumulate': 2},)}}, baseline=''
  )
  assert cost.run_bytes(halves, cells_of(halves)[0]) == state + kept // 2


def test_nothing_is_traced_again_for_another_cohort_of_a_method(monkeypatch):
  study = resolved(cohort_bytes=20_000.0)
  traced = []
  init_state = step.init_state

  def traced_init(trainable, stats, phase, hyper):
    traced.append(phase)
    return init_state(trainable, stats, phase, hyper)

  monkeypatch.setattr(step, 'init_state', traced_init)
  cost._bytes_of.cache_clear()
  cohorts = cohorts_of(study)
  cost_table(study, cohorts)
  assert len(cohorts) > 10 and len(traced) == len(set(traced))


def test_cohorts_are_as_large_as_devices_report_memory(monkeypatch):
  monkeypatch.setattr(memory, 'reported_bytes', lambda: 125_000)
  assert jax.device_count() == 2
  own = cohorts_of(resolved())
  assert own == cohorts_of(resolved(cohort_bytes=0.4 * 2 * 125_000))
  monkeypatch.setattr(memory, 'reported_bytes', lambda: 0)
  assert cohorts_of(resolved()) == cohorts_of(resolved(cohort_bytes=4e9))


def test_split_cohorts_choose_together_and_find_the_same(data_dir, tmp_path):
  """Six runs at a time instead of eight: the same numbers, and still one learning rate a size."""
  from tlx import report

  made = tiny.get_config()
  made.data_dir = str(data_dir)
  made.methods = {'scratch': made.methods['scratch'].to_dict()}
  whole = report.read(run.run(made, tmp_path / 'whole'))
  made.cohort_bytes = 160_000.0
  parts = report.read(run.run(made, tmp_path / 'parts'))
  assert parts.cohort.nunique() > 1
  columns = ['id', 'chosen', 'val_accuracy', 'val_loss', 'test_accuracy']
  pd.testing.assert_frame_equal(
    *(table[columns].sort_values('id', ignore_index=True) for table in (whole, parts))
  )


def test_planned_programs_are_those_compiled(data_dir, tmp_path, monkeypatch):
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  made.train.clip_norm = 0.77  # so that no other test has compiled them
  study = config.resolve(made)
  rows = cost_table(study, cohorts_of(study))
  compiled = []
  original = cohort.Program.__call__

  def count(self, *args):
    before = len(self.compiled)
    outputs = original(self, *args)
    if len(self.compiled) > before and args[0]:  # training carries a state, evaluation nothing
      compiled.append(self)
    return outputs

  monkeypatch.setattr(cohort.Program, '__call__', count)
  run.run(made, tmp_path)
  assert len(compiled) == sum(row['new programs'] for row in rows)


def test_layer_decay_gives_each_stage_its_rate():
  study = resolved()
  source = study['sources']['turned']
  phase = phases_of(study['methods']['lp_ft'], source, 10, 'classification')[1].phase
  assert dict(phase.rates) == {
    'train@dense1': 0.25,
    'train@dense2': 0.5,
    'train@head': 1.0,
  }
  assert dict(phase.labels)['dense1/linear/bias'] == 'train@dense1'


def deep(phase, source, num_classes=10):
  study = config.resolve(
    {
      **tiny.get_config().to_dict(),
      'sources': {'turned': source},
      'methods': {'deep': {'phases': (phase,)}},
      'baseline': '',
    }
  )
  source, method = study['sources']['turned'], study['methods']['deep']
  network = network_of(source, num_classes)
  return (
    phases_of(method, source, num_classes, 'classification')[0].phase,
    network,
    shapes_of(source, network),
  )


RESNET = {
  'backbone': {
    'name': 'resnet',
    'channels': (4, 4, 4, 8),
    'block': 'basic',
    'layers': (1, 1, 1, 2),
  },
  'weights': 'x.npz',
}
VIT = {
  'backbone': {
    'name': 'vit',
    'dim': 4,
    'depth': 3,
    'heads': 1,
    'patch': 8,
    'image_size': 16,
    'registers': 1,
    'layer_scale': 0.1,
  },
  'weights': 'x.npz',
  'input': {'image_size': 16},
}


def test_layer_decay_is_that_of_timm_and_mae():
  """The head, with what only pools or normalises for it, at 1; the last block at 0.5; the stem or
  embedding lowest.
  """
  phase, *_ = deep({'layer_decay': 0.5}, RESNET)
  stages = (
    'head',
    'layer4_1',
    'layer4_0',
    'layer3_0',
    'layer2_0',
    'layer1_0',
    'stem',
  )
  assert dict(phase.rates) == {f'train@{stage}': 0.5**i for i, stage in enumerate(stages)}
  phase, *_ = deep({'layer_decay': 0.5}, VIT)
  assert dict(phase.rates) == {
    f'train@{stage}': 0.5**i
    for i, stage in enumerate(('head', 'block2', 'block1', 'block0', 'embed'))
  }
  labels = dict(phase.labels)
  assert (
    labels['norm/norm/scale'] == 'train@head'
    and labels['embed/position'] == labels['embed/class'] == 'train@embed'
  )


@pytest.mark.parametrize(
  'backbone, layers',
  [
    # timm 1.0.29: stem, then each block with the downsampling before it, head.norm with head.fc
    ('convnext', ('pool head', 'layer2_1', 'layer2_0', 'layer1_0', 'stem')),
    # ELECTRA's _get_layer_lrs: the task's head, the pooler one below it, the last layer two below
    ('bert', ('head', 'pool', 'block1', 'block0', 'embed')),
    # as BERT; the final norm is no layer of its own
    ('modernbert', ('head', 'norm pool', 'block1', 'block0', 'embed')),
  ],
)
def test_layer_decay_counts_as_official_code_does(backbone, layers):
  module = plug('backbones', backbone)
  options, inputs = module.tiny()
  network = module.build(**options)
  shapes = jax.eval_shape(network.init, jax.random.key(0), inputs)
  leaves = [(name, 'train') for name, _ in tree.named_leaves(shapes.params)]
  depth = freezing.groups(network.stages, shapes.params)
  labels, rates = _layer_rates(leaves, depth, {'train': 1.0}, 0.5)
  found = {}
  for name, label in labels:
    found[name.split('/')[0]] = dict(rates)[label]
  wanted = {stage: 0.5**i for i, group in enumerate(layers) for stage in group.split()}
  assert found == {stage: rate for stage, rate in wanted.items() if stage in found}
  assert set(found) | {'pool'} == set(wanted) | {'pool'}


@pytest.mark.parametrize(
  'source, tune, depth',
  [
    (RESNET, 'head', (6, 7)),
    (RESNET, {'policy': 'last', 'k': 2}, (5, 7)),
    (RESNET, {'policy': 'after', 'k': 5}, (5, 7)),
    (RESNET, 'all', (0, 7)),
    (VIT, 'head', (4, 5)),
    (VIT, {'policy': 'last', 'k': 1}, (4, 5)),
    (VIT, {'policy': 'last', 'k': 2}, (3, 5)),
    (VIT, {'policy': 'first', 'k': 1}, (0, 5)),
  ],
)
def test_frozen_groups_are_counted_as_policies_count(source, tune, depth):
  phase, network, shapes = deep({'tune': tune}, source)
  assert frozen_groups(network, shapes, dict(phase.labels)) == depth


def test_reused_groups():
  _, network, shapes = deep({}, RESNET)
  assert network.stages[-2:] == ('pool', 'head')
  assert [reused_groups(network, shapes, start) for start in (0, 1, 6, 7)] == [
    0,
    1,
    6,
    6,
  ]


def test_epochs_count_the_examples_of_each_size():
  study = resolved()
  study['methods']['probe']['phases'][0]['epochs'] = 3.0
  (row,) = (row for row in cost_table(study, cohorts_of(study)) if row['cohort'].endswith('probe'))
  (fixed,) = (
    row for row in cost_table(resolved(), cohorts_of(resolved())) if row['cohort'].endswith('probe')
  )
  assert row['steps'] == 15  # of 4 shots: 3 epochs of 40 examples in batches of 8; of one shot 4
  assert row['GFLOP'] / fixed['GFLOP'] == pytest.approx((4 + 15) / (8 + 8))


def test_epochs_through_a_study(data_dir, tmp_path):
  """Runs of both sizes in one cohort: each with its steps, and of the cohort's time the share
  that these are.
  """
  from tlx import report

  made = tiny.get_config()
  made.data_dir = str(data_dir)
  made.methods = {'scratch': made.methods['scratch'].to_dict()}
  made.train.epochs = 3.0
  runs = report.read(run.run(made, tmp_path))
  assert runs.cohort.nunique() == 1 and (runs.status == 'ok').all()
  assert {shots: set(part.steps) for shots, part in runs.groupby('shots')} == {
    1: {4},
    4: {15},
  }
  each = runs.train_seconds / runs.steps
  assert each.min() == pytest.approx(each.max())


def test_stops_end_with_the_last_step():
  for num_steps, evaluations in ((10, 4), (3, 5), (1, 1), (100, 3)):
    stops = PhasePlan(None, None, num_steps, 1, evaluations, 0.0).stops
    assert (
      stops[-1] == num_steps
      and stops == sorted(set(stops))
      and len(stops) == min(evaluations, num_steps)
    )


@pytest.mark.parametrize(
  'change, words',
  [
    (
      lambda c: c.methods.probe.phases[0].update({'tune': {'policy': 'after', 'k': 7}}),
      'config.methods.probe: k=7 stages asked for',
    ),
    (
      lambda c: c.methods.probe.phases[0].update(
        {
          'tune': {
            'policy': 'regex',
            'rules': (('^stem/', 'train'), ('.*', 'frozen')),
          }
        }
      ),
      "'\\^stem/'.*decides no parameter",
    ),
    (
      lambda c: c.methods.probe.phases[0].update(
        {
          'tune': {
            'policy': 'regex',
            'rules': (('^head/', 'quick'), ('.*', 'frozen')),
          }
        }
      ),
      "Unknown group 'quick'",
    ),
    (
      lambda c: c.methods.probe.phases[0].update({'tun': 'head'}),
      "phases\\[0\\] has no field 'tun'.*Did you mean 'tune'",
    ),
    (
      lambda c: c.methods.probe.update({'grid': {'learning_rate': (1e-3,)}}),
      'same budget',
    ),
    (lambda c: c.sources.turned.backbone.update({'withds': (3,)}), 'withds'),
    (lambda c: c.train.update({'batch_size': 0}), 'batch_size is at least 1'),
    (lambda c: c.grid.update({'learning_rate': ()}), 'learning_rate'),
    (lambda c: c.grid.update({'weight_decay': (0.1,)}), 'has no weight decay'),
    (lambda c: c.update({'seeds': (0, 0)}), 'different whole numbers'),
  ],
)
def test_wrong_configs_are_named(change, words):
  made = tiny.get_config()
  made.unlock()
  change(made)
  with pytest.raises(ValueError, match=f'(?s){words}'):
    cohorts_of(config.resolve(made))


def test_what_is_compiled_ahead_is_not_compiled_again(data_dir, tmp_path):
  from tlx import report

  made = tiny.get_config()
  made.data_dir, made.train.clip_norm = (
    str(data_dir),
    0.66,
  )  # so that no other test has compiled them
  rows = run.compile_ahead(made)
  assert [row['cohort'].split('-')[-1] for row in rows] == ['scratch'] * 2 + ['probe'] * 2 + [
    'lp_ft'
  ] * 2  # lp_ft's first is the probe's
  assert all(row['bytes'] > 0 and row['seconds'] > 0 for row in rows)
  assert set(report.read(run.run(made, tmp_path)).compile_seconds) == {0.0}


def test_frozen_stages_are_reused_where_they_can_be():
  made = tiny.get_config()
  made.methods.augmented = {'phases': ({'tune': 'head', 'augment': {'shift': 1}},)}
  made.methods.random = {'init': 'random', 'phases': ({'tune': 'head'},)}
  starts = lambda made: {
    row['cohort'].split('-')[-1]: row['reused']
    for row in cost_table(config.resolve(made), cohorts_of(config.resolve(made)))
  }
  assert starts(made) == {
    'source turned': '0',
    'scratch': '0',
    'probe': '2',
    'lp_ft': '2,0',
    'augmented': '0',
    'random': '0',
  }
  # 12 floats of each of 942: two seeds of at most four examples of ten classes, 263 of val, 599
  # of test
  made.feature_bytes = 50e3
  assert starts(made)['probe'] == '2'
  made.feature_bytes = 40e3
  assert starts(made)['probe'] == '0'
  made.reuse = False
  made.feature_bytes = 4e9
  assert set(starts(made).values()) <= {'0', '0,0'}


@pytest.mark.parametrize(
  'phase, words',
  [
    ({'tune': 'all', 'solver': 'logistic'}, "set tune = 'head'"),
    ({'tune': 'head', 'solver': 'lbfgs'}, "is 'sgd' or 'logistic' or 'ridge'"),
    ({'tune': 'head', 'solver': 'ridge', 'augment': {'shift': 1}}, 'no augment'),
    (
      {'tune': 'all', 'augment': {'shift': 1}, 'views': 2},
      'trains from the first stage',
    ),
    ({'tune': 'head', 'views': 2}, 'every view would be the same'),
    ({'tune': 'head', 'augment': {'mixup': 0.2}, 'views': 2}, 'mixup'),
    ({'tune': 'head', 'augment': {'cutmix': 1.0}, 'views': 2}, 'cutmix'),
    ({'batch_size': 10, 'accumulate': 3}, '3 parts'),
  ],
)
def test_phases_that_cannot_be_are_refused(phase, words):
  made = tiny.get_config()
  made.methods.bad = {'phases': (phase,)}
  with pytest.raises(ValueError, match=words):
    cohorts_of(config.resolve(made))


def test_a_head_after_an_earlier_stage():
  made = tiny.get_config()
  made.methods.early = {'head_after': 'dense1', 'phases': ({'tune': 'head'},)}
  row = next(
    row
    for row in cost_table(config.resolve(made), cohorts_of(config.resolve(made)))
    if row['cohort'].endswith('early')
  )
  assert (row['stages'], row['reused'], row['trained']) == (3, '2', 16 * 10 + 10)
  made.methods.early.head_after = 'dens1'
  with pytest.raises(ValueError, match="Did you mean 'dense1'"):
    cohorts_of(config.resolve(made))


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'weights': 'pipy:x', 'dataset': ''}, "Unknown place 'pipy:'"),
    ({'dataset': ''}, 'either weights'),
    ({'sha256': 'ab'}, 'is for weights'),
    ({'part': 'model_ema'}, 'part is for weights'),
    ({'weights': 'x.npz', 'dataset': 'uci_digits'}, 'either weights'),
    ({'input': {'fit': 'stretch'}}, 'fit'),
  ],
)
def test_sources_that_cannot_be_are_refused(changes, words):
  made = tiny.get_config()
  made.sources.turned.update(changes)
  with pytest.raises(ValueError, match=words):
    cohorts_of(config.resolve(made))
