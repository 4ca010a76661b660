"""Running text, dialogues and tagged sentences: what is read, what is said, what is refused."""

import gzip
import json

import numpy as np
import pytest

from tlx import datasets


@pytest.fixture
def write(tmp_path):
  """write(name, text or bytes) -> the path; a name that ends in .gz is packed."""

  def to(name, data):
    data = data if isinstance(data, bytes) else data.encode()
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
    return path

  return to


def _json(records):
  return ''.join(json.dumps(record) + '\n' for record in records)


def _lines(count, word='line'):
  return ''.join(f' {word} {i} \n\n' for i in range(count))


# Running text.


@pytest.mark.parametrize('name', ['x.txt', 'x.txt.gz'])
def test_a_line_is_a_document(write, name):
  path = write(name, '\ufeff' + _lines(20).replace('\n', '\r\n'))
  assert datasets.kind(f'text:{path}') == 'document'
  assert datasets.info(f'text:{path}') == (('text',), {})
  data = datasets.load_text(f'text:{path}', wanted='document')
  assert [len(split.ids) for split in data[:3]] == [11, 3, 6] and data.class_names == ('text',)
  found = {i: text for split in data[:3] for i, text in zip(split.ids, split.inputs)}
  assert found['000003'] == ' line 1 ' and len(found) == 20  # with its spaces; line 2 is empty
  assert {split.labels.max() for split in data[:3]} == {0}


def test_records_of_parts_are_documents_whatever_their_labels(write):
  for part, count in (('train', 5), ('dev', 2), ('test', 3)):
    records = [{'id': i, 'text': f'{part} {i}', 'label': ''} for i in range(count)]
    path = write(f'parts/{part}.jsonl.gz', _json(records))
  data = datasets.load_text(f'text:{path.parent}', wanted='document')
  assert [len(split.ids) for split in data[:3]] == [5, 2, 3]
  assert data.val.inputs.tolist() == ['dev 0', 'dev 1'] and data.val.ids[0] == 'val/000001'


def test_groups_of_documents_stay_whole(write):
  records = [{'text': f't {i}', 'subject': f's{i % 5}'} for i in range(50)]
  data = datasets.load_text(f'text:{write("x.jsonl", _json(records))}', wanted='document')
  groups = [set(split.groups) for split in data[:3]]
  assert sum(map(len, groups)) == 5 and all(groups)


def test_a_file_of_a_folder_is_a_document(write):
  for i in range(12):
    path = write(f'books/{i:02d}.txt', f'First line of {i}.\nSecond line.\n')
  write('books/README', 'not read')
  data = datasets.load_text(f'text:{path.parent}', wanted='document', group=r'\d(\d)\.txt')
  assert data.train.inputs[0].count('\n') == 2 and data.train.ids[0].endswith('.txt')
  assert datasets.load_text(f'text:{path.parent}', wanted='document').sha256
  write('books/12.txt', b'one\ntwo caf\xe9\n')
  write('books/13.txt', ' \n')
  with pytest.raises(ValueError, match='^2 lines of .*books cannot be used') as error:
    datasets.load_text(f'text:{path.parent}', wanted='document')
  assert 'line 2 of' in str(error.value) and '12.txt has bytes that are not UTF-8' in str(
    error.value
  )
  assert '13.txt has no text' in str(error.value)


def test_all_broken_lines_of_running_text_are_one_error(write):
  path = write('x.txt', b'a\nb\xe9\nc\n\xff\n' + _lines(9).encode())
  with pytest.raises(ValueError) as error:
    datasets.load_text(f'text:{path}', wanted='document')
  assert str(error.value).startswith(f'2 lines of {path} cannot be used:\n  line 2 of {path} has ')
  data = datasets.load_text(f'text:{path}', wanted='document', skip_bad=True)
  assert '2 lines are left out' in data.notes[0]
  path = write('x.jsonl', _json([{'text': 'a'}, {'text': ' '}, {'text': 3}, {}]))
  with pytest.raises(ValueError, match='3 lines') as error:
    datasets.load_text(f'text:{path}', wanted='document')
  assert 'line 3 of' in str(error.value) and 'has a int as its text' in str(error.value)


def test_copies_of_documents_are_counted(write):
  for part, texts in (('train', 'abc'), ('val', 'de'), ('test', 'fa')):
    path = write(f'parts/{part}.txt', '\n'.join(texts))
  data = datasets.load_text(f'text:{path.parent}', wanted='document')
  assert data.notes[0].startswith(
    '1 of 2 test texts are also in training, but for case and spaces: test/000002 is train/000001.'
  )


