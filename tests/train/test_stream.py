"""Sets larger than memory: windows and parts give the numbers that arrays on the devices give."""

import tracemalloc

import jax
import numpy as np
import pytest
from etils import epath

from tlx import report
from tlx.backbones import mlp
from tlx.datasets import Split
from tlx.inputs import image
from tlx.plug import plug
from tlx.study import config, pair, run
from tlx.tasks import classification
from tlx.train import cohort, feed, fit, prefix, step, stream
from tlx.train import mesh as meshes
from tlx.train.job import Job, PhasePlan
from tlx.train.spread import Spread
from tlx.tree import label, named_leaves
from tlx.types import Variables

HEAD = (('^head/', 'train'), ('.*', 'frozen'))
ROW = 4 * 4 + 4  # bytes of an image and its class


class Records:
  """Examples that are not in memory; `asked` counts the rows of each read."""

  def __init__(self, leaf):
    self.leaf, self.asked = leaf, []

  def __len__(self):
    return len(self.leaf)

  def take(self, rows):
    self.asked.append(len(rows))
    return self.leaf[rows]


def many(examples, times):
  """The examples of the fixture over and over, each a little different."""
  inputs = np.concatenate([examples.inputs + number % 100 for number in range(times)])
  return feed.Arrays(inputs.astype(np.uint8), np.concatenate([examples.targets] * times))


def assert_same(one, other):
  for (name, x), (_, y) in zip(named_leaves(one.own), named_leaves(other.own), strict=True):
    np.testing.assert_array_equal(x, y, err_msg=name)
  for name in ('history', 'frozen', 'taken'):
    assert repr(one.progress[name]) == repr(other.progress[name])  # where nan is nan


@pytest.fixture
def jobs(make_job, make_phase, examples):
  """{name: a job whose data are more than 9,000 bytes, orders included}."""
  sgd = make_phase(optimizer='sgd', schedule='constant')
  sets = [np.arange(6), np.arange(40), np.arange(20, 60)]
  epochs = make_job([make_phase(), make_phase(HEAD)], (1e-2,) * 3, seeds=[0, 1, 2])
  views = many(examples, 3)
  shifted = make_phase(views=3, augment=(('shift', 1),))
  found = {
    'diverged': make_job([sgd], (1e-2, 1e30, 1e-3), seeds=[0, 0, 1], num_steps=20),
    'epochs': epochs._replace(
      examples=sets, phases=tuple(plan._replace(epochs=3.0) for plan in epochs.phases)
    ),
    'views': make_job([shifted], seeds=[0, 1])._replace(train=lambda phase: views),
  }
  val = many(examples, 10)
  return {name: job._replace(val=lambda phase: val) for name, job in found.items()}


@pytest.mark.parametrize('name', ['diverged', 'epochs', 'views'])
def test_windows_and_parts_change_nothing(jobs, tmp_path, name):
  """Bit for bit, with windows of one step and of some."""
  job = jobs[name]
  whole = fit.fit(job, epath.Path(tmp_path / 'whole'))
  kept = fit.predict(job, whole, (0, 1), job.val)
  for limit in (1_200.0, 3_000.0):
    windowed = job._replace(device_bytes=limit)
    found = fit.fit(windowed, epath.Path(tmp_path / str(limit)))
    assert_same(found, whole)
    assert_predicted_same(fit.predict(windowed, found, (0, 1), job.val), kept)
  if name == 'diverged':
    assert whole.progress['taken'][0][1] < 20


def assert_predicted_same(found, wanted):
  for one, other in zip(found, wanted, strict=True):
    assert repr(one.sums) == repr(other.sums)
    np.testing.assert_array_equal(one.kept['logits'], other.kept['logits'])


@pytest.mark.parametrize('name, stop_after', [('diverged', 3), ('epochs', 2)])
def test_interrupted_within_a_window(jobs, tmp_path, monkeypatch, name, stop_after):
  """In windows of some steps, going on with arrays on the devices; then the other way round."""
  monkeypatch.setattr(fit, 'FIRST_STEPS', 2)
  monkeypatch.setattr(fit, 'SEGMENT_SECONDS', 0.0)
  job = jobs[name]
  whole = fit.fit(job, epath.Path(tmp_path / 'whole'))
  limits = (5_000.0, 0.0)
  for first, then in (limits, limits[::-1]):
    folder, calls = epath.Path(tmp_path / str(first)), []
    with pytest.raises(KeyboardInterrupt):
      fit.fit(
        job._replace(device_bytes=first),
        folder,
        say=lambda *_, calls=calls: calls.append(0),
        interrupted=lambda calls=calls: len(calls) >= stop_after,
      )
    assert_same(fit.fit(job._replace(device_bytes=then), folder), whole)


