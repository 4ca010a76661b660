"""A study from its config to its folder. The only file that knows every room; it reads in the order in which things happen."""
import contextlib
import functools
import itertools
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from tlx import backbones, checkpoint, datasets, sources, tree
from tlx.plug import plug
from tlx.study import config as configs
from tlx.study import pair as pairs
from tlx.study import plan, progress, store
from tlx.study.pair import Pair
from tlx.study.plan import Cohort
from tlx.train import feed, fit
from tlx.train import mesh as meshes
from tlx.train.cohort import Program
from tlx.train.spread import Devices
from tlx.types import Cell, Network, Variables

KINDS = ('data', 'source', 'feature', 'setup', 'train', 'eval', 'compile', 'save')  # of time, see docs/results.md


class Lab(NamedTuple):
  """What the parts of one study share."""
  study: Mapping[str, Any]
  workdir: epath.Path
  reporter: progress.Reporter
  interrupted: Callable[[], int]
  spent: fit.Spent  # seconds of this start by kind


class Source(NamedTuple):
  """A pretrained model's variables without the head, and their digest; a random initialisation has neither."""
  variables: Variables | None
  sha256: str


class Loaded(NamedTuple):
  """Public weights under our names, and the record of where they came from."""
  variables: Variables
  record: Mapping[str, Any]


class Tested(NamedTuple):
  """A chosen run on the test set."""
  scores: Mapping[str, Any]
  logits: np.ndarray  # [N, K]
  seconds: float


class Trained(NamedTuple):
  """A cohort at its end; `features` says what its frozen stages cost here: seconds, and whether they ran or were read."""
  cohort: Cohort
  job: fit.Job
  fitted: fit.Fitted
  features: pairs.Features


def run(config: Mapping[str, Any], workdir: str | os.PathLike) -> epath.Path:
  """Runs the study, or what is left of it, and returns its folder. The same config and folder give the same numbers.

  Raises:
    ValueError: what is wrong with the config, the data, the weights or the folder, before anything is written or compiled.
    KeyboardInterrupt: with the signal's number, after SIGINT or SIGTERM and once the state is saved.
  """
  began, spent = time.perf_counter(), fit.Spent(float)
  pairs.forget()
  study = configs.resolve(config)
  cohorts = plan.make(study)
  folder = store.place(workdir)
  meshes.on_first(lambda: store.check(folder, study))
  meshes.shape(1, jax.device_count(), study['mesh'])
  with fit.booked(spent, 'data'):
    data, subsets = _data(study)
  with fit.booked(spent, 'source'):
    weights = _weights(study, folder)
  with store.locked(folder), _signals() as interrupted:
    store.begin(folder, study, cohorts, data)
    store.write_subsets(folder, subsets)
    parts = [progress.Part(cohort.cells[0].method, len(cohort.cells), max(_steps(study, cell) for cell in cohort.cells)) for cohort in cohorts]
    reporter = progress.Reporter(parts, meshes.is_first())
    lab = Lab(study, folder, reporter, interrupted, spent)
    for line in (*_notes(data), meshes.on_first(lambda: store.made_elsewhere(folder))):
      reporter.line(line)
    try:
      pretrained = {name: _source(lab, name, weights.get(name)) for name in study['sources']}
      for (source, target), group in itertools.groupby(cohorts, key=lambda cohort: cohort.cells[0][:2]):
        _transfer(lab, source, target, list(group), pretrained[source])
    except OSError as error:
      raise ValueError(f'{error}. {folder} holds all that was done before; when that is mended, the same command continues.') from None
    finally:
      reporter.close()
      with contextlib.suppress(OSError):
        store.add_times(folder, _times(time.perf_counter() - began, spent))
  return folder