@pytest.mark.parametrize(
  'name, wanted, message',
  [
    ('jsonl:LABELLED', 'document', 'has texts, wanted documents.*are text:.*x.jsonl'),
    ('text:LABELLED', 'text', "has documents, wanted texts. Take it with task = 'language'"),
    ('text:LABELLED.not', 'document', 'wants a file'),
    ('uci_digits', 'document', 'has images, wanted documents'),
    ('jsonl:LABELLED', 'dialogue', 'has texts, wanted dialogues.*rename its columns'),
  ],
)
def test_another_kind_of_data_is_refused(write, name, wanted, message):
  path = write('x.jsonl', _json([{'text': f't{i}', 'label': i % 2} for i in range(9)]))
  with pytest.raises(ValueError, match=message):
    datasets.load_text(name.replace('LABELLED', str(path)), wanted=wanted)
  with pytest.raises(ValueError, match='documents, and shift'):
    datasets.info(f'text:{path}', shift='inverted')


# Dialogues.


def _chat(*said):
  """Messages of users and answers by turns."""
  roles = ('user', 'assistant') * len(said)
  return [{'role': role, 'content': content} for role, content in zip(roles, said)]


def test_dialogues_are_messages(write):
  system = {'role': 'system', 'content': 'Be kind.'}
  lines = [{'messages': _chat('hi', f'hello {i}')} for i in range(10)]
  lines += [
    {'messages': [system, *_chat('a', 'b', 'c')]},
    {'messages': [*_chat('a'), *_chat('again', 'b')]},
    {'conversations': [{'from': 'human', 'value': 'x'}, {'from': 'gpt', 'value': 'y'}]},
  ]
  name = f'jsonl:{write("x.jsonl", _json([*lines[:12]]))}'
  assert datasets.kind(name) == 'dialogue'
  assert datasets.info(name) == (('dialogue',), {'all': 12})
  data = datasets.load_text(name, wanted='dialogue')
  found = {i: text for split in data[:3] for i, text in zip(split.ids, split.inputs)}
  assert found['000001'] == (('user', 'hi'), ('assistant', 'hello 0'))
  assert found['000011'] == (('system', 'Be kind.'), ('user', 'a'), ('assistant', 'b'))
  assert found['000012'] == (('user', 'a\nagain'), ('assistant', 'b'))
  assert data.notes == (
    'In 1 dialogues neighbours of one role are joined by a line feed.',
    'Of 1 dialogues what follows the last answer is left out.',
  )
  name = f'jsonl:{write("y.jsonl", _json(lines[12:] * 9))}'
  data = datasets.load_text(name, wanted='dialogue', duplicates='keep')
  assert data.train.inputs[0] == (('user', 'x'), ('assistant', 'y'))
  assert 'test texts are also in training' in data.notes[-2]


@pytest.mark.parametrize(
  'columns', [('prompt', 'answer'), ('Instruction', 'output'), ('instruction', 'response')]
)
def test_dialogues_are_prompts_and_answers(write, columns):
  asked, answer = columns
  lines = [{asked: f'q{i}', 'context': 'of this' * (i % 2), answer: f'a{i}'} for i in range(10)]
  name = f'jsonl:{write("x.jsonl", _json(lines))}'
  assert datasets.kind(name) == 'dialogue' and datasets.roles(name) == ('user', 'assistant')
  data = datasets.load_text(name, wanted='dialogue')
  found = {i: text for split in data[:3] for i, text in zip(split.ids, split.inputs)}
  assert len(found) == 10
  assert found['000001'] == (('user', 'q0'), ('assistant', 'a0'))
  assert found['000002'] == (('user', 'q1\n\nof this'), ('assistant', 'a1'))
  with pytest.raises(ValueError, match='line 1 .* no doctor speaks: leave answers out'):
    datasets.load_text(name, wanted='dialogue', answers='doctor')


def test_dialogues_of_tables(write):
  """A cell holds the prompt or its answer, or all messages as JSON; line 8 is broken."""
  rows = ['prompt;answer;note', *(f'"q; {i}";a{i};' for i in range(10))]
  name = f'csv:{write("x.csv", chr(10).join(rows))}'
  assert datasets.kind(name) == 'dialogue' and datasets.roles(name) == ('user', 'assistant')
  data = datasets.load_text(name, wanted='dialogue')
  found = {i: text for split in data[:3] for i, text in zip(split.ids, split.inputs)}
  assert found['000002'] == (('user', 'q; 0'), ('assistant', 'a0')) and len(found) == 10
  cells = [json.dumps(_chat('hi', f'there {i}')).replace('"', '""') for i in range(9)]
  cells[6] = cells[6][:-1]
  name = (
    f'csv:{write("y.csv", chr(10).join(["messages", *(f"{chr(34)}{c}{chr(34)}" for c in cells)]))}'
  )
  assert datasets.kind(name) == 'dialogue' and datasets.roles(name) == ('user', 'assistant')
  with pytest.raises(ValueError, match='1 lines of .*y.csv cannot.*\n.*line 8 .* no list of mess'):
    datasets.info(name)
  assert datasets.info(name, skip_bad=True) == (('dialogue',), {'all': 8})


