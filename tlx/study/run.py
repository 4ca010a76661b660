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

from tlx import checkpoint, datasets, tree
from tlx.study import config as configs
from tlx.study import plan, progress, store
from tlx.study.plan import Cohort
from tlx.train import feed, fit
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
    steps = {name: sum(phase['steps'] for phase in method['phases']) for name, method in study['methods'].items()}
    cells = [cell for cohort in cohorts for cell in cohort.cells]
    reporter = progress.Reporter(sum(steps[cell.method] for cell in cells), len(cells))
    lab = Lab(study, workdir, reporter, interrupted)
    try:
      for source, target in itertools.product(study['sources'].values(), study['targets'].values()):
        _check_shots(study, target, _load(lab, target, source))
      sources = {name: _source(lab, name) for name in study['sources']}
      for _, group in itertools.groupby(cohorts, key=lambda cohort: cohort.cells[0][:3]):
        _group(lab, list(group), sources)
    finally:
      reporter.close()
  return workdir


def _check_shots(study: Mapping[str, Any], target: Mapping[str, Any], data: datasets.Dataset) -> None:
  """Raises ValueError, before anything is trained, where a class has fewer examples than the study's largest size."""
  try:
    datasets.subsets(data.train.labels, data.train.ids, study['shots'], 0)
  except ValueError as error:
    raise ValueError(f'config.shots on {target["dataset"]!r}: {error}') from None


def _group(lab: Lab, cohorts: list[Cohort], sources: Mapping[str, Source]) -> None:
  """One method from one source to one target: train, choose by validation, test the chosen, write."""
  cells = [cell for cohort in cohorts for cell in cohort.cells]
  method = lab.study['methods'][cells[0].method]
  steps = sum(phase['steps'] for phase in method['phases'])
  if all(store.done(lab.workdir, plan.cell_id(cell)) for cell in cells):
    lab.reporter.skip(len(cells), steps * len(cells))
    return
  target, source_config = lab.study['targets'][cells[0].target], lab.study['sources'][cells[0].source]
  data = _load(lab, target, source_config)
  source = sources[cells[0].source] if method['init'] == 'source' else Source(None, '')
  trained = []
  for cohort in cohorts:
    job = _job(lab, cohort.cells, method, source_config, source, data)
    folder = lab.workdir / 'cohorts' / cohort.id / 'checkpoints'
    say = lambda steps, rate, cohort=cohort: lab.reporter.say(cohort.id, steps * len(cohort.cells), rate)
    trained.append((cohort, job, fit.fit(job, folder, lab.study['checkpoint_seconds'], say, lab.interrupted)))
    lab.reporter.finish(len(cohort.cells), steps * len(cohort.cells))
  chosen = _choose({cell: _outcome(job, fitted, row) for cohort, job, fitted in trained for row, cell in enumerate(cohort.cells)})
  for cohort, job, fitted in trained:
    for row, cell in enumerate(cohort.cells):
      if not store.done(lab.workdir, plan.cell_id(cell)):
        _write(lab, cohort, row, job, fitted, source, data, cell in chosen)


