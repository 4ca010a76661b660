"""Studies of language models: rows instead of pictures, bits instead of accuracy."""

import contextlib
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx import report
from tlx.backbones import gpt2
from tlx.study import config, dry_run, pair, run, store
from tlx.study.phases import network_of, phases_of
from tlx.train import fit
from tlx.train.prefix import activation
from tlx.types import Variables

VERBS = ('come', 've', 'quiere')
NOUNS = ('el perro', 'la casa', 'un gato', 'el niño')
SIZES = {'train': 60, 'val': 20, 'test': 20}


def sentences(seed, count, verbs=VERBS):
  random = np.random.default_rng(seed)
  return [
    f'{random.choice(NOUNS)} {random.choice(verbs)} {random.choice(NOUNS)} {i % 7}'
    for i in range(count)
  ]


def write(path, name, verbs, seed):
  """Parts of sentences, a line each."""
  (path / name).mkdir(exist_ok=True)
  for part, size in SIZES.items():
    seed += 1
    (path / name / f'{part}.txt').write_text('\n'.join(sentences(seed, size, verbs)))


def results(workdir):
  """{method: what its run says}."""
  read = [json.loads(path.read_text()) for path in (workdir / 'runs').glob('*/result.json')]
  return {result['cell']['method']: result for result in read}


def get_config(path):
  """A model of bytes trained on one text, carried to another of other verbs."""
  write(path, 'old', VERBS, 0)
  write(path, 'new', ('mangia', 'vede', 'vuole'), 10)
  made = config.base()
  made.sources.spanish = {
    'backbone': {'name': 'gpt2', 'vocab_size': 259, 'dim': 32, 'depth': 1, 'heads': 2,
                 'max_positions': 64},
    'input': {'length': 32, 'tokenizer': 'bytes'},
    'dataset': f'text:{path}/old',
    'task': 'language',
    'train': {'steps': 100, 'batch_size': 8, 'learning_rate': 6e-3},
  }  # fmt: skip
  made.targets.italian = {'dataset': f'text:{path}/new', 'task': 'language'}
  made.methods = {
    'scratch': {'init': 'random'},
    'last': {'phases': ({'tune': {'policy': 'last', 'k': 1}},)},
    'lora': {'added': {'name': 'lora', 'rank': 2}, 'phases': ({'tune': 'added'},)},
    'full': {},
    'as_it_is': {'phases': ({'tune': 'norm', 'steps': 0},)},
  }
  made.shots, made.seeds = (0,), (0,)
  made.grid.learning_rate = (6e-3,)
  made.train.steps, made.train.batch_size, made.train.evaluations = 20, 8, 2
  made.baseline = 'scratch'
  # of what is the test part anyway
  made.evaluators = ({'name': 'other_text', 'dataset': f'text:{path}/new', 'rows': 1000},)
  return made


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  path = tmp_path_factory.mktemp('language')
  made = get_config(path)
  return made, run.run(made, path / 'whole')


def test_a_language_model_is_carried_to_another_text(study):
  made, workdir = study
  bits = {method: run['test']['bits_per_byte'] for method, run in results(workdir).items()}
  assert set(bits) == set(made.methods)
  assert bits['full'] < bits['scratch'] and bits['full'] < 3.0 and bits['lora'] < bits['scratch']
  described = json.loads((workdir / 'study.json').read_text())['data']['spanish/italian']
  assert described['class_names'] == ['text']
  assert any('rows of 32 tokens' in note for note in described['notes'])


def test_no_program_of_a_study_holds_a_score_of_every_word_at_every_place(tmp_path, monkeypatch):
  """Training and evaluation of a tied head of 49,152 words, gradients and Adam's state included."""
  monkeypatch.setattr('tlx.inputs._tokenizers._SPARE', 49152)
  made = get_config(tmp_path)
  made.sources.spanish.backbone.update({'vocab_size': 49152, 'dim': 8, 'max_positions': 128})
  made.sources.spanish.input.length = 128
  made.methods, made.baseline = {'full': {}}, ''
  rows = run.compile_ahead(made)
  scores_bytes = made.train.batch_size * 128 * 49152 * 4  # [B, T, V]
  assert len(rows) == 2 and max(row['bytes'] for row in rows) < scores_bytes / 2