@pytest.mark.parametrize(
  'line, message',
  [
    ({'prompt': ' ', 'answer': 'a'}, 'an empty prompt'),
    ({'prompt': 'q'}, 'an empty answer'),
    ({'prompt': 'q', 'answer': 7}, 'a int as its answer, wanted text'),
    ({'prompt': 'q', 'answer': 'a', 'input': ['b']}, 'a list as its input, wanted text'),
  ],
)
def test_a_bad_prompt_or_answer_is_named(write, line, message):
  good = [{'prompt': 'q', 'answer': f'b{i}'} for i in range(9)]
  path = write('x.jsonl', _json([*good, line]))
  with pytest.raises(ValueError, match=f'line 10 of .* has {message}'):
    datasets.load_text(f'jsonl:{path}', wanted='dialogue')


def test_another_role_may_answer(write):
  turns = [
    ('doctor', 'What is it?'),
    ('patient', 'Pain.'),
    ('nurse', 'Much.'),
    ('doctor', 'I see.'),
  ]
  lines = [{'turns': [{'role': role, 'text': text} for role, text in turns]}] * 9
  name = f'jsonl:{write("x.jsonl", _json(lines))}'
  with pytest.raises(ValueError, match="9 lines.*\n.*unknown role 'doctor' in message 1; have"):
    datasets.info(name)
  data = datasets.load_text(name, wanted='dialogue', answers='doctor')
  assert [role for role, _ in data.train.inputs[0]] == ['assistant', 'user', 'assistant']
  assert data.train.inputs[0][1] == ('user', 'Pain.\nMuch.')


@pytest.mark.parametrize(
  'messages, message',
  [
    ([], 'no list of messages'),
    ('hi', 'no list of messages'),
    (['hi'], 'a str as its message 1, wanted a role and its content'),
    ([{'role': 'robot', 'content': 'a'}], "the unknown role 'robot' in message 1"),
    ([{'content': 'a'}], 'the unknown role None in message 1'),
    (_chat('a', ' '), r'an empty answer \(message 2\)'),
    (_chat('', 'a'), r'an empty text \(message 1\)'),
    (_chat('a', 7), r'a int as its answer \(message 2\), wanted text'),
    (_chat('a', '\ud83d'), 'bytes that are not UTF-8 in its answer'),
    (_chat('a'), 'no answer: nothing is said by assistant'),
  ],
)
def test_a_bad_dialogue_is_named_with_all_others(write, messages, message):
  good = [{'messages': _chat('a', f'b{i}')} for i in range(9)]
  path = write('x.jsonl', _json([*good, {'messages': messages}, {'messages': messages}]))
  with pytest.raises(
    ValueError, match=f'^2 lines of .* cannot be used:\n  line 10 of .* has {message}'
  ):
    datasets.load_text(f'jsonl:{path}', wanted='dialogue')
  data = datasets.load_text(f'jsonl:{path}', wanted='dialogue', skip_bad=True)
  assert sum(len(split.ids) for split in data[:3]) == 9


# Tagged sentences.


def test_tagged_sentences(write):
  lines = [
    {'tokens': ['Ana', 'in', 'New', 'York'], 'tags': ['B-PER', 'O', 'B-LOC', 'I-LOC']},
    {'tokens': ['Bob'], 'tags': ['I-PER']},
  ]
  name = f'jsonl:{write("x.jsonl", _json(lines * 8))}'
  assert datasets.kind(name) == 'tagged sentence'
  data = datasets.load_text(name, wanted='tagged sentence')
  assert data.class_names == ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
  assert (('Bob',), ('I-PER',)) in data.train.inputs.tolist()
  assert not np.any(data.train.labels)


@pytest.mark.parametrize(
  'line, message',
  [
    ({'tokens': ['a', 'b'], 'tags': ['O']}, '2 words and 1 tags'),
    ({'tokens': ['a'], 'tags': ['PER']}, "the tag 'PER', wanted O, B-TYPE or I-TYPE"),
    ({'tokens': [], 'tags': []}, 'no list of words'),
    ({'tokens': ['a', ' '], 'tags': ['O', 'O']}, r'an empty word \(the 2th\)'),
    ({'tokens': ['a'], 'tags': [3]}, r'a int as its tag \(the 1th\)'),
  ],
)
def test_a_bad_tagged_line_is_named(write, line, message):
  good = [{'tokens': ['a', f'b{i}'], 'tags': ['O', 'B-X']} for i in range(9)]
  path = write('x.jsonl', _json([*good, line]))
  with pytest.raises(ValueError, match=f'line 10 of .* has {message}'):
    datasets.load_text(f'jsonl:{path}', wanted='tagged sentence')


def test_a_type_that_is_only_tested_is_refused(tmp_path):
  for part, kind in (('train', 'X'), ('test', 'Y')):
    line = {'tokens': ['a', 'b'], 'tags': ['O', f'B-{kind}']}
    (tmp_path / f'{part}.jsonl').write_text(_json([line] * 4))
  with pytest.raises(ValueError, match='has no training example of Y'):
    datasets.load_text(f'jsonl:{tmp_path}', wanted='tagged sentence')
