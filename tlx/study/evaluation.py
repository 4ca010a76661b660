"""What evaluators see of the runs that were just tested, and the columns they give
(tlx/evaluators).
"""

import functools
import inspect
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tlx import backbones, tree
from tlx import inputs as forms
from tlx.evaluators import Answer, Finished, Line, Part, Recalled, Speed
from tlx.plug import plug
from tlx.study import merges, store, use, write
from tlx.study import pair as pairs
from tlx.study.batches import in_batches
from tlx.study.cells import PRETRAINING
from tlx.study.config import TARGET, form_module, form_of, located, named
from tlx.study.pair import Pair
from tlx.study.phases import added_of, network_of, task_of
from tlx.study.record import Trained
from tlx.train import feed, fit, prefix
from tlx.train import mesh as meshes
from tlx.train.job import Job
from tlx.types import Array, Batch, Form, Network, PyTree, Task, Variables

PASSES = 5  # over a batch whose time is taken
BATCH = 256  # examples whose features are computed at a time, at most
BATCH_OF_TEXTS = 8  # rows of tokens, of which outputs may be as wide as a vocabulary


def check(study: Mapping[str, Any]) -> None:
  """Whether every evaluator takes its options and can read what every target's task keeps, and
  the tests have the columns that claims are about.

  Raises:
    ValueError: one does not; the message says which.
  """
  for i, evaluator in enumerate(study['evaluators']):
    for source, target in itertools.product(study['sources'].values(), study['targets'].values()):
      kind, task = form_module(source).KIND, task_of(study, target)
      task_name = named(target['task'])[0]
      located(
        f'config.evaluators[{i}]',
        functools.partial(_check_one, evaluator, kind, task, task_name),
      )

  if study['claims']:
    _check_claims(study)


def _check_claims(study: Mapping[str, Any]) -> None:
  """Raises ValueError where a claim is about a column that no test has."""
  from tlx.report import claims  # brings pandas and scipy

  given = [f'evaluators/{named(evaluator)[0]}' for evaluator in study['evaluators']]
  given += [f'tasks/{named(target["task"])[0]}' for target in study['targets'].values()]
  columns: dict[str, None] = {}
  for place in given:
    columns |= dict.fromkeys(getattr(plug(*place.split('/')), 'COLUMNS', ('*',)))
  for i, claim in enumerate(study['claims']):
    claims.check_column(f'config.claims[{i}]', claim, columns)


def _check_one(evaluator: str | Mapping[str, Any], kind: str, task: Task, task_name: str) -> None:
  name, options = named(evaluator)
  module = plug('evaluators', name)
  try:
    inspect.signature(module.evaluate).bind(None, **options)
  except TypeError as error:
    raise ValueError(f'Evaluator {name!r}: {error}.') from None
  if module.KEPT and module.KEPT not in (kept := _kept(task)):
    raise ValueError(
      f'Evaluator {name!r} reads {module.KEPT}, and the task {task_name!r} keeps '
      f'{", ".join(kept) or "nothing"}. Leave it out.'
    )
  if getattr(module, 'FORM', kind) != kind:
    raise ValueError(f'Evaluator {name!r} is for examples of kind {module.FORM}, got {kind}.')
  if hasattr(module, 'check'):
    module.check(task, **options)


def _kept(task: Task) -> tuple[str, ...]:
  """The names of what a task keeps of outputs."""
  return tuple(jax.eval_shape(task.keep, backbones.outputs(task.head)))


def missing(study: Mapping[str, Any], result: Mapping[str, Any] | None) -> bool:
  """Whether a run has not seen the test set yet, or not for every evaluator."""
  if not result or not result['test']:
    return True
  there = result.get('evaluators', [])
  wanted = described(study)
  return any(evaluator not in there for evaluator in wanted) or (
    'barrier' in [evaluator['name'] for evaluator in wanted]
    and _has_another_neighbour(study, result)
  )


