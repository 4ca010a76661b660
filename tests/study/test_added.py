"""Weights that a method adds, in studies: LoRA beside the methods that train what the source
brought.
"""

import json

import numpy as np
import pytest

from tests.study import tiny
from tests.study.test_run import numbers
from tlx import datasets, report
from tlx.backbones import mlp
from tlx.peft import lora
from tlx.study import cohorts as plans
from tlx.study import config as configs
from tlx.study import run, store
from tlx.types import Variables

LORA = {'name': 'lora', 'at': 'linear$', 'rank': 2}


@pytest.fixture
def config(data_dir):
  made = tiny.get_config()
  made.data_dir, made.shots, made.seeds = str(data_dir), (4,), (0, 1)
  made.methods = {
    'probe': {'phases': ({'tune': 'head'},)},
    'lora': {'added': LORA, 'phases': ({'tune': 'added'},)},
    'lp_lora': {'added': LORA, 'phases': ({'tune': 'head'}, {'tune': 'added'})},
  }
  made.baseline = 'probe'
  return made


@pytest.fixture
def finished(config, tmp_path):
  return run.run(config, tmp_path / 'study')


def test_a_study_trains_what_was_added_and_the_head_alone(finished):
  table = report.read(finished)
  assert set(table.status) == {'ok'} and table.frozen_unchanged.all()
  trained = table.groupby('method').trainable_params.first()
  added = 2 * (64 + 16) + 2 * (16 + 12)  # a [D, 2] and b [2, D'] of both dense layers
  assert trained.to_dict() == {
    'probe': 130,
    'lora': 130 + added,
    'lp_lora': 130 + added,
  }
  assert (
    table.groupby('method').total_params.first()['lora']
    == 64 * 16 + 16 + 16 * 12 + 12 + 130 + added
  )
  lines = (finished / 'runs' / table[table.method == 'lora'].id.iloc[0] / 'labels.txt').read_text()
  assert 'train    dense1/added/lora/linear/a' in lines and 'frozen   dense1/linear/kernel' in lines


def test_stored_parameters_merge_into_a_plain_network_with_the_same_predictions(finished, config):
  table = report.read(finished)
  name = table[(table.method == 'lora') & table.chosen].id.iloc[0]
  params, stats = store.params(finished, name)
  of_source, _ = store.trained(finished / 'sources' / 'turned' / 'checkpoints', 0)
  for stage in ('dense1', 'dense2'):
    np.testing.assert_array_equal(
      params[stage]['linear']['kernel'], of_source[stage]['linear']['kernel']
    )
    assert np.abs(params[stage]['added']['lora']['linear']['b']).max() > 0
  merged = lora.added(at='linear$', rank=2).merge(params)
  data = datasets.load(
    'uci_digits',
    8,
    1,
    val_fraction=0.22,
    test_fraction=0.3,
    data_dir=config.data_dir,
  )
  inputs = (data.test.inputs / np.float32(255) - np.float32(0.3)) / np.float32(0.4)
  logits, _ = mlp.build(10, widths=(16, 12)).apply(Variables(merged, stats), inputs, train=False)
  stored = np.load(finished / 'runs' / name / 'predictions.npz')['logits']
  np.testing.assert_allclose(logits, stored, atol=2e-5)


def test_added_leaves_differ_by_seed_and_come_back_after_an_interruption(
  finished, config, tmp_path, monkeypatch
):
  from tlx.train import fit

  save, calls = fit._save_if_due, []

  def interrupted(*arguments):
    save(*arguments)
    calls.append(0)
    if len(calls) % 3 == 0:
      raise KeyboardInterrupt(15)

  with monkeypatch.context() as patch:
    patch.setattr(fit, '_save_if_due', interrupted)
    for _ in range(3):
      with pytest.raises(KeyboardInterrupt):
        run.run(config, tmp_path / 'parts')
  run.run(config, tmp_path / 'parts')
  assert numbers(tmp_path / 'parts') == numbers(finished)
  table = report.read(finished)
  first, second = (
    store.params(finished, name)[0] for name in table[table.method == 'lora'].id.iloc[[0, -1]]
  )
  leaf = lambda params: params['dense1']['added']['lora']['linear']['a']
  assert np.abs(leaf(first) - leaf(second)).max() > 1e-3


def test_frozen_stages_before_what_is_added_run_once(config):
  config.methods.late = {
    'added': {**LORA, 'at': 'linear$'},
    'head_after': 'dense1',
    'phases': ({'tune': 'head'},),
  }
  study = configs.resolve(config)
  from tlx.study.cost import cost_table

  reused = {
    row['cohort'].split('-')[-1]: row['reused']
    for row in cost_table(study, plans.cohorts_of(study))
  }
  assert (
    reused['lora'] == '0' and reused['lp_lora'] == '0,0' and reused['probe'] == '2'
  )  # added to the first stage already


@pytest.mark.parametrize(
  'added, words',
  [
    ('lroa', "Unknown peft 'lroa'.*Did you mean 'lora'"),
    ({'name': 'lora', 'at': 'nowhere'}, 'nowhere'),
    ({'name': 'lora', 'at': 'linear$', 'rank': 999}, '999'),
    ({'name': 'lora', 'at': 'linear$', 'rnak': 2}, 'rnak'),
    ({'rank': 2}, "lacks the field 'name'"),
  ],
)
def test_what_cannot_be_added_is_one_error_before_anything_is_written(
  config, tmp_path, added, words
):
  config.methods.lora.added = added
  with pytest.raises(ValueError, match=words):
    run.run(config, tmp_path / 'never')
  assert not (tmp_path / 'never').exists()


def test_the_method_is_in_what_a_run_depends_on(finished):
  content = json.loads((finished / 'cohorts' / 'turned-digits-lora' / 'cells.json').read_text())
  assert content['depends']['methods']['lora']['added'] == LORA
