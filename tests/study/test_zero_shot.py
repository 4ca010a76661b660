"""A head of class names: the row without training, and where training begins."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.study.test_texts import get_config as texts_config
from tlx.parity import cases
from tlx.study import config, dry_run, pair, recipes, run, store, zero_shot
from tlx.study.cells import dependencies
from tlx.types import Cell

PARITY = cases.FOLDER / 'variants'
TEMPLATES = ('a photo of a {}.', 'the {}')
CLASSES = ('blue_bird', 'red_fox', 'stone')


def weights_with_tokenizer(folder, kind):
  """The weights of a parity case with a tokenizer of letters, whose end has the greatest id."""
  folder.mkdir()
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(PARITY / kind / name, folder)
  letters = [*'abcdefghijklmnopqrstuvwxyz.', 'Ġ']
  words = [*letters, *(f'{letter}</w>' for letter in letters)]
  numbers = {word: i for i, word in enumerate(words)}
  numbers |= {'<|startoftext|>': 95, '<|endoftext|>': 96}
  (folder / 'vocab.json').write_text(json.dumps(numbers))
  (folder / 'merges.txt').write_text('#version: 0.2\n')
  return folder / 'model.safetensors'


def image_config(path, kind='clip', methods=None):
  for part, count in (('train', 4), ('val', 2), ('test', 5)):
    for number, name in enumerate(CLASSES):
      folder = path / 'images' / part / name
      folder.mkdir(parents=True)
      for i in range(count):
        random = np.random.default_rng((number, i, len(part)))
        pixels = random.integers(0, 256, (32, 32, 3)).astype('uint8')
        Image.fromarray(pixels).save(folder / f'{i}.png')
  made = config.base()
  tower = {'name': 'clip', 'dim': 48, 'depth': 2, 'heads': 4, 'patch': 8, 'image_size': 32}
  tower |= {'mlp_ratio': 80 / 48, 'projection': 24}
  if kind == 'siglip':
    tower |= {'family': 'siglip', 'projection': None, 'gelu': 'tanh', 'norm_eps': 1e-6}
  uri = str(weights_with_tokenizer(path / kind, kind))
  made.sources.towers = {'backbone': tower, 'weights': uri}
  made.targets.images = {'dataset': f'folder:{path}/images'}
  named = {'name': 'zero_shot', 'templates': TEMPLATES}
  made.methods = methods or {
    'named': {'head': named, 'phases': ()},
    'begun': {'head': named, 'phases': ({'tune': 'all', 'steps': 2},)},
    'wise': recipes.wise_ft('begun', points=3),
  }
  made.shots, made.seeds, made.grid.learning_rate = (1, 2), (0, 1), (1e-4,)
  made.train.steps, made.train.batch_size, made.train.evaluations = 2, 4, 1
  return made


def results(workdir):
  found = [json.loads(file.read_text()) for file in sorted(workdir.glob('runs/*/result.json'))]
  return {(one['cell']['method'], one['cell']['shots'], one['cell']['seed']): one for one in found}


def unit(vectors):
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope='module', params=['clip', 'siglip'])
def study(request, tmp_path_factory):
  path = tmp_path_factory.mktemp(request.param)
  made = image_config(path, request.param)
  return request.param, made, run.run(made, path / 'work')


def independently(kind, made):
  """Logits [N, K] of the test images by the parity cases' own networks, prompt by prompt."""
  resolved = config.resolve(made)
  source, target = resolved['sources']['towers'], resolved['targets']['images']
  data = pair.load(resolved, target, source)
  images = config.form_of(source).enter(data.test.inputs)
  network, variables = cases.build(cases.read(kind, PARITY))
  features, _ = network.apply(variables, images, train=False, stop=len(network.stages) - 1)
  texts, of_texts = cases.build(cases.read(f'{kind}.text', PARITY))
  kernel = []
  for name in CLASSES:
    vectors = []
    for template in TEMPLATES:
      letters = [word.strip() for word in template.format(name.replace('_', ' ')).split(' ')]
      ids = [95]
      for word in letters:
        word = word.replace('.', ' .')
        for piece in word.split():
          ids += [ord(c) - 97 if c.isalpha() else 26 for c in piece]
          ids[-1] += 28  # the end of a word
      ids = np.array([[*ids[:19], 96]])
      if kind == 'siglip':
        ids = np.pad(ids, ((0, 0), (0, 20 - ids.shape[1])))
      vectors.append(np.asarray(texts.apply(of_texts, {'ids': ids}, train=False)[0][0]))
    kernel.append(unit(unit(np.array(vectors)).mean(0)))
  arrays = cases.read(kind, PARITY).arrays
  scale = np.exp(float(np.asarray(arrays['logit_scale']).reshape(())))
  bias = float(np.asarray(arrays['logit_bias']).reshape(())) if 'logit_bias' in arrays else 0.0
  return scale * unit(np.asarray(features)) @ np.array(kernel).T + bias, data.test.labels


def test_the_row_is_the_cosine_of_images_and_prompts(study):
  kind, made, workdir = study
  logits, labels = independently(kind, made)
  found = results(workdir)
  kept = np.load(next(workdir.glob('runs/*named-1shot-seed0*')) / 'predictions.npz')
  np.testing.assert_allclose(kept['logits'], logits, rtol=1e-4, atol=1e-4)
  accuracy = float((logits.argmax(-1) == labels).mean())
  for (method, _, _), result in found.items():
    if method == 'named':
      assert result['test']['accuracy'] == pytest.approx(accuracy)
      assert result['deterministic'] and result['chosen'] and result['status'] == 'ok'
      cost = result['cost']
      assert cost['steps'] == cost['train_flops'] == cost['trainable_params'] == 0
      assert cost['feature_seconds'] > 0


