"""Backbones: one architecture a file, `build(num_classes, **options) -> Network`."""

import contextlib
import functools
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from tlx.backbones import _boxes, _config, _heads, _layers
from tlx.backbones._norms import unit
from tlx.plug import closest
from tlx.tree import ADDED, is_added, map_named, named_leaves
from tlx.types import Array, Head, Network, PyTree, Variables


class Edit(NamedTuple):
  """How added leaves change the calls inside a stage; hashable: equal edits share programs.

  name: the leaves stand under '<stage>/added/<name>' in `params`.
  intercept: the leaves of a stage, as given to its compiled function -> an interceptor of flax's
    `nn.intercept_methods`, for which modules have paths that begin within the stage.
  params: (the leaves of a stage, its own parameters) -> the parameters that it runs with.
  also: stages that are edited though they have no leaves ({} is given).
  """

  name: str
  intercept: Callable[[PyTree], Callable] | None
  params: Callable[[PyTree, PyTree], PyTree] | None = None
  also: tuple[str, ...] = ()


def chain(stages: Sequence[tuple[str, nn.Module]], precision: str = 'float32') -> Network:
  """The network that runs linen modules `module(x, train)` one after another.

  Each stage's variables stand under its name in `params` and, where the stage has batch statistics,
  in `stats`. A stage that needs randomness (dropout, stochastic depth) asks for the
  stream 'dropout'. `apply` takes `edits` too, for leaves that were added to `params` (tlx/peft); of
  two that change one call, the second sees what the first makes of it. Products are made at a
  precision of `_layers.PRECISIONS`.

  Raises:
    ValueError: two stages of one name; in `apply`, added leaves of which no edit is given.
  """
  names = tuple(name for name, _ in stages)
  modules = dict(stages)
  if len(modules) != len(names):
    raise ValueError(f'Stage names must differ, got {names}.')

  @_layers.at_precision(precision)
  def init(key: Array, inputs: PyTree) -> Variables:
    params, stats, x = {}, {}, inputs
    for i, name in enumerate(names):
      try:
        x, variables = _initialise(modules[name])({'params': jax.random.fold_in(key, i)}, x)
      except _layers.TooSmallError as error:
        raise ValueError(
          f'Images of {" x ".join(map(str, inputs.shape[1:3]))} are too small for this network: '
          f'at the stage {name!r} they are {error}. Take a larger image_size.'
        ) from None
      params[name] = variables.get('params', {})
      if 'batch_stats' in variables:
        stats[name] = variables['batch_stats']
    return Variables(params, stats)

  @_layers.at_precision(precision)
  def apply(
    variables: Variables,
    x: PyTree,
    *,
    train: bool,
    key: Array | None = None,
    start: int | None = None,
    stop: int | None = None,
    frozen_norms: frozenset[str] = frozenset(),
    edits: tuple[Edit, ...] = (),
  ) -> tuple[PyTree, PyTree]:
    stats = dict(variables.stats)
    for i in range(*slice(start, stop).indices(len(names))):
      name = names[i]
      collections = {
        'params': variables.params.get(name, {})
      }  # checkpoints drop stages without parameters
      if name in stats:
        collections['batch_stats'] = stats[name]
      rngs = {'dropout': jax.random.fold_in(key, i)} if train and key is not None else None
      frozen = frozenset(
        norm.removeprefix(f'{name}/') for norm in frozen_norms if norm.startswith(f'{name}/')
      )
      own = _own(edits, name, collections['params'])
      x, updates = _run(modules[name], train, frozen, own)(collections, x, rngs)
      if name in stats and train:
        stats[name] = updates['batch_stats']
    return x, stats

  return Network(names, init, apply)


@functools.cache
def _initialise(module: nn.Module) -> Callable:
  """A stage as a function (rngs, x) -> (x, variables); equal modules are one, traced once."""
  return jax.jit(lambda rngs, x: module.init_with_output(rngs, x, False))


