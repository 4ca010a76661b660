"""A frozen, deterministic prefix is preprocessing: it runs once for every example.

Training begins where it ends. What is kept lies in `<folder>/<key>/` as memory-mapped .npy files
and a meta.json, written last, with their digests. The key is a digest of all that the numbers
depend on: weights, inputs, preprocessing, augmentation, stages and versions. The folder may be
deleted at any time; what is damaged is computed again.
"""

import contextlib
import functools
import glob
import hashlib
import json
import os
import pathlib
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import PartitionSpec

from tlx import checkpoint
from tlx import inputs as forms
from tlx import tree as trees
from tlx.train import feed, lengths, step
from tlx.train import mesh as meshes
from tlx.types import Batch, Form, Network, PyTree, Variables

BATCH = 32  # examples a device takes at a time
AHEAD = 2  # batches that are read meanwhile
# Of the largest of what enters a stage, so much is taken at a time by a CPU: it stays in its cache
# (docs/performance.md).
CPU_BYTES = 1.25e6
# The same of evaluation, where each run has a device: large images do not fill the memory, and of
# small ones a batch is not cut into many.
WHOLE_BYTES = 2**23


class Trunk(NamedTuple):
  """A source as far as its activations depend on it."""

  variables: Variables  # on the host
  backbone: str  # its config
  folder: pathlib.Path


class Point(NamedTuple):
  """Where activations are taken: what enters stage `phase.start`, augmented as in `phase`."""

  network: Network
  form: Form
  phase: step.Phase

  @property
  def stages(self) -> tuple[str, ...]:
    """The stages that run once."""
    return self.network.stages[: self.phase.start]

  @property
  def common(self) -> tuple:
    """Equal for points that one pass over the examples serves."""
    return self.phase.views, self.phase.augment if self.phase.views else (), self.form.name


def boundary(
  network: Network,
  shapes: Variables,
  labels: Mapping[str, str],
  frozen_norms: frozenset[str],
  changed: frozenset[str],
) -> int:
  """The last stage up to which an example's activation is the same in every run at every step.

  The head at most. All leaves before it are frozen in `labels` and all norms are among
  `frozen_norms`, so that statistics stay as they are stored. None of them is among the leaves and
  norms ('block1/norm') that runs `changed` before or initialised themselves.
  """
  for i, stage in enumerate(network.stages[:-1]):
    leaves = [name for name, _ in trees.named_leaves({stage: shapes.params[stage]})]
    norms = {
      name.rpartition('/')[0]
      for name, _ in trees.named_leaves({stage: shapes.stats.get(stage, {})})
    }
    if any(labels[name] != 'frozen' or name in changed for name in leaves) or norms - (
      frozen_norms - changed
    ):
      return i
  return len(network.stages) - 1


@functools.cache
def variable_shapes(network: Network, form: Form) -> Variables:
  """The shapes of a network's variables for examples of a form."""
  key = jax.eval_shape(jax.random.key, 0)  # a real one is two programs to compile
  return jax.eval_shape(network.init, key, forms.entered(form, 1))


@functools.cache
def activation(network: Network, form: Form, start: int, num_examples: int = 1) -> PyTree:
  """The shapes [N, ...] of what enters stage `start`: examples as stored where it is the first."""
  if not start:
    return forms.stored(form, num_examples)
  if num_examples != 1:  # traced once, whatever their number
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct((num_examples, *leaf.shape[1:]), leaf.dtype),
      activation(network, form, start),
    )
  first = start - 1
  inputs = activation(network, form, first) if first else forms.entered(form, 1)
  return jax.eval_shape(
    lambda variables, x: network.apply(variables, x, train=False, start=first, stop=start)[0],
    variable_shapes(network, form),
    inputs,
  )


def at_a_time(network: Network, form: Form, start: int, most: int, num_devices: int = 1) -> int:
  """How many examples go through the stages from `start` on at a time, no more than `most`: on each
  device that is a CPU a power of two, of which WHOLE_BYTES hold the largest of what enters a stage.
  """
  if jax.default_backend() != 'cpu':
    return most
  entered = [activation(network, form, i) for i in range(start, len(network.stages)) if i]
  largest = max(map(trees.num_bytes, entered if start else (forms.entered(form, 1), *entered)))
  return min(most, _fitting(WHOLE_BYTES, largest) * num_devices)


