"""A study from its config to its folder. The only file that knows every room; it reads in the order in which things happen."""
import contextlib
import functools
import itertools
import os
import resource
import signal
import sys
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
from tlx.train.spread import Devices
from tlx.types import Cell, Network, Variables


class Lab(NamedTuple):
  """What the parts of one study share."""
  study: Mapping[str, Any]
  workdir: epath.Path
  reporter: progress.Reporter
  interrupted: Callable[[], int]


class Source(NamedTuple):
  """A pretrained model's variables without the head, and their digest; a random initialisation has neither."""
  variables: Variables | None
  sha256: str


class Trained(NamedTuple):
  """A cohort at its end; `feature_seconds` went into what its frozen stages make of the images."""
  cohort: Cohort
  job: fit.Job
  fitted: fit.Fitted
  feature_seconds: float


def run(config: Mapping[str, Any], workdir: str | os.PathLike) -> epath.Path:
  """Runs the study, or what is left of it, and returns its folder. The same config and folder give the same numbers.

  Raises:
    ValueError: what is wrong with the config or the folder, before anything is compiled.
    KeyboardInterrupt: with the signal's number, after SIGINT or SIGTERM and once the state is saved.
  """
  study = configs.resolve(config)
  cohorts = plan.make(study)
  workdir = epath.Path(workdir)
  with store.locked(workdir), _signals() as interrupted:
    store.begin(workdir, study, cohorts)
    parts = [progress.Part(cohort.cells[0].method, len(cohort.cells), max(_steps(study, cell) for cell in cohort.cells)) for cohort in cohorts]
    reporter = progress.Reporter(parts, meshes.is_first())
    lab = Lab(study, workdir, reporter, interrupted)
    try:
      for source, target in itertools.product(study['sources'].values(), study['targets'].values()):
        pairs.subsets(study, target, pairs.load(study, target, source))
      pretrained = {name: _source(lab, name) for name in study['sources']}
      for (source, target), group in itertools.groupby(cohorts, key=lambda cohort: cohort.cells[0][:2]):
        _transfer(lab, source, target, list(group), pretrained[source])
    finally:
      reporter.close()
  return workdir


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
    cells = [cell for cohort in of_method for cell in cohort.cells]
    if all(store.done(lab.workdir, [plan.cell_id(cell) for cell in cells])):
      lab.reporter.skip(len(of_method))
      continue
    pair = pair or Pair(lab.study, source, target, lab.workdir, lab.reporter.line)
    begin = pretrained if lab.study['methods'][name]['init'] == 'source' else Source(None, '')
    _group(lab, of_method, begin, pair)


def _group(lab: Lab, cohorts: list[Cohort], source: Source, pair: Pair) -> None:
  """One method from one source to one target: train, choose by validation, test the chosen, write."""
  name = cohorts[0].cells[0].method
  trained: list[Trained] = []
  for cohort in cohorts:
    lab.reporter.begin()
    before = pair.seconds
    job = _job(lab.study, cohort.cells, pair.phases[name], pair.source, source, pair.data, lab.study['methods'][name]['head_after'])
    job = job._replace(train=pair.arrays('train', source.variables, name), val=pair.arrays('val', source.variables, name),
                       examples=[pair.examples(cell) for cell in cohort.cells])
    folder = lab.workdir / 'cohorts' / cohort.id / 'checkpoints'
    say = lambda steps, rate, cohort=cohort: lab.reporter.say(cohort.id, steps, rate)
    fitted = fit.fit(job, folder, lab.study['checkpoint_seconds'], say, lab.interrupted)
    trained.append(Trained(cohort, job, fitted, pair.seconds - before))
    lab.reporter.finish()
  chosen = _choose({cell: _outcome(t.job, t.fitted, row) for t in trained for row, cell in enumerate(t.cohort.cells)})
  for t in trained:
    before = pair.seconds
    done = store.done(lab.workdir, [plan.cell_id(cell) for cell in t.cohort.cells])
    rows = [row for row, cell in enumerate(t.cohort.cells) if cell in chosen and not done[row]]
    tested = dict(zip(rows, fit.predict(t.job, t.fitted, rows, pair.arrays('test', source.variables, name)) if rows else ()))
    t = t._replace(feature_seconds=t.feature_seconds + pair.seconds - before)
    for row in range(len(t.cohort.cells)):
      if not done[row]:
        _write(lab, t, row, source, pair.data, tested.get(row))


