"""What a language model writes is what its own probabilities say, token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models

from tlx.backbones import gpt2
from tlx.inputs import _tokenizers
from tlx.study import use, write

OPTIONS = {'vocab_size': 259, 'dim': 16, 'depth': 2, 'heads': 2, 'max_positions': 128}


def model_of(form='language', **fields):
  """A model of bytes with random weights."""
  network = gpt2.build(None, **OPTIONS)
  variables = network.init(jax.random.key(3), {'ids': jnp.zeros((1, 4), jnp.int32)})
  variables = jax.tree.map(lambda leaf: 20 * leaf if leaf.ndim > 1 else leaf, variables)
  fields = {'length': 64, 'tokenizer': 'bytes', 'vocab_size': 259, **fields}
  source = {'backbone': {'name': 'gpt2', **OPTIONS}, 'form': form, 'input': fields}
  return use.Model(network, variables, source, '', (), 'a model')


def by_hand(model, ids, num_tokens):
  """The most probable tokens, each from the whole text before it."""
  ids = list(ids)
  for _ in range(num_tokens):
    inputs = {'ids': jnp.asarray([ids], jnp.int32)}
    logits, _ = model.network.apply(model.variables, inputs, train=False)
    ids.append(int(logits[0, -1].argmax()))
  return ids[-num_tokens:]


def test_the_most_probable_text():
  model = model_of(across=False)
  tokenizer = _tokenizers.of_uri('bytes')
  prompts = ['the cat', 'a', 'no more than so']
  found = write.write(model, prompts, 6)
  for prompt, text in zip(prompts, found):
    wanted = by_hand(model, tokenizer.encode(prompt).ids, 6)
    assert text == tokenizer.decode(wanted)
  assert len(set(found)) > 1
  assert ''.join(write.stream(model, prompts[0], 6)) == found[0]


def test_what_is_drawn_depends_on_the_seed_and_the_place_alone():
  model = model_of(across=False)
  sampling = write.Sampling(temperature=2.0)
  found = write.write(model, ['a'] * 10, 8, sampling, seed=1)
  assert len(set(found)) > 8  # two batches, and no prompt's draws are another's
  assert write.write(model, ['b', *['a'] * 9], 8, sampling, seed=1)[1:] == found[1:]
  assert write.write(model, ['a'], 8, sampling, seed=2) != found[:1]
  assert ''.join(write.stream(model, 'a', 8, sampling, seed=1)) == found[0]


def test_an_answer_stops_at_the_end_of_its_turn():
  model = model_of('dialogue', template='chatml')
  tokenizer = _tokenizers.of_uri('bytes')
  ids, ends = write._begin(model, [('user', 'hello')])
  assert tokenizer.decode(ids, skip_special_tokens=False) == (
    '<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n'
  )
  assert ends == tuple(map(tokenizer.token_to_id, ('<|im_end|>', '<|endoftext|>')))
  assert write._text(model, [105, *ends, 106], ends) == tokenizer.decode([105])
  assert write._text(model, [105, 106], ends) == tokenizer.decode([105, 106])
  gemma = model_of('dialogue', template='gemma')
  with pytest.raises(ValueError, match='wants the token .* which the tokenizer lacks'):
    write.write(gemma, [[('user', 'hello')]], 4)


def test_a_text_stops_at_its_end(monkeypatch):
  model = model_of(across=False)
  tokenizer = _tokenizers.of_uri('bytes')
  assert write._begin(model, 'a')[1] == (tokenizer.token_to_id('<|endoftext|>'), 258)
  wanted = by_hand(model, tokenizer.encode('the cat').ids, 6)
  stop = wanted.index(wanted[3])
  monkeypatch.setattr(_tokenizers, 'ends', lambda uri: (wanted[3],))
  assert write.write(model, ['the cat'], 6) == [tokenizer.decode(wanted[:stop])]
  assert ''.join(write.stream(model, 'the cat', 6)) == tokenizer.decode(wanted[:stop])


@pytest.mark.parametrize('word, ends', [('</s>', True), ('<end_of_turn>', True), ('<s>', False)])
def test_the_ends_of_other_models_are_special_tokens(tmp_path, word, ends):
  tokenizer = Tokenizer(models.WordLevel({'a': 0}, unk_token='a'))
  tokenizer.add_tokens([word])
  tokenizer.save(str(tmp_path / 'plain.json'))
  assert _tokenizers.ends(str(tmp_path / 'plain.json')) == ()  # a text may hold it
  tokenizer.add_special_tokens([AddedToken(word, special=True)])
  tokenizer.save(str(tmp_path / 'special.json'))
  assert _tokenizers.ends(str(tmp_path / 'special.json')) == ((1,) if ends else ())


@pytest.mark.parametrize(
  'lines, found',
  [
    ('{"prompt": "a"}\n{"text": "b"}\n', ['a', 'b']),
    ('{"messages": [{"role": "user", "content": "a"}]}', [[('user', 'a')]]),
    ('{"prompt": "a"}\n{"words": "b"}', 'line 2 of .* has neither prompt, text nor messages'),
    ('\n{"text": 7}', 'line 2 of .* has neither'),
    ('[]', 'line 1 of .* has neither'),
    ('{"text": "a"}\n{"messages": [{"role": "user", "content": "a"}]}', 'a file of its own'),
  ],
)
def test_prompts_of_a_file(tmp_path, lines, found):
  path = tmp_path / 'x.jsonl'
  path.write_text(lines)
  if isinstance(found, list):
    assert write.prompts_of(str(path)) == found
  else:
    with pytest.raises(ValueError, match=found):
      write.prompts_of(str(path))


def test_what_writes_no_text_says_so():
  model = model_of()._replace(source={**model_of().source, 'form': 'text'})
  with pytest.raises(ValueError, match='a model writes no text: it is no language model'):
    write.write(model, ['a'], 4)


def test_padding_takes_no_position_that_is_needed():
  """Of 128 positions 65 tokens leave room for 63 more, and none for 64."""
  model = model_of(across=False)
  prompt = 'a' * 64  # and the token before it
  ids = _tokenizers.of_uri('bytes').encode(prompt).ids
  wanted = _tokenizers.of_uri('bytes').decode(by_hand(model, ids, 4))
  assert write.write(model, [prompt, 'b'], 4)[0] == wanted
  assert write._length(model, 65, 63) == 65
  with pytest.raises(ValueError, match='129 tokens, but the network has 128 positions'):
    write.write(model, [prompt], 64)


@pytest.mark.parametrize(
  'form, prompts, words',
  [
    ('language', [], 'no prompt to go on from'),
    ('language', [[('user', 'hello')]], 'answers no messages'),
    ('dialogue', ['hello'], 'answers messages, each a role'),
    ('dialogue', [[('user', None)]], 'answers messages, each a role'),
    ('dialogue', [[]], 'answers messages, each a role'),
  ],
)
def test_prompts_of_another_kind_are_one_error(form, prompts, words):
  model = model_of(form, **({'template': 'chatml'} if form == 'dialogue' else {}))
  with pytest.raises(ValueError, match=words):
    write.write(model, prompts, 4)


def test_answers_are_to_the_last_turns_that_there_is_room_for():
  model = model_of('dialogue', template='chatml', length=100)
  short = (('user', 'hi'), ('assistant', 'ho'))
  long = (('user', 'and now?'), ('assistant', 'b' * 50), ('user', 'c' * 50), ('assistant', 'd'))
  dialogues = [
    ('first', short),
    ('opened', (('assistant', 'who?'), *short)),
    ('long', (*short, *long)),
    ('alone', (('assistant', 'nobody asked'),)),
    ('full', (('user', 'e' * 100), ('assistant', 'f'))),
  ]
  found = {one.id: one for one in write.answers(model, dialogues, 9, 5)}
  assert set(found) == {'first', 'opened', 'long'}
  assert found['long'].prompt == (*short, long[0]) and found['long'].reference == 'b' * 50
  assert found['opened'].prompt == (('assistant', 'who?'), short[0])
  for one in found.values():
    assert one.text == write.write(model, [one.prompt], 5)[0].strip()
  assert len(write.answers(model, dialogues, 2, 5)) == 2
  assert write.answers(model, dialogues[3:], 2, 5) == []


def test_prompts_are_padded_at_the_left_to_few_lengths():
  padded = write._padded([[1, 2, 3], [4]], write._length(model_of(), 40, 8))
  assert padded['ids'].shape == (2, 64) and padded['mask'].sum(1).tolist() == [3, 1]
  assert padded['ids'][0, -3:].tolist() == [1, 2, 3] and padded['mask'][1, -1] == 1
  assert np.array_equal(padded['ids'] != 0, padded['mask'] == 1)
