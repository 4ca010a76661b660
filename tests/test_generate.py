"""What generation keeps to. Its official tokens are in tests/backbones/test_parity_cases.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.backbones import bert, gpt2
from tlx.generate import Sampling, generate, limit, stream
from tlx.parity import cases

PARITY = cases.FOLDER
SAMPLING = Sampling(temperature=0.8, top_k=20, top_p=0.9)
NEVER = (-1,)  # an end token that no row meets: the program that stops, without stopping


@functools.cache
def load(name, **changes):
  """(the network, its official weights, the official inputs and outputs)."""
  case = cases.read(name)
  return *cases.build(case, **changes), {**case.inputs, **case.outputs}


@pytest.fixture(scope='module')
def small():
  """(a network, its variables, prompts padded at the left)."""
  network, variables, stored = load('llama_untied')
  return (
    network,
    variables,
    {'ids': stored['ids'].astype('int32'), 'mask': stored['left_mask'].astype('int32')},
  )


def test_logits_with_the_cache_equal_those_without():
  network, variables, stored = load('llama_untied')
  ids, mask = stored['ids'].astype('int32'), stored['left_mask'].astype('int32')
  run = jax.jit(lambda x: network.apply(variables, x, train=False, stop=-1)[0])
  whole = run({'ids': ids, 'mask': mask})['hidden']
  cache = run({'ids': ids[:, :10], 'mask': mask[:, :10], 'cache': ()})['cache']
  cache = jax.tree.map(lambda array: jnp.pad(array, ((0, 0), (0, 0), (0, 3), (0, 0))), cache)
  for i in range(10, 13):
    x = run({'ids': ids[:, i : i + 1], 'mask': mask, 'cache': cache, 'index': jnp.int32(i)})
    real = mask[:, i] != 0
    assert real.any()
    np.testing.assert_allclose(
      x['hidden'][real, 0], whole[real, i], atol=1e-5 * np.abs(whole).max()
    )
    cache = x['cache']


def test_bfloat16_keeps_its_cache_in_bfloat16():
  network, variables, stored = load('llama', dtype='bfloat16')
  inputs = {'ids': stored['ids'].astype('int32')}
  x = jax.eval_shape(
    lambda: network.apply(variables, {**inputs, 'cache': ()}, train=False, stop=-1)[0]
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(x['cache'])} == {jnp.bfloat16.dtype}
  assert jax.eval_shape(lambda: generate(network, variables, inputs, 2)).shape == (2, 2)


def test_padding_at_the_right_generates_what_padding_at_the_left_does(small):
  network, variables, inputs = small
  stored = np.load(PARITY / 'llama_untied.npz')
  turned = {name: np.array(array) for name, array in inputs.items()}
  for i, num_real in enumerate(inputs['mask'].sum(1)):
    for name in turned:
      turned[name][i] = np.roll(inputs[name][i], num_real)
  assert turned['mask'][2, 0] == 1 and turned['mask'][2, -1] == 0
  np.testing.assert_array_equal(
    generate(network, variables, turned, 14, eos=NEVER), stored['greedy']
  )


def test_rows_that_have_ended_are_filled_with_the_first_end_token(small):
  network, variables, inputs = small
  official = np.load(PARITY / 'llama_untied.npz')['greedy']
  first, last = int(official[0, 3]), int(official[1, -1])
  got = np.asarray(generate(network, variables, inputs, 14, eos=(first, last)))
  for row, tokens in zip(got, official):
    end = next((i for i, token in enumerate(tokens) if token in (first, last)), 14)
    np.testing.assert_array_equal(row[: end + 1], tokens[: end + 1])
    assert (row[end + 1 :] == first).all()
  assert (got[:, -1] == first).any()


def test_rows_of_a_batch_draw_what_they_draw_alone(small):
  """That the most probable ones are the same is in the official tokens of prompts with padding."""
  network, variables, inputs = small
  whole, short = (np.asarray(inputs['ids'][:1, -length:]) for length in (5, 2))
  both = {
    'ids': np.concatenate([whole, np.pad(short, ((0, 0), (0, 3)))]),
    'mask': np.array([[1] * 5, [1, 1, 0, 0, 0]], np.int32),
  }
  key = jax.random.key(3)
  draw = lambda inputs, key: np.asarray(
    generate(network, variables, inputs, 9, sampling=SAMPLING, key=key)
  )
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2))
  together = draw(both, key)
  np.testing.assert_array_equal(draw(both, keys), together)
  np.testing.assert_array_equal(draw({'ids': whole}, keys[:1])[0], together[0])
  np.testing.assert_array_equal(draw({'ids': short}, keys[1:])[0], together[1])


def test_a_head_that_gives_features_generates_the_same(small):
  _, variables, inputs = small
  features = load('llama_untied', logits=False)[0]
  x = jax.eval_shape(lambda: features.apply(variables, inputs, train=False)[0])
  assert x['features'].shape == (*inputs['ids'].shape, 32) and x['kernel'].shape[1] == 32
  official = np.load(PARITY / 'llama_untied.npz')['greedy'][:, :8]
  np.testing.assert_array_equal(generate(features, variables, inputs, 8), official)


@pytest.mark.parametrize('every', [1, 4, 20])
def test_a_stream_is_what_is_written_at_once_until_all_rows_have_ended(small, every):
  network, variables, inputs = small
  official = np.load(PARITY / 'llama_untied.npz')['greedy']
  eos = tuple(int(token) for token in official[:, 5])
  whole = np.asarray(generate(network, variables, inputs, 14, eos=eos))
  pieces = list(stream(network, variables, inputs, 14, every=every, eos=eos))
  assert {len(piece[0]) for piece in pieces[:-1]} <= {1, every}
  streamed = np.concatenate(pieces, axis=1)
  assert 0 < streamed.shape[1] <= 6 and np.isin(streamed, eos).any(1).all()
  np.testing.assert_array_equal(streamed, whole[:, : streamed.shape[1]])
  assert np.concatenate(list(stream(network, variables, inputs, 14, every=every)), 1).shape[1] == 14


def test_sampling_follows_its_key(small):
  network, variables, inputs = small
  one, again, other = (
    np.asarray(generate(network, variables, inputs, 8, sampling=SAMPLING, key=jax.random.key(seed)))
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(one, again)
  assert (one != other).any()


def test_every_step_draws_with_a_key_of_its_own(small):
  network, variables, inputs = small
  flat = jax.tree.map(np.zeros_like, variables)  # every step has the same logits
  tokens = np.asarray(generate(network, flat, inputs, 8, sampling=SAMPLING, key=jax.random.key(0)))
  assert (tokens != tokens[:, :1]).any()


def test_sampling_of_the_single_best_token_is_greedy(small):
  network, variables, inputs = small
  greedy = np.load(PARITY / 'llama_untied.npz')['greedy'][:, :8]
  for sampling in (
    SAMPLING._replace(top_k=1),
    SAMPLING._replace(top_p=1e-6),
    SAMPLING._replace(temperature=1e-6),
  ):
    np.testing.assert_array_equal(
      generate(network, variables, inputs, 8, sampling=sampling, key=jax.random.key(0)), greedy
    )


def test_what_top_k_and_top_p_leave():
  logits = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3]]))

  def left(**options):
    return np.flatnonzero(np.isfinite(limit(logits, Sampling(**options))[0])).tolist()

  assert left() == [0, 1, 2, 3]
  assert left(top_k=2) == [1, 3] and left(top_k=9) == [0, 1, 2, 3]
  assert left(top_p=0.39) == [1] and left(top_p=0.41) == [1, 3] and left(top_p=0.71) == [1, 2, 3]
  # Of the two that top_k leaves, the first has 4/7.
  assert left(top_k=2, top_p=0.5) == [1] and left(top_k=2, top_p=0.6) == [1, 3]
  np.testing.assert_allclose(limit(logits, Sampling(temperature=0.5)), 2 * logits, rtol=1e-6)
  ties = jnp.log(jnp.array([[0.3, 0.2, 0.2, 0.2, 0.1]]))
  assert np.isfinite(limit(ties, Sampling(top_k=2))).sum() == 4  # as good as the second


@pytest.mark.parametrize('top_k', [None, 1, 7, 500])
@pytest.mark.parametrize('top_p', [None, 0.01, 0.8, 0.999, 1.0])
def test_what_is_left_is_what_sorting_leaves(top_k, top_p):
  """A few hundred scores, negative, huge and minus infinite ones among them."""
  logits = np.random.default_rng(0).normal(size=(3, 200)) * np.array([[0.1], [3], [1000]])
  logits[0, :5] = -np.inf
  for row, got in zip(logits, limit(jnp.float32(logits), Sampling(0.7, top_k, top_p))):
    order = np.argsort(-row)[:top_k]
    weight = np.exp((row[order] - row.max()) / 0.7)
    if top_p not in (None, 1.0):
      order = order[np.cumsum(weight) - weight < top_p * weight.sum()]
    drawable = np.flatnonzero(row > row.max() - 60)  # the others have no probability in float32
    left = np.flatnonzero(np.isfinite(got))
    np.testing.assert_array_equal(np.intersect1d(left, drawable), np.intersect1d(order, drawable))


@pytest.mark.parametrize(
  'options, message',
  [
    ({'sampling': SAMPLING}, 'both `sampling` and `key`'),
    ({'key': jax.random.key(0)}, 'both `sampling` and `key`'),
    ({'sampling': Sampling(temperature=0.0), 'key': jax.random.key(0)}, 'wanted temperature > 0'),
    ({'sampling': Sampling(top_p=1.5), 'key': jax.random.key(0)}, '0 < top_p <= 1'),
    ({'sampling': Sampling(top_k=0), 'key': jax.random.key(0)}, 'top_k at least 1'),
    (
      {'sampling': SAMPLING, 'key': jax.random.split(jax.random.key(0), 2)},
      r'key has shape \(2,\), wanted one key, or 3',
    ),
    ({'num_tokens': 0}, 'num_tokens is 0'),
  ],
)
def test_impossible_requests(small, options, message):
  network, variables, inputs = small
  for ask in (generate, stream):
    with pytest.raises(ValueError, match=message):
      ask(network, variables, inputs, **{'num_tokens': 2, **options})


def test_a_prompt_without_a_token_or_a_stream_without_one(small):
  network, variables, inputs = small
  with pytest.raises(ValueError, match='the prompts are of 0 tokens'):
    generate(network, variables, {'ids': inputs['ids'][:, :0]}, 2)
  with pytest.raises(ValueError, match='every is 0'):
    stream(network, variables, inputs, 2, every=0)


@pytest.mark.parametrize(
  'module, changes, num_tokens, message',
  [
    (bert, {}, 2, 'keeps no cache'),
    (gpt2, {}, 2, 'build the network without num_classes'),
    (gpt2, {'num_classes': None}, 12, '17 tokens, but the network has 16 positions'),
  ],
)
def test_networks_that_cannot_generate(module, changes, num_tokens, message):
  options, inputs = module.tiny()
  network = module.build(**{**options, **changes})
  variables = jax.eval_shape(network.init, jax.random.key(0), inputs)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda variables: generate(network, variables, inputs, num_tokens), variables)