def _fitting(room: float, size: int) -> int:
  """How many examples of a size fit into so many bytes: a power of two, one at least."""
  return 1 << int(max(room / size, 1)).bit_length() - 1


def activations(
  trunk: Trunk,
  inputs: PyTree,
  inputs_sha256: str,
  points: Sequence[Point],
  say: Callable[[str], None] = lambda text: None,
) -> list[PyTree]:
  """Per point, its activations [N, ...] of all inputs, stored examples [N, ...].

  With views [views N, ...], one after another. Those that the folder holds intact are read; the
  others come from one pass, in which stages that points share run once.
  """
  keys = [_key(trunk, inputs_sha256, point) for point in points]
  found: dict[str, PyTree] = {
    key: meshes.on_first(functools.partial(_read, trunk.folder / key))
    for key in dict.fromkeys(keys)
  }
  passes: dict[tuple, dict[str, Point]] = {}
  for key, point in zip(keys, points):
    if found[key] is None:
      passes.setdefault(point.common, {})[key] = point
  for together in passes.values():
    names = ', '.join(
      dict.fromkeys(point.network.stages[point.phase.start] for point in together.values())
    )
    say(f'Running {feed.length(inputs):,} examples once through the frozen stages before {names}.')
    found |= _compute(trunk, inputs, together, say)
  return [found[key] for key in keys]


def _key(trunk: Trunk, inputs_sha256: str, point: Point) -> str:
  stages = [
    (stage, trees.sha256([tree.get(stage, {}) for tree in trunk.variables]))
    for stage in point.stages
  ]
  parts = (
    stages,
    trunk.backbone,
    inputs_sha256,
    point.common,
    jax.__version__,
    jax.default_backend(),
  )
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@functools.cache
def pass_program(points: tuple[Point, ...], part: int) -> Callable:
  """(variables, inputs [B, ...], the numbers of their views [B]) -> per point its activation.

  Compiles once for the same points. On CPU a device takes `part` examples at a time.
  """
  form, phase = points[0].form, points[0].phase

  def augmented(example: PyTree, number: jax.Array) -> PyTree:
    return _view(form, phase, example, jnp.zeros((), jnp.int32), number).inputs

  def run(variables: Variables, inputs: PyTree, numbers: jax.Array) -> list[PyTree]:
    inputs = jax.vmap(augmented)(inputs, numbers) if phase.views else inputs
    known: dict[tuple[str, ...], PyTree] = {(): form.enter(inputs)}
    for point in points:
      for i in range(len(point.stages)):
        if point.stages[: i + 1] not in known:
          before = known[point.stages[:i]]
          known[point.stages[: i + 1]] = point.network.apply(
            variables, before, train=False, start=i, stop=i + 1
          )[0]
    return [known[point.stages] for point in points]

  def in_parts(variables: Variables, inputs: PyTree, numbers: jax.Array) -> list[PyTree]:
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, part, *leaf.shape[1:]), (inputs, numbers))
    found = jax.lax.map(lambda one: run(variables, *one), parts)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)

  mesh, data = meshes.for_examples(), PartitionSpec('data')
  on_cpu = jax.shard_map(
    in_parts, mesh=mesh, in_specs=(PartitionSpec(), data, data), out_specs=data, check_vma=False
  )
  along = meshes.spec(mesh, 'data')
  return jax.jit(
    on_cpu if jax.default_backend() == 'cpu' else run,
    in_shardings=(meshes.spec(mesh), along, along),
    out_shardings=along,
  )


def _view(
  form: Form, phase: step.Phase, example: PyTree, targets: PyTree, number: jax.Array
) -> Batch:
  """One augmented view of an example: the same for the same number, whatever the targets."""
  inputs, wanted = jax.tree.map(lambda leaf: leaf[None], (example, targets))
  key = jax.random.fold_in(jax.random.key(0), number)
  drawn = form.augment(key, Batch(inputs, wanted, jnp.ones(1)), dict(phase.augment))
  return jax.tree.map(lambda leaf: leaf[0], drawn)


@functools.cache
def _targets_program(form: Form, phase: step.Phase) -> Callable:
  """(inputs [B, ...], targets [B, ...], the numbers of their views [B]) -> the views' targets."""

  def of_one(example: PyTree, targets: PyTree, number: jax.Array) -> PyTree:
    return _view(form, phase, example, targets, number).targets

  return jax.jit(jax.vmap(of_one))


