"""Targets at a known distance from a source: the same images under one controlled change of inputs
or of labels.

They apply after resizing, to every split, so that a study can tell input shift from output shift
(Lee et al. 2023, Surgical fine-tuning improves adaptation to distribution shifts, ICLR).
"""

from collections.abc import Callable

import numpy as np

from tlx.plug import closest


def _translate_2px(inputs: np.ndarray) -> np.ndarray:
  moved = np.zeros_like(inputs)
  moved[:, 2:, 2:] = inputs[:, :-2, :-2]
  return moved


def _permute_pixels(inputs: np.ndarray) -> np.ndarray:
  n, height, width, channels = inputs.shape
  # the same for every data set and run of a size
  order = np.random.default_rng(0).permutation(height * width)
  return np.take(inputs.reshape(n, height * width, channels), order, axis=1).reshape(inputs.shape)


def _same(array: np.ndarray) -> np.ndarray:
  return array


# name -> (what happens to inputs uint8 [N, H, W, C], what happens to labels [N])
SHIFTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
  'none': (_same, _same),
  # the same images, classes c and c + 5 made one
  'relabel_mod5': (_same, lambda labels: labels % 5),
  'translate_2px': (_translate_2px, _same),  # right and down, zeros coming in
  # counter-clockwise
  'rotate_90': (lambda inputs: np.ascontiguousarray(np.rot90(inputs, axes=(1, 2))), _same),
  'invert': (lambda inputs: 255 - inputs, _same),
  'permute_pixels': (_permute_pixels, _same),
}


def check(name: str) -> None:
  """Raises ValueError where there is no such shift."""
  if name not in SHIFTS:
    raise ValueError(f'Unknown shift {name!r}; have {", ".join(SHIFTS)}.{closest(name, SHIFTS)}')


def class_names(name: str, names: tuple[str, ...]) -> tuple[str, ...]:
  """The names of the shifted labels: those of all classes that a label stands for, as in '0/5'.

  >>> class_names('relabel_mod5', ('0', '1', '2', '3', '4', '5', '6'))
  ('0/5', '1/6', '2', '3', '4')

  Raises:
    ValueError: no such shift, or one that would leave every label as it is.
  """
  check(name)
  before = np.arange(len(names))
  after = SHIFTS[name][1](before)
  if name.startswith('relabel') and np.array_equal(before, after):
    raise ValueError(
      f'Shift {name!r} changes nothing with {len(names)} classes. Use more classes or another '
      'shift.'
    )
  return tuple('/'.join(names[i] for i in before[after == label]) for label in np.unique(after))
