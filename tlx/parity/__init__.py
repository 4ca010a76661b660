"""How far our networks are from the official implementations, for every output stored."""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tlx import tree
from tlx.backbones import _vit
from tlx.generate import generate
from tlx.inputs._tokenizers import encode
from tlx.parity import cases
from tlx.parity.cases import Case
from tlx.types import Array, Network, Variables

# The greatest |ours - official| over the greatest |official|, by the type that activations are
# computed in.
LIMITS = {'float32': 1e-5, 'bfloat16': 5e-2}
# On one of its images, a smooth ramp, the official network in bfloat16 is off by 0.48 too.
BFLOAT16_LIMITS = {'efficientnet_lite0': 0.5}
FLOAT16_ROUNDING = 2**-11  # what storing an output as float16 may change
AIDS = ('left_mask', 'eos')  # stored to compute the rest
_STAGES = {
  'tokens': 'norm',
  'pooled': 'pool',
  'embedding': 'pool',
  'descriptors': 'descriptor',
  'logits': 'head',
  'last_logits': 'head',
  'mean_nll': 'head',
}


class Row(NamedTuple):
  """One stored output with its error and limit by type; of tokens and texts none may differ."""

  case: str
  backbone: str
  num_params: int
  output: str
  errors: dict[str, float]
  limits: dict[str, float]

  @property
  def ok(self) -> bool:
    return all(error <= self.limits[dtype] for dtype, error in self.errors.items())


def compare(case: Case, dtypes: Sequence[str] = tuple(LIMITS), optimize: bool = True) -> list[Row]:
  """A row for every stored output of a case; tokens, texts, resized positions in float32 alone.

  Args:
    optimize: False compiles activations in half the time, for tests.

  Raises:
    ValueError: an output that no stage of ours is known to give.
  """
  errors: dict[str, dict[str, float]] = {}
  for dtype in dtypes:
    network, variables = cases.build(case, dtype=dtype)
    for output, array in activations(case, network, variables, optimize).items():
      errors.setdefault(output, {})[dtype] = relative_error(
        array, case.outputs[output], _used(case, output)
      )
    if dtype == 'float32':
      for output, error in others(case, network, variables).items():
        errors[output] = {dtype: error}
  if unknown := sorted(case.outputs.keys() - errors.keys() - set(AIDS)):
    raise ValueError(
      f'{case.name} stores {unknown}, which no stage of {case.backbone} is known to give; see '
      '_STAGES in tlx/parity.'
    )
  num_params = tree.count(variables.params)
  rows = []
  for output, found in errors.items():
    limits = {dtype: limit(case, output, dtype) for dtype in found}
    rows.append(Row(case.name, case.backbone, num_params, output, found, limits))
  return rows


def relative_error(ours: Any, official: np.ndarray, used: np.ndarray | None = None) -> float:
  """max |ours - official| / max |official|; infinite for another shape or a NaN.

  Args:
    used: the tokens [B, T] that are compared, by default all.
  """
  ours, official = np.asarray(ours, np.float32), np.asarray(official, np.float32)
  if ours.shape != official.shape or np.isnan(ours).any():
    return float('inf')
  error = np.abs(ours - official)
  return float((error if used is None else error[used]).max() / np.abs(official).max())


def limit(case: Case, output: str, dtype: str) -> float:
  """What the error of an output may be."""
  if output.startswith(('greedy', 'text')):
    return 0.0
  allowed = BFLOAT16_LIMITS.get(case.name, LIMITS[dtype]) if dtype == 'bfloat16' else LIMITS[dtype]
  return allowed + (FLOAT16_ROUNDING if case.outputs[output].dtype == np.float16 else 0.0)


def _used(case: Case, output: str) -> np.ndarray | None:
  """The tokens of an output that are compared: of public text weights those that are not padding.

  What a network makes of padding is never used, and there even two versions of the official one
  differ by more than the limit.
  """
  shape = case.outputs[output].shape
  return (
    case.inputs['mask'] != 0
    if case.tokenizer and 'mask' in case.inputs and len(shape) == 3
    else None
  )