def targets_of_views(form: Form, phase: step.Phase, inputs: PyTree, targets: PyTree) -> PyTree:
  """The targets [views N, ...] of the views that `activations` gives of inputs [N, ...]."""
  length = feed.length(inputs)
  if not form.moves:
    return jax.tree.map(lambda leaf: np.concatenate([leaf] * phase.views), targets)
  alike = step.Phase((), (), augment=phase.augment)  # one program for all with this augmentation
  run, found = _targets_program(form, alike), []
  for view in range(phase.views):
    for first in range(0, length, BATCH):
      rows = np.minimum(np.arange(first, first + BATCH), length - 1)
      numbers = (view * length + rows).astype(np.int32)
      moved = jax.device_get(run(*feed.take((inputs, targets), rows), numbers))
      found.append(jax.tree.map(lambda leaf: leaf[: length - first], moved))  # noqa: B023
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def _part(network: Network, form: Form, variables: Variables) -> int:
  """How many examples a CPU device takes at a time: a power of two, as many as CPU_BYTES allow."""

  def between(variables: Variables, x: PyTree) -> list[PyTree]:
    entered = [form.enter(x)]
    for i in range(len(network.stages) - 1):
      if network.stages[i] in variables.params:
        entered.append(network.apply(variables, entered[-1], train=False, start=i, stop=i + 1)[0])
    return entered

  largest = max(map(trees.num_bytes, jax.eval_shape(between, variables, forms.stored(form, 1))))
  return min(BATCH, _fitting(CPU_BYTES, largest))


