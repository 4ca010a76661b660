"""Sets of texts of TFDS, as rows of a table: classes, scores, pairs, words, running text."""

import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tlx import datasets

NAMES = ('neutral', 'bad', 'good')  # not in their natural order
TEXT, LABEL = tfds.features.Text(), tfds.features.ClassLabel(names=NAMES)
TAG = tfds.features.ClassLabel(names=['O', 'B-PER', 'I-PER'])
ROLE = tfds.features.ClassLabel(names=['user', 'assistant'])
FEATURES = {
  'reviews': {
    'text': TEXT,
    'label': LABEL,
    'title': TEXT,
    'author': tfds.features.Scalar(np.int64),
  },
  'scored': {'sentence1': TEXT, 'sentence2': TEXT, 'label': tfds.features.Scalar(np.float32)},
  'tongues': {'de': TEXT, 'en': TEXT},
  'words': {'tokens': tfds.features.Sequence(TEXT), 'ner': tfds.features.Sequence(TAG)},
  'running': {'text': TEXT},
  'asked': {'instruction': TEXT, 'response': TEXT, 'kind': TEXT},
  'said': {'messages': tfds.features.Sequence({'role': ROLE, 'content': TEXT})},
  'broken': {'sentence': TEXT, 'label': LABEL},
  'numbered': {'sentence': TEXT, 'label': tfds.features.Scalar(np.int64)},
}
KEYS = {'tongues': ('de', 'en'), 'reviews': ('text', 'label')}


class TlxTestTexts(tfds.core.GeneratorBasedBuilder):
  code_path = None
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in FEATURES)

  def _info(self):
    name = self.builder_config.name
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(FEATURES[name]),
      supervised_keys=KEYS.get(name),
    )

  def _split_generators(self, dl_manager):
    counts = {'train': 12, 'test': 6}
    if self.builder_config.name == 'reviews':
      counts['unsupervised'] = 3
    return {split: self._generate_examples(split, count) for split, count in counts.items()}

  def _generate_examples(self, split, count):
    made = {
      'reviews': lambda i: {
        'text': f'{split} é {i}',
        'label': i % 2 + 1,
        'title': 'x',
        'author': i % 4,
      },
      'scored': lambda i: {
        'sentence1': f'a{i}',
        'sentence2': f'b{i}',
        'label': -1.0 if split == 'test' else i / 4,
      },
      'tongues': lambda i: {'de': f'{split} eins {i}', 'en': f'{split} one {i}'},
      'words': lambda i: {'tokens': ['Ada', 'B', str(i)], 'ner': [1, 2, 0]},
      'running': lambda i: {'text': f'{split} document {i}'},
      'asked': lambda i: {'instruction': f'{split} q{i}', 'response': f'a{i}', 'kind': 'x'},
      'said': lambda i: {
        'messages': [
          {'role': 'user', 'content': f'{split} é{i}'},
          {'role': 'assistant', 'content': f'a{i}'},
        ]
      },
      'broken': lambda i: {'sentence': ' ' if i == 3 else f'{split} {i}', 'label': -(i == 5)},
      'numbered': lambda i: {'sentence': f'{split} {i}', 'label': 4 * (i % 2)},
    }[self.builder_config.name]
    for i in range(count):
      yield i, made(i)


def load(config, data_dir, **options):
  return datasets.load_text(f'tfds:tlx_test_texts/{config}', data_dir=data_dir, **options)


def test_texts_have_the_classes_that_the_builder_names_before_and_after_it_is_prepared(tmp_path):
  name = 'tfds:tlx_test_texts/reviews'
  assert datasets.kind(name) == 'text' and not datasets.is_valued(name)
  assert datasets.info(name, tmp_path) == (NAMES, {})
  data = load('reviews', tmp_path, val_fraction=0.5, group='author')
  assert datasets.info(name, tmp_path, group='author') == (NAMES, {'train': 12, 'test': 6})
  assert data.class_names == NAMES and data.test.ids == tuple(f'test/{i:06d}' for i in range(6))
  assert sorted(data.test.inputs) == [f'test é {i}' for i in range(6)]  # TFDS shuffles
  for text, label, group in zip(data.test.inputs, data.test.labels, data.test.groups):
    number = int(text[-1])
    assert (label, group) == (1 + number % 2, str(number % 4))
  assert not set(data.train.groups) & set(data.val.groups)
  assert data.notes[0] == 'Left aside, without a label or of another name: unsupervised.'


def test_scores_pairs_words_and_running_text(data_dir):
  data = load('scored', data_dir)
  assert datasets.is_valued('tfds:tlx_test_texts/scored', data_dir=data_dir)
  scores = {text: value for part in data[:3] for text, value in zip(part.inputs, part.values)}
  assert scores == {(f'a{i}', f'b{i}'): i / 4 for i in range(12)}
  assert any('Left aside, without a label or of another name: test.' in note for note in data.notes)
  assert ('test eins 1', 'test one 1') in load('tongues', data_dir).test.inputs.tolist()
  words = load('words', data_dir, wanted='tagged sentence')
  assert (('Ada', 'B', '4'), ('B-PER', 'I-PER', 'O')) in words.test.inputs.tolist()
  assert words.class_names == ('O', 'B-PER', 'I-PER')
  assert 'test document 5' in load('running', data_dir, wanted='document').test.inputs
  assert datasets.info('tfds:tlx_test_texts/running', data_dir).num_examples == {}
  assert load('numbered', data_dir).class_names == ('0', '4')


@pytest.mark.parametrize('config, asks', [('asked', 'q'), ('said', 'é')])
def test_dialogues(config, asks, data_dir):
  name = f'tfds:tlx_test_texts/{config}'
  assert datasets.kind(name) == 'dialogue' and not datasets.is_valued(name, data_dir=data_dir)
  data = load(config, data_dir, wanted='dialogue')
  assert (('user', f'test {asks}5'), ('assistant', 'a5')) in data.test.inputs.tolist()
  assert len(data.test.ids) == 6 and data.class_names == ('dialogue',)


def test_what_cannot_be_used_is_said(data_dir, tmp_path):
  with pytest.raises(
    ValueError, match='4 lines of tfds:tlx_test_texts/broken cannot be used'
  ) as of:
    load('broken', data_dir)
  for words in (
    'tfds:tlx_test_texts/broken/train has an empty sentence',
    'tfds:tlx_test_texts/broken/test has an empty label',
  ):
    assert re.search(rf'line \d+ of {words}', str(of.value))
  with pytest.raises(
    ValueError, match='has texts, wanted documents. Take it with a backbone of texts'
  ):
    load('reviews', data_dir, wanted='document')
  with pytest.raises(ValueError, match='show in its records alone, and it is not prepared'):
    datasets.info('tfds:tlx_test_texts/numbered', tmp_path)
  with pytest.raises(ValueError, match="and shift 'invert' changes images"):
    datasets.info('tfds:tlx_test_texts/reviews', tmp_path, shift='invert')