def _data(study: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
  """(by 'source/target' the counts, classes, digest and notes of its data, by target the ids of its subsets).

  Raises:
    ValueError: data that cannot be used, or a class with fewer examples than the largest size wants.
  """
  described, ids = {}, {}
  for (name, source), (target_name, target) in itertools.product(study['sources'].items(), study['targets'].items()):
    data = pairs.load(study, target, source)
    wanted = pairs.subsets(study, target, data)
    ids[target_name] = {seed: {shots: [data.train.ids[row] for row in rows] for shots, rows in of_seed.items()}
                        for seed, of_seed in wanted.items()}
    counts = {split: len(getattr(data, split).labels) for split in ('train', 'val', 'test')}
    described[f'{name}/{target_name}'] = {'num_examples': counts, 'class_names': data.class_names, 'sha256': data.sha256}
  return described, ids


def _notes(data: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """What the data sets of the study say of themselves, each thing once."""
  return list(dict.fromkeys(note for of_pair in data.values() for note in of_pair.get('notes', ())))


def _times(wall: float, spent: Mapping[str, float]) -> dict[str, float]:
  """A line of time.json: the seconds of one start by kind; what is no kind's is 'other'."""
  kinds = {f'{kind}_seconds': spent[kind] for kind in KINDS}
  return {'wall_seconds': wall, **kinds, 'other_seconds': wall - sum(kinds.values())}


def compile(config: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Compiles what a study would compile, and so fills the compilation cache: a row a program, with its 'cohort' and as `fit.compile`.

  Data sets are loaded, weights are not: zeros stand for them and for activations. Writes nothing.
  """
  study = configs.resolve(config)
  rows = []
  for (source, target), group in itertools.groupby(plan.make(study), key=lambda cohort: cohort.cells[0][:2]):
    pair = Pair(study, source, target, None)
    for cohort in group:
      name = cohort.cells[0].method
      network = plan.network_of(pair.source, len(pair.data.class_names))
      shapes = plan.shapes_of(pair.source, network)
      zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)
      zeros.params.pop(network.stages[-1])
      pretrained = Source(zeros if study['methods'][name]['init'] == 'source' else None, '')
      job = _job(study, cohort.cells, pair.phases[name], pair.source, pretrained, pair.data, study['methods'][name]['head_after'])
      job = job._replace(train=pair.zeros('train', name), val=pair.zeros('val', name), examples=[pair.examples(cell) for cell in cohort.cells])
      rows += [{'cohort': cohort.id, **row} for row in fit.compile(job)]
  return rows


def _steps(study: Mapping[str, Any], cell: Cell) -> int:
  return sum(fit.num_steps(phase['steps'], phase['epochs'], phase['batch_size'], plan.num_train(study, cell))
             for phase in study['methods'][cell.method]['phases'])


def _transfer(lab: Lab, source: str, target: str, cohorts: list[Cohort], pretrained: Source) -> None:
  """Every method from one source to one target."""
  pair = None
  for name, group in itertools.groupby(cohorts, key=lambda cohort: cohort.cells[0].method):
    of_method = list(group)
    if store.complete(lab.workdir, of_method, [plan.cell_id(cell) for cohort in of_method for cell in cohort.cells]):
      lab.reporter.skip(len(of_method))
      continue
    if pair is None:
      with fit.booked(lab.spent, 'data'):
        pair = Pair(lab.study, source, target, lab.workdir, lab.reporter.line, lab.spent)
    start = pretrained if lab.study['methods'][name]['init'] == 'source' else Source(None, '')
    _group(lab, of_method, start, pair)


def _group(lab: Lab, cohorts: list[Cohort], source: Source, pair: Pair) -> None:
  """One method from one source to one target: train, choose by validation, test the chosen, write."""
  name = cohorts[0].cells[0].method
  trained: list[Trained] = []
  for cohort in cohorts:
    lab.reporter.begin()
    before = pair.cost
    with fit.booked(lab.spent, 'setup'):
      job = _job(lab.study, cohort.cells, pair.phases[name], pair.source, source, pair.data, lab.study['methods'][name]['head_after'])
    job = job._replace(train=pair.arrays('train', source.variables, name), val=pair.arrays('val', source.variables, name),
                       examples=[pair.examples(cell) for cell in cohort.cells], val_rows=[pair.looked_at(cell) for cell in cohort.cells])
    folder = lab.workdir / 'cohorts' / cohort.id / 'checkpoints'
    say = lambda steps, rate, cohort=cohort: lab.reporter.say(cohort.id, steps, rate)
    fitted = fit.fit(job, folder, lab.study['checkpoint_seconds'], say, lab.interrupted, lab.spent)
    trained.append(Trained(cohort, job, fitted, pair.cost.since(before)))
    lab.reporter.finish()
  outcomes = {cell: _outcome(t.job, t.fitted, row) for t in trained for row, cell in enumerate(t.cohort.cells)}
  chosen = _choose(outcomes)
  for t in trained:
    ids = [plan.cell_id(cell) for cell in t.cohort.cells]
    done = store.done(lab.workdir, ids)
    for run_id, cell, is_done in zip(ids, t.cohort.cells, done):
      if is_done:
        meshes.on_first(functools.partial(_check_same, lab.workdir, run_id, outcomes[cell], source))
    rows = [row for row, cell in enumerate(t.cohort.cells) if cell in chosen and not done[row]]
    before = pair.cost
    tested = _test(lab, t, rows, pair.arrays('test', source.variables, name), pair.data.test.labels)
    t = t._replace(features=t.features.plus(pair.cost.since(before)))
    with fit.booked(lab.spent, 'save'):
      for row in range(len(t.cohort.cells)):
        if not done[row]:
          _write(lab, t, row, source, pair.data, tested.get(row))


def _test(lab: Lab, trained: Trained, rows: list[int], data: Callable[[Any], feed.Arrays], labels: np.ndarray) -> dict[int, Tested]:
  """By row, what chosen runs of a cohort do on the test set."""
  if not rows:
    return {}
  data(trained.job.phases[-1].phase)  # frozen stages run, which is booked by itself
  compiled, began = Program.so_far, time.perf_counter()
  found = fit.predict(trained.job, trained.fitted, rows, data)
  compiling = (Program.so_far - compiled).seconds
  seconds = time.perf_counter() - began - compiling
  lab.spent['compile'] += compiling
  lab.spent['eval'] += seconds
  return {row: Tested(scores | _by_class(labels, logits), logits, seconds / len(rows)) for row, (scores, logits) in zip(rows, found)}


def _by_class(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
  """{'recall': of each class, NaN where it has no example, 'balanced_accuracy': their mean}."""
  right = logits.argmax(-1) == labels
  recall = [float(right[labels == c].mean()) if (labels == c).any() else np.nan for c in range(logits.shape[-1])]
  return {'balanced_accuracy': float(np.nanmean(recall)), 'recall': recall}


def _check_same(workdir: epath.Path, run_id: str, outcome: Mapping[str, Any], source: Source) -> None:
  """A run that was finished before and is trained again, since its parameters were lost, must have come out as it says.

  Raises:
    ValueError: it did not.
  """
  path = workdir / 'runs' / run_id / 'result.json'
  try:
    result = checkpoint.unsealed(path)
  except ValueError as error:
    raise ValueError(f'{error} Delete {path.parent} and run the same command: it is written again.') from None
  if (result['val'], result['source_sha256']) != (checkpoint.plain(outcome['val']), source.sha256):
    made = ', '.join(f'{name} {version}' for name, version in result.get('versions', {}).items())
    raise ValueError(f'{run_id} was finished earlier with val {result["val"]} of source {result["source_sha256"][:12]} (made with {made}), '
                     f'and is now {outcome["val"]} of {source.sha256[:12]}: what was deleted cannot be made again as it was. '
                     'Delete its runs/ folders too, or run the study in a new --workdir.')


def _weights(study: Mapping[str, Any], workdir: epath.Path) -> dict[str, Loaded]:
  """The public weights that the study's folder does not hold yet, in the first process.

  Raises:
    ValueError: they cannot be had, or do not fit their network.
  """
  loaded: dict[str, Loaded] = {}

  def load() -> None:
    for name, source in study['sources'].items():
      if source['weights'] and not _is_whole(workdir / 'sources' / name):
        loaded[name] = _load(name, source)

  meshes.on_first(load)
  return loaded


def _is_whole(folder: epath.Path) -> bool:
  """Whether a source's folder holds its record and its parameters."""
  return (folder / 'result.json').exists() and bool(checkpoint.steps(folder / 'checkpoints'))


def _load(name: str, config: Mapping[str, Any]) -> Loaded:
  backbone, options = configs.named(config['backbone'])
  network = plan.network_of(config, 2)
  module, head = plug('backbones', backbone), network.stages[-1]
  try:
    weights = sources.load(config['weights'], config['sha256'] or None, config['part'])
    variables, record = backbones.from_weights(module, options, weights, plan.shapes_of(config, network), fresh=(head,))
  except (ValueError, ImportError, KeyError) as error:
    raise ValueError(f'config.sources.{name}.weights: {error}') from None
  return Loaded(variables, {'provenance': weights.provenance, **record, 'config': config})


def _source(lab: Lab, name: str, loaded: Loaded | None) -> Source:
  """The source's variables: loaded or trained by the study where its folder does not hold them yet."""
  folder = lab.workdir / 'sources' / name
  config = lab.study['sources'][name]
  with fit.booked(lab.spent, 'source'):
    if not meshes.on_first(lambda: _is_whole(folder)):
      if config['weights']:
        meshes.on_first(lambda: _keep_source(folder, loaded))
      else:
        _train_source(lab, name, folder)
    params, stats = meshes.on_first(lambda: store.trained(folder / 'checkpoints', 0))
  head = plan.network_of(config, 2).stages[-1]
  params.pop(head, None)
  stats.pop(head, None)
  return Source(Variables(params, stats), tree.sha256((params, stats)))


def _keep_source(folder: epath.Path, loaded: Loaded | None) -> None:
  """Puts public weights into the study's folder under our names, with their record."""
  assert loaded is not None  # as `_weights` found the folder without them
  kept = jax.tree.map(lambda leaf: np.asarray(leaf)[None], loaded.variables)
  checkpoint.save(folder / 'checkpoints', 0, {'state': {'trainable': kept.params, 'stats': kept.stats}}, {})
  checkpoint.write_json(folder / 'result.json', checkpoint.sealed({**loaded.record}))


def _train_source(lab: Lab, name: str, folder: epath.Path) -> None:
  """Trains the source on its data set, into the study's folder."""
  config = lab.study['sources'][name]
  data = pairs.source_data(lab.study, name)
  cell = Cell(name, config['dataset'], 'pretrain', 0, config['seed'], config['train']['learning_rate'], 0.0)
  phases = plan.phases_of({'init': 'random', 'phases': (config['train'],)}, config, len(data.class_names))
  job = _job(lab.study, (cell,), phases, config, Source(None, ''), data)
  lab.reporter.line(f'Training the source {name} on {len(data.train.labels):,} examples of {config["dataset"]}.')
  fitted = fit.fit(job, folder / 'checkpoints', lab.study['checkpoint_seconds'], interrupted=lab.interrupted)
  outcome = _outcome(job, fitted, 0)
  if outcome['status'] != 'ok':
    raise ValueError(f'config.sources.{name}: its training: {outcome["status"]}. Lower its train.learning_rate.')
  (test, _), = fit.predict(job, fitted, (0,), _images(data.test))
  result = {'val': outcome['val'], 'test': test, 'data_sha256': data.sha256, 'config': config, 'history': _history(fitted, 0)}
  meshes.on_first(lambda: checkpoint.write_json(folder / 'result.json', checkpoint.sealed(result)))
  lab.reporter.line(f'Source {name}: test accuracy {test["accuracy"]:.3f} on {config["dataset"]}.')


def _images(split: datasets.Split) -> Callable[[Any], feed.Arrays]:
  """Images as stored, for every phase."""
  return lambda phase: feed.Arrays(split.inputs, split.labels)


def _job(study: Mapping[str, Any], cells: tuple[Cell, ...], phases: tuple[fit.PhasePlan, ...], source_config: Mapping[str, Any], source: Source,
         data: datasets.Dataset, head_after: str = '') -> fit.Job:
  """A cohort with all its arrays, trained on all images."""
  network = plan.network_of(source_config, len(data.class_names), head_after)
  shapes = plan.shapes_of(source_config, network)
  own, stats = _initial(network, shapes, source, [cell.seed for cell in cells], data.train.inputs.shape[1:])
  loaded = source.variables.params if source.variables else {}
  base = {stage: loaded.get(stage, jax.tree.map(lambda _: None, leaves)) for stage, leaves in shapes.params.items()}
  return fit.Job(
      network, phases, Variables(base, {}), own, stats, _images(data.train), _images(data.val), [np.arange(len(data.train.labels))] * len(cells),
      [cell.seed for cell in cells], [cell.learning_rate for cell in cells], [cell.weight_decay for cell in cells],
      Devices(**study['mesh']))


def _initial(network: Network, shapes: Variables, source: Source, seeds: list[int], image_shape: tuple[int, ...]):
  """(params [R, ...] that the source does not bring, stats [R, ...]); runs of one seed begin alike."""
  loaded = source.variables or Variables({}, {})
  fresh = _initialiser(network, tuple(stage for stage in shapes.params if stage not in loaded.params), image_shape)
  drawn = {seed: jax.device_get(fresh(jax.random.fold_in(jax.random.key(seed), 0))) for seed in set(seeds)}
  params, stats = jax.tree.map(lambda *leaves: np.stack(leaves), *(drawn[seed] for seed in seeds))
  stats |= {stage: jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(seeds), *leaf.shape)), loaded.stats[stage])
            for stage in shapes.stats if stage in loaded.stats}
  return {stage: params.get(stage, jax.tree.map(lambda _: None, leaves)) for stage, leaves in shapes.params.items()}, stats


