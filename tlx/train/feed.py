"""Data that lives on the device: which examples each step sees, and padded batches to evaluate on."""

from typing import NamedTuple

import jax
import numpy as np

from tlx.types import Batch, PyTree


class Arrays(NamedTuple):
  """Examples [N, ...] and their targets [N, ...], shared by all runs of a cohort."""

  inputs: PyTree
  targets: PyTree


def length(examples: PyTree) -> int:
  """How many examples leaves [N, ...] hold."""
  return len(jax.tree.leaves(examples)[0])


def order(
  examples: np.ndarray, num_steps: int, batch_size: int, key: tuple[int, ...]
) -> np.ndarray:
  """int32 [num_steps, batch_size]: the rows of each step, epochs of fresh permutations of `examples` one after another.

  An epoch that does not divide by the batch size runs on into the next batch, and a set smaller than a batch recurs within it,
  so no example is dropped. `key` alone decides the permutations.
  """
  random = np.random.default_rng(key)
  epochs = -(-num_steps * batch_size // len(examples))
  rows = np.concatenate([random.permutation(examples) for _ in range(epochs)])
  return rows[: num_steps * batch_size].reshape(num_steps, batch_size).astype(np.int32)


def filled(rows: np.ndarray, length: int) -> np.ndarray:
  """`rows` [N, ...] up to `length`, the last one repeated."""
  return (
    rows
    if len(rows) == length
    else np.concatenate([rows, np.repeat(rows[-1:], length - len(rows), axis=0)])
  )


def padded(inputs: PyTree, targets: PyTree, batch_size: int) -> Batch:
  """All examples as batches [N / B, B, ...]; the mask is 0.0 where the last batch is filled up."""
  num_examples = length(targets)
  batch_size = min(batch_size, num_examples)
  num_batches = -(-num_examples // batch_size)
  rows = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)
  mask = (rows < num_examples).astype(np.float32)
  rows = np.minimum(rows, num_examples - 1)
  inputs, targets = jax.tree.map(lambda leaf: leaf[rows], (inputs, targets))
  return Batch(inputs, targets, mask)