def _own(edits: tuple[Edit, ...], stage: str, params: PyTree) -> tuple[Edit, ...]:
  """The edits that have leaves in a stage or name it; others leave it the program it is.

  Raises:
    ValueError: the stage has added leaves of another name.
  """
  added = params.get(ADDED, {})
  if unknown := sorted(added.keys() - {edit.name for edit in edits}):
    raise ValueError(
      f'The stage {stage!r} has added leaves {", ".join(unknown)}, and this network has no edit '
      'for them: it would leave them out. Wrap the network (peft.wrap) or merge the leaves.'
    )
  return tuple(edit for edit in edits if edit.name in added or stage in edit.also)


@functools.cache
def _run(
  module: nn.Module, train: bool, frozen: frozenset[str], edits: tuple[Edit, ...]
) -> Callable:
  """A stage as a function (collections, x, rngs) -> (x, updates); equal ones are traced once.

  Added leaves come in with the other parameters: calls are changed inside of the compiled function,
  by its own arguments. A change from outside would be left out where the stage was compiled before.
  """

  def stage(collections: PyTree, x: PyTree, rngs: PyTree) -> tuple[PyTree, PyTree]:
    params = collections['params']
    added = params.get(ADDED, {})
    for edit in edits:
      if edit.params is not None:
        params = edit.params(added.get(edit.name, {}), params)
    collections = {**collections, 'params': params}
    with contextlib.ExitStack() as changed:
      changed.enter_context(nn.intercept_methods(_freeze_norms(frozen)))
      for edit in reversed(edits):  # the last one entered is the first around a call
        if edit.intercept is not None:
          changed.enter_context(nn.intercept_methods(edit.intercept(added.get(edit.name, {}))))
      return module.apply(collections, x, train, mutable=['batch_stats'], rngs=rngs)

  return jax.jit(stage)


def head_after(
  network: Network,
  stage: str | Sequence[str],
  num_classes: int,
  grid: int = 1,
  kind: str = 'linear',
  **options: Any,
) -> Network:
  """The network up to the last of the stages that a new head sees, and that head.

  Of kind 'linear' it is a linear map to classes of the stage 'average', the mean over places or
  tokens, [B, D]; with `grid` = 4 of 'average4x4', over the 4 x 4 cells of an image, [B, 16 D]. Of
  several stages the means stand side by side, each with a root mean square of 1. The stage 'input',
  alone, stands for what goes into the network: its numbers as they are, in the stage 'flatten', and
  then the head. Heads of kind 'attentive' (option `queries`) and 'ladder' (`size`) see the places
  of one or several stages, that of kind 'side' (`size`) those of two (_heads.py).

  Raises:
    ValueError: no such stage before the head, a stage twice, a kind or option that there is not, or
      a side network without two stages.
  """
  check_head(grid, kind, **options)
  if stage == 'input' and kind == 'linear':
    if grid > 1:
      raise ValueError(f"head_after='input' takes every pixel and no grid, got grid={grid}.")
    return chain([('flatten', _layers.Flatten()), ('head', _layers.Head(num_classes))])
  stages = _before_head(network, stage, ('input',) if kind == 'linear' else ())
  # Kept activations go by the names of stages.
  average = 'average' if grid == 1 else f'average{grid}x{grid}'
  mean = functools.partial(_layers.Average(grid).apply, {}, train=False)
  if kind != 'linear':
    if kind == 'boxes':
      raise ValueError("A head of kind 'boxes' answers the task 'detection' alone.")
    if kind == 'side' and len(stages) != 2:
      raise ValueError(
        "A head of kind 'side' wants two stages, one that the side network sees and one that it "
        f'is added to, got {stage!r}.'
      )
    make = _heads.KINDS[kind]
    see = _heads.Seeing('places', _heads.kept, _heads.beside)
    return _over(network, stages, see, make(num_classes, stages, **options))
  if len(stages) > 1:
    see = _heads.Seeing(average, mean, functools.partial(_heads.side_by_side, stages))
    return _over(network, stages, see, _layers.Head(num_classes))
  length = network.stages.index(stages[0]) + 1
  end = chain([(average, _layers.Average(grid)), ('head', _layers.Head(num_classes))])

  def init(key: Array, inputs: PyTree) -> Variables:
    trunk = network.init(key, inputs)
    x, _ = network.apply(trunk, inputs, train=False, stop=length)
    head = end.init(jax.random.fold_in(key, length), x)
    kept = [
      {name: tree[name] for name in network.stages[:length] if name in tree} for tree in trunk
    ]
    return Variables(kept[0] | head.params, kept[1])

  def apply(
    variables: Variables,
    x: PyTree,
    *,
    start: int | None = None,
    stop: int | None = None,
    **options: Any,
  ) -> tuple[PyTree, PyTree]:
    first, last, _ = slice(start, stop).indices(length + 2)
    stats = variables.stats
    if first < length:
      x, stats = network.apply(variables, x, start=first, stop=min(last, length), **options)
    return end.apply(
      variables._replace(stats={}),
      x,
      start=max(first - length, 0),
      stop=max(last - length, 0),
      train=False,
    )[0], stats

  return Network((*network.stages[:length], *end.stages), init, apply)


