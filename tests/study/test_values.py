"""Texts with a number, and with any number of labels: from the file to the report."""

import json

import numpy as np
import pytest
from scipy import stats

from tests.study import test_texts
from tlx import report
from tlx.study import config as configs
from tlx.study import cost, dry_run, run


def write(path, name, make):
  """train, val and test of texts with two words of topics; `make` makes the rest of two topics."""
  random = np.random.default_rng(len(name))
  (path / name).mkdir()
  for part, size in {'train': 60, 'val': 30, 'test': 30}.items():
    lines = []
    for _ in range(size):
      topics = random.choice(list(test_texts.WORDS), 2)
      words = [random.choice(test_texts.WORDS[topic]) for topic in topics]
      text = ' '.join([*random.choice(test_texts.FILLERS, 3), *words])
      lines.append(json.dumps({'text': text, **make(topics)}))
    (path / name / f'{part}.jsonl').write_text('\n'.join(lines))
  return f'jsonl:{path}/{name}'


@pytest.fixture
def config(tmp_path):
  made = test_texts.get_config(tmp_path)
  score = write(tmp_path, 'score', lambda topics: {'score': 10.0 + 2 * sum(topics == 'food')})
  labels = write(tmp_path, 'labels', lambda topics: {'labels': sorted(set(topics))})
  made.targets = {
    'score': {'dataset': score, 'task': {'name': 'regression', 'center': 11.0, 'scale': 2.0}},
    'labels': {'dataset': labels, 'task': 'multi_label'},
  }
  made.methods = {'full': {}}
  made.shots, made.seeds = (8, 0), (0,)
  made.train.steps = 40
  made.grid.learning_rate = (1e-2,)
  return made


def test_numbers_and_labels_go_through_a_study(config, tmp_path):
  workdir = run.run(config, tmp_path / 'work')
  found = [json.loads(path.read_text()) for path in workdir.glob('runs/*/result.json')]
  assert len(found) == 4 and all(result['num_strata'] == 1 for result in found)
  for result in found:
    # a shot is an example where there are no classes
    assert result['num_train'] == (result['cell']['shots'] or 60)
    predictions = np.load(workdir / 'runs' / result['id'] / 'predictions.npz')
    if result['cell']['target'] == 'score':
      assert result['select'] == ['mse', -1] and set(predictions['labels']) <= {10.0, 12.0, 14.0}
      error = predictions['values'] - predictions['labels']
      assert result['test']['mse'] == pytest.approx((error**2).mean(), rel=1e-4)
      rank = stats.spearmanr(predictions['values'], predictions['labels']).statistic
      assert result['test']['spearman'] == pytest.approx(rank, rel=1e-4)
    else:
      assert predictions['labels'].shape == predictions['label_logits'].shape == (30, 3)
      exact = ((predictions['label_logits'] > 0) == predictions['labels']).all(1).mean()
      assert result['test']['exact_match'] == pytest.approx(exact)
      assert result['num_classes'] == 3
  runs = report.read(workdir)
  best = runs[runs['shots'] == 0].groupby('target')
  # the source knows the topics
  assert best['test_r2'].mean()['score'] > 0.3 and best['test_micro_f1'].mean()['labels'] > 0.7
  text = report.summary(workdir)
  assert 'Test squared error, less is better, topics → score, by training examples' in text
  assert 'Test micro F1 in %, topics → labels, by training examples' in text
  assert '- 8 examples: full' in text and '- all (60) examples: full' in text
  assert 'per class' not in text
  page = report.write(workdir).read_text()
  assert 'per class' not in page and 'ccurac' not in page.split('Provenance')[0]


@pytest.mark.parametrize(
  'target, task, words',
  [
    ('score', 'classification', r"targets\.score: classification wants.*'regression' for numbers"),
    ('labels', 'regression', r"targets\.labels: regression wants.*'multi_label'"),
    ('score', 'multi_label', r"targets\.score: multi_label wants.*'regression' for numbers"),
  ],
)
def test_a_task_that_the_data_do_not_answer_is_refused(config, tmp_path, target, task, words):
  config.targets = {target: {**config.targets[target].to_dict(), 'task': task}}
  with pytest.raises(ValueError, match=words):
    run.run(config, tmp_path / 'work')
  assert not (tmp_path / 'work' / 'runs').exists()


def test_more_shots_than_examples_are_refused(config):
  config.shots = (61,)
  with pytest.raises(ValueError, match='61 shots'):
    dry_run.describe(config)
  config.shots = (60,)
  assert 'runs in' in dry_run.describe(config)


def test_shots_are_examples_to_the_cost_of_frozen_stages(config):
  """Labels are no classes: so many shots are so many examples, and not of each label."""
  config.methods = {'probe': {'phases': ({'tune': 'head', 'epochs': 4.0, 'evaluations': 1},)}}
  found = []
  for shots in (20, 0):  # of 60, under 3 labels
    config.shots = (shots,)
    study = configs.resolve(config)
    phases = cost._phases_of_methods(study, 'topics', 'labels', 1e9, True)
    examples = {'train': shots or 60, 'val': 30, 'test': 30}
    found.append(cost._frozen_flops(study, 'topics', 'labels', phases, examples).instead)
  assert 0 < found[0] < found[1]
