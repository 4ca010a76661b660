"""A pickle reader of containers, strings, numbers and records that calls only what it is handed.

Python's own unpickler imports and calls whatever a file names. This one is a small stack machine
over `pickletools.genops`: a global is an inert name, checked against a list before it is even
pushed.
"""

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

from tlx.sources._budget import brief

_LONGEST_KEY = 16  # items of a tuple that is a key
_LARGEST_KEY = 1 << 64  # numbers beyond can be made to share a hash


class Global(NamedTuple):
  """A name that a pickle asks for; never imported."""

  name: str


class Record(dict):
  """What stands for an object of a class that is no array: its class's name.

  Of a kind of dict it has the items. As a key it is itself alone, and its text is its name: what it
  holds may be deep or hold itself.
  """

  __slots__ = ('name',)

  def __init__(self, name: str):
    super().__init__()
    self.name = name

  def __eq__(self, other: object) -> bool:
    return self is other

  def __hash__(self) -> int:  # type: ignore[override]
    return id(self)

  def __repr__(self) -> str:
    return f'<{self.name}>'


def loads(
  stream: Any,
  allows: Callable[[str], bool],
  call: Callable[[str, tuple], Any],
  persistent: Callable[[Any], Any],
) -> Any:
  """The object of the next pickle in `stream`, which is left behind its end.

  Args:
    allows: whether a global ('collections.OrderedDict') may be named.
    call: stands in for calling a global: (name, arguments) -> object.
    persistent: stands in for loading what is stored outside the pickle: id -> object.

  Raises:
    ValueError: another global, an opcode that data does not need, a call or an item of another kind
      than data has.
    Exception: whatever a malformed pickle makes of the stack (IndexError, TypeError, ...).
  """
  machine = _Machine(allows, call, persistent)
  for opcode, argument, position in pickletools.genops(stream):
    if opcode.name == 'STOP':
      return machine.result()
    if opcode.name not in _RUN:
      raise ValueError(
        f'pickle opcode {opcode.name} at byte {position} is not one that arrays need; refused'
      )
    _RUN[opcode.name](machine, argument)
  raise ValueError('the pickle has no end')


class _Machine:
  """The stack, its marks and the memo of one pickle."""

  def __init__(self, allows: Callable, call: Callable, persistent: Callable):
    self.allows, self.call, self.persistent = allows, call, persistent
    self.stack: list[Any] = []
    self.marks: list[int] = []
    self.memo: dict[int, Any] = {}

  def push(self, value: Any):
    self.stack.append(value)

  def pop(self, count: int) -> list:
    if count > len(self.stack):
      raise ValueError('the pickle takes more than it has')
    items = self.stack[len(self.stack) - count :]
    del self.stack[len(self.stack) - count :]
    return items

  def to_mark(self) -> list:
    return self.pop(len(self.stack) - self.marks.pop())

  def look_up(self, module: Any, name: Any):
    if type(module) is not str or type(name) is not str:
      kinds = f'a {type(module).__name__} and a {type(name).__name__}'
      raise ValueError(f'the pickle asks for a global named by {kinds}')
    if not self.allows(full := f'{module}.{name}'):
      raise ValueError(
        f'the pickle asks for {brief(full)}, which is no array. Nothing was run. '
        'If you trust the file, load it with torch and save its state_dict() alone, or as '
        'safetensors'
      )
    self.push(Global(full))

  def reduce(self, function: Any, arguments: Any):
    if not isinstance(function, Global) or type(arguments) is not tuple:
      kinds = f'a {type(function).__name__} with a {type(arguments).__name__}'
      raise ValueError(f'the pickle calls {kinds}')
    self.push(self.call(function.name, arguments))

  def new(self, kind: Any):
    if not isinstance(kind, Global):
      raise ValueError(f'the pickle makes an object of a {type(kind).__name__}')
    self.push(Record(kind.name))

  def extend(self, items: list):
    if type(self.stack[-1]) is list:
      self.stack[-1].extend(items)
    elif type(self.stack[-1]) is not Record:  # a record's items are passed over, as its attributes
      raise ValueError(f'the pickle appends to a {type(self.stack[-1]).__name__}')

  def update(self, items: list):
    if type(self.stack[-1]) not in (dict, Record) or len(items) % 2:
      raise ValueError(
        f'the pickle sets {len(items)} keys and values of a {type(self.stack[-1]).__name__}'
      )
    self.stack[-1].update(zip(map(key, items[::2]), items[1::2]))

  def build(self, _: Any):
    """Attributes of dicts (the versions in state_dict()._metadata) and records are not needed."""
    if type(self.stack[-1]) not in (dict, Record):
      raise ValueError(f'the pickle sets attributes of a {type(self.stack[-1]).__name__}')

  def result(self) -> Any:
    if len(self.stack) != 1 or self.marks:
      raise ValueError('the pickle ends with objects left over')
    return self.stack[0]