def _source(lab: Lab, name: str) -> Source:
  """The source's variables: loaded or trained by the study where its folder does not hold them yet."""
  folder = lab.workdir / 'sources' / name
  config = lab.study['sources'][name]
  if not meshes.on_first((folder / 'result.json').exists):
    (_load_source if config['weights'] else _train_source)(lab, name, folder)
  params, stats = meshes.on_first(lambda: store.trained(folder / 'checkpoints', 0))
  head = plan.network_of(config, 2).stages[-1]
  params.pop(head, None)
  stats.pop(head, None)
  return Source(Variables(params, stats), tree.sha256((params, stats)))


def _load_source(lab: Lab, name: str, folder: epath.Path) -> None:
  """Puts public weights into the study's folder under our names, with the record of where they came from."""
  config = lab.study['sources'][name]
  lab.reporter.line(f'Loading the source {name} from {config["weights"]}.')

  def load() -> None:
    backbone, options = configs.named(config['backbone'])
    network = plan.network_of(config, 2)
    module, head = plug('backbones', backbone), network.stages[-1]
    try:
      weights = sources.load(config['weights'], config['sha256'] or None)
      own = weights.provenance['format'] == 'study'
      shapes = plan.shapes_of(config, network)
      names = backbones.own_names(shapes) if own else module.names(weights.arrays, **options)
      variables, record = backbones.fill(shapes, weights.arrays, names, (head,), () if own else module.IGNORE)
    except (ValueError, ImportError, KeyError) as error:
      raise ValueError(f'config.sources.{name}.weights: {error}') from None
    kept = jax.tree.map(lambda leaf: np.asarray(leaf)[None], variables)
    checkpoint.save(folder / 'checkpoints', 0, {'state': {'trainable': kept.params, 'stats': kept.stats}}, {})
    checkpoint.write_json(folder / 'result.json', {'provenance': weights.provenance, **record, 'config': config})

  meshes.on_first(load)


def _train_source(lab: Lab, name: str, folder: epath.Path) -> None:
  """Trains the source on its data set, into the study's folder."""
  config = lab.study['sources'][name]
  data = pairs.load(lab.study, {'dataset': config['dataset'], 'shift': config['shift'], **plan.PRETRAINING}, config)
  cell = Cell(name, config['dataset'], 'pretrain', 0, config['seed'], config['train']['learning_rate'], 0.0)
  phases = plan.phases_of({'init': 'random', 'phases': (config['train'],)}, config, len(data.class_names))
  job = _job(lab.study, (cell,), phases, config, Source(None, ''), data)
  lab.reporter.line(f'Training the source {name} on {len(data.train.labels):,} examples of {config["dataset"]}.')
  fitted = fit.fit(job, folder / 'checkpoints', lab.study['checkpoint_seconds'], interrupted=lab.interrupted)
  outcome = _outcome(job, fitted, 0)
  if outcome['status'] != 'ok':
    raise ValueError(f'config.sources.{name}: its training {outcome["status"]}. Lower its train.learning_rate.')
  (test, _), = fit.predict(job, fitted, (0,), _images(data.test))
  result = {'val': outcome['val'], 'test': test, 'data_sha256': data.sha256, 'config': config, 'history': _history(fitted, 0)}
  meshes.on_first(lambda: checkpoint.write_json(folder / 'result.json', result))
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
  """A run's status and its last validation metrics."""
  taken, last = 0, fitted.progress['history'][-1]
  status = 'ok'
  for index, steps in enumerate(fitted.progress['taken']):
    taken += steps[row]
    if steps[row] < job.steps(index)[row]:
      status = f'diverged at step {taken}'
      break
  val = {'accuracy': last['val_accuracy'][row], 'loss': last['val_loss'][row], 'count': int(last['val_count'][row])}
  return {'status': status, 'val': val}