def activations(
  case: Case, network: Network, variables: Variables, optimize: bool = True
) -> dict[str, Array]:
  """Ours for every stored activation, by its official name; for `optimize` see `compare`."""
  stages = network.stages if case.has_head else network.stages[:-1]
  of_stage = {output: stage_of(output, stages) for output in case.outputs}

  @functools.partial(
    jax.jit, compiler_options={} if optimize else {'xla_backend_optimization_level': 0}
  )
  def run(variables: Variables, x: Any) -> dict[str, Array]:
    states = {}
    for i, stage in enumerate(stages):
      x, _ = network.apply(variables, x, train=False, start=i, stop=i + 1)
      states[stage] = x['hidden'] if isinstance(x, dict) else x
    return {
      output: _derived(output, states[stage], case.inputs)
      for output, stage in of_stage.items()
      if stage
    }

  return run(variables, case.inputs)


def stage_of(output: str, stages: Sequence[str]) -> str | None:
  """The stage that gives an activation by its official name, None where none does.

  >>> stage_of('after_layer2', ('stem', 'layer1_0', 'layer2_0', 'layer2_1', 'pool', 'head'))
  'layer2_1'
  >>> stage_of('hidden2', ('embed', 'block0', 'block1', 'norm', 'head'))  # the last: after the norm
  'norm'
  """
  hidden = [stage for stage in stages if re.match(r'embed|block', stage)]
  if 'norm' in stages:
    hidden[-1:] = ['norm']
  if found := re.fullmatch(r'hidden(\d+)', output):
    return dict(enumerate(hidden)).get(int(found[1]))
  if output.startswith('after_layer'):
    return next(
      (
        stage for stage in reversed(stages) if stage.startswith(f'{output.removeprefix("after_")}_')
      ),
      None,
    )
  before_pool = dict(zip(stages[1:], stages)).get('pool')
  stage = {'last': hidden[-1] if hidden else None, 'features': before_pool, **_STAGES}.get(
    output, output.removeprefix('after_')
  )
  return stage if stage in stages else None


def _derived(output: str, state: Array, inputs: Any) -> Array:
  """What the official output makes of a stage's activation."""
  if output == 'last_logits':
    return state[:, -1]
  if output == 'mean_nll':
    of_next = jax.numpy.take_along_axis(
      jax.nn.log_softmax(state[:, :-1]), inputs['ids'][:, 1:, None], axis=2
    )
    return -of_next.mean()
  return (
    state / jax.numpy.linalg.norm(state, axis=1, keepdims=True) if output == 'embedding' else state
  )


def others(case: Case, network: Network, variables: Variables) -> dict[str, float]:
  """The errors of stored outputs that are no activations: tokens, texts, resized positions."""
  outputs, found = case.outputs, {}
  if 'text' in outputs:
    found['text'] = _share(
      encode(case.tokenizer, outputs['text'].tolist())['ids'], case.inputs['ids']
    )
  for output in ('greedy', 'greedy_eos'):
    if output in outputs:
      found[output] = _share(
        *greedy(case, network, variables, outputs['eos'] if output == 'greedy_eos' else None)
      )
  if 'greedy_text' in outputs:
    found['greedy_text'] = float(
      case.tokenizer.decode(outputs['greedy'][0].tolist()) != str(outputs['greedy_text'])
    )
  for output in outputs:
    if grid := re.fullmatch(r'position_(\d+)x(\d+)', output):
      position = next(
        array for name, array in case.arrays.items() if re.search(r'pos_embed(ding)?$', name)
      )
      found[output] = relative_error(
        _vit.resize_positions(position, (int(grid[1]), int(grid[2])), True), outputs[output]
      )
  return found


def greedy(
  case: Case, network: Network, variables: Variables, eos: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """(our greedy tokens, the official ones), both [B, new]; what follows an end token `eos` is 0."""
  ids, official = case.inputs['ids'], case.outputs['greedy' if eos is None else 'greedy_eos']
  # the prompts are the ids, padded at the left, and not repeated in what is stored
  if 'left_mask' in case.outputs:
    inputs = {'ids': ids, 'mask': case.outputs['left_mask'].astype('int32')}
  else:
    length = next(
      (t for t in range(ids.shape[1]) if (ids[:, t] != official[:, t]).any()), ids.shape[1]
    )
    inputs, official = {'ids': ids[:, :length]}, official[:, length:]
  ours = np.array(
    generate(network, variables, inputs, official.shape[1], eos=() if eos is None else (int(eos),))
  )
  ended = np.cumsum(ours == eos, axis=1) - (ours == eos) > 0
  return np.where(ended, 0, ours), official


def _share(ours: np.ndarray, official: np.ndarray) -> float:
  """The share of entries that differ; all of them where the shapes do."""
  return float((ours != official).mean()) if ours.shape == official.shape else 1.0