def with_head(
  network: Network,
  head: Head,
  inputs: PyTree,
  stage: str | Sequence[str] = '',
  kind: str = 'boxes',
  **options: Any,
) -> Network:
  """The network up to the last of the stages that a head of places sees, and that head.

  Args:
    inputs: the shapes [1, H, W, C] of what enters the network, by which places have pixels.
    stage: those that it sees; '' is the last of each of the three coarsest strides, such as 8, 16
      and 32 of a ResNet, and of a transformer its last tokens.
    options: `size` and `depth` of the head (_boxes.py).

  Raises:
    ValueError: another kind of head, or stages or options that there are not.
  """
  check_head(kind=kind, **options)
  if kind != head.kind:
    raise ValueError(
      f'The task wants a head of kind {head.kind!r}, and head_after names {kind!r}. Leave it out, '
      f"or give {{'stage': ..., 'kind': {head.kind!r}}}."
    )
  if len(getattr(inputs, 'shape', ())) != 4:
    raise ValueError(f'A head of {head.kind} wants images [B, H, W, C] to enter, got {inputs}.')
  stages = _before_head(network, stage or _coarsest(network, inputs), ())
  see = _heads.Seeing('places', _heads.kept, _heads.beside)
  strides = tuple(_stride(network, inputs, stage) for stage in stages)
  made = _boxes.Boxes(head.size, stages, strides, **options)
  return _over(network, stages, see, made)


def outputs(head: Head | int | None) -> PyTree:
  """Shapes of what a head gives of one example; of a source's own head, and of a head of places,
  the smallest there may be.
  """
  if isinstance(head, Head):
    return _boxes.outputs(head.size)
  return jax.ShapeDtypeStruct((1, head or 1), np.float32)


def _coarsest(network: Network, inputs: PyTree) -> tuple[str, ...]:
  """The last stage of each of the three coarsest grids of places, or the last that gives tokens."""
  variables, x = jax.eval_shape(network.init, jax.random.key(0), inputs), inputs
  grids: dict[tuple[int, ...], str] = {}
  tokens = ''
  for i, stage in enumerate(network.stages[:-1]):

    def run(variables: Variables, x: PyTree, i: int = i) -> PyTree:
      return network.apply(variables, x, train=False, start=i, stop=i + 1)[0]

    x = jax.eval_shape(run, variables, x)
    dimensions = len(getattr(x, 'shape', ()))
    if dimensions == 4:
      grids[x.shape[1:3]] = stage
    tokens = stage if dimensions == 3 else tokens
  if not (grids or tokens):
    raise ValueError(f'No stage of {", ".join(network.stages)} gives places to find boxes at.')
  coarsest = sorted(grids, reverse=True)[-3:]
  return (tokens,) if tokens else tuple(grids[grid] for grid in coarsest)