def test_bits_of_another_text_are_those_of_a_test_part(study):
  """The other text is the test part itself here, and what is forgotten is told from the source."""
  _, workdir = study
  found = {method: run['test'] for method, run in results(workdir).items()}
  for test in found.values():
    assert test['other_bits_per_byte'] == pytest.approx(test['bits_per_byte'], rel=1e-5)
  source = found['as_it_is'].pop('bits_per_byte')
  assert 'forgotten_bits_per_byte' not in found['scratch']
  assert found['as_it_is']['forgotten_bits_per_byte'] == pytest.approx(0, abs=1e-6)
  for method in ('full', 'lora', 'last'):
    forgotten = found[method]['forgotten_bits_per_byte']
    assert forgotten == pytest.approx(found[method]['bits_per_byte'] - source, rel=1e-4)


def test_scores_of_the_whole_vocabulary_are_never_there(study):
  made, _ = study
  source = config.resolve(made)['sources']['spanish']
  network, form = network_of(source, None), config.form_of(source)
  shapes = activation(network, form, len(network.stages))
  assert set(shapes) == {'features', 'kernel'} and shapes['features'].shape == (1, 32, 32)


def test_the_report_speaks_of_bits(study):
  _, workdir = study
  runs = report.read(workdir)
  bits = {method: run['test']['bits_per_byte'] for method, run in results(workdir).items()}
  assert runs.set_index('method').test_bits_per_byte.to_dict() == pytest.approx(bits)
  page = report.write(workdir).read_text()
  assert 'bits per byte' in page and 'less is better' in page and 'ccuracy' not in page


def test_a_method_of_no_steps_is_the_source_as_it_is(study):
  made, workdir = study
  result = results(workdir)['as_it_is']
  assert result['chosen'] and result['deterministic'] and result['status'] == 'ok'
  cost = result['cost']
  assert (cost['steps'], cost['trainable_params'], cost['optimizer_bytes']) == (0, 0, 0)
  assert cost['train_flops'] == cost['train_seconds'] == 0
  resolved = config.resolve(made)
  params, _ = store.trained(workdir / 'sources/spanish/checkpoints', 0)
  own, _ = store.params(workdir, result['id'])
  jax.tree.map(np.testing.assert_array_equal, own, params)
  rows = pair.load(resolved, resolved['targets']['italian'], resolved['sources']['spanish']).test
  options = dict(resolved['sources']['spanish']['backbone'])
  options.pop('name')
  inputs = {name: jnp.asarray(rows.inputs[name]) for name in ('ids', 'mask')}
  logits, _ = gpt2.build(None, **options).apply(Variables(params, {}), inputs, train=False)
  wanted, sizes = rows.inputs['next'], rows.inputs['bytes']
  nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), np.maximum(wanted, 0)[..., None], -1)
  of_text = (wanted >= 0) & (sizes >= 0)
  bits = np.asarray(nats)[..., 0][of_text].sum() / np.log(2) / sizes[of_text].sum()
  assert result['test']['bits_per_byte'] == pytest.approx(bits, rel=1e-5)
  assert result['test']['bits_per_byte'] > results(workdir)['full']['test']['bits_per_byte']


def test_a_method_of_no_steps_is_finished_from_what_it_left(study, tmp_path):
  made, workdir = study
  made = made.copy_and_resolve_references()
  made.methods, made.seeds = {'as_it_is': made.methods['as_it_is']}, (0, 1)
  made.grid.learning_rate, made.baseline = (1e-3, 1e-2), ''
  path = run.run(made, tmp_path)
  files = sorted(path.glob('runs/*/result.json'))
  before = [json.loads(file.read_text()) for file in files]
  assert len(files) == 2  # a seed each, whatever the grid
  files[0].unlink()
  run.run(made, tmp_path)
  after = [json.loads(file.read_text()) for file in files]
  assert [one['test'] for one in after] == [one['test'] for one in before]
  assert before[0]['test'] == results(workdir)['as_it_is']['test'] == before[1]['test']
  made.methods.as_it_is.phases = (made.methods.as_it_is.phases[0], {'tune': 'all'})
  with pytest.raises(ValueError, match='a phase has steps = 0, which trains nothing'):
    config.resolve(made)


