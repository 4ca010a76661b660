"""Pairs of texts through a study: scored ones, and ones that belong together."""

import json

import numpy as np
import pytest
from scipy import stats

from tests.study import test_texts
from tlx import datasets, report
from tlx.study import config as configs
from tlx.study import dry_run, run, use

TOPICS = list(test_texts.WORDS)


def sentence(random, topic):
  words = [*random.choice(test_texts.FILLERS, 2), *random.choice(test_texts.WORDS[topic], 3)]
  return ' '.join(random.permutation(words))


def write(path, name, fields):
  (path / name).mkdir()
  random = np.random.default_rng(len(name))
  for part, size in {'train': 48, 'val': 24, 'test': 24}.items():
    lines = []
    for number in range(size):
      topics = random.choice(TOPICS, 2)
      pair = [sentence(random, topic) for topic in topics]
      lines.append(json.dumps(fields(pair, topics, f'{number} {part}')))
    (path / name / f'{part}.jsonl').write_text('\n'.join(lines))
  return f'jsonl:{path}/{name}'


def scored(pair, topics, name):
  return {'text': pair[0], 'text_pair': pair[1], 'score': float(topics[0] == topics[1])}


def translated(pair, topics, name):
  """A sentence, and the same words turned round: what belongs together."""
  return {'text': f'{pair[0]} {name}', 'text_pair': ' '.join(pair[0].split()[::-1])}


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  path = tmp_path_factory.mktemp('pairs')
  made = test_texts.get_config(path)
  made.sources.topics.update({'dataset': write(path, 'own', scored), 'task': 'similarity'})
  made.sources.topics.input.length = 20
  made.sources.topics.train.update({'steps': 20})
  made.targets = {
    'like': {'dataset': write(path, 'like', scored), 'task': 'similarity'},
    'find': {'dataset': write(path, 'find', translated), 'task': 'retrieval'},
  }
  made.methods = {
    'as_is': {'phases': ({'steps': 0},)},
    'last': {'phases': ({'tune': {'policy': 'last', 'k': 2}},)},
    'lora': {'added': {'name': 'lora', 'rank': 2}, 'phases': ({'tune': 'added'},)},
  }
  made.shots, made.seeds, made.grid.learning_rate = (0,), (0,), (3e-3,)
  made.train.steps, made.train.batch_size, made.baseline = 16, 16, 'as_is'
  return made, run.run(made, path / 'work')


def results(workdir):
  read = [json.loads(path.read_text()) for path in workdir.glob('runs/*/result.json')]
  return {(result['cell']['target'], result['cell']['method']): result for result in read}


def test_pairs_go_through_a_study(study):
  made, workdir = study
  found = results(workdir)
  assert len(found) == 6
  for (target, method), result in found.items():
    kept = np.load(workdir / 'runs' / result['id'] / 'predictions.npz')
    if target == 'like':
      rank = stats.spearmanr(kept['values'], kept['labels']).statistic
      assert result['test']['spearman'] == pytest.approx(rank, rel=1e-4)
      assert result['select'] == ['pearson', 1]
    else:
      first, second = np.moveaxis(kept['vectors'], 1, 0)
      best = (first @ second.T).argmax(1) == np.arange(24)
      assert result['test']['recall_at_1'] == pytest.approx(best.mean(), abs=0.05)
      assert 0 < result['test']['back_mrr'] <= 1.0
    assert (result['cost']['trainable_params'] == 0) == (method == 'as_is')
  assert found['like', 'lora']['test']['spearman'] > 0.5
  assert 'lora' in dry_run.describe(made)
  text = report.summary(workdir)
  assert 'Test Pearson correlation, topics → like' in text and 'topics → find' in text
  report.write(workdir)


def test_the_prefix_of_pairs_changes_no_number(study, tmp_path):
  made, workdir = study
  made = made.copy_and_resolve_references()
  made.reuse, made.methods, made.baseline = False, {'last': made.methods['last']}, ''
  alone, whole = results(run.run(made, tmp_path)), results(workdir)
  for target, column in (('like', 'pearson'), ('find', 'loss')):
    one, other = alone[target, 'last'], whole[target, 'last']
    assert not one['phases'][0]['reused_stages'] and other['phases'][0]['reused_stages']
    assert one['test'][column] == pytest.approx(other['test'][column], rel=1e-4)


def test_a_run_of_pairs_is_put_to_use(study, tmp_path):
  """It says how alike new pairs are, and makes vectors of single texts, as it made of both."""
  _, workdir = study
  name = results(workdir)['like', 'lora']['id']
  folder = configs.resolve(study[0])['targets']['like']['dataset'].removeprefix('jsonl:')
  model = use.load_run(workdir, name)
  answers = use.predict(model, datasets.unlabelled(f'{folder}/test.jsonl'))
  kept = np.load(workdir / 'runs' / name / 'predictions.npz')
  place = {example: row for row, example in enumerate(kept['ids'])}
  order = [place[f'test/{int(line):06d}'] for line in answers['id']]
  np.testing.assert_allclose(answers['similarity'], kept['values'][order], atol=1e-5)
  with open(f'{folder}/test.jsonl') as file:
    lines = [json.loads(line) for line in file]
  (tmp_path / 'x.txt').write_text('\n'.join(line['text'] for line in lines))
  (tmp_path / 'y.txt').write_text('\n'.join(line['text_pair'] for line in lines))
  first, second = (
    use.embed(model, datasets.unlabelled(tmp_path / f'{side}.txt'))[0] for side in 'xy'
  )
  cosine = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
  np.testing.assert_allclose(answers['similarity'], cosine, atol=1e-5)
  with pytest.raises(ValueError, match='single texts|pairs of texts'):
    use.predict(model, datasets.unlabelled(tmp_path / 'x.txt'))


@pytest.mark.parametrize(
  'target, task, message',
  [
    ('find', 'similarity', "take the task 'retrieval'"),
    ('find', 'classification', 'one form makes the examples'),
  ],
)
def test_what_pairs_do_not_answer_is_refused(study, tmp_path, target, task, message):
  made = study[0].copy_and_resolve_references()
  made.targets = {target: {**made.targets[target].to_dict(), 'task': task}}
  with pytest.raises(ValueError, match=message):
    run.run(made, tmp_path / 'work')
  assert not (tmp_path / 'work').exists()


def test_single_texts_are_no_pairs(study, tmp_path):
  made = study[0].copy_and_resolve_references()
  test_texts.write_texts(tmp_path, 'single', {'train': 12, 'val': 6, 'test': 6}, 0)
  made.targets = {'like': {'dataset': f'jsonl:{tmp_path}/single', 'task': 'similarity'}}
  with pytest.raises(ValueError, match='has single texts, wanted pairs'):
    run.run(made, tmp_path / 'work')
