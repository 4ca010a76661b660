"""Language backbones: the names that public weights go by, tying, padding, pooling. Their parity is
in test_parity_cases.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlx.backbones import gpt2
from tlx.generate import generate
from tlx.parity import cases, relative_error
from tlx.plug import plug
from tlx.tasks._vocabulary import nll


def official(name):
  """(the file's arrays, the official inputs, the official outputs)."""
  case = cases.read(name)
  return dict(case.arrays), case.inputs, case.outputs


def load(name, arrays, inputs, **changes):
  """(the network, its variables from the arrays)."""
  return cases.build(cases.read(name)._replace(arrays=arrays, inputs=inputs), **changes)


def drawn(network, inputs):
  """Random variables; a program of its own to initialise them takes longer to compile than the
  network.
  """
  generator = np.random.default_rng(0)
  shapes = jax.eval_shape(network.init, jax.random.key(0), inputs)
  return jax.tree.map(
    lambda leaf: generator.normal(scale=0.3, size=leaf.shape).astype(leaf.dtype), shapes
  )


@pytest.mark.parametrize('case', ['bert', 'gpt2', 'llama'])
def test_bfloat16_is_for_activations_and_the_head_is_float32(case):
  arrays, inputs, _ = official(case)
  network, variables = load(case, arrays, inputs, dtype='bfloat16')
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype('float32')}
  hidden, out = (
    jax.eval_shape(lambda x, k=k: network.apply(variables, x, train=False, stop=k)[0], inputs)
    for k in (2, None)
  )
  assert hidden['hidden'].dtype == jnp.bfloat16 and out.dtype == jnp.float32


@pytest.mark.parametrize(
  'case, prefix', [('bert', 'bert.'), ('gpt2', 'transformer.'), ('llama', 'model.')]
)
def test_names_with_and_without_prefix(case, prefix):
  arrays, inputs, _ = official(case)
  base = {
    name.removeprefix(prefix): array for name, array in arrays.items() if name != 'lm_head.weight'
  }
  full = {prefix + name: array for name, array in base.items()}
  assert same(load(case, base, inputs)[1], load(case, full, inputs)[1])


def test_the_first_release_of_bert_has_other_names_for_norms():
  arrays, inputs, _ = official('bert')
  old = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}
  renamed = {}
  for name, array in arrays.items():
    for now, then in old.items():
      name = name.replace(now, then)
    renamed[f'bert.{name}'] = array
  assert 'bert.encoder.layer.0.output.LayerNorm.gamma' in renamed
  assert same(load('bert', renamed, inputs)[1], load('bert', arrays, inputs)[1])


