"""Weights added to a network: one method a file, `added(**options) -> Added`.

An added leaf stands under the stage it serves, 'block0/added/lora/attention/query/a': it is one
more leaf of that stage's parameters, so rules, rates, the frozen prefix, cohorts and checkpoints
treat it as any other. It reaches the calls it changes as an argument of the stage's compiled
function.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict

from tlx.backbones import Edit
from tlx.tree import ADDED, is_added
from tlx.types import Array, Network, PyTree, Variables


class Added(NamedTuple):
  """What a method adds. At the start it changes no output, where the method's file does not say so.

  name: its leaves stand under '<stage>/added/<name>'.
  init: (key, params of the network or their shapes) -> {'block0/attention/query/a': leaf}. The
    policy `added` of tlx/freezing leaves those frozen whose name has a part 'fixed'.
  intercept: as in `backbones.Edit`; the same function for equal options, so programs are shared.
  merge: (params with added leaves) -> params of the network alone that give the same output; None
    where there are none that do.
  params: as in `backbones.Edit`.
  also: stages of the network -> those that are edited though they have no leaves.
  watched, informed: where the run's own examples decide how leaves start. params -> the layers
    whose inputs are to be seen; {layer: covariance [D, D] of its inputs} -> leaves by the names
    that `init` gives, in their place. Without examples, outside of studies, those of `init` stay.
  """

  name: str
  init: Callable[[Array, PyTree], Mapping[str, Array]]
  intercept: Callable[[PyTree], Callable] | None
  merge: Callable[[PyTree], PyTree] | None
  params: Callable[[PyTree, PyTree], PyTree] | None = None
  also: Callable[[Sequence[str]], tuple[str, ...]] | None = None
  watched: Callable[[PyTree], tuple[str, ...]] | None = None
  informed: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None


def wrap(network: Network, added: Added) -> Network:
  """The network with added leaves in `params`; its own leaves start as they would without.

  `init` takes `source` too, parameters that will replace the network's own: what is added starts
  from them.

  Raises:
    ValueError: in `init`, as the method's own, or leaves of that name are there already.
  """
  also = added.also(network.stages) if added.also else ()
  edit = Edit(added.name, added.intercept, added.params, also)

  def init(key: Array, inputs: PyTree, source: PyTree = None) -> Variables:
    variables = network.init(key, inputs)
    flat = flat_of(variables.params)
    known = {name: leaf for name, leaf in flat_of(source or {}).items() if name in flat}
    leaves = add(tree_of(flat | known), added, key)
    return variables._replace(params=tree_of(flat_of(leaves) | flat))

  def apply(
    variables: Variables, x: PyTree, *, edits: tuple[Edit, ...] = (), **options: Any
  ) -> tuple[PyTree, PyTree]:
    return network.apply(variables, x, edits=(edit, *edits), **options)

  return Network(network.stages, init, apply)


def add(params: PyTree, added: Added, key: Array) -> PyTree:
  """The parameters with the leaves that a method adds to them, as they are at the start.

  Raises:
    ValueError: as the method's own, or leaves of that name are there already.
  """
  if split(params, added.name)[1]:
    raise ValueError(f'Leaves of {added.name!r} were added already. Wrap the network once.')
  flat = flat_of(params)
  for name, leaf in added.init(key, params).items():
    stage, _, place = name.partition('/')
    flat[f'{stage}/{ADDED}/{added.name}/{place}'] = leaf
  return tree_of(flat)


def split(params: PyTree, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """(all other leaves by their names; those added as `name`, by the names that `Added.init` gives).

  >>> split({'fc': {'kernel': 1, 'added': {'lora': {'linear': {'a': 2}}}}}, 'lora')
  ({'fc/kernel': 1}, {'fc/linear/a': 2})
  """
  others, found = {}, {}
  for path, leaf in flat_of(params).items():
    stage, *rest = path.split('/')
    if is_added(path) and rest[1] == name:
      found['/'.join([stage, *rest[2:]])] = leaf
    else:
      others[path] = leaf
  return others, found


def flat_of(params: PyTree) -> dict[str, Any]:
  """{'block0/attention/query/kernel': leaf}; stages without parameters stay too."""
  return flatten_dict(params, keep_empty_nodes=True, sep='/')


def tree_of(flat: Mapping[str, Any]) -> PyTree:
  """The inverse of `flat_of`."""
  return unflatten_dict(flat, sep='/')