def _choose(outcomes: Mapping[Cell, Mapping[str, Any]]) -> set[Cell]:
  """For each size, the cells of the setting with the best mean validation accuracy over the seeds; ties go to the lower loss.

  A setting with a diverged run is taken only where every setting has one.
  """
  chosen = set()
  for shots in {cell.shots for cell in outcomes}:
    settings: dict[tuple, list[Cell]] = {}
    for cell in outcomes:
      if cell.shots == shots:
        settings.setdefault((cell.learning_rate, cell.weight_decay), []).append(cell)

    def quality(cells: Iterable[Cell]) -> tuple[bool, float, float]:
      values = [outcomes[cell]['val'] for cell in cells]
      finite = all(outcomes[cell]['status'] == 'ok' and value['loss'] is not None for cell, value in zip(cells, values))
      mean = lambda name: float(np.mean([np.nan if value[name] is None else value[name] for value in values]))
      return finite, mean('accuracy'), -float(np.nan_to_num(mean('loss'), nan=np.inf))

    chosen |= set(max(settings.values(), key=quality))
  return chosen


def _write(lab: Lab, trained: Trained, row: int, source: Source, data: datasets.Dataset,
           tested: tuple[dict[str, float], np.ndarray] | None) -> None:
  """One run's folder; `tested` are the metrics and logits of a chosen run on the test set."""
  cohort, job, fitted, feature_seconds = trained
  cell, run_id, num_runs = cohort.cells[row], plan.cell_id(cohort.cells[row]), len(cohort.cells)
  config = {'cell': cell._asdict(), 'source': lab.study['sources'][cell.source], 'target': lab.study['targets'][cell.target],
            'method': lab.study['methods'][cell.method]}
  sizes = dict(plan.sizes(plan.shapes_of(config['source'], job.network)))
  groups = [dict(phase.phase.labels) for phase in job.phases]
  trainable = [sum(size for name, size in sizes.items() if labels[name] != 'frozen') for labels in groups]
  test, logits = tested or (None, None)
  predictions = {'ids': np.asarray(data.test.ids), 'labels': data.test.labels, 'logits': logits} if tested else None
  stages, found = job.network.stages, fitted.progress
  of_all = np.stack([job.steps(i) for i in range(len(job.phases))])  # [phases, R]
  steps = of_all[:, row].tolist()
  phases = [{'steps': taken, 'trainable_params': count, 'reused_stages': phase.phase.start,
             'frozen_sha256_before': frozen['before'][row], 'frozen_sha256_after': frozen['after'][row]}
            for phase, taken, count, frozen in zip(job.phases, steps, trainable, found['frozen'])]
  tuned = {name.split('/')[0] for name, group in groups[-1].items() if group != 'frozen'}
  result = {
      'id': run_id, 'cell': cell._asdict(), **_outcome(job, fitted, row), 'chosen': test is not None, 'test': test,
      'init': config['method']['init'], 'num_train': len(job.examples[row]), 'num_classes': len(data.class_names),
      'num_stages': len(stages), 'frozen_stages': min(stages.index(stage) for stage in tuned), 'head': stages[-1], 'cohort': cohort.id, 'row': row, 'source_sha256': source.sha256, 'data_sha256': data.sha256,
      'phases': phases, 'cost': {
          'trainable_params': max(trainable), 'total_params': sum(sizes.values()), 'optimizer_bytes': found['optimizer_bytes'],
          'train_flops': plan.train_flops(job.phases, steps, job.network, config['source']), 'steps': sum(steps),
          'train_seconds': found['train_seconds'] * sum(steps) / int(of_all.sum()), 'feature_seconds': feature_seconds / num_runs,
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
  """Within, SIGINT and SIGTERM ask for an orderly end; a second one does not ask."""
  got: list[int] = []

  def ask(number: int, frame: Any) -> None:
    got.append(number)
    signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

  before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield lambda: got[0] if got else 0
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