def test_what_is_kept_of_the_test_rows_adds_up_to_its_bits(study):
  _, workdir = study
  result = results(workdir)['full']
  kept = np.load(workdir / 'runs' / result['id'] / 'predictions.npz')
  bits = kept['text'].sum() / np.log(2) / kept['bytes'].sum()
  assert bits == pytest.approx(result['test']['bits_per_byte'], rel=1e-5)
  assert len(kept['text']) == len(kept['ids'])


def test_an_interrupted_study_of_text_ends_in_the_same_numbers(study, tmp_path, monkeypatch):
  """In the training of the source, in that of LoRA, and between methods."""
  made, workdir = study
  made = made.copy_and_resolve_references()
  made.methods = {name: made.methods[name] for name in ('lora', 'last')}
  made.baseline = ''
  save, saved = fit._save_if_due, []

  def interrupted(*arguments):
    save(*arguments)
    saved.append(0)
    if len(saved) % 2 == 0:
      raise KeyboardInterrupt(15)

  ended = 0
  with monkeypatch.context() as patch:
    patch.setattr(fit, '_save_if_due', interrupted)
    for _ in range(3):
      with contextlib.suppress(KeyboardInterrupt):
        run.run(made, tmp_path)
        ended += 1
  assert len(saved) == 6 and not ended
  found, whole = results(run.run(made, tmp_path)), results(workdir)
  for method in made.methods:
    assert found[method]['val'] == whole[method]['val']
    assert found[method]['test'] == whole[method]['test']


def test_the_prefix_of_rows_changes_no_number(study, tmp_path):
  made, workdir = study
  made = made.copy_and_resolve_references()
  made.reuse = False
  made.methods = {'last': made.methods['last']}
  made.baseline = ''
  alone, whole = results(run.run(made, tmp_path))['last'], results(workdir)['last']
  assert whole['phases'][0]['reused_stages'] and not alone['phases'][0]['reused_stages']
  for column in ('bits_per_byte', 'loss'):
    assert alone['test'][column] == pytest.approx(whole['test'][column], rel=2e-5)


def trained_stages(tied, init='source', **method):
  """The stages of a language model that a phase of a method trains."""
  source = {
    'backbone': {'name': 'llama', 'vocab_size': 259, 'dim': 8, 'depth': 1, 'heads': 2,
                 'kv_heads': 1, 'mlp_dim': 8, 'tied': tied},
    'input': {'length': 8, 'tokenizer': 'bytes'},
    'weights': 'x.npz',
  }  # fmt: skip
  made = config.base()
  made.sources.bytes = source
  made.targets.text = {'dataset': 'text:x.txt', 'task': 'language'}
  made.methods.one = {'init': init, **method}
  resolved = config.resolve(made.to_dict())
  source, one = resolved['sources']['bytes'], resolved['methods']['one']
  labels = phases_of(one, source, 259, 'language')[0].phase.labels
  return {name.split('/')[0] for name, group in labels if group != 'frozen'}


@pytest.mark.parametrize('tied', (False, True))
def test_the_head_that_a_language_model_brings_is_not_new(tied):
  """As in peft, whose LoRA of a causal language model leaves lm_head as it is."""
  lora = {'added': {'name': 'lora', 'rank': 2}, 'phases': ({'tune': 'added'},)}
  head = set() if tied else {'head'}
  assert trained_stages(tied, **lora) == {'block0'}
  assert trained_stages(tied, phases=({'tune': 'norm'},)) == {'block0', 'norm'}
  assert trained_stages(tied, 'random', **lora) == {'block0'} | head
  assert trained_stages(tied, phases=({'tune': {'policy': 'last', 'k': 1}},)) == {'norm'} | head


