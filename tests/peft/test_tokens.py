"""Prompts and prefixes: the numbers of the peft library, VPT's formula, and padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.peft import official
from tlx import backbones, peft
from tlx.backbones import bert, gpt2, llama, modernbert, vit
from tlx.parity import relative_error
from tlx.peft import prefix, prompt
from tlx.plug import plug
from tlx.train.prefix import boundary
from tlx.tree import is_added, map_named, named_leaves

KEY = jax.random.key(0)


@pytest.mark.parametrize('name', ['gpt2', 'llama'])
def test_numbers_of_the_peft_library(name):
  base, stored = official.base(name), official.stored()
  embedding = stored[f'prompt_{name}:prompt_encoder.default.embedding.weight']
  method = prompt.added(tokens=4)
  params = official.with_leaves(name, method, {'embed/before': embedding})
  found = official.run(f'prompt_{name}', name, peft.wrap(base.network, method), params)
  assert relative_error(found, stored[f'prompt_{name}_logits'][:, 4:]) < 1e-5

  embedding = stored[f'prefix_{name}:prompt_encoder.default.embedding.weight']
  parts, leaves = np.split(embedding, 6, axis=1), {}
  for i in range(3):
    leaves[f'block{i}/attention/key'] = parts[2 * i]
    leaves[f'block{i}/attention/value'] = parts[2 * i + 1]
  if name == 'gpt2':
    leaves['embed/fixed/first'] = np.float32(4)
  method = prefix.added(tokens=4)
  params = official.with_leaves(name, method, leaves)
  found = official.run(f'prefix_{name}', name, peft.wrap(base.network, method), params)
  assert relative_error(found, stored[f'prefix_{name}_logits']) < 1e-5


@functools.cache
def made(module, method, **options):
  """(network, variables with kernels that are not small, inputs)."""
  sizes, inputs = module.tiny()
  network = peft.wrap(module.build(**sizes), plug('peft', method).added(tokens=3, **options))
  variables = network.init(KEY, inputs)
  larger = lambda path, leaf: 20 * leaf if path.endswith(('kernel', 'embedding')) else leaf
  longer = lambda path, leaf: 20 * leaf if is_added(path) else larger(path, leaf)
  return network, variables._replace(params=map_named(longer, variables.params)), inputs


@pytest.mark.parametrize(
  'module, deep',
  [
    (bert, False),
    (bert, True),
    (gpt2, False),
    (llama, True),
    (modernbert, False),
    (modernbert, True),
  ],
)
def test_prompts_and_padding(module, deep):
  """A text alone gives what it gives beside longer ones, whichever side is padded."""
  network, variables, inputs = made(module, 'prompt', deep=deep)
  run = lambda ids, mask: network.apply(variables, {'ids': ids, 'mask': mask}, train=False)[0]
  batch = run(inputs['ids'], inputs['mask'])
  assert np.abs(batch[0] - batch[1]).max() > 1e-3
  for row in (1, 2):
    real = np.flatnonzero(inputs['mask'][row])
    ids = inputs['ids'][row : row + 1, real[0] : real[-1] + 1]
    np.testing.assert_allclose(run(ids, jnp.ones_like(ids))[0], batch[row], rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize('module', [bert, gpt2, llama, modernbert])
def test_a_prefix_and_padding_at_the_right(module):
  network, variables, inputs = made(module, 'prefix')
  run = lambda ids, mask: network.apply(variables, {'ids': ids, 'mask': mask}, train=False)[0]
  batch, ids = run(inputs['ids'], inputs['mask']), inputs['ids'][1:2, :3]
  np.testing.assert_allclose(run(ids, jnp.ones_like(ids))[0], batch[1], rtol=1e-5, atol=5e-5)
  other = variables._replace(
    params=map_named(lambda name, leaf: leaf + 1 if is_added(name) else leaf, variables.params)
  )
  assert np.abs(network.apply(other, inputs, train=False)[0] - batch).max() > 1e-3


@pytest.mark.parametrize('method', ['prompt', 'prefix'])
@pytest.mark.parametrize('module', [bert, gpt2, llama])
def test_no_stage_that_is_edited_is_kept_for_other_methods(method, module):
  """Frozen stages run once for all methods; one that is edited has leaves of its own."""
  network, variables, inputs = made(module, method)
  alone = variables._replace(params=peft.tree_of(peft.split(variables.params, method)[0]))
  labels = {name: 'frozen' for name, _ in named_leaves(variables.params)}
  changed = frozenset(filter(is_added, labels))
  kept = boundary(network, variables, labels, frozenset(), changed)
  assert kept == (1 if method == 'prefix' and module is not gpt2 else 0)
  base = module.build(**module.tiny()[0])
  found = network.apply(variables, inputs, train=False, stop=kept)[0]
  want = base.apply(alone, inputs, train=False, stop=kept)[0]
  jax.tree.map(np.testing.assert_array_equal, found, want)


@pytest.mark.parametrize('method', ['prompt', 'prefix'])
@pytest.mark.parametrize('module', [gpt2, llama])
def test_texts_in_one_row_give_what_they_give_alone(method, module):
  network, variables, inputs = made(module, method)
  run = lambda ids, mask: network.apply(
    variables, {'ids': ids, 'mask': mask}, train=False, stop=-1
  )[0]['hidden']
  first, second = inputs['ids'][:1, :3], inputs['ids'][1:2, 1:3]
  both = run(jnp.concatenate([first, second], 1), jnp.array([[1, 1, 1, 2, 2]]))
  alone = [run(ids, jnp.ones_like(ids)) for ids in (first, second)]
  np.testing.assert_allclose(both, jnp.concatenate(alone, 1), rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize('method', ['prompt', 'prefix'])
def test_texts_in_one_row_see_what_was_added_and_not_each_other(method):
  """The second text of a row, in a network whose positions are relative."""
  sizes, _ = llama.tiny()
  network = peft.wrap(
    llama.build(**{**sizes, 'num_classes': None}), plug('peft', method).added(tokens=3)
  )
  _, variables, _ = made(llama, method)
  params = {**variables.params, 'head': {}}

  def second(first, params=params):
    row = {'ids': jnp.array([[*first, 9, 4]]), 'mask': jnp.array([[1, 1, 2, 2]])}
    return network.apply(variables._replace(params=params), row, train=False)[0][0, 2:]

  other = map_named(lambda name, leaf: 2 * leaf if is_added(name) else leaf, params)
  np.testing.assert_allclose(second((5, 3)), second((8, 1)), atol=1e-6)
  assert np.abs(second((5, 3)) - second((5, 3), other)).max() > 1e-3


@pytest.mark.parametrize('deep', [False, True])
def test_prompts_leave_a_head_the_last_token_that_is_not_padding_by_its_id(deep):
  sizes, _ = llama.tiny()
  network = peft.wrap(llama.build(**sizes, head_pad_id=16), prompt.added(tokens=3, deep=deep))
  padded = {'ids': jnp.array([[5, 3, 8, 16, 16]]), 'mask': jnp.array([[1, 1, 1, 1, 0]])}
  _, variables, _ = made(llama, 'prompt', deep=deep)
  alone = network.apply(variables, {'ids': padded['ids'][:, :3]}, train=False)[0]
  found = network.apply(variables, padded, train=False)[0]
  np.testing.assert_allclose(found, alone, rtol=1e-5, atol=5e-5)
  of_mask = made(llama, 'prompt', deep=deep)[0].apply(variables, padded, train=False)[0]
  assert np.abs(of_mask - alone).max() > 1e-3


def test_a_prefix_moves_no_positions_of_an_encoder_without_types():
  _, variables, inputs = made(bert, 'prefix')
  sizes, _ = bert.tiny()
  embed = variables.params['embed']
  types = {'embedding': jnp.zeros_like(embed['types']['embedding'])}
  rest = {name: leaf for name, leaf in embed.items() if name != 'types'}
  found = []
  for number, leaves in ((2, {**rest, 'types': types}), (0, rest)):
    network = peft.wrap(bert.build(**sizes, num_types=number), prefix.added(tokens=3))
    params = {**variables.params, 'embed': leaves}
    found.append(network.apply(variables._replace(params=params), inputs, train=False)[0])
  np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.parametrize('deep', [False, True])
@pytest.mark.parametrize('pool', ['token', 'mean'])
def test_visual_prompts_by_hand(deep, pool):
  """Tokens joined and dropped around the blocks of the network without prompts."""
  sizes, images = vit.tiny()
  base = vit.build(**{**sizes, 'pool': pool})
  wrapped = peft.wrap(base, prompt.added(tokens=3, deep=deep))
  variables = wrapped.init(KEY, images)
  leaves = peft.split(variables.params, 'prompt')[1]
  alone = variables._replace(params=peft.tree_of(peft.split(variables.params, 'prompt')[0]))
  run = functools.partial(base.apply, alone, train=False)
  x = run(images, stop=1)[0]
  length = x.shape[1]
  stages = base.stages[1:-3]
  assert len(leaves) == (len(stages) if deep else 1)
  for i, stage in enumerate(stages, 1):
    if deep or i == 1:
      prompts = leaves[f'{stage}/after' if deep else 'embed/after']
      x = jnp.concatenate([x[:, :length], jnp.stack([prompts] * len(x))], 1)
    x = run(x, start=i, stop=i + 1)[0]
  want = run(x[:, :length], start=-3)[0]
  found = wrapped.apply(variables, images, train=False)[0]
  np.testing.assert_allclose(found, want, atol=1e-5)
  assert np.abs(found - run(images)[0]).max() > 1e-5


def test_prompts_leave_before_a_head_after_an_earlier_block():
  sizes, inputs = bert.tiny()
  cut = backbones.head_after(bert.build(**sizes), 'block0', 3)
  network = peft.wrap(cut, prompt.added(tokens=3))
  variables = network.init(KEY, inputs)
  assert network.apply(variables, inputs, train=False, stop=2)[0]['hidden'].shape == (3, 5, 8)


@pytest.mark.parametrize('method', ['prompt', 'prefix'])
def test_what_is_refused(method):
  with pytest.raises(ValueError, match='whole number from 1 on, got tokens=0'):
    plug('peft', method).added(tokens=0)
  network, variables, inputs = made(gpt2, method)
  with pytest.raises(ValueError, match=f'{method}: texts are not generated with'):
    network.apply(variables, {**inputs, 'cache': ()}, train=False)
