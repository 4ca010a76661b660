"""The inverse of a name map: the arrays of a file, under its official names, of which `fill` makes
a network's variables.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tlx.backbones import NameMap
from tlx.tree import named_leaves
from tlx.types import Variables


class _Part(NamedTuple):
  """A leaf of ours that comes from an official array, and what makes it of that."""

  ours: str
  leaf: np.ndarray
  transform: Callable[[np.ndarray], np.ndarray]


def official(
  variables: Variables, names: NameMap, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """{official name: array} of which the name map makes these variables.

  What a map does to an array is to choose, turn and shift its numbers: which number goes where is
  read off an array of numbers in order, and found to hold for random ones.

  Args:
    arrays: of the file that the map was made for, whose shapes are taken, but for a head of other
      classes; those it lacks get the shape that fits.

  Raises:
    ValueError: a leaf that has no official name, or that no official array can hold.
  """
  parts: dict[str, list[_Part]] = {}
  for ours, leaf in named_leaves(variables.params) + named_leaves(variables.stats):
    if ours not in names:
      raise ValueError(f'{ours} has no official name.')
    theirs, transform = names[ours]
    parts.setdefault(theirs, []).append(_Part(ours, np.asarray(leaf), transform))
  found = {}
  for theirs, of_theirs in parts.items():
    array = _assembled(of_theirs, arrays[theirs].shape if theirs in arrays else None)
    if array is None:
      what = ', '.join(f'{part.ours} {part.leaf.shape}' for part in of_theirs)
      raise ValueError(f'No array {theirs} gives {what}, as its name map would have it.')
    found[theirs] = array
  return found


def _assembled(parts: Sequence[_Part], shape: tuple[int, ...] | None) -> np.ndarray | None:
  """The array that all these leaves are made of; None where there is none."""
  for tried in _shapes(parts, shape):
    flat = np.full(int(np.prod(tried)), np.nan, np.float32)
    if all(_put(part, flat, tried) for part in parts) and not np.isnan(flat).any():
      return flat.reshape(tried)
  return None


def _put(part: _Part, flat: np.ndarray, shape: tuple[int, ...]) -> bool:
  """Puts a leaf where it comes from; False where an array of this shape does not make it.

  A constant, such as the bias of a layer that officially has none, comes from nowhere and has to be
  what it was.
  """
  random = np.random.default_rng(0).normal(size=shape)
  try:
    start = np.asarray(part.transform(np.zeros(shape)))
    numbers = np.asarray(part.transform(np.arange(flat.size, dtype=np.float64).reshape(shape)))
    turned = np.asarray(part.transform(random))
  except (ValueError, IndexError, TypeError):  # another shape than the transform takes
    return False
  if not start.shape == numbers.shape == part.leaf.shape:
    return False
  if np.array_equal(turned, start):
    if not np.array_equal(part.leaf, start):
      raise ValueError(
        f'{part.ours} was trained, and officially there is none. Take the artefact instead.'
      )
    return True
  places = np.rint(numbers - start).astype(np.int64)
  if places.min() < 0 or places.max() >= flat.size:
    return False
  if not np.allclose(random.ravel()[places] + start, turned, atol=1e-6):
    return False
  flat[places] = part.leaf - start.astype(np.float32)
  return True


def _shapes(parts: Sequence[_Part], shape: tuple[int, ...] | None) -> Iterator[tuple[int, ...]]:
  """The shapes that the official array may have: the file's, that with one side of another length,
  and those that the leaves can be turned or laid side by side into.
  """
  largest = max(parts, key=lambda part: part.leaf.size).leaf
  alike = sum(part.leaf.size == largest.size for part in parts)  # others are constants
  size = alike * largest.size
  if shape:
    yield shape
    for axis, side in enumerate(shape):
      other, rest = divmod(size * side, int(np.prod(shape)))
      if not rest and other and other != side:
        yield (*shape[:axis], other, *shape[axis + 1 :])
  own = largest.shape
  split = [(int(np.prod(own[:i])), int(np.prod(own[i:]))) for i in range(1, len(own))]
  turned = {own, own[::-1], *split, *(pair[::-1] for pair in split)}
  if len(own) == 4:
    turned.add((own[3], own[2], own[0], own[1]))
  for one, axis in itertools.product(sorted(turned), range(max(1, len(own)))):
    if axis < len(one):
      yield (*one[:axis], one[axis] * alike, *one[axis + 1 :])
