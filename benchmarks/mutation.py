"""Mutation testing: how many small faults, put into the code one at a time, the tests notice.

  python -m benchmarks.mutation --sample=40                # anywhere in train/, study/, report/
  python -m benchmarks.mutation --files tlx/train/step.py  # every fault in one file
  python -m benchmarks.mutation --sample=40 --list         # shows the faults and runs nothing

A fault is a comparison, an operator, a condition, a truth value or a number that is another, a call
that is left out, or a result that is None; a sample has as many of each kind. Each is put into a
copy of the checkout, where the tests of that file run until one fails; a run past the time limit
counts as noticed. The score is the share of faults noticed. Some that are not are no faults: a
buffer's size, an order that nothing depends on. 40 faults take about an hour on 2 cores.
"""

import argparse
import ast
import itertools
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ('tlx/train/*.py', 'tlx/study/*.py', 'tlx/report/*.py', 'tlx/checkpoint.py', 'tlx/tree.py')
FILES: list[str] = []
for _room in ROOMS:
  FILES += [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(_room))]
COPIED = ('tlx', 'tests', 'configs', 'experiments', 'third_party', 'pyproject.toml')

# The tests of a file in tests/, quick ones first; those of another file are its whole room's.
TESTS = {
  'tlx/checkpoint.py': 'train/test_kills_state train/test_fit sources/test_study study/test_trust',
  'tlx/tree.py': 'test_tree train/test_kills_state train/test_step train/test_fit',
  'tlx/inputs/image.py': 'train/test_kills_randomness train/test_step',
  'tlx/train/cohort.py': 'train/test_kills_state train/test_fit study/test_plan',
  'tlx/train/exact.py': 'train/test_exact',
  'tlx/train/feed.py': 'train/test_feed train/test_fit train/test_exact train/test_prefix'
  ' train/test_stream',
  'tlx/train/fit.py': 'train/test_kills_state train/test_kills_randomness train/test_kills_frozen'
  ' train/test_fit train/test_exact study/test_plan study/test_weights',
  'tlx/train/mesh.py': 'train/test_fit train/test_exact train/test_devices',
  'tlx/train/optim.py': 'train/test_optim train/test_step',
  'tlx/train/prefix.py': 'train/test_prefix study/test_weights',
  'tlx/train/spread.py': 'train/test_fit train/test_exact train/test_devices',
  'tlx/train/stream.py': 'train/test_stream train/test_fit',
  'tlx/train/step.py': 'train/test_kills_randomness train/test_step train/test_fit',
  'tlx/study/config.py': 'test_configs study/test_plan study/test_weights study/test_run',
  'tlx/study/pair.py': 'study/test_kills_study study/test_weights study/test_run',
  'tlx/study/phases.py': 'study/test_kills_study study/test_plan study/test_weights',
  'tlx/study/progress.py': 'study/test_progress study/test_run',
  'tlx/study/run.py': 'study/test_kills_study study/test_trust study/test_plan study/test_weights'
  ' study/test_run',
  'tlx/study/store.py': 'study/test_kills_study sources/test_study study/test_trust study/test_run',
  'tlx/report/statistics.py': 'report/test_report_statistics report/test_report_tables',
}

COMPARISONS = {
  ast.Lt: ast.LtE,
  ast.LtE: ast.Lt,
  ast.Gt: ast.GtE,
  ast.GtE: ast.Gt,
  ast.Eq: ast.NotEq,
  ast.NotEq: ast.Eq,
  ast.Is: ast.IsNot,
  ast.IsNot: ast.Is,
  ast.In: ast.NotIn,
  ast.NotIn: ast.In,
}
OPERATORS = {
  ast.Add: ast.Sub,
  ast.Sub: ast.Add,
  ast.Mult: ast.Div,
  ast.Div: ast.Mult,
  ast.FloorDiv: ast.Div,
  ast.Mod: ast.FloorDiv,
  ast.Pow: ast.Mult,
  ast.BitOr: ast.BitAnd,
  ast.BitAnd: ast.BitOr,
  ast.And: ast.Or,
  ast.Or: ast.And,
}
UNTOUCHED = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)
# Calls whose result may be taken for their first argument, or for what they are a method of.
LIKE_AN_ARGUMENT = (
  'fold_in sorted abs int float max min round ceil sqrt log exp square maximum minimum clip unique '
  'sort cumsum nan_to_num asarray broadcast_to permutation repeat tile set dict list tuple reversed'
  ' dropna sort_values drop_duplicates fillna reset_index strip lower resolve expanduser map mean '
  'reshape frozenset'
)


class Mutant(NamedTuple):
  """A file in which the text from `start` to `end` is replaced."""

  kind: str
  path: str
  start: int
  end: int
  text: str
  line: int
  was: str

  def __str__(self) -> str:
    return f'{self.path}:{self.line}: {" ".join(self.was.split())[:200]}  ->  {self.text[:200]}'


def main() -> None:
  """Prints a line a fault and the score; fails where the tests fail without any fault."""
  args = parse()
  found = []
  for path in args.files or FILES:
    found += mutants(path, (ROOT / path).read_text(encoding='utf-8'))
  if args.sample and args.sample < len(found):
    found = sample(found, args.sample, args.seed)
  if args.list:
    print('\n'.join(map(str, found)))
    return
  with tempfile.TemporaryDirectory() as folder:
    survivors = judge(found, copy(pathlib.Path(folder)), args.timeout)
  print(f'\n{len(found) - len(survivors)} of {len(found)} noticed. Survivors:')
  print('\n'.join(map(str, survivors)) or 'none')