def _source(lab: Lab, name: str) -> Source:
  """The source's variables, trained by the study where its folder does not hold them yet."""
  folder = lab.workdir / 'sources' / name
  config = lab.study['sources'][name]
  head = plan.network_of(config, 2).stages[-1]
  if not (folder / 'result.json').exists():
    data = _load(lab, {'dataset': config['dataset'], 'shift': config['shift'], 'val_fraction': 0.1, 'test_fraction': 0.3}, config)
    cell = Cell(name, config['dataset'], 'pretrain', 0, config['seed'], config['train']['learning_rate'], 0.0)
    job = _job(lab, (cell,), {'init': 'random', 'phases': (config['train'],)}, config, Source(None, ''), data)
    lab.reporter.line(f'Training the source {name} on {len(data.train.labels):,} examples of {config["dataset"]}.')
    fitted = fit.fit(job, folder / 'checkpoints', lab.study['checkpoint_seconds'], interrupted=lab.interrupted)
    outcome = _outcome(job, fitted, 0)
    if outcome['status'] != 'ok':
      raise ValueError(f'config.sources.{name}: its training {outcome["status"]}. Lower its train.learning_rate.')
    test, _ = fit.predict(job, fitted, 0, feed.Arrays(data.test.inputs, data.test.labels))
    checkpoint.write_json(folder / 'result.json', {'val': outcome['val'], 'test': test, 'data_sha256': data.sha256, 'config': config,
                                                   'history': _history(fitted, 0)})
    lab.reporter.line(f'Source {name}: test accuracy {test["accuracy"]:.3f} on {config["dataset"]}.')
  params, stats = store.trained(folder / 'checkpoints', 0)
  params.pop(head)
  stats.pop(head, None)
  return Source(Variables(params, stats), tree.sha256((params, stats)))


def _job(lab: Lab, cells: tuple[Cell, ...], method: Mapping[str, Any], source_config: Mapping[str, Any], source: Source,
         data: datasets.Dataset) -> fit.Job:
  """A cohort with all its arrays."""
  network = plan.network_of(source_config, len(data.class_names))
  phases = plan.phases_of(method, source_config, len(data.class_names))
  shapes = plan.shapes_of(source_config, network)
  own, stats = _initial(network, shapes, source, [cell.seed for cell in cells], data.train.inputs.shape[1:])
  loaded = source.variables.params if source.variables else {}
  base = {stage: loaded.get(stage, jax.tree.map(lambda _: None, leaves)) for stage, leaves in shapes.params.items()}
  return fit.Job(
      network, phases, Variables(base, {}), own, stats, feed.Arrays(data.train.inputs, data.train.labels),
      feed.Arrays(data.val.inputs, data.val.labels), [_examples(lab, data, cell) for cell in cells], [cell.seed for cell in cells],
      [cell.learning_rate for cell in cells], [cell.weight_decay for cell in cells])


def _initial(network: Network, shapes: Variables, source: Source, seeds: list[int], image_shape: tuple[int, ...]):
  """(params [R, ...] that the source does not bring, stats [R, ...]); runs of one seed begin alike."""
  loaded = source.variables or Variables({}, {})
  fresh = _initialiser(network, tuple(stage for stage in shapes.params if stage not in loaded.params), image_shape)
  drawn = {seed: jax.device_get(fresh(jax.random.fold_in(jax.random.key(seed), 0))) for seed in set(seeds)}
  params, stats = jax.tree.map(lambda *leaves: np.stack(leaves), *(drawn[seed] for seed in seeds))
  stats |= {stage: jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(seeds), *leaf.shape)), leaves)
            for stage, leaves in loaded.stats.items()}
  return {stage: params.get(stage, jax.tree.map(lambda _: None, leaves)) for stage, leaves in shapes.params.items()}, stats


@functools.cache
def _initialiser(network: Network, stages: tuple[str, ...], image_shape: tuple[int, ...]) -> Callable:
  """key -> (params, stats) of `stages`, as a compiled program; the other stages are not computed."""
  def fresh(key):
    variables = network.init(key, np.zeros((1, *image_shape), np.float32))
    return tuple({stage: leaves for stage, leaves in part.items() if stage in stages} for part in variables)

  return jax.jit(fresh)


def _load(lab: Lab, target: Mapping[str, Any], source: Mapping[str, Any]) -> datasets.Dataset:
  """A data set as images of the form the source takes; loaded once."""
  return _load_cached(target['dataset'], source['input']['image_size'], source['input']['channels'], target['shift'],
                      target['val_fraction'], target['test_fraction'], lab.study['data_dir'] or None)


_load_cached = functools.lru_cache(maxsize=8)(datasets.load)


