"""A study from its config to its folder. The only file that knows every room; it reads in the order
in which things happen.
"""

import contextlib
import functools
import itertools
import json
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from tlx import backbones, checkpoint, datasets, freezing, sources, tree
from tlx import inputs as forms
from tlx.plug import plug
from tlx.study import config as configs
from tlx.study import (
  depth,
  evaluation,
  locks,
  merges,
  presets,
  progress,
  record,
  shown,
  stages,
  store,
  zero_shot,
)
from tlx.study import pair as pairs
from tlx.study.cells import (
  Cohort,
  beyond_edges,
  cell_id,
  cells_of,
  dependencies,
  num_train,
)
from tlx.study.cohorts import cohorts_of, new_cohorts
from tlx.study.informed import informed
from tlx.study.pair import Pair
from tlx.study.phases import (
  added_of,
  heads_of,
  kept_stages,
  network_of,
  phases_of,
  shapes_of,
  task_of,
)
from tlx.study.record import Tested, Trained
from tlx.train import feed, fit
from tlx.train import mesh as meshes
from tlx.train.anchor import Origin
from tlx.train.cohort import Program, let_go
from tlx.train.job import Job, PhasePlan, num_steps
from tlx.train.prefix import variable_shapes
from tlx.train.profile import Profile
from tlx.train.spread import Devices
from tlx.types import Cell, Form, Network, PyTree, Task, Variables

KINDS = (
  'data',
  'source',
  'feature',
  'setup',
  'train',
  'wait',
  'eval',
  'compile',
  'save',
)  # of time, see docs/results.md


class Lab(NamedTuple):
  """What the parts of one study share."""

  study: Mapping[str, Any]
  workdir: epath.Path
  reporter: progress.Reporter
  interrupted: Callable[[], int]
  spent: fit.Spent  # seconds of this start by kind
  wanted: frozenset[Cell]  # the runs of the config; more may be there
  written: Callable[[epath.Path, list[str]], None]  # is told of the runs of each finished method
  profile: tuple[int, int] | None  # first and stop of the steps that are traced


class Source(NamedTuple):
  """A pretrained model's variables without the head, and their digest; a random initialisation
  has neither. With `like` it is drawn with the mean and the variance of each of these leaves.

  whole: its variables with the head that it was trained with; None where there is none.
  stream: what the run's own stages are drawn by. A source of the same seed began where a random
    start does: beside a part of it that would be no random start.
  """

  variables: Variables | None
  sha256: str
  like: PyTree = None
  whole: Variables | None = None
  stream: int = 0


class Loaded(NamedTuple):
  """Public weights under our names, and the record of where they came from."""

  variables: Variables
  record: Mapping[str, Any]


def untold(folder: epath.Path, runs: list[str]) -> None:
  """Nobody wants to be told of finished runs."""


def run(
  config: Mapping[str, Any],
  workdir: str | os.PathLike,
  stop_seconds: float = 0.0,
  written: Callable[[epath.Path, list[str]], None] = untold,
  worker: str = '',
  profile: tuple[int, int] | None = None,
) -> epath.Path:
  """Runs the study, or what is left of it, and returns its folder. The same config and folder
  give the same numbers. Processes that do so at one time share the work.

  Args:
    stop_seconds: after SIGINT the process ends by then at the latest, also while a program
      compiles; what was not saved is trained again. 0 waits for the next step at which all can be
      saved.
    written: called in the first process with the folder and the runs of a method, once they are
      there.
    worker: its name, of a process that another one started and speaks for.
    profile: the steps [first, stop) of each cohort whose traces go to WORKDIR/profile.

  Raises:
    ValueError: what is wrong with the config, the data, the weights or the folder, before
      anything is written or compiled.
    KeyboardInterrupt: with the signal's number, after SIGINT or SIGTERM and once the state is
      saved.
  """
  began, spent = time.perf_counter(), fit.Spent(float)
  pairs.forget()
  study = configs.resolve(config)
  folder = store.place(workdir)
  meshes.on_first(lambda: store.check(folder, study))
  begun = meshes.on_first(lambda: [cohort for cohort, _ in store.begun(folder)])
  cohorts = cohorts_of(study, begun)
  evaluation.check(study)
  zero_shot.check(study)
  merges.check(study)
  meshes.shape(1, jax.device_count(), study['mesh'])
  pairs.check_feature_folder(study)
  with _signals(stop_seconds, folder) as interrupted:
    with fit.booked(spent, 'data'):
      data, subsets = data_of(study, folder)
      made = meshes.on_first(lambda: store.check_data(folder, cells_of(study), data))
      told = meshes.on_first(lambda: store.told(folder))
    with fit.booked(spent, 'source'):
      weights = _weights(study, folder)
    if signal_number := meshes.on_first(interrupted):
      raise KeyboardInterrupt(signal_number)
    board = progress.Board(folder, worker or progress.own_name())

    def begin() -> None:
      board.clear()
      store.begin(folder, study, cohorts, data, subsets, known=made)

    with locks.joined(folder, begin, functools.partial(store.difference, folder, study)):
      parts = [_part(study, cohort) for cohort in cohorts]
      reporter = progress.Reporter(parts, meshes.is_first(), board, bool(worker))
      lab = Lab(
        _widened(study, cohorts),
        folder,
        reporter,
        interrupted,
        spent,
        frozenset(cells_of(study)),
        written,
        profile,
      )
      with board.shown(), _remedied(folder):
        said = *filter(None, [presets.described(study)]), *_notes(data, told)
        for line in (*said, store.made_elsewhere(made.values())):
          reporter.line(line)
        try:
          _share(lab, cohorts, weights)
        finally:
          reporter.close()
          if meshes.is_first():
            with contextlib.suppress(OSError):
              store.add_times(folder, _times(time.perf_counter() - began, spent))
    with locks.last(folder) as is_last, _remedied(folder):
      if is_last:
        meshes.on_first(lambda: shown.write(study, folder))
  return folder


