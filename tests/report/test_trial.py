"""Advice on trial: regret and paired differences by hand."""

import numpy as np
import pandas as pd
import pytest

from tlx.report import trial

SCORES = pd.DataFrame(
  [
    # source, target, shots, seed: frozen 0, 1, 2
    ('m', 'near', 5, 0, 0.50, 0.60, 0.70),
    ('m', 'near', 5, 1, 0.60, 0.70, 0.90),
    ('m@2', 'near', 5, 0, 0.70, 0.70, 0.70),
    ('m@2', 'near', 5, 1, 0.60, 0.60, 0.70),
    ('m', 'far', 5, 0, 0.90, 0.60, 0.30),
  ],
  columns=[*trial.AT, 0, 1, 2],
).set_index(trial.AT)


def advised(*depths):
  return SCORES.reset_index()[trial.AT].assign(depth=depths)


def test_regret_and_differences():
  table = trial.trial(SCORES, advised(2, 0, 2, 2, 0)).set_index(['source', 'target'])
  near, far, every = table.loc['m', 'near'], table.loc['m', 'far'], table.loc['m', 'all']
  # the best of near is 2 frozen; one of four runs was advised to tune all: 0.6 for 0.9
  assert near['best'] == 2 and near['advised'] == 1.5 and near['runs'] == 4
  assert near['regret'] == pytest.approx(30 / 4)
  assert near['over tune all'] == pytest.approx((20 + 0 + 0 + 10) / 4)
  assert near['over freeze all'] == pytest.approx(-30 / 4)
  assert near['over random'] == pytest.approx(100 * np.mean([0.1, 0.6 - 2.2 / 3, 0, 0.2 / 3]))
  assert near['over tune all low'] < near['over tune all'] < near['over tune all high']
  assert far['best'] == 0 and far['regret'] == 0 and far['over freeze all'] == pytest.approx(60)
  # of all: (m, 0), the only one with both targets, so that both count alike
  assert every['regret'] == 0 and np.isnan(every['best']) and every['runs'] == 2
  assert every['over tune all'] == pytest.approx((20 + 0) / 2)
  assert trial.words(trial.trial(SCORES, advised(2, 0, 2, 2, 0))).count('m -> ') == 3


def test_without_a_seed_of_all_cells_there_is_no_row_of_all():
  depths = advised(2, 0, 2, 2, 0)
  table = trial.trial(SCORES, depths[depths['target'] == 'near'])
  assert table['target'].tolist() == ['near', 'all'] and table['runs'].tolist() == [4, 4]
  depths.loc[0, 'depth'] = -1  # (m, near, 0)
  assert trial.trial(SCORES, depths)['target'].tolist() == ['near', 'far']


def test_the_order_of_runs_does_not_matter_and_those_without_advice_are_left_out():
  given = advised(2, 0, -1, 2, 0)
  one, other = (trial.trial(SCORES, part) for part in (given, given[::-1]))
  pd.testing.assert_frame_equal(one, other)
  assert one['runs'].tolist()[:2] == [3, 1]
  with pytest.raises(ValueError, match='No run has both'):
    trial.trial(SCORES, advised(-1, -1, -1, -1, -1))


def test_depths_that_nobody_trained_are_named():
  for left_out in (0, 2):
    with pytest.raises(ValueError, match=f'no method that freezes {left_out} groups'):
      trial.trial(SCORES.drop(columns=left_out), advised(2, 1, 2, 2, 1))
