"""Chat templates against official renderers; what is learned of them, token by token."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models

from tests.tasks.golden import TEXT
from tlx.inputs import _chat, _tokenizers, dialogue

CASES = TEXT['chat']['cases']
SAID = [
  ('user', 'Hello'),
  ('assistant', 'Hi there'),
  ('user', 'Who are you'),
  ('assistant', '   I am an assistant   '),
  ('user', 'Another question'),
]
SYSTEM = ('system', 'You are a helpful assistant')
FIELDS = {'length': 64, 'tokenizer': 'bytes', 'vocab_size': 259, 'template': 'chatml'}


def text_of(name, messages, prompt=False):
  return ''.join(piece.text for piece in _chat.written(name, messages, prompt))


def messages_of(case):
  return [(message['role'], message['content']) for message in case['messages']]


@pytest.mark.parametrize('name', ['chatml', 'smollm2'])
@pytest.mark.parametrize('case', CASES, ids=[case['name'] for case in CASES])
def test_chatml_is_as_transformers_writes_it(name, case):
  assert text_of(name, messages_of(case)) == case[name]
  assert text_of(name, messages_of(case), prompt=True) == case[f'{name}_with_generation_prompt']


@pytest.mark.parametrize('case', CASES, ids=[case['name'] for case in CASES])
def test_answers_and_their_ends_are_what_is_learned(case):
  place, spans = 0, []
  for piece in _chat.written('chatml', messages_of(case)):
    begin, place = place, place + len(piece.text)
    if piece.kind == 'text':
      continue
    if spans and spans[-1][1] == begin:
      begin = spans.pop()[0]
    spans.append([begin, place])
  assert spans == case['assistant_spans_chatml']


# What llama.cpp expects of the templates of these models (tests/test-chat-template.cpp), with the
# begin token that they ask for; Zephyr's is that of its model card.
EXPECTED = {
  'llama2': '<s>[INST] <<SYS>>\nYou are a helpful assistant\n<</SYS>>\n\nHello [/INST] Hi there '
  '</s><s>[INST] Who are you [/INST] I am an assistant </s><s>[INST] Another question [/INST]',
  'llama3': '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful '
  'assistant<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>'
  '<|start_header_id|>assistant<|end_header_id|>\n\nHi there<|eot_id|><|start_header_id|>user'
  '<|end_header_id|>\n\nWho are you<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n'
  'I am an assistant<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnother question'
  '<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n',
  'mistral': '<s>[INST] Hello [/INST]Hi there</s>[INST] Who are you [/INST]   I am an assistant   '
  '</s>[INST] Another question [/INST]',
  'gemma': '<bos><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi there'
  '<end_of_turn>\n<start_of_turn>user\nWho are you<end_of_turn>\n<start_of_turn>model\n'
  'I am an assistant<end_of_turn>\n<start_of_turn>user\nAnother question<end_of_turn>\n'
  '<start_of_turn>model\n',
  'zephyr': '<|system|>\nYou are a helpful assistant</s>\n<|user|>\nHello</s>\n<|assistant|>\n'
  'Hi there</s>\n<|user|>\nWho are you</s>\n<|assistant|>\n   I am an assistant   </s>\n<|user|>\n'
  'Another question</s>\n<|assistant|>\n',
}


@pytest.mark.parametrize('name', EXPECTED)
def test_other_templates(name):
  system = [] if name in ('mistral', 'gemma') else [SYSTEM]
  assert text_of(name, [*system, *SAID], prompt=True) == EXPECTED[name]


def test_a_template_of_weights_is_known_by_its_text_and_never_run():
  for name in ('chatml', 'smollm2'):
    assert _chat.name_of(TEXT['chat']['templates'][name]) == name
    assert _chat.name_of(TEXT['chat']['templates'][name].replace('\\n', '\n')) == name
  for jinja, message in (
    ('', 'The weights bring no chat template. Say which one'),
    ('{{ cycler.__init__.__globals__ }}', 'that is not known, .*templates of files are not run'),
  ):
    with pytest.raises(ValueError, match=message):
      _chat.name_of(jinja)


def test_the_template_of_the_weights_is_the_default(tmp_path):
  (tmp_path / 'tokenizer.json').write_text(_tokenizers.made('bytes').to_str())
  uri = str(tmp_path / 'tokenizer.json')
  assert dialogue.template_of('bytes') == dialogue.template_of('bpe:300:text:x') == 'chatml'
  with pytest.raises(ValueError, match='The weights bring no chat template. Say which one'):
    dialogue.template_of(uri)
  templates = TEXT['chat']['templates']
  for found, want in (
    (templates['smollm2'], 'smollm2'),
    ([{'name': 'tools', 'template': 'x'}, {'name': 'default', 'template': templates['chatml']}],
     'chatml'),
  ):  # fmt: skip
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'chat_template': found}))
    _tokenizers.chat_template.cache_clear()
    assert dialogue.template_of(uri) == want
  (tmp_path / 'chat_template.jinja').write_text(templates['smollm2'])
  _tokenizers.chat_template.cache_clear()
  assert dialogue.template_of(uri) == 'smollm2'


@pytest.mark.parametrize(
  'name, messages, message',
  [
    ('chatlm', SAID, "Unknown chat template 'chatlm'; have .*Did you mean 'chatml'"),
    ('gemma', [SYSTEM, *SAID], 'gemma has no place for a system message'),
    (
      'llama2',
      SAID[1:],
      'cannot write messages of assistant, user, assistant, user; it wants user',
    ),
    ('mistral', [SAID[0], SAID[0]], 'cannot write messages of user, user'),
  ],
)
def test_what_a_template_cannot_write(name, messages, message):
  with pytest.raises(ValueError, match=message):
    _chat.written(name, messages)


def learned(leaves, row, tokenizer):
  ids = leaves['next'][row]
  return tokenizer.decode(ids[ids >= 0].tolist(), skip_special_tokens=False)


def test_rows_learn_the_answers_and_their_ends():
  tokenizer = _tokenizers.made('bytes')
  dialogues = [
    [('user', 'añ<|im_end|>'), ('assistant', 'sí<|im_end|>'), ('user', 'x'), ('assistant', 'no')],
    [('assistant', 'ok')],
  ]
  rows, notes = dialogue.store_parts({'train': dialogues}, tokenizer, 128)
  leaves = rows['train'].leaves
  assert learned(leaves, 0, tokenizer) == 'sí<|im_end|><|im_end|>no<|im_end|>'
  end = tokenizer.token_to_id('<|im_end|>')
  assert (leaves['next'][0] == end).sum() == 2  # what a message says is no control token
  assert (leaves['ids'][0] == end).sum() == 4
  counted = leaves['bytes'][0] >= 0
  assert leaves['bytes'][0][counted].sum() == len('sí<|im_end|>no'.encode())
  assert leaves['characters'][0][counted].sum() == len('sí<|im_end|>no')
  assert counted.sum() == (leaves['next'][0] >= 0).sum() - 2
  written = text_of('chatml', dialogues[0])
  places = leaves['mask'][0].astype(bool)
  assert (
    tokenizer.decode(leaves['ids'][0][places].tolist(), skip_special_tokens=False) == written[:-1]
  )
  assert 'rows of 128 tokens' in notes[0] and 'cut' not in notes[0]


def test_long_dialogues_are_cut_and_it_is_said():
  tokenizer = _tokenizers.made('bytes')
  short = [('user', 'a'), ('assistant', 'b')]
  late = [('user', 'a' * 60), ('assistant', 'b' * 10)]
  long = [('user', 'a'), ('assistant', 'b' * 60)]
  rows, notes = dialogue.store_parts({'x': [late, short, long]}, tokenizer, 40)
  assert rows['x'].record.tolist() == [1, 2]
  lost = 1 - (rows['x'].leaves['next'] >= 0).sum() / (2 + 11 + 61)
  assert notes[0].endswith(
    f'2 of 3 are longer and were cut (length), 1 of them before their first answer: {lost:.1%} of '
    'the tokens to learn are lost.'
  )
  with pytest.raises(
    ValueError, match='Of the 1 dialogues of x none has an answer within its first'
  ):
    dialogue.store_parts({'x': [late]}, tokenizer, 40)


def words_tokenizer(marks):
  """Letters and a space as tokens, ' a' one of its own, beside control tokens."""
  letters = sorted(set(' []/INSTHiHelothr a'))
  vocabulary = {letter: i for i, letter in enumerate(letters)} | {' H': 30}
  tokenizer = Tokenizer(models.BPE(vocabulary, [(' ', 'H')]))
  tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
  return tokenizer


def test_a_token_that_begins_before_the_answer_is_learned_and_covers_the_answer_alone():
  """'[/INST] Hi </s>' has the token ' H'; the space behind the answer is learned and no text."""
  tokenizer = words_tokenizer(['<s>', '</s>'])
  rows, _ = dialogue.store_parts({'x': [SAID[:2]]}, tokenizer, 64, 'llama2')
  leaves = rows['x'].leaves
  learn = leaves['next'][0] >= 0
  assert tokenizer.decode(leaves['next'][0][learn].tolist(), skip_special_tokens=False)
  assert leaves['next'][0][learn][0] == 30
  assert leaves['bytes'][0][learn].tolist() == [1] * 8 + [-1, -1]
  assert leaves['next'][0][learn][-1] == tokenizer.token_to_id('</s>')


def test_a_template_that_the_tokenizer_does_not_have():
  with pytest.raises(
    ValueError, match=r"chatml wants the token '<\|im_start\|>', which the tokenizer"
  ):
    dialogue.store_parts({'x': [SAID]}, words_tokenizer(['<s>', '</s>']), 64)
  with pytest.raises(
    ValueError, match=r"writes '\[INST\] ' as text, and the tokenizer has a token"
  ):
    dialogue.store_parts(
      {'x': [SAID[:2]]}, words_tokenizer(['<s>', '</s>', '[INST]']), 64, 'mistral'
    )


def test_characters_without_a_token_are_refused():
  tokenizer = Tokenizer(models.WordLevel({'?': 0, '\n': 1}, unk_token='?'))
  tokenizer.add_special_tokens(['<|im_start|>', '<|im_end|>'])
  with pytest.raises(ValueError, match='1 of 1 texts of x have characters without a token'):
    dialogue.store_parts({'x': [SAID[:2]]}, tokenizer, 64)


def test_a_data_set_becomes_rows_of_dialogues(tmp_path):
  path = tmp_path / 'x.jsonl'
  lines = []
  for i in range(20):
    turns = [{'role': 'nurse', 'text': f'q{i}'}, {'role': 'doctor', 'text': f'a{i}'}]
    lines.append(json.dumps({'turns': turns}))
  path.write_text('\n'.join(lines))
  how = {'val_fraction': 0.2, 'test_fraction': 0.3, 'answers': 'doctor', 'data_bytes': 1e9}
  data = dialogue.load(f'jsonl:{path}', FIELDS, how)
  assert [len(split.ids) for split in data[:3]] == [11, 3, 6]
  assert data.train.inputs['ids'].shape == (11, 64) and data.class_names == ('dialogue',)
  assert np.all((data.train.inputs['next'] >= 0).sum(1) <= 4)
  form = dialogue.form(**FIELDS)
  assert form is dialogue.form(**FIELDS) and set(form.spec) == set(data.train.inputs)
  with pytest.raises(ValueError, match="Unknown chat template 'x'"):
    dialogue.form(8, 'bytes', template='x')