def parse() -> argparse.Namespace:
  """The flags."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--files',
    nargs='*',
    help='default: all of train/, study/ and report/, checkpoint.py and tree.py',
  )
  parser.add_argument(
    '--sample', type=int, default=0, help='so many of the faults there are, drawn at random; 0: all'
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--timeout', type=float, default=600.0, help='seconds for the tests of one fault'
  )
  parser.add_argument('--list', action='store_true')
  return parser.parse_args()


def mutants(path: str, source: str) -> list[Mutant]:
  """Every fault that can be put into a file."""
  lines = source.encode().splitlines(keepends=True)
  begins = [sum(map(len, lines[:i])) for i in range(len(lines) + 1)]
  found = []
  for node in visited(ast.parse(source)):
    start = begins[node.lineno - 1] + node.col_offset
    end = begins[node.end_lineno - 1] + node.end_col_offset
    was = source.encode()[start:end].decode()
    found += [
      Mutant(type(node).__name__, path, start, end, text, node.lineno, was)
      for text in replacements(node)
    ]
  return found


def sample(found: list[Mutant], size: int, seed: int) -> list[Mutant]:
  """`size` of the faults, as many of each kind as there are."""
  shuffled = random.Random(seed).sample(found, len(found))
  turns: Counter[str] = Counter()
  ranked = []
  for mutant in shuffled:
    turns[mutant.kind] += 1
    ranked.append((turns[mutant.kind], mutant))
  return sorted(mutant for _, mutant in sorted(ranked)[:size])


def visited(node: ast.AST) -> Iterator[ast.AST]:
  """The statements and expressions below a node, without annotations, decorators and errors."""
  for name, value in ast.iter_fields(node):
    if name in ('annotation', 'returns', 'decorator_list', 'bases'):
      continue
    for child in value if isinstance(value, list) else [value]:
      if not isinstance(child, ast.AST) or isinstance(child, UNTOUCHED):
        continue
      if hasattr(child, 'lineno') and not isinstance(child, ast.expr_context):
        yield child
      yield from visited(child)


def replacements(node: ast.AST) -> list[str]:
  """The faulty texts that may stand in the place of a node."""
  texts: list[ast.AST] = []
  if isinstance(node, ast.Compare):
    texts = [
      ast.Compare(node.left, [COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    ]
  elif (
    isinstance(node, ast.BinOp)
    and type(node.op) in OPERATORS
    and not (_is_text(node.left) or _is_text(node.right))
  ):
    texts = [ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)]
  elif isinstance(node, ast.BoolOp):
    texts = [ast.BoolOp(OPERATORS[type(node.op)](), node.values)]
  elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
    texts = [node.operand]
  elif isinstance(node, ast.IfExp):
    texts = [node.body, node.orelse]
  elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
    texts = [ast.Constant(not node.value)]
  elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
    texts = [ast.Constant(node.value + 1)]
  elif isinstance(node, ast.Call):
    texts = _left_out(node)
  elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
    return ['pass']
  elif isinstance(node, ast.Return) and not isinstance(node.value, ast.Constant | None):
    return ['return None']
  return [f'({ast.unparse(text)})' for text in texts]


def _is_text(node: ast.AST) -> bool:
  is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
  return is_string or isinstance(node, ast.JoinedStr)


def _left_out(call: ast.Call) -> list[ast.AST]:
  """What may stand in the place of a call."""
  name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, 'id', '')
  if name not in LIKE_AN_ARGUMENT.split():
    return []
  if call.args and not isinstance(call.args[0], (ast.Starred, ast.GeneratorExp, ast.Constant)):
    return [call.args[0]]
  return [call.func.value] if isinstance(call.func, ast.Attribute) else []


def copy(folder: pathlib.Path) -> pathlib.Path:
  """A copy of the checkout for faults to be put into."""
  for name in COPIED:
    if (ROOT / name).is_dir():
      shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    else:
      shutil.copy(ROOT / name, folder / name)
  return folder


def judge(found: list[Mutant], folder: pathlib.Path, timeout: float) -> list[Mutant]:
  """The faults that no test notices, one at a time."""
  tests = tuple(dict.fromkeys(itertools.chain.from_iterable(tests_of(m.path) for m in found)))
  if outcome(folder, tests, timeout=None) != 'survived':
    sys.exit(f'Without any fault these fail: {sys.executable} -m pytest -x {" ".join(tests)}')
  survivors = []
  for mutant in found:
    path, began = folder / mutant.path, time.perf_counter()
    original = path.read_bytes()
    path.write_bytes(original[: mutant.start] + mutant.text.encode() + original[mutant.end :])
    try:
      said = outcome(folder, tests_of(mutant.path), timeout)
    finally:
      path.write_bytes(original)
    print(f'{said:<8} {time.perf_counter() - began:4.0f} s  {mutant}', flush=True)
    if said == 'survived':
      survivors.append(mutant)
  return survivors


def tests_of(path: str) -> tuple[str, ...]:
  """The tests of a file, as arguments for pytest: its doctests first."""
  if path not in TESTS:
    return path, f'tests/{pathlib.PurePosixPath(path).parent.name}'
  return path, *(f'tests/{name}.py' for name in TESTS[path].split())


def outcome(folder: pathlib.Path, tests: tuple[str, ...], timeout: float | None) -> str:
  """'survived' where the tests pass, else 'noticed' or 'timeout'."""
  command = [sys.executable, '-B', '-m', 'pytest', '-q', '-x', *tests]
  try:
    done = subprocess.run(
      command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=timeout
    )
  except subprocess.TimeoutExpired:
    return 'timeout'
  return 'noticed' if done.returncode else 'survived'


if __name__ == '__main__':
  main()
