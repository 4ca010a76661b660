"""Tagged words: from the file to the report, with entity F1 over every word of the test part."""

import json

import numpy as np
import pytest

from tests.study import test_texts
from tlx import report
from tlx.study import config as configs
from tlx.study import dry_run, run
from tlx.tasks import tagging

TYPES = {'MONEY': test_texts.WORDS['money'], 'FOOD': test_texts.WORDS['food']}


def write(path):
  """Sentences with an entity of two words or one, and one of them longer than the rest."""
  random = np.random.default_rng(0)
  (path / 'tagged').mkdir()
  for part, size in {'train': 60, 'val': 20, 'test': 20}.items():
    lines = []
    for number in range(size):
      words, tags = [], []
      for _ in range(8 if number == 1 else 2):
        kind = random.choice(list(TYPES))
        entity = random.choice(TYPES[kind], random.integers(1, 3)).tolist()
        fillers = random.choice(test_texts.FILLERS, 2).tolist()
        words += [*fillers, *entity]
        tags += ['O', 'O', f'B-{kind}', *[f'I-{kind}'] * (len(entity) - 1)]
      lines.append(json.dumps({'tokens': words, 'tags': tags}))
    (path / 'tagged' / f'{part}.jsonl').write_text('\n'.join(lines))
  return f'jsonl:{path}/tagged'


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp('tagging')
  made = test_texts.get_config(path)
  made.sources.topics.update({'dataset': write(path), 'task': 'tagging'})
  made.sources.topics.backbone.pool = 'tokens'
  made.sources.topics.input.length = 14
  made.targets = {'names': {'dataset': made.sources.topics.dataset, 'task': 'tagging'}}
  made.methods = {
    'probe': {'phases': ({'tune': 'head'},)},
    'lora': {'added': {'name': 'lora', 'rank': 2}, 'phases': ({'tune': 'added'},)},
  }
  made.shots, made.seeds, made.grid.learning_rate = (12, 0), (0,), (1e-2,)
  made.train.steps = 20
  return made


def entities(tags):
  """{(type, first word, last word)} of names of tags, as conlleval reads them."""
  found, begin = [], None
  for place, tag in enumerate([*tags, 'O']):
    if begin is not None and (tag[0] != 'I' or tag[2:] != tags[begin][2:]):
      found.append((tags[begin][2:], begin, place - 1))
      begin = None
    if tag != 'O' and begin is None:
      begin = place
  return set(found)


def test_tags_go_through_a_study(config, tmp_path):
  assert 'lora' in dry_run.describe(config)
  workdir = run.run(config, tmp_path / 'work')
  results = [json.loads(path.read_text()) for path in workdir.glob('runs/*/result.json')]
  assert len(results) == 4
  folder = configs.resolve(config)['targets']['names']['dataset'].removeprefix('jsonl:')
  with open(f'{folder}/test.jsonl') as file:
    sentences = [json.loads(line)['tags'] for line in file]
  for result in results:
    assert result['num_train'] == (result['cell']['shots'] or 60) and result['num_strata'] == 1
    kept = np.load(workdir / 'runs' / result['id'] / 'predictions.npz')
    names = kept['class_names']
    right = chosen = true = 0
    for tags, of_tokens, places in zip(sentences, kept['tags'], kept['targets/places']):
      given = ['O' if place < 0 else names[of_tokens[place]] for place in places[: len(tags)]]
      found, wanted = entities(given), entities(tags)
      right += len(found & wanted)
      chosen += len(found)
      true += len(wanted)
    assert result['test']['f1'] == pytest.approx(2 * right / (chosen + true))
    assert result['test']['recall'] == pytest.approx(right / true)
    assert result['test']['entities'] == true == 46 and result['test']['recall'] < 1.0
    assert result['select'] == ['f1', 1] and result['test']['f1'] > 0.3
  notes = json.loads((workdir / 'study.json').read_text())['data']['topics/names']['notes']
  assert any('words of test are behind 14 tokens' in note for note in notes)
  text = report.summary(workdir)
  assert 'Test entity F1 in %, topics → names, by training examples' in text
  assert 'entity F1' in report.write(workdir).read_text()


@pytest.mark.parametrize(
  'change, message',
  [
    ({'pool': 'mean'}, r"config.sources: tagging wants scores of every token.*pool = 'tokens'"),
    ({'head_after': 'block0'}, 'leave head_after out'),
  ],
)
def test_what_gives_no_tags_is_refused(config, tmp_path, change, message):
  made = config.copy_and_resolve_references()
  made.sources.topics.backbone.pool = change.get('pool', 'tokens')
  with made.unlocked():
    made.methods.probe.head_after = change.get('head_after', '')
  with pytest.raises(ValueError, match=message):
    run.run(made, tmp_path / 'work')
  assert not (tmp_path / 'work').exists()


def test_entities_of_numbers_and_of_names_agree():
  names = ['O', 'B-A', 'I-A', 'B-B', 'I-B']
  random = np.random.default_rng(0)
  for _ in range(200):
    tags = random.integers(0, 5, random.integers(1, 9))
    of_names = entities([names[tag] for tag in tags])
    assert {(' AB'[kind], *span) for kind, *span in tagging.entities(tags)} == of_names
