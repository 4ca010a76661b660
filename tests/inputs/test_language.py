"""Rows of running text: every byte once, none across documents, positions anew."""

import re

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tlx import datasets, inputs
from tlx.inputs import _targets, _tokenizers, language
from tlx.types import Batch

TEXTS = ['añ b日', 'a', '', 'the dog and the cat', 'z' * 40, '<|im_end|> is text']
FIELDS = {'length': 16, 'tokenizer': 'bytes', 'vocab_size': 259, 'across': False}


@pytest.fixture
def tokenizer():
  return _tokenizers.made('bytes')


def read(row, tokenizer):
  """The texts that a row of leaves predicts, by their numbers."""
  found = {}
  for number in range(1, row['mask'].max() + 1):
    of_text = row['next'][row['mask'] == number]
    found[number] = bytes(of_text.tolist()).decode(errors='replace')
  return found


def test_every_byte_is_predicted_once(tokenizer):
  rows, notes = language.store_parts({'train': TEXTS}, tokenizer, 16)
  leaves = rows['train'].leaves
  counted = leaves['bytes'] >= 0
  assert leaves['bytes'][counted].sum() == sum(len(text.encode()) for text in TEXTS)
  assert leaves['characters'][counted].sum() == sum(map(len, TEXTS))
  predicted = sorted(leaves['next'][leaves['next'] >= 0].tolist())
  assert predicted == sorted(byte for text in TEXTS for byte in text.encode())
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), leaves)
  assert shapes == language.form(**FIELDS).spec
  assert notes[0].startswith('6 texts of train are 6 rows of 16 tokens, ')
  assert '; 1 have no token to predict' in notes[0]


def test_a_row_reads_what_it_predicts_and_no_other_document(tokenizer):
  rows, _ = language.store_parts({'train': ['abc', 'defg']}, tokenizer, 8)
  leaves = {name: leaf[0] for name, leaf in rows['train'].leaves.items()}
  begin = tokenizer.token_to_id(_tokenizers.BEGIN)
  assert leaves['ids'].tolist() == [begin, *b'def', begin, *b'ab', 0]
  assert leaves['next'].tolist() == [*b'defg', *b'abc', -1]
  assert leaves['mask'].tolist() == [1] * 4 + [2] * 3 + [0]
  assert leaves['bytes'].tolist() == [1] * 7 + [-1]
  assert rows['train'].record.tolist() == [1]  # the longest is the first
  assert rows['train'].texts == [[1, 0]]


def test_a_long_document_fills_rows_that_share_no_token(tokenizer):
  text = 'abcdefghijklmnopqrstuvw'
  rows, _ = language.store_parts({'x': [text]}, tokenizer, 10)
  leaves = rows['x'].leaves
  assert ''.join(bytes(row[row >= 0].tolist()).decode() for row in leaves['next']) == text
  assert leaves['ids'][1, 0] == ord('j') and leaves['next'][0, -1] == ord('j')
  assert rows['x'].record.tolist() == [0, 0, 0]


def test_across_documents_all_rows_are_full(tokenizer):
  rows, _ = language.store_parts({'x': ['abc', 'de', 'fghi']}, tokenizer, 4, across=True)
  leaves = rows['x'].leaves
  begin = tokenizer.token_to_id(_tokenizers.BEGIN)
  assert leaves['next'].reshape(-1)[:11].tolist() == [*b'abc', begin, *b'de', begin, *b'fghi']
  assert leaves['bytes'].reshape(-1)[:11].tolist() == [1, 1, 1, -1, 1, 1, -1, 1, 1, 1, 1]
  assert leaves['mask'].tolist() == [[1] * 4, [1] * 4, [1] * 3 + [0]]
  assert rows['x'].record.tolist() == [0, 1, 2]
  assert rows['x'].texts == [[0, 1], [1, 2], [2]]
  plain = Tokenizer.from_str(tokenizer.to_str())
  plain.post_processor = None
  rows, _ = language.store_parts({'x': ['abc', 'de']}, plain, 8, across=True)
  assert bytes(rows['x'].leaves['ids'][0].tolist())[:7] == b'abc\nde\0'
  assert rows['x'].leaves['next'][0].tolist() == [*b'bc\nde\n', -1, -1]


