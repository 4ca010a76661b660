"""What a run trains, phase by phase: task, network, rules, and the stage at which each phase
begins.
"""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tlx import backbones, freezing, peft, tree
from tlx import inputs as forms
from tlx.plug import plug
from tlx.study.anchor import About, anchor_of
from tlx.study.cells import classes_of
from tlx.study.config import form_module, form_of, named, num_best
from tlx.train import step
from tlx.train.job import PhasePlan
from tlx.train.prefix import activation, boundary, variable_shapes
from tlx.types import Batch, Form, Head, Network, Task, Variables, num_logits


def task_of(study: Mapping[str, Any], data: Mapping[str, Any]) -> Task:
  """What is asked of a source's or a target's data set."""
  return make_task(data['task'], len(classes_of(study, data)))


def heads_of(source: Mapping[str, Any]) -> int | None:
  """What `network_of` takes for the network of a source's weights: None where tasks go on with
  their head, else a number of classes for a head of which nothing is kept.
  """
  return None if getattr(form_module(source), 'OWN_HEAD', False) else 2


def source_classes_of(study: Mapping[str, Any], source: Mapping[str, Any]) -> int:
  """The classes of the head that a source was trained with here; 0 where it has no such head."""
  return num_logits(task_of(study, source)) if source['dataset'] else 0


def make_task(
  task: str | Mapping[str, Any], num_classes: int, label_smoothing: float = 0.0
) -> Task:
  """The task of that name and options; the same arguments give the same object, so programs are
  shared.

  Raises:
    ValueError: an option that the task does not take.
  """
  name, options = named(task)
  options = {
    key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
  }
  options |= {'label_smoothing': label_smoothing} if label_smoothing else {}
  try:
    return plug('tasks', name).task(num_classes, **options)
  except TypeError as error:
    raise ValueError(f'Task {name!r}: {str(error).replace("task()", "it")}.') from None


def network_of(
  source: Mapping[str, Any],
  num_outputs: int | Head | None,
  method: Mapping[str, Any] | None = None,
) -> Network:
  """A source's architecture with a head of `num_outputs`, another kind of `Head` or (None) its own,
  and what a method makes of it: where the head is, what is added.

  The same arguments give the same object, so programs are shared.
  """
  changes = {name: (method or {}).get(name, '') for name in ('head_after', 'head', 'added')}
  network = _build(
    json.dumps(source['backbone'], sort_keys=True),
    num_outputs,
    json.dumps(changes, sort_keys=True),
    form_of(source) if isinstance(num_outputs, Head) else None,
  )
  return _side_by_side(network) if getattr(form_module(source), 'SIDES', False) else network


_side_by_side = functools.cache(backbones.side_by_side)


@functools.cache
def _build(
  backbone: str, num_outputs: int | Head | None, changes: str, form: Form | None
) -> Network:
  """`network_of`; a head of places wants to know the form of the examples."""
  name, options = named(json.loads(backbone))
  options = {
    key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
  }
  module = plug('backbones', name)
  if num_outputs is None and hasattr(getattr(module, 'Options', None), 'logits'):
    options.setdefault('logits', False)  # tasks take scores of a vocabulary in chunks
  try:
    num_logits = 2 if isinstance(num_outputs, Head) else num_outputs  # that head is cut off
    network = module.build(num_logits, **options)
  except TypeError as error:
    raise ValueError(f'Backbone {name!r}: {str(error).replace("build()", "it")}.') from None
  stage, place = named(json.loads(changes)['head_after'], 'stage')
  if isinstance(num_outputs, Head):
    assert form is not None
    network = backbones.with_head(network, num_outputs, forms.entered(form, 1), stage, **place)
  elif (stage or place) and num_outputs is not None:
    network = backbones.head_after(network, stage, num_outputs, **place)
  if json.loads(changes)['head'] and num_outputs is not None:
    network = backbones.unit_before_head(network)
  added = added_of(json.loads(changes))
  return peft.wrap(network, added) if added else network


