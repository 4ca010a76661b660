"""What a source makes of stored examples: features by stage."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tlx import backbones
from tlx import inputs as forms
from tlx.study import config as configs
from tlx.study.batches import in_batches
from tlx.study.config import form_of
from tlx.study.phases import heads_of, network_of, num_logits, task_of
from tlx.train.prefix import at_a_time
from tlx.types import Form, Network, PyTree, Variables

BATCH = 128  # examples that go through at a time, at most
INPUT = 'input'  # the stage before the first
SIDE = 32  # of images as a stage of their own, which are averaged to no more
PROBS = 'probs'


def stages_of(
  study: Mapping[str, Any], source: str, variables: Variables, examples: PyTree, every: bool = True
) -> dict[str, np.ndarray]:
  """{stage: [N, D]} of stored examples in the order of the network, with PROBS as the last where
  the source has a head of its own.
  """
  network, num_classes = network_of_source(study, source)
  form = forms.of_stored(form_of(study['sources'][source]), examples)
  program, size = _stages(network, form, num_classes > 0, every), at_a_time(network, form, 0, BATCH)
  found = in_batches(program, variables, examples, size)
  return {stage: found[stage] for stage in (INPUT, *network.stages, PROBS) if stage in found}


def network_of_source(study: Mapping[str, Any], name: str) -> tuple[Network, int]:
  """(a source's network, the number of classes that its head knows; 0 where it has none)."""
  source = study['sources'][name]
  if not source['weights'] and configs.named(source['task'])[0] == 'classification':
    task = task_of(study, source)
    return network_of(source, task.head), num_logits(task)
  return network_of(source, heads_of(source)), 0


def _small(x: jax.Array) -> jax.Array:
  """Images [B, H, W, C] averaged to no more than SIDE a side; others as they are."""
  if x.ndim != 4 or max(x.shape[1:3]) <= SIDE:
    return x
  shape = (len(x), min(SIDE, x.shape[1]), min(SIDE, x.shape[2]), x.shape[3])
  return jax.image.resize(x, shape, 'linear', antialias=True)


@functools.cache
def _stages(network: Network, form: Form, own_head: bool, every: bool) -> Callable:
  """(variables, stored examples) -> {stage: [B, D], PROBS: [B, Z] of the source's own head}."""
  number = len(network.stages) - 1
  first = 0 if every else number - 1
  cuts = [backbones.head_after(network, stage, 1) for stage in network.stages[first:-1]]

  def through(variables: Variables, examples: PyTree) -> dict[str, jax.Array]:
    x = form.enter(examples)
    found = {}
    if every and not isinstance(x, Mapping):
      found[INPUT] = _small(x).reshape(len(x), -1)
    x, _ = network.apply(variables, x, train=False, stop=first)
    for start, cut in enumerate(cuts, first):
      pooled, _ = cut.apply(variables, x, train=False, start=start, stop=len(cut.stages) - 1)
      found[network.stages[start]] = pooled
      x, _ = network.apply(variables, x, train=False, start=start, stop=start + 1)
    if own_head:
      logits, _ = network.apply(variables, x, train=False, start=number)
      found[PROBS] = jax.nn.softmax(logits)
    return found

  return jax.jit(through)