def test_a_run_that_stays_behind_is_fetched_again(jobs):
  """What was fetched ahead for it is not what it sees."""
  job = jobs['diverged'].timed()._replace(device_bytes=3_000.0)
  spread = job.spread()
  with stream.Windows(job, 0, spread) as windows:
    first = windows.seek(0, spread.place(spread.pad(np.zeros(3, np.int32))))
    steps = first.stop
    taken = np.array([steps, 1, steps], np.int32)
    second = windows.seek(steps, spread.place(spread.pad(taken)))
    third = windows.next.result()
  assert (second.at, second.begins) == (steps, (steps, 1, steps))
  assert (third.at, third.begins) == (second.stop, (second.stop, 1, second.stop))
  rows, images = spread.unpad(second.order.rows), np.asarray(second.data.inputs)
  wanted = feed.order(job.examples[1], 20, 8, (job.seeds[1], 0))
  np.testing.assert_array_equal(images[rows[1, 0]], job.train(None).inputs[wanted[1]])
  np.testing.assert_array_equal(images[rows[0, 0]], job.train(None).inputs[wanted[steps]])
  assert spread.unpad(second.order.first).tolist() == [steps, 1, steps]


def test_windows_go_on_where_no_run_does(make_job, make_phase, examples, tmp_path):
  """Several runs of one order, of which a window has one step, all stay behind."""
  sgd = make_phase(optimizer='sgd', schedule='constant')
  job = make_job([sgd], (1e30, 1e31, 1e32), seeds=[0, 0, 0], num_steps=20)
  data = many(examples, 10)
  job = job._replace(train=lambda phase: data, device_bytes=1_200.0)
  with stream.Windows(job.timed(), 0, job.timed().spread()) as windows:
    assert windows.size.steps < 3
  said = []

  def say(steps, rate):
    said.append(steps)
    assert len(said) <= 20 and said.count(steps) == 1, 'the same step again'

  found = fit.fit(job, epath.Path(tmp_path), say=say)
  assert all(taken < 20 for taken in found.progress['taken'][0])


def test_the_size_of_windows():
  """By hand: a row of 20 bytes, 3 runs of 12 steps of 8, two orders."""
  size = lambda num_rows, limit: stream.window_size(20, num_rows, (3, 12, 8), 2, limit)
  assert size(60, 60 * 20 + 12 * 96) == (12, None)  # with the orders, 4 bytes a number
  assert size(61, 60 * 20 + 12 * 96) == (2, 2 * 2 * 8)  # a step: 2 x 8 rows, 3 x 8 numbers
  assert size(10**9, 1e9) == (12, 12 * 2 * 8)
  assert size(10**9, 2 * 576.0) == (1, 3 * 8)  # a row for every run that stays behind
  with pytest.raises(ValueError, match=r'576 bytes.*config.device_bytes allows 1,151.*batch_size'):
    size(10**9, 1151.0)


@pytest.fixture
def large_job(tmp_path):
  """(two runs on 20,000 memory-mapped images of 1 KB, the reads that it counts)."""
  file = np.lib.format.open_memmap(tmp_path / 'x.npy', 'w+', np.uint8, (20_000, 32, 32, 1))
  file[:, 0] = np.random.default_rng(0).integers(0, 255, (20_000, 32, 1))
  records = Records(np.load(tmp_path / 'x.npy', mmap_mode='r'))
  data = feed.Arrays(records, np.arange(20_000, dtype=np.int32) % 3)
  network = mlp.build(3, widths=(4,))
  drawn = network.init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32)).params
  labels = tuple(named_leaves(label(drawn, (('.*', 'train'),))))
  phase = step.Phase(labels, (('train', 1.0),))
  job = Job(
    network,
    image.form(32, 1),
    (PhasePlan(phase, classification.task(3), 200, 8, 1, 0.0),),
    Variables(jax.tree.map(lambda _: None, drawn), {}),
    own=jax.tree.map(lambda leaf: np.stack([leaf, leaf]), drawn),
    stats={},
    train=lambda phase: data,
    val=lambda phase: data,
    examples=[np.arange(20_000)] * 2,
    seeds=[0, 1],
    learning_rates=[1e-2, 1e-2],
    weight_decays=[0.0, 0.0],
  )
  return job, records


