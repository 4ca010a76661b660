"""Bits by hand; packing and masks against official losses; padding; halves."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.backbones.test_parity_text import load, official
from tests.tasks.golden import TEXT
from tests.tasks.test_classification import sums_of
from tlx.inputs import _targets, language
from tlx.tasks import _tokens, dialogue
from tlx.tasks import language as language_task
from tlx.types import Batch

TASK = language_task.task()


def uniform(nats):
  """Logits [1, T, 2] of which token 0 costs these nats."""
  probability = np.exp(-np.asarray(nats))
  return jnp.log(jnp.stack([probability, 1 - probability], -1))[None]


def batch_of(sizes, characters=None, wanted=None):
  """One row of tokens 0 to predict that cover so many bytes."""
  sizes = np.asarray(sizes)[None]
  wanted = np.zeros_like(sizes) if wanted is None else np.asarray(wanted)[None]
  characters = sizes if characters is None else np.asarray(characters)[None]
  targets = {'next': wanted, 'bytes': sizes, 'characters': characters}
  return Batch(None, targets, jnp.ones(1))


def columns_of(logits, batch, task=TASK):
  return task.scores(sums_of(task, logits, batch))


def test_bits_are_those_of_hand():
  case = TEXT['language_model']['cases'][0]  # 'añ b'
  columns = columns_of(uniform(case['token_nats']), batch_of([1, 2, 1, 1], [1, 1, 1, 1]))
  for column in ('bits_per_byte', 'bits_per_character'):
    assert columns[column] == pytest.approx(case[column], rel=1e-6)
  assert columns['token_perplexity'] == pytest.approx(case['perplexity'], rel=1e-6)
  assert columns['loss'] == pytest.approx(0.5) and columns['tokens'] == 4 and columns['bytes'] == 5
  assert set(columns) == set(language_task.COLUMNS) == set(dialogue.COLUMNS)


def test_bits_are_ratios_of_sums():
  case = TEXT['language_model']['cases'][2]
  columns = columns_of(uniform(case['token_nats']), batch_of(case['token_bytes']))
  assert columns['bits_per_byte'] == pytest.approx(case['bits_per_byte'], rel=1e-6)
  assert TASK.select == ('bits_per_byte', -1) and TASK.head is None


def test_special_tokens_cost_loss_and_no_bits():
  """The end of an answer: 3 nats, no text."""
  columns = columns_of(uniform([1.0, 3.0]), batch_of([2, -1]), dialogue.task())
  assert columns['loss'] == pytest.approx(2.0)
  assert columns['bits_per_byte'] == pytest.approx(0.5 / np.log(2))
  assert columns['bytes'] == 2 and columns['tokens'] == 2


def test_what_is_not_to_predict_and_padding_count_nothing():
  logits = uniform([1.0, 9.0, 2.0])
  batch = batch_of([1, -1, 3], wanted=[0, -1, 0])
  assert columns_of(logits, batch)['loss'] == pytest.approx(1.5)
  twice = jnp.concatenate([logits, logits])
  targets = {name: np.concatenate([leaf, leaf]) for name, leaf in batch.targets.items()}
  padded = Batch(None, targets, jnp.array([1.0, 0.0]))
  assert sums_of(TASK, twice, padded) == sums_of(TASK, logits, batch)
  whole = sums_of(TASK, twice, padded._replace(mask=jnp.ones(2)))
  for name, (total, weight) in sums_of(TASK, logits, batch).items():
    assert whole[name] == pytest.approx((2 * total, 2 * weight))


def rows_of(documents, length):
  """The leaves of documents of token ids, a byte each."""
  pieces = []
  for i, ids in enumerate(documents):
    ones = np.ones(len(ids), int)
    pieces.append(language._Piece(i, _targets.Tokens(np.array(ids), ones, ones)))
  return language._filled(language.pack(pieces, length), length).leaves


@pytest.mark.parametrize('backbone', ['gpt2', 'llama'])
def test_packed_documents_cost_what_each_costs_alone(backbone):
  """As transformers' with a mask of blocks and positions that begin anew; gpt2 tells a missing
  reset.
  """
  case = TEXT['packing'][backbone]
  arrays, inputs, _ = official(backbone)
  network, variables = load(backbone, arrays, inputs)
  leaves = rows_of(case['documents'], 24)
  assert len(leaves['ids']) == 1 and set(leaves['mask'][0]) == {0, 1, 2}
  outputs, _ = network.apply(variables, _targets.enter(leaves), train=False)
  sums = sums_of(TASK, outputs, Batch(None, TASK.targets(leaves, None), jnp.ones(1)))
  assert sums['loss'][1] == case['count']
  assert sums['loss'][0] == pytest.approx(case['sum_nats'], abs=2e-5)


def test_masked_labels_cost_what_transformers_says():
  case = TEXT['masked']['gpt2']
  arrays, inputs, _ = official('gpt2')
  network, variables = load('gpt2', arrays, inputs)
  ids, labels = np.array(case['ids']), np.array(case['labels'])
  outputs, _ = network.apply(variables, {'ids': ids[:, :-1]}, train=False)
  wanted = np.where(labels[:, 1:] < 0, -1, labels[:, 1:])
  sizes = np.ones_like(wanted)
  batch = Batch(None, {'next': wanted, 'bytes': sizes, 'characters': sizes}, jnp.ones(2))
  total, count = sums_of(TASK, outputs, batch)['loss']
  assert count == case['count']
  assert total / count == pytest.approx(case['mean_over_tokens'], abs=2e-6)


def test_scores_in_chunks_cost_the_same():
  random = np.random.default_rng(0)
  features, kernel = (random.normal(size=size).astype(np.float32) for size in ((2, 3, 4), (9, 4)))
  wanted = np.array([[1, -1, 8], [0, 3, 2]])
  batch = Batch(None, {'next': wanted, 'bytes': wanted, 'characters': wanted}, jnp.ones(2))
  whole = sums_of(TASK, jnp.asarray(features @ kernel.T), batch)
  chunks = {'features': jnp.asarray(features), 'kernel': jnp.asarray(kernel)}
  for name, sums in sums_of(TASK, chunks, batch).items():
    assert sums == pytest.approx(whole[name], rel=1e-5)


def test_nothing_of_the_size_of_the_vocabulary_is_kept():
  assert TASK.keep(jnp.zeros((2, 3, 4))) == {}
  assert _tokens.targets({'next': 1, 'bytes': 2, 'characters': 3, 'ids': 4}, None).keys() == {
    'next',
    'bytes',
    'characters',
  }
