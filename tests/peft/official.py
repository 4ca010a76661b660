"""The peft library's numbers in third_party/parity: its networks as ours, and its names."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from tlx import adapters, backbones, peft, sources
from tlx.backbones import bert
from tlx.parity import cases, relative_error
from tlx.plug import plug
from tlx.types import Network, PyTree, Variables

BERT = {
  'vocab_size': 97,
  'dim': 48,
  'depth': 2,
  'heads': 4,
  'mlp_dim': 80,
  'max_positions': 32,
}
PREFIX = 'base_model.model.'


class Base(NamedTuple):
  """A network with the weights that peft added to.

  official: its layers by their official names, as `adapters.layers` gives them
  stop: the stage before which the official output stands
  """

  network: Network
  variables: Variables
  official: dict[str, adapters.Official]
  inputs: PyTree
  stop: int | None


@functools.cache
def stored():
  """Everything that peft gave, by name; the ids of the first file are 'first_ids'."""
  first = dict(np.load(cases.FOLDER / 'peft.npz'))
  first['first_ids'] = first.pop('ids')
  return {**first, **np.load(cases.FOLDER / 'peft_more.npz')}


@functools.cache
def base(name: str) -> Base:
  """'bert', 'gpt2', 'llama' or 'resnet_basic'."""
  if name == 'bert':
    weights = sources.load(str(cases.FOLDER / 'peft_base.safetensors'))
    network, inputs = bert.build(**BERT), {'ids': stored()['ids'].astype(np.int32)}
    shapes = jax.eval_shape(network.init, jax.random.key(0), inputs)
    variables, _ = backbones.from_weights(bert, BERT, weights, shapes)
    layers = adapters.layers(bert, weights.arrays, **BERT)
    return Base(network, variables, layers, inputs, len(network.stages) - 2)
  case = cases.read(name)
  inputs = {'ids': stored()['text'].astype(np.int32)}
  if name == 'resnet_basic':
    inputs = stored()['images'].transpose(0, 2, 3, 1)
  layers = adapters.layers(plug('backbones', case.backbone), case.arrays, **case.options)
  return Base(*cases.build(case), layers, inputs, None)


def layers(case: str, name: str) -> dict[str, dict[str, np.ndarray]]:
  """{our layer: {'lora_A': array}}: what peft added to a network in one case."""
  found: dict[str, dict[str, np.ndarray]] = {}
  for key, array in stored().items():
    if key.startswith(f'{case}:{PREFIX}'):
      module, leaf = split(key.removeprefix(f'{case}:{PREFIX}'))
      for ours in ours_of(name, module):
        found.setdefault(ours, {})[leaf] = array
  return found


def split(path: str) -> tuple[str, str]:
  """(layer, leaf) of an official name.

  >>> split('layer.0.query.lora_A.default.weight')
  ('layer.0.query', 'lora_A')
  """
  names = [name for name in path.split('.') if name != 'default']
  names = names[:-1] if names[-1] == 'weight' and names[-2] != 'base_layer' else names
  last = 2 if 'base_layer' in names else 1
  return '.'.join(names[:-last]), names[-1]


def ours_of(name: str, module: str) -> list[str]:
  """Our layers of an official one, whose name may have something before it."""
  known = base(name).official
  official = max((one for one in known if f'.{module}'.endswith(f'.{one}')), key=len)
  return [part.ours for part in known[official].parts]


def with_leaves(name: str, added: peft.Added, leaves: dict[str, np.ndarray]) -> PyTree:
  """The base's parameters with leaves of these values, which must be all that the method adds."""
  params = base(name).variables.params
  shapes = jax.eval_shape(added.init, jax.random.key(0), params)
  assert {path: leaf.shape for path, leaf in shapes.items()} == {
    path: leaf.shape for path, leaf in leaves.items()
  }
  flat = peft.flat_of(params)
  for path, leaf in leaves.items():
    stage, _, place = path.partition('/')
    flat[f'{stage}/added/{added.name}/{place}'] = leaf
  return peft.tree_of(flat)


def run(case: str, name: str, network: Network, params: PyTree) -> np.ndarray:
  """What the official output is of."""
  of = base(name)
  inputs = of.inputs
  if case in ('lora', 'rslora', 'dora', 'ia3'):
    inputs = {'ids': stored()['first_ids'].astype(np.int32)}
  output, _ = network.apply(of.variables._replace(params=params), inputs, train=False, stop=of.stop)
  return np.asarray(output['hidden'] if of.stop else output)


def check(case: str, name: str, added: peft.Added, leaves: dict[str, np.ndarray]) -> None:
  """Asserts that output and merged output are the official ones, and not those of the base."""
  of, params = base(name), with_leaves(name, added, leaves)
  want = next(stored()[key] for key in (f'{case}_last', f'{case}_logits') if key in stored())
  assert relative_error(run(case, name, of.network, of.variables.params), want) > 1e-3
  assert relative_error(run(case, name, peft.wrap(of.network, added), params), want) < 1e-5
  assert relative_error(run(case, name, of.network, added.merge(params)), want) < 1e-5
