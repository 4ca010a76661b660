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
  """The tags with tokens between them that begin no word."""
  wide = np.full((len(tags), tags.shape[1] * every + 1), -1)
  wide[:, 1::every] = tags
  return wide


def columns_of(truth, predicted, mask=None):
  logits = jax.nn.one_hot(jnp.maximum(predicted, 0), TASK.head) * 5.0
  batch = Batch(None, jnp.asarray(truth), jnp.ones(len(truth)) if mask is None else mask)
  sums = sums_of(TASK, logits, batch)
  kept = {name: np.asarray(leaf) for name, leaf in TASK.keep(logits).items()}
  return sums, TASK.scores(sums, kept, truth)


@pytest.mark.parametrize('every', [1, 3])
@pytest.mark.parametrize('case', CASES, ids=[case['name'] for case in CASES])
def test_f1_is_that_of_seqeval(case, every):
  types, truth, predicted = numbered(case)
  truth, wide = spread_out(truth, every), spread_out(predicted, every)
  wide[wide < 0] = len(types)  # what is predicted between words counts nothing
  _, columns = columns_of(truth, wide)
  want = case['conlleval']
  for name in ('f1', 'precision', 'recall', 'macro_f1'):
    assert columns[name] == pytest.approx(want[name], abs=1e-6, nan_ok=True), name
  for name, f1 in zip(types, columns['f1_by_type']):
    assert np.nan_to_num(f1) == pytest.approx(
      want['per_type'].get(name, {'f1-score': 0.0})['f1-score'], abs=1e-6
    )
  assert columns['accuracy'] == pytest.approx(np.mean((truth == wide)[truth >= 0]))


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
  batch = Batch(None, jnp.array([[0, -1, 2]]), jnp.ones(1))
  columns = tagging.task(3).scores(sums_of(tagging.task(3), logits, batch))
  assert columns['loss'] == pytest.approx(-np.log(0.5 * 0.6) / 2, abs=1e-6)
  assert columns['f1'] == 1.0 and columns['entities'] == 1 and tagging.task(3).select == ('f1', 1)
