"""A small study whose n-th file operation fails, or whose process dies there, for every n.

  python -m benchmarks.faults                       # every operation, three kinds of fault: hours
  python -m benchmarks.faults --every=17 --kind=kill

After each fault the same command runs once more without one. Whatever the fault: the second run
ends well with the numbers of a study that was never disturbed, no draft is left, and what failed
was one line that begins with 'Error:'. Prints what was otherwise and ends with 1 if anything was.
Wants Linux and a C compiler.
"""

import argparse
import collections
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from tlx import report

ROOT = pathlib.Path(__file__).parents[1]
SHIM = pathlib.Path(__file__).with_suffix('.c')
COSTS = 'seconds|bytes|version|compiled|commit|features'
STUDY = (
  '--config=tests/study/tiny.py',
  '--config.only=probe,lp_ft',
  '--config.baseline=',
  '--config.shots=(4,)',
  '--config.seeds=(0,)',
)


def main() -> None:
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument('--kind', choices=('eio', 'enospc', 'kill'), action='append')
  flags.add_argument('--every', type=int, default=1, help='take each so many-th operation')
  flags.add_argument('--first', type=int, default=1)
  args = flags.parse_args()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name).resolve()
    shim = ['cc', '-shared', '-fPIC', '-O1', '-o', folder / 'faults.so', SHIM, '-ldl']
    subprocess.run(shim, check=True)
    study(folder, 'first')  # fills the compilation cache and prepares the data
    study(folder, 'whole', count=folder / 'operations')
    operations = (folder / 'operations').read_text().splitlines()
    wanted = numbers(folder / 'whole')
    kinds = collections.Counter(line.split()[0] for line in operations)
    print(f'{len(operations)} operations: {dict(kinds)}', flush=True)
    broken = tried = 0
    for kind in args.kind or ('eio', 'enospc', 'kill'):
      for n in range(args.first, len(operations) + 1, args.every):
        tried += 1
        for problem in disturbed(folder, kind, n, wanted):
          broken += 1
          print(f'{kind} at {n} ({operations[n - 1]}): {problem}', flush=True)
  print(f'{tried} faults, {broken} problems')
  sys.exit(1 if broken else 0)


def disturbed(folder: pathlib.Path, kind: str, n: int, wanted: dict) -> list[str]:
  """What is wrong after a study whose n-th operation failed, and the same command once more."""
  workdir = f'{kind}{n}'
  hurt = study(folder, workdir, kind=kind, at=n)
  problems = []
  if kind != 'kill' and 'Traceback' in hurt.stderr:
    problems.append(f'a traceback: {hurt.stderr[-600:]}')
  if kind != 'kill' and hurt.returncode and 'Error: ' not in hurt.stderr:
    problems.append(f'no line says what failed: {hurt.stderr[-300:]}')
  again = study(folder, workdir)
  if again.returncode:
    return [*problems, f'the second run failed: {again.stderr[-600:]}']
  if numbers(folder / workdir) != wanted:
    problems.append('other numbers')
  problems += [f'{path} is left' for path in (folder / workdir).rglob('*.draft')]
  subprocess.run(['rm', '-rf', folder / workdir], check=True)
  return problems


def study(
  folder: pathlib.Path, name: str, count: pathlib.Path | None = None, kind: str = '', at: int = 0
) -> subprocess.CompletedProcess:
  """Runs the study in a folder of this name, with a fault if a kind is given."""
  fault = {'FAULTS_BELOW': str(folder / name), 'FAULTS_KIND': kind, 'FAULTS_AT': str(at)}
  if count is not None:
    fault['FAULTS_COUNT'] = str(count)
  if count is not None or kind:
    fault['LD_PRELOAD'] = str(folder / 'faults.so')
  command = [sys.executable, '-m', 'experiments.study', *STUDY]
  command += [f'--config.data_dir={folder / "data"}', f'--workdir={folder / name}']
  return subprocess.run(
    command, cwd=ROOT, env=os.environ | fault, capture_output=True, text=True, timeout=600
  )


def numbers(workdir: pathlib.Path) -> dict:
  """Everything a study found, without what it cost."""
  table = report.read(workdir).sort_values('id')
  table = table[[name for name in table if not any(cost in name for cost in COSTS.split('|'))]]
  found = {'table': table.to_csv(index=False)}
  for path in sorted((workdir / 'runs').glob('*/predictions.npz')):
    with np.load(path) as arrays:
      found[path.parent.name] = {name: arrays[name].tobytes() for name in arrays}
  for path in sorted((workdir / 'runs').glob('*/metrics.jsonl')):
    found[f'{path.parent.name} metrics'] = path.read_text()
  return found


if __name__ == '__main__':
  main()
