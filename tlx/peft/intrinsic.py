"""Training in a random subspace: the control that says how few directions a task needs.

Li et al. 2018 (arXiv:1804.08838) and, for fine-tuning, Aghajanyan et al. 2021 (arXiv:2012.13255).
"""

import functools
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from tlx.peft import Added, _layers, flat_of, split, tree_of
from tlx.tree import is_added
from tlx.types import Array, PyTree

NAME = 'intrinsic'
HEAD = 'head'  # is trained whole, beside the subspace
SEEDS = 2**24  # that float32 tells apart


def added(size: int = 1000) -> Added:
  """Every weight before the head is theta + P z, with `size` numbers z in all that are trained.

  P has one entry a row, +-sqrt(size / weights) at a random column, so its columns have length 1 (in
  the mean) and no two of them overlap. It is drawn anew from a seed in every step: its memory is
  that of the weights, not `size` times that. Departs from the papers in giving each stage numbers
  of its own, in proportion to its weights and one at least, where their P mixes all stages (by the
  Fastfood transform, or sparse with several entries a row). z starts at 0: at the source.

  Raises:
    ValueError: a size that is no whole number from 1 on. In `init`: one below the number of stages
      with parameters, or above that of weights.
  """
  _layers.whole(NAME, 'size', size)

  def start(key: Array, params: PyTree) -> dict[str, Array]:
    numbers: dict[str, int] = {}
    for path, leaf in flat_of(params).items():
      stage = path.split('/')[0]
      if stage != HEAD and not is_added(path) and hasattr(leaf, 'shape'):
        numbers[stage] = numbers.get(stage, 0) + int(np.prod(leaf.shape))
    if not len(numbers) <= size <= sum(numbers.values()):
      raise ValueError(
        f'{NAME}: size={size} is no number from {len(numbers)} (the stages before the head) to '
        f'{sum(numbers.values())} (their weights).'
      )
    leaves: dict[str, Array] = {}
    for stage, of_stage in _shares(numbers, size).items():
      own = _layers.key_of(key, NAME, stage)
      seed = jax.random.randint(own, (), 0, SEEDS)
      leaves |= {f'{stage}/z': jnp.zeros(of_stage), f'{stage}/fixed/seed': seed.astype(jnp.float32)}
    return leaves

  return Added(NAME, start, None, _merged, params=_moved)


def _shares(numbers: Mapping[str, int], size: int) -> dict[str, int]:
  """`size` over the stages, in proportion to their weights and one at least.

  >>> _shares({'stem': 1, 'body': 60, 'end': 30}, 10)
  {'stem': 1, 'body': 6, 'end': 3}
  """
  given = dict.fromkeys(numbers, 1)
  for _ in range(size - len(numbers)):
    given[max(numbers, key=functools.partial(_wanting, numbers, given))] += 1
  return given


def _wanting(numbers: Mapping[str, int], given: Mapping[str, int], stage: str) -> float:
  """How many weights of a stage would share a number more."""
  return numbers[stage] / (given[stage] + 1)


def _moved(leaves: PyTree, params: PyTree) -> PyTree:
  """The parameters of a stage that it runs with."""
  flat = flat_of(params)
  own = {path: leaf for path, leaf in flat.items() if path.split('/')[0] != 'added'}
  return tree_of(flat | _shifted(leaves['z'], leaves['fixed']['seed'], own))


def _shifted(z: Array, seed: Array, own: Mapping[str, Array]) -> dict[str, Array]:
  """The leaves of a stage by their names, each plus its part of P z."""
  key = jax.random.key(jax.lax.stop_gradient(seed).astype(jnp.uint32))
  leaves = {path: leaf for path, leaf in own.items() if hasattr(leaf, 'shape')}
  scale = (len(z) / sum(int(np.prod(leaf.shape)) for leaf in leaves.values())) ** 0.5
  shifted = {}
  for path, leaf in leaves.items():
    of_leaf = jax.random.fold_in(key, zlib.crc32(path.encode()))
    drawn = jax.random.randint(of_leaf, leaf.shape, 0, 2 * len(z))
    shifted[path] = leaf + (scale * (1 - 2 * (drawn % 2))) * z[drawn // 2]
  return shifted


def _merged(params: PyTree) -> PyTree:
  """The network's own parameters that give the same."""
  others, leaves = split(params, NAME)
  for name, z in leaves.items():
    stage, _, place = name.partition('/')
    if place == 'z':
      start = f'{stage}/'
      own = {
        path.removeprefix(start): leaf
        for path, leaf in others.items()
        if path.startswith(start) and not is_added(path)
      }
      shifted = _shifted(z, leaves[f'{stage}/fixed/seed'], own)
      others |= {start + path: leaf for path, leaf in shifted.items()}
  return tree_of(others)