def _stride(network: Network, inputs: PyTree, stage: str) -> int:
  """Pixels between neighbouring places that a stage gives of an image.

  Of an image 32 times as large, which has no part of a place at its edge; tokens are of whole
  patches.

  Raises:
    ValueError: the stage gives no places.
  """
  stop = network.stages.index(stage) + 1
  variables = jax.eval_shape(network.init, jax.random.key(0), inputs)

  def places(times: int) -> tuple[int, ...]:
    batch, height, width, channels = inputs.shape
    larger = jax.ShapeDtypeStruct((batch, times * height, times * width, channels), inputs.dtype)

    def run(variables: Variables, x: PyTree) -> PyTree:
      return network.apply(variables, x, train=False, stop=stop)[0]

    return getattr(jax.eval_shape(run, variables, larger), 'shape', ())

  seen = places(1)
  if len(seen) not in (3, 4):
    raise ValueError(
      'A head of boxes sees images [B, H, W, C] or the tokens of patches [B, T, D], and '
      f'{stage} gives {seen or "several arrays"}. Choose other stages.'
    )
  if len(seen) == 3:
    return inputs.shape[1] // math.isqrt(seen[1])
  return round(32 * inputs.shape[1] / places(32)[1])


def check_head(grid: int = 1, kind: str = 'linear', **options: Any) -> None:
  """Nothing, where `head_after` takes these options.

  Raises:
    ValueError: it does not.
  """
  if not isinstance(grid, int) or isinstance(grid, bool) or grid < 1:
    raise ValueError(
      f'head_after wants a grid of n x n cells with a whole number n from 1 on, got {grid!r}.'
    )
  _heads.check(kind, options | ({'grid': grid} if grid > 1 else {}))


def _before_head(
  network: Network, asked: str | Sequence[str], also: tuple[str, ...]
) -> tuple[str, ...]:
  """The stages that a head is asked to see, in the network's order.

  Raises:
    ValueError: one is not before the head (`also` may be named alone), or is there twice.
  """
  stages = (asked,) if isinstance(asked, str) else tuple(asked)
  own = network.stages[:-1]
  for stage in stages:
    if stage not in own:
      have = (*(also if len(stages) == 1 else ()), *own)
      raise ValueError(
        f'head_after={stage!r} is no stage before the head; have {", ".join(have)}.'
        f'{closest(stage, own)}'
      )
  if not stages or len(set(stages)) < len(stages):
    raise ValueError(f'head_after wants stages, none of them twice, got {asked!r}.')
  return tuple(sorted(stages, key=own.index))


def _over(
  network: Network, stages: tuple[str, ...], see: _heads.Seeing, head: nn.Module
) -> Network:
  """The network up to the last of some stages, and a head that sees something of each.

  After each of them stands a stage without parameters, 'block0_average' or 'block0_places', from
  which on activations are {'through': what the next stage takes, 'seen': {stage: what is seen}}.
  """
  names: list[str] = []
  for name in network.stages[: network.stages.index(stages[-1]) + 1]:
    names += [name, f'{name}_{see.name}'] if name in stages else [name]
  end = chain([('head', head)])
  length = len(names)

  def run(i: int, variables: Variables, x: PyTree, **options: Any) -> tuple[PyTree, PyTree]:
    carries = isinstance(x, Mapping) and 'seen' in x
    through, seen = (x['through'], x['seen']) if carries else (x, {})
    if names[i] in network.stages:
      own = network.stages.index(names[i])
      y, stats = network.apply(variables, through, start=own, stop=own + 1, **options)
      return ({'through': y, 'seen': seen} if carries else y), stats
    stage = names[i].removesuffix(f'_{see.name}')
    seen = {**seen, stage: see.of(through)}
    if stage == stages[-1]:
      return see.joined(seen), variables.stats
    return {'through': through, 'seen': seen}, variables.stats

  def init(key: Array, inputs: PyTree) -> Variables:
    trunk, x = network.init(key, inputs), inputs
    for i in range(length):
      x, _ = run(i, trunk, x, train=False)
    params = {name: trunk.params.get(name, {}) for name in names}
    stats = {name: trunk.stats[name] for name in names if name in trunk.stats}
    return Variables(params | end.init(jax.random.fold_in(key, length), x).params, stats)

  def apply(
    variables: Variables,
    x: PyTree,
    *,
    start: int | None = None,
    stop: int | None = None,
    **options: Any,
  ) -> tuple[PyTree, PyTree]:
    first, last, _ = slice(start, stop).indices(length + 1)
    for i in range(first, min(last, length)):
      x, stats = run(i, variables, x, **options)
      variables = variables._replace(stats=stats)
    if last > length:
      x, _ = end.apply(variables._replace(stats={}), x, train=False)
    return x, variables.stats

  return Network((*names, 'head'), init, apply)


