"""Data sets larger than memory: what they take, how fast they are decoded, who waits.

  python -m benchmarks.streams generate --data=PATH --images=100000  # JPEGs of 256 px
  python -m benchmarks.streams memory --data=PATH [--kind=steps]
  python -m benchmarks.streams decoding --data=PATH --peer=PYTHON_WITH_TORCH
  python -m benchmarks.streams waiting --data=SMALL_PATH
  python -m benchmarks.streams kills --data=SMALL_PATH --turns=5

`memory` runs a study of a small ViT at 224 px in a process of its own and looks at its peak: a
probe, for which all images go through frozen stages once, or with --kind=steps everything trained,
for which steps read them. `decoding` asks by turns the data set of
a study, grain and a DataLoader of torch for the same squares of 224 px, each with two threads or
workers. `waiting` trains EfficientNet-Lite0 at 224 px on images that are decoded on their way.
`kills` compares a study in memory with one that is streamed, killed (-9) at random times and begun
again. The last two want few images, some thousand.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

SIDE, SIZE, CLASSES, BATCH, WORKERS = 256, 224, 10, 64, 2
DRAWN = 1_000
KEPT = ('val', 'test', 'phases', 'cell', 'chosen', 'status')


def main() -> None:
  """What the command asks for."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('what', choices=[*COMMANDS, 'study'])
  parser.add_argument('--data', required=True, type=pathlib.Path)
  parser.add_argument('--images', type=int, default=100_000)
  parser.add_argument('--turns', type=int, default=5)
  parser.add_argument('--peer', default=sys.executable, help='a Python that has torch')
  parser.add_argument('--workdir', type=pathlib.Path)
  parser.add_argument('--kind', default='memory', help='memory or steps: what `memory` runs')
  args = parser.parse_args()
  study(args) if args.what == 'study' else COMMANDS[args.what](args)


