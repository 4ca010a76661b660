"""Studies of texts: tokens instead of pixels, everything else as for images."""

import json

import jax
import numpy as np
import pytest

from tests.datasets.test_tfds_texts import TlxTestTexts
from tlx import inputs as forms
from tlx import report
from tlx.study import config, dry_run, run
from tlx.study.pair import Pair, load
from tlx.study.stages import network_of_source
from tlx.train import lengths, prefix, step, stream

WORDS = {  # of each topic, and of any
  'money': ('bank', 'card', 'loan', 'cash'),
  'weather': ('rain', 'snow', 'wind', 'sun'),
  'food': ('rice', 'soup', 'bread', 'fish'),
}
FILLERS = ('the', 'a', 'today', 'we', 'like', 'more', 'no')


def write_texts(path, name, sizes, seed):
  """jsonl files of sentences: fillers and two words of their topic."""
  random = np.random.default_rng(seed)
  for part, size in sizes.items():
    lines = []
    for number in range(size):
      topic = list(WORDS)[number % len(WORDS)]
      words = [*random.choice(FILLERS, 5), *random.choice(WORDS[topic], 2)]
      text = ' '.join([*random.permutation(words), f'number{number}{name}{part}'])
      lines.append(json.dumps({'text': text, 'label': topic}))
    folder = path / name
    folder.mkdir(exist_ok=True)
    (folder / f'{part}.jsonl').write_text('\n'.join(lines))


def get_config(path):
  """Topics learned from random tokens by a BERT of two blocks, carried to other sentences."""
  letters = [chr(code) for code in range(ord('a'), ord('z') + 1)] + list('0123456789')
  words = [word for of_topic in WORDS.values() for word in of_topic]
  pieces = [*words, *FILLERS, *letters, *(f'##{letter}' for letter in letters)]
  vocabulary = list(dict.fromkeys(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *pieces]))
  (path / 'vocab.txt').write_text('\n'.join(vocabulary))
  sizes = {'train': 60, 'val': 30, 'test': 30}
  write_texts(path, 'old', sizes, 0)
  write_texts(path, 'new', sizes, 1)
  made = config.base()
  made.sources.topics = {
    'backbone': {
      'name': 'bert',
      'vocab_size': len(vocabulary),
      'dim': 16,
      'depth': 2,
      'heads': 2,
      'mlp_dim': 32,
      'max_positions': 64,
      'pool': 'mean',
    },
    'input': {'length': 48, 'tokenizer': str(path / 'vocab.txt')},
    'dataset': f'jsonl:{path}/old',
    'train': {'steps': 60, 'batch_size': 16, 'learning_rate': 3e-3},
  }
  made.targets.new = {'dataset': f'jsonl:{path}/new'}
  made.methods = {
    'scratch': {'init': 'random'},
    'probe': {'phases': ({'tune': 'head'},)},
    'exact': {'phases': ({'tune': 'head', 'solver': 'logistic'},), 'grid': GRID},
    'last': {'phases': ({'tune': {'policy': 'last', 'k': 2}},)},
    'lora': {'added': {'name': 'lora', 'rank': 2}, 'phases': ({'tune': 'added'},)},
  }
  made.shots, made.seeds = (2, 0), (0, 1)
  made.grid.learning_rate = (1e-3, 1e-2)
  made.train.steps, made.train.batch_size, made.train.evaluations = 12, 8, 2
  made.checkpoint_seconds = 0.0
  return made


GRID = {'learning_rate': (1e-3,), 'weight_decay': (1e-2, 1e-1)}


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  path = tmp_path_factory.mktemp('texts')
  made = get_config(path)
  return made, run.run(made, path / 'whole')


def test_texts_are_a_study_like_images(study):
  made, workdir = study
  runs = report.read(workdir)
  assert len(runs) == 5 * 2 * 2 * 2 and set(runs.method) == set(made.methods)
  chosen = runs[runs.chosen]
  assert (chosen.test_accuracy > 1 / 3).mean() > 0.8
  notes = json.loads((workdir / 'study.json').read_text())['data']['topics/new']['notes']
  assert any('Texts are stored as 32 tokens' in note for note in notes)


def test_the_prefix_of_texts_changes_no_number(study, tmp_path):
  made, workdir = study
  made = made.copy_and_resolve_references()
  made.reuse = False
  made.methods = {name: made.methods[name] for name in ('probe', 'last')}
  columns = ['method', 'shots', 'seed', 'learning_rate', 'val_loss', 'test_loss']
  whole = report.read(workdir)[columns]
  alone = report.read(run.run(made, tmp_path))[columns]
  both = alone.merge(whole, on=columns[:4], suffixes=('', '_reused'))
  assert len(both) == 16
  np.testing.assert_allclose(both.val_loss, both.val_loss_reused, rtol=2e-5)


def test_texts_of_tfds_are_a_target(tmp_path):
  made = get_config(tmp_path)
  made.targets.new = {'dataset': f'tfds:{TlxTestTexts.name}/reviews'}
  made.data_dir = str(tmp_path)
  assert '41 runs' in dry_run.describe(made)  # before it is prepared
  about, _ = run.data_of(config.resolve(made))
  assert about['topics/new']['class_names'] == ('neutral', 'bad', 'good')
  assert about['topics/new']['num_examples'] == {'train': 10, 'val': 2, 'test': 6}