def _has_another_neighbour(study: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
  """Whether seeds came between a run and the one to which its line was drawn (`Looks.line`)."""
  lower = [seed for seed in study['seeds'] if seed < result['cell']['seed']]
  if not lower or result.get('deterministic') or result.get('merged'):
    return False
  return max(lower) not in result['test'].get('line_seeds', ())


def described(study: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The evaluators as results have them: {'name', and the options that the config sets}."""
  made = []
  for evaluator in study['evaluators']:
    name, options = named(evaluator)
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()}
    made.append({'name': name, **plain})
  return made


def columns(
  pair: Pair,
  trained: Trained,
  tested: Mapping[int, fit.Predicted],
  source: Variables | None,
) -> dict[int, dict[str, Any]]:
  """{run: the columns of every evaluator} of the runs of a cohort whose test predictions are
  there.

  Raises:
    ValueError: two evaluators give one column.
  """
  looks = Looks(pair, trained, tested, source)
  found: dict[int, dict[str, Any]] = {}
  for run in tested:
    finished, found[run] = looks.finished(run), {}
    for evaluator in pair.study['evaluators']:
      name, options = named(evaluator)
      made = plug('evaluators', name).evaluate(finished, **options)
      if twice := found[run].keys() & made.keys():
        raise ValueError(
          f'config.evaluators: {name!r} gives the column {min(twice)!r}, which another '
          'one gives too. Leave one of them out.'
        )
      found[run] |= made
  return found


def beside(scores: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
  """The columns of a task and of evaluators.

  Raises:
    ValueError: a column is of both.
  """
  if twice := scores.keys() & more.keys():
    raise ValueError(
      f'config.evaluators: the column {min(twice)!r} is one of the task already. Leave out '
      'the evaluator that gives it.'
    )
  return {**scores, **more}


class Looks:
  """What evaluators ask of the tested runs of a cohort; one pass over a part serves all runs."""

  def __init__(
    self,
    pair: Pair,
    trained: Trained,
    tested: Mapping[int, fit.Predicted],
    source: Variables | None,
  ):
    self.pair, self.source, self.fitted = pair, source, trained.fitted
    self.job, self.cells, first = trained.job, trained.cohort.cells, trained.cohort.cells[0]
    self.name, self.method = first.source, first.method
    # a part of the source is nothing to compare with
    self.whole = source if pair.study['methods'][self.method]['init'] == 'source' else None
    self.runs = list(tested)
    self.kept: dict[str, dict[int, Mapping[str, np.ndarray]]] = {}
    self.kept['test'] = {run: predicted.kept for run, predicted in tested.items()}
    # what it says of other texts, and by stage of a part
    self.of_source: dict[Any, Mapping[str, Any]] = {}

  def finished(self, run: int) -> Finished:
    """One of the runs as its evaluators see it."""
    return Finished(
      predict=functools.partial(self.predict, run),
      features=functools.partial(self.features, run),
      by_stage=functools.partial(self.by_stage, run),
      data=functools.partial(self.data, run),
      task=self.pair.task,
      on_source=functools.partial(self.on_source, run),
      on_text=functools.partial(self.on_text, run),
      load=self.load,
      speed=functools.partial(self.speed, run),
      answers=functools.partial(self.answers, run),
      line=functools.partial(self.line, run),
      stages=self.job.network.stages[:-1],
      params=self.variables(run).params,
      source_params=self.whole.params if self.whole else None,
    )

  def predict(self, run: int, part: Any) -> Mapping[str, np.ndarray]:
    """What the task keeps of a run's outputs on a part, or on other stored inputs."""
    if not isinstance(part, str):
      return self._of_inputs(run, part)
    if part not in self.kept:
      self.kept[part] = self._of_part(part)
    return self.kept[part][run]

  def _of_inputs(self, run: int, inputs: PyTree) -> Mapping[str, np.ndarray]:
    form = forms.of_stored(form_of(self.pair.source), inputs)
    labels = np.zeros(feed.length(inputs), np.int32)  # nothing is compared with them
    arrays = feed.Arrays(inputs, self.pair.task.targets(inputs, labels))
    job = _from_stored(self.job, form)
    return fit.predict(job, self.fitted, [run], lambda phase: arrays)[0].kept

  def _of_part(self, part: str) -> dict[int, Mapping[str, np.ndarray]]:
    """By run; of the training part the rows of each run's own examples."""
    start = self._start(part)
    job = self.job if start else _from_stored(self.job)
    arrays = feed.Arrays(self._entering(part, start), self.pair.targets(part))
    rows = [self.rows(run, part) for run in self.runs]
    if part == 'train':
      used = np.unique(np.concatenate(rows))
      arrays, rows = (
        feed.some(arrays, used),
        [np.searchsorted(used, own) for own in rows],
      )
    found = fit.predict(job, self.fitted, self.runs, lambda phase: arrays)
    own = {}
    for run, of_run, predicted in zip(self.runs, rows, found):
      own[run] = feed.take(predicted.kept, of_run)
    return own

  def features(self, run: int, part: str) -> np.ndarray:
    """[N, D]: what comes out of the last stage before the head, averaged over places."""
    (found,) = self.by_stage(run, part, self.job.network.stages[-2:-1]).values()
    return found

  def by_stage(
    self, run: int, part: str, stages: Sequence[str], source: bool = False
  ) -> Mapping[str, np.ndarray]:
    """{stage: [N, D]}, by one pass over the part; of the source one for all runs of the cohort, but
    of a run's own training examples.
    """
    if not source:
      return self._by_stage(run, part, stages, self.job.network, self.variables(run))
    assert self.whole is not None
    key = run if part == 'train' else None, part, *stages
    if key not in self.of_source:
      method = self.pair.study['methods'][self.method]
      network = network_of(self.pair.source, self.pair.task.head, {**method, 'added': ''})
      self.of_source[key] = self._by_stage(run, part, stages, network, self.whole, stored=True)
    return self.of_source[key]

  def _by_stage(
    self,
    run: int,
    part: str,
    stages: Sequence[str],
    network: Network,
    variables: Variables,
    stored: bool = False,
  ) -> dict[str, np.ndarray]:
    """`by_stage` of a network, from stored examples or from where activations of them are kept."""
    ends = [network.stages.index(stage) + 1 for stage in stages]
    start = 0 if stored or self._start(part) > min(ends) else self._start(part)
    needed = network.stages[start : max(ends)]
    variables = Variables(
      *({name: of_all[name] for name in needed if name in of_all} for of_all in variables)
    )
    program = _averaged(network, self.job.form, tuple(stages), start)
    size = prefix.at_a_time(network, self.job.form, start, BATCH)
    return in_batches(program, variables, self._entering(part, start), size, self.rows(run, part))

  def _start(self, part: str) -> int:
    """The stage before which activations are kept; 0 where training kept them of augmented
    views.
    """
    phase = self.job.phases[-1].phase
    return 0 if part == 'train' and phase.views else phase.start

  def _entering(self, part: str, start: int) -> PyTree:
    """What enters a stage, perhaps not in memory: stored examples, or the activations kept
    there.
    """
    if not start:
      return getattr(self.pair.data, part).inputs
    arrays = self.pair.arrays(part, self.source, self.method)
    return arrays(self.job.phases[-1].phase).inputs

  def rows(self, run: int, part: str) -> np.ndarray:
    """The rows of a part that belong to a run: in training its own."""
    if part == 'train':
      return np.asarray(self.job.examples[run])
    return np.arange(len(getattr(self.pair.data, part).ids))

  def data(self, run: int, part: str) -> Part:
    """The examples of a part."""
    part_of_run = Part(self._entering(part, 0), self.pair.targets(part))
    return feed.some(part_of_run, self.rows(run, part)) if part == 'train' else part_of_run

  def variables(self, run: int) -> Variables:
    """All that a run has, on the host."""
    own, stats = jax.tree.map(lambda leaf: leaf[run], (self.fitted.own, self.fitted.stats))
    return Variables(tree.merge(own, self.job.base.params), stats)

  def on_source(self, run: int) -> Recalled | None:
    """What a source that the study trained still knows of its own test part in a run."""
    study, config = self.pair.study, self.pair.source
    method = study['methods'][self.method]
    if not self.whole or not config['dataset'] or method['head_after']:
      return None
    data = pairs.load(study, config | PRETRAINING, config).test
    assert self.pair.workdir is not None  # runs were tested there
    folder = self.pair.workdir / 'sources' / self.name / 'checkpoints'
    params, stats = meshes.on_first(lambda: store.trained(folder, 0))
    own, head = self.variables(run), self.job.network.stages[-1]
    adapted = Variables({**own.params, head: params[head]}, {**stats, **own.stats})
    task, form = (
      task_of(study, config),
      forms.of_stored(form_of(config), data.inputs),
    )
    if 'logits' not in _kept(task):
      return None
    with_added = network_of(config, task.head, {'added': method['added']})
    found = []
    for network, variables in (
      (with_added, adapted),
      (network_of(config, task.head), Variables(params, stats)),
    ):
      program, size = _outputs(network, form), prefix.at_a_time(network, form, 0, BATCH)
      found.append(in_batches(program, variables, data.inputs, size))
    return Recalled(found[0], found[1], data.labels)

  def speed(self, run: int, batch_size: int) -> Speed:
    """Of the whole network on stored examples; added weights are merged where that is possible."""
    method, network, variables = (
      self.pair.study['methods'][self.method],
      self.job.network,
      self.variables(run),
    )
    added = added_of(method)
    if added and added.merge:
      network = network_of(self.pair.source, self.pair.task.head, {**method, 'added': ''})
      variables = variables._replace(params=added.merge(variables.params))
    rows = np.arange(batch_size) % len(self.pair.data.test.ids)
    arguments = jax.device_put((variables, feed.take(self.pair.data.test.inputs, rows)))
    outputs: Any = _outputs(network, self.job.form)
    program = outputs.lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))  # warm
    seconds = []
    for _ in range(PASSES):
      began = time.perf_counter()
      jax.block_until_ready(program(*arguments))
      seconds.append(time.perf_counter() - began)
    flops = (program.cost_analysis() or {}).get('flops', math.nan) / batch_size
    return Speed(batch_size / float(np.median(seconds)), flops, jax.devices()[0].device_kind)

  def on_text(
    self, run: int, name: str, rows: int
  ) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """What the task says of rows of another text, of a run and of its source."""
    source, task = self.pair.source, self.pair.task
    known = plug('inputs', 'language').INPUT
    fields = {field: source['input'].get(field, default) for field, default in known.items()}
    config = {**source, 'form': 'language', 'input': fields}
    inputs = pairs.load(self.pair.study, {**TARGET, 'dataset': name}, config).test.inputs
    few = feed.take(inputs, np.arange(min(rows, feed.length(inputs))))

    def scores(network: Network, variables: Variables) -> Mapping[str, Any]:
      program = _sums(network, form_of(config), task)
      found = in_batches(program, jax.device_put(variables), few, BATCH_OF_TEXTS)
      return task.scores(jax.tree.map(lambda leaf: float(leaf.sum(dtype=np.float64)), found))

    if self.whole and name not in self.of_source:
      network = network_of(source, task.head)
      self.of_source[name] = scores(network, self.whole)
    return scores(self.job.network, self.variables(run)), self.of_source.get(name)

  def line(self, run: int, points: int) -> Line | None:
    """What lies between a run and that of the next lower seed, of equal size and setting; None
    where that is the same network.
    """
    cell = self.cells[run]
    lower = [seed for seed in self.pair.study['seeds'] if seed < cell.seed]
    if not lower or self.pair.workdir is None:
      return None
    other = merges.weights_of(self.pair.workdir, cell._replace(seed=max(lower)))
    if other is None:
      return None
    own, stats = jax.tree.map(lambda leaf: leaf[run], (self.fitted.own, self.fitted.stats))
    ends = [other, (dict(tree.named_leaves(own)), dict(tree.named_leaves(stats)))]
    arrays = self.pair.arrays('test', self.source, self.method)(self.job.phases[-1].phase)
    found = merges.between(self.job, run, ends, points, arrays)
    return Line((max(lower), cell.seed), *found) if found else None

  def load(self, name: str) -> PyTree:
    """The inputs of the test part of another data set, as the source takes them."""
    study = self.pair.study
    return pairs.load(study, {**TARGET, 'dataset': name}, self.pair.source).test.inputs

  def answers(self, run: int, prompts: int, tokens: int) -> list[Answer]:
    """What a run answers in dialogues of the test part."""
    records = pairs.test_records(self.pair.study, self.pair.target, self.pair.source)
    dialogues = list(zip(records.ids, records.read(range(len(records.ids)))))
    variables = jax.device_put(self.variables(run))
    model = use.Model(self.job.network, variables, self.pair.source, '', (), self.name)
    return write.answers(model, dialogues, prompts, tokens)