def added_of(method: Mapping[str, Any]) -> peft.Added | None:
  """What a method adds to the network; None where it adds nothing.

  Raises:
    ValueError: no such way to add weights, or an option that it does not take.
  """
  name, options = named(method.get('added', ''))
  if not name:
    return None
  try:
    return plug('peft', name).added(**options)
  except TypeError as error:
    raise ValueError(f'What is added, {name!r}: {str(error).replace("added()", "it")}.') from None


def shapes_of(source: Mapping[str, Any], network: Network) -> Variables:
  """The shapes of a network's variables for the examples of its source."""
  return variable_shapes(network, form_of(source))


def sizes_of(shapes: Variables) -> list[tuple[str, int]]:
  """[(name, number of scalars)] of the parameters."""
  return [(name, int(np.prod(leaf.shape))) for name, leaf in tree.named_leaves(shapes.params)]


def phases_of(
  method: Mapping[str, Any],
  source: Mapping[str, Any],
  num_classes: int,
  task: str | Mapping[str, Any],
  room: float = 0.0,
  reuse: bool = True,
  source_classes: int = 0,
) -> tuple[PhasePlan, ...]:
  """A method's phases on one architecture.

  Args:
    task: what the data set asks, as the config has it.
    room: bytes that may be kept of each example's activations; each phase begins at the deepest
      stage that frozen stages lead to and whose activation fits. 0: at the first.
    reuse: False lets phases begin at the first stage, but for exact solutions and kept views,
      whose numbers are of activations.
    source_classes: of the source's own head, which penalties may ask for; 0 where it is not to be
      had.

  Raises:
    ValueError: rules that do not fit the network's parameters or train none, groups without a
      learning rate, what needs a frozen prefix without one, or a penalty without what it reads.
  """
  head = make_task(task, num_classes).head
  network, form = network_of(source, head, method), form_of(source)
  _check_asked(network, form, make_task(task, num_classes))
  shapes = shapes_of(source, network)
  init = method.get('init', 'source')
  brought, kept = init == 'source', kept_stages(init, network, shapes)
  leaves = [name for name, _ in tree.named_leaves(shapes.params)]
  changed = {name for name in leaves if name.split('/')[0] not in kept or tree.is_added(name)}
  plans: list[PhasePlan] = []
  for phase in method['phases']:
    asked = _asked(task, num_classes, phase)
    labels, rates, frozen_norms = _partition(network, shapes, phase, brought and head is None)
    watch = _watch(network, shapes, phase)
    if watch and watch.by_depth and (not brought or named(task)[0] != 'classification'):
      raise ValueError(
        f'tune = {phase["tune"]!r} asks what a source makes of classes: it wants the task '
        f"classification and init = 'source', got {named(task)[0]} and {init!r}."
      )
    deepest = boundary(network, shapes, dict(labels), frozen_norms, frozenset(changed))
    start = _start(network, form, phase, deepest, room, reuse, bool(shapes.stats))
    moving = {name.rpartition('/')[0] for name, _ in tree.named_leaves(shapes.stats)} - frozen_norms
    changed |= {name for name, group in labels if group != 'frozen'} | moving
    about = About(
      network,
      form,
      asked,
      shapes,
      alone=network_of(source, head, {**method, 'added': ''}),
      labels=dict(labels),
      live=frozenset(moving),
      brought=brought,
      with_head=heads_of(source) is None,
      changed=frozenset(changed),
      source=source,
      num_classes=source_classes,
      own_place=not method.get('head_after'),
    )
    anchor = anchor_of(phase['penalty'], phase['solver'], about)
    static = _static(phase, labels, rates, frozen_norms, start)
    static = static._replace(watch=watch, anchor=anchor)
    plan = {field: phase[field] for field in _OF_PLAN}
    best = num_best(phase['keep'])
    plans.append(PhasePlan(static, asked, num_steps=phase['steps'], best=best, **plan))
  return tuple(plans)