def batch_size(
  network: Network, form: Form, variables: Variables, length: int, num_devices: int
) -> int:
  """Examples that the devices take at a time: fewer on CPU where all examples are fewer, by powers
  of two, and no part is cut by it.

  Args:
    variables: of the stages that run, or their shapes.
    length: of all examples.
  """
  most = BATCH * num_devices
  if jax.default_backend() != 'cpu':
    return most
  least = _part(network, form, variables) * num_devices
  return min(most, least << (-(-length // least) - 1).bit_length())


def _compute(
  trunk: Trunk, inputs: PyTree, points: Mapping[str, Point], say: Callable[[str], None]
) -> dict[str, PyTree]:
  """{key: activations} of points that one pass serves, written to the folder batch by batch."""
  began = time.perf_counter()
  mesh = meshes.for_examples()
  used = {stage for point in points.values() for stage in point.stages}
  params, stats = (
    {stage: tree[stage] for stage in used if stage in tree} for tree in trunk.variables
  )
  variables = Variables({stage: {} for stage in used} | params, stats)
  first_point = next(iter(points.values()))
  views, length = max(1, first_point.phase.views), feed.length(inputs)
  size = batch_size(first_point.network, first_point.form, variables, length, mesh.size)
  drafts: dict[str, _Draft] = {}
  for name, point in points.items():
    shapes = activation(point.network, point.form, point.phase.start)
    drafts[name] = _Draft(trunk.folder / name, shapes, views * length)
  flops = flops_of_a_token(params)
  of_texts = lengths.num_tokens(inputs) if all(map(_may_be_cut, drafts.values())) else None
  width = 0 if of_texts is None else inputs['mask'].shape[-1]
  batches = lengths.batches(of_texts, length, size, width, flops)
  if of_texts is not None and min(batches.lengths) < width:
    say(lengths.said(of_texts, batches, size, width))
  on_mesh = meshes.put(variables, meshes.spec(mesh))
  for view in range(views):

    def made(one: tuple[np.ndarray, int]) -> tuple[np.ndarray, np.ndarray, PyTree]:
      rows, num_tokens = one
      own = meshes.share(feed.filled(rows, size))
      return rows, own, lengths.cut(feed.take(inputs, own), num_tokens)

    for rows, own, batch in feed.ahead(made, zip(*batches), AHEAD):
      form = forms.of_stored(first_point.form, batch)
      part = min(_part(first_point.network, form, variables), size // mesh.size)
      run = pass_program(tuple(points.values()), part)
      numbers = (view * length + own).astype(np.int32)
      found = meshes.get(run(on_mesh, *meshes.put_shares((batch, numbers), mesh)))
      for draft, of_point in zip(drafts.values(), found):
        draft.fill(view * length + rows, of_point)
  about = {'examples': length, 'views': views, 'seconds': round(time.perf_counter() - began, 3)}
  return {
    name: draft.finish({'stage': points[name].network.stages[points[name].phase.start], **about})
    for name, draft in drafts.items()
  }


def flops_of_a_token(params: Mapping[str, PyTree]) -> float:
  """FLOPs of a token in the stages with these parameters, of which embeddings are looked up."""
  return 2.0 * sum(trees.count(params[stage]) for stage in params if stage != 'embed')


def _may_be_cut(draft: '_Draft') -> bool:
  """Whether texts may lose padding before they enter: what else counts from the end of a row."""
  return draft.names == [''] or {*draft.names} <= {'hidden', 'mask'}


class _Draft:
  """Activations on their way to the disk; on processes that do not write, in memory."""

  def __init__(self, place: pathlib.Path, example: PyTree, length: int):
    self.place = place  # what it becomes, which another process may be writing too
    self.folder = place.parent / f'.{place.name}.{platform.node()}.{os.getpid()}'
    if meshes.is_first():
      _remove_abandoned(place)
      shutil.rmtree(self.folder, ignore_errors=True)
      self.folder.mkdir(parents=True)
    self.names = [name for name, _ in trees.named_leaves(example)]
    self.arrays = [
      self._array(i, (length, *leaf.shape[1:]), leaf.dtype)
      for i, leaf in enumerate(jax.tree.leaves(example))
    ]

  def _array(self, i: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if not meshes.is_first():
      return np.zeros(shape, dtype)
    stored = (
      dtype if dtype.kind in 'biuf' else np.dtype(f'u{dtype.itemsize}')
    )  # .npy has no name for bfloat16
    return np.lib.format.open_memmap(self.folder / f'{i}.npy', 'w+', stored, shape).view(dtype)

  def fill(self, rows: np.ndarray, activation: PyTree) -> None:
    """Puts the first examples of a batch, as many as `rows`, in their place; behind texts that were
    cut the arrays stay 0.
    """
    for array, leaf in zip(self.arrays, jax.tree.leaves(activation)):
      places: tuple[Any, ...] = rows, *map(slice, leaf.shape[1:])
      array[places] = leaf[: len(rows)]

  def finish(self, about: Mapping[str, Any]) -> PyTree:
    """The activations; from now on the folder counts.

    Of two writers of one place the first to end fills it.
    """
    if meshes.is_first():
      for array in self.arrays:
        _flush(array)
      meta = {
        **about,
        'leaves': self.names,
        'dtypes': [str(array.dtype) for array in self.arrays],
        'bytes': sum(array.nbytes for array in self.arrays),
        'sha256': [_digest(self.folder / f'{i}.npy') for i in range(len(self.arrays))],
      }
      checkpoint.write_json(epath.Path(self.folder) / 'meta.json', meta)
      if _read(self.place) is None:
        shutil.rmtree(self.place, ignore_errors=True)  # not there, or damaged
      with contextlib.suppress(OSError):  # another was faster
        self.folder.rename(self.place)
      shutil.rmtree(
        self.folder, ignore_errors=True
      )  # memory-mapped arrays outlive their files' names
    return trees.nested(zip(self.names, self.arrays))


def _flush(array: Any) -> None:
  """Writes a memory-mapped array, or what it is a view of."""
  mapped = array if isinstance(array, np.memmap) else array.base
  mapped.flush()


def _remove_abandoned(place: pathlib.Path) -> None:
  """Removes what processes of this machine that are no more left half written for `place`."""
  for draft in place.parent.glob(f'.{place.name}.{glob.escape(platform.node())}.*'):
    try:
      os.kill(int(draft.suffix[1:]), 0)
    except ProcessLookupError:
      shutil.rmtree(draft, ignore_errors=True)
    except OSError:
      continue  # another user's


def _read(folder: pathlib.Path) -> PyTree | None:
  """The activations in a folder, or None where it is not complete and intact."""
  try:
    meta = checkpoint.read_json(epath.Path(folder) / 'meta.json')
    if [_digest(folder / f'{i}.npy') for i in range(len(meta['leaves']))] != meta['sha256']:
      return None
    arrays = [
      np.load(folder / f'{i}.npy', mmap_mode='r').view(jnp.dtype(dtype))
      for i, dtype in enumerate(meta['dtypes'])
    ]
    return trees.nested(zip(meta['leaves'], arrays))
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