def unit_before_head(network: Network) -> Network:
  """The network with a stage 'unit' before its head, which makes features [B, D] unit vectors."""
  place = len(network.stages) - 1
  stages = (*network.stages[:-1], 'unit', network.stages[-1])

  def init(key: Array, inputs: PyTree) -> Variables:
    variables = network.init(key, inputs)
    return variables._replace(params={**variables.params, 'unit': {}})

  def apply(
    variables: Variables,
    x: PyTree,
    *,
    start: int | None = None,
    stop: int | None = None,
    **options: Any,
  ) -> tuple[PyTree, PyTree]:
    first, last, _ = slice(start, stop).indices(len(stages))
    stats = variables.stats
    if first < place:
      x, stats = network.apply(variables, x, start=first, stop=min(last, place), **options)
    if first <= place < last:
      x = unit(x)
    if last > place + 1:
      head_of = variables._replace(stats=stats)
      x, stats = network.apply(head_of, x, start=place, stop=place + 1, **options)
    return x, stats

  return Network(stages, init, apply)


def side_by_side(network: Network) -> Network:
  """The network that reads each of the S parts of examples by itself: what enters and leaves its
  stages is [B, S, ...] in place of [B, ...], with the same parameters.
  """

  def init(key: Array, inputs: PyTree, **options: Any) -> Variables:
    return network.init(key, _flat(inputs), **options)

  def apply(variables: Variables, x: PyTree, **options: Any) -> tuple[PyTree, PyTree]:
    num_parts = jax.tree.leaves(x)[0].shape[1]
    found, stats = network.apply(variables, _flat(x), **options)
    apart = jax.tree.map(lambda leaf: leaf.reshape(-1, num_parts, *leaf.shape[1:]), found)
    return apart, stats

  return Network(network.stages, init, apply)


def _flat(x: PyTree) -> PyTree:
  return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), x)


def _freeze_norms(frozen: frozenset[str]) -> Callable:
  """An interceptor that sends the norm layers of these names to their stored statistics."""

  def intercept(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
    module = context.module
    if isinstance(module, nn.BatchNorm) and '/'.join(module.path) in frozen:
      kwargs = dict(kwargs, use_running_average=True)
    return call(*args, **kwargs)

  return intercept


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """The array in another type; what that cannot hold becomes infinite."""
  with np.errstate(over='ignore'):
    return array.astype(dtype)


# Our name ('block1/conv/kernel', for statistics 'block1/norm/mean') ->
# (the name in the file, what turns that array into ours).
NameMap = Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]


def own_names(shapes: Variables) -> NameMap:
  """The name map of a file that has our own names."""
  return {
    name: (name, np.asarray) for name, _ in named_leaves(shapes.params) + named_leaves(shapes.stats)
  }


