"""A small study whose n-th file operation fails, or whose process dies there, for every n.

  python -m benchmarks.faults                       # every operation, four kinds of fault: hours
  python -m benchmarks.faults --every=17 --kind=kill
  python -m benchmarks.faults --every=4 --kind=lock

Of kind 'lock' the study has two workers, and the first to take or let go of its n-th lock of a file
dies there: the other one goes on.

After each fault the same command runs once more without one, unless it ended well though a worker
died. Whatever the fault: the last run ends well with the numbers of a study that was never
disturbed, no draft and no held lock is left, and what failed was one line that begins with
'Error:'. Prints what was otherwise and ends with 1 if anything was.
Wants Linux and a C compiler.
"""

import argparse
import collections
import fcntl
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
KINDS = ('eio', 'enospc', 'kill', 'lock')
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
  flags.add_argument('--kind', choices=KINDS, action='append')
  flags.add_argument('--every', type=int, default=1, help='take each so many-th operation')
  flags.add_argument('--first', type=int, default=1)
  args = flags.parse_args()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name).resolve()
    shim = ['cc', '-shared', '-fPIC', '-O1', '-o', folder / 'faults.so', SHIM, '-ldl']
    subprocess.run(shim, check=True)
    study(folder, 'first', 'kill')  # fills the compilation cache and prepares the data
    broken = tried = unmet = 0
    for kind in args.kind or KINDS:
      operations = counted(folder, kind)
      wanted = numbers(folder / f'{kind}0')  # a worker has its own cores, which moves last digits
      kinds = collections.Counter(line.split()[0] for line in operations)
      print(f'{kind}: {len(operations)} operations: {dict(kinds)}', flush=True)
      for n in range(args.first, len(operations) + 1, args.every):
        tried += 1
        for problem in disturbed(folder, kind, n, wanted):
          broken += 1
          print(f'{kind} at {n} ({operations[n - 1]}): {problem}', flush=True)
        unmet += kind == 'lock' and not (folder / f'{kind}{n}.died').exists()
  print(f'{tried} faults, {unmet} at locks that no worker came to, {broken} problems')
  sys.exit(1 if broken else 0)


def counted(folder: pathlib.Path, kind: str) -> list[str]:
  """The operations of an undisturbed study's process, of the one that has the most."""
  file = folder / f'{kind}.count'
  study(folder, f'{kind}0', kind, count=file).check_returncode()
  of_processes = collections.defaultdict(list)
  for line in file.read_text().splitlines():
    operation, process = line.rsplit(' ', 1)
    of_processes[process].append(operation)
  return max(of_processes.values(), key=len)


def disturbed(folder: pathlib.Path, kind: str, n: int, wanted: dict) -> list[str]:
  """What is wrong after a study whose n-th operation failed, and the same command once more."""
  workdir = f'{kind}{n}'
  hurt = study(folder, workdir, kind, at=n)
  problems = []
  if kind != 'kill' and 'Traceback' in hurt.stderr:
    problems.append(f'a traceback: {hurt.stderr[-600:]}')
  if kind != 'kill' and hurt.returncode and 'Error: ' not in hurt.stderr:
    problems.append(f'no line says what failed: {hurt.stderr[-300:]}')
  again = hurt if kind == 'lock' and not hurt.returncode else study(folder, workdir, kind)
  if again.returncode:
    return [*problems, f'the second run failed: {again.stderr[-600:]}']
  if numbers(folder / workdir) != wanted:
    problems.append('other numbers')
  problems += [f'{path} is left' for path in (folder / workdir).rglob('*.draft')]
  for path in [folder / workdir / '.lock', *(folder / workdir / '.locks').glob('*')]:
    with open(path) as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        problems.append(f'{path} is held')
  subprocess.run(['rm', '-rf', folder / workdir], check=True)
  return problems


def study(
  folder: pathlib.Path, name: str, kind: str, at: int = 0, count: pathlib.Path | None = None
) -> subprocess.CompletedProcess:
  """Runs the study of a kind of fault in a folder of this name, with the fault unless `at` is 0."""
  fault = {'FAULTS_BELOW': str(folder / name), 'FAULTS_KIND': kind, 'FAULTS_AT': str(at)}
  if count is not None:
    fault['FAULTS_COUNT'] = str(count)
  if count is not None or at:
    fault['LD_PRELOAD'] = str(folder / 'faults.so')
  command = [sys.executable, '-m', 'experiments.study', *STUDY]
  command += [f'--config.data_dir={folder / "data"}', f'--workdir={folder / name}']
  command += ['--workers=2'] if kind == 'lock' else []
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