@functools.cache
def _initialiser(network: Network, stages: tuple[str, ...], image_shape: tuple[int, ...]) -> Callable:
  """key -> (params, stats) of `stages`, as a compiled program; the other stages are not computed."""
  def fresh(key):
    variables = network.init(key, np.zeros((1, *image_shape), np.float32))
    return tuple({stage: leaves for stage, leaves in part.items() if stage in stages} for part in variables)

  return jax.jit(fresh)


def _outcome(job: fit.Job, fitted: fit.Fitted, row: int) -> dict[str, Any]:
  """A run's status and its last validation metrics. Anything but 'ok' is no result to rely on."""
  last = fitted.progress['history'][-1]
  val = {name: last[f'val_{name}'][row] for name in ('accuracy', 'loss', 'count', 'correct')}
  return {'status': _status(job, fitted, row, val['loss']), 'val': val}


def _status(job: fit.Job, fitted: fit.Fitted, row: int, val_loss: float | None) -> str:
  taken = 0
  for index, steps in enumerate(fitted.progress['taken']):
    taken += steps[row]
    if steps[row] < job.steps(index)[row]:
      return f'diverged at step {taken}'
  if not is_finite(val_loss):
    return f'not finite after step {taken}'
  return 'ok' if fitted.progress['converged'][row] else 'not solved'


