"""One source and one target together: the examples a study looks at in the source's form, and what
frozen stages make of them.
"""

import functools
import inspect
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from tlx import datasets, tree
from tlx import inputs as forms
from tlx.inputs import _tokenizers
from tlx.sources import cache
from tlx.study import cells, locks, looked
from tlx.study import config as configs
from tlx.study.cells import PRETRAINING
from tlx.study.config import form_module, form_of
from tlx.study.cost import phases_for
from tlx.study.phases import network_of, shapes_of, task_of
from tlx.train import feed, fit, prefix, step
from tlx.types import Cell, PyTree, Task, Variables

KEPT_BYTES = 2**28  # of data sets, beyond the last two
_loaded: dict[tuple, datasets.Dataset] = {}  # as they were asked for, the latest at the end


def load(
  study: Mapping[str, Any], target: Mapping[str, Any], source: Mapping[str, Any]
) -> datasets.Dataset:
  """A data set as examples of the form the source takes; loaded once."""
  form = form_module(source)
  how = tuple(_how(study, target, form).items())
  return _load(form, target['dataset'], tuple(source['input'].items()), how)


def _how(study: Mapping[str, Any], target: Mapping[str, Any], form: Any) -> dict[str, Any]:
  """What the `load` of a form takes of the fields of a data set."""
  known = {
    **target,
    'data_dir': study['data_dir'] or None,
    'data_bytes': study['data_bytes'],
    'once': looked.once,
  }
  return {name: known[name] for name in form.HOW if name in known}


def _load(form: Any, name: str, fields: tuple, how: tuple) -> datasets.Dataset:
  """What the form loads; the last two are kept, and those before them as far as all of them
  together take no more than `KEPT_BYTES`.
  """
  key = (form, name, fields, how)
  data = _loaded.pop(key, None) or form.load(name, dict(fields), dict(how))
  _loaded[key] = data
  while len(_loaded) > 2 and sum(map(_num_bytes, _loaded.values())) > KEPT_BYTES:
    del _loaded[next(iter(_loaded))]
  return data


def _num_bytes(data: datasets.Dataset) -> int:
  """What the inputs of a data set take in memory: what is read when it is taken is nothing."""
  leaves = jax.tree.leaves([split.inputs for split in (data.train, data.val, data.test)])
  return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, np.ndarray))


PARTS = ('train', 'val', 'test')
IMAGES = ('image', 'annotated image')  # the kinds whose examples are stored as pixels


class Records(NamedTuple):
  """The examples of a test part before they became a form: ids, and `read(rows)`, the pixels of
  images as stored, and of others what was written.
  """

  ids: tuple[str, ...]
  read: Callable[[Sequence[int]], Sequence[Any]]


def test_records(
  study: Mapping[str, Any], target: Mapping[str, Any], source: Mapping[str, Any]
) -> Records:
  """The records of the test part of a data set."""
  form = form_module(source)
  if form.KIND in IMAGES:
    test = load(study, target, source).test
    return Records(test.ids, lambda rows: feed.take(test.inputs, np.asarray(rows, int)))
  test = _as_written(form, target['dataset'], tuple(_how(study, target, form).items())).test
  return Records(test.ids, lambda rows: [test.inputs[row] for row in rows])


def _as_written(form: Any, name: str, how: tuple) -> datasets.Dataset:
  """A data set of texts, just as they are written."""
  known = inspect.signature(datasets.load_text).parameters
  taken = {field: value for field, value in how if field in known}
  return datasets.load_text(name, **taken, wanted=form.KIND)


def source_data(study: Mapping[str, Any], name: str) -> datasets.Dataset:
  """What a source is trained on: its data set, in training without any example of a target's
  validation or test part.

  Those parts are taken whole (no `val_examples`), so that of groups which a target holds out none
  is left in training either.

  Raises:
    ValueError: a class of which nothing is left.
  """
  source = study['sources'][name]
  unshifted = {'shift': 'none', 'val_examples': 0, 'duplicates': 'keep'}
  targets = (load(study, target | unshifted, source) for target in study['targets'].values())
  form = form_module(source)
  try:
    if getattr(form, 'PACKS', False):
      how = _how(study, source | PRETRAINING, form) | {'apart': targets}
      return form.load(source['dataset'], source['input'], how)
    return datasets.keep_out(load(study, source | PRETRAINING, source), targets, looked.once)
  except ValueError as error:
    raise ValueError(f'config.sources.{name}: {error}') from None


class Printed(NamedTuple):
  """A data set before any shift: its parts without their inputs, and what tells near copies among
  the examples of each.
  """

  data: datasets.Dataset
  prints: Mapping[str, Any]