def test_without_a_token_before_it_the_first_is_not_predicted():
  words = Tokenizer(models.WordLevel({'a': 0, 'b': 1, '?': 2}, unk_token='?'))
  words.pre_tokenizer = pre_tokenizers.Whitespace()
  rows, _ = language.store_parts({'x': ['a  b a ']}, words, 4)
  leaves = rows['x'].leaves
  assert leaves['next'][0].tolist() == [1, 0, -1, -1]
  assert leaves['bytes'][0].tolist() == [3, 3, -1, -1]  # with the spaces before, and at the end
  with pytest.raises(ValueError, match='1 of 2 texts of x have characters without a token'):
    language.store_parts({'x': ['a b', 'a c']}, words, 4)
  with pytest.raises(ValueError, match='x has 2 texts and no token to predict'):
    language.store_parts({'x': ['a', 'b']}, words, 4)


def test_packing_is_tight_and_the_same_again():
  random = np.random.default_rng(0)
  pieces = []
  for i, size in enumerate(random.integers(2, 18, 200)):
    ids = np.full(size, i)
    pieces.append(language._Piece(i, _targets.Tokens(ids, ids, ids)))
  rows = language.pack(pieces, 16)
  filled = [sum(piece.places for piece in row) for row in rows]
  assert max(filled) <= 16 and sum(filled) == sum(piece.places for piece in pieces)
  least = -(-sum(filled) // 16)
  assert len(rows) <= 11 / 9 * least + 1  # what best fit decreasing promises
  again = language.pack(pieces, 16)
  assert [[p.record for p in row] for row in rows] == [[p.record for p in row] for row in again]


def test_a_data_set_becomes_rows_with_the_ids_of_their_texts(tmp_path):
  path = tmp_path / 'x.txt'
  path.write_text(''.join(f'{"word " * (i % 7)}line {i}\n' for i in range(60)))
  how = {'val_fraction': 0.2, 'test_fraction': 0.3, 'data_bytes': 1e9}
  data = language.load(f'text:{path}', FIELDS, how)
  for split in data[:3]:
    assert len(split.ids) == len(split.inputs['ids']) == len(set(split.ids)) == len(split.labels)
  assert any('+1' in name for name in data.train.ids)
  assert data.sha256 == language.load(f'text:{path}', FIELDS, how).sha256
  assert data.sha256 != language.load(f'text:{path}', FIELDS | {'length': 8}, how).sha256
  assert any('rows of 16 tokens' in note for note in data.notes)
  trained = language.load(
    f'text:{path}', FIELDS | {'tokenizer': f'bpe:262:text:{path}', 'vocab_size': 262}, how
  )
  assert not any('tokenizer' in note for note in trained.notes)
  folds = {'folds': 5, 'fold': 1, 'data_bytes': 1e9}
  bpe = {'tokenizer': f'bpe:262:text:{path}', 'vocab_size': 262}
  folded = language.load(f'text:{path}', FIELDS | bpe, folds)
  said = [note for note in folded.notes if 'flatters bits' in note]
  assert len(said) == 1 and said[0].startswith(f'The tokenizer bpe:262:text:{path} was trained on ')
  assert ' of the 12 test texts, which flatters bits' in said[0]
  assert trained.train.inputs['ids'].max() == 259 and len(trained.train.ids) < len(data.train.ids)
  settled = language.settled(FIELDS | {'tokenizer': f'bpe:262:text:{path}'})
  assert language.settled(settled) == settled and settled['tokenizer'][-17] == '#'
  assert language.settled(FIELDS) == FIELDS
  for changes, message in (
    ({'tokenizer': f'bpe:262:text:{path}#{"0" * 16}'}, 'another tokenizer now than .* changed'),
    ({'vocab_size': 258}, 'has 259 tokens, the embedding of the weights 258'),
    ({'tokenizer': 'bpe:300'}, 'bpe:300 is trained on nothing. Say on which text'),
    ({'tokenizer': f'bpe:30:text:{path}'}, 'bpe:N with N tokens, 259 or more'),
  ):
    with pytest.raises(ValueError, match=message):
      language.load(f'text:{path}', FIELDS | changes, how)
  with pytest.raises(ValueError, match='as rows of 16 tokens takes .* higher data_bytes'):
    language.load(f'text:{path}', FIELDS, how | {'data_bytes': 100.0})


def test_far_too_much_text_is_refused_before_all_of_it_is_tokens(tmp_path, monkeypatch):
  lines = [f'{"word " * (i % 7)}line {i}' for i in range(2000)]
  (tmp_path / 'x.txt').write_text('\n'.join(lines))
  seen, store = [], language.store_parts

  def watched(parts, *options):
    seen.append(sum(map(len, parts.values())))
    return store(parts, *options)

  monkeypatch.setattr(language, 'store_parts', watched)
  how = {'val_fraction': 0.2, 'test_fraction': 0.3}
  least = 20 * sum(map(len, lines))  # bytes of 5 leaves, without any padding
  for limit, words in (
    (0.2, 'takes about 0.00 GiB, the limit'),
    (0.9, 'takes 0.00 GiB, the limit'),
  ):
    with pytest.raises(ValueError, match=words):
      language.load(f'text:{tmp_path}/x.txt', FIELDS, how | {'data_bytes': limit * least})
  assert seen == [200, 200, 2000]
  assert language.load(f'text:{tmp_path}/x.txt', FIELDS, how | {'data_bytes': 2.0 * least})


@pytest.mark.parametrize('across', [False, True])
def test_what_is_held_out_is_in_no_row(tmp_path, across):
  """Whichever text of a row it is; what others hold out is found in rows as well."""
  texts = [f'the text of number {i}' for i in range(200)]
  (tmp_path / 'one.txt').write_text('\n'.join(texts))
  (tmp_path / 'other.txt').write_text('\n'.join(texts[::-1]))
  fields = FIELDS | {'length': 256, 'across': across}
  how = {'val_fraction': 0.1, 'test_fraction': 0.3}
  other = language.load(f'text:{tmp_path}/other.txt', fields, how)

  def of(split):
    tokens = np.concatenate([row[row >= 0] for row in split.inputs['next']])
    return set(re.findall(r'number (\d+)', ''.join(map(chr, tokens))))

  whole = language.load(f'text:{tmp_path}/one.txt', fields, how)
  with pytest.raises(ValueError, match='The source was trained on'):
    datasets.overlap(whole.train, other)
  apart = language.load(f'text:{tmp_path}/one.txt', fields, how | {'apart': [other]})
  assert 'training texts were left out of its training' in ' '.join(apart.notes)
  if not across:  # where rows cut texts, numbers may be cut too
    assert of(whole.train) & of(other.test)
    assert not of(apart.train) & (of(other.test) | of(other.val))
  assert datasets.keep_out(apart, [other]) is apart


def test_the_form_is_made_once_and_enters_ids_and_mask(tokenizer):
  form = language.form(**FIELDS)
  assert form is language.form(**FIELDS) and form != language.form(**FIELDS | {'across': True})
  rows, _ = language.store_parts({'x': TEXTS}, tokenizer, 16)
  entered = form.enter(rows['x'].leaves)
  assert set(entered) == {'ids', 'mask'}
  got = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), entered)
  assert got == inputs.entered(form, len(entered['ids']))
  batch = Batch(rows['x'].leaves, None, np.ones(6))
  assert form.augment(jax.random.key(0), batch, {}) is batch
  with pytest.raises(ValueError, match='Texts have no augmentations, got flip'):
    form.check({'flip': 0.5})
  with pytest.raises(ValueError, match='length is 0, wanted 1 token or more'):
    language.form(0, 'bytes')
  with pytest.raises(ValueError, match='tokenizer is empty'):
    language.form(8, '')
