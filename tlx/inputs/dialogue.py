"""Dialogues: rows of tokens as a chat template writes them, of which the answers are learned."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tlx import datasets
from tlx.inputs import _chat, _targets, _tokenizers
from tlx.types import Form

KIND = 'dialogue'  # the data sets that are made into this
INPUT = _targets.INPUT | {
  'template': ''  # how a dialogue is written down (_chat.py); '' is as the weights bring it
}
OF_NETWORK = _targets.OF_NETWORK
OWN_HEAD = True  # tasks of it go on with the head that weights bring
RANGES = _targets.RANGES | {'template': ('', *_chat.NAMES)}
AUGMENT = _targets.AUGMENT
HOW = _targets.HOW
settled = _tokenizers.settled
check_memory = _targets.check_memory


@functools.cache
def form(length: int, tokenizer: str, vocab_size: int = 0, template: str = '') -> Form:
  """Rows of `length` tokens, one a dialogue, and at each the token of an answer to predict or none.

  The leaves are explained in _targets.py, which raises.
  """
  if template:
    _chat.check(template)
  options = {
    'length': length,
    'tokenizer': tokenizer,
    'vocab_size': vocab_size,
    'template': template,
  }
  return _targets.form('dialogue', options)


def load(name: str, fields: Mapping[str, Any], how: Mapping[str, Any]) -> datasets.Dataset:
  """The data set as rows of dialogues, as `_targets.load` has them, which raises.

  Raises:
    ValueError: the weights bring no chat template that is known, and `template` names none.
  """

  def store(
    parts: Mapping[str, Sequence[Any]], tokenizer: Tokenizer
  ) -> tuple[dict[str, _targets.Rows], tuple[str, ...]]:
    return store_parts(parts, tokenizer, fields['length'], template)

  template = fields['template'] or template_of(fields['tokenizer'])
  return _targets.load(name, fields, how, KIND, store)


def prompt(
  messages: Sequence[_chat.Message], fields: Mapping[str, Any]
) -> tuple[list[int], tuple[int, ...]]:
  """(the tokens of a dialogue up to where the next answer begins, those that end an answer).

  Raises:
    ValueError: as `load`, or messages in an order that the template cannot write.
  """
  of_str = not isinstance(messages, str) and all(
    len(one) == 2 and all(isinstance(word, str) for word in one) for one in messages
  )
  if not of_str or not messages:
    raise ValueError('This model answers messages, each a role and what it says.')
  template = fields['template'] or template_of(fields['tokenizer'])
  tokenizer = _tokenizers.of_uri(fields['tokenizer'])
  _chat.check_tokens(template, tokenizer)
  written = _chat.written(template, messages, prompt=True)
  (learned,) = _chat.encode(_tokenizers.plain(tokenizer), [written])
  whole = _chat.written(template, [('user', 'a'), ('assistant', 'b')])
  vocabulary = tokenizer.get_vocab()
  turn = [vocabulary[piece.text] for piece in whole if piece.mark and piece.kind == 'end']
  ends = dict.fromkeys(
    [*turn, *_tokenizers.ends(fields['tokenizer'])]
  )  # a model may end all with a turn
  return learned.tokens.ids.tolist(), tuple(ends)


def template_of(tokenizer: str) -> str:
  """The chat template of the weights that bring a tokenizer; of one that is made here chatml."""
  if tokenizer == 'bytes' or tokenizer.startswith('bpe:'):
    return 'chatml'
  return _chat.name_of(_tokenizers.chat_template(tokenizer))


def store_parts(
  parts: Mapping[str, Sequence[Sequence[_chat.Message]]],
  tokenizer: Tokenizer,
  length: int,
  template: str = 'chatml',
) -> tuple[dict[str, _targets.Rows], tuple[str, ...]]:
  """({part: its rows of `length` tokens}, what to say of dialogues that were cut and of padding).

  Predicted are the tokens of each answer and the one that ends it, which covers no text. A dialogue
  of more than `length` tokens loses its end, and one is left out of which that takes every answer.

  Raises:
    ValueError: a template that there is not, that the tokenizer has no tokens for or that cannot
      write these messages, characters that the tokenizer has no token for, or a part of which
      nothing is left.
  """
  _chat.check_tokens(template, tokenizer)
  plain = _tokenizers.plain(tokenizer)
  rows, notes = {}, []
  for part, dialogues in parts.items():
    written = [_chat.written(template, messages) for messages in dialogues]
    learned = _chat.encode(plain, written)
    _targets.check_known(tokenizer, part, [dialogue.tokens.ids for dialogue in learned])
    kept = [row for row, dialogue in enumerate(learned) if dialogue.wanted[1 : length + 1].any()]
    if not kept:
      raise ValueError(
        f'Of the {len(learned):,} dialogues of {part} none has an answer within its first {length} '
        'tokens. Raise length.'
      )
    leaves = _leaves([learned[row] for row in kept], length)
    rows[part] = _targets.Rows(leaves, np.array(kept))
    notes.append(_note(part, learned, leaves, length))
  return rows, tuple(notes)


def _leaves(dialogues: Sequence[_chat.Learned], length: int) -> dict[str, np.ndarray]:
  """The leaves of a dialogue a row."""
  leaves = _targets.empty(len(dialogues), length)
  for i, (tokens, wanted) in enumerate(dialogues):
    ids, places = tokens.ids[: length + 1], min(length, len(tokens.ids) - 1)
    leaves['ids'][i, :places] = ids[:-1]
    leaves['mask'][i, :places] = 1
    learn = np.flatnonzero(wanted[1 : length + 1])
    leaves['next'][i, learn] = ids[1:][learn]
    leaves['bytes'][i, learn] = tokens.bytes[1:][learn]
    leaves['characters'][i, learn] = tokens.characters[1:][learn]
  return leaves


def _note(
  part: str, learned: Sequence[_chat.Learned], leaves: Mapping[str, np.ndarray], length: int
) -> str:
  """How many dialogues were cut or left out, how much of the answers is lost, and padding."""
  cut = sum(len(dialogue.tokens.ids) > length + 1 for dialogue in learned)
  left_out = len(learned) - len(leaves['mask'])
  wanted = sum(int(dialogue.wanted[1:].sum()) for dialogue in learned)
  lost = 1 - np.sum(leaves['next'] >= 0) / wanted
  padding = np.mean(leaves['mask'] == 0)
  said = f'Dialogues of {part} are rows of {length} tokens, {padding:.0%} of them padding.'
  if not cut:
    return said
  return said + (
    f' {cut:,} of {len(learned):,} are longer and were cut (length), {left_out:,} of them before '
    f'their first answer: {lost:.1%} of the tokens to learn are lost.'
  )
