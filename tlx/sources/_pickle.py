"""A pickle reader that builds tuples, lists, dicts, strings and numbers, and calls nothing but what it is handed.

Python's own unpickler imports and calls whatever a file names. This one is a small stack machine over
`pickletools.genops`: a global is an inert name, checked against a list before it is even pushed.
"""
import pickletools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple


class Global(NamedTuple):
  """A name that a pickle asks for; never imported."""
  name: str


def loads(stream: Any, allowed: Collection[str], call: Callable[[str, tuple], Any], persistent: Callable[[Any], Any]) -> Any:
  """The object of the next pickle in `stream`, which is left behind its end.

  Args:
    allowed: the globals ('collections.OrderedDict') that may be named.
    call: stands in for calling a global: (name, arguments) -> object.
    persistent: stands in for loading what is stored outside the pickle: id -> object.

  Raises:
    ValueError: another global, an opcode that data does not need, a call or an item of another kind than data has.
    Exception: whatever a malformed pickle makes of the stack (IndexError, TypeError, ...).
  """
  machine = _Machine(allowed, call, persistent)
  for opcode, argument, position in pickletools.genops(stream):
    if opcode.name == 'STOP':
      return machine.result()
    if opcode.name not in _RUN:
      raise ValueError(f'pickle opcode {opcode.name} at byte {position} is not one that arrays need; refused')
    _RUN[opcode.name](machine, argument)
  raise ValueError('the pickle has no end')


class _Machine:
  """The stack, its marks and the memo of one pickle."""

  def __init__(self, allowed: Collection[str], call: Callable, persistent: Callable):
    self.allowed, self.call, self.persistent = allowed, call, persistent
    self.stack: list[Any] = []
    self.marks: list[int] = []
    self.memo: dict[int, Any] = {}

  def push(self, value: Any):
    self.stack.append(value)

  def pop(self, count: int) -> list:
    if count > len(self.stack):
      raise ValueError('the pickle takes more than it has')
    items = self.stack[len(self.stack) - count:]
    del self.stack[len(self.stack) - count:]
    return items

  def to_mark(self) -> list:
    return self.pop(len(self.stack) - self.marks.pop())

  def look_up(self, module: str, name: str):
    if (full := f'{module}.{name}') not in self.allowed:
      raise ValueError(f'the pickle asks for {full}, which is no array. Nothing was run. '
                       'If you trust the file, load it with torch and save its state_dict() alone, or as safetensors')
    self.push(Global(full))

  def reduce(self, function: Any, arguments: Any):
    if not isinstance(function, Global) or type(arguments) is not tuple:
      raise ValueError(f'the pickle calls {str(function)[:80]} with {str(arguments)[:80]}')
    self.push(self.call(function.name, arguments))

  def extend(self, items: list):
    if type(self.stack[-1]) is not list:
      raise ValueError(f'the pickle appends to a {type(self.stack[-1]).__name__}')
    self.stack[-1].extend(items)

  def update(self, items: list):
    if type(self.stack[-1]) is not dict or len(items) % 2:
      raise ValueError(f'the pickle sets {len(items)} keys and values of a {type(self.stack[-1]).__name__}')
    self.stack[-1].update(zip(items[::2], items[1::2]))

  def build(self, _: Any):
    """Attributes of a dict, such as the versions in state_dict()._metadata, are not needed; nothing else may have any."""
    if type(self.stack[-1]) is not dict:
      raise ValueError(f'the pickle sets attributes of a {type(self.stack[-1]).__name__}')

  def result(self) -> Any:
    if len(self.stack) != 1 or self.marks:
      raise ValueError('the pickle ends with objects left over')
    return self.stack[0]


_RUN: dict[str, Callable[[_Machine, Any], Any]] = {
    'PROTO': lambda m, _: None,
    'FRAME': lambda m, _: None,
    **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES',
                     'SHORT_BINBYTES', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'), _Machine.push),
    'NONE': lambda m, _: m.push(None),
    'NEWTRUE': lambda m, _: m.push(True),
    'NEWFALSE': lambda m, _: m.push(False),
    'EMPTY_DICT': lambda m, _: m.push({}),
    'EMPTY_LIST': lambda m, _: m.push([]),
    'EMPTY_TUPLE': lambda m, _: m.push(()),
    'TUPLE1': lambda m, _: m.push(tuple(m.pop(1))),
    'TUPLE2': lambda m, _: m.push(tuple(m.pop(2))),
    'TUPLE3': lambda m, _: m.push(tuple(m.pop(3))),
    'MARK': lambda m, _: m.marks.append(len(m.stack)),
    'TUPLE': lambda m, _: m.push(tuple(m.to_mark())),
    **dict.fromkeys(('BINPUT', 'LONG_BINPUT'), lambda m, place: m.memo.__setitem__(place, m.stack[-1])),
    **dict.fromkeys(('BINGET', 'LONG_BINGET'), lambda m, place: m.push(m.memo[place])),
    'MEMOIZE': lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    'GLOBAL': lambda m, names: m.look_up(*names.split(' ', 1)),
    'STACK_GLOBAL': lambda m, _: m.look_up(*m.pop(2)),
    'BINPERSID': lambda m, _: m.push(m.persistent(*m.pop(1))),
    'REDUCE': lambda m, _: m.reduce(*m.pop(2)),
    'BUILD': lambda m, _: m.build(*m.pop(1)),
    'APPEND': lambda m, _: m.extend(m.pop(1)),
    'APPENDS': lambda m, _: m.extend(m.to_mark()),
    'SETITEM': lambda m, _: m.update(m.pop(2)),
    'SETITEMS': lambda m, _: m.update(m.to_mark()),
}