@contextlib.contextmanager
def _remedied(folder: epath.Path) -> Iterator[None]:
  """Says what to do where a disk fails."""
  try:
    yield
  except OSError as error:
    raise ValueError(
      f'{error}. {folder} holds all that was done before; when that is mended, the '
      'same command continues.'
    ) from None


def _part(study: Mapping[str, Any], cohort: Cohort) -> progress.Part:
  steps = max(_steps(study, cell) for cell in cohort.cells)
  return progress.Part(cohort.id, cohort.cells[0].method, len(cohort.cells), steps)


def _widened(study: Mapping[str, Any], cohorts: list[Cohort]) -> dict[str, Any]:
  """The study with the sizes and seeds of cohorts of an earlier config too, whose runs are still
  there.
  """
  cells = [cell for cohort in cohorts for cell in cohort.cells]
  more = {
    name: tuple(dict.fromkeys((*study[name], *(getattr(cell, field) for cell in cells))))
    for name, field in (('shots', 'shots'), ('seeds', 'seed'))
  }
  return {**study, **more}


def data_of(
  study: Mapping[str, Any], workdir: epath.Path | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
  """(by 'source/target' the counts, classes, digest and notes of its data, by target the ids of
  its subsets).

  Raises:
    ValueError: data that cannot be used, a class with fewer examples than the largest size wants,
      or a source that is there and was trained on other data.
  """
  described, ids = {}, {}
  for name, source in study['sources'].items():
    pretraining = pairs.source_data(study, name) if source['dataset'] else None
    if pretraining and workdir:
      meshes.on_first(functools.partial(store.check_source, workdir, name, pretraining.sha256))
    seen, unknown = pairs.seen(study, name, pretraining)
    trains = _merged_over(study, source)
    for target_name, target in study['targets'].items():
      data = pairs.load(study, target, source)
      where = f'config.targets.{target_name}'
      configs.located(where, functools.partial(_check_targets, study, target, data))
      ids[target_name] = {
        seed: {shots: [data.train.ids[row] for row in rows] for shots, rows in of_seed.items()}
        for seed, of_seed in pairs.subsets(study, target, data).items()
      }
      try:
        overlaps = [note for split in seen for note in datasets.overlap(split, data)]
      except ValueError as error:
        raise ValueError(f'config.sources.{name} on {target_name}: {error}') from None
      of_source = (
        *(f"The source's own data: {note}" for note in (pretraining.notes if pretraining else ())),
        *dict.fromkeys(overlaps),
        *(pairs.nearly_seen(study, name, target_name, pretraining) if pretraining else ()),
        *itertools.chain(
          *(
            datasets.trained_elsewhere(train, other, data)
            for other, train in trains.items()
            if other != target_name
          )
        ),
        *unknown,
      )
      counts = {split: len(getattr(data, split).labels) for split in ('train', 'val', 'test')}
      described[f'{name}/{target_name}'] = {
        'num_examples': counts,
        'class_names': data.class_names,
        'sha256': data.sha256,
        'notes': [*data.notes, *of_source],
        **pairs.tokenizer_of(source),
        'leaves': sorted(data.test.inputs) if isinstance(data.test.inputs, dict) else [],
      }
  return described, ids


def _merged_over(study: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, datasets.Split]:
  """The training part of each target whose runs go into those of others; {} where none do."""
  merges = [method.get('merge') or {} for method in study['methods'].values()]
  if not any(merge.get('over') == 'targets' for merge in merges):
    return {}
  return {name: pairs.load(study, one, source).train for name, one in study['targets'].items()}


def _check_targets(
  study: Mapping[str, Any], target: Mapping[str, Any], data: datasets.Dataset
) -> None:
  """Raises ValueError where the task cannot be asked for what the data set has."""
  one = data.val.take(np.arange(1))
  task_of(study, target).targets(one.inputs, one.targets)


def _notes(data: Mapping[str, Mapping[str, Any]], told: Collection[str]) -> list[str]:
  """What is worth a note of the data of each source and target, and was not told before."""
  found = [f'{pair}: {note}' for pair, of_pair in data.items() for note in of_pair['notes']]
  return [note for note in found if note not in told]


def _times(wall: float, spent: Mapping[str, float]) -> dict[str, float]:
  """A line of time.json: the seconds of one start by kind; what is no kind's is 'other'."""
  kinds = {f'{kind}_seconds': spent[kind] for kind in KINDS}
  return {'wall_seconds': wall, **kinds, 'other_seconds': wall - sum(kinds.values())}


def compile_ahead(config: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Compiles what a study would compile, and so fills the compilation cache: a row a program,
  with its 'cohort' and as `fit.compile_ahead`.

  Data sets are loaded, weights are not: zeros stand for them and for activations. Writes nothing.
  """
  study = configs.resolve(config)
  rows = []
  for (source, target), group in itertools.groupby(
    cohorts_of(study), key=lambda cohort: cohort.cells[0][:2]
  ):
    pair = Pair(study, source, target, None)
    for cohort in group:
      name = cohort.cells[0].method
      if study['methods'][name].get('merge'):
        continue
      network = network_of(pair.source, pair.task.head, study['methods'][name])
      shapes = shapes_of(pair.source, network)
      zeros = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
        shapes,
      )
      for part in zeros:
        part.pop(network.stages[-1], None)
      pretrained = Source(None, '')
      if study['methods'][name]['init'] != 'mean_var':
        pretrained = Source(zeros, '', whole=_zeros_of_source(study, pair.source))
      pretrained = start_of(study['methods'][name]['init'], pretrained, pair.source)
      arrays = {
        'train': pair.zeros('train', name),
        'val': pair.zeros('val', name),
        'examples': [pair.examples(cell) for cell in cohort.cells],
      }
      job = _job(
        study,
        cohort.cells,
        pair.phases[name],
        (pair.source, pair.form),
        pretrained,
        arrays,
        study['methods'][name],
      )
      rows += [{'cohort': cohort.id, **row} for row in fit.compile_ahead(job)]
  return rows


def _zeros_of_source(study: Mapping[str, Any], config: Mapping[str, Any]) -> Variables | None:
  """Zeros for the variables of a source that the study trains, its head among them."""
  if not config['dataset']:
    return None
  shapes = shapes_of(config, network_of(config, task_of(study, config).head))
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def _steps(study: Mapping[str, Any], cell: Cell) -> int:
  return sum(
    num_steps(phase['steps'], phase['epochs'], phase['batch_size'], num_train(study, cell))
    for phase in study['methods'][cell.method]['phases']
  )


def _share(lab: Lab, cohorts: list[Cohort], weights: Mapping[str, Loaded]) -> None:
  """Every source and every group, which is one method from one source to one target. What another
  process holds is come back to, and then found done or, where that process died, taken over.
  """
  ready: dict[str, Source] = {}
  current: dict[tuple[str, str], Pair] = {}

  def source(name: str) -> bool:
    """Has a source ready, unless another process makes it."""
    if name in ready:
      return True
    with locks.held(lab.workdir, f'source-{name}') as mine:
      if mine:
        ready[name] = _source(lab, name, weights.get(name))
    return mine

  def pair(name: str, target: str) -> Pair:
    """A source and a target; the one before is forgotten."""
    if (name, target) not in current:
      current.clear()
      with fit.booked(lab.spent, 'data'):
        current[name, target] = Pair(
          lab.study, name, target, lab.workdir, lab.reporter.line, lab.spent
        )
    return current[name, target]

  def group(key: tuple[str, str, str], own: list[Cohort]) -> bool:
    """Has a group done, unless another process works at it or at its source."""
    name, target, method = key
    init = lab.study['methods'][method]['init']
    if init != 'random' and not source(name):
      return False
    with locks.held(lab.workdir, '-'.join(key)) as mine:
      if mine:
        pretrained = ready.get(name, Source(None, ''))
        start = start_of(init, pretrained, lab.study['sources'][name])
        _group(lab, own, start, functools.partial(pair, name, target))
        let_go()
    return mine

  trained: list[Callable[[], bool]] = [
    functools.partial(source, name) for name in lab.study['sources']
  ]
  merged: list[Callable[[], bool]] = []
  for key, own in itertools.groupby(cohorts, key=lambda cohort: cohort.cells[0][:3]):
    tasks = merged if lab.study['methods'][key[2]].get('merge') else trained
    tasks.append(functools.partial(group, key, list(own)))
  _until_done(lab, trained)
  _until_done(lab, merged)  # of what others trained too


def _until_done(lab: Lab, tasks: Sequence[Callable[[], bool]]) -> None:
  """Calls each task until it says that it is done, the others first."""
  while tasks:
    left = [task for task in tasks if not task()]
    if len(left) == len(tasks):
      if signal_number := meshes.on_first(lab.interrupted):
        raise KeyboardInterrupt(signal_number)
      lab.reporter.wait()
      time.sleep(locks.LOOK_SECONDS)
    tasks = left


def start_of(init: str, pretrained: Source, config: Mapping[str, Any]) -> Source:
  """What runs begin with, as a method's `init` asks."""
  if init == 'source':
    return pretrained
  if init == 'random' or pretrained.variables is None:
    return Source(None, '')
  if init == 'mean_var':
    return Source(None, pretrained.sha256, pretrained.variables.params)
  network = network_of(config, heads_of(config))
  kept = kept_stages(init, network, shapes_of(config, network))
  params, stats = (
    {stage: leaves for stage, leaves in part.items() if stage in kept}
    for part in pretrained.variables
  )
  return Source(Variables(params, stats), pretrained.sha256, stream=1)


def _group(lab: Lab, cohorts: list[Cohort], source: Source, pair: Callable[[], Pair]) -> None:
  """One method from one source to one target: train what is not there, choose from all, test the
  chosen, write.

  Where the chosen rate lies at the edge of the grid and `extend` allows it, the next one is
  trained and the choice made again.
  """
  select = task_of(lab.study, lab.study['targets'][cohorts[0].cells[0].target]).select
  wanted = {cell for cohort in cohorts for cell in cohort.cells if cell in lab.wanted}
  results: dict[Cell, Any] = {}
  trained: dict[str, Trained] = {}
  outcomes: dict[Cell, Any] = {}
  new = cohorts
  while True:
    for cohort in new:
      results |= _results(lab, cohort)
      there = _trained(lab, cohort, results, source, pair)
      for row, cell in enumerate(cohort.cells):
        outcomes[cell] = record.outcome(there.job, there.fitted, row) if there else results[cell]
      if there:
        trained[cohort.id] = there
    chosen = record.choose(
      {cell: outcome for cell, outcome in outcomes.items() if cell in wanted},
      select,
    )
    beyond = beyond_edges(lab.study, wanted, chosen)
    if not beyond:
      break
    wanted |= set(beyond)
    new = new_cohorts(lab.study, [cell for cell in beyond if cell not in outcomes], cohorts)
    cohorts = [*cohorts, *new]
    for cohort in new:
      lab.reporter.add(_part(lab.study, cohort))
  if added := sorted(wanted - lab.wanted):
    with locks.held(lab.workdir, 'study.json', wait=True):
      meshes.on_first(lambda: store.add_runs(lab.workdir, cohorts, added))
  for cohort in cohorts:
    untested = [
      row
      for row, cell in enumerate(cohort.cells)
      if cell in chosen and evaluation.missing(lab.study, results[cell])
    ]
    if untested and cohort.id not in trained:
      trained[cohort.id] = _fit(lab, cohort, source, pair())
    tested: dict[int, Tested] = {}
    if untested:
      trained[cohort.id], tested = _test(lab, trained[cohort.id], untested, source, pair())
    for row, cell in enumerate(cohort.cells):
      with fit.booked(lab.spent, 'save'):
        now = {'chosen': cell in chosen, 'cohort': cohort.id, 'row': row}
        if results[cell] and cohort.id in trained:
          record.check_same(results[cell], outcomes[cell], source.sha256)
        if not results[cell] or row in tested:
          record.write(
            lab.study,
            lab.workdir,
            trained[cohort.id],
            row,
            source.sha256,
            pair().data,
            tested.get(row),
          )
        elif any(results[cell][name] != value for name, value in now.items()):
          meshes.on_first(
            functools.partial(store.write_result, lab.workdir, {**results[cell], **now})
          )
  if trained:
    lab.reporter.line(record.in_short({cell: outcomes[cell] for cell in chosen}, select))
    runs = [cell_id(cell) for cohort in cohorts for cell in cohort.cells]
    meshes.on_first(functools.partial(lab.written, lab.workdir, runs))


def _results(lab: Lab, cohort: Cohort) -> dict[Cell, Any]:
  """{cell: what was written of it before, or None}."""

  def read() -> dict[Cell, Any]:
    if _is_merged(lab, cohort) and not merges.is_current(lab.study, lab.workdir, cohort):
      return dict.fromkeys(cohort.cells)
    return {cell: store.result(lab.workdir, cell_id(cell)) for cell in cohort.cells}

  return meshes.on_first(read)


def _is_merged(lab: Lab, cohort: Cohort) -> bool:
  return bool(lab.study['methods'][cohort.cells[0].method].get('merge'))


def _trained(
  lab: Lab,
  cohort: Cohort,
  results: Mapping[Cell, Any],
  source: Source,
  pair: Callable[[], Pair],
) -> Trained | None:
  """A cohort trained now; None where all of it was there."""
  if all(results[cell] for cell in cohort.cells) and meshes.on_first(
    lambda: store.has_parameters(lab.workdir, cohort)
  ):
    lab.reporter.skip(cohort.id)
    return None
  lab.reporter.begin(cohort.id)
  there = _fit(lab, cohort, source, pair())
  lab.reporter.finish(cohort.id)
  return there


def _fit(lab: Lab, cohort: Cohort, source: Source, pair: Pair) -> Trained:
  """A cohort trained or merged, or read from its last checkpoint."""
  before = pair.cost
  depends = dependencies(lab.study, cohort.cells[0], pair.data.sha256, source.sha256)
  meshes.on_first(lambda: store.begin_cohort(lab.workdir, cohort, depends))
  with fit.booked(lab.spent, 'setup'):
    head = _named_head(lab, cohort.cells[0], source, pair)
    job = job_of(lab.study, cohort.cells, source, pair, head)
  if _is_merged(lab, cohort):
    return _merge(lab, cohort, job, pair, before)
  say = functools.partial(lab.reporter.say, cohort.id)
  fitted = fit.fit(
    job,
    store.checkpoints(lab.workdir, cohort),
    lab.study['checkpoint_seconds'],
    say,
    lab.interrupted,
    lab.spent,
    Profile(*lab.profile, lab.workdir / 'profile' / cohort.id) if lab.profile else None,
  )
  return Trained(cohort, job, fitted, pair.cost.since(before))


def job_of(
  study: Mapping[str, Any],
  cells: tuple[Cell, ...],
  source: Source,
  pair: Pair,
  head: Mapping[str, np.ndarray] | None = None,
) -> Job:
  """The runs of one method, ready to train, perhaps from a head that is given."""
  name = cells[0].method
  method = study['methods'][name]
  arrays = {
    'train': pair.arrays('train', source.variables, name),
    'val': pair.arrays('val', source.variables, name),
    'examples': [pair.examples(cell) for cell in cells],
    'val_rows': [pair.looked_at(cell) for cell in cells],
  }
  of_source = pair.source, pair.form
  job = _job(study, cells, pair.phases[name], of_source, source, arrays, method, head)
  job = informed(job, added_of(method))
  if any(plan.phase.watch and plan.phase.watch.by_depth for plan in job.phases):
    job = job._replace(depths=_depths(study, cells, source, pair))
  return job


def _depths(
  study: Mapping[str, Any], cells: tuple[Cell, ...], source: Source, pair: Pair
) -> list[int]:
  """How many groups of stages the examples of each run speak for freezing; 0 where they say none.

  The source looks at all examples of all runs once, its time booked as a feature's.
  """
  assert source.variables is not None  # as `phases_of` asks for
  variables, name = source.whole or source.variables, cells[0].source

  def make() -> dict[str, np.ndarray]:
    return stages.stages_of(study, name, variables, pair.data.train.inputs)

  network, _ = stages.network_of_source(study, name)
  groups = freezing.groups(network.stages, shapes_of(pair.source, network).params)
  found = pair.head('stages', make)
  depths = []
  for cell in cells:
    rows = pair.examples(cell)
    features = {stage: values[rows] for stage, values in found.items() if stage != stages.PROBS}
    depths.append(depth.advised(pair.data.train.labels[rows], features, groups).k or 0)
  return depths


def _merge(lab: Lab, cohort: Cohort, job: Job, pair: Pair, before: pairs.Features) -> Trained:
  """A cohort whose run is made of other runs."""
  if signal_number := meshes.on_first(lab.interrupted):
    raise KeyboardInterrupt(signal_number)
  compiled = Program.so_far
  with fit.booked(lab.spent, 'eval'):
    fitted, merge = merges.fitted(job, cohort, lab.study, lab.workdir)
    lab.spent['compile'] += (Program.so_far - compiled).seconds
  return Trained(cohort, job, fitted, pair.cost.since(before), merge)


def _named_head(lab: Lab, cell: Cell, source: Source, pair: Pair) -> dict[str, np.ndarray] | None:
  """The head of class names that a method begins with, its time booked as a feature's; None where
  it has none.
  """
  method = lab.study['methods'][cell.method]
  if not method.get('head'):
    return None
  record_of = lab.workdir / 'sources' / cell.source / 'result.json'
  weights = pair.source['weights']
  known = checkpoint.unsealed(record_of)['provenance']['sha256'] if weights else None

  def make() -> dict[str, np.ndarray]:
    assert source.variables is not None  # as `zero_shot.check` asks for
    words = zero_shot.words_of(pair.data.class_names, pair.target, cell.target)
    return zero_shot.head(pair.source, source.variables, method, words, known)

  return meshes.on_first(lambda: pair.head(json.dumps(method['head']), make))


def _test(
  lab: Lab, trained: Trained, rows: list[int], source: Source, pair: Pair
) -> tuple[Trained, dict[int, Tested]]:
  """(the cohort with what its features cost now too, by row what its chosen runs do on the test
  set).
  """
  before = pair.cost
  data = pair.arrays('test', source.variables, trained.cohort.cells[0].method)
  data(trained.job.phases[-1].phase)  # frozen stages run, which is booked by itself
  compiled, began = Program.so_far, time.perf_counter()
  fitted = trained.fitted
  found = dict(zip(rows, fit.predict(trained.job, fitted, rows, data)))
  last: dict[int, fit.Predicted] = {}
  if fitted.last:  # beside the best step that was kept
    ended = fitted._replace(own=fitted.last[0], stats=fitted.last[1])
    last = dict(zip(rows, fit.predict(trained.job, ended, rows, data)))
  more = evaluation.columns(pair, trained, found, source.variables)
  compiling = (Program.so_far - compiled).seconds
  seconds = time.perf_counter() - began - compiling
  lab.spent['compile'] += compiling
  lab.spent['eval'] += seconds
  targets, tested = pair.targets('test'), {}
  others = {} if targets is pair.data.test.targets else _named_targets(targets)
  for row, (sums, kept) in found.items():
    scores = evaluation.beside(pair.task.scores(sums, kept, targets), more[row])
    evaluators = evaluation.described(lab.study)
    of_last = pair.task.scores(*last[row], targets) if last else None
    tested[row] = Tested(scores, kept, others, seconds / len(rows), evaluators, of_last)
  return trained._replace(features=trained.features.plus(pair.cost.since(before))), tested


def _named_targets(targets: PyTree) -> dict[str, np.ndarray]:
  """{'targets': the array}, or {'targets/boxes': ...} of several."""
  return {
    '/'.join(filter(None, ('targets', name))): leaf for name, leaf in tree.named_leaves(targets)
  }


def _weights(study: Mapping[str, Any], workdir: epath.Path) -> dict[str, Loaded]:
  """The public weights that the study's folder does not hold yet, in the first process.

  Raises:
    ValueError: they cannot be had, or do not fit their network.
  """
  loaded: dict[str, Loaded] = {}

  def load() -> None:
    for name, source in study['sources'].items():
      if source['weights'] and not is_whole(workdir / 'sources' / name):
        loaded[name] = load_weights(name, source)

  meshes.on_first(load)
  return loaded


def is_whole(folder: epath.Path) -> bool:
  """Whether a source's folder holds its record and its parameters."""
  return (folder / 'result.json').exists() and bool(checkpoint.steps(folder / 'checkpoints'))


def load_weights(name: str, config: Mapping[str, Any]) -> Loaded:
  """The public weights of a source of a resolved config.

  Raises:
    ValueError: they cannot be had, or do not fit its network.
  """
  backbone, options = configs.named(config['backbone'])
  network = network_of(config, heads_of(config))
  module = plug('backbones', backbone)
  fresh = () if heads_of(config) is None else network.stages[-1:]
  try:
    weights = sources.load(config['weights'], config['sha256'] or None, config['part'])
    shapes = shapes_of(config, network)
    variables, filled = backbones.from_weights(module, options, weights, shapes, fresh=fresh)
  except (ValueError, ImportError, KeyError) as error:
    raise ValueError(f'config.sources.{name}.weights: {error}') from None
  return Loaded(variables, {'provenance': weights.provenance, **filled, 'config': config})


def _source(lab: Lab, name: str, loaded: Loaded | None) -> Source:
  """The source's variables: loaded or trained by the study where its folder does not hold them
  yet.
  """
  folder = lab.workdir / 'sources' / name
  config = lab.study['sources'][name]
  with fit.booked(lab.spent, 'source'):
    if not meshes.on_first(lambda: is_whole(folder)):
      if config['weights']:
        meshes.on_first(lambda: _keep_source(folder, loaded))
      else:
        _train_source(lab, name, folder)
    variables = meshes.on_first(lambda: store.trained(folder / 'checkpoints', 0))
  return source_of(config, Variables(*variables))


def source_of(config: Mapping[str, Any], variables: Variables) -> Source:
  """What methods begin with, of all variables of a source."""
  params, stats = dict(variables.params), dict(variables.stats)
  whole = Variables(dict(params), dict(stats)) if config['dataset'] else None
  if heads_of(config) is not None:
    head = network_of(config, heads_of(config)).stages[-1]
    params.pop(head, None)
    stats.pop(head, None)
  return Source(Variables(params, stats), tree.sha256((params, stats)), whole=whole)


def _keep_source(folder: epath.Path, loaded: Loaded | None) -> None:
  """Puts public weights into the study's folder under our names, with their record."""
  assert loaded is not None  # as `_weights` found the folder without them
  kept = jax.tree.map(lambda leaf: np.asarray(leaf)[None], loaded.variables)
  checkpoint.save(
    folder / 'checkpoints',
    0,
    {'state': {'trainable': kept.params, 'stats': kept.stats}},
    {},
  )
  checkpoint.write_json(folder / 'result.json', checkpoint.sealed({**loaded.record}))


def _train_source(lab: Lab, name: str, folder: epath.Path) -> None:
  """Trains the source on its data set, into the study's folder."""
  config = lab.study['sources'][name]
  data = pairs.source_data(lab.study, name)
  cell = Cell(
    name,
    config['dataset'],
    'pretrain',
    0,
    config['seed'],
    config['train']['learning_rate'],
    0.0,
  )
  phases = phases_of(
    {'init': 'random', 'phases': (config['train'],)},
    config,
    len(data.class_names),
    config['task'],
  )
  task = phases[-1].task
  data = pairs.in_evaluation(data, task)
  train, val, test = (_examples(part, task) for part in (data.train, data.val, data.test))
  arrays = {
    'train': train,
    'val': val,
    'examples': [np.arange(len(data.train.labels))],
  }
  form = forms.of_stored(configs.form_of(config), data.train.inputs)
  job = _job(lab.study, (cell,), phases, (config, form), Source(None, ''), arrays)
  lab.reporter.line(
    f'Training the source {name} on {len(data.train.labels):,} examples of {config["dataset"]}.'
  )
  fitted = fit.fit(
    job,
    folder / 'checkpoints',
    lab.study['checkpoint_seconds'],
    interrupted=lab.interrupted,
  )
  outcome = record.outcome(job, fitted, 0)
  if outcome['status'] != 'ok':
    raise ValueError(
      f'config.sources.{name}: its training: {outcome["status"]}. Lower its train.learning_rate.'
    )
  (predicted,) = fit.predict(job, fitted, (0,), test)
  of_all = (predicted.kept, test(job.phases[-1].phase).targets) if task.whole else ()
  scores = task.scores(predicted.sums, *of_all)
  result = {
    'val': outcome['val'],
    'test': scores,
    'select': list(task.select),
    'data_sha256': data.sha256,
    'config': config,
    'history': record.history(fitted, 0),
  }
  meshes.on_first(lambda: checkpoint.write_json(folder / 'result.json', checkpoint.sealed(result)))
  column, _ = task.select
  lab.reporter.line(f'Source {name}: test {column} {scores[column]:.3f} on {config["dataset"]}.')


def _examples(split: datasets.Split, task: Task) -> Callable[[Any], feed.Arrays]:
  """Examples as stored, for every phase."""
  arrays = feed.Arrays(split.inputs, task.targets(split.inputs, split.targets))
  return lambda phase: arrays


def _job(
  study: Mapping[str, Any],
  cells: tuple[Cell, ...],
  phases: tuple[PhasePlan, ...],
  of_source: tuple[Mapping[str, Any], Form],
  source: Source,
  arrays: Mapping[str, Any],
  method: Mapping[str, Any] | None = None,
  head: Mapping[str, np.ndarray] | None = None,
) -> Job:
  """A cohort with all that its runs begin with, perhaps a head that is given.

  `of_source` are the source's config and the form of its examples; `arrays` the fields of Job
  that say what runs are trained and evaluated on.
  """
  config, form = of_source
  network = network_of(config, phases[-1].task.head, method)
  shapes = shapes_of(config, network)
  own, stats = _initial(network, form, source, [cell.seed for cell in cells])
  if head:
    own[network.stages[-1]] = {
      name: np.broadcast_to(leaf, (len(cells), *leaf.shape)) for name, leaf in head.items()
    }
  loaded = dict(tree.named_leaves(source.variables.params)) if source.variables else {}
  base = tree.map_named(lambda name, _: loaded.get(name), shapes.params)
  return Job(
    network,
    form,
    phases,
    base=Variables(base, {}),
    own=own,
    stats=stats,
    **arrays,
    seeds=[cell.seed for cell in cells],
    learning_rates=[cell.learning_rate for cell in cells],
    weight_decays=[cell.weight_decay for cell in cells],
    devices=Devices(**study['mesh']),
    device_bytes=study['device_bytes'],
    origin=_origin(study, cells[0].source, source),
  )


def _origin(study: Mapping[str, Any], name: str, source: Source) -> Origin | None:
  """What penalties may read of a source that the study trained; None of others."""
  if source.whole is None:
    return None
  config = study['sources'][name]
  task = task_of(study, config)

  def train() -> feed.Arrays:
    data = pairs.source_data(study, name).train
    return feed.Arrays(data.inputs, task.targets(data.inputs, data.targets))

  return Origin(network_of(config, task.head), task, source.whole, train)


def _initial(network: Network, form: Form, source: Source, seeds: list[int]):
  """(params [R, ...] that the source does not bring, stats [R, ...]); runs of one seed begin
  alike.
  """
  shapes, loaded = (
    variable_shapes(network, form),
    source.variables or Variables({}, {}),
  )
  brought = {name for name, _ in tree.named_leaves(loaded.params)}
  missing = tuple(name for name, _ in tree.named_leaves(shapes.params) if name not in brought)
  moving = tuple(stage for stage in shapes.stats if stage not in loaded.stats)
  fresh = _initialiser(network, form, missing, moving)
  drawn = {
    seed: jax.device_get(
      fresh(jax.random.fold_in(jax.random.key(seed), source.stream), loaded.params)
    )
    for seed in set(seeds)
  }
  if source.like is not None:
    drawn = {
      seed: (_like(source.like, params, seed), stats) for seed, (params, stats) in drawn.items()
    }
  params, stats = jax.tree.map(lambda *leaves: np.stack(leaves), *(drawn[seed] for seed in seeds))
  for stage in shapes.stats:
    if stage in loaded.stats:
      stats[stage] = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf, (len(seeds), *leaf.shape)),
        loaded.stats[stage],
      )
  return params, stats


