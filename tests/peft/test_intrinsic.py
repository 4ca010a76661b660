"""A random subspace: its directions against the whole matrix, and how it is shared out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx import peft
from tlx.backbones import cnn
from tlx.peft import intrinsic
from tlx.tree import named_leaves

NETWORK = cnn.build(3, channels=(4, 6), hidden=5)
IMAGES = np.zeros((1, 12, 12, 1), np.float32)
SIZE = 40


def directions():
  """(P [weights, size] column by column, z's length by stage)."""
  added = intrinsic.added(SIZE)
  params = peft.wrap(NETWORK, added).init(jax.random.key(0), IMAGES).params
  z = {name: leaf for name, leaf in named_leaves(params) if name.endswith('/z')}
  flat = lambda tree: np.concatenate([np.ravel(leaf) for _, leaf in named_leaves(tree)])
  start, columns = flat(added.merge(params)), []
  for name, leaf in z.items():
    stage = name.split('/')[0]
    for i in range(len(leaf)):
      own = {**params[stage]['added']['intrinsic'], 'z': jnp.zeros(len(leaf)).at[i].set(1.0)}
      moved = {**params, stage: {**params[stage], 'added': {'intrinsic': own}}}
      columns.append(flat(added.merge(moved)) - start)
  return np.stack(columns, axis=1), {name: len(leaf) for name, leaf in z.items()}


def test_directions_have_length_one_do_not_overlap_and_leave_the_head_alone():
  matrix, lengths = directions()
  gram = matrix.T @ matrix
  assert matrix.shape[1] == SIZE == sum(lengths.values())
  assert gram[~np.eye(SIZE, dtype=bool)].max() == 0
  assert np.diag(gram).mean() == pytest.approx(1, abs=1e-5) and np.diag(gram).min() > 0.3
  assert (np.count_nonzero(matrix, axis=1) <= 1).all()
  head = 5 * 3 + 3
  assert np.count_nonzero(matrix.any(axis=1)) == len(matrix) - head
  signs = np.sign(matrix[matrix != 0])
  assert abs(signs.mean()) < 0.15  # of about 600


def test_numbers_go_to_stages_in_proportion_to_their_weights():
  _, lengths = directions()
  params = jax.eval_shape(NETWORK.init, jax.random.key(0), IMAGES).params
  weights = {stage: sum(leaf.size for _, leaf in named_leaves(params[stage])) for stage in params}
  total = sum(weights.values()) - weights['head']
  for name, length in lengths.items():
    share = SIZE * weights[name.split('/')[0]] / total
    assert abs(length - max(1, share)) < 1


@pytest.mark.parametrize('size, words', [(0, 'got size=0'), (2, 'from 3'), (10**6, 'from 3 .* to')])
def test_sizes_that_cannot_be(size, words):
  with pytest.raises(ValueError, match=words):
    peft.wrap(NETWORK, intrinsic.added(size)).init(jax.random.key(0), IMAGES)
