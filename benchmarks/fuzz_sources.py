"""Mutated files of every format: reading one gives arrays or a ValueError, in 20 s and 2 GiB.

  python -m benchmarks.fuzz_sources            # a minute for each format
  python -m benchmarks.fuzz_sources --case=pth --seconds=600 --seed=7

Prints a line for each format and leaves what broke in `--keep`. Ends with 1 if anything did.
"""

import argparse
import faulthandler
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np

SECONDS_A_FILE, MEMORY = 20, 1 << 31
NUMBERS = (0, 1, 2, 127, 128, 255, 1 << 15, 1 << 31, 1 << 32, 1 << 50, (1 << 63) - 1, (1 << 64) - 1)
DIGITS = (b'0', b'-1', b'1e9', b'4294967296', b'1125899906842624', b'null', b'[[]]', b'"x"')
CASES = (
  'pth',
  'legacy',
  'safetensors',
  'sharded',
  'npz',
  'msgpack',
  'gguf',
  'h5',
  'tfjs',
  'orbax',
  'zarr',
)


def main() -> None:
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument('--case', choices=CASES, action='append')
  flags.add_argument('--seconds', type=float, default=60)
  flags.add_argument('--seed', type=int, default=0)
  flags.add_argument('--keep', type=pathlib.Path, default=pathlib.Path('fuzz_sources'))
  # this is the process that reads
  flags.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)
  args = flags.parse_args()
  if args.folder:
    read_mutants(args.case[0], args.folder, args.seconds, args.seed)
  else:
    broken = [fuzz(case, args) for case in args.case or CASES]
    sys.exit(1 if any(broken) else 0)


def fuzz(case: str, args: argparse.Namespace) -> int:
  """The number of mutants of a format that broke its reader; each starts another process."""
  end, seed, broken, tried = time.monotonic() + args.seconds, args.seed, 0, 0
  while (left := end - time.monotonic()) > 0:
    with tempfile.TemporaryDirectory() as scratch:
      command = [
        sys.executable,
        '-m',
        'benchmarks.fuzz_sources',
        f'--case={case}',
        f'--folder={scratch}',
        f'--seconds={left}',
        f'--seed={seed}',
      ]
      done = subprocess.run(command, capture_output=True, text=True, check=False)
      tried += done.stdout.count('.')
      if done.returncode:
        broken += 1
        shutil.copytree(scratch, args.keep / f'{case}-{seed}', symlinks=True, dirs_exist_ok=True)
        print(
          f'{case}: seed {seed} ended with {done.returncode}\n{done.stderr[-1500:]}', flush=True
        )
    seed += 1
  print(f'{case}: {tried} files, {broken} broke the reader', flush=True)
  return broken


def read_mutants(case: str, folder: pathlib.Path, seconds: float, seed: int) -> None:
  """Mutates and reads until the time is over; prints a dot for each and dies of the first that
  breaks it.
  """
  from tlx import sources

  dice, path = random.Random(seed), write(case, folder)
  sources.load(str(path))
  whole = {file: file.read_bytes() for file in folder.rglob('*') if file.is_file()}
  with open('/proc/self/statm') as file:
    used = int(file.read().split()[0]) * os.sysconf('SC_PAGE_SIZE')
  resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    target = dice.choice(list(whole))
    target.write_bytes(mutated(whole[target], dice))
    faulthandler.dump_traceback_later(SECONDS_A_FILE, exit=True)
    try:
      sources.load(str(path))
    except ValueError as error:
      if isinstance(error.__cause__, MemoryError):
        raise
    print('.', end='', flush=True)
    for file, data in whole.items():
      if not file.is_file() or file.read_bytes() != data:
        file.write_bytes(data)
  faulthandler.cancel_dump_traceback_later()


def write(case: str, folder: pathlib.Path) -> pathlib.Path:
  """The path of a small valid source."""
  from tests.sources import hostile, writers

  kind = np.int32 if case == 'tfjs' else np.int64
  arrays = {
    'count': np.array([2], kind),
    'bias': np.array([-1.5, 0], np.float32),
    'kernel': np.ones((6, 16), np.float32),
  }
  if case == 'zarr':
    return hostile.orbax(folder)
  writer = getattr(writers, f'write_{case}')
  return writer(folder, arrays)


def mutated(data: bytes, dice: random.Random) -> bytes:
  """Some bytes changed; of a zip archive half the time a member's, its checksum made right."""
  if data[:2] == b'PK' and dice.random() < 0.5:
    return mutated_member(data, dice)
  made = bytearray(data)
  for _ in range(dice.choice((1, 1, 2, 5))):
    place = dice.randrange(len(made) + 1)
    match dice.randrange(7):
      case 0:
        made[place : place + 1] = bytes([dice.randrange(256)])
      case 1:
        number, size = dice.choice(NUMBERS), dice.choice((1, 2, 4, 8))
        made[place : place + size] = number.to_bytes(8, 'little')[:size]
      case 2:
        made[place : place + dice.randrange(1, 40)] = b''
      case 3:
        start = dice.randrange(len(made) + 1)
        made[place:place] = made[start : start + dice.randrange(1, 200)] * dice.choice((1, 1, 50))
      case 4:
        made[place:] = b''
      case 5:
        digits = [i for i, byte in enumerate(made) if 48 <= byte < 58]
        if digits:
          place = dice.choice(digits)
          made[place : place + 1] = dice.choice(DIGITS)
      case 6:
        made[place : place + 1] = bytes(
          [(made[place] if place < len(made) else 0) ^ 1 << dice.randrange(8)]
        )
  return bytes(made)


def mutated_member(data: bytes, dice: random.Random) -> bytes:
  import io

  out = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w') as new:
    chosen = dice.choice(old.namelist())
    for info in old.infolist():
      content = old.read(info)
      new.writestr(
        info.filename,
        mutated(content, dice) if info.filename == chosen else content,
        info.compress_type,
      )
  return out.getvalue()


if __name__ == '__main__':
  main()