def _from_stored(job: Job, form: Form | None = None) -> Job:
  """The job with a last phase that begins with examples as stored, perhaps of another form."""
  last = job.phases[-1]
  whole = last._replace(phase=last.phase._replace(start=0, views=0))
  return job._replace(form=form or job.form, phases=(*job.phases[:-1], whole))


@functools.cache
def _averaged(network: Network, form: Form, stages: tuple[str, ...], start: int) -> Callable:
  """(variables, what enters stage `start`) -> {stage: what comes out of it, averaged over places
  [B, D]}.
  """
  cuts = {stage: backbones.head_after(network, stage, 1) for stage in stages}

  def run(variables: Variables, x: PyTree) -> dict[str, Array]:
    x, done, found = x if start else form.enter(x), start, {}
    for stage in sorted(stages, key=network.stages.index):
      end = network.stages.index(stage) + 1
      if end > done:
        x, _ = network.apply(variables, x, train=False, start=done, stop=end)
      last = len(cuts[stage].stages) - 1
      found[stage], _ = cuts[stage].apply(variables, x, train=False, start=end, stop=last)
      done = end
    return found

  return jax.jit(run)


@functools.cache
def _outputs(network: Network, form: Form) -> Callable:
  """(variables, stored examples) -> the outputs of the network."""

  def run(variables: Variables, x: PyTree) -> PyTree:
    return network.apply(variables, form.enter(x), train=False)[0]

  return jax.jit(run)


@functools.cache
def _sums(network: Network, form: Form, task: Task) -> Callable:
  """(variables, stored texts) -> {term: (sum of value x weight, sum of weight), [B] each}."""

  def run(variables: Variables, x: PyTree) -> PyTree:
    batch = Batch(x, task.targets(x, None), jax.numpy.ones(len(jax.tree.leaves(x)[0])))
    terms = task.terms(network.apply(variables, form.enter(x), train=False)[0], batch)
    return {
      name: ((value * weight).sum(-1), weight.sum(-1)) for name, (value, weight) in terms.items()
    }

  return jax.jit(run)
