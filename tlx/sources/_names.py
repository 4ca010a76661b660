"""Names of arrays: flat ones from nested containers, without training state and wrappers."""
import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tlx.plug import closest

_MOST_NODES, _DEEPEST = 1_000_000, 32
# Top-level groups of a training checkpoint that are not the model.
_TRAINING = re.compile(r'(optim\w*|opt|opt_states?|(lr_)?schedulers?|lr_schedulers|(grad_|amp_|loss_)?scaler|amp|step|'
                       r'global_step|epoch|extra|rng|loops|callbacks|hyper_parameters|optimizer_weights)(/|$)')
_WRAPPERS = ('state_dict', 'model_state_dict', 'model', 'params', 'model_weights')


class Arrays(dict):
  """{name: array}; a name that is not there is a KeyError that says what is."""

  def __init__(self, arrays: Mapping[str, np.ndarray], file: str):
    super().__init__(arrays)
    self.file = file

  def __missing__(self, name):
    have = ', '.join(list(self)[:8])
    raise KeyError(f'{self.file} has no array {name!r}.{closest(name, self)} It has {len(self)}: {have}, ...')


def flatten(tree: object) -> dict[str, object]:
  """{'a/b/0': leaf} of nested mappings, lists and tuples.

  >>> flatten({'model': {'conv.weight': 1}, 'steps': [2, 3]})
  {'model/conv.weight': 1, 'steps/0': 2, 'steps/1': 3}

  Raises:
    ValueError: it nests deeper than 32 levels (or holds itself), has more than a million nodes, or two leaves of one name.
  """
  leaves: dict[str, object] = {}
  visits = itertools.count(1)

  def walk(prefix: tuple, node: Any):
    if len(prefix) > _DEEPEST or next(visits) > _MOST_NODES:
      raise ValueError(f'containers nest deeper than {_DEEPEST} levels or have more than {_MOST_NODES} nodes')
    # Named tuples are leaves here: formats use them for arrays still to be read.
    if isinstance(node, Mapping) or type(node) in (list, tuple):
      for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
        walk((*prefix, str(key)), child)
    elif (name := '/'.join(prefix)) in leaves:
      raise ValueError(f'two leaves are named {name!r}')
    else:
      leaves[name] = node

  walk((), tree)
  return leaves


def unwrap(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str, list[str]]:
  """(arrays of the model, the wrapper taken off their names or '', the groups left out).

  Optimizers, schedulers and counters are left out where something else remains; a wrapper comes off only where all that
  remains lies in it, single numbers beside it ('best_acc1') excepted, so {'params', 'batch_stats'} and {'model', 'model_ema'} keep
  their names in full.

  >>> unwrap({'model/conv.weight': 1, 'optimizer/state/0': 2, 'epoch': 3})
  ({'conv.weight': 1}, 'model/', ['epoch', 'optimizer'])
  """
  kept = {name: array for name, array in arrays.items() if not _TRAINING.match(name)} or dict(arrays)
  if all(name.startswith('opt/target/') for name in arrays):  # flax.optim, as in the first BiT and ViT releases
    return {name.removeprefix('opt/target/'): array for name, array in arrays.items()}, 'opt/target/', []
  wrapper = next((f'{w}/' for w in _WRAPPERS if any(name.startswith(f'{w}/') for name in kept) and all(
      name.startswith(f'{w}/') or ('/' not in name and np.ndim(array) == 0) for name, array in kept.items())), '')
  kept = {name: array for name, array in kept.items() if name.startswith(wrapper)}
  left_out = sorted({name.split('/')[0] for name in arrays.keys() - kept.keys()})
  return {name.removeprefix(wrapper): array for name, array in kept.items()}, wrapper, left_out
