"""Names of arrays: flat ones from nested containers, without training state and wrappers."""

import collections
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tlx.plug import closest
from tlx.sources._budget import Budget, brief

# Top-level groups of a training checkpoint that are not the model.
_TRAINING = re.compile(
  r'(optim\w*|opt|opt_states?|(lr_)?schedulers?|lr_schedulers|(grad_|amp_|loss_)?scaler|amp|step|'
  r'global_step|epoch|extra|rng|loops|callbacks|hyper_parameters|optimizer_weights)(/|$)'
)
# Groups that hold a model's parameters, of which a checkpoint may have several.
_STATE_DICT = re.compile(
  r'(\w*_)?(state_dict|model|module|params|net|network|weights|ema|teacher|student|'
  r'generator)(_\w*)?'
)
_WRAPPERS = ('state_dict', 'model_state_dict', 'model', 'params', 'model_weights')


class Arrays(dict):
  """{name: array}; a name that is not there is a KeyError that says what is."""

  def __init__(self, arrays: Mapping[str, np.ndarray], file: str):
    super().__init__(arrays)
    self.file = file

  def __missing__(self, name):
    have = ', '.join(list(self)[:8])
    raise KeyError(
      f'{self.file} has no array {name!r}.{closest(name, self)} It has {len(self)}: {have}, ...'
    )


def flatten(tree: object, budget: Budget) -> dict[str, object]:
  """{'a/b/0': leaf} of nested mappings, lists and tuples.

  >>> flatten({'model': {'conv.weight': 1}, 'steps': [2, 3]}, Budget(0))
  {'model/conv.weight': 1, 'steps/0': 2, 'steps/1': 3}

  Raises:
    ValueError: it nests too deep (or holds itself), has more nodes or longer names than the budget,
      or two leaves of one name.
  """
  leaves: dict[str, object] = {}

  def walk(name: str, depth: int, node: Any):
    budget.step(name, depth=depth)
    budget.take(len(name), 'the name of a node')
    # Named tuples are leaves here: formats use them for arrays still to be read.
    if isinstance(node, Mapping) or type(node) in (list, tuple):
      for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
        walk(f'{name}/{key}' if depth else str(key), depth + 1, child)
    elif name in leaves:
      raise ValueError(f'two leaves are named {name!r}')
    else:
      leaves[name] = node

  walk('', 0, tree)
  return leaves


def choose(
  arrays: Mapping[str, np.ndarray], part: str
) -> tuple[dict[str, np.ndarray], str, list[str]]:
  """As `unwrap`, of the group `part` ('model_ema', 'ema/model') alone where one is given.

  >>> choose({'model/conv.weight': 1, 'model_ema/conv.weight': 2}, 'model_ema')
  ({'conv.weight': 2}, 'model_ema/', ['model'])

  Raises:
    ValueError: there is no such group, or none is given and several hold the parameters of a model
      under the same names.
  """
  if not part:
    kept, wrapper, left_out = unwrap(arrays)
    if len(several := _state_dicts(kept)) > 1:
      raise ValueError(
        f'it holds several models under the same names: {brief(", ".join(several))}. '
        f'Choose one of them by `part` (config.sources.<name>.part), such as {several[0]!r}'
      )
    return kept, wrapper, left_out
  prefix = f'{part}/'
  chosen = {}
  for name, array in arrays.items():
    if name.startswith(prefix):
      chosen[name.removeprefix(prefix)] = array
  if not chosen:
    groups = sorted({name.split('/')[0] for name in arrays if '/' in name})
    have = brief(', '.join(groups)) or 'none'
    raise ValueError(f'it has no part {part!r}; it has {have}.{closest(part, groups)}')
  kept, wrapper, inner = unwrap(chosen)
  others = {name.split('/')[0] for name in arrays if not name.startswith(prefix)}
  return kept, prefix + wrapper, sorted(others) + [prefix + name for name in inner]


def _state_dicts(arrays: Mapping[str, np.ndarray]) -> list[str]:
  """The groups that are models, of whose arrays at least half stand in another one as well."""
  groups: dict[str, list[tuple]] = {}
  for name, array in arrays.items():
    group, slash, rest = name.partition('/')
    if slash and _STATE_DICT.fullmatch(group):
      groups.setdefault(group, []).append((rest, np.shape(array)))
  counts: collections.Counter = collections.Counter()
  for entries in groups.values():
    counts.update(entries)

  def is_one_of_several(entries: list[tuple]) -> bool:
    shared = [entry for entry in entries if counts[entry] > 1]
    return 2 * len(shared) >= len(entries)

  return sorted(group for group, entries in groups.items() if is_one_of_several(entries))


def unwrap(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str, list[str]]:
  """(arrays of the model, the wrapper taken off their names or '', the groups left out).

  Optimizers, schedulers and counters are left out where something else remains; a wrapper comes off
  only where all that remains lies in it, single numbers beside it ('best_acc1') excepted, so
  {'params', 'batch_stats'} and {'model', 'model_ema'} keep their names in full.

  >>> unwrap({'model/conv.weight': 1, 'optimizer/state/0': 2, 'epoch': 3})
  ({'conv.weight': 1}, 'model/', ['epoch', 'optimizer'])
  """
  first = 'opt/target/'  # flax.optim, as in the first BiT and ViT releases
  if all(name.startswith(first) for name in arrays):
    return _without(first, arrays), first, []
  kept = {name: array for name, array in arrays.items() if not _TRAINING.match(name)}
  kept = kept or dict(arrays)
  wrapper = next((f'{name}/' for name in _WRAPPERS if _wraps(f'{name}/', kept)), '')
  kept = {name: array for name, array in kept.items() if name.startswith(wrapper)}
  left_out = sorted({name.split('/')[0] for name in arrays.keys() - kept.keys()})
  return _without(wrapper, kept), wrapper, left_out


def _without(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {name.removeprefix(prefix): array for name, array in arrays.items()}


def _wraps(prefix: str, arrays: Mapping[str, np.ndarray]) -> bool:
  """Whether `prefix` stands before some names, and all others are of single numbers beside it."""
  inner = [name for name in arrays if name.startswith(prefix)]
  beside = [name for name in arrays.keys() - set(inner) if '/' in name or np.ndim(arrays[name])]
  return bool(inner) and not beside
