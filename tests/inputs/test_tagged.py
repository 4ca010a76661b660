"""Words with tags as rows of tokens."""

import json

import numpy as np
import pytest

from tests.inputs.test_text_tokenizers import WORDS
from tlx.inputs import _tokenizers, tagged

NAMES = ('O', 'B-X', 'I-X')
SENTENCES = [(('The', 'networks', 'learn'), ('O', 'B-X', 'I-X')), (('learns',), ('B-X',))]


@pytest.fixture
def vocabulary(tmp_path):
  path = tmp_path / 'vocab.txt'
  path.write_text('\n'.join(WORDS) + '\n')
  return path


def test_the_first_token_of_a_word_has_its_tag(vocabulary):
  rows, notes = tagged.store_parts({'x': SENTENCES}, _tokenizers.read(vocabulary), 8, NAMES)
  leaves = rows['x'].leaves
  want = ['[CLS]', 'the', 'net', '##work', '##s', 'learn', '[SEP]', '[PAD]']
  assert [WORDS[i] for i in leaves['ids'][0]] == want
  assert leaves['tags'].tolist() == [[0, 1, 2], [1, -1, -1]]
  assert leaves['places'].tolist() == [[1, 2, 5], [1, -1, -1]]
  assert leaves['mask'].sum(1).tolist() == [7, 4]
  assert notes == ('Sentences are stored as 8 tokens, 31% of them padding.',)


def test_byte_level_tokenizers_see_spaces_between_words():
  """What they learned of text is of words with a space before them."""
  tokenizer = _tokenizers.made('bytes')
  rows, _ = tagged.store_parts({'x': [(('un', 'dos'), ('O', 'B-X'))]}, tokenizer, 8, NAMES)
  begin = tokenizer.token_to_id(_tokenizers.BEGIN)
  assert rows['x'].leaves['ids'].tolist() == [[begin, *b'un dos', 0]]
  assert rows['x'].leaves['places'].tolist() == [[1, 3]]


def test_words_that_are_lost_are_counted_and_stay(vocabulary):
  rows, notes = tagged.store_parts({'x': SENTENCES}, _tokenizers.read(vocabulary), 5, NAMES)
  assert notes[0].startswith('1 of 4 words of x are behind 5 tokens (length) or without a token.')
  assert rows['x'].leaves['tags'].tolist()[0] == [0, 1, 2]
  assert rows['x'].leaves['places'].tolist()[0] == [1, 2, -1]


def test_types_that_training_lacks_are_said(vocabulary):
  parts = {'train': [(('the',), ('O',)), (('the',), ('B-Y',))], 'test': SENTENCES}
  names = ('O', 'B-X', 'I-X', 'B-Y', 'I-Y')
  _, notes = tagged.store_parts(parts, _tokenizers.read(vocabulary), 8, names)
  assert 'No training sentence has X, which the test may ask for.' in notes


def test_a_data_set_becomes_rows(vocabulary, tmp_path):
  lines = [{'tokens': list(words), 'tags': list(tags)} for words, tags in SENTENCES] * 10
  path = tmp_path / 'x.jsonl'
  path.write_text('\n'.join(json.dumps(line) for line in lines))
  fields = {'length': 16, 'tokenizer': str(vocabulary), 'vocab_size': 12}
  data = tagged.load(f'jsonl:{path}', fields, {'skip_bad': False, 'data_bytes': 1e9})
  assert data.class_names == NAMES and data.train.inputs['tags'].max() == 2
  form = tagged.form(**fields)
  assert set(form.enter(data.train.inputs)) == {'ids', 'mask'}
  assert set(form.spec) == set(data.train.inputs)
  assert all(leaf.dtype == np.int32 for leaf in data.train.inputs.values())