@functools.lru_cache(maxsize=8)
def _prints_of(form: Any, name: str, fields: tuple, how: tuple) -> Printed:
  data = _load(form, name, fields, how) if form.KIND in IMAGES else _as_written(form, name, how)
  found = {part: datasets.prints(getattr(data, part)) for part in PARTS}
  nothing = np.zeros(0, np.uint8 if form.KIND in IMAGES else object)
  return Printed(
    data._replace(**{part: getattr(data, part)._replace(inputs=nothing) for part in PARTS}), found
  )


def prints_of(
  study: Mapping[str, Any], target: Mapping[str, Any], source: Mapping[str, Any]
) -> Printed:
  """Of a data set's whole parts, for examples that nearly are another's; looked at once."""
  form = form_module(source)
  whole = {'shift': 'none', 'val_examples': 0}
  how = tuple(_how(study, {**target, **whole}, form).items())
  return _prints_of(form, target['dataset'], tuple(source['input'].items()), how)


def nearly_seen(
  study: Mapping[str, Any], source_name: str, target_name: str, trained_on: datasets.Dataset
) -> tuple[str, ...]:
  """What to say of a target's test and validation examples that nearly are what a source of the
  study is trained on (its `source_data`).

  Images that are not kept in memory are not looked at, since they would be decoded once more; that
  is said.
  """
  source, target = study['sources'][source_name], study['targets'][target_name]
  if form_module(source).KIND in IMAGES:
    parts = trained_on.train, load(study, target, source).test
    if not all(isinstance(part.inputs, np.ndarray) for part in parts):
      return (
        'Whether the source was trained on near copies of test images was not looked at: the '
        'images are not kept in memory (config.data_bytes).',
      )

  def say() -> tuple[str, ...]:
    return _nearly_seen(study, source, target, trained_on)

  return looked.said_once((trained_on.sha256, load(study, target, source).sha256), say)


def _nearly_seen(
  study: Mapping[str, Any],
  source: Mapping[str, Any],
  target: Mapping[str, Any],
  trained_on: datasets.Dataset,
) -> tuple[str, ...]:
  own = prints_of(study, {**source, **PRETRAINING, 'duplicates': 'keep'}, source)
  train = own.data.train
  left = np.isin(train.digests, trained_on.train.digests).reshape(len(train.ids), -1).all(1)
  rows = np.flatnonzero(left)
  known = train._replace(ids=tuple(train.ids[row] for row in rows), digests=train.digests[rows])
  prints = datasets.taken_prints(own.prints['train'], rows)
  return datasets.nearly_seen(known, prints, *prints_of(study, target, source))


def near_copies(study: Mapping[str, Any], source: str, target: str) -> tuple[str, ...]:
  """What to say of a target's examples that nearly are in another of its parts."""
  fields = study['targets'][target], study['sources'][source]

  def say() -> tuple[str, ...]:
    return datasets.nearly_across(*prints_of(study, *fields))

  return looked.said_once((load(study, *fields).sha256,), say)


def seen(
  study: Mapping[str, Any], name: str, pretraining: datasets.Dataset | None
) -> tuple[list[datasets.Split], tuple[str, ...]]:
  """(the training examples that a source saw with labels, in its form; what to say where nobody
  knows).

  Those of its own `pretraining`, or where it is a run of an earlier study those of the run, and
  of the run's source.
  """
  source = study['sources'][name]
  if pretraining:
    return [pretraining.train], ()
  if not source['weights'].startswith('study:'):
    return [], ()
  try:
    of_run, before = configs.of_run(source['weights'])
    cell = Cell(**of_run['cell'])
    before = {
      **before,
      'sources': {
        **before['sources'],
        cell.source: {
          **before['sources'][cell.source],
          'input': source['input'],
        },
      },
    }
    method = of_run['methods'][cell.method]
    merged = (method.get('merge') or {}).get('over') == 'targets'
    splits = []
    for target in before['targets'] if merged else [cell.target]:
      data = load(before, before['targets'][target], source)
      rows = subsets(before, before['targets'][target], data)[cell.seed][cell.shots]
      splits.append(data.train.take(rows))
    if method['init'] == 'random':
      return splits, ()
    dataset = before['sources'][cell.source]['dataset']
    more, unknown = seen(before, cell.source, source_data(before, cell.source) if dataset else None)
    return splits + more, unknown
  except (ValueError, OSError, KeyError, TypeError, IndexError) as error:
    return [], (
      f'What the run {source["weights"]} was trained on cannot be looked at '
      f'({str(error)[:200]}), so nobody knows whether it saw examples of the target.',
    )


def check_feature_folder(study: Mapping[str, Any]) -> None:
  """Raises ValueError where kept activations cannot lie in `feature_dir`."""
  try:
    folder = pathlib.Path(study['feature_dir']).expanduser()
  except RuntimeError as error:
    raise ValueError(f'config.feature_dir {study["feature_dir"]!r}: {error}') from None
  if folder.exists() and not folder.is_dir():
    raise ValueError(f'config.feature_dir {study["feature_dir"]!r} is no folder.')