def generate(args: argparse.Namespace) -> None:
  """Images of soft colours and some noise: DRAWN are encoded, the others are these with two numbers
  of their quantization table raised, which decode to other pixels.
  """

  def write(number: int) -> None:
    drawn = np.random.default_rng(number)
    soft = Image.fromarray(drawn.integers(0, 256, (6, 6, 3), np.uint8)).resize((SIDE, SIDE))
    noise = drawn.integers(-8, 9, (SIDE // 2, SIDE // 2, 1)).repeat(2, 0).repeat(2, 1)
    pixels = np.clip(np.asarray(soft) * 0.8 + 20 + noise + 5 * (number % CLASSES), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(place(number), quality=50)

  def place(number: int) -> pathlib.Path:
    return args.data / f'class{number % CLASSES}' / f'{number:06d}.jpg'

  for number in range(CLASSES):
    (args.data / f'class{number}').mkdir(parents=True, exist_ok=True)
  with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
    list(pool.map(write, range(min(args.images, DRAWN))))
  size = 0
  for number in range(args.images):
    data = bytearray(place(number % DRAWN).read_bytes())
    table = data.index(b'\xff\xdb') + 5
    raised, turn = divmod(number // DRAWN, 10)
    data[table + 1 + turn] += bool(turn)
    data[table + 11 + raised] += bool(raised)
    place(number).write_bytes(data)
    size += len(data)
  print(f'{args.images:,} files, {size / 1e9:.2f} GB')


def config_of(args: argparse.Namespace):
  """The study of `memory` (two kinds), `waiting` or `kills`."""
  from tlx.study.config import base

  made, name = base(), f'folder:{args.data}'
  lite, size = args.kind == 'waiting', 64 if args.kind == 'kills' else SIZE
  small = {'name': 'vit', 'image_size': size, 'patch': 32, 'dim': 64, 'depth': 2, 'heads': 2}
  made.sources.generated = {
    'backbone': {'name': 'efficientnet_lite'} if lite else small,
    'input': {
      'image_size': size,
      'channels': 3,
      'mean': (0.5,) * 3,
      'std': (0.25,) * 3,
      'fit': 'crop',
      'crop': 0.875,
    },
    'dataset': 'uci_digits',
    'train': {'steps': 4, 'batch_size': 16, 'learning_rate': 1e-3},
  }
  made.targets.images = {'dataset': name, 'test_fraction': 0.2, 'val_fraction': 0.1}
  made.methods = {'full': {}} if lite else {'probe': {'phases': ({'tune': 'head'},)}, 'full': {}}
  made.baseline, made.shots, made.seeds = 'full', (0,), (0, 1)
  if args.kind in ('memory', 'steps'):  # of the source's digits too
    made.data_bytes, made.seeds = 1e8, (0, 1, 2)
    made.baseline = 'probe' if args.kind == 'memory' else 'full'
    made.methods = {made.baseline: made.methods[made.baseline]}
  made.train.batch_size = 16 if lite else 32
  made.train.steps = {'waiting': 24, 'kills': 2_000}.get(args.kind, 200)
  made.train.evaluations = 1
  made.grid.learning_rate, made.checkpoint_seconds = (1e-3,), 1.0 if args.kind == 'kills' else 30.0
  if lite:
    made.targets.images.val_examples = 256
    made.data_bytes = 1.0
  return made


def study(args: argparse.Namespace) -> None:
  """Runs one, and prints what it says of its data."""
  from tlx.study import dry_run, run
  from tlx.train import mesh

  mesh.use_all_cores()
  made = config_of(args)
  if os.environ.get('STREAMED'):
    made.data_bytes, made.device_bytes = 1.0, 8e6
  print(*[line for line in dry_run.describe(made).split('\n') if 'Stream' in line], sep='\n')
  run.run(made, args.workdir)


def begun(args: argparse.Namespace, kind: str, workdir: pathlib.Path, **env: str):
  """A study in a process of its own."""
  command = [sys.executable, '-m', 'benchmarks.streams', 'study', f'--data={args.data}']
  command += [f'--workdir={workdir}', f'--kind={kind}']
  return subprocess.Popen(command, env=os.environ | env)


def memory(args: argparse.Namespace) -> None:
  """Peak bytes of a study: all that is resident, and what no file stands behind."""
  with tempfile.TemporaryDirectory(dir=args.workdir) as folder:
    began = time.perf_counter()
    process = begun(args, args.kind, pathlib.Path(folder))
    most = {'VmHWM': 0, 'RssAnon': 0}
    while process.poll() is None:
      time.sleep(0.05)
      try:
        lines = pathlib.Path(f'/proc/{process.pid}/status').read_text().splitlines()
      except OSError:
        continue
      for name, value in (line.split(':', 1) for line in lines if ':' in line):
        if name in most:
          most[name] = max(most[name], 1024 * int(value.split()[0]))
    (times,) = json.loads(pathlib.Path(folder, 'time.json').read_text())
  print(f'{time.perf_counter() - began:,.0f} s, exit status {process.returncode}')
  print(f'resident at most {most["VmHWM"] / 1e9:.2f} GB, {most["RssAnon"] / 1e9:.2f} without files')
  print(json.dumps(times))


def waiting(args: argparse.Namespace) -> None:
  """The share of the time of steps for which they wait."""
  with tempfile.TemporaryDirectory(dir=args.workdir) as folder:
    begun(args, 'waiting', pathlib.Path(folder)).wait()
    (times,) = json.loads(pathlib.Path(folder, 'time.json').read_text())
  waited, trained = times['wait_seconds'], times['train_seconds']
  print(f'{waited:.2f} of {waited + trained:.1f} s: {waited / (waited + trained):.2%}')


def kills(args: argparse.Namespace) -> None:
  """Numbers after kills at random times, against those of a study in memory."""
  with tempfile.TemporaryDirectory(dir=args.workdir) as folder:
    whole, killed = pathlib.Path(folder, 'whole'), pathlib.Path(folder, 'killed')
    began = time.perf_counter()
    begun(args, 'kills', whole).wait()
    seconds, kept = time.perf_counter() - began, 0
    for turn in range(args.turns):
      process = begun(args, 'kills', killed, STREAMED='1')
      after = random.Random(turn).uniform(0.3, 0.7) * seconds
      try:
        process.wait(after)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        kept += 1
      steps = [path.parent.name for path in killed.glob('cohorts/*/checkpoints/*/meta.json')]
      print(f'turn {turn}: after {after:.1f} s, status {process.returncode}, checkpoints {steps}')
    begun(args, 'kills', killed, STREAMED='1').wait()
    one, other = numbers(whole), numbers(killed)
  print(f'{kept} kills, {len(one)} runs, the same to the bit: {one == other}')


def numbers(folder: pathlib.Path) -> dict[str, str]:
  """What the runs of a study found, without what it took."""
  found = {}
  for path in sorted(folder.glob('runs/*/result.json')):
    result = {name: json.loads(path.read_text())[name] for name in KEPT}
    for phase in result['phases']:
      phase.pop('train_seconds')
    predicted = path.parent / 'predictions.npz'
    logits = np.load(predicted)['logits'].tobytes().hex() if predicted.exists() else ''
    found[path.parent.name] = json.dumps(result) + logits
  return found


def decoding(args: argparse.Namespace) -> None:
  """Images a second of the same squares, turn by turn."""
  files = sorted(map(str, args.data.rglob('*.jpg')))[: min(args.images, 8_000)]
  images = looked_at(files)
  drawn = np.random.default_rng(0).permutation(len(files))[:4_000]
  peer = subprocess.Popen(
    [args.peer, '-c', PEER, *[files[row] for row in drawn]],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert peer.stdin and peer.stdout
  readers: dict[str, Callable[[], Iterator[np.ndarray]]] = {
    'tlx': lambda: by_tlx(images, drawn),
    'grain, threads': lambda: by_grain(files, drawn, 0),
    'grain, processes': lambda: by_grain(files, drawn, WORKERS),
  }
  rates: dict[str, list[float]] = {name: [] for name in (*readers, 'torch')}
  sums = {}
  for _ in range(args.turns):
    for name, read in readers.items():
      began, total = time.perf_counter(), 0
      for batch in read():
        total += int(batch.astype(np.int64).sum())
      rates[name].append(len(drawn) / (time.perf_counter() - began))
      sums[name] = total
    peer.stdin.write('go\n')
    peer.stdin.flush()
    seconds, sums['torch'] = json.loads(peer.stdout.readline())
    rates['torch'].append(len(drawn) / seconds)
  peer.stdin.close()
  assert len(set(sums.values())) == 1, sums  # all have seen the same pixels
  for name, of_turns in rates.items():
    share = np.median(np.divide(of_turns, rates['torch']))
    print(f'| {name} | {np.median(of_turns):,.0f} | {share:.2f} |')


def looked_at(files: list[str]):
  """The images of files as a study has them after its first look, which takes their digests."""
  from etils import epath

  from tlx.datasets import _images
  from tlx.datasets._types import Examples, Form

  paths = [epath.Path(file) for file in files]
  labels = np.zeros(len(files), np.int32)
  examples = Examples(tuple(files), labels, lambda some: [paths[row] for row in some])
  form = Form(SIZE, 3, 'bicubic', 'crop', 0.875)
  return _images.decode_all(examples, form, 'none', hashlib.sha256())[0].inputs


def by_tlx(images, rows: np.ndarray) -> Iterator[np.ndarray]:
  """As a study takes them, digests compared."""
  from tlx.train import feed

  parts = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
  return feed.ahead(images.take, parts, 1)


def square(file: str) -> np.ndarray:
  """torchvision's Resize(256, bicubic) and CenterCrop(224) of an image whose sides are equal."""
  with Image.open(file) as opened:
    image = opened.convert('RGB').resize((SIDE, SIDE), Image.Resampling.BICUBIC)
  begin = (SIDE - SIZE) // 2
  return np.asarray(image.crop((begin, begin, begin + SIZE, begin + SIZE)))


def by_grain(files: list[str], rows: np.ndarray, processes: int) -> Iterator[np.ndarray]:
  """A MapDataset, read in threads, or in processes of one thread each."""
  import grain
  from absl import flags

  flags.FLAGS.mark_as_parsed()  # which grain's processes ask for
  chosen = [files[row] for row in rows]
  examples = grain.MapDataset.source(chosen).map(square)
  options = grain.ReadOptions(num_threads=1 if processes else WORKERS, prefetch_buffer_size=BATCH)
  batches = examples.to_iter_dataset(options).batch(BATCH)
  if processes:
    batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=processes))
  return iter(batches)


PEER = f"""
import json, sys, time
import numpy as np, torch
from PIL import Image
class Files(torch.utils.data.Dataset):
  def __len__(self):
    return len(sys.argv) - 1
  def __getitem__(self, row):
    with Image.open(sys.argv[1 + row]) as opened:
      image = opened.convert('RGB').resize(({SIDE}, {SIDE}), Image.Resampling.BICUBIC)
    image = image.crop(({(SIDE - SIZE) // 2},) * 2 + ({(SIDE + SIZE) // 2},) * 2)
    return torch.from_numpy(np.array(image))
loader = torch.utils.data.DataLoader(Files(), {BATCH}, num_workers={WORKERS})
for _ in sys.stdin:
  began, total = time.perf_counter(), 0
  for batch in loader:
    total += int(batch.sum(dtype=torch.int64))
  print(json.dumps([time.perf_counter() - began, total]), flush=True)
"""
COMMANDS = {
  'generate': generate,
  'memory': memory,
  'decoding': decoding,
  'waiting': waiting,
  'kills': kills,
}

if __name__ == '__main__':
  main()