def kept_stages(init: str, network: Network, shapes: Variables) -> frozenset[str]:
  """The stages that a run has from its source, its head counted as one: all, the first k groups
  (`freezing.groups`) or none.

  Raises:
    ValueError: as many groups as there are before the head, or more.
  """
  if init == 'source':
    return frozenset(network.stages)
  if not init.startswith('first_'):
    return frozenset()
  groups, k = freezing.groups(network.stages, shapes.params), int(init.removeprefix('first_'))
  if k >= len(groups):
    raise ValueError(
      f"init = {init!r}: {len(groups) - 1} groups of stages come before the head's; take fewer, or "
      "init = 'source' for all."
    )
  return frozenset(itertools.chain(*groups[:k]))


@functools.cache
def _check_asked(network: Network, form: Form, task: Task) -> None:
  """Raises ValueError where a task cannot be asked of what a network gives."""
  given = activation(network, form, len(network.stages))
  nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), forms.stored(form, 1))
  targets = task.targets(nothing, np.zeros(1, np.int32))
  jax.eval_shape(task.terms, given, Batch(None, targets, np.ones(1, np.float32)))


_OF_PLAN = ('batch_size', 'evaluations', 'learning_rate', 'epochs')


def _asked(task: str | Mapping[str, Any], num_classes: int, phase: Mapping[str, Any]) -> Task:
  """The task of a phase.

  Raises:
    ValueError: the phase's solver does not solve it.
  """
  asked = make_task(task, num_classes, phase['label_smoothing'])
  have = ('sgd', *asked.solvers)
  if phase['solver'] not in have:
    raise ValueError(
      f'solver {phase["solver"]!r} solves no {named(task)[0]}; it has {", ".join(have)}.'
    )
  if not phase['loss']:
    return asked
  other = make_task(phase['loss'], num_classes)
  if not other.contrasts or 'logistic' not in asked.solvers or phase['solver'] != 'sgd':
    raise ValueError(
      f'loss = {phase["loss"]!r} wants a task that contrasts examples, such as embedding, classes '
      f"and solver = 'sgd'; the task is {named(task)[0]}."
    )
  return other


def _partition(
  network: Network, shapes: Variables, phase: Mapping[str, Any], own_head: bool
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, float], ...], frozenset[str]]:
  """(the group of each leaf, the rate of each trained group, the norms whose statistics stay).

  Where a task goes on with the source's own head, or has one without parameters as it is tied to
  the embedding, there is no new head for a policy to train beside what it names.
  """
  depth = freezing.groups(network.stages, shapes.params)
  policy, options = named(phase['tune'], 'policy')
  try:
    rules = tuple(plug('freezing', policy).rules(depth, **options))
  except TypeError as error:
    raise ValueError(
      f'Freezing policy {policy!r}: {str(error).replace("rules()", "it")}.'
    ) from None
  head = network.stages[-1]
  if own_head or not tree.named_leaves(shapes.params[head]):
    rules = tuple(rule for rule in rules if rule != (f'^{head}/', 'train'))
  elif phase['loss']:  # which does not see it
    rules = ((f'^{head}/', 'frozen'), *rules)
  groups = tree.named_leaves(tree.label(shapes.params, rules, ('frozen', *phase['rates'])))
  if all(label == 'frozen' for _, label in groups):
    raise ValueError(
      f'tune = {phase["tune"]!r} freezes every parameter; a phase trains at least one, such '
      'as the head.'
    )
  labels, rates = _layer_rates(groups, depth, phase['rates'], phase['layer_decay'])
  return (
    labels,
    rates,
    freezing.frozen_norms(shapes.params, shapes.stats, rules, phase['norm']),
  )


def _watch(network: Network, shapes: Variables, phase: Mapping[str, Any]) -> freezing.Watch | None:
  """What the policy of a phase makes of gradients; None where it does not look at them."""
  policy, options = named(phase['tune'], 'policy')
  module = plug('freezing', policy)
  if not hasattr(module, 'watch'):
    return None
  return module.watch(freezing.groups(network.stages, shapes.params), **options)


def _static(
  phase: Mapping[str, Any],
  labels: tuple[tuple[str, str], ...],
  rates: tuple[tuple[str, float], ...],
  frozen_norms: frozenset[str],
  start: int,
) -> step.Phase:
  """What the program of a phase is made from."""
  optimizer, options = named(phase['optimizer'])
  schedule, schedule_options = named(phase['schedule'])
  return step.Phase(
    labels,
    rates,
    frozen_norms,
    optimizer=optimizer,
    optimizer_options=tuple(sorted(options.items())),
    schedule=schedule,
    schedule_options=_hashable(schedule_options),
    augment=tuple(sorted(phase['augment'].items())),
    start=start,
    headless=bool(phase['loss']),
    **{name: phase[name] for name in _OF_STEP},
  )