def forget() -> None:
  """Data sets and tokenizers are looked at anew: a file may have changed since an earlier study of
  this process.
  """
  _loaded.clear()
  _prints_of.cache_clear()
  _tokenizers.forget()
  cells.forget()


def tokenizer_of(source: Mapping[str, Any]) -> dict[str, str]:
  """{'tokenizer': the digest of that which makes a source's examples}, {} where none does.

  Raises:
    ValueError: it is not to be had.
  """
  uri = source['input'].get('tokenizer')
  return {'tokenizer': _tokenizers.digest(_tokenizers.of_uri(uri))} if uri else {}


def subsets(
  study: Mapping[str, Any], target: Mapping[str, Any], data: datasets.Dataset
) -> dict[int, dict[int, np.ndarray]]:
  """{seed: {shots: rows of the training part}}.

  Raises:
    ValueError: a class has fewer examples than the study's largest size.
  """
  try:
    groups = _groups(target, data)
    return {
      seed: datasets.subsets(
        data.train.labels,
        data.train.ids,
        study['shots'],
        seed,
        groups,
        data.class_names,
      )
      for seed in study['seeds']
    }
  except ValueError as error:
    raise ValueError(f'config.shots on {target["dataset"]!r}: {error}') from None


def _groups(target: Mapping[str, Any], data: datasets.Dataset) -> tuple[str, ...]:
  """The groups that few-shot subsets go round, where the target asks for it."""
  if target['spread_shots'] and not data.train.groups:
    raise ValueError(
      'spread_shots wants groups, and the data set has none. Say what names them: group.'
    )
  return data.train.groups if target['spread_shots'] else ()


def in_evaluation(data: datasets.Dataset, task: Task) -> datasets.Dataset:
  """The data set with validation and test in the order in which the task evaluates them."""
  if not task.contrasts:
    return data
  val, test = (
    part.take(np.random.default_rng(0).permutation(len(part.ids))) for part in (data.val, data.test)
  )
  return data._replace(val=val, test=test)


class Features(NamedTuple):
  """What frozen stages cost so far: seconds, and how many splits they ran for; the others were
  there already.
  """

  seconds: float = 0.0
  computed: int = 0

  def since(self, earlier: 'Features') -> 'Features':
    return Features(self.seconds - earlier.seconds, self.computed - earlier.computed)

  def plus(self, other: 'Features') -> 'Features':
    return Features(self.seconds + other.seconds, self.computed + other.computed)