def _like(source: PyTree, params: PyTree, seed: int) -> PyTree:
  """The parameters with each leaf that a source has drawn normal, with its mean and variance.

  Mean Var initialisation (Raghu et al. 2019, arXiv:1902.07208, section 5): what the scales of
  pretrained weights are worth without the weights.
  """
  known = dict(tree.named_leaves(source))

  def draw(name: str, leaf: np.ndarray) -> np.ndarray:
    if name not in known:
      return leaf
    random = np.random.default_rng((seed, zlib.crc32(name.encode())))
    own = np.asarray(known[name], np.float64)
    return np.asarray(random.normal(own.mean(), own.std(), own.shape), leaf.dtype)

  return tree.map_named(draw, params)


@functools.cache
def _initialiser(
  network: Network, form: Form, leaves: tuple[str, ...], stages: tuple[str, ...]
) -> Callable:
  """(key, what the source brings) -> (params with None but at `leaves`, stats of `stages`), as a
  compiled program; nothing else is computed.
  """
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), forms.entered(form, 1))
  starts_from_source = any(map(tree.is_added, leaves))

  def fresh(key, brought):
    options = {'source': brought} if starts_from_source else {}
    params, stats = network.init(key, zeros, **options)
    params = tree.map_named(lambda name, leaf: leaf if name in leaves else None, params)
    return params, {stage: of_stage for stage, of_stage in stats.items() if stage in stages}

  return jax.jit(fresh)


