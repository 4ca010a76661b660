"""Lines of JSON, rows of tables and records of TFDS that have messages, or a prompt and its answer:
dialogues.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlx.datasets import _lines, _tables
from tlx.datasets._types import Published

COLUMNS = ('messages', 'conversations', 'conversation', 'dialogue', 'turns')
# Or of one turn: what is asked, what about (of Alpaca and Dolly, often empty), and the answer.
_PROMPT = ('prompt', 'instruction')
_ABOUT = ('input', 'context')
_ANSWER = ('answer', 'response', 'completion', 'output')
CLASS_NAMES = ('dialogue',)  # what few-shot subsets balance over: there is one class of all
ANSWERS = 'assistant'  # who answers, where nothing else is said
_ROLES = {  # ShareGPT's names beside the usual ones
  'system': 'system',
  'user': 'user',
  'human': 'user',
  'assistant': 'assistant',
  'gpt': 'assistant',
}
_ROLE, _CONTENT = ('role', 'from', 'speaker'), ('content', 'value', 'text')

_COLUMNS = {'messages': COLUMNS, 'prompt': _PROMPT, 'about': _ABOUT, 'answer': _ANSWER}

Messages = tuple[tuple[str, str], ...]  # (role: system, user or assistant; what it says)


def published(
  files: list[_lines.File], group: str = '', skip_bad: bool = False, answers: str = ANSWERS
) -> Published:
  """The dialogues of files, as `_lines.published` has them, which raises.

  A line has a list of messages, each with a role and its content (in a cell of a table as JSON),
  or a prompt and its answer; what the prompt is about stands below it, an empty line between them.
  Neighbours of one role are joined by a line feed, and what follows the last answer is left out;
  how often is said.

  Args:
    answers: the role that answers. Where it is another than 'assistant', all others but the system
      are users; else they must be system, user and assistant.
  """
  changed: Counter[str] = Counter()

  def read(file: _lines.File) -> tuple[list[_lines.Record], list[str]]:
    header, lines = _lines.rows(file)
    others = {'split': _tables.SPLIT, 'group': _tables.GROUP}
    columns = _tables.columns(file.path, header, _COLUMNS | others, group)

    def record(line: _lines.Line) -> _lines.Record | str:
      said = _said(line, columns, answers)
      if isinstance(said, str):
        return said
      messages = _joined(said)
      spoken = _up_to_the_last_answer(messages)
      if not spoken:
        return f'no answer: nothing is said by {answers}'
      split, of_group, wrong = _lines.placed(file, line, columns)
      if wrong:
        return wrong
      changed.update(joined=len(messages) < len(said), cut=len(spoken) < len(messages))
      return _lines.Record(_lines.name_of(file, line), CLASS_NAMES[0], split, of_group, spoken)

    return _lines.checked(file, lines, record)

  found = _lines.published(files, read, 'messages on every line', group, skip_bad)
  return found._replace(notes=(*found.notes, *_notes(changed)))


def holds(names: Iterable[str]) -> bool:
  """Whether columns, in lower case, are those of dialogues.

  >>> holds(['messages']), holds(['instruction', 'output']), holds(['prompt', 'label'])
  (True, True, False)
  """
  names = set(names)
  pair = not names.isdisjoint(_PROMPT) and not names.isdisjoint(_ANSWER)
  return pair or not names.isdisjoint(COLUMNS)


def are_messages(kinds: Mapping[str, str]) -> bool:
  """Whether fields of these kinds (_tfds_texts.py) are a role and what it says."""
  roles = any(kinds.get(name) in ('text', 'class') for name in _ROLE)
  return roles and any(kinds.get(name) == 'text' for name in _CONTENT)


def roles(file: _lines.File, most: int = 50) -> tuple[str, ...]:
  """Who speaks in the first dialogues of a file, in the order of their first words."""
  found: dict[str, None] = {}
  for line in itertools.islice(_lines.rows(file)[1], most):
    column = next((name for name in COLUMNS if name in line.values), '')
    if not column and holds(name.strip().lower() for name in line.values):
      found.update(user=None, assistant=None)
    for message in _listed(line.values.get(column)) or ():
      if isinstance(message, Mapping) and (name := _field(message, _ROLE)):
        found.setdefault(str(name), None)
  return tuple(found)


def _said(
  line: _lines.Line, columns: Mapping[str, str], answers: str
) -> list[tuple[str, str]] | str:
  """The messages of a line, or what is wrong with it."""
  if 'prompt' not in columns or line.values.get(columns.get('messages', '')) is not None:
    return _messages(line.values.get(columns.get('messages', COLUMNS[0])), answers)
  if answers != ANSWERS:
    return f'a prompt and its answer, in which no {answers} speaks: leave answers out'
  prompt, answer = line.values.get(columns['prompt']), line.values.get(columns.get('answer', ''))
  about = line.values.get(columns.get('about', ''))
  wrong = _lines.wrong_value(prompt, 'prompt', (str,), 'text')
  wrong = wrong or _lines.wrong_value(answer, 'answer', (str,), 'text')
  if about not in (None, ''):
    wrong = wrong or _lines.wrong_value(about, columns['about'], (str,), 'text')
    prompt = f'{prompt}\n\n{about}'
  return wrong or [('user', str(prompt)), ('assistant', str(answer))]


def _messages(found: Any, answers: str) -> list[tuple[str, str]] | str:
  """The messages of a line, or what is wrong with the first that cannot be used."""
  found = _listed(found)
  if not isinstance(found, Sequence) or isinstance(found, str) or not found:
    return 'no list of messages'
  messages: list[tuple[str, str]] = []
  for number, message in enumerate(found, 1):
    if not isinstance(message, Mapping):
      return f'a {type(message).__name__} as its message {number}, wanted a role and its content'
    name, content = _field(message, _ROLE), _field(message, _CONTENT)
    role = _role(name, answers)
    if not role:
      return (
        f'the unknown role {name!r} in message {number}; have {", ".join(_ROLES)}, or name who '
        "answers (answers = 'doctor')"
      )
    kind = f'{"answer" if role == "assistant" else "text"} (message {number})'
    if wrong := _lines.wrong_value(content, kind, (str,), 'text'):
      return wrong
    messages.append((role, content))
  return messages


def _listed(found: Any) -> Any:
  """What a value is, or what JSON says in a cell of a table."""
  if not isinstance(found, str):
    return found
  try:
    return json.loads(found)
  except (ValueError, RecursionError):
    return None


def _field(message: Mapping[str, Any], names: Sequence[str]) -> Any:
  """The first of these fields that there is, or None."""
  return next((message[name] for name in names if name in message), None)


def _role(name: Any, answers: str) -> str:
  """Who speaks, or '' where that is not known."""
  if answers == ANSWERS or not isinstance(name, str) or not name:
    return _ROLES.get(name, '') if isinstance(name, str) else ''
  if name == answers:
    return 'assistant'
  return 'system' if name == 'system' else 'user'


def _joined(messages: Sequence[tuple[str, str]]) -> Messages:
  """The messages, with neighbours of one role as one.

  >>> _joined([('user', 'a'), ('user', 'b'), ('assistant', 'c')])
  (('user', 'a\\nb'), ('assistant', 'c'))
  """
  joined: list[tuple[str, str]] = []
  for role, content in messages:
    if joined and joined[-1][0] == role:
      joined[-1] = role, f'{joined[-1][1]}\n{content}'
    else:
      joined.append((role, content))
  return tuple(joined)


def _up_to_the_last_answer(messages: Messages) -> Messages:
  """The messages without those that no answer follows."""
  last = max([i for i, (role, _) in enumerate(messages) if role == 'assistant'], default=-1)
  return messages[: last + 1]


def _notes(changed: Mapping[str, int]) -> tuple[str, ...]:
  """What to say of dialogues that were changed."""
  notes = []
  if changed['joined']:
    notes.append(
      f'In {changed["joined"]:,} dialogues neighbours of one role are joined by a line feed.'
    )
  if changed['cut']:
    notes.append(f'Of {changed["cut"]:,} dialogues what follows the last answer is left out.')
  return tuple(notes)