def is_finite(value: float | None) -> bool:
  """Whether a metric is a number; JSON has None where it is not."""
  return value is not None and bool(np.isfinite(value))


def _choose(outcomes: Mapping[Cell, Mapping[str, Any]]) -> set[Cell]:
  """For each size, the cells of the setting with the best mean validation accuracy over the seeds; ties go to the lower loss.

  A setting with a run that is not ok is taken only where every setting has one, and none whose metrics are not finite.
  """
  chosen: set[Cell] = set()
  for shots in {cell.shots for cell in outcomes}:
    settings: dict[tuple, list[Cell]] = {}
    for cell in outcomes:
      if cell.shots == shots:
        settings.setdefault((cell.learning_rate, cell.weight_decay), []).append(cell)
    finite = [cells for cells in settings.values() if all(is_finite(outcomes[cell]['val']['loss']) for cell in cells)]
    if finite:
      chosen |= set(max(finite, key=functools.partial(_quality, outcomes)))
  return chosen


def _quality(outcomes: Mapping[Cell, Mapping[str, Any]], cells: Iterable[Cell]) -> tuple[bool, float, float]:
  values = [outcomes[cell]['val'] for cell in cells]
  usable = all(outcomes[cell]['status'] == 'ok' for cell in cells)
  return usable, round(float(np.mean([v['accuracy'] for v in values])), 12), -float(np.mean([v['loss'] for v in values]))