def fill(
  shapes: Variables,
  arrays: Mapping[str, np.ndarray],
  names: NameMap,
  fresh: Sequence[str] = (),
  ignore: Sequence[str] = (),
) -> tuple[Variables, dict[str, Any]]:
  """(the variables of `shapes` filled from the arrays of a file, a record of what came from where).

  Leaves of the stages in `fresh` and added leaves (tlx/peft) that the file does not have are left
  None, to be initialised anew; tensors of the file that match a regex of `ignore` may stay unused.
  The record has `names` (ours -> theirs), `fresh` and
  `ignored`.

  Raises:
    ValueError: tensors missing from the file, in the file but unused, of another shape, or with
      values that are not finite: all of them, as a +/- list.
  """
  wanted = dict(named_leaves(shapes.params) + named_leaves(shapes.stats))
  brought = {name for name, (theirs, _) in names.items() if theirs in arrays}
  kept = {
    name: leaf
    for name, leaf in wanted.items()
    if name.split('/')[0] not in fresh and (name in brought or not is_added(name))
  }
  unmapped = sorted(kept.keys() - names.keys())
  used = {names[name][0] for name in kept if name in names}
  missing = sorted(used - arrays.keys())
  dropped = {theirs for name, (theirs, _) in names.items() if name not in kept} - used
  unexpected = sorted(
    name for name in arrays.keys() - used - dropped if not any(re.search(i, name) for i in ignore)
  )
  filled, wrong = {}, []
  for name, leaf in kept.items():
    if name in names and names[name][0] in arrays:
      theirs, transform = names[name]
      source = np.asarray(arrays[theirs])
      filled[name], problem = _turned(source, transform, leaf)
      if problem:
        wrong.append(f'  ! {theirs} {source.shape} {problem}; {name} wants {leaf.shape}')
  if unmapped or missing or unexpected or wrong:
    raise ValueError(
      '\n'.join(
        [
          'The weights do not fit the network (- wanted and not in the file, + in the file and not '
          'used, ! another shape or no numbers):',
          *(f'  - {name} (no name known for it)' for name in unmapped),
          *(f'  - {name}' for name in missing),
          *(f'  + {name}' for name in unexpected),
          *wrong,
          'Check the backbone and its options against the file.',
        ]
      )
    )
  take = functools.partial(map_named, lambda name, _: filled.get(name))
  record = {
    'names': {name: names[name][0] for name in kept},
    'fresh': sorted(wanted.keys() - kept.keys()),
    'ignored': sorted(arrays.keys() - used),
  }
  return Variables(take(shapes.params), take(shapes.stats)), record


def _turned(
  source: np.ndarray, transform: Callable[[np.ndarray], np.ndarray], leaf: Any
) -> tuple[np.ndarray | None, str]:
  """(a file's tensor as a leaf of this shape and dtype, what is wrong with it; '' if nothing)."""
  try:
    array = np.asarray(transform(source))
    problem = f'gives {array.shape}' if array.shape != leaf.shape else ''
    # Integers are packed by a quantiser, say; their values are not the weights.
    if not jax.numpy.issubdtype(source.dtype, np.floating):
      problem = f'has {source.dtype} instead of floating-point numbers'
    array = _cast(array, leaf.dtype)
    if not problem and (bad := array.size - np.count_nonzero(np.isfinite(array))):
      problem = f'has {bad} of {array.size} values that are not finite in {leaf.dtype}'
  except Exception as error:  # of another rank than the transform takes
    return None, f'cannot be turned into it ({error})'
  return array, problem


def options_of(module: types.ModuleType, weights: Any) -> dict[str, Any]:
  """The options of a backbone that stand beside its weights; {} where nothing does.

  They stand in config.json, GGUF's metadata or a timm name. `weights` is what `sources.load` gives.

  Raises:
    ValueError: a field that the backbone does not compute, by its name.
  """
  return {option: value for option, (_, value) in _told(module, weights)[0].items()}


def resolved(module: types.ModuleType, options: Mapping[str, Any]) -> Any:
  """All options of a backbone's network, its variant's and its defaults filled in.

  Raises:
    ValueError: a bad option.
  """
  rest = {name: value for name, value in options.items() if name != 'variant'}
  return module._resolve(options.get('variant') or None, rest)


