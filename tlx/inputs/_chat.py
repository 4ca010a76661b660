"""Chat templates by name: how a dialogue is written down for a model that was trained to answer.

The template that weights bring is a program (Jinja), which is never run: it is recognised where its
text is known (`name_of`), else the user says which one it is. What is written here is tested
against what the official renderers write.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from tlx.inputs import _targets
from tlx.plug import closest

Message = tuple[str, str]  # its role (system, user or assistant) and what it says


class Piece(NamedTuple):
  """A part of a dialogue as it is written down.

  kind: 'text' is read alone; 'answer' and the 'end' behind it are learned
  joined: it is split into tokens together with the piece before it; else it begins anew
  mark: it is a control token
  """

  text: str
  kind: str = 'text'
  joined: bool = False
  mark: bool = False


_MARK = re.compile(
  r'(<\|(?:im|start|end|eot|begin)_[a-z_]+\|>|<(?:start|end)_of_turn>|</?s>|<bos>)'
)


def _literal(text: str, kind: str = 'text') -> list[Piece]:
  """The control tokens of a template's own text, and what stands between them."""
  parts = enumerate(_MARK.split(text))
  return [Piece(part, kind, mark=bool(i % 2)) for i, part in parts if part]


def _headed(
  header: str,
  end: str,
  after: str = '',
  begin: str = '',
  called: Mapping[str, str] | None = None,
  joined: bool = False,
  stripped: bool = False,
  system: str = '',
) -> Callable[[Sequence[Message], bool], Iterator[Piece]]:
  """A template of messages that each stand behind a header with their role.

  Args:
    begin: what stands before all; `end` and `after` stand behind each message, and the end of an
      answer is learned.
    called: what roles are called where not by their names.
    joined: a message is split into tokens together with its header.
    stripped: messages lose the white space around them.
    system: the system message of a dialogue that has none.
  """

  def header_of(role: str) -> list[Piece]:
    return _literal(header.replace('ROLE', (called or {}).get(role, role)))

  def written(messages: Sequence[Message], prompt: bool) -> Iterator[Piece]:
    if system and messages and messages[0][0] != 'system':
      messages = [('system', system), *messages]
    yield from _literal(begin)
    for role, content in messages:
      answer = role == 'assistant'
      yield from header_of(role)
      content = content.strip() if stripped else content
      yield Piece(content, 'answer' if answer else 'text', joined)
      yield from _literal(end, 'end' if answer else 'text')
      yield from _literal(after)
    if prompt:
      yield from header_of('assistant')

  return written


def _instructions(
  every: bool, around: str, stripped: bool
) -> Callable[[Sequence[Message], bool], Iterator[Piece]]:
  """A template of instructions, each followed by its answer and </s>.

  Args:
    every: <s> stands before each instruction, else before the first alone.
    around: what stands on both sides of an answer; that behind it is learned.
    stripped: messages lose the white space around them.
  """

  def written(messages: Sequence[Message], prompt: bool) -> Iterator[Piece]:
    before = ''
    for i, (role, content) in enumerate(messages):
      content = content.strip() if stripped else content
      if role == 'system':
        before = f'<<SYS>>\n{content}\n<</SYS>>\n\n'
      elif role == 'user':
        if every or i == bool(before):
          yield Piece('<s>', mark=True)
        yield Piece(f'[INST] {before}')
        yield Piece(content, joined=True)
        yield Piece(' [/INST]', joined=True)
        before = ''
      else:
        yield Piece(around, joined=True)
        yield Piece(content, 'answer', joined=True)
        yield Piece(around, 'end', joined=True)
        yield Piece('</s>', 'end', mark=True)

  return written


_CHATML = ('<|im_start|>ROLE\n', '<|im_end|>', '\n')
_SMOLLM2 = 'You are a helpful AI assistant named SmolLM, trained by Hugging Face'
_TEMPLATES = {
  'chatml': _headed(*_CHATML),
  'smollm2': _headed(*_CHATML, system=_SMOLLM2),
  'llama2': _instructions(every=True, around=' ', stripped=True),
  'llama3': _headed(
    '<|start_header_id|>ROLE<|end_header_id|>\n\n',
    '<|eot_id|>',
    begin='<|begin_of_text|>',
    stripped=True,
  ),
  'mistral': _instructions(every=False, around='', stripped=False),  # Instruct v0.1 and v0.2
  'zephyr': _headed('<|ROLE|>\n', '</s>', '\n', joined=True),
  'gemma': _headed(
    '<start_of_turn>ROLE\n',
    '<end_of_turn>',
    '\n',
    begin='<bos>',
    called={'assistant': 'model'},
    stripped=True,
  ),
}
NAMES = tuple(_TEMPLATES)
_TURN_BY_TURN = ('llama2', 'mistral', 'gemma')  # a user and an answer by turns, the user first
_NO_SYSTEM = ('mistral', 'gemma')

# The SHA-256 of templates as model files bring them, with line feeds for \n.
_KNOWN = {
  '153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3': 'chatml',
  '872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788': 'smollm2',
  '26a59556925c987317ce5291811ba3b7f32ec4c647c400c6cc7e3a9993007ba7': 'mistral',
}


def check(name: str) -> None:
  """Raises ValueError where there is no chat template of that name."""
  if name not in _TEMPLATES:
    raise ValueError(
      f'Unknown chat template {name!r}; have {", ".join(_TEMPLATES)}.{closest(name, _TEMPLATES)}'
    )


