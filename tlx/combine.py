"""Several LoRAs made one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlx.adapters import Adapter, any_of, patterns, scale_of
from tlx.peft._layers import by_layer

COMBINATIONS = ('linear', 'cat', 'svd', 'ties', 'ties_svd', 'magnitude_prune')


def combine(
  adapters: Sequence[Adapter],
  weights: Sequence[float],
  kind: str = 'linear',
  rank: int | None = None,
  density: float = 1.0,
) -> Adapter:
  """One LoRA of several, as the peft library's `add_weighted_adapter` makes it.

  'cat': exactly the weighted sum of what they add, of the sum of their ranks. 'svd': its best
  approximation of `rank`. 'linear': sums of their a and of their b, each by the root of its weight
  and scale, so that the product has terms of a with another's b. 'magnitude_prune': the same of the
  `density` of each a and b that is largest. 'ties' (arXiv:2306.01708): of those the mean of the
  values whose sign is that of their sum; 'ties_svd': the same of what they add, and then as 'svd'.

  Raises:
    ValueError: a bad option, adapters of other layers, or of other ranks where these must agree;
      DoRA, biases or PiSSA.
  """
  if kind not in COMBINATIONS:
    raise ValueError(f'combine wants one of {", ".join(COMBINATIONS)}, got kind={kind!r}.')
  if len(adapters) != len(weights) or not adapters or min(weights) < 0:
    raise ValueError(f'{len(adapters)} adapters want as many weights from 0 on, got {weights!r}.')
  if not 0 < density <= 1:
    raise ValueError(f'combine wants a density above 0 and up to 1, got density={density!r}.')
  if kind.endswith('svd') and rank is None:
    raise ValueError(f'kind={kind!r} wants a rank.')
  of_layers = [by_layer(adapter.leaves) for adapter in adapters]
  for adapter, layers in zip(adapters, of_layers, strict=True):
    others = {leaf for own in layers.values() for leaf in own} - {'a', 'b', 'fixed/alpha'}
    if adapter.method['name'] != 'lora' or others:
      raise ValueError(f'combine takes plain LoRA, got {adapter.method} with {sorted(others)}.')
    if layers.keys() != of_layers[0].keys():
      different = ', '.join(sorted(layers.keys() ^ of_layers[0].keys()))
      raise ValueError(f'The adapters are of different layers: {different}.')
  leaves: dict[str, Any] = {}
  ranks: dict[str, int] = {}
  for name in of_layers[0]:
    parts = []
    for adapter, layers, weight in zip(adapters, of_layers, weights, strict=True):
      parts.append((weight, scale_of(adapter.method, layers[name]), layers[name]))
    if kind not in ('cat', 'svd', 'ties_svd') and len({own['a'].shape for *_, own in parts}) > 1:
      raise ValueError(f'kind={kind!r} wants equal ranks, and those of {name} differ; take cat.')
    a, b = _combined(parts, kind, rank, density)
    leaves[f'{name}/a'], leaves[f'{name}/b'], ranks[name] = a, b, len(b)
  usual, unusual = patterns(ranks)
  for name, size in ranks.items():
    if size != usual:
      leaves[f'{name}/fixed/alpha'] = np.float32(size)
  pairs = [(f'{name}$', size) for name, size in unusual.items()]
  method = {'name': 'lora', 'at': f'^{any_of(ranks)}$', 'rank': usual, 'alpha': usual}
  return Adapter({**method, 'rank_pattern': pairs, 'alpha_pattern': pairs}, leaves, {})


def _combined(
  parts: Sequence[tuple[float, float, Mapping[str, Any]]],
  kind: str,
  rank: int | None,
  density: float,
) -> tuple[np.ndarray, np.ndarray]:
  """(a, b) of one layer, of scale 1."""
  if kind == 'cat':
    a = np.concatenate([weight * scale * own['a'] for weight, scale, own in parts], axis=-1)
    return a, np.concatenate([own['b'] for *_, own in parts])
  if kind.endswith('svd'):
    deltas = [scale * own['a'] @ own['b'] for _, scale, own in parts]
    merged = _merged(deltas, [weight for weight, *_ in parts], kind, density)
    left, values, right = np.linalg.svd(merged.reshape(-1, merged.shape[-1]), full_matrices=False)
    a = left[:, :rank].reshape(*merged.shape[:-1], -1)
    return a, values[:rank, None] * right[:rank]
  roots = [(weight * scale) ** 0.5 for weight, scale, _ in parts]
  a, b = (_merged([own[leaf] for *_, own in parts], roots, kind, density) for leaf in 'ab')
  return a, b


def _merged(
  arrays: Sequence[np.ndarray], weights: Sequence[float], kind: str, density: float
) -> np.ndarray:
  """One array of several of its shape."""
  stacked = np.stack(arrays)
  if kind in ('ties', 'ties_svd', 'magnitude_prune'):
    stacked = np.stack([_largest(array, density) for array in arrays])
  weighted = stacked * np.reshape(weights, (-1, *(1,) * arrays[0].ndim))
  if not kind.startswith('ties'):
    return weighted.sum(0)
  agrees = np.sign(stacked) == np.where(stacked.sum(0) >= 0, 1, -1)
  return (weighted * agrees).sum(0) / np.maximum(agrees.sum(0), 1)


def _largest(array: np.ndarray, density: float) -> np.ndarray:
  """The array with 0 but for this share of its values, the largest."""
  number = int(density * array.size)
  kept = np.zeros(array.size, array.dtype)
  kept[np.argsort(-np.abs(array), axis=None, kind='stable')[:number]] = 1
  return array * kept.reshape(array.shape)
