"""Tokenizers from the three kinds of file that come with weights, made small here."""
import json

import numpy as np
import pytest

from tlx.tokenize import encode, from_gguf, read

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'net', '##work', 'cafe', 'learn', '##s', '.']


@pytest.fixture
def vocabulary(tmp_path):
  path = tmp_path / 'vocab.txt'
  path.write_text('\n'.join(WORDS) + '\n')
  return str(path)


def test_wordpiece_of_a_vocabulary(vocabulary):
  tokens = encode(read(vocabulary), ['The network learns.', 'Café xyz'])
  want = [['[CLS]', 'the', 'net', '##work', 'learn', '##s', '.', '[SEP]'], ['[CLS]', 'cafe', '[UNK]', '[SEP]']]
  assert [[WORDS[i] for i in row[mask != 0]] for row, mask in zip(tokens['ids'], tokens['mask'])] == want
  assert tokens['ids'].shape == (2, 8) and tokens['ids'].dtype == np.int32
  assert tokens['mask'].tolist() == [[1] * 8, [1] * 4 + [0] * 4] and not tokens['ids'][1, 4:].any()


def test_a_fixed_length_pads_and_cuts_within_the_special_tokens(vocabulary):
  tokenizer = read(vocabulary)
  tokens = encode(tokenizer, ['The network learns.', 'the'], length=5)
  assert [WORDS[i] for i in tokens['ids'][0]] == ['[CLS]', 'the', 'net', '##work', '[SEP]']
  assert tokens['mask'].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
  assert encode(tokenizer, ['The network learns.'])['ids'].shape == (1, 8)


def test_a_tokenizer_json_without_its_own_padding_and_truncation(vocabulary, tmp_path):
  tokenizer = read(vocabulary)
  tokenizer.enable_truncation(4)
  tokenizer.enable_padding(length=20)
  path = tmp_path / 'tokenizer.json'
  path.write_text(tokenizer.to_str())
  got, want = encode(read(str(path)), ['The network learns.']), encode(read(vocabulary), ['The network learns.'])
  assert json.loads(path.read_text())['padding'] and got['ids'].tolist() == want['ids'].tolist()


@pytest.fixture
def fields():
  return {'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'smollm',
          'tokenizer.ggml.tokens': ['<|end|>', 'l', 'o', 'w', 'Ġ', '1', '2', 'lo', 'low', 'Ġlow', '12', '<tool>'],
          'tokenizer.ggml.merges': ['l o', 'lo w', 'Ġ low', '1 2'],
          'tokenizer.ggml.token_type': [3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4]}


@pytest.mark.parametrize('split, want', [('smollm', [8, 9, 4, 5, 6, 0, 11, 1]), ('gpt-2', [8, 9, 4, 10, 0, 11, 1])])
def test_gguf_merges_splits_and_special_tokens(fields, split, want):
  text = 'low low 12<|end|><tool>l'
  tokenizer = from_gguf({**fields, 'tokenizer.ggml.pre': split})
  assert encode(tokenizer, [text])['ids'].tolist() == [want]
  assert tokenizer.decode(want, skip_special_tokens=False) == text


def test_unknown_kinds_are_errors(fields, vocabulary, tmp_path):
  with pytest.raises(ValueError, match=r"kind 'llama' .* Use the tokenizer\.json"):
    from_gguf({**fields, 'tokenizer.ggml.model': 'llama'})
  with pytest.raises(ValueError, match="splits like 'dbrx'; have"):
    from_gguf({**fields, 'tokenizer.ggml.pre': 'dbrx'})
  with pytest.raises(ValueError, match='neither a tokenizer'):
    read(str(tmp_path / 'spiece.model'))
  (tmp_path / 'words.txt').write_text('a\nb\n')
  with pytest.raises(ValueError, match=r'2 words but not \[UNK\]'):
    read(str(tmp_path / 'words.txt'))