def test_training_begins_with_the_names(study):
  _, _, workdir = study
  params, _ = store.params(workdir, next(workdir.glob('runs/*named-1shot-seed0*')).name)
  begun, _ = store.params(workdir, next(workdir.glob('runs/*begun-1shot-seed0*')).name)
  near = np.abs(begun['head']['kernel'] - params['head']['kernel']).max()
  assert 0 < near < 1e-3  # two small steps
  assert not results(workdir)['begun', 1, 0]['deterministic']


def test_wise_ft_goes_from_the_names_to_what_was_trained(study):
  _, _, workdir = study
  found = results(workdir)
  for shots, seed in ((1, 0), (2, 1)):
    wise = found['wise', shots, seed]
    tried = {one['scale']: one['loss'] for one in wise['merged']['tried']}
    assert set(tried) == {0.0, 0.5, 1.0} and tried[0.0] != pytest.approx(tried[1.0], rel=1e-5)
    for scale, method in ((0.0, 'named'), (1.0, 'begun')):
      wanted = found[method, shots, seed]['val']['loss']
      assert tried[scale] == pytest.approx(wanted, rel=2e-6), (scale, method)


def test_it_resumes_from_the_folder(study):
  _, made, workdir = study
  before = results(workdir)
  for file in workdir.glob('runs/*seed1*/result.json'):
    file.unlink()
  run.run(made, workdir)
  after = results(workdir)
  assert {key: one['test'] for key, one in after.items()} == {
    key: one['test'] for key, one in before.items()
  }


def test_texts_are_compared_with_their_labels(tmp_path):
  made = texts_config(tmp_path)
  made.methods = {
    'named': {'head': 'zero_shot', 'phases': ()},
    'probe': {'head': 'zero_shot', 'phases': ({'tune': 'head'},)},
  }
  made.shots, made.seeds, made.grid.learning_rate = (2,), (0,), (1e-3,)
  made.sources.topics.train.steps = 2
  path = run.run(made, tmp_path / 'work')
  resolved = config.resolve(made)
  source, target = resolved['sources']['topics'], resolved['targets']['new']
  data = pair.load(resolved, target, source)
  variables = store.trained(path / 'sources/topics/checkpoints', 0)[0]
  network = run.network_of(source, 3)
  stop = len(network.stages) - 1
  inputs = run.plug('inputs', 'text').store(list(data.class_names), source['input'])[0]

  def embed(inputs):
    given = run.Variables(variables, {})
    return unit(np.asarray(network.apply(given, inputs, train=False, stop=stop)[0]))

  wanted = (embed(data.test.inputs) @ embed(inputs).T).argmax(-1)
  kept = np.load(next(path.glob('runs/*named*')) / 'predictions.npz')
  assert (kept['logits'].argmax(-1) == wanted).all()
  assert np.abs(kept['logits']).max() <= zero_shot.SCALE * 1.001


def changed(made, changes):
  for place, value in changes.items():
    *names, last = place.split('.')
    part = made
    for name in names:
      part = part[name]
    part[last] = value
  return made


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'methods.named.head': 'few_shot'}, "head is 'zero_shot' or '', got 'few_shot'"),
    (
      {'methods.named.head': {'name': 'zero_shot', 'template': ('{}',)}},
      "no option 'template'; .* Did you mean 'templates'",
    ),
    ({'methods.named.head': {'name': 'zero_shot', 'templates': ('a photo',)}}, 'has one {}'),
    ({'methods.named.head': {'name': 'zero_shot', 'scale': 0}}, 'scale is a number above 0'),
    ({'methods.named.init': 'random'}, "set init = 'source'"),
    ({'methods.named.head_after': 'block0'}, "head_after = ''"),
    (
      {'methods.named.phases': ({'tune': 'head', 'solver': 'ridge'},)},
      'exact solution does not look at the head',
    ),
    ({'targets.images.class_names': {'stones': 'rock'}}, "'stones', which is no class .*'stone'"),
    ({'targets.images.class_names': {'stone': '3'}}, r'1 of 3 classes have no words, such as .3.'),
    ({'targets.images.class_names': {'stone': 'red fox'}}, "two classes are called 'red fox'"),
    ({'sources.towers.backbone.projection': None}, 'leaves the space that images share'),
    ({'sources.towers.backbone': {'name': 'vit', 'image_size': 32}}, 'vit has no text tower'),
  ],
)
def test_what_cannot_be_is_refused_before_anything_runs(tmp_path, changes, words):
  made = changed(image_config(tmp_path), changes)
  with pytest.raises(ValueError, match=f'(?s){words}'):
    dry_run.describe(made)


def test_the_words_of_classes():
  target = {'class_names': {'3': 'three'}}
  assert zero_shot.words_of(('card_lost', '3'), target, 't') == ('card lost', 'three')
  method = {'head': 'zero_shot'}
  assert zero_shot.prompts_of(method, 'image', ['cat']) == [['a photo of a cat.']]
  assert zero_shot.prompts_of(method, 'text', ['cat']) == [['cat']]


def test_words_are_of_the_runs_whose_head_is_made_of_them():
  study = {
    'sources': {'a': {'backbone': 'clip', 'input': {}, 'form': ''}},
    'targets': {'b': {'dataset': 'd', 'class_names': {'3': 'three'}}},
    'methods': {'zero': {'head': 'zero_shot', 'grid': {}}, 'probe': {'grid': {}}},
    'validation': 'all',
  }
  of = {
    method: dependencies(study, Cell('a', 'b', method, 1, 0, 0.1, 0.0))['targets']['b']
    for method in study['methods']
  }
  assert of['zero'] == {'dataset': 'd', 'class_names': {'3': 'three'}}
  assert of['probe'] == {'dataset': 'd'}
