"""What every freezing policy satisfies, on a network with batch statistics; and how depth is
counted.
"""

import itertools
import re

import jax
import numpy as np
import pytest

from tlx import freezing, peft
from tlx.backbones import cnn
from tlx.inputs import image
from tlx.peft import lora, ssf
from tlx.plug import available, plug
from tlx.tasks import classification
from tlx.train import step
from tlx.tree import label, merge, named_leaves, sha256
from tlx.types import Batch, Variables

NETWORK = peft.wrap(
  cnn.build(3, channels=(4, 8), hidden=6, norm='batch'), lora.added(at='fc/', rank=2)
)
TASK = classification.task(3)
GROUPS = (('block1',), ('block2',), ('fc',), ('head',))
OPTIONS = {
  'first': {'k': 1},
  'last': {'k': 2},
  'after': {'k': 1},
  'regex': {'rules': (('block1/', 'frozen'), ('.*', 'train'))},
  'surgical': {'stages': ('block2',)},
  'random': {'k': 1, 'seed': 0},
  'measured': {'k': 1, 'steps': 1},
  'auto_rgn': {'steps': 1},
  'auto_freeze': {'intervals': 2},
  'select': {'share': 0.5},
  'advised': {},
}
# The stages in which each policy, with the options above, trains anything; and the leaves it trains
# there.
TRAINED = {
  'all': {'block1', 'block2', 'fc', 'head'},
  'head': {'head'},
  'first': {'block1', 'head'},
  'last': {'fc', 'head'},
  'after': {'block2', 'fc', 'head'},
  'regex': {'block2', 'fc', 'head'},
  'bias': {'block1', 'block2', 'fc', 'head'},
  'norm': {'block1', 'block2', 'head'},
  'added': {'fc', 'head'},
  'surgical': {'block2', 'head'},
  'random': {'fc', 'head'},
  'measured': {'block1', 'block2', 'fc', 'head'},
  'auto_rgn': {'block1', 'block2', 'fc', 'head'},
  'auto_freeze': {'block1', 'block2', 'fc', 'head'},
  'select': {'head'},
  'advised': {'block1', 'block2', 'fc', 'head'},
}


def variables() -> Variables:
  return NETWORK.init(jax.random.key(0), np.zeros((1, 6, 6, 1), np.float32))


def rules_of(policy):
  return plug('freezing', policy).rules(GROUPS, **OPTIONS.get(policy, {}))


def watch_of(policy):
  module = plug('freezing', policy)
  return module.watch(GROUPS, **OPTIONS[policy]) if hasattr(module, 'watch') else None


def five_steps(rules, norm='frozen', watch=None) -> tuple[Variables, Variables, dict]:
  """(variables before, after, the factors of a watched phase's leaves, {} of another) with weight
  decay, momentum and clipping on.
  """
  before = variables()
  phase = step.Phase(
    tuple(named_leaves(label(before.params, rules))),
    (('train', 1.0),),
    freezing.frozen_norms(before.params, before.stats, rules, norm),
    'sgd',
    (('momentum', 0.9),),
    clip_norm=0.5,
    watch=watch,
  )
  recipe = step.Recipe(NETWORK, image.form(6, 1), TASK, phase)
  hyper = step.Hyper(np.float32(0.1), np.float32(0.1), np.float32(5))
  trainable, frozen = step.split(before.params, phase)
  state = step.init_state(trainable, before.stats, phase, hyper)
  random = np.random.default_rng(0)
  batch = Batch(
    random.integers(0, 255, (8, 6, 6, 1)).astype(np.uint8),
    random.integers(0, 3, 8),
    np.ones(8, np.float32),
  )

  @jax.jit
  def advance(state):
    key = jax.random.key(1)
    return step.train_step(recipe, state, frozen, batch, key, hyper)[0]

  for _ in range(5):
    state = advance(state)
  assert int(state.step) == 5
  factors = dict(named_leaves(state.opt_state.watch.factors)) if watch else {}
  return before, Variables(merge(state.trainable, frozen), state.stats), factors