class Pair:
  """A source and a target, each by its name in the config.

  data: as loaded, the training part cut down to the examples of some subset.
  phases: {method: its phases}.
  """

  def __init__(
    self,
    study: Mapping[str, Any],
    source: str,
    target: str,
    workdir: epath.Path | None,
    say: Callable[[str], None] = lambda text: None,
    spent: fit.Spent | None = None,
  ):
    self.study, self.source, self.target = (
      study,
      study['sources'][source],
      study['targets'][target],
    )
    self.name = f'{source}-{target}'
    self.workdir, self.say, self.spent = (
      workdir,
      say,
      fit.Spent(float) if spent is None else spent,
    )
    self.cost = Features()
    data = load(study, self.target, self.source)
    wanted = subsets(study, self.target, data)
    used = np.unique(
      np.concatenate([rows for of_seed in wanted.values() for rows in of_seed.values()])
    )
    self.rows = {
      seed: {shots: np.searchsorted(used, rows) for shots, rows in of_seed.items()}
      for seed, of_seed in wanted.items()
    }
    if len(used) < len(data.train.labels):
      data = data._replace(train=data.train.take(used))
    self.task = task_of(study, self.target)
    self.data = in_evaluation(data, self.task)
    example = feed.take(data.train.inputs, np.zeros(1, int))
    self.form = forms.of_stored(form_of(self.source), example)
    counts = {
      'train': len(data.train.labels),
      'val': len(data.val.labels),
      'test': len(data.test.labels),
    }
    self.phases = phases_for(study, source, target, counts)
    self.features: dict[tuple, Any] = {}
    self.heads: dict[str, PyTree] = {}

  def examples(self, cell: Cell) -> np.ndarray:
    """The rows of `data.train` that a cell trains on."""
    return self.rows[cell.seed][cell.shots]

  def looked_at(self, cell: Cell) -> np.ndarray:
    """The rows of `data.val` that choose for a cell: all, or (validation = 'matched') no more
    than it trains on, class by class.
    """
    val = self.data.val
    if self.study['validation'] == 'all':
      return np.arange(len(val.labels))
    classes = np.unique(val.labels)
    per_class = cell.shots or max(1, len(self.examples(cell)) // len(classes))
    order = datasets.subsets(val.labels, val.ids, (0,), cell.seed)[0]
    of_classes = (order[val.labels[order] == label][:per_class] for label in classes)
    return np.sort(np.concatenate([*of_classes]))

  def arrays(
    self, split: str, variables: Variables | None, method: str
  ) -> Callable[[step.Phase], feed.Arrays]:
    """What enters the first stage of a phase of `method`: examples as stored, or activations of
    the source's frozen stages.
    """
    examples = getattr(self.data, split)

    def of_phase(phase: step.Phase) -> feed.Arrays:
      if not phase.start:
        return feed.Arrays(examples.inputs, self.targets(split))
      point = self._point(split, method, phase)
      if (split, _activation_key(point)) not in self.features:
        assert self.workdir is not None  # phases of a random start begin at the first stage
        with locks.held(self.workdir, f'features-{self.name}-{split}', wait=True):
          self._compute(split, variables)
      return feed.Arrays(
        self.features[split, _activation_key(point)],
        self.targets(split, point.phase),
      )

    return of_phase

  def zeros(self, split: str, method: str) -> Callable[[step.Phase], feed.Arrays]:
    """As `arrays`, but nothing is computed: for programs that are only compiled."""
    examples = getattr(self.data, split)

    def of_phase(phase: step.Phase) -> feed.Arrays:
      point = self._point(split, method, phase)
      shapes = prefix.activation(
        point.network,
        point.form,
        phase.start,
        max(1, point.phase.views) * len(examples.labels),
      )
      zeros = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
        shapes,
      )
      return feed.Arrays(zeros, self.targets(split, point.phase))

    return of_phase

  def targets(self, split: str, phase: step.Phase | None = None) -> PyTree:
    """What the target's task needs of the labels of a split, of each view that a phase keeps."""
    examples = getattr(self.data, split)
    targets = self.task.targets(examples.inputs, examples.targets)
    if phase is None or not phase.views:
      return targets
    return prefix.targets_of_views(self.form, phase, examples.inputs, targets)

  def head(self, name: str, make: Callable[[], PyTree]) -> PyTree:
    """What `make` gives, once by that name; its time is a feature's."""
    if name not in self.heads:
      began = time.perf_counter()
      self.heads[name] = make()
      seconds = time.perf_counter() - began
      self.spent['feature'] += seconds
      self.cost = self.cost.plus(Features(seconds, 0))
    return self.heads[name]

  def _point(self, split: str, method: str, phase: step.Phase) -> prefix.Point:
    """Where a phase's inputs are taken; only training sees augmented views."""
    network = network_of(self.source, self.task.head, self.study['methods'][method])
    return prefix.Point(network, self.form, phase if split == 'train' else phase._replace(views=0))

  def _compute(self, split: str, variables: Variables | None) -> None:
    """The activations of one split at every point where some method's phase begins."""
    assert (
      variables is not None and self.workdir is not None
    )  # phases of a random start begin at the first stage
    began = time.perf_counter()
    points: dict[tuple, prefix.Point] = {}
    for method, phases in self.phases.items():
      for phased in phases:
        point = self._point(split, method, phased.phase)
        if point.phase.start and self._is_held(point, variables):
          points.setdefault(_activation_key(point), point)
    examples = getattr(self.data, split).inputs
    trunk = prefix.Trunk(
      variables,
      json.dumps(self.source['backbone'], sort_keys=True),
      _folder(self.study, self.workdir),
    )
    ran: list[str] = []

    def say(text: str) -> None:
      ran.append(text)
      self.say(text)

    found = prefix.activations(trunk, examples, feed.sha256(examples), list(points.values()), say)
    self.features |= {(split, same): activation for same, activation in zip(points, found)}
    seconds = time.perf_counter() - began
    self.spent['feature'] += seconds
    self.cost = self.cost.plus(Features(seconds, int(bool(ran))))

  def _is_held(self, point: prefix.Point, variables: Variables) -> bool:
    """Whether variables, perhaps of a source's first stages alone, reach as far as a point."""
    params = shapes_of(self.source, point.network).params
    before = point.network.stages[: point.phase.start]
    return all(
      name in variables.params for name in before if tree.named_leaves(params.get(name, {}))
    )


def _activation_key(point: prefix.Point) -> tuple:
  """Equal for points with the same activations."""
  return point.stages, point.common


def _folder(study: Mapping[str, Any], workdir: epath.Path) -> pathlib.Path:
  """Where activations lie: on a disk of this machine, since they are memory-mapped."""
  if study['feature_dir']:
    return pathlib.Path(study['feature_dir']).expanduser()
  return (
    cache() / 'features'
    if '://' in os.fspath(workdir)
    else pathlib.Path(os.fspath(workdir)) / 'features'
  )