def same(one, other):
  """Whether two trees are equal leaf by leaf."""
  return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def gguf_arrays(arrays, heads, kv_heads, permute):
  """The arrays as llama.cpp's converter writes them: its names; query and key rows of Llama models
  reordered.
  """
  parts = {
    'input_layernorm': 'attn_norm',
    'post_attention_layernorm': 'ffn_norm',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
    'model.layers': 'blk',
    'model.embed_tokens': 'token_embd',
    'model.norm': 'output_norm',
    'lm_head': 'output',
  }
  found = {}
  for name, array in arrays.items():
    num = heads if 'q_proj' in name else kv_heads if 'k_proj' in name else None
    if num and permute:
      array = (
        array.reshape(num, 2, array.shape[0] // num // 2, -1).swapaxes(1, 2).reshape(array.shape)
      )
    for theirs, ours in parts.items():
      name = name.replace(theirs, ours)
    found[name] = array
  return found


@pytest.mark.parametrize(
  'case, permute', [('llama', True), ('llama_untied', True), ('qwen2', False)]
)
def test_gguf_names_and_rotary_pairs(case, permute):
  arrays, inputs, _ = official(case)
  options = cases.read(case).options
  renamed = gguf_arrays(arrays, options['heads'], options['kv_heads'], permute)
  assert same(load(case, renamed, inputs)[1], load(case, arrays, inputs)[1])


def test_a_tied_embedding_is_one_parameter_with_the_gradients_of_both_uses():
  options = {'vocab_size': 17, 'dim': 8, 'depth': 0, 'heads': 2, 'max_positions': 8}
  inputs = {'ids': np.arange(8, dtype=np.int32).reshape(2, 4)}
  tied, untied = gpt2.build(**options), gpt2.build(**options, tied=False)
  variables = drawn(tied, inputs)
  embedding = variables.params['embed']['tokens']['embedding']
  copies = variables._replace(params={**variables.params, 'head': {'embedding': embedding}})
  assert variables.params['head'] == {}

  def gradients(network, variables):
    def loss(params):
      return jnp.tanh(network.apply(variables._replace(params=params), inputs, train=True)[0]).sum()

    return jax.jit(jax.grad(loss))(variables.params)

  of_one, of_two = gradients(tied, variables), gradients(untied, copies)
  uses = of_two['embed']['tokens']['embedding'], of_two['head']['embedding']
  assert all(np.abs(use).max() > 1e-2 for use in uses)
  np.testing.assert_allclose(
    of_one['embed']['tokens']['embedding'], sum(uses), rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize(
  'backbone, options',
  [('gpt2', {}), ('llama', {'logit_scale': 0.5, 'embed_scale': 3.0}), ('llama', {'tied': False})],
)
def test_features_and_kernel_give_the_loss_and_the_gradients_of_logits(backbone, options):
  module = plug('backbones', backbone)
  small, inputs = module.tiny()
  options = {**small, **options, 'num_classes': None, 'depth': 1}
  whole, chunked = module.build(**options), module.build(**options, logits=False)
  variables = drawn(whole, inputs)
  targets = np.asarray(inputs['ids'] + 1)

  def of_logits(variables):
    logits, _ = whole.apply(variables, inputs, train=True)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1).sum()

  def of_chunks(variables):
    outputs, _ = chunked.apply(variables, inputs, train=True)
    return nll(outputs['features'], outputs['kernel'], targets, 5).sum()

  wanted, got = (jax.jit(jax.value_and_grad(loss))(variables) for loss in (of_logits, of_chunks))
  assert float(jnp.abs(got[1].params['embed']['tokens']['embedding']).max()) > 1e-2
  for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('case', ['bert', 'gpt2', 'llama'])
def test_activations_between_stages_hold_examples_only(case):
  arrays, inputs, _ = official(case)
  network, variables = load(case, arrays, inputs)
  for k in range(1, len(network.stages)):
    between = jax.eval_shape(
      lambda x, k=k: network.apply(variables, x, train=False, stop=k)[0], inputs
    )
    assert {leaf.shape[0] for leaf in jax.tree.leaves(between)} == {len(inputs['ids'])}


@pytest.mark.parametrize('case', ['gpt2_padded', 'llama_untied'])
@pytest.mark.parametrize('num_classes', [None, 4])
def test_padding_left_or_right_changes_nothing(case, num_classes):
  stored = cases.read(case)
  network = plug('backbones', stored.backbone).build(num_classes, **{**stored.options, 'depth': 1})
  right = {
    'ids': np.array([[5, 3, 8, 1, 2]], np.int32),
    'mask': np.array([[1, 1, 1, 0, 0]], np.int32),
  }
  left = {
    'ids': np.array([[7, 4, 5, 3, 8]], np.int32),
    'mask': np.array([[0, 0, 1, 1, 1]], np.int32),
  }
  variables = drawn(network, right)
  run = jax.jit(lambda x: network.apply(variables, x, train=False)[0])
  of_right, of_left = run(right), run(left)
  if num_classes is None:
    of_right, of_left = of_right[:, :3], of_left[:, 2:]
  assert of_left.shape == ((1, 3, 89) if num_classes is None else (1, 4))
  assert np.abs(of_left).max() > 1e-3
  np.testing.assert_allclose(of_right, of_left, atol=1e-6)


@pytest.mark.parametrize(
  'backbone, options', [('bert', {}), ('bert', {'pad_id': 0}), ('modernbert', {})]
)
@pytest.mark.parametrize('pool', ['tokens', 'cls', 'mean'])
def test_padding_changes_nothing_in_an_encoder(backbone, options, pool):
  module = plug('backbones', backbone)
  small, _ = module.tiny()
  network = module.build(**{**small, 'num_classes': None, 'pool': pool, **options})
  padded = {
    'alone': {'ids': [[5, 3, 8]]},
    'right': {'ids': [[5, 3, 8, 0, 0]], 'mask': [[1, 1, 1, 0, 0]]},
    'left': {'ids': [[0, 0, 5, 3, 8]], 'mask': [[0, 0, 1, 1, 1]]},
    'filled': {'ids': [[5, 3, 8, 9, 7]], 'mask': [[1, 1, 1, 0, 0]]},
  }
  inputs = {name: {k: np.array(v, np.int32) for k, v in x.items()} for name, x in padded.items()}
  variables = drawn(network, inputs['right'])
  found = {
    name: np.asarray(network.apply(variables, x, train=False)[0]) for name, x in inputs.items()
  }
  if pool == 'tokens':
    found = {name: out[:, 2:] if name == 'left' else out[:, :3] for name, out in found.items()}
  assert np.abs(found['alone']).max() > 1e-3
  for out in found.values():
    np.testing.assert_allclose(out, found['alone'], atol=1e-5)


def test_a_local_block_sees_half_its_tokens_before_and_half_after():
  module = plug('backbones', 'modernbert')
  options, _ = module.tiny()
  options |= {'local_blocks': (0,), 'local_attention': 4}
  network = module.build(**options)
  ids = np.arange(8, dtype=np.int32)[None]
  variables = drawn(network, {'ids': ids})

  def block(ids):
    return np.asarray(network.apply(variables, {'ids': ids}, train=False, stop=2)[0]['hidden'])

  changed = block(np.where(ids == 3, 9, ids)) != block(ids)
  assert np.flatnonzero(changed.any(-1)[0]).tolist() == [1, 2, 3, 4, 5]


def test_heads_of_pretraining_are_dropped_where_no_classes_are_asked_for():
  """Of BERT and DistilBERT, whose classifier has a layer that is no pooler of BERT's."""
  arrays, inputs, outputs = official('bert')
  arrays = {f'bert.{name}': array for name, array in arrays.items() if 'pooler' not in name}
  arrays['cls.predictions.bias'] = np.zeros(97, np.float32)
  case = cases.read('bert')._replace(
    arrays=arrays, inputs=inputs, beside=({}, {'architectures': ['BertForMaskedLM']})
  )
  network, variables = cases.build(case, pool='cls')
  got, _ = network.apply(variables, inputs, train=False)
  assert relative_error(got, outputs['last'][:, 0]) < 1e-5
  with pytest.raises(ValueError, match='- bert.pooler.dense.weight'):
    cases.build(case, pool='pooler')

  classifier = cases.read('distilbert_classifier', cases.FOLDER / 'variants')
  without = classifier._replace(outputs={}, options={**classifier.options, 'pool': 'mean'})
  network, variables = cases.build(without)
  pooled, _ = network.apply(variables, without.inputs, train=False)
  assert pooled.shape == (3, 24) and variables.params['head'] == {}


@pytest.mark.parametrize('pool', ['pooler', 'cls', 'mean'])
def test_bert_pools(pool):
  arrays, inputs, outputs = official('bert')
  network, variables = load('bert', arrays, inputs, pool=pool)
  got, _ = network.apply(
    variables, {'hidden': outputs['last'], 'mask': inputs['mask']}, train=False, start=-2
  )
  weight = inputs['mask'][..., None] / inputs['mask'].sum(1)[:, None, None]
  want = {
    'pooler': outputs['pooled'],
    'cls': outputs['last'][:, 0],
    'mean': (outputs['last'] * weight).sum(1),
  }[pool]
  assert relative_error(got, want) < 1e-5
  as_sentence_encoders_end, _ = load('bert', arrays, inputs, pool=pool, unit=True)
  got, _ = as_sentence_encoders_end.apply(variables, inputs, train=False)
  assert relative_error(got, want / np.linalg.norm(want, axis=1, keepdims=True)) < 1e-4


def test_bert_tells_two_texts_apart_by_type():
  arrays, inputs, _ = official('bert')
  network, variables = load('bert', arrays, inputs)
  embed = variables.params['embed']
  swapped = variables._replace(
    params={'embed': {**embed, 'types': {'embedding': embed['types']['embedding'][::-1]}}}
  )
  run = jax.jit(lambda variables, x: network.apply(variables, x, train=False, stop=1)[0]['hidden'])
  ones = run(variables, {**inputs, 'types': np.ones_like(inputs['ids'])})
  np.testing.assert_array_equal(
    ones, run(swapped, {**inputs, 'types': np.zeros_like(inputs['ids'])})
  )
  assert relative_error(ones, np.asarray(run(variables, inputs))) > 1e-3


def test_two_embeddings_that_differ_are_not_tied_silently():
  arrays, inputs, _ = official('gpt2')
  arrays['lm_head.weight'] = arrays['lm_head.weight'] + 1
  with pytest.raises(
    ValueError,
    match=r'lm_head.weight differs from transformer.wte.weight .* build it with tied=False',
  ):
    load('gpt2', arrays, inputs)
  load('gpt2', arrays, inputs, tied=False)


@pytest.mark.parametrize(
  'backbone, options, message',
  [
    (
      'llama',
      {'variant': 'smollm2_13m'},
      r"Unknown variant 'smollm2_13m'; have .* Did you mean 'smollm2_135m'\?",
    ),
    ('gpt2', {'dept': 2}, r"Unknown option 'dept'; have .* Did you mean 'depth'\?"),
    ('bert', {'dtype': 'float16'}, "dtype is 'float16'"),
    ('bert', {'pool': 'max'}, "pool is 'max'"),
    ('gpt2', {'dim': 10, 'heads': 3}, 'dim is 10, which 3 heads do not divide'),
    ('llama', {'heads': 9, 'kv_heads': 2}, 'heads is 9, which 2 kv_heads do not divide'),
  ],
)
def test_wrong_options(backbone, options, message):
  with pytest.raises(ValueError, match=message):
    plug('backbones', backbone).build(**options)


@pytest.mark.parametrize(
  'inputs, message',
  [
    (np.zeros((1, 3), np.int32), r"Text inputs are a dict of 'ids'.*got an array \(1, 3\)"),
    ({'tokens': np.zeros((1, 3), np.int32)}, r"got a dict of \['tokens'\]"),
    (
      {'ids': np.zeros((1, 3), np.int32), 'mask': np.ones((1, 2), np.int32)},
      r'mask covers \(1, 2\), the ids are \(1, 3\)',
    ),
    ({'ids': np.zeros((1, 33), np.int32)}, '33 tokens, but the network has 32 positions'),
  ],
)
@pytest.mark.parametrize('case', ['bert', 'gpt2'])
def test_wrong_inputs(case, inputs, message):
  stored = cases.read(case)
  network = plug('backbones', stored.backbone).build(**stored.options)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(network.init, jax.random.key(0), inputs)


def test_roberta_counts_the_positions_of_real_tokens_from_behind_its_padding():
  options = {'vocab_size': 9, 'dim': 8, 'depth': 1, 'heads': 2, 'mlp_dim': 8, 'max_positions': 8}
  roberta = plug('backbones', 'bert').build(**options, pad_id=1)
  plain = plug('backbones', 'bert').build(**options)
  ids = np.array([[5, 6, 7, 1, 1]], np.int32)
  variables = drawn(roberta, {'ids': ids})
  embed = variables.params['embed']
  table = np.asarray(embed['positions']['embedding'])
  moved = {**embed, 'positions': {'embedding': table[[2, 3, 4, 1, 1, 0, 0, 0]]}}
  found, _ = roberta.apply(variables, {'ids': ids}, train=False, stop=1)
  want, _ = plain.apply(
    variables._replace(params={'embed': moved}), {'ids': ids}, train=False, stop=1
  )
  np.testing.assert_allclose(found['hidden'], want['hidden'], atol=1e-6)
  with pytest.raises(ValueError, match='7 tokens, but the network has 6 positions'):
    roberta.apply(variables, {'ids': np.zeros((1, 7), np.int32)}, train=False, stop=1)


def test_generation_with_a_cache_sees_the_window_and_the_positions_of_the_whole_text():
  options = {
    'vocab_size': 31,
    'dim': 16,
    'depth': 2,
    'heads': 4,
    'kv_heads': 2,
    'mlp_dim': 16,
    'window': 3,
    'no_rope': (1,),
    'rope_factors': (1.0, 4.0),
    'qk_norm': True,
    'mlp_bias': True,
    'out_bias': True,
  }
  network = plug('backbones', 'llama').build(**options)
  ids = np.array([[5, 3, 8, 1], [2, 7, 9, 4]], np.int32)
  variables = drawn(network, {'ids': ids})
  whole = ids
  for _ in range(4):
    logits, _ = network.apply(variables, {'ids': whole}, train=False)
    whole = np.concatenate([whole, np.argmax(logits[:, -1:], -1)], 1)
  np.testing.assert_array_equal(generate(network, variables, {'ids': ids}, 4), whole[:, 4:])


@pytest.mark.parametrize(
  'options, words',
  [
    ({'rope_factors': (1.0,)}, 'give 32 numbers above 0'),
    ({'window': 0}, 'window is 0'),
    ({'rope_factors': (0.0,) * 32}, 'give 32 numbers above 0'),
  ],
)
def test_options_of_llama_that_cannot_be(options, words):
  with pytest.raises(ValueError, match=words):
    plug('backbones', 'llama').build(**options)


@pytest.mark.parametrize('backbone', ['bert', 'gpt2', 'llama', 'modernbert'])
def test_an_activation_that_is_none(backbone):
  with pytest.raises(
    ValueError,
    match="Option activation is 'gelu_new'; choose one of 'gelu', 'gelu_tanh', 'quick_gelu', "
    "'relu', 'silu'",
  ):
    plug('backbones', backbone).build(activation='gelu_new')