@pytest.mark.parametrize('policy', available('freezing'))
def test_frozen_stay_bit_identical_and_the_others_move(policy):
  rules = rules_of(policy)
  groups = dict(named_leaves(label(variables().params, rules, ('frozen', 'train'))))
  trained = {name.split('/')[0] for name, group in groups.items() if group == 'train'}
  assert trained == TRAINED[policy]
  watch = watch_of(policy)
  before, after, factors = five_steps(rules, watch=watch)
  moved = {
    name
    for (name, a), (_, b) in zip(named_leaves(before.params), named_leaves(after.params))
    if sha256(a) != sha256(b)
  }
  held = {name for name, factor in factors.items() if not np.any(factor)}
  if watch and watch.moved_before:
    held = set()
  assert moved == {name for name, group in groups.items() if group == 'train'} - held


def test_norms_of_trained_groups_are_kept_where_it_is_asked():
  rules = plug('freezing', 'after').rules(GROUPS, k=1, norms='frozen')
  before, after, _ = five_steps(rules)
  assert sha256(before.stats) == sha256(after.stats)
  moved = {
    name
    for (name, a), (_, b) in zip(named_leaves(before.params), named_leaves(after.params))
    if sha256(a) != sha256(b)
  }
  plain = plug('freezing', 'after').rules(GROUPS, k=1)
  trained = {name for name, group in named_leaves(label(before.params, plain)) if group == 'train'}
  assert moved == {name for name in trained if '/norm' not in name} != trained


@pytest.mark.parametrize(
  'policy, live', [('head', set()), ('after', {'block2'}), ('norm', {'block1', 'block2'})]
)
def test_statistics_follow_their_layer(policy, live):
  before, after, _ = five_steps(rules_of(policy))
  old, new = before.stats, after.stats
  assert {stage for stage in old if sha256(old[stage]) != sha256(new[stage])} == live


def test_live_statistics_move_under_frozen_weights():
  before, after, _ = five_steps(rules_of('head'), norm='live')
  assert all(sha256(before.stats[stage]) != sha256(after.stats[stage]) for stage in before.stats)


def test_leaves_of_bias_and_norm_and_what_was_added():
  for policy, ends in (
    ('bias', ('/bias',)),
    ('norm', ('norm/scale', 'norm/bias')),
    ('added', ('/lora/linear/a', '/lora/linear/b')),
  ):
    groups = dict(named_leaves(label(variables().params, rules_of(policy))))
    trained = {
      name for name, group in groups.items() if group == 'train' and not name.startswith('head/')
    }
    assert trained == {
      name for name in groups if name.endswith(ends) and not name.startswith('head/')
    }


@pytest.mark.parametrize(
  'policy, options, words',
  [
    ('after', {'k': 4}, 'k=4.*takes 0 to 3'),
    ('first', {'k': -1}, 'k=-1.*takes 0 to 3'),
    ('last', {'k': 0}, 'would train nothing'),
    ('last', {'k': 9}, 'k=9.*takes 1 to 4'),
    ('last', {'k': -1}, 'k=-1.*takes 1 to 4'),
    ('after', {'k': 1.5}, 'k=1.5'),
    ('after', {'k': 1, 'norms': 'live'}, "'train' or 'frozen', got 'live'"),
    ('first', {'k': True}, 'k=True'),
    ('regex', {'rules': ('.*',)}, 'pair'),
    ('surgical', {'stages': 'block2'}, r"names of stages such as \('block1',\), got 'block2'"),
    ('surgical', {'stages': ()}, r'got \(\)'),
    ('surgical', {'stages': ('blok2',)}, "no stage 'blok2'; have block1.*Did you mean 'block2'"),
    ('random', {'k': 4}, 'k=4.*takes 0 to 3'),
    ('random', {'k': 1, 'seed': -1}, 'got seed=-1'),
    ('random', {}, 'got neither'),
    ('random', {'k': 1, 'weights': 5}, 'not both, got k=1, weights=5'),
    ('random', {'weights': 0}, 'weights=0'),
    ('measured', {'k': 1, 'by': 'norm'}, "by = 'rgn' or 'fisher', got 'norm'"),
    ('measured', {'k': 4}, 'k=4.*takes 0 to 3'),
    ('measured', {'k': 1, 'steps': 0}, 'from 1 on, got 0'),
    ('auto_rgn', {'steps': 1.5}, 'got 1.5'),
    ('auto_freeze', {'intervals': 1}, 'from 2 on, got 1'),
    ('auto_freeze', {'percentile': 101}, 'got 101'),
    ('select', {'share': 0}, 'got share=0'),
    ('regex', {'rules': 3}, 'pairs'),
    (
      'regex',
      {'rules': (('(block', 'train'), ('.*', 'frozen'))},
      r"'\(block'.*no regular expression",
    ),
  ],
)
def test_bad_options(policy, options, words):
  with pytest.raises(ValueError, match=words):
    plug('freezing', policy).rules(GROUPS, **options)