def from_weights(
  module: types.ModuleType,
  options: Mapping[str, Any],
  weights: Any,
  shapes: Variables,
  fresh: Sequence[str] = (),
) -> tuple[Variables, dict[str, Any]]:
  """`fill` for the network that a backbone builds of these options, once the weights agree to them.

  What stands beside the weights has to agree. The record has `assumed` too: a sentence for each
  thing that the weights leave open and that their tensors cannot tell.

  Args:
    weights: what `sources.load` gives.
    shapes: of the network's variables.

  Raises:
    ValueError: as `fill`, or a field beside the weights that asks for other options or for what is
      not computed, by its name.
  """
  if weights.provenance.get('format') == 'study':
    variables, record = fill(shapes, weights.arrays, own_names(shapes), fresh)
    return variables, {**record, 'assumed': []}
  head = None if 'head' in fresh else shapes.params.get('head', {})
  assumed = _agree(module, options, weights, head)
  ignore = (*module.IGNORE, *(() if head else getattr(module, 'IGNORE_WITH_HEAD', ())))
  variables, record = fill(
    shapes, weights.arrays, module.names(weights.arrays, **options), fresh, ignore
  )
  return variables, {**record, 'assumed': assumed}


def _told(module: types.ModuleType, weights: Any) -> tuple[_config.Told, Mapping[str, Any], str]:
  """(the options that stand beside the weights; the config they come from; what that is called)."""
  config, where = weights.config, 'config.json'
  if 'general.architecture' in weights.metadata:
    if not hasattr(module, 'told_by_gguf'):
      return {}, {}, ''
    with _prefixed('The GGUF file says'):
      return (
        module.told_by_gguf(weights.metadata, weights.arrays),
        {'model_type': weights.metadata['general.architecture']},
        'The GGUF file',
      )
  name = _config.timm_name(weights.provenance, getattr(module, 'TIMM', ()))
  if name and not {'model_type', 'architecture'} & config.keys():
    config, where = {**config, 'architecture': name}, 'The name of the weights'
  if not config or not hasattr(module, 'told'):
    return {}, config, where
  with _prefixed(f'{where} says'):
    # Code or packed weights of their own.
    _config.only(config, {'auto_map': (None,), 'quantization_config': (None,)}, 'this backbone')
    return module.told(config), config, where


@contextlib.contextmanager
def _prefixed(words: str) -> Iterator[None]:
  """Within, an error's message begins with these words."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f'{words} {error}') from None


def _agree(
  module: types.ModuleType, options: Mapping[str, Any], weights: Any, head: Mapping[str, Any] | None
) -> list[str]:
  """Sentences on what the weights leave open.

  Args:
    head: the leaves of our head, which the weights fill; None where it is fresh.

  Raises:
    ValueError: what they say differs from the options.
  """
  told, config, where = _told(module, weights)
  if not hasattr(module, 'OPEN'):
    return [
      f'{where} says {field} = {config[field]!r}, which this backbone does not read.'
      for field in ('model_type', 'architecture')
      if field in config
    ]
  theirs = next(iter(config.get('architectures') or ()), '')
  heads = getattr(module, 'CLASS_HEADS', module.HEADS) if 'kernel' in (head or ()) else module.HEADS
  if head is not None and theirs and not re.fullmatch(heads, theirs):
    raise ValueError(
      f'{where} says architectures = {theirs!r}, whose head is another than ours. '
      "Load it with a head of your own, fresh=('head',)."
    )
  o = resolved(module, options)
  free = {
    'image_size',
    'layer_scale',
    'tied',
    *(() if head else ('pool', 'projection', 'head_pad_id')),
  }
  other = [
    f'  {field} asks for {option}={value!r}, the network has {option}={getattr(o, option)!r}'
    for option, (field, value) in told.items()
    if option not in free and not _config.same(getattr(o, option), value)
  ]
  if other:
    raise ValueError(
      '\n'.join(
        [
          f'{where} says that the weights are of another network:',
          *other,
          'Build it with these options; backbones.options_of gives all of them.',
        ]
      )
    )
  open_ = [
    f'{option} = {getattr(o, option)!r} is taken from the config: the weights do not say it.'
    for option in module.OPEN
    if option not in told and option not in free
  ]
  known = {'model_type', 'architecture'} & config.keys()
  unread = _config.unread(config, module.READ) if known else []
  return [
    *open_,
    *(() if known else module.ASSUMED),
    *(
      f'{where} says {field} = {config[field]!r}, which is taken to change nothing.'
      for field in unread
    ),
  ]