def test_a_run_is_a_source_of_classes_too(study, tmp_path):
  """What learned a language tells its sentences apart: the form changes, the tokenizer stays."""
  _, workdir = study
  lines = [
    json.dumps({'text': text, 'label': label})
    for label, verbs in (('a', VERBS[:1]), ('b', VERBS[1:]))
    for text in sentences(30, 20, verbs)
  ]
  (tmp_path / 'x.jsonl').write_text('\n'.join(lines))
  made = config.base()
  made.sources.language = {'weights': f'study:{workdir}/{results(workdir)["full"]["id"]}'}
  made.targets.verbs = {'dataset': f'jsonl:{tmp_path}/x.jsonl'}
  made.methods = {'probe': {'phases': ({'tune': 'head'},)}}
  made.shots, made.seeds, made.grid.learning_rate = (0,), (0,), (1e-2,)
  made.train.steps, made.train.batch_size, made.train.evaluations = 5, 8, 1
  resolved = config.resolve(made)['sources']['language']
  assert resolved['form'] == '' and resolved['input']['tokenizer'] == 'bytes'
  assert set(results(run.run(made, tmp_path / 'run'))) == {'probe'}


def test_the_dry_run_knows_language_models(study):
  made, _ = study
  described = dry_run.describe(made)
  assert 'lora' in described and "the weights' own is ''" not in described


@pytest.mark.parametrize(
  'where, value, message',
  [
    ('targets.italian.task', 'classification', 'language wants language|classification wants text'),
    ('targets.italian.dataset', 'uci_digits', 'has images, wanted documents'),
    ('sources.spanish.input.length', 65, 'the network has 64 positions'),
    ('sources.spanish.input.tokenizer', '', 'tokenizer is empty'),
    (
      'sources.spanish.backbone.vocab_size',
      258,
      'has 259 tokens, the embedding of the weights 258',
    ),
    ('train.label_smoothing', 0.1, 'label_smoothing'),
  ],
)
def test_what_language_models_do_not_have_is_one_error(study, tmp_path, where, value, message):
  made, _ = study
  made = made.copy_and_resolve_references()
  *path, field = where.split('.')
  place = made
  for name in path:
    place = place[name]
  with place.unlocked():
    place[field] = value
  with pytest.raises(ValueError, match=message):
    run.run(made, tmp_path)
  assert not list(tmp_path.iterdir())


def test_answers_are_learned_in_a_study(study, tmp_path):
  made, _ = study
  for name, first in (('old', 100), ('new', 300)):
    (tmp_path / name).mkdir()
    for part, size in SIZES.items():
      lines = []
      for _ in range(size):
        first += 1
        turns = [{'role': 'patient', 'text': f'{first}?'}, {'role': 'doctor', 'text': f'{first}!'}]
        lines.append(json.dumps({'turns': turns}))
      (tmp_path / name / f'{part}.jsonl').write_text('\n'.join(lines))
  made = made.copy_and_resolve_references()
  asked = {'task': 'dialogue', 'answers': 'doctor'}
  made.sources.spanish.update({'dataset': f'jsonl:{tmp_path}/old', **asked})
  made.targets.italian = {'dataset': f'jsonl:{tmp_path}/new', **asked}
  made.methods = {name: made.methods[name] for name in ('scratch', 'full', 'as_it_is')}
  scored = all(map(importlib.util.find_spec, ('rouge_score', 'sacrebleu')))
  if scored:  # beside the bits of running text
    made.evaluators += ({'name': 'answers', 'prompts': 5, 'tokens': 8},)
  workdir = run.run(made, tmp_path / 'run')
  found = {method: result['test'] for method, result in results(workdir).items()}
  if scored:  # by their identifiers the same dialogues for every method
    asked = {method: [one[:3] for one in test['answers']] for method, test in found.items()}
    assert asked['full'] == asked['scratch'] == asked['as_it_is'] and len(asked['full']) == 5
    assert asked['full'][0][1] == f'user: {asked["full"][0][2][:-1]}?'
    assert 'Answers side by side' in report.write(workdir).read_text()
  assert found['full']['bits_per_byte'] < found['scratch']['bits_per_byte']
  assert np.isfinite(found['full']['other_bits_per_byte'])  # of rows that are no dialogues
  assert found['full']['bytes'] == 20 * 4 and found['full']['tokens'] == 20 * 5
  resolved = config.resolve(made)['sources']['spanish']
  assert resolved['form'] == 'dialogue' and resolved['input']['template'] == ''