# Per backbone, the groups at the end of its tiny network: what is deeper than the head, counted as
# `last` counts.
ENDS = {
  'bert': (('block1',), ('pool',), ('head',)),
  'bit': (('layer1_1',), ('layer2_0',), ('norm', 'pool', 'head')),
  'clip': (('block1',), ('pool',), ('head',)),
  'clip_text': (('block1',), ('pool',), ('head',)),
  'cnn': (('block2',), ('fc',), ('head',)),
  'convnext': (('layer2_0',), ('layer2_1',), ('pool', 'head')),
  'efficientnet_lite': (('block6',), ('top',), ('pool', 'head')),
  'face_resnet': (('conv6_down_out',), ('pool', 'descriptor'), ('head',)),
  'gpt2': (('block0',), ('block1',), ('norm', 'head')),
  'llama': (('block0',), ('block1',), ('norm', 'head')),
  'mlp': (('dense1',), ('dense2',), ('head',)),
  'modernbert': (('block1',), ('norm', 'pool'), ('head',)),
  'resnet': (('layer1_1',), ('layer2_0',), ('pool', 'head')),
  'vit': (('block0',), ('block1',), ('norm', 'pool', 'head')),
}


def tiny_groups(backbone):
  module = plug('backbones', backbone)
  options, inputs = module.tiny()
  network = module.build(**options)
  params = jax.eval_shape(network.init, jax.random.key(0), inputs).params
  return network, params, freezing.groups(network.stages, params)


@pytest.mark.parametrize('backbone', available('backbones'))
def test_depth_counts_what_holds_parameters(backbone):
  network, params, groups = tiny_groups(backbone)
  assert tuple(itertools.chain.from_iterable(groups)) == network.stages
  assert groups[-3:] == ENDS[backbone]
  for group in groups:
    assert any(jax.tree.leaves(params.get(stage, {})) for stage in group)


@pytest.mark.parametrize('backbone', available('backbones'))
def test_every_depth_trains_other_leaves(backbone):
  _, params, groups = tiny_groups(backbone)
  n = len(groups)
  for policy, depths in {'last': range(1, n + 1), 'after': range(n), 'first': range(n)}.items():
    labels = [str(label(params, plug('freezing', policy).rules(groups, k=k))) for k in depths]
    assert len(set(labels)) == len(labels)


def test_random_stages_are_of_the_size_asked_for_and_each_is_drawn():
  groups, times = (*((f'stage{i}',) for i in range(5)), ('norm', 'head')), {}
  for seed in range(200):
    rules = plug('freezing', 'random').rules(groups, k=2, seed=seed)
    assert rules == plug('freezing', 'random').rules(groups, k=2, seed=seed)
    drawn = [group[0] for group in groups if re.search(rules[0][0], f'{group[0]}/kernel')]
    assert len(drawn) == 3 and drawn[-1] == 'norm'
    for stage in drawn:
      times[stage] = times.get(stage, 0) + 1
  assert times.pop('norm') == 200 and len(times) == 5
  assert all(50 < number < 110 for number in times.values())  # 80 on average, deviation 7


def test_surgical_leaves_the_norm_before_the_head_alone():
  rules = plug('freezing', 'surgical').rules((('a',), ('b',), ('norm', 'head')), stages=['b'])
  assert rules == (('^(b|head)/', 'train'), ('.*', 'frozen'))


def test_added_leaves_do_not_change_how_depth_is_counted():
  network, params, groups = tiny_groups('vit')
  wrapped = peft.add(params, ssf.added(), jax.random.key(0))
  assert 'added' in wrapped['norm'] and freezing.groups(network.stages, wrapped) == groups


def test_leading_groups():
  groups = (('stem',), ('pool', 'fc'), ('norm', 'head'))
  stages = ({'stem'}, {'pool', 'head'}, {'fc'}, {'head'}, set())
  assert [freezing.leading(groups, some) for some in stages] == [0, 1, 1, 2, 3]


def test_unknown_policy_lists_what_there_is():
  with pytest.raises(
    ValueError, match=r"Unknown freezing 'haed'; have added, advised, after.*Did you mean 'head'"
  ):
    plug('freezing', 'haed')
