"""Entries of name maps: our parameter -> (its name in PyTorch's file, what makes it ours)."""

from collections.abc import Iterable

import numpy as np

from tlx.backbones import NameMap

IMAGENET_INPUT = {
  'image_size': 224,
  'channels': 3,
  'mean': (0.485, 0.456, 0.406),
  'std': (0.229, 0.224, 0.225),
  'interpolation': 'bilinear',
  'fit': 'crop',
  'crop': 0.875,
}


def same(array: np.ndarray) -> np.ndarray:
  """The array as it is."""
  return array


def no_bias(weight: np.ndarray) -> np.ndarray:
  """Zeros [out], for a bias that a linear layer with the weight [out, in] does not have.

  >>> no_bias(np.ones((2, 3)))
  array([0., 0.])
  """
  return np.zeros(len(weight), weight.dtype)


def dense(ours: str, theirs: str, bias: bool = True) -> dict:
  """A linear layer: weight [out, in] -> kernel [in, out]; [out, in, 1, 1] is taken too."""
  return _with_bias(ours, theirs, lambda w: w.reshape(w.shape[0], -1).T, bias)


def conv(ours: str, theirs: str, bias: bool = False) -> dict:
  """A convolution: weight [out, in, h, w] -> kernel [h, w, in, out]."""
  return _with_bias(ours, theirs, lambda w: w.transpose(2, 3, 1, 0), bias)


def norm(ours: str, theirs: str) -> dict:
  """A layer or group norm: weight -> scale, bias -> bias."""
  return {f'{ours}/scale': (f'{theirs}.weight', same), f'{ours}/bias': (f'{theirs}.bias', same)}


def batch_norm(ours: str, theirs: str) -> dict:
  """A batch norm with its running statistics."""
  return {
    **norm(ours, theirs),
    f'{ours}/mean': (f'{theirs}.running_mean', same),
    f'{ours}/var': (f'{theirs}.running_var', same),
  }


def prefixed(prefix: str, names: dict) -> NameMap:
  """The name map for a file whose names all begin with `prefix`.

  >>> prefixed('model.', {'head/bias': ('fc.bias', same)})['head/bias'][0]
  'model.fc.bias'
  """
  return {ours: (prefix + theirs, transform) for ours, (theirs, transform) in names.items()}


def prefix_of(arrays: Iterable[str], name: str) -> str:
  """What stands before `name` in the file's names; '' where it is not there at all.

  >>> prefix_of(['module.fc.weight', 'module.fc.bias'], 'fc.bias')
  'module.'
  """
  return next((theirs.removesuffix(name) for theirs in arrays if theirs.endswith(name)), '')


def _with_bias(ours: str, theirs: str, transform, bias: bool) -> dict:
  entries = {f'{ours}/kernel': (f'{theirs}.weight', transform)}
  return entries | {f'{ours}/bias': (f'{theirs}.bias', same)} if bias else entries


# Counters that PyTorch keeps in every batch norm and that nothing needs.
IGNORE_COUNTERS = (r'num_batches_tracked$',)
