"""The weights of a network that matter to a task: its diagonal Fisher information, by filter."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx import backbones, tree
from tlx.study import stages
from tlx.study.batches import in_batches
from tlx.study.config import form_of
from tlx.train import exact
from tlx.types import Array, Form, Network, PyTree, Variables

BATCH = 32
PENALTY = 1e-3  # of the head's kernel, in the solver's units
WEIGHTS = ('kernel', 'scale')  # what a filter has: biases and tables of tokens have none


def fisher(
  study: Mapping[str, Any],
  source: str,
  variables: Variables,
  examples: PyTree,
  labels: np.ndarray,
) -> np.ndarray:
  """[F]: the mean over examples of the squared gradient of log p(y | x) in a source's network,
  averaged over each filter before the head (the last axis of a kernel or of a norm's scale), in the
  order of the leaves' names.

  y is drawn from the network's own answer, once an example, by a logistic head that is solved on
  the task (Achille et al. 2019, sections 2 and 3; the Monte Carlo variant of the official
  task2vec.py). Departs from that code in norms, which keep the statistics they came with, in
  gradients of single examples, where it squares the mean over a batch, and in classes, which are
  not evened out.

  Args:
    examples, labels: of the task, as the source's form stores them, and their classes [N].
  """
  network, _ = stages.network_of_source(study, source)
  features = stages.stages_of(study, source, variables, examples, every=False)[network.stages[-2]]
  classes, numbers = np.unique(labels, return_inverse=True)
  rows = np.arange(len(numbers))[None]
  mask, penalties = np.ones(rows.shape), np.full(1, PENALTY)
  probe = exact.solve(
    'logistic', jnp.asarray(features), jnp.asarray(numbers), rows, mask, penalties, len(classes)
  )
  head = probe.kernel[0], probe.bias[0]
  drawn = np.asarray(jax.random.categorical(jax.random.key(0), features @ head[0] + head[1]))
  program = functools.partial(_squares(network, form_of(study['sources'][source])), head)
  return in_batches(program, variables, (examples, drawn), BATCH).mean(0, dtype=np.float64)


@functools.cache
def _squares(network: Network, form: Form) -> Callable:
  """(head, variables, (stored examples, classes)) -> [B, F], squared gradients by filter."""
  cut = backbones.head_after(network, network.stages[-2], 1)

  def loss(params: PyTree, stats: PyTree, head: tuple, example: tuple) -> Array:
    one = jax.tree.map(lambda leaf: leaf[None], example)
    x = form.enter(one[0])
    feature, _ = cut.apply(Variables(params, stats), x, train=False, stop=len(cut.stages) - 1)
    logits = feature.astype(jnp.float32) @ head[0] + head[1]
    return jax.nn.log_softmax(logits)[0, example[1]]

  def squares(head: tuple, variables: Variables, batch: tuple) -> Array:
    before = {stage: variables.params.get(stage, {}) for stage in network.stages[:-1]}

    def of_one(example: tuple) -> Array:
      grads = jax.grad(loss)(before, variables.stats, head, example)
      return jnp.concatenate(
        [
          jnp.square(leaf).reshape(-1, leaf.shape[-1]).mean(0)
          for name, leaf in sorted(tree.named_leaves(grads))
          if name.split('/')[-1] in WEIGHTS
        ]
      )

    return jax.lax.map(of_one, batch)

  return jax.jit(squares)