def test_memory_stays_bounded(large_job, tmp_path, monkeypatch):
  """By the bytes of the arrays on a device, and of all on the host: of 20 MB at most 1 and 5."""
  job, records = large_job
  limit = 1_000_000.0
  call, seen = cohort.Program.__call__, []

  def watched(program, carry, runs, shared):
    inputs = (shared.data if isinstance(shared, cohort.Shared) else shared[1]).inputs
    there = [leaf.nbytes for leaf in jax.live_arrays() if leaf.shape == inputs.shape]
    seen.append((inputs.nbytes, sum(there)))
    return call(program, carry, runs, shared)

  monkeypatch.setattr(cohort.Program, '__call__', watched)
  job = job._replace(device_bytes=limit)
  first = fit.fit(job, epath.Path(tmp_path / 'first'))  # compiles
  assert first.progress['compiled_programs'] == 2  # one for all windows, one for all parts
  assert len(seen) > 20_000 * 1024 / (limit / 2)
  assert all(num_bytes <= limit / 2 and there <= limit for num_bytes, there in seen)
  assert max(records.asked) * 1024 <= limit / 2
  tracemalloc.start()
  try:
    fit.fit(job, epath.Path(tmp_path / 'second'))
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < 5e6


def test_parts_hold_everything_once():
  """Of 700 examples 600 are looked at, each by the runs that do."""
  data = feed.Arrays(np.arange(700), np.arange(700))
  rows = [np.arange(600), np.arange(5, 300, 7)]
  seen: list[list[int]] = [[], []]
  parts = stream.Parts(data, rows, Spread.over(2), limit=2 * 256 * 16.0, most=256)
  for part in parts:
    assert part.batches.inputs.shape == (1, 256)
    np.testing.assert_array_equal(part.batches.inputs, part.batches.targets)
    mask = np.asarray(part.mask) * np.asarray(part.batches.mask)
    for number, of_run in enumerate(seen):
      of_run += np.asarray(part.batches.inputs)[mask[number] > 0].tolist()
  assert seen == [of_run.tolist() for of_run in rows]
  whole = stream.Parts(data, rows, Spread.over(2), limit=1e9, most=256)
  (only,), (again,) = whole, whole
  assert only.batches.inputs is again.batches.inputs and only.batches.inputs.shape == (3, 256)


def test_large_examples_go_through_a_few_at_a_time(small_mlp, monkeypatch):
  """By hand: of ResNet-18 at 96 px an image has [96, 96, 3] numbers, what enters its first block
  [24, 24, 64], and what enters its head [512]; of 8 MiB that is 56 times, 32 to a power of two.
  """
  resnet = plug('backbones', 'resnet').build(10, variant='resnet18')
  form = image.form(96, 3, (0.5,) * 3, (0.5,) * 3)
  head = len(resnet.stages) - 1
  assert prefix.at_a_time(small_mlp, image.form(4, 1), 0, 256) == 256
  assert prefix.at_a_time(resnet, form, 0, 256) == 32
  assert prefix.at_a_time(resnet, form, 1, 256) == 32
  assert prefix.at_a_time(resnet, form, 0, 256, num_devices=2) == 64
  assert prefix.at_a_time(resnet, form, 0, 20) == 20
  assert prefix.at_a_time(resnet, form, head, 10_000) == 4_096
  monkeypatch.setattr(prefix, 'WHOLE_BYTES', 100_000)
  assert prefix.at_a_time(resnet, form, 0, 256) == 1
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert prefix.at_a_time(resnet, form, 0, 256) == 256