_OF_STEP = ('warmup', 'clip_norm', 'views', 'solver', 'remat', 'accumulate', 'ema', 'sam')


def _hashable(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
  """Options whose sequences are tuples: a config from JSON has lists."""
  plain = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
  return tuple(sorted(plain.items()))


def _start(
  network: Network,
  form: Form,
  phase: Mapping[str, Any],
  deepest: int,
  room: float,
  reuse: bool,
  statistics: bool,
) -> int:
  """The stage a phase begins at: the deepest there is whose activation fits into `room`."""
  head = len(network.stages) - 1
  if phase['solver'] != 'sgd':
    feature = activation(network, form, head)
    moving = phase['norm'] != 'frozen' and statistics
    if (
      moving
      or (any(phase['augment'].values()) and not phase['views'])
      or getattr(feature, 'ndim', 0) != 2
    ):
      raise ValueError(
        f'solver {phase["solver"]!r} wants fixed feature vectors: every stage before the '
        "head frozen with its statistics (norm = 'frozen'), no augment, and a stage such "
        f"as 'pool' before the head, got {feature}."
      )
    if deepest == head:
      return head
    # Stages that earlier phases trained: features are of each run.
  if not phase['views'] and (not reuse or any(phase['augment'].values())):
    return 0
  if phase['views'] and not deepest:
    raise ValueError(
      f'views = {phase["views"]} are kept of what is frozen, and tune = {phase["tune"]!r} '
      'trains from the first stage on. Set views = 0: examples are augmented anew at every '
      'step.'
    )
  fitting = (
    start
    for start in range(deepest, 0, -1)
    if max(1, phase['views']) * tree.num_bytes(activation(network, form, start)) <= room
  )
  start = next(fitting, 0)
  if phase['views'] and not start:
    raise ValueError(
      f'{phase["views"]} views of an activation need more than the {room:,.0f} bytes an '
      'example that config.reuse and config.feature_bytes leave.'
    )
  return start


def _layer_rates(
  labels: Sequence[tuple[str, str]],
  depth: freezing.Groups,
  rates: Mapping[str, float],
  decay: float,
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, float], ...]]:
  """((name, label), ...) and ((label, rate), ...); with layer-wise decay each group of stages has
  a label of its own.

  Rates as in MAE and timm: the group of the head learns at 1, each below at `decay` times the one
  above it.
  """
  if decay == 1.0:
    return tuple(labels), tuple(
      sorted((label, rates[label]) for label in {label for _, label in labels} - {'frozen'})
    )
  layer = {stage: i for i, group in enumerate(depth) for stage in group}
  layered: dict[str, float] = {}
  renamed = []
  for name, label in labels:
    i = layer[name.split('/')[0]]
    own = label if label == 'frozen' else f'{label}@{depth[i][-1]}'
    renamed.append((name, own))
    if own != 'frozen':
      layered[own] = rates[label] * decay ** (len(depth) - 1 - i)
  return tuple(renamed), tuple(sorted(layered.items()))


def frozen_groups(
  network: Network, shapes: Variables, labels: Mapping[str, str]
) -> tuple[int, int]:
  """(how many groups of stages before the first with a trained parameter, how many groups there
  are): the depth of freezing.

  `labels` are those of a phase. Groups are counted as the freezing policies do
  (`freezing.groups`).
  """
  depth = freezing.groups(network.stages, shapes.params)
  trained = {name.split('/')[0] for name, label in labels.items() if label != 'frozen'}
  return freezing.leading(depth, trained), len(depth)


def reused_groups(network: Network, shapes: Variables, start: int) -> int:
  """How many whole groups of stages run once before a phase that begins at stage `start`."""
  return freezing.leading(freezing.groups(network.stages, shapes.params), network.stages[start:])