def key(value: Any) -> Any:
  """`value`, if its hash costs nothing.

  Raises:
    ValueError: it is a container of containers, or a number that can be made to share its hash.
  """
  for item in value if type(value) is tuple and len(value) <= _LONGEST_KEY else (value,):
    small = type(item) is int and abs(item) < _LARGEST_KEY
    if not small and type(item) not in (str, bytes, bool, float, type(None), Global, Record):
      raise ValueError(f'the pickle has a {type(item).__name__} as a key')
  return value


_RUN: dict[str, Callable[[_Machine, Any], Any]] = {
  'PROTO': lambda m, _: None,
  'FRAME': lambda m, _: None,
  **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT'), _Machine.push),
  **dict.fromkeys(
    (
      'BINSTRING',
      'SHORT_BINSTRING',
      'BINUNICODE',
      'SHORT_BINUNICODE',
      'BINUNICODE8',
      'BINBYTES',
      'SHORT_BINBYTES',
      'BINBYTES8',
      'BYTEARRAY8',
    ),
    _Machine.push,
  ),
  'NONE': lambda m, _: m.push(None),
  'NEWTRUE': lambda m, _: m.push(True),
  'NEWFALSE': lambda m, _: m.push(False),
  'EMPTY_DICT': lambda m, _: m.push({}),
  **dict.fromkeys(('EMPTY_LIST', 'EMPTY_SET'), lambda m, _: m.push([])),
  'EMPTY_TUPLE': lambda m, _: m.push(()),
  'TUPLE1': lambda m, _: m.push(tuple(m.pop(1))),
  'TUPLE2': lambda m, _: m.push(tuple(m.pop(2))),
  'TUPLE3': lambda m, _: m.push(tuple(m.pop(3))),
  'MARK': lambda m, _: m.marks.append(len(m.stack)),
  'TUPLE': lambda m, _: m.push(tuple(m.to_mark())),
  'FROZENSET': lambda m, _: m.push(m.to_mark()),
  **dict.fromkeys(
    ('BINPUT', 'LONG_BINPUT'), lambda m, place: m.memo.__setitem__(place, m.stack[-1])
  ),
  **dict.fromkeys(('BINGET', 'LONG_BINGET'), lambda m, place: m.push(m.memo[place])),
  'MEMOIZE': lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
  'GLOBAL': lambda m, names: m.look_up(*names.split(' ', 1)),
  'STACK_GLOBAL': lambda m, _: m.look_up(*m.pop(2)),
  'BINPERSID': lambda m, _: m.push(m.persistent(*m.pop(1))),
  'REDUCE': lambda m, _: m.reduce(*m.pop(2)),
  'NEWOBJ': lambda m, _: m.new(m.pop(2)[0]),
  'NEWOBJ_EX': lambda m, _: m.new(m.pop(3)[0]),
  'BUILD': lambda m, _: m.build(*m.pop(1)),
  'APPEND': lambda m, _: m.extend(m.pop(1)),
  **dict.fromkeys(('APPENDS', 'ADDITEMS'), lambda m, _: m.extend(m.to_mark())),
  'SETITEM': lambda m, _: m.update(m.pop(2)),
  'SETITEMS': lambda m, _: m.update(m.to_mark()),
}