def test_how_many_are_evaluated_at_a_time_changes_nothing(jobs, tmp_path, monkeypatch):
  job, batches = jobs['epochs'], set()

  class Noted(stream.Parts):
    def __init__(self, *arguments):
      super().__init__(*arguments)
      batches.add(self.batch_size)

  monkeypatch.setattr(stream, 'Parts', Noted)
  whole = fit.fit(job, epath.Path(tmp_path / 'whole'))
  first = fit.predict(job, whole, [0, 1], lambda phase: job.train(phase))
  assert max(batches) > 16
  monkeypatch.setattr(prefix, 'WHOLE_BYTES', 1)
  batches.clear()
  few = fit.fit(job, epath.Path(tmp_path / 'few'))
  second = fit.predict(job, few, [0, 1], lambda phase: job.train(phase))
  assert batches == {Spread.over(n).mesh.shape['data'] for n in (1, len(job.seeds))}
  for one, other in zip(whole.progress['history'], few.progress['history'], strict=True):
    np.testing.assert_allclose(one['val_loss'], other['val_loss'], rtol=1e-5)
    np.testing.assert_array_equal(one['val_accuracy'], other['val_accuracy'])
  for one, other in zip(first, second, strict=True):
    np.testing.assert_allclose(one.kept['logits'], other.kept['logits'], rtol=1e-5, atol=1e-6)


def test_frozen_stages_read_records_in_batches(small_mlp, make_phase, examples, tmp_path):
  variables = small_mlp.init(jax.random.key(0), np.zeros((1, 4, 4, 1), np.float32))
  variables = Variables(*jax.device_get(variables))
  phase = make_phase(HEAD, start=2)
  point = prefix.Point(small_mlp, image.form(4, 1), phase)
  records = Records(many(examples, 5).inputs)
  found = []
  for place, inputs in (('array', records.leaf), ('records', records)):
    trunk = prefix.Trunk(variables, 'mlp', tmp_path / place)
    found += prefix.activations(trunk, inputs, feed.sha256(inputs), [point])
  np.testing.assert_array_equal(*found)
  assert feed.sha256(records) == feed.sha256(records.leaf)


def test_a_study_of_inputs_on_disk_gives_the_same_table(tmp_path, monkeypatch):
  """Images that are memory-mapped and a device that holds little, against everything in memory."""
  made = config.base()
  made.sources.digits = {
    'backbone': {'name': 'mlp', 'widths': (16, 8)},
    'input': {'image_size': 8},
    'dataset': 'mnist_5k',
    'train': {'steps': 10, 'batch_size': 16, 'learning_rate': 1e-2},
  }
  made.targets.uci = {'dataset': 'uci_digits', 'val_fraction': 0.2}
  made.methods = {'probe': {'phases': ({'tune': 'head'},)}, 'full': {}}
  made.shots, made.seeds, made.grid.learning_rate = (3, 5), (0, 1), (1e-2,)
  made.train.steps, made.train.batch_size = 12, 8
  in_memory = run.run(made, tmp_path / 'in_memory')
  load = pair.load

  def on_disk(*arguments):
    data = load(*arguments)
    parts = {}
    for name in ('train', 'val', 'test'):
      split: Split = getattr(data, name)
      file = tmp_path / f'{name}-{len(split.labels)}.npy'
      np.save(file, split.inputs)
      parts[name] = split._replace(inputs=np.load(file, mmap_mode='r'))
    return data._replace(**parts)

  window_size, sizes = stream.window_size, []

  def noted(*arguments):
    sizes.append(window_size(*arguments))
    return sizes[-1]

  monkeypatch.setattr(pair, 'load', on_disk)
  monkeypatch.setattr(stream, 'window_size', noted)
  made.device_bytes = 6_000.0
  windowed = run.run(made, tmp_path / 'windowed')
  assert len(sizes) == 3 and all(size.rows for size in sizes)  # the source, features, images
  first, second = report.read(in_memory), report.read(windowed)
  scores = [column for column in first if column.startswith(('test_', 'val_'))]
  assert 'test_accuracy' in scores and 'val_loss' in scores
  columns = ['method', 'shots', 'seed', *scores]
  assert first[columns].equals(second[columns])


def test_each_process_reads_its_share(monkeypatch):
  """By hand: 7 rows of 3 processes."""
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  shares = []
  for number in range(3):
    monkeypatch.setattr(jax, 'process_index', lambda number=number: number)
    shares.append(meshes.share(np.arange(10, 17)).tolist())
  assert shares == [[10, 11, 12], [13, 14, 15], [16, 16, 16]]