def name_of(jinja: str) -> str:
  """The name of the template that weights bring ('chat_template' of tokenizer_config.json, or
  'tokenizer.chat_template' of a GGUF file).

  Raises:
    ValueError: there is none, or one that is not known.
  """
  have = f'Say which one the model was trained with: template = one of {", ".join(_TEMPLATES)}.'
  if not jinja:
    raise ValueError(f'The weights bring no chat template. {have}')
  text = jinja.replace('\\n', '\n').strip()  # Jinja reads both alike
  found = _KNOWN.get(hashlib.sha256(text.encode()).hexdigest())
  if found is None:
    raise ValueError(
      f'The weights bring a chat template that is not known, {jinja[:60]!r}..., and templates of '
      f'files are not run. {have}'
    )
  return found


def written(name: str, messages: Sequence[Message], prompt: bool = False) -> list[Piece]:
  """The pieces of a dialogue; with `prompt`, up to where the next answer begins.

  Raises:
    ValueError: an unknown template, or messages in an order that it cannot write.
  """
  check(name)
  roles = [role for role, _ in messages]
  if name in _NO_SYSTEM and 'system' in roles:
    raise ValueError(
      f'The chat template {name} has no place for a system message. Leave it out, or say it in the '
      'first message of the user.'
    )
  spoken = roles[1:] if roles[:1] == ['system'] else roles
  by_turns = [('user', 'assistant')[i % 2] for i in range(len(spoken))]
  if name in _TURN_BY_TURN and spoken != by_turns:
    raise ValueError(
      f'The chat template {name} cannot write messages of {", ".join(roles)}; it wants user and '
      'assistant by turns, the user first.'
    )
  return [piece for piece in _TEMPLATES[name](messages, prompt) if piece.text]


def check_tokens(name: str, tokenizer: Tokenizer) -> None:
  """Raises ValueError where a tokenizer has no token for a control token of the template, or has
  one for what the template writes as text.
  """
  sample = written(name, [('user', 'a'), ('assistant', 'b')])
  added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
  for piece in sample:
    known = tokenizer.token_to_id(piece.text) is not None
    if piece.mark and not known:
      raise ValueError(
        f'The chat template {name} wants the token {piece.text!r}, which the tokenizer lacks. Take '
        f'the template that the model was trained with: {", ".join(_TEMPLATES)}.'
      )
    if not piece.mark and any(word in piece.text for word in added if word.strip()):
      raise ValueError(
        f'The chat template {name} writes {piece.text!r} as text, and the tokenizer has a token in '
        f'it. Take the template that the model was trained with: {", ".join(_TEMPLATES)}.'
      )


class Learned(NamedTuple):
  """A dialogue as tokens [n]; `wanted` are those to learn."""

  tokens: _targets.Tokens
  wanted: np.ndarray


def encode(tokenizer: Tokenizer, dialogues: Sequence[Sequence[Piece]]) -> list[Learned]:
  """The tokens of dialogues as they are written down.

  What a message says is text, whatever stands in it: control tokens are the template's alone.

  Args:
    tokenizer: one to which special tokens within a text are text (`_tokenizers.plain`).
  """
  texts: dict[str, None] = {}
  of_runs = [list(runs(pieces)) for pieces in dialogues]
  for run in (run for of_dialogue in of_runs for run in of_dialogue):
    if not run[0].mark:
      texts[''.join(piece.text for piece in run)] = None
  found = dict(zip(texts, tokenizer.encode_batch(list(texts), add_special_tokens=False)))
  return [_joined([_learned(tokenizer, run, found) for run in run_list]) for run_list in of_runs]


def runs(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
  """Neighbours that are split into tokens together."""
  run: list[Piece] = []
  for piece in pieces:
    if run and not (piece.joined and not run[0].mark):
      yield run
      run = []
    run = [*run, piece]
  yield run


def _learned(tokenizer: Tokenizer, run: list[Piece], found: Mapping[str, Encoding]) -> Learned:
  """The tokens of a run; each covers what it has of answers, if it is to learn."""
  if run[0].mark:
    ids = np.array([tokenizer.token_to_id(run[0].text)], np.int32)
    nothing = np.full(1, -1)
    return Learned(_targets.Tokens(ids, nothing, nothing), np.array([run[0].kind == 'end']))
  text = ''.join(piece.text for piece in run)
  ids, _, characters = _targets.tokens(text, found[text])
  ends = np.cumsum(characters)
  begins = ends - characters
  counts = np.full((2, len(ids)), -1)  # bytes and characters
  wanted = np.zeros(len(ids), bool)
  upto = _targets.byte_ends(text)
  place = 0
  for piece in run:
    first, last = place, place + len(piece.text)
    place = last
    if piece.kind == 'text':
      continue
    within = (ends > first) & ((begins < last) | (ends <= last))
    wanted |= within
    if piece.kind == 'answer':
      low, high = np.clip(begins, first, last), np.clip(ends, first, last)
      counts[:, within] = np.stack([upto[high] - upto[low], high - low])[:, within]
  return Learned(_targets.Tokens(ids, *counts), wanted)


def _joined(parts: Sequence[Learned]) -> Learned:
  """The tokens of all runs of a dialogue."""
  tokens = _targets.Tokens(*map(np.concatenate, zip(*(part.tokens for part in parts))))
  return Learned(tokens, np.concatenate([part.wanted for part in parts]))
