"""Entities and their F1 against seqeval; sub-tokens; padding; halves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks.golden import TEXT
from tests.tasks.test_classification import sums_of
from tlx.datasets._types import in_order
from tlx.tasks import tagging
from tlx.types import Batch

CASES = TEXT['seqeval']
TASK = tagging.task(7)  # three types
TASK = TASK._replace(terms=jax.jit(TASK.terms))


def numbered(case):
  """(types, truth, predicted) of a golden case: tags as numbers [N, T], -1 behind a text."""
  texts = [*case['truth'], *case['predicted']]
  types = in_order(tag[2:] for text in texts for tag in text if tag != 'O')
  names = ['O', *(f'{place}-{name}' for name in types for place in 'BI')]
  rows = np.full((2, 12, 14), -1)  # as many as the largest case has: one shape, compiled once
  for i, text in enumerate(texts):
    half, row = divmod(i, len(case['truth']))
    rows[half, row, : len(text)] = [names.index(tag) for tag in text]
  return types, *rows


def spread_out(tags, every):
  """(the tags of tokens of which some begin no word, the place of each word's first one)."""
  wide = np.full((len(tags), tags.shape[1] * every + 1), 5)  # a type: what is not asked for
  wide[:, 1::every] = tags
  places = np.broadcast_to(np.arange(tags.shape[1]) * every + 1, tags.shape)
  return wide, np.where(tags < 0, -1, places)


def columns_of(truth, predicted, mask=None, every=1, lost=()):
  """`lost` are the numbers of words that have no token."""
  wide, places = spread_out(predicted, every)
  places[:, list(lost)] = -1
  targets = {'tags': truth, 'places': places}
  logits = jax.nn.one_hot(jnp.maximum(wide, 0), TASK.head) * 5.0
  batch = Batch(
    None,
    jax.tree.map(jnp.asarray, targets),
    jnp.ones(len(truth)) if mask is None else mask,
  )
  sums = sums_of(TASK, logits, batch)
  kept = {name: np.asarray(leaf) for name, leaf in TASK.keep(logits).items()}
  return sums, TASK.scores(sums, kept, targets)


@pytest.mark.parametrize('every', [1, 3])
@pytest.mark.parametrize('case', CASES, ids=[case['name'] for case in CASES])
def test_f1_is_that_of_seqeval(case, every):
  types, truth, predicted = numbered(case)
  _, columns = columns_of(truth, predicted, every=every)
  want = case['conlleval']
  for name in ('f1', 'precision', 'recall', 'macro_f1'):
    assert columns[name] == pytest.approx(want[name], abs=1e-6, nan_ok=True), name
  for name, f1 in zip(types, columns['f1_by_type']):
    assert np.nan_to_num(f1) == pytest.approx(
      want['per_type'].get(name, {'f1-score': 0.0})['f1-score'], abs=1e-6
    )
  assert columns['accuracy'] == pytest.approx(np.mean((truth == predicted)[truth >= 0]))
  assert set(columns) - {'f1_by_type'} == set(tagging.COLUMNS)


def test_padding_and_halves():
  case = max(TEXT['seqeval'], key=lambda case: len(case['truth']))
  _, truth, predicted = numbered(case)
  whole, _ = columns_of(truth, predicted)
  mask = jnp.arange(len(truth)) < 6
  first, _ = columns_of(truth, predicted, mask.astype(jnp.float32))
  alone, _ = columns_of(truth[:6], predicted[:6])
  rest, _ = columns_of(truth[6:], predicted[6:])
  for name, sums in whole.items():
    assert first[name] == pytest.approx(alone[name])
    assert sums == pytest.approx(np.add(alone[name], rest[name]), rel=1e-5)


def test_loss_by_hand():
  logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]))
  targets = {'tags': jnp.array([[0, 2, -1]]), 'places': jnp.array([[0, 2, -1]])}
  batch = Batch(None, targets, jnp.ones(1))
  columns = tagging.task(3).scores(sums_of(tagging.task(3), logits, batch))
  assert columns['loss'] == pytest.approx(-np.log(0.5 * 0.6) / 2, abs=1e-6)
  assert columns['f1'] == 1.0 and columns['entities'] == 1 and tagging.task(3).select == ('f1', 1)


def test_words_without_a_token_are_answered_o():
  """B-1 I-1 | O B-2 I-2 of which the last word is cut off: the second entity is missed, what is
  left of it is found in vain."""
  truth = np.array([[1, 2, 0, 3, 4]])
  sums, columns = columns_of(truth, truth, lost=[4])
  assert columns['precision'] == columns['recall'] == columns['f1'] == 0.5
  assert columns['accuracy'] == 0.8 and columns['f1_by_type'][:2] == [1.0, 0.0]
  assert sums['loss'][1] == 4
  _, columns = columns_of(truth, truth, lost=[3, 4])
  assert columns['precision'] == 1.0 and columns['recall'] == 0.5 and columns['entities'] == 2
  _, columns = columns_of(truth, truth, lost=[0])  # what begins with I-1 is another entity
  assert columns['precision'] == columns['recall'] == 0.5


def test_scores_of_whole_texts_are_refused():
  with pytest.raises(ValueError, match="pool = 'tokens'"):
    columns_of_texts = jnp.zeros((2, 7))
    TASK.terms(columns_of_texts, Batch(None, {'tags': None, 'places': None}, jnp.ones(2)))