def test_stored_texts_are_as_long_as_their_bucket(study, tmp_path):
  made, workdir = study
  resolved = config.resolve(made)
  pair = Pair(resolved, 'topics', 'new', workdir)
  assert {leaf.shape[1] for leaf in pair.data.train.inputs.values()} == {32}
  assert pair.form.spec['ids'].shape == (32,)
  assert config.form_of(resolved['sources']['topics']).spec['ids'].shape == (48,)


def test_the_dry_run_knows_texts(study):
  made, _ = study
  text = dry_run.describe(made)
  assert 'lora' in text and 'topics' in text
  resolved = config.resolve(made)
  (line,) = dry_run._padding(resolved)
  stored = load(resolved, resolved['targets']['new'], resolved['sources']['topics']).train.inputs
  assert line.startswith('topics/new, frozen stages: Texts go through at ')
  assert line.endswith(f', {1 - stored["mask"].mean():.0%} as stored.')


def test_padding_of_the_dry_run_is_that_of_the_pass(study, tmp_path, monkeypatch):
  monkeypatch.setitem(lengths.WORTH, 'cpu', 0.0)  # every length is worth its compilation
  monkeypatch.setattr(lengths, 'GRID', tuple(range(8, 64)))
  resolved = config.resolve(study[0])
  pair = Pair(resolved, 'topics', 'new', study[1])
  (line,) = dry_run._padding(resolved)
  network, _ = network_of_source(resolved, 'topics')
  variables = jax.jit(network.init)(jax.random.key(0), forms.entered(pair.form, 1))
  trunk = prefix.Trunk(jax.device_get(variables), '', tmp_path)
  phase = step.Phase((), (), start=len(network.stages) - 1)
  said: list[str] = []
  prefix.activations(
    trunk, pair.data.train.inputs, '', [prefix.Point(network, pair.form, phase)], said.append
  )
  assert line == f'topics/new, frozen stages: {said[1]}'


def broken(made, **changes):
  made = made.copy_and_resolve_references()
  for path, value in changes.items():
    place, fields = made, path.split('__')
    for field in fields[:-1]:
      place = place[field]
    with place.unlocked():
      place[fields[-1]] = value
  return made


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'targets__new__dataset': 'uci_digits'}, 'has images, wanted texts'),
    ({'sources__topics__input': {'length': 48}}, 'tokenizer is empty'),
    ({'sources__topics__input__length': 0}, 'input.length is at least 1'),
    ({'sources__topics__input__image_size': 32}, "no field 'image_size'; it has length"),
    ({'sources__topics__backbone__vocab_size': 20}, 'tokens, the embedding of the weights 20'),
    ({'train__augment': {'flip': 0.5}}, 'Texts have no augmentations'),
    ({'data_bytes': 1000.0}, 'texts of 48 tokens take'),
  ],
)
def test_what_texts_do_not_have_is_one_error(study, tmp_path, changes, message):
  made, _ = study
  with pytest.raises(ValueError, match=message):
    run.run(broken(made, **changes), tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_contrast_is_not_evaluated_class_by_class(tmp_path, monkeypatch):
  """In files that are sorted by class a batch is of one, which says nothing of good vectors."""
  made = get_config(tmp_path)
  lines = (tmp_path / 'new' / 'train.jsonl').read_text().splitlines()
  for part in ('train', 'val', 'test'):
    by_class = sorted(lines, key=lambda line: json.loads(line)['label'])
    named = [line.replace('train', part) for line in by_class]
    (tmp_path / 'new' / f'{part}.jsonl').write_text('\n'.join(named))
  made.targets.new.task = 'embedding'
  made.methods = {'full': {}}
  made.shots, made.seeds, made.grid.learning_rate = (0,), (0,), (1e-3,)
  made.train.steps = 2
  monkeypatch.setattr(stream, 'EVAL_BATCH', 20)  # as many as of a class
  pair = Pair(config.resolve(made), 'topics', 'new', tmp_path)
  for part in (pair.data.val, pair.data.test):
    assert len(set(part.labels[:20].tolist())) == 3
    for name, label in zip(part.ids, part.labels):
      line = lines_of(tmp_path / 'new', name)
      assert json.loads(line)['label'] == pair.data.class_names[label]
  workdir = run.run(made, tmp_path / 'run')
  (chosen,) = report.read(workdir).to_dict('records')
  with np.load(workdir / 'runs' / chosen['id'] / 'predictions.npz') as kept:
    assert tuple(kept['ids']) == pair.data.test.ids
    np.testing.assert_array_equal(kept['labels'], pair.data.test.labels)
  assert chosen['test_queries'] == 60 and 0 < chosen['val_loss'] < np.inf


def lines_of(folder, name):
  """The line of an example by its id, 'val/000007'."""
  part, number = name.split('/')
  return (folder / f'{part}.jsonl').read_text().splitlines()[int(number) - 1]