def _examples(lab: Lab, data: datasets.Dataset, cell: Cell) -> np.ndarray:
  """The rows of the training part that a cell trains on; their ids are in subsets/."""
  shots = lab.study['shots']
  rows = datasets.subsets(data.train.labels, data.train.ids, shots if cell.shots in shots else (cell.shots,), cell.seed)
  path = lab.workdir / 'subsets' / f'{cell.target}.json'
  if cell.target in lab.study['targets']:
    known = checkpoint.read_json(path) if path.exists() else {}
    if str(cell.seed) not in known:
      path.parent.mkdir(exist_ok=True)
      known[str(cell.seed)] = {str(n): [data.train.ids[row] for row in subset] for n, subset in rows.items()}
      checkpoint.write_json(path, known)
  return rows[cell.shots]


def _outcome(job: fit.Job, fitted: fit.Fitted, row: int) -> dict[str, Any]:
  """A run's status and its last validation metrics."""
  taken, last = 0, fitted.progress['history'][-1]
  status = 'ok'
  for phase, steps in zip(job.phases, fitted.progress['taken']):
    taken += steps[row]
    if steps[row] < phase.num_steps:
      status = f'diverged at step {taken}'
      break
  val = {'accuracy': last['val_accuracy'][row], 'loss': last['val_loss'][row], 'count': len(job.val.targets)}
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


def _write(lab: Lab, cohort: Cohort, row: int, job: fit.Job, fitted: fit.Fitted, source: Source, data: datasets.Dataset,
           chosen: bool) -> None:
  """One run's folder; the chosen runs see the test set here, once."""
  cell, run_id = cohort.cells[row], plan.cell_id(cohort.cells[row])
  config = {'cell': cell._asdict(), 'source': lab.study['sources'][cell.source], 'target': lab.study['targets'][cell.target],
            'method': lab.study['methods'][cell.method]}
  shapes = plan.shapes_of(config['source'], job.network)
  sizes = dict(plan.sizes(shapes))
  groups = [dict(phase.phase.labels) for phase in job.phases]
  trainable = [sum(size for name, size in sizes.items() if labels[name] != 'frozen') for labels in groups]
  predictions, test = None, None
  if chosen:
    test, logits = fit.predict(job, fitted, row, feed.Arrays(data.test.inputs, data.test.labels))
    predictions = {'ids': np.asarray(data.test.ids), 'labels': data.test.labels, 'logits': logits}
  phases = [{'steps': phase.num_steps, 'trainable_params': count, 'frozen_sha256_before': frozen['before'][row],
             'frozen_sha256_after': frozen['after'][row]}
            for phase, count, frozen in zip(job.phases, trainable, fitted.progress['frozen'])]
  tuned = {name.split('/')[0] for name, group in groups[-1].items() if group != 'frozen'}
  stages = job.network.stages
  num_runs = len(cohort.cells)
  store.write_run(lab.workdir, run_id, config, _history(fitted, row), _label_text(groups), predictions, {
      'id': run_id, 'cell': cell._asdict(), **_outcome(job, fitted, row), 'chosen': chosen, 'test': test,
      'init': config['method']['init'], 'num_stages': len(stages), 'frozen_stages': min(stages.index(stage) for stage in tuned),
      'head': stages[-1], 'cohort': cohort.id, 'row': row, 'source_sha256': source.sha256, 'data_sha256': data.sha256,
      'phases': phases, 'cost': {
          'trainable_params': max(trainable), 'total_params': sum(sizes.values()), 'optimizer_bytes': fitted.progress['optimizer_bytes'],
          'train_flops': plan.train_flops(job.phases, job.network, config['source']), 'steps': sum(p.num_steps for p in job.phases),
          'train_seconds': fitted.progress['train_seconds'] / num_runs, 'compile_seconds': fitted.progress['compile_seconds'] / num_runs,
          'peak_memory_bytes': _peak_memory()}})


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