@contextlib.contextmanager
def _signals(stop_seconds: float, folder: epath.Path) -> Iterator[Callable[[], int]]:
  """Within, SIGINT and SIGTERM ask for an orderly end; a second one does not ask, nor does the
  process outlive the first SIGINT by more than `stop_seconds`. Other threads than the main one get
  none.
  """
  got: list[int] = []
  timer = threading.Timer(stop_seconds, _stop, [folder])
  timer.daemon = True
  if threading.current_thread() is not threading.main_thread():
    yield lambda: 0
    return

  def ask(number: int, frame: Any) -> None:
    got.append(number)
    if number == signal.SIGINT and stop_seconds:
      timer.start()
    signal.signal(
      number,
      signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler,
    )

  before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield lambda: got[0] if got else 0
  finally:
    timer.cancel()
    for number, handler in before.items():
      signal.signal(number, handler)


def _stop(folder: epath.Path) -> None:
  """Ends the process whatever it does, as if it were killed: a folder stands that."""
  show_cursor = '\x1b[?25h' if sys.stdout.isatty() else ''
  print(
    f'{show_cursor}Interrupted; {folder} holds all that was saved. The same command continues.',
    file=sys.stderr,
    flush=True,
  )
  os._exit(128 + signal.SIGINT)