def _write(lab: Lab, trained: Trained, row: int, source: Source, data: datasets.Dataset, tested: Tested | None) -> None:
  """One run's folder; `tested` is what a chosen run did on the test set."""
  cohort, job, fitted, features = trained
  cell, run_id, num_runs = cohort.cells[row], plan.cell_id(cohort.cells[row]), len(cohort.cells)
  config = {'cell': cell._asdict(), 'source': lab.study['sources'][cell.source], 'target': lab.study['targets'][cell.target],
            'method': lab.study['methods'][cell.method]}
  sizes = dict(plan.sizes(plan.shapes_of(config['source'], job.network)))
  groups = [dict(phase.phase.labels) for phase in job.phases]
  trainable = [sum(size for name, size in sizes.items() if labels[name] != 'frozen') for labels in groups]
  stages, found = job.network.stages, fitted.progress
  of_all = np.stack([job.steps(i) for i in range(len(job.phases))])  # [phases, R]
  steps = of_all[:, row].tolist()
  seconds = [total * taken / int(of_run.sum()) for total, taken, of_run in zip(found['train_seconds'], steps, of_all)]
  phases = [{'steps': taken, 'train_seconds': spent, 'trainable_params': count, 'reused_stages': phase.phase.start,
             'frozen_sha256_before': frozen['before'][row], 'frozen_sha256_after': frozen['after'][row]}
            for phase, taken, spent, count, frozen in zip(job.phases, steps, seconds, trainable, found['frozen'])]
  tuned = {name.split('/')[0] for name, group in groups[-1].items() if group != 'frozen'}
  reused = any(phase.phase.start for phase in job.phases)
  exact = all(phase.phase.solver != 'sgd' for phase in job.phases)
  predictions = tested and {'ids': np.asarray(data.test.ids), 'labels': data.test.labels, 'logits': tested.logits,
                            'class_names': np.asarray(data.class_names)}
  result = {
      'id': run_id, 'cell': cell._asdict(), **_outcome(job, fitted, row), 'chosen': tested is not None, 'test': tested and tested.scores,
      'init': config['method']['init'], 'deterministic': exact and not cell.shots and bool(source.sha256),
      'num_train': len(job.examples[row]), 'num_classes': len(data.class_names),
      'num_stages': len(stages), 'frozen_stages': min(stages.index(stage) for stage in tuned), 'head': stages[-1], 'cohort': cohort.id, 'row': row,
      'source_sha256': source.sha256, 'data_sha256': data.sha256, 'versions': store.versions(),
      'phases': phases, 'cost': {
          'trainable_params': max(trainable), 'total_params': sum(sizes.values()), 'optimizer_bytes': found['optimizer_bytes'],
          'train_flops': plan.train_flops(job.phases, steps, job.network, config['source']), 'steps': sum(steps),
          'train_seconds': sum(seconds), 'eval_seconds': found['eval_seconds'] / num_runs + (tested.seconds if tested else 0.0),
          'feature_seconds': features.seconds / num_runs, 'features': ('computed' if features.computed else 'read') if reused else '',
          'compile_seconds': found['compile_seconds'] / num_runs, 'compiled_programs': found['compiled_programs'],
          'peak_memory_bytes': _peak_memory()}}
  meshes.on_first(lambda: store.write_run(lab.workdir, run_id, config, _history(fitted, row), _label_text(groups), predictions, result))


def _history(fitted: fit.Fitted, row: int) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl for one run."""
  return [{name: value[row] if isinstance(value, list) else value for name, value in line.items()}
          for line in fitted.progress['history']]


def _label_text(groups: list[dict[str, str]]) -> str:
  """Every parameter's group, a line each, phase by phase."""
  return ''.join(f'phase {i}\n' + ''.join(f'  {group:<8} {name}\n' for name, group in labels.items()) for i, labels in enumerate(groups))


def _peak_memory() -> int:
  """Bytes: of the accelerator where it says, else of this process."""
  stats = jax.local_devices()[0].memory_stats() or {}
  process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
  return stats.get('peak_bytes_in_use', process)


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], int]]:
  """Within, SIGINT and SIGTERM ask for an orderly end; a second one does not ask. Other threads than the main one get none."""
  got: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield lambda: 0
    return

  def ask(number: int, frame: Any) -> None:
    got.append(number)
    signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

  before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield lambda: got[0] if got else 0
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
